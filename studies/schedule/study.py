"""The study of schedules: what is computed, simulated and trained, in one Dataset."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from deepcheck.data import Images
from odeflow.parameters import LABELS
from odeflow.provenance import provenance
from studies.common.images import images_of
from studies.common.kept import kept, study_folder
from studies.common.parallel import in_processes
from studies.common.tables import describe
from studies.registry import Outcome
from studies.schedule.claims import claims, table
from studies.schedule.figures import figures
from studies.schedule.measure import SEED, Case, at_equal_priors, best_of, choices_of, simulated
from studies.schedule.nets import SHAPES, Nets, net_on_images
from studies.schedule.plan import PLANS, SHARE, Plan

__all__ = ["run"]


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; what was computed and trained is kept in the folder, and not done again."""
    folder = study_folder(folder)
    images, note = images_of(quick=quick)
    plan = PLANS[quick]
    points = [(p, rho, alpha_max) for p in plan.p for rho in plan.rho for alpha_max in plan.alpha_max]
    tasks: list[tuple[Any, ...]] = [(folder, _net_task, nets, shape, strength, seed, images)
        for nets in plan.nets for shape in SHAPES for strength in nets.strengths for seed in range(nets.seeds)]  # fmt: skip
    first, sizes = plan.shown[0], (plan.pieces, plan.starts)
    tasks += [(folder, _shown, f"shown_{k}", case, *sizes) for k, case in enumerate(plan.shown)]
    tasks += [
        (folder, _shown, f"map_{p:g}_{rho:g}_{end:g}", Case(p, rho, SHARE * rho / 2, end), plan.pieces, plan.map_starts)
        for p, rho, end in points
    ]
    tasks += [(folder, _choices, first, *sizes, plan.choices), (folder, _simulated, first, *sizes, plan.N, plan.runs)]
    tasks.append((folder, _exact, plan.shown[-1], plan.pieces))
    parts = in_processes(_task, tasks)
    data = _assembled(parts, plan)
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), data=repr(images), plan=asdict(plan), data_set=images.name
    ) | {"note": note}  # fmt: skip
    return Outcome(data, figures(data, plan), table(data, plan), tuple(claims(data, plan)))


def _task(folder: Path, what: Any, *rest: Any) -> xr.Dataset:
    done: xr.Dataset = what(folder, *rest)
    return done


def _net_task(folder: Path, nets: Nets, shape: str, strength: float, seed: int, images: Images) -> xr.Dataset:
    return net_on_images(nets, shape, strength, seed, images, folder)


def _shown(folder: Path, name: str, *settings: Any) -> xr.Dataset:
    return kept(folder, name, settings, best_of, *settings)


def _choices(folder: Path, *settings: Any) -> xr.Dataset:
    return kept(folder, "choices", settings, choices_of, *settings)


def _simulated(folder: Path, *settings: Any) -> xr.Dataset:
    return kept(folder, "simulated", settings, simulated, *settings)


def _exact(folder: Path, *settings: Any) -> xr.Dataset:
    return kept(folder, "exact", settings, at_equal_priors, *settings)


def _assembled(parts: list[xr.Dataset], plan: Plan) -> xr.Dataset:
    todo = iter(parts)
    S = np.full(
        (len(plan.nets), len(SHAPES), len(plan.nets[0].strengths), max(nets.seeds for nets in plan.nets)), np.nan
    )
    E = S.copy()
    for k, nets in enumerate(plan.nets):
        for i in range(len(SHAPES)):
            for j in range(len(nets.strengths)):
                for seed in range(nets.seeds):
                    E[k, i, j, seed], S[k, i, j, seed] = next(todo).net_errors.values
    shown = [next(todo) for _ in plan.shown]
    grid = [next(todo) for _ in range(len(plan.p) * len(plan.rho) * len(plan.alpha_max))]
    choices, simulations, exact = todo
    dims = "p", "rho", "alpha_max"
    shape = len(plan.p), len(plan.rho), len(plan.alpha_max)

    def mapped(name: str) -> Any:
        values = np.array([one[name].values for one in grid])
        return (*dims, *(("piece",) if values.ndim > 1 else ())), values.reshape(*shape, *values.shape[1:])

    def of_shown(name: str) -> Any:
        values = np.array([np.squeeze(one[name].values) for one in shown])
        return ("case", "piece")[: values.ndim], values

    data = xr.Dataset(
        {
            "net_S": (("kind", "shape_of", "strength", "seed"), S),
            "net_E": (("kind", "shape_of", "strength", "seed"), E),
            "map_S": mapped("objective"), "map_constant_S": mapped("constant_objective"),
            "map_classifier_S": mapped("classifier_error"), "map_schedule": mapped("schedule"),
            "map_gap": mapped("gap"),
            "S": of_shown("objective"), "constant_S": of_shown("constant_objective"), "classifier_S": of_shown("classifier_error"),
            "schedule": of_shown("schedule"), "constant_epsilon": of_shown("constant_schedule"), "gap": of_shown("gap"),
            "optima": of_shown("optima"),
            "exact_epsilon": ("piece", exact.exact_epsilon.values), "exact_S": exact.exact_S,
            "choice_S": choices.choice_S, "choice_epsilon": choices.choice_epsilon.rename(knot="piece").drop_vars("piece"),
            "simulated_S": simulations.simulated_S, "theory_S": simulations.theory_S,
        },
        {
            "p": list(plan.p), "rho": list(plan.rho), "alpha_max": list(plan.alpha_max),
            "case": [case.text for case in plan.shown], "share": ("piece", (np.arange(plan.pieces) + 0.5) / plan.pieces),
            "kind": [nets.kind for nets in plan.nets], "shape_of": list(SHAPES),
            "strength": list(plan.nets[0].strengths),
        },
    )  # fmt: skip
    describe(data, _TEXTS)
    return data


_S = "adversarial error at the end of training, at the test's epsilon"
_TEXTS = {
    "p": LABELS["p"][0],
    "rho": LABELS["rho"][0],
    "alpha_max": "end of training",
    "share": "middle of a piece, as a share of the training",
    "kind": "net, learning rate and length of the training",
    "shape_of": "how the radius of the training attack changes",
    "strength": "strength of the training attack, in units of the test's epsilon",
    "net_S": "adversarial error of nets on MNIST, by APGD",
    "net_E": "classification error of nets on MNIST",
    "map_S": f"{_S}, with the best schedule, over p and rho",
    "map_constant_S": f"{_S}, with the best constant, over p and rho",
    "map_classifier_S": "adversarial error of the best linear classifier, over p and rho",
    "map_schedule": "best schedule of epsilon, over p and rho",
    "map_gap": "largest decrease of S within the bounds, to first order, over p and rho",
    "S": f"{_S}, with the best schedule",
    "constant_S": f"{_S}, with the best constant",
    "classifier_S": "adversarial error of the best linear classifier",
    "schedule": "best schedule of epsilon",
    "constant_epsilon": "best constant epsilon",
    "gap": "largest decrease of S within the bounds, to first order",
    "optima": "local optima that were found",
    "exact_epsilon": "epsilon that makes R grow fastest, mean over a piece, p = 1/2",
    "exact_S": f"{_S}, under it",
    "choice_S": f"{_S}, where rates are chosen as well",
    "choice_epsilon": "best epsilon, where rates are chosen as well",
    "simulated_S": f"{_S}, of runs",
    "theory_S": f"{_S}, by the theory of these runs",
}
