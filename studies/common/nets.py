"""Nets that are trained once and kept in a study's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from deepcheck import checkpoint
from deepcheck.data import Images, two_class_images
from deepcheck.models import Network
from deepcheck.training import Recipe, recipe, train
from studies.common.attacked import Norm
from studies.common.errors import Unavailable
from studies.common.images import NEGATIVE, POSITIVE, Class, place
from studies.common.kept import digest_of, made_here, own_folder

if TYPE_CHECKING:
    from deepcheck.training import Trained

__all__ = ["fingerprint", "kept_training", "pair_recipe", "trained"]

STEPS = 5
"""Steps of the training attack."""
_LISTS = ("deepcheck.training.methods",)
"""What only lists the methods: a net depends on its own."""
VALIDATION = {"mnist": 100, "cifar10": 200, "digits": 20}
"""Training images of a pair that are kept apart."""


def pair_recipe(dataset: str, norm: Norm, epsilon: float, *, ramp: float = 0.4, **changes: Any) -> Recipe:
    """Return how a net learns the pair: standard training for epsilon = 0, otherwise AT with PGD in the box [0, 1].

    `ramp` is that of AT, `changes` are other fields of the recipe, as for `deepcheck.training.recipe`.
    """
    fields = {"width": None, "augmentation": "none", "average": 0.99, "validation": VALIDATION[dataset]}
    if not epsilon:
        return recipe(dataset, "standard", **(fields | changes))
    attack = {"norm": norm, "epsilon": epsilon, "attack_steps": STEPS, "step_size": 2.5 * epsilon / STEPS, "ramp": ramp}
    return recipe(dataset, "at", **(fields | attack | changes))


def kept_training(recipe: Recipe, images: Images, folder: Path, name: str, **options: Any) -> Trained:
    """Train a net, or go on; or take it as it is, if it was trained on the same images by the same code before.

    Parameters
    ----------
    recipe, images
        What to do with which data.
    folder
        That of the study.
    name
        What the net is called. Its own folder is NAME_DIGEST, with the first digits of a digest of code and images; the code is
        that of the loop and of the recipe's method, and not that of the other methods.
    **options
        As for `deepcheck.training.train`: device, channels_last, progress.

    Raises
    ------
    Unavailable
        If that folder holds a net of another recipe, or half a file.
    """
    data = digest_of(images.train_images, images.train_labels)
    own = own_folder(folder, made_here(name, data, train.__module__, type(recipe.method).__module__, apart=_LISTS))
    try:
        return train(recipe, images, out=own, resume=True, **options)
    except checkpoint.CheckpointError as error:
        raise Unavailable(f"{error}; remove {str(folder)!r} to start afresh") from None


def trained(
    recipe: Recipe,
    images: Images,
    folder: Path,
    name: str,
    *,
    pair: tuple[Class, Class] = (POSITIVE, NEGATIVE),
    count: int | None = None,
    channels_last: bool = False,
) -> Network:
    """Return a net that was trained on the pair out of a data set; see `kept_training`.

    Parameters
    ----------
    recipe, images, folder, name
        As there; all classes of the images are there.
    pair
        The two classes, that of the label +1 first.
    count
        Number of training images of the pair, the first ones; None: all.
    channels_last
        Keep weights in the memory format in which residual nets of few channels are faster.
    """
    two = two_class_images(images, *pair)
    two = replace(two, train_images=two.train_images[:count], train_labels=two.train_labels[:count])
    options: dict[str, Any] = {"device": str(place()), "channels_last": channels_last}
    network = kept_training(recipe, two, folder, name, **options).network
    return network.to(memory_format=torch.channels_last) if channels_last else network  # type: ignore[call-overload]


def fingerprint(network: nn.Module) -> str:
    """Return a digest of a network's weights."""
    return digest_of(*network.state_dict().values())
