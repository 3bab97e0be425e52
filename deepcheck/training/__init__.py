"""Training: one loop, and one file per method."""

from deepcheck.training.loop import Trained, train
from deepcheck.training.recipe import METHODS, RECIPES, Recipe, recipe

__all__ = ["METHODS", "RECIPES", "Recipe", "Trained", "recipe", "train"]
