"""Generators: networks that make images of latent vectors, trained as Wasserstein GANs, and their nearest image to a given one."""

import deepcheck._torch  # noqa: F401
from deepcheck.generators.files import load_generator
from deepcheck.generators.loss import critic_loss, gradient_penalty
from deepcheck.generators.networks import Critic, Generator
from deepcheck.generators.projection import nearest
from deepcheck.generators.recipe import RECIPES, GeneratorRecipe
from deepcheck.generators.training import TrainedGenerator, train_generator

__all__ = [
    "RECIPES",
    "Critic",
    "Generator",
    "GeneratorRecipe",
    "TrainedGenerator",
    "critic_loss",
    "gradient_penalty",
    "load_generator",
    "nearest",
    "train_generator",
]
