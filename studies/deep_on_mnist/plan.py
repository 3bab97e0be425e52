"""What is trained on which data set, and how it is attacked."""

from __future__ import annotations

from studies.common.attacked import Norm
from studies.deep_on_mnist.measure import Setting

__all__ = ["SETTINGS"]

_MNIST: dict[Norm, tuple[float, ...]] = {"linf": (0.1, 0.2, 0.3), "l2": (1.0, 2.0)}
_DIGITS: dict[Norm, tuple[float, ...]] = {"linf": (0.1,), "l2": (0.4,)}
SETTINGS = {
    "mnist": Setting(
        "MNIST",
        _MNIST,
        {"linf": 0.4, "l2": 4.0},
        {"convolutional": _MNIST, "residual": {"linf": (0.1,), "l2": (1.0,)}},
        {"linear": 20, "convolutional": 3, "residual": 2},
        eta=0.01,
        images=6_000,
        recipes={
            "convolutional": {"epochs": 4},
            "residual": {"epochs": 4, "width": 4},
        },
        counts={"residual": 4_000},
        examples={"linear": 300, "convolutional": 250, "residual": 100},
        checked={"convolutional": 600, "residual": 300},
    ),
    "digits": Setting(  # the quick form, too: without the residual net, which takes longest
        "scikit-learn's digits, not MNIST",
        _DIGITS,
        {"linf": 0.4, "l2": 1.6},
        {"convolutional": _DIGITS},
        {"linear": 20, "convolutional": 2},
        eta=0.1,
        images=2_000,
        recipes={"convolutional": {"epochs": 15}},
        counts={},
        examples={"linear": 95, "convolutional": 95},
        checked={"convolutional": 95},
        of_linearity=30,
        within=0.06,  # of 95 images, 5
        theory_within=0.1,  # two standard errors of 95 images
    ),
}
