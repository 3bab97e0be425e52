"""The study surrogates: the ranking of ways of training by theory, and by nets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from deepcheck.device import describe as device_of
from odeflow.provenance import provenance
from studies.common.images import images_of, place
from studies.common.kept import study_folder
from studies.common.tables import describe
from studies.registry import Outcome
from studies.surrogates.claims import claims, table
from studies.surrogates.figures import figure
from studies.surrogates.nets import of_net
from studies.surrogates.plan import EPSILON, LEARNERS, MIXTURE, PLANS, RULES, SEED, TESTS, Plan
from studies.surrogates.rankings import agreement, by_chance
from studies.surrogates.theory import decay_of_pairing, ranked_by_theory, times_of

__all__ = ["run"]


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets, and what was measured of them, are kept in the folder."""
    images, note = images_of(quick=quick)
    plan = PLANS[quick or images.name != "mnist"]
    folder = study_folder(folder, instead="" if quick or images.name == "mnist" else images.name)
    variables = ranked_by_theory(plan) | decay_of_pairing()
    variables["net"] = ("kind", "learner", "size", "seed"), _nets(plan, images, folder)
    data = xr.Dataset(
        variables,
        {
            "rule": list(RULES), "learner": list(LEARNERS), "alpha": times_of(plan), "size": [0.0, *TESTS],
            "kind": list(plan.nets), "as_what": ["pairing", "decay", "neither"],
            "variable": ["R", "b", "Q"],
        },
    )  # fmt: skip
    data = _compared(data)
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), images=plan.title, mixture=MIXTURE, epsilon=EPSILON,
        nets_epsilon=plan.epsilon, nets=str(plan.nets), N=plan.N, runs=plan.runs, device=device_of(place()),
    ) | {"note": note}  # fmt: skip
    names = {
        "learner": "way of training",
        "size": "test attack, in units of the training's",
        "line": "adversarial error over learning time, in theory",
        "theory": "adversarial error at the end, in theory",
        "without": "the same without what is the learner's own",
        "runs": "adversarial error of runs at finite N",
        "state": "order parameters at the end, in theory",
        "state_without": "the same without what is the learner's own",
        "run_state": "order parameters of runs at finite N",
        "net": "adversarial error of nets on test images",
        "pairing": "adversarial error of logit pairing of a linear unit, of the decay that it is, and of neither",
        "tau": "Kendall's tau of the orders of two sets of adversarial errors",
        "chance": "mean tau of convolutional nets' order that one random order in 20 exceeds",
    }
    describe(data, names)
    return Outcome(data, figure(data), table(data), tuple(claims(data, plan)))


def _nets(plan: Plan, images: Any, folder: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the errors of all nets; where there are fewer seeds of a kind, the others are NaN."""
    seeds = max(nets.seeds for nets in plan.nets.values())
    found = np.full((len(plan.nets), len(LEARNERS), 1 + len(TESTS), seeds), np.nan)
    for i, (kind, nets) in enumerate(plan.nets.items()):
        for j, learner in enumerate(LEARNERS):
            for seed in range(nets.seeds):
                found[i, j, :, seed] = of_net(plan, images, kind, learner, seed, folder).error.values
    return found


def _compared(data: xr.Dataset) -> xr.Dataset:
    """Return the data with how far all orders agree, at each size of the test attack."""
    of = {str(rule): data.theory.sel(rule=rule) for rule in data.rule.values}
    of |= {str(kind): data.net.sel(kind=kind).mean("seed") for kind in data.kind.values}
    errors = {name: one.sel(size=list(TESTS)).transpose("learner", "size").values for name, one in of.items()}
    last = list(data.kind.values)[-1]
    pairs = [("seed", "logistic"), *(("logistic", str(kind)) for kind in data.kind.values), ("linear", str(last))]
    tau = np.stack([agreement(errors[one], errors[other]) for one, other in pairs])
    return data.assign(tau=(("pair", "test"), tau), chance=by_chance(errors[str(last)], SEED)).assign_coords(
        pair=[f"{one}, {other}" for one, other in pairs], test=list(TESTS)
    )
