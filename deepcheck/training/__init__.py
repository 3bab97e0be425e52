"""Training: one loop, and one file per method."""

from __future__ import annotations

from typing import TYPE_CHECKING

from deepcheck.training.methods import METHODS, AttackingMethod, Method, RecordableMethod
from deepcheck.training.recipe import RECIPES, Recipe, recipe

if TYPE_CHECKING:
    from deepcheck.training.loop import Trained, train
    from deepcheck.training.online import train_online

__all__ = [
    "METHODS",
    "RECIPES",
    "AttackingMethod",
    "Method",
    "Recipe",
    "RecordableMethod",
    "Trained",
    "recipe",
    "train",
    "train_online",
]


def __getattr__(name: str) -> object:
    """Load the loop, and torch with it, only when it is asked for."""
    if name in ("Trained", "train"):
        import deepcheck._torch
        from deepcheck.training import loop

        return getattr(loop, name)
    if name == "train_online":
        import deepcheck._torch  # noqa: F401
        from deepcheck.training.online import train_online

        return train_online
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
