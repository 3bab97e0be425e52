"""Generators: networks that make images of latent vectors, trained as Wasserstein GANs, and their nearest image to a given one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from deepcheck.generators.recipe import RECIPES, GeneratorRecipe

if TYPE_CHECKING:
    from deepcheck.generators.files import load_generator
    from deepcheck.generators.loss import critic_loss, gradient_penalty
    from deepcheck.generators.networks import Critic, Generator
    from deepcheck.generators.projection import MakesImages, nearest
    from deepcheck.generators.training import TrainedGenerator, train_generator

__all__ = [
    "RECIPES",
    "Critic",
    "Generator",
    "GeneratorRecipe",
    "MakesImages",
    "TrainedGenerator",
    "critic_loss",
    "gradient_penalty",
    "load_generator",
    "nearest",
    "train_generator",
]

_ROOMS = {
    "files": ("load_generator",),
    "loss": ("critic_loss", "gradient_penalty"),
    "networks": ("Critic", "Generator"),
    "projection": ("MakesImages", "nearest"),
    "training": ("TrainedGenerator", "train_generator"),
}


def __getattr__(name: str) -> object:
    """Load what needs torch only when it is asked for."""
    for room, names in _ROOMS.items():
        if name in names:
            import deepcheck._torch  # noqa: F401

            return getattr(import_module(f"deepcheck.generators.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
