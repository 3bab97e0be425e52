"""What the study schedule computes, simulates and trains."""

from __future__ import annotations

from dataclasses import dataclass

from studies.schedule.measure import CHOICES, Case
from studies.schedule.nets import Nets

__all__ = ["PLANS", "Plan"]


@dataclass(frozen=True)
class Plan:
    """Sizes of the study."""

    starts: int
    """Of the search for the best schedule."""
    map_starts: int
    """The same, at each point of the maps."""
    pieces: int
    shown: tuple[Case, ...]
    """Whose schedules are drawn; the first is simulated, and the others' question is asked of it; the last has p = 1/2."""
    p: tuple[float, ...]
    rho: tuple[float, ...]
    alpha_max: tuple[float, ...]
    choices: tuple[str, ...]
    """What else is chosen, out of `CHOICES`."""
    N: int
    runs: int
    nets: tuple[Nets, ...]


_STRENGTHS = (1.0, 1.5)

SHARE = 2 / 3
"""Of the test's attack on the maps, in units of rho/2."""

_SHOWN = (
    Case(0.7, 3.0, 1.0, 20.0),
    Case(0.7, 3.0, 1.0, 50.0),
    Case(0.7, 2.0, 0.5, 100.0),
    Case(0.9, 3.0, 1.0, 20.0),
    Case(0.5, 3.0, 1.0, 20.0),
)

PLANS = {
    False: Plan(
        starts=20, map_starts=3, pieces=10, shown=_SHOWN, p=(0.5, 0.6, 0.7, 0.8, 0.9), rho=(2.0, 2.5, 3.0, 3.5, 4.0),
        alpha_max=(20.0, 50.0), choices=tuple(CHOICES), N=1000, runs=2000,
        nets=(
            Nets("linear", 0.002, 1, 6_400, 3, 0.1, _STRENGTHS),
            Nets("linear", 0.02, 1, 6_400, 3, 0.1, _STRENGTHS),
            Nets("linear", 0.02, 4, 6_400, 3, 0.1, _STRENGTHS),
            Nets("conv_small", 0.02, 1, 3_200, 3, 0.1, _STRENGTHS, batch_size=32, tested=500),
            Nets("conv_small", 0.05, 1, 3_200, 3, 0.1, _STRENGTHS, batch_size=32, tested=500),
        ),
    ),
    True: Plan(
        starts=2, map_starts=1, pieces=4, shown=_SHOWN[::4], p=(0.5, 0.7), rho=(2.0, 3.0), alpha_max=(20.0,), choices=tuple(CHOICES)[:2], N=1000,
        runs=500,
        nets=(Nets("linear", 0.05, 1, 1_200, 2, 0.1, _STRENGTHS, batch_size=16, tested=200),),
    ),
}  # fmt: skip
"""By whether it is the quick form."""
