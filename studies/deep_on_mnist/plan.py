"""What is trained on which data set, and how it is attacked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from studies.common.attacked import Norm
from studies.common.subject import OWN, Subject
from studies.deep_on_mnist.measure import Setting

__all__ = ["SETTINGS", "setting_of"]

_MNIST: dict[Norm, tuple[float, ...]] = {"linf": (0.1, 0.2, 0.3), "l2": (1.0, 2.0)}
_DIGITS: dict[Norm, tuple[float, ...]] = {"linf": (0.1,), "l2": (0.4,)}
_CIFAR10: dict[Norm, tuple[float, ...]] = {"linf": (0.008, 0.032), "l2": (0.5,)}
_LEAST: dict[Norm, tuple[float, ...]] = {"linf": (0.008,), "l2": (0.5,)}
_LIKE = {"conv_small": "convolutional", "madry_mnist": "convolutional"}
"""Whose recipe another net learns by; the others are residual."""
_WIDE: dict[str, Any] = {"batch_size": 256, "learning_rate": 0.1, "precision": "bfloat16"}
"""For residual nets as wide as published, which need a GPU."""
_OF_CIFAR10: dict[str, Any] = {"normalised": True, "augmentation": "crop_flip", "weight_decay": 5e-4}
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
    "cifar10": Setting(
        "CIFAR-10",
        _CIFAR10,
        {"linf": 0.064, "l2": 2.0},
        {"convolutional": _CIFAR10, "residual": _CIFAR10},
        {"linear": 20, "convolutional": 3, "residual": 3},
        eta=0.002,
        images=6_000,
        recipes={
            "convolutional": {**_OF_CIFAR10, "learning_rate": 0.05, "epochs": 20},
            "residual": {**_OF_CIFAR10, **_WIDE, "epochs": 20},
        },
        counts={},
        examples={"linear": 300, "convolutional": 250, "residual": 250},
        checked={"convolutional": 600, "residual": 600},
    ),
    "cifar10 quick": Setting(
        "CIFAR-10, quick form",
        _LEAST,
        {"linf": 0.032, "l2": 2.0},
        {"convolutional": _LEAST},
        {"linear": 5, "convolutional": 2},
        eta=0.002,
        images=2_000,
        recipes={"convolutional": {**_OF_CIFAR10, "learning_rate": 0.05, "epochs": 4}},
        counts={"convolutional": 2_000},
        examples={"linear": 100, "convolutional": 100},
        checked={"convolutional": 200},
        of_linearity=30,
    ),
}


def setting_of(subject: Subject = OWN, name: str = "mnist", *, quick: bool = False) -> Setting:
    """Return what is trained on the images of this name, and how it is attacked.

    The tolerances of the claims are those of the data set. A net that is given is trained in the place of the study's
    own, as wide as published, with the epsilons and otherwise the recipe of the own net that is most like it.
    """
    forms = [f"{name} quick", name] if quick else [name]
    setting = replace(next(SETTINGS[form] for form in forms if form in SETTINGS), classes=subject.classes)
    if subject.net is not None:
        net, like = subject.net, _LIKE.get(subject.net, "residual")
        own = like if like in setting.nets else next(iter(setting.nets))
        recipe = {key: value for key, value in setting.recipes[own].items() if key != "width"}
        wide = {} if quick or name == "digits" or like == "convolutional" else _WIDE
        setting = replace(
            setting,
            nets={net: setting.nets[own]},
            models={net: net},
            runs={"linear": setting.runs["linear"], net: setting.runs[own]},
            recipes={net: {**recipe, **wide}},
            counts={net: setting.counts[own]} if own in setting.counts and quick else {},
            examples={"linear": setting.examples["linear"], net: setting.examples[own]},
            checked={net: setting.checked[own]},
        )
    if subject.seeds is not None:
        setting = replace(setting, runs={**setting.runs, **dict.fromkeys(setting.nets, subject.seeds)})
    return setting
