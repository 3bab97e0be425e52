"""What is computed and simulated, in the full and the quick form."""

from __future__ import annotations

from dataclasses import dataclass

from odeflow import GaussianMixture

__all__ = ["LEARNERS", "MIXTURES", "PLANS", "SEED", "TESTS", "Plan"]

SEED = 20261127
MIXTURES = {
    "p = 0.5, rho = 2": GaussianMixture(0.5, 2.0),
    "p = 0.7, rho = 2": GaussianMixture(0.7, 2.0),
    "p = 0.7, rho = 3": GaussianMixture(0.7, 3.0),
}
"""The first two are the seed's scenarios."""
LEARNERS = ("constant", "falling", "batch")
"""One pass at constant rates, at falling ones, and the batch optimum."""
TESTS = (0.0, 0.5)
"""Test attacks."""


@dataclass(frozen=True)
class Plan:
    """One form of the study."""

    alpha: tuple[float, ...]
    mixtures: tuple[str, ...]
    simulated: tuple[float, ...]
    """Examples per dimension at which both are simulated, each one of alpha."""
    N_online: int
    runs_online: int
    N_batch: int
    runs_batch: int


PLANS = {
    False: Plan((1, 2, 4, 8, 16, 32, 64), tuple(MIXTURES), (2, 8), 1000, 100, 400, 16),
    True: Plan((4, 16, 64), ("p = 0.7, rho = 2",), (4,), 400, 40, 200, 8),
}
