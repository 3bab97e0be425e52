"""What the full and the quick form of the study measure."""

from __future__ import annotations

from dataclasses import dataclass

from studies.collapse.measure import TIMES, Convolutional, Nets, Pair

__all__ = ["FULL", "QUICK", "Plan"]


@dataclass(frozen=True)
class Plan:
    """All that is measured."""

    nets: tuple[Nets, ...]
    pairs: tuple[Pair, ...]
    convolutional: tuple[Convolutional, ...]


_LINEAR = (0.0, 0.6, 0.8, 0.95, 1.1, 1.25)
_FREE = (*_LINEAR, 1.4, 1.6)
_RANDOM = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9)
_TRAINED = (0.0, 0.4, 0.6, 0.8, 1.0, 1.2, 1.5)
_L2 = (0.0, 0.5, 0.75, 0.9, 1.0, 1.05, 1.1, 1.15, 1.25, 1.5)
_LINF = (0.0, 0.3, 0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 1.0)
_PAIRS = ((3, 7), (4, 9), (0, 1))
_SHORT = TIMES[:2]
FULL = Plan(
    (
        Nets("linear, N = 1000", (), 1000, "|w| = 1", (1.0, 2.0, 3.0), _LINEAR, times=_SHORT),
        Nets("linear, N = 100", (), 100, "|w| = 1", (1.0, 1.5, 2.0, 2.5, 3.0), _LINEAR, 20, times=_SHORT),
        Nets("linear, N = 100, free", (), 100, "free |w|", (1.0, 2.0, 3.0), _FREE, 20, times=_SHORT),
        Nets("20 ReLU, random start", (20,), 100, "free |w|", (1.0, 2.0, 3.0), _RANDOM),
        Nets("20 ReLU, trained start", (20,), 100, "free |w|", (1.0, 2.0, 3.0), _TRAINED, 10, "trained"),
        Nets("20 + 20 ReLU, random start", (20, 20), 100, "free |w|", (2.0,), _RANDOM),
        Nets("20 + 20 ReLU, trained start", (20, 20), 100, "free |w|", (2.0,), _TRAINED, 10, "trained"),
        Nets(
            "20 ReLU, N = 1000, random start", (20,), 1000, "free |w|", (2.0,), (0.0, 0.3, 0.45, 0.6), 5, times=_SHORT
        ),
        Nets(
            "20 ReLU, N = 1000, trained start",
            (20,),
            1000,
            "free |w|",
            (2.0,),
            (0.45, 0.6, 0.75, 0.9),
            5,
            "trained",
            _SHORT,
        ),
    ),
    tuple(Pair(*digits, "l2", _L2) for digits in _PAIRS) + tuple(Pair(*digits, "linf", _LINF) for digits in _PAIRS),
    (
        Convolutional("l2", 0.0, (0.75, 0.9, 1.05, 1.2)),
        Convolutional("l2", 0.5, (1.05, 1.35, 1.65, 1.95)),
        Convolutional("linf", 0.0, (0.3, 0.45, 0.6, 0.75)),
        Convolutional("linf", 0.5, (0.75, 1.0, 1.2, 1.4)),
    ),
)
QUICK = Plan(
    (
        Nets("linear, N = 100", (), 100, "|w| = 1", (2.0,), (0.0, 0.7, 0.85, 1.0, 1.15), times=_SHORT),
        Nets("linear, N = 100, free", (), 100, "free |w|", (2.0,), (0.0, 0.85, 1.0, 1.15, 1.5), times=_SHORT),
        Nets("20 ReLU, random start", (20,), 100, "free |w|", (2.0,), (0.0, 0.3, 0.6, 0.9), times=_SHORT),
        Nets(
            "20 ReLU, trained start", (20,), 100, "free |w|", (2.0,), (0.6, 0.8, 1.0, 1.2, 1.5), 10, "trained", _SHORT
        ),
    ),
    (Pair(3, 7, "l2", (0.0, 0.5, 0.9, 1.0, 1.1, 1.2, 1.4), 0.1, 2000),),
    (Convolutional("l2", 0.0, (0.0, 1.4), 1, 10_000, 15),),
)
