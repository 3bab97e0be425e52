"""Convolutional nets that learn from the first images of a random order, and what their errors are under attack."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from deepcheck.attacks.gradient.pgd import PGD
from deepcheck.data import Images, load
from deepcheck.models import Network
from deepcheck.training import Recipe, recipe
from studies.common.images import place
from studies.common.kept import digest_of, kept
from studies.common.nets import fingerprint, kept_training
from studies.more_data.plan import ATTACK, SEED, Deep

__all__ = ["errors_of", "measured", "recipe_of"]

_APART = 50
"""Images that the training's history is about, and that are not learned."""
_BATCH = 100
_RAMP = 0.5
"""Share of the training over which epsilon grows: a small net that meets the whole attack at once may learn nothing."""


@cache
def _loaded(name: str) -> Images:
    return load(name, download=False)


def recipe_of(plan: Deep, epsilon: float, size: int, seed: int) -> Recipe:
    """Return how a net learns: standard training for epsilon = 0, otherwise AT with PGD in the box [0, 1]."""
    changes = plan.changes | {"epochs": plan.epochs[plan.sizes.index(size)], "validation": _APART, "seed": SEED + seed}
    if not epsilon:
        return recipe(plan.images, "standard", **(changes | {"test_epsilon": max(plan.epsilons)}))
    steps = plan.attack_steps
    attack = {"norm": "linf", "epsilon": epsilon, "attack_steps": steps, "step_size": 1.25 * epsilon / steps**0.5}
    return recipe(plan.images, "at", **(changes | attack | {"ramp": _RAMP}))


def errors_of(plan: Deep, epsilon: float, size: int, seed: int, folder: Path) -> xr.Dataset:
    """Return the errors of one net; net and errors are kept in the folder."""
    torch.set_num_threads(1)
    images = _loaded(plan.images)
    order = np.random.default_rng(SEED + seed).permutation(len(images.train_labels))[: size + _APART]
    few = replace(images, train_images=images.train_images[order], train_labels=images.train_labels[order])
    name = f"{plan.images}_{epsilon:.4g}_{size}_{seed}"
    network = kept_training(recipe_of(plan, epsilon, size, seed), few, folder, name, device=str(place())).network
    x, y = attacked_images(images, plan.attacked)
    sizes = tuple(one for one in plan.epsilons if one and epsilon in (0.0, one))
    settings = SEED, ATTACK, sizes, digest_of(x, y), fingerprint(network)
    return kept(folder, f"{name}_errors", settings, measured, network, x, y, sizes)


def attacked_images(images: Images, count: int) -> tuple[Tensor, Tensor]:
    """Return test images, spread evenly, in [0, 1], and their classes."""
    chosen = np.unique(np.linspace(0, len(images.test_labels) - 1, count).astype(int))
    device = place()
    x = torch.tensor(images.test_images[chosen]).to(device).float() / 255
    return x, torch.tensor(images.test_labels[chosen]).to(device)


def measured(network: Network, x: Tensor, y: Tensor, epsilons: tuple[float, ...]) -> xr.Dataset:
    """Return which images are wrong without an attack, and which PGD turns at each epsilon.

    S from it is a lower bound of the adversarial error, on these images. What an attack of a smaller epsilon turns, it turns at a
    larger one.
    """
    network.eval()
    with torch.no_grad():
        clean = torch.cat([network(part).argmax(1) for part in torch.split(x, _BATCH)]) != y
    wrong = clean.expand(len(epsilons), -1).cpu().numpy().copy()
    for k, objective in enumerate(("cross_entropy", "margin")):
        attack = PGD("linf", objective, **ATTACK)
        generator = torch.Generator().manual_seed(SEED + k)
        found = attack(network, x, y, epsilon=list(epsilons), generator=generator, batch_size=_BATCH)
        wrong |= (found.prediction != y).any(-2).cpu().numpy()
    wrong = np.logical_or.accumulate(wrong, axis=0)
    return xr.Dataset(
        {
            "wrong": ("example", clean.cpu().numpy().astype(np.int8)),
            "turned": (("epsilon", "example"), wrong.astype(np.int8)),
        },
        {"epsilon": list(epsilons)},
    )
