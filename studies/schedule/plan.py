"""What the study schedule computes, simulates and trains."""

from __future__ import annotations

from dataclasses import dataclass

from studies.schedule.nets import Nets

__all__ = ["PLANS", "Plan"]


@dataclass(frozen=True)
class Plan:
    """Sizes of the study."""

    starts: int
    """Of the search for the best schedule."""
    pieces: int
    p: tuple[float, ...]
    rho: tuple[float, ...]
    alpha_max: tuple[float, ...]
    N: int
    runs: int
    nets: tuple[Nets, ...]


_STRENGTHS = (1.0, 1.5)

PLANS = {
    False: Plan(
        starts=20, pieces=10, p=(0.5, 0.6, 0.7, 0.8, 0.9), rho=(2.0, 2.5, 3.0, 3.5, 4.0), alpha_max=(10.0, 20.0, 50.0, 100.0),
        N=1000, runs=2000,
        nets=(
            Nets("linear", 0.002, 1, 6_400, 5, 0.1, _STRENGTHS),
            Nets("linear", 0.02, 1, 6_400, 5, 0.1, _STRENGTHS),
            Nets("linear", 0.02, 4, 6_400, 5, 0.1, _STRENGTHS),
            Nets("conv_small", 0.02, 1, 3_200, 3, 0.1, _STRENGTHS, batch_size=32, tested=500),
            Nets("conv_small", 0.05, 1, 3_200, 3, 0.1, _STRENGTHS, batch_size=32, tested=500),
        ),
    ),
    True: Plan(
        starts=3, pieces=5, p=(0.5, 0.7), rho=(2.0, 3.0), alpha_max=(20.0,), N=1000, runs=400,
        nets=(Nets("linear", 0.005, 1, 1_200, 2, 0.1, _STRENGTHS, tested=200),),
    ),
}  # fmt: skip
"""By whether it is the quick form."""
