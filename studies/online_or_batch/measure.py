"""The best of both learners, by theory and in runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from odeflow import (
    Adversary,
    GaussianMixture,
    LearningRule,
    Schedule,
    adversarial_error,
    erm,
    integrate_batch,
    optimal_classifier,
    simulate,
)
from odeflow.erm.errors import measures
from studies.online_or_batch.plan import SEED, TESTS, Plan

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["batch_on_a_grid", "best_batch", "best_constant", "best_falling", "errors_of", "least", "runs"]

Array = npt.NDArray[np.float64]

_ROUNDS = 6
_RATES, _EPSILONS = 12, 9  # of a round's grid
_STEPS = 12  # of rates that fall


def least(mixture: GaussianMixture) -> Array:
    """Return the least adversarial error of any linear classifier, at each test attack."""
    return np.array([float(optimal_classifier(mixture, test).adversarial_error) for test in TESTS])


def errors_of(mixture: GaussianMixture, R: Array, b: Array, test: float) -> dict[str, Array]:
    """Return all errors of classifiers with |w| = 1."""
    points = {name: np.full(R.size, getattr(mixture, name)) for name in ("p", "rho", "v1", "v2")}
    found = measures(points, R.ravel(), b.ravel(), np.full(R.size, test))
    return {name: values.reshape(R.shape) for name, values in found.items()}


def best_constant(mixture: GaussianMixture, alpha: float, test: float) -> dict[str, float]:
    """Return the best constant rates and training epsilon of one pass, by a grid that is narrowed around its best point."""
    low, high = np.array([np.log(0.01), np.log(0.005), 0.0]), np.array([np.log(30.0), np.log(100.0), 3.0])
    best: dict[str, float] = {}
    for _ in range(_ROUNDS):
        axes = [np.linspace(low[i], high[i], _EPSILONS if i == 2 else _RATES) for i in range(3)]
        eta_w, eta_b, epsilon = (axis.ravel() for axis in np.meshgrid(*axes, indexing="ij"))
        model = {"eta_w": np.exp(eta_w), "eta_b": np.exp(eta_b), "epsilon": epsilon, "p": mixture.p, "rho": mixture.rho}
        R, b = integrate_batch(alpha=[alpha], rtol=1e-7, atol=1e-9, **model).y[:, 0].T
        S = adversarial_error(np.clip(R, -1, 1), b, mixture, test)
        i = int(np.nanargmin(S))
        best = {"eta_w": float(np.exp(eta_w[i])), "eta_b": float(np.exp(eta_b[i])), "epsilon": float(epsilon[i])}
        best |= {"R": float(R[i]), "b": float(b[i])}
        centre = np.array([eta_w[i], eta_b[i], epsilon[i]])
        reach = 1.5 * (high - low) / (np.array([_RATES, _RATES, _EPSILONS]) - 1)
        low, high = centre - reach, centre + reach
        low[2] = max(low[2], 0.0)
    return best


def falling(eta: float, turn: float, alpha: float) -> Schedule:
    """Return eta / (1 + alpha/turn) in steps of equal ratio of 1 + alpha/turn, each of the value in its middle."""
    edges = turn * np.expm1(np.linspace(0, np.log1p(alpha / turn), _STEPS + 1))
    middle = (edges[1:] + edges[:-1]) / 2
    return Schedule.steps((eta / (1 + middle / turn)).tolist(), edges[:-1].tolist())


def best_falling(mixture: GaussianMixture, alpha: float, test: float, constant: dict[str, float]) -> dict[str, float]:
    """Return the best of falling rates, with the best training epsilon, from the best constant ones by Nelder and Mead's method."""

    def state(x: Array) -> Array:
        eta_w, eta_b, turn = np.exp(x[[0, 1, 3]])
        y = integrate_batch(
            alpha=[alpha], eta_w=falling(eta_w, turn, alpha), eta_b=falling(eta_b, turn, alpha), epsilon=abs(x[2]),
            p=mixture.p, rho=mixture.rho, rtol=1e-7, atol=1e-9,
        ).y  # fmt: skip
        return np.asarray(y[0, 0])

    def cost(x: Array) -> float:
        R, b = state(x)
        return float(adversarial_error(min(max(R, -1.0), 1.0), b, mixture, test)) if np.isfinite(R) else 1.0

    begin = [np.log(2 * constant["eta_w"]), np.log(2 * constant["eta_b"]), constant["epsilon"], np.log(alpha / 2)]
    found = minimize(cost, begin, method="Nelder-Mead", options={"maxfev": 150, "xatol": 1e-3, "fatol": 1e-8}).x
    R, b = state(found)
    rates = {"eta_w": float(np.exp(found[0])), "eta_b": float(np.exp(found[1])), "turn": float(np.exp(found[3]))}
    return {**rates, "epsilon": abs(float(found[2])), "R": float(R), "b": float(b)}


def symmetric(mixture: GaussianMixture) -> bool:
    """Return whether the classes are equal: the best bias is 0, and is not learned by the batch.

    Its best ridge is infinite. At finite N a bias would learn the shares of the labels that were drawn, and outgrow the weights.
    """
    return mixture.p == 0.5 and mixture.v1 == mixture.v2


def best_batch(mixture: GaussianMixture, alpha: Array, test: float) -> xr.Dataset:
    """Return the batch optimum over ridge and training epsilon; of equal classes that over the ridge, which is Bayes optimal."""
    if symmetric(mixture):
        best = erm.optimal_ridge(mixture, alpha=alpha, epsilon=0.0, test_epsilon=test, bias=False)
        return best.drop_vars("epsilon").assign(epsilon=0 * best.ridge)
    return erm.optimal_epsilon(mixture, alpha=alpha, test_epsilon=test)


def batch_on_a_grid(mixture: GaussianMixture, alpha: float, test: float) -> tuple[float, float]:
    """Return the least error of the batch on a grid of ridges and training epsilons, and that of the best ridge without attack."""
    grid = erm.solve(
        mixture, alpha=alpha, ridge=np.geomspace(1e-4, 10, 16), epsilon=np.linspace(0, 1.45, 16), test_epsilon=test,
        bias=not symmetric(mixture), on_failure="return",
    )  # fmt: skip
    standard = erm.optimal_ridge(mixture, alpha=alpha, epsilon=0.0, test_epsilon=test, bias=not symmetric(mixture))
    return float(grid.adversarial_error.min()), float(standard.adversarial_error)


def runs(
    plan: Plan, mixture: GaussianMixture, alpha: float, test: float, constant: dict[str, float], batch: dict[str, float],
    seed: int,
) -> dict[str, Array]:  # fmt: skip
    """Return the adversarial errors of runs of both at their best settings, exact for each run's classifier."""
    seeds = np.random.SeedSequence([SEED, seed]).spawn(2)
    rule, adversary = LearningRule(constant["eta_w"], constant["eta_b"]), Adversary(constant["epsilon"])
    model: tuple[Any, ...] = mixture, rule, adversary
    online = simulate(*model, N=plan.N_online, alpha=[alpha], runs=plan.runs_online, rng=seeds[0], test_epsilon=test)
    drawn = erm.simulate(
        mixture, N=plan.N_batch, alpha=alpha, runs=plan.runs_batch, ridge=batch["ridge"], epsilon=batch["epsilon"],
        test_epsilon=test, rng=seeds[1], bias=not symmetric(mixture),
    )  # fmt: skip
    return {"online": online.adversarial_error.values[:, 0], "batch": drawn.adversarial_error.values}
