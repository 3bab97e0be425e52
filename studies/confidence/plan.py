"""The forms of the study, and of which images and nets it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studies.common.subject import OWN, Subject
from studies.confidence.measure import Setting

__all__ = ["CIFAR10", "CIFAR10_QUICK", "DIGITS", "FULL", "NETS", "setting_of"]

FULL = Setting(400, (10.0, 30.0, 100.0), 12, 500, 3, 3, 500, 0.1, (0.0, 0.05, 0.1, 0.15, 0.2))
DIGITS = Setting(
    100, (5.0, 20.0), 10, 500, 2, 15, 95, 0.2, (0.0, 0.1, 0.2, 0.3, 0.4), ccat_epochs=15, validation=20, batch_size=32
)
_SIZES = (0.0, 0.008, 0.016, 0.024, 0.032)
_SMALL: dict[str, Any] = {"normalised": True, "augmentation": "crop_flip", "learning_rate": 0.05, "weight_decay": 5e-4}
_LINEAR: dict[str, Any] = {"normalised": True, "augmentation": "none", "learning_rate": 0.01}
CIFAR10 = replace(
    FULL,
    epochs=20,
    epsilon=0.016,
    sizes=_SIZES,
    ccat_epochs=40,
    batch_size=128,
    recipe=tuple(_SMALL.items()),
    of_linear=tuple(_LINEAR.items()),
)
CIFAR10_QUICK = replace(CIFAR10, epochs=2, ccat_epochs=2, seeds=2, examples=100, steps=10)
NETS = FULL.nets
"""The nets by name: model and method of training."""
_WIDE: dict[str, Any] = {"batch_size": 256, "learning_rate": 0.1, "precision": "bfloat16"}
"""For residual nets as wide as published, which need a GPU."""


def setting_of(subject: Subject = OWN, name: str = "mnist", *, quick: bool = False) -> Setting:
    """Return what is trained on the images of this name, and how it is attacked."""
    setting = {"digits": DIGITS, "cifar10": CIFAR10_QUICK if quick else CIFAR10}.get(name, FULL)
    setting = replace(setting, classes=subject.classes)
    if subject.net is not None:
        residual = "resnet" in subject.net and not quick and name != "digits"
        wide = dict(setting.recipe) | (_WIDE if residual else {})
        epochs = max(setting.epochs, 8) if residual else setting.epochs  # fewer steps, of more images
        setting = replace(setting, deep=subject.net, recipe=tuple(wide.items()), epochs=epochs)
    return setting if subject.seeds is None else replace(setting, seeds=subject.seeds)
