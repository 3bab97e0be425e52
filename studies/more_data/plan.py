"""What learns from how many examples, and how hard it is attacked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["SEED", "Deep", "Linear", "plan_of"]

SEED = 20261128


@dataclass(frozen=True)
class Linear:
    """Linear classifiers of two classes, attacked in L2."""

    title: str
    images: str
    classes: tuple[str, str]
    epsilons: tuple[float, ...]
    """The first is 0: standard training."""
    sizes: tuple[int, ...]
    """Numbers of training images."""
    closes: tuple[float, ...]
    """Epsilons at which more data is claimed to close the gap."""
    runs: int
    """Random orders of the images, of which the first ones are learned."""


@dataclass(frozen=True)
class Deep:
    """Convolutional nets of all classes, attacked in L-infinity."""

    title: str
    images: str
    epsilons: tuple[float, ...]
    sizes: tuple[int, ...]
    epochs: tuple[int, ...]
    """For each size: the fewer images, the more often they are seen."""
    runs: tuple[int, ...]
    """For each size: nets, each of its own images and first weights."""
    attack_steps: int
    """Of the training's attack, each of a length of 1.25 epsilon / sqrt(steps)."""
    attacked: int
    """Test images, spread over all."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Other fields of the recipe."""


_SMALL: dict[str, Any] = {
    "model": "conv_small", "width": None, "augmentation": "none", "optimiser": "adam", "learning_rate": 1e-3, "batch_size": 64,
    "average": 0.0, "weight_decay": 0.0, "normalised": False,
}  # fmt: skip
_MNIST = Linear("MNIST, 3 against 7", "mnist", ("3", "7"), (0.0, 0.5, 1.0, 1.5, 2.0, 2.5), (50, 150, 500, 1_500, 5_000, 12_000), closes=(0.5, 1.0, 1.5, 2.0), runs=3)  # fmt: skip
_CIFAR10 = Linear("CIFAR-10, airplane against ship", "cifar10", ("airplane", "ship"), (0.0, 0.1, 0.25, 0.5, 1.0), (50, 150, 500, 1_500, 4_500), closes=(0.5, 1.0), runs=3)  # fmt: skip
_DIGITS = Linear("digits, 3 against 7", "digits", ("3", "7"), (0.0, 0.4, 0.8), (20, 60, 240), closes=(0.8,), runs=10)
_DEEP = {
    "mnist": Deep(
        "MNIST", "mnist", (0.0, 0.1, 0.3), (300, 10_000), (150, 9), (1, 1),
        attack_steps=3, attacked=500, changes=_SMALL,
    ),
    "cifar10": Deep(
        "CIFAR-10", "cifar10", (0.0, 2 / 255, 8 / 255), (500, 6_000), (80, 12), (1, 1),
        attack_steps=3, attacked=500, changes=_SMALL,
    ),
    "digits": Deep(
        "digits", "digits", (0.0, 0.1, 0.2), (100, 1_000), (120, 20), (2, 2), attack_steps=3, attacked=200,
        changes=_SMALL | {"batch_size": 25},
    ),
}  # fmt: skip


def plan_of(sets: list[str]) -> dict[str, Linear | Deep]:
    """Return what is done with these data sets, by names such as "mnist linear"."""
    linear = {"mnist": _MNIST, "cifar10": _CIFAR10, "digits": _DIGITS}
    kinds: list[tuple[str, dict[str, Any]]] = [("linear", linear), ("deep", _DEEP)]
    return {f"{images} {kind}": plans[images] for kind, plans in kinds for images in sets}
