"""What is trained and attacked in each study, full and quick, and the published numbers."""

from __future__ import annotations

from typing import Any

from deepcheck.evaluation import THREATS
from deepcheck.training import recipe
from studies.ccat.measure import Setting

__all__ = ["PUBLISHED", "TRAININGS", "setting_of"]

TRAININGS = ("standard", "at", "ccat")

PUBLISHED = {
    "mnist": {
        "RErr(tau) linf 0.3": {"at": 1.0, "ccat": 7.7},
        "RErr(tau) linf 0.4": {"at": 100.0, "ccat": 40.0},
        "RErr(tau) l2 3": {"at": 81.3, "ccat": 1.4},
        "FPR distal, uniform": {"standard": 100.0, "at": 100.0, "ccat": 0.0},
        "FPR uniform noise": {"standard": 100.0, "at": 44.5, "ccat": 0.0},
    },
    "cifar10": {
        "Err": {"at": 16.6, "ccat": 10.1},
        "RErr(tau) linf 0.03": {"at": 62.3, "ccat": 67.9},
        "RErr(tau) l2 1": {"at": 73.9, "ccat": 46.2},
        "FPR distal, uniform": {"at": 100.0, "ccat": 0.0},
    },
}
"""Stutz, Hein, Schiele, "Confidence-Calibrated Adversarial Training", arXiv:1910.06259 (the preprint), in %."""


def setting_of(name: str, dataset: str, *, quick: bool) -> Setting:
    """Return the setting of a study on a data set, which may stand in for the study's own."""
    recipes = {training: recipe(dataset, training) for training in TRAININGS}
    threats, published = THREATS[dataset], PUBLISHED.get(dataset, {})
    if name == "ccat_cifar10":
        attack: dict[str, Any] = {"epsilon": 0.03, "attack_steps": 40, "step_size": 0.005}
        recipes = {
            training: one.changed(
                model="resnet_ccat", epochs=100, **({"test_epsilon": 0.03} if training == "standard" else attack)
            )
            for training, one in recipes.items()
        }
    if not quick:
        effort = {"steps": 200, "restarts": 2, "queries": 1000} if dataset == "mnist" else {}
        return Setting(dataset, recipes, threats, published=published, **effort)
    few: dict[str, Any] = {"steps": 50, "restarts": 2, "queries": 200, "published": published}
    if name == "ccat_cifar10":  # only that everything runs
        changes: dict[str, Any] = {"width": 8, "epochs": 1, "batch_size": 50, "validation": 50}
        recipes = {
            training: one.changed(**changes, **({} if training == "standard" else {"attack_steps": 2}))
            for training, one in recipes.items()
        }
        few |= {"steps": 10, "restarts": 1, "queries": 50}
        return Setting(dataset, recipes, threats, train_images=350, examples=50, validation=50, **few)
    if dataset == "digits":
        return Setting(dataset, recipes, threats, examples=179, validation=180, **few)
    epochs = {"standard": 4, "at": 12, "ccat": 8}
    attacks: dict[str, dict[str, Any]] = {
        "standard": {},
        "at": {"attack_steps": 5, "step_size": 0.12},
        "ccat": {"attack_steps": 10, "step_size": 0.1, "first_steps": 3},
    }
    recipes = {
        training: one.changed(epochs=epochs[training], width=None, **attacks[training])
        for training, one in recipes.items()
    }
    return Setting(dataset, recipes, threats, train_images=10_000, examples=200, **few)
