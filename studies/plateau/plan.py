"""What is computed and simulated, in the full and the quick form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from odeflow import Committee, TeacherStudent

__all__ = ["BEGIN", "ESCAPED", "ETA", "NETWORK", "OVERLAP", "PLANS", "SEED", "TEACHER", "Plan"]

TEACHER = TeacherStudent(2)
NETWORK = Committee(hidden=2, errors=())
SEED = 20261127
ETA = 0.5
"""The learning rate of the simulations."""
OVERLAP = 0.03
"""At the start, of each unit with its own unit of the teacher: the difference of the units that grows."""
BEGIN = {"R": OVERLAP * np.eye(2), "Q": 0.25 * np.eye(2)}
ESCAPED = 0.3
"""Difference of the units at which the plateau has been left."""


@dataclass(frozen=True)
class Plan:
    """One form of the study."""

    etas: tuple[float, ...]
    epsilon: npt.NDArray[np.float64]
    """Of the lines of theory."""
    simulated: tuple[float, ...]
    """Training epsilons of the simulations, each one of the lines."""
    N: int
    runs: int


PLANS = {
    False: Plan((0.1, 0.3, 0.5, 1.0), np.linspace(0, 1.1, 12), (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9), 10_000, 24),
    True: Plan((0.5,), np.linspace(0, 0.9, 4), (0.0, 0.3, 0.9), 1000, 12),
}
