"""At which size an attack turns an image, for theories that know of no bounds of the pixels."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.match import measured_curve

__all__ = ["FREE", "Norm", "least_sizes"]

Array = npt.NDArray[np.float64]
Norm = Literal["linf", "l2"]

FREE = (-np.inf, np.inf)
"""No bounds of the pixels."""


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
    steps: int = 40,
) -> tuple[Array, Array]:
    """Return the least size of the list at which PGD turns each image, in the box [0, 1], and in the box or not.

    PGD, with 40 steps if nothing else is said: from the image in the box, and without bounds from the image and from a random start. The theory
    knows of no bounds; but an attack in the box is one without bounds too, and may find what that one missed. With
    boxed=False there is no box, and nothing is turned in it.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    options: dict[str, Any] = {"epsilon": epsilon, "norm": norm, "generator": generator, "batch_size": batch_size}

    def least(bounds: tuple[float, float], restarts: int) -> Array:
        found = measured_curve(model, x, y, steps=steps, restarts=restarts, bounds=bounds, **options)
        return np.asarray(found.least_epsilon.values)

    in_box = least((0.0, 1.0), 1) if boxed else np.full(len(x), np.inf)
    return in_box, np.minimum(in_box, least(FREE, 2))
