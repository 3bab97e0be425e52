"""Two classes of images for deep nets: the data, and nets that are trained once and kept in a study's folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepcheck import checkpoint
from deepcheck.attacks.base import Model
from deepcheck.data import DataError, Images, load, two_class_images
from deepcheck.match import measured_curve
from deepcheck.models import Network
from deepcheck.training import Recipe, recipe, train
from odeflow import load as load_result
from odeflow import save
from studies.registry import Unavailable

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "FREE",
    "NEGATIVE",
    "POSITIVE",
    "Norm",
    "examples",
    "fingerprint",
    "images_of",
    "kept",
    "least_sizes",
    "pair_recipe",
    "place",
    "trained",
]

Array = npt.NDArray[np.float64]
Norm = Literal["linf", "l2"]

POSITIVE, NEGATIVE = 3, 7
"""The digits with the labels +1 and -1, the classes 1 and 0."""
FREE = (-np.inf, np.inf)
"""No bounds of the pixels."""
STEPS = 5
"""Steps of the training attack."""


def images_of(*, quick: bool) -> tuple[Images, str]:
    """Return MNIST, or scikit-learn's digits in the quick form and where there is none, and then a note that says so.

    All classes are there: `two_class_images` and `two_classes` take the pair.
    """
    if quick:
        return load("digits"), "Not MNIST, but scikit-learn's digits of 8 x 8 pixels: this is the quick form"
    try:
        return load("mnist"), ""
    except DataError as error:
        return load("digits"), f"Not MNIST, but scikit-learn's digits of 8 x 8 pixels, because {error}"


def place() -> torch.device:
    """Return where nets are: the GPU, if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pair_recipe(dataset: str, norm: Norm, epsilon: float, *, ramp: float = 0.4, **changes: Any) -> Recipe:
    """Return how a net learns the pair: standard training for epsilon = 0, otherwise AT with PGD in the box [0, 1].

    `ramp` is that of AT, `changes` are other fields of the recipe, as for `deepcheck.training.recipe`.
    """
    fields = {"width": None, "augmentation": "none", "average": 0.99, "validation": 100 if dataset == "mnist" else 20}
    if not epsilon:
        return recipe(dataset, "standard", **(fields | changes))
    attack = {"norm": norm, "epsilon": epsilon, "attack_steps": STEPS, "step_size": 2.5 * epsilon / STEPS, "ramp": ramp}
    return recipe(dataset, "at", **(fields | attack | changes))


def trained(
    recipe: Recipe, images: Images, folder: Path, *, count: int | None = None, channels_last: bool = False
) -> Network:
    """Return a net that was trained on the pair out of a data set; what is in the folder is not trained again.

    Parameters
    ----------
    recipe, images
        What to do with which data.
    folder
        Where the net is kept.
    count
        Number of training images of the pair, the first ones; None: all.
    channels_last
        Keep weights in the memory format in which residual nets of few channels are faster.

    Raises
    ------
    Unavailable
        If the folder holds a net of another recipe, or half a file.
    """
    pair = two_class_images(images, POSITIVE, NEGATIVE)
    pair = replace(pair, train_images=pair.train_images[:count], train_labels=pair.train_labels[:count])
    try:
        network = train(recipe, pair, out=folder, resume=True, device=str(place()), channels_last=channels_last).network
    except checkpoint.CheckpointError as error:
        raise Unavailable(f"{error}; remove {str(folder.parent)!r} to start afresh") from None
    return network.to(memory_format=torch.channels_last) if channels_last else network  # type: ignore[call-overload]


def kept(file: Path, what: object, measure: Callable[[], xr.Dataset]) -> xr.Dataset:
    """Return what was measured: out of the file, if it was made of the same `what`, or by measuring.

    `what` has a repr that says all that the measurement depends on; see `fingerprint`.
    """
    key = hashlib.sha256(repr(what).encode()).hexdigest()
    if file.exists() and (data := load_result(file)).attrs.get("key") == key:
        return data.drop_encoding()
    data = measure().assign_attrs(key=key)
    save(data, file)
    return data


def fingerprint(network: Network) -> str:
    """Return a hash of a network's weights."""
    weights = b"".join(tensor.cpu().contiguous().numpy().tobytes() for tensor in network.state_dict().values())
    return hashlib.sha256(weights).hexdigest()


def examples(images: Images, count: int) -> tuple[Tensor, Tensor]:
    """Return some test images of the pair, spread evenly over the data set, in [0, 1], and their classes 1 and 0."""
    pair = two_class_images(images, POSITIVE, NEGATIVE)
    total = len(pair.test_labels)
    chosen = np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))
    device = place()
    x = torch.tensor(pair.test_images[chosen]).to(device).float() / 255
    return x, torch.tensor(pair.test_labels[chosen]).to(device)


def least_sizes(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: list[float],
    norm: Norm,
    seed: int,
    batch_size: int,
    boxed: bool = True,
) -> tuple[Array, Array]:
    """Return the least size of the list at which PGD turns each image, in the box [0, 1], and in the box or not.

    PGD with 40 steps: from the image in the box, and without bounds from the image and from a random start. The theory
    knows of no bounds; but an attack in the box is one without bounds too, and may find what that one missed. With
    boxed=False there is no box, and nothing is turned in it.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    options: dict[str, Any] = {"epsilon": epsilon, "norm": norm, "generator": generator, "batch_size": batch_size}

    def least(bounds: tuple[float, float], restarts: int) -> Array:
        found = measured_curve(model, x, y, steps=40, restarts=restarts, bounds=bounds, **options)
        return np.asarray(found.least_epsilon.values)

    in_box = least((0.0, 1.0), 1) if boxed else np.full(len(x), np.inf)
    return in_box, np.minimum(in_box, least(FREE, 2))
