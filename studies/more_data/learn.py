"""Linear classifiers and convolutional nets learn from the first images of a random order; they and their errors are kept."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from deepcheck.data import Images, load, two_classes
from deepcheck.training import Recipe, recipe
from studies.common.images import place
from studies.common.kept import digest_of, kept
from studies.common.nets import fingerprint, kept_training
from studies.more_data import attacked, linear
from studies.more_data.plan import SEED, Deep, Linear

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["attacked_images", "of_linear", "of_net", "recipe_of"]

_APART = 10
"""Images that the training's history is about, and that are not learned."""
_RAMP = 0.5
"""Share of the training over which epsilon grows: a small net that meets the whole attack at once may learn nothing."""


@cache
def _loaded(name: str) -> Images:
    return load(name, download=False)


def of_linear(plan: Linear, run: int, folder: Path) -> xr.Dataset:
    """Return the errors of the classifiers of one run, which are kept in the folder."""
    pair = two_classes(_loaded(plan.images), *plan.classes)
    arguments = plan.epsilons, plan.sizes, SEED + run
    settings = *arguments, digest_of(pair.X_train, pair.y_train, pair.X_test, pair.y_test)
    return kept(folder, f"{plan.images}_linear_{run}", settings, linear.measured, pair, *arguments)


def recipe_of(plan: Deep, epsilon: float, size: int, seed: int) -> Recipe:
    """Return how a net learns: standard training for epsilon = 0, otherwise AT with PGD in the box [0, 1]."""
    changes = plan.changes | {"epochs": plan.epochs[plan.sizes.index(size)], "validation": _APART, "seed": SEED + seed}
    if not epsilon:
        return recipe(plan.images, "standard", **(changes | {"test_epsilon": max(plan.epsilons)}))
    steps = plan.attack_steps
    attack = {"norm": "linf", "epsilon": epsilon, "attack_steps": steps, "step_size": 1.25 * epsilon / steps**0.5}
    return recipe(plan.images, "at", **(changes | attack | {"ramp": _RAMP}))


def of_net(plan: Deep, epsilon: float, size: int, seed: int, folder: Path) -> xr.Dataset:
    """Return the errors of one net; net and errors are kept in the folder."""
    images = _loaded(plan.images)
    order = np.random.default_rng(SEED + seed).permutation(len(images.train_labels))[: size + _APART]
    few = replace(images, train_images=images.train_images[order], train_labels=images.train_labels[order])
    name = f"{plan.images}_{epsilon:.4g}_{size}_{seed}"
    network = kept_training(recipe_of(plan, epsilon, size, seed), few, folder, name, device=str(place())).network
    x, y = attacked_images(images, plan.attacked)
    sizes = tuple(one for one in plan.epsilons if one and epsilon in (0.0, one))
    settings = attacked.ATTACK, sizes, digest_of(x, y), fingerprint(network)
    return kept(folder, f"{name}_errors", settings, attacked.measured, network, x, y, sizes)


def attacked_images(images: Images, count: int) -> tuple[Tensor, Tensor]:
    """Return test images, spread evenly, in [0, 1], and their classes."""
    chosen = np.unique(np.linspace(0, len(images.test_labels) - 1, count).astype(int))
    device = place()
    x = torch.tensor(images.test_images[chosen]).to(device).float() / 255
    return x, torch.tensor(images.test_labels[chosen]).to(device)
