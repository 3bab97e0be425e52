"""Which images are learned, and how."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CAUSES", "DUAL", "PAIRS", "SAMPLES", "THEORIES", "Pair", "Setting"]


@dataclass(frozen=True)
class Setting:
    """How a classifier is trained and tested. eta is the rate per example, of weights and bias."""

    norm: Literal["l2", "linf"]
    epsilon: float
    eta: float
    examples: int
    largest: float
    """Largest test epsilon."""

    def __str__(self) -> str:
        return f"{self.norm} {self.epsilon:g}, eta {self.eta:g}"


@dataclass(frozen=True)
class Pair:
    """Two classes of a data set, and how they are learned."""

    images: str
    positive: str
    negative: str
    settings: tuple[Setting, ...]
    runs: int
    quick_runs: int = 0
    """In the quick form, which takes two settings; 0: it leaves the pair out."""


_MNIST = (
    Setting("l2", 1.0, 0.01, 6_000, largest=4.0),
    Setting("linf", 0.1, 0.01, 6_000, largest=0.3),
    Setting("linf", 0.05, 0.01, 6_000, largest=0.3),
)
_SLOW = (Setting("l2", 1.0, 0.002, 30_000, largest=4.0), Setting("linf", 0.1, 0.002, 30_000, largest=0.3))
_DIGITS = (Setting("l2", 0.4, 0.1, 2_000, largest=1.2), Setting("linf", 0.1, 0.1, 2_000, largest=0.3))
_CIFAR10 = (Setting("l2", 0.5, 0.002, 6_000, largest=4.0), Setting("linf", 0.008, 0.002, 6_000, largest=0.06))
PAIRS = (
    Pair("digits", "3", "7", _DIGITS, runs=100, quick_runs=100),
    Pair("mnist", "3", "7", _MNIST + _SLOW, runs=40, quick_runs=12),
    Pair("mnist", "4", "9", _MNIST, runs=40),
    Pair("mnist", "0", "1", _MNIST, runs=40),
    Pair("cifar10", "airplane", "ship", _CIFAR10, runs=30),
)
DUAL = {"l2": "l2_norm", "linf": "l1_norm"}
THEORIES = {"eta -> 0": r"theory, $\eta\to0$", "with noise": "theory with the noise of SGD"}
SAMPLES = {"Gaussian": "SGD on Gaussian samples", "images": "SGD on the images"}
CAUSES = ("weights", "not Gaussian", "test set")
"""Of a difference between theory and images."""
