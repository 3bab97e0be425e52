"""The best schedules by theory, and simulations under them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, adversarial_error, integrate, rates, simulate
from odeflow.control import best_model, optimal_schedule

__all__ = ["CHOICES", "SEED", "Case", "at_equal_priors", "best_of", "choices_of", "simulated"]

SEED = 20261127
RULE = LearningRule()

# what else is chosen beside epsilon: names that are chosen, and those of them that are constant
CHOICES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rates of the seed": ((), ()),
    "best constant eta_w": (("eta_w",), ("eta_w",)),
    "best eta_w over time": (("eta_w",), ()),
    "best constant rates": (("eta_w", "eta_b"), ("eta_w", "eta_b")),
}


@dataclass(frozen=True)
class Case:
    """A problem: data, the test's attack, and the time that there is."""

    p: float
    rho: float
    test_epsilon: float
    alpha_max: float

    @property
    def mixture(self) -> GaussianMixture:
        """The data."""
        return GaussianMixture(p=self.p, rho=self.rho)

    @property
    def text(self) -> str:
        """What a legend calls it."""
        return f"p = {self.p:g}, rho = {self.rho:g}, test {self.test_epsilon:g}, to alpha = {self.alpha_max:g}"


_KEPT = (
    "schedule", "switching", "objective", "gap", "curvature", "classifier_error", "constant_schedule", "constant_objective",
    "R", "b", "adversarial_error", "switching_function",
)  # fmt: skip


def best_of(case: Case, pieces: int, starts: int) -> xr.Dataset:
    """Return the best schedule of epsilon at the seed's rates, and the best constant."""
    options: dict[str, Any] = {"alpha_max": case.alpha_max, "pieces": pieces, "starts": starts, "rng": SEED}
    found = optimal_schedule(case.mixture, RULE, Adversary(case.test_epsilon), **options)
    optima = len(found.optimum)
    kept = found[[*_KEPT]].sel(control="epsilon").reset_coords(drop=True)
    return kept.assign(optima=optima)


def choices_of(case: Case, pieces: int, starts: int, choices: tuple[str, ...]) -> xr.Dataset:
    """Return S with the best constant epsilon, and with the best schedule, where rates are chosen as well."""
    rows = []
    for others, constant in (CHOICES[choice] for choice in choices):
        options: dict[str, Any] = {
            "alpha_max": case.alpha_max, "pieces": pieces, "starts": starts, "rng": SEED,
            "control": ("epsilon", *others),
        }  # fmt: skip
        model = case.mixture, RULE, Adversary(case.test_epsilon)
        both = [
            optimal_schedule(*model, **options, constant=("epsilon", *constant)),
            optimal_schedule(*model, **options, constant=constant),
        ]
        rows.append(
            xr.Dataset(
                {
                    "choice_S": ("over_time", [float(one.objective) for one in both]),
                    "choice_epsilon": (
                        ("over_time", "knot"),
                        [one.schedule.sel(control="epsilon").values for one in both],
                    ),
                },
                {"over_time": ["constant epsilon", "schedule of epsilon"], "knot": both[1].knot.values},
            )
        )
    return xr.concat(rows, xr.DataArray(list(choices), dims="choice", name="choice"))


def simulated(case: Case, pieces: int, starts: int, N: int, runs: int) -> xr.Dataset:
    """Return S of runs at the end, under the best constant epsilon and under the best schedule, and the theory's."""
    options: dict[str, Any] = {"alpha_max": case.alpha_max, "starts": starts, "rng": SEED}
    model = case.mixture, RULE, Adversary(case.test_epsilon)
    parts = []
    for one, seed in zip((1, pieces), np.random.SeedSequence(SEED).spawn(2), strict=True):
        best = best_model(optimal_schedule(*model, **options, pieces=one))
        end: dict[str, Any] = {"alpha": [case.alpha_max], "test_epsilon": case.test_epsilon}
        found = simulate(*best, N=N, runs=runs, rng=seed, **end).adversarial_error.values[:, -1]
        theory = float(integrate(*best, **end).adversarial_error[-1])
        parts.append(xr.Dataset({"simulated_S": ("run", found), "theory_S": theory}))
    return xr.concat(
        parts, xr.DataArray(["constant epsilon", "schedule of epsilon"], dims="over_time", name="over_time")
    )


def at_equal_priors(case: Case, pieces: int) -> xr.Dataset:
    """Return the mean over each piece of the epsilon that makes R grow fastest (exact: then b = 0, and S falls with R)."""
    from scipy.optimize import minimize_scalar

    steps = 20 * pieces
    h, R, path = case.alpha_max / steps, 0.0, np.empty(steps)

    def fastest(R: float) -> tuple[float, float]:
        def fall(epsilon: float) -> float:
            return -float(rates(R, 0.0, case.mixture, RULE, Adversary(epsilon))[0])

        found = minimize_scalar(fall, bounds=(0.0, case.rho + 2 * case.test_epsilon), method="bounded")
        return float(found.x), -float(found.fun)

    for i in range(steps):  # the midpoint rule: the middle of each step is what is kept
        middle = R + h / 2 * fastest(R)[1]
        path[i], slope = fastest(middle)
        R += h * slope
    S = float(adversarial_error(R, 0.0, case.mixture, case.test_epsilon))
    return xr.Dataset({"exact_epsilon": ("knot", path.reshape(pieces, -1).mean(1)), "exact_S": S})
