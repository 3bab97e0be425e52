"""Learning rate over training, as a share of the largest: functions of the progress in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable

from deepcheck.checks import checked_choice

__all__ = ["SCHEDULES", "constant", "cyclic", "schedule", "step"]

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Return 1."""
    del progress
    return 1.0


def cyclic(progress: float) -> float:
    """Rise linearly from 0 over the first fifth, then fall linearly to 0 (one cycle)."""
    return min(progress / 0.2, (1 - progress) / 0.8)


def step(progress: float) -> float:
    """Divide by 10 at one half and at three quarters."""
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))


SCHEDULES: dict[str, Schedule] = {"constant": constant, "cyclic": cyclic, "step": step}
"""All schedules by name."""


def schedule(name: str) -> Schedule:
    """Return a schedule by its name.

    Raises
    ------
    ValueError
        If there is none of this name.
    """
    return SCHEDULES[checked_choice("schedule", name, SCHEDULES)]
