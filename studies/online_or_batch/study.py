"""The study online_or_batch: one pass and the batch optimum at equal numbers of examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from odeflow.parameters import label
from odeflow.provenance import provenance
from studies.common.tables import describe
from studies.online_or_batch.claims import claims, table
from studies.online_or_batch.figures import figure
from studies.online_or_batch.measure import (
    batch_on_a_grid,
    best_batch,
    best_constant,
    best_falling,
    errors_of,
    least,
    runs,
)
from studies.online_or_batch.plan import LEARNERS, MIXTURES, PLANS, SEED, TESTS, Plan
from studies.registry import Outcome

__all__ = ["run"]


def run(name: str, *, quick: bool = False) -> Outcome:
    """Run the study."""
    plan = PLANS[quick]
    data = xr.concat([of_mixture(plan, i) for i in range(len(plan.mixtures))], "mixture")
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), alpha=plan.alpha, tests=TESTS, mixtures={key: MIXTURES[key] for key in plan.mixtures},
        N=(plan.N_online, plan.N_batch), runs=(plan.runs_online, plan.runs_batch),
    )  # fmt: skip
    names = {
        "learner": "one pass at constant or falling rates, or the batch optimum",
        "test_epsilon": "test attack",
        "least": "least adversarial error of any linear classifier",
        "eta_w": "learning rate of the weights, at the beginning",
        "eta_b": "learning rate of the bias, at the beginning",
        "turn": "alpha at which falling rates are half",
        "ridge": "ridge of the batch optimum",
        "best_epsilon": "training epsilon",
        "online_runs": "adversarial error of runs of one pass at constant rates",
        "batch_runs": "adversarial error of minimisers of drawn examples",
        "grid": "least adversarial error of the batch on a grid of ridges and training attacks, at the last but one alpha",
        "standard": "adversarial error of the batch at the best ridge without an attack in training, there",
        "at_bound": "whether the batch optimum is at the end of the range of ridges or epsilons",
        "misclassification_error": "error under attacks orthogonal to B",
        "flipped_error": "share of predictions that such an attack changes",
        "boundary_error": "share of examples that are right, and wrong after such an attack",
    }
    describe(data, names)
    data = label(data)
    return Outcome(data, figure(data), table(data), tuple(claims(data, plan)))


def of_mixture(plan: Plan, index: int) -> xr.Dataset:
    """Return everything about one mixture, along alpha and the test attack."""
    mixture = MIXTURES[plan.mixtures[index]]
    alpha = np.array(plan.alpha, np.float64)
    shape = (len(LEARNERS), len(TESTS), alpha.size)
    R, b, epsilon = (np.empty(shape) for _ in range(3))
    rates = {name: np.full((2, len(TESTS), alpha.size), np.nan) for name in ("eta_w", "eta_b", "turn")}
    checked = np.empty((2, len(TESTS)))
    ridge, at_bound = np.empty(shape[1:]), np.empty(shape[1:], bool)
    online = np.full((len(TESTS), len(plan.simulated), plan.runs_online), np.nan)
    drawn = np.full((len(TESTS), len(plan.simulated), plan.runs_batch), np.nan)
    for t, test in enumerate(TESTS):
        batch = best_batch(mixture, alpha, test)
        ridge[t], at_bound[t] = batch.ridge.values, batch.at_bound.values
        R[2, t], b[2, t], epsilon[2, t] = batch.R.values, (batch.b / np.sqrt(batch.q)).values, batch.epsilon.values
        checked[:, t] = batch_on_a_grid(mixture, float(alpha[-2]), test)
        for k, one in enumerate(alpha):
            constant = best_constant(mixture, one, test)
            fall = best_falling(mixture, one, test, constant)
            for i, found in enumerate((constant, fall)):
                R[i, t, k], b[i, t, k], epsilon[i, t, k] = found["R"], found["b"], found["epsilon"]
                for name, values in rates.items():
                    values[i, t, k] = found.get(name, np.nan)
            if one in plan.simulated:
                j = plan.simulated.index(one)
                best = {"ridge": float(ridge[t, k]), "epsilon": float(epsilon[2, t, k])}
                number = 100 * index + 10 * t + j
                both = runs(plan, mixture, one, test, constant, best, number)
                online[t, j], drawn[t, j] = both["online"], both["batch"]
    errors = [errors_of(mixture, R[:, t], b[:, t], test) for t, test in enumerate(TESTS)]
    dims = ("learner", "test_epsilon", "alpha")
    data: dict[str, Any] = {name: (dims, np.stack([one[name] for one in errors], axis=1)) for name in errors[0]}
    data |= {"R": (dims, R), "b": (dims, b), "best_epsilon": (dims, epsilon), "ridge": (dims[1:], ridge)}
    data |= {"at_bound": (dims[1:], at_bound), "least": ("test_epsilon", least(mixture))}
    data |= {name: ("test_epsilon", values) for name, values in zip(("grid", "standard"), checked, strict=True)}
    data |= {name: (("rates", *dims[1:]), values) for name, values in rates.items()}
    data["online_runs"] = ("test_epsilon", "simulated_alpha", "online_run"), online
    data["batch_runs"] = ("test_epsilon", "simulated_alpha", "batch_run"), drawn
    coords = {
        "learner": list(LEARNERS), "test_epsilon": list(TESTS), "alpha": alpha, "rates": list(LEARNERS[:2]),
        "simulated_alpha": list(plan.simulated),
    }  # fmt: skip
    return xr.Dataset(data, coords).expand_dims(mixture=[plan.mixtures[index]])
