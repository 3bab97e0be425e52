"""How the two digits are learned and tested."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Norm = Literal["l2", "linf"]

DIGITS = {1: 3, -1: 7}  # by label
NORMS: tuple[Norm, ...] = ("l2", "linf")
TRAININGS = ("standard", *NORMS)
ATTACKS = ("none", *NORMS)
ATTACKED: tuple[dict[str, Any], ...] = tuple({"norm": norm, "level": 1} for norm in NORMS)
LEVELS = np.linspace(0, 2, 49)  # test epsilon over training epsilon: 1 is one of them
COARSE = LEVELS[::4]  # where it is measured
FIRST = 250  # images learned, where the curves over learning time begin
SHOWN = 3  # test images of each class
SEED = 20260105


@dataclass(frozen=True)
class Setting:
    """How a data set is learned."""

    title: str
    eta: float
    """Learning rate per image, of weights and bias."""
    epochs: int
    epsilon: dict[str, float]
    """Size of the perturbation in training, in units of the range of a pixel."""
    tolerance: float
    """How far the theory's adversarial error may be from the measured one."""


SETTINGS = {
    "mnist": Setting("MNIST", 0.003, 2, {"l2": 1.5, "linf": 0.1}, tolerance=0.07),
    # only 95 test images, whose outputs are far from Gaussian
    "digits": Setting("scikit-learn's digits, not MNIST", 0.03, 20, {"l2": 0.75, "linf": 0.15}, tolerance=0.2),
}
