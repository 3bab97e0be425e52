"""Gradients by the images, for every attack that follows one: of an objective, and of the logits class by class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.points import Points

__all__ = ["by_class", "points_and_gradient"]

NO_GRADIENT = (
    "model has no gradient by its images: allowed is one that is differentiable in torch; for others there are the attacks "
    "without gradients, see deepcheck attack --list, and BPDA"
)


def points_and_gradient(examples: Examples, z: Tensor, objective: Objective) -> tuple[Points, Tensor]:
    """Return what the model makes of points, shape (n, ...), and the gradient of the objective there, of their shape.

    An entry of the gradient that is no number, as of a square root at 0, is 0: it says nothing of where to go; the others
    do. `z` asks for no gradient afterwards.

    Raises
    ------
    ValueError
        If the model has no gradient.
    """
    with torch.enable_grad():
        points = examples.points(z.requires_grad_(), objective)
        value = points.value
        gradient = torch.autograd.grad(value.sum(), z, allow_unused=True)[0] if value.requires_grad else None
    z.requires_grad_(False)
    if gradient is None:
        raise ValueError(NO_GRADIENT)
    return replace(points, logits=points.logits.detach(), value=value.detach()), gradient.nan_to_num(nan=0.0)


def by_class(f: Tensor, z: Tensor) -> Iterator[Tensor]:
    """Yield for k = 0, ..., K - 1 the gradient of f_k by each example's point, of the shape of the points.

    Parameters
    ----------
    f
        Shape (n, K), a function of each example's point alone, with its graph, which is freed after the last class.
    z
        The points, shape (n, ...), which `f` was computed from with `requires_grad`.

    Raises
    ------
    ValueError
        If there is no gradient.
    """
    count = f.shape[1]
    for k in range(count):
        column = torch.zeros_like(f)
        column[:, k] = 1
        gradient = None
        if f.requires_grad:
            (gradient,) = torch.autograd.grad(f, z, column, retain_graph=k < count - 1, allow_unused=True)
        if gradient is None:
            raise ValueError(NO_GRADIENT)
        yield gradient.nan_to_num(nan=0.0)
