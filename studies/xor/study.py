"""The study xor: learning, the collapse of the specialised state, and random starts."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from odeflow import Adversary, LearningRule, xor
from odeflow.provenance import provenance
from studies.common.tables import describe
from studies.registry import Outcome
from studies.xor.claims import claims, table
from studies.xor.figures import figures
from studies.xor.measure import (
    NET,
    START,
    TEST,
    critical_epsilon,
    growth,
    line,
    noisy_states,
    settled,
    shares,
    simulated,
    small_state,
)
from studies.xor.plan import FULL, QUICK, Plan

__all__ = ["collapse", "learning", "run", "starts"]

SEED = 20261127


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    plan = QUICK if quick else FULL
    data = described(xr.merge([learning(plan), collapse(plan), starts(plan)]))
    options: dict[str, Any] = asdict(plan)
    data.attrs = provenance(f"studies.{name}", seed=str(SEED), **{key: str(value) for key, value in options.items()})
    return Outcome(data, figures(data), table(data), tuple(claims(data)))


def _seed(part: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(SEED, spawn_key=(part,))


def learning(plan: Plan) -> xr.Dataset:
    """Return theory and simulation over alpha, a line a case."""
    parts = [
        line(one, child).expand_dims(line=[f"{one.activation}, epsilon = {one.epsilon:g}"]).assign_coords(
            line_activation=("line", [one.activation]), line_epsilon=("line", [one.epsilon]), line_N=("line", [one.N])
        )
        for one, child in zip(plan.lines, _seed(0).spawn(len(plan.lines)), strict=True)
    ]  # fmt: skip
    return xr.concat(parts, "line")


def collapse(plan: Plan) -> xr.Dataset:
    """Return the branch of the specialised state over its length and over epsilon, and simulations."""
    v, eta = plan.noisy_variance, plan.noisy_eta
    critical = critical_epsilon(v)
    data = xr.Dataset(
        {
            "resting_epsilon": (("v", "length"), np.array([settled(one, plan.lengths) for one in plan.variances])),
            "critical_epsilon": (("v",), [critical_epsilon(one) for one in plan.variances]),
            "noisy": (("size", "noisy_part"), noisy_states(v, eta, plan.noisy_epsilon, plan.simulated_alpha)),
        },
        {
            "v": list(plan.variances), "length": list(plan.lengths), "size": list(plan.noisy_epsilon),
            "noisy_part": ["q", "r", "s", "t"], "noisy_v": v, "noisy_eta": eta,
            "noisy_critical": critical, "simulated_N": plan.simulated_N,
        },
    )  # fmt: skip
    data["noisy_length"] = np.sqrt(data.noisy.sel(noisy_part="q") ** 2 + data.noisy.sel(noisy_part="r"))
    data = data.drop_vars("noisy").assign(noisy=data.noisy)
    lengths = []
    for size, child in zip(plan.simulated_epsilon, _seed(1).spawn(len(plan.simulated_epsilon)), strict=True):
        start = small_state(*START)
        runs = simulated(
            NET, xor(2.0, v), LearningRule(eta, 1e-9), Adversary(size * critical), start,
            plan.simulated_N, [plan.simulated_alpha], plan.simulated_runs, child,
        )  # fmt: skip
        lengths.append(np.sqrt(np.diagonal(runs["Q"][:, 0], axis1=1, axis2=2)).mean(axis=1))
    data["simulated_length"] = ("simulated_size", "simulated_run"), np.array(lengths)
    return data.assign_coords(simulated_size=list(plan.simulated_epsilon), simulated_run=range(plan.simulated_runs))


def starts(plan: Plan) -> xr.Dataset:
    """Return the share of starts that find all clusters, a condition a case, and the theory's growth rates."""
    parts = []
    for one in plan.conditions:
        seed = int(_seed(2).generate_state(1)[0])  # the same in all: the same starts
        found = shares(one, plan, seed).expand_dims(condition=[one.name])
        parts.append(found.assign_coords(condition_runs=("condition", [one.runs])))
    data = xr.concat(parts, "condition", join="outer")
    known = data.all_found.notnull()
    data["share"] = data.all_found.mean("start", skipna=True).where(known.any("start"))
    count = known.sum("start")
    # of a share of 0 or 1, too: that of (found + 1) / (runs + 2)
    smooth = (data.share * count + 1) / (count + 2)
    data["share_error"] = np.sqrt(smooth * (1 - smooth) / count).where(count > 0)
    return data.merge(growth(plan))


def described(data: xr.Dataset) -> xr.Dataset:
    """Give each variable its long name and unit."""
    names = {
        "M": "overlap of a unit's weights with a centre", "Q": "overlap of two units' weights", "theta": "threshold",
        "b": "output bias", "error": "classification error", "fgsm_error": f"error under FGSM with epsilon {TEST:g}",
    }  # fmt: skip
    names |= {f"simulated_{name}": f"{text}, simulated" for name, text in names.items()}
    names |= {
        "alpha": "learning time", "unit": "unit", "other_unit": "unit", "cluster": "cluster", "run": "run",
        "line": "what is learned, and how", "line_activation": "hidden unit", "line_epsilon": "training epsilon",
        "line_N": "dimension of the input",
        "resting_epsilon": "epsilon at which the specialised state of a length is at rest, eta -> 0",
        "critical_epsilon": "epsilon at which the specialised state collapses, by the equation",
        "v": "variance of the clusters", "length": "length q of the weights",
        "size": "epsilon over the critical one", "noisy": "specialised state: q, and products of the noise",
        "noisy_part": "q, and the noise's products r (own), s (opposite unit), t (others)",
        "noisy_length": "length of the weights of the specialised state", "noisy_v": "variance of the clusters",
        "noisy_eta": "learning rate", "noisy_critical": "critical epsilon at that variance",
        "simulated_N": "dimension of the input", "simulated_length": "length of the weights, simulated, mean of the units",
        "simulated_size": "epsilon over the critical one", "simulated_run": "run",
        "all_found": "whether all four clusters are found", "share": "share of starts that find all four clusters",
        "share_error": "standard error of the share", "condition": "what is different", "condition_runs": "starts",
        "start_epsilon": "training epsilon", "start": "start",
        "growth": "growth rate of a unit's overlap with its centre, per eta alpha", "rates_epsilon": "training epsilon",
        "turned_to": "how many centres the units of a label have turned to",
    }  # fmt: skip
    describe(data, {str(name): names[str(name)] for name in data.variables})
    return data
