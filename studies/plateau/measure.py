"""The plateau by theory, and in simulations."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from odeflow import Adversary, LearningRule, follow, integrate, plateau_length, simulate, symmetric_fixed_points
from studies.plateau.plan import BEGIN, ESCAPED, ETA, NETWORK, OVERLAP, SEED, TEACHER, Plan

__all__ = ["crossing", "difference", "on_the_plateau", "rule_of", "simulated", "theory_of_escape"]

Array = npt.NDArray[np.float64]

_TIMES = 401  # at which runs are looked at
_LATEST = 1.6  # times the theory's length of the plateau


def rule_of(eta: float) -> LearningRule:
    """Return the rule with a learning rate. The output bias rests at 0, where the symmetry of erf keeps it."""
    return LearningRule(eta_w=eta, eta_b=eta)


def on_the_plateau(eta: float, epsilon: Array) -> xr.Dataset:
    """Return the symmetric fixed point and its rates along epsilon, which begins with 0."""
    points = symmetric_fixed_points(TEACHER, rule_of(eta), Adversary(), network=NETWORK)
    attracting = np.flatnonzero((points.approach_rate < 0).values)
    assert len(attracting) == 1, points
    start = {name: points[name].values[attracting[0]] for name in ("R", "Q", "c", "theta", "b")}
    path = follow(
        TEACHER,
        rule_of(eta),
        Adversary(),
        network=NETWORK,
        start=start,
        values=epsilon,
        symmetric=True,
        test_epsilon=0.0,
    )
    return xr.Dataset(
        {
            "specialisation_rate": ("epsilon", path.specialisation_rate.values / eta),
            "approach_rate": ("epsilon", path.approach_rate.values / eta),
            "plateau_R": ("epsilon", path.R.values[:, 0, 0]),
            "plateau_Q": ("epsilon", path.Q.values[:, 0, 0]),
            "plateau_Q12": ("epsilon", path.Q.values[:, 0, 1]),
        },
        {"epsilon": epsilon},
    )


def difference(R: npt.ArrayLike) -> Array:
    """Return how far the student's units have specialised: |R_11 - R_12 - R_21 + R_22| / 2 of R, shape (..., 2, 2)."""
    R = np.asarray(R, np.float64)
    return np.asarray(np.abs(R[..., 0, 0] - R[..., 0, 1] - R[..., 1, 0] + R[..., 1, 1]) / 2)


def crossing(alpha: Array, S: Array, size: float) -> Array:
    """Return where S, shape (..., alpha), first reaches a size, on the line in ln S between two times; inf where it does not."""
    S = np.maximum(S, 1e-300)
    reached = size <= S
    first = np.argmax(reached, axis=-1)
    before = np.maximum(first - 1, 0)
    low, high = (np.take_along_axis(S, at[..., None], axis=-1)[..., 0] for at in (before, first))
    share = np.where(first > 0, np.log(size / low) / np.maximum(np.log(high / low), 1e-300), 1.0)
    found = alpha[before] + share * (alpha[first] - alpha[before])
    return np.where(reached.any(axis=-1), found, np.inf)


def theory_of_escape(epsilon: Array, latest: float = 1e4) -> Array:
    """Return the plateau's length from the start of the simulations, at each epsilon; inf where it is beyond the latest."""
    return np.array(
        [
            plateau_length(
                TEACHER, rule_of(ETA), Adversary(one), network=NETWORK, start=BEGIN, size=ESCAPED, alpha_max=latest
            )
            for one in epsilon
        ]
    )


def simulated(plan: Plan, lengths: Array) -> xr.Dataset:
    """Return when the runs leave the plateau, and their Q_12 on it, at each of the simulated epsilons.

    `lengths` are those of the theory, up to 1.6 times which the runs go on.
    """
    escape = np.full((len(plan.simulated), plan.runs), np.inf)
    pair = np.full_like(escape, np.nan)
    S = np.full((len(plan.simulated), plan.runs, _TIMES), np.nan)
    theory = np.full((len(plan.simulated), _TIMES), np.nan)
    alphas = np.full((len(plan.simulated), _TIMES), np.nan)
    seeds = np.random.SeedSequence(SEED).spawn(len(plan.simulated))
    for i, (epsilon, length, seed) in enumerate(zip(plan.simulated, lengths, seeds, strict=True)):
        model: tuple[Any, ...] = TEACHER, rule_of(ETA), Adversary(epsilon)
        alpha = np.linspace(0, _LATEST * length, _TIMES)
        runs = simulate(*model, network=NETWORK, N=plan.N, alpha=alpha, runs=plan.runs, start=BEGIN, rng=seed)
        line = integrate(*model, network=NETWORK, alpha=alpha, start=BEGIN)
        S[i], theory[i], alphas[i] = difference(runs.R.values), difference(line.R.values), alpha
        escape[i] = crossing(alpha, S[i], ESCAPED)
        # half way, as the theory goes, from the start's difference to the last one, in ln S: there it rests
        half = int(np.argmin(np.abs(alpha - length / 2)))
        pair[i] = runs.Q.values[:, half, 0, 1]
    dims = ("simulated_epsilon", "run")
    return xr.Dataset(
        {
            "escape": (dims, escape),
            "simulated_Q12": (dims, pair),
            "difference": ((*dims, "time"), S),
            "theory_difference": (("simulated_epsilon", "time"), theory),
            "alpha": (("simulated_epsilon", "time"), alphas),
        },
        {"simulated_epsilon": list(plan.simulated), "run": np.arange(plan.runs)},
    ).assign_attrs(first_difference=f"{OVERLAP:g}")
