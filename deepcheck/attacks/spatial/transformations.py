"""Transformations of images with parameters, one set for each image: what attacks that are not additive search in.

Each has the identity at parameters that are 0, exactly. `size` is homogeneous: that of s times the parameters is |s| times
theirs. So an attack may search in shares of the bound, and multiply.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deepcheck.attacks.norms import below
from deepcheck.attacks.spatial.sampling import BORDERS, Border, checked_pictures, pixels, sample
from deepcheck.checks import checked_choice
from odeflow.model import checked_number

__all__ = ["Additive", "Flow", "Rigid", "Transformation", "roughness"]

_ROUNDING = 1e-8
"""What is added below the roots of the roughness, which have no gradient at 0 otherwise."""


class Transformation(abc.ABC):
    """A transformation T(x; theta) of images x, shape (n, channels, height, width), with parameters theta, shape (n, ...)."""

    bound: float
    smoothness: float

    def check(self, shape: tuple[int, ...], bounds: tuple[float, float]) -> None:
        """Raise ValueError if images of this shape, with pixels in these bounds, cannot be transformed."""
        del bounds
        checked_pictures(shape)

    @abc.abstractmethod
    def parameters(self, images: Tensor) -> Tensor:
        """Return the parameters of the identity, zeros, shape (n, ...)."""

    @abc.abstractmethod
    def apply(self, images: Tensor, theta: Tensor) -> Tensor:
        """Return the transformed images, of their shape. Pixels may leave the box."""

    def confine(self, theta: Tensor, bound: float) -> Tensor:
        """Return the nearest parameters of a size that is at most `bound`: here with every entry clipped."""
        limit = float(below(bound, theta))
        return theta.clamp(-limit, limit)

    def size(self, theta: Tensor) -> Tensor:
        """Return the size of the transformation, shape (n,): here the largest parameter in absolute value."""
        return theta.flatten(1).abs().amax(1)

    def penalty(self, theta: Tensor) -> Tensor:
        """Return how rough the parameters are, shape (n,): here 0."""
        return theta.new_zeros(len(theta))

    def _check_numbers(self) -> None:
        checked_number("bound", self.bound, above=0)
        checked_number("smoothness", self.smoothness, least=0)


@dataclass(frozen=True)
class Flow(Transformation):
    """A flow (Xiao et al., ICLR 2018): each pixel is sampled somewhere else, x'(p) = x(p + theta(p)), bilinearly.

    Parameters have the shape (n, 2, height, width): how many pixels down, and how many to the right. The size is the longest
    of these displacements. The penalty is the sum over pixels, and over the up to four neighbours of each, of
    sqrt(du^2 + dv^2 + 1e-8), less its value for a constant flow.
    """

    bound: float = 1.0
    """Longest displacement of a pixel, in pixels, > 0."""
    smoothness: float = 0.05
    """Weight of the penalty, >= 0."""
    border: Border = "edge"
    """What is outside: the nearest pixel (edge), the image mirrored at its outermost pixels (mirror), or 0 (zero)."""

    def __post_init__(self) -> None:
        self._check_numbers()
        checked_choice("border", self.border, BORDERS)

    def parameters(self, images: Tensor) -> Tensor:
        """Return no displacements."""
        n, _, height, width = images.shape
        return images.new_zeros(n, 2, height, width)

    def apply(self, images: Tensor, theta: Tensor) -> Tensor:
        """Return the images, sampled where the flow says."""
        rows, columns = pixels(images)
        return sample(images, rows + theta[:, 0], columns + theta[:, 1], self.border)

    def confine(self, theta: Tensor, bound: float) -> Tensor:
        """Shorten the displacements that are longer than `bound`."""
        limit = bound * (1 - 8 * torch.finfo(theta.dtype).eps)  # lengths are rounded
        length = _length(theta)
        return theta * torch.where(length > limit, limit / length.clamp(min=torch.finfo(theta.dtype).tiny), 1.0)

    def size(self, theta: Tensor) -> Tensor:
        """Return the longest displacement, shape (n,)."""
        return _length(theta).flatten(1).amax(1)

    def penalty(self, theta: Tensor) -> Tensor:
        """Return the sum over neighbours of how much their displacements differ, shape (n,)."""
        return roughness(theta)


@dataclass(frozen=True)
class Rigid(Transformation):
    """A shift of the image, then a rotation about its centre, with bilinear samples, and 0 beyond the border.

    Parameters have the shape (n, 3), or (1, 3) for all images alike, in units of the largest ones: the angle, counter-clockwise; the shift down; the shift to
    the right. The size is the largest of them. (Engstrom et al., ICML 2019)
    """

    angle: float = 30.0
    """Largest angle in degrees, in [0, 180]."""
    shift: float = 3.0
    """Largest shift along an axis in pixels, >= 0."""
    border: Border = "zero"
    """What is outside: the nearest pixel (edge), the image mirrored at its outermost pixels (mirror), or 0 (zero)."""

    bound = 1.0
    smoothness = 0.0

    def __post_init__(self) -> None:
        checked_number("angle", self.angle, least=0, most=180)
        checked_number("shift", self.shift, least=0)
        checked_choice("border", self.border, BORDERS)

    def parameters(self, images: Tensor) -> Tensor:
        """Return no angle and no shift."""
        return images.new_zeros(len(images), 3)

    def apply(self, images: Tensor, theta: Tensor) -> Tensor:
        """Return the images, shifted and rotated."""
        rows, columns = pixels(images)
        middle, centre = (images.shape[2] - 1) / 2, (images.shape[3] - 1) / 2
        angle, down, right = (theta[:, k, None, None] for k in range(3))
        cosine, sine = ((math.radians(self.angle) * angle).cos(), (math.radians(self.angle) * angle).sin())
        y, x = rows - middle, columns - centre  # y downwards
        return sample(
            images,
            cosine * y + sine * x + middle - self.shift * down,
            cosine * x - sine * y + centre - self.shift * right,
            self.border,
        )


@dataclass(frozen=True)
class Additive(Transformation):
    """What is added to every pixel, x' = x + theta: parameters of the shape of the images, their size in L-infinity."""

    bound: float = 8 / 255
    """Largest change of a pixel, > 0."""

    smoothness = 0.0

    def __post_init__(self) -> None:
        self._check_numbers()

    def check(self, shape: tuple[int, ...], bounds: tuple[float, float]) -> None:
        """Allow images of every shape."""

    def parameters(self, images: Tensor) -> Tensor:
        """Return zeros of the shape of the images."""
        return torch.zeros_like(images)

    def apply(self, images: Tensor, theta: Tensor) -> Tensor:
        """Return the sum."""
        return images + theta


def roughness(theta: Tensor) -> Tensor:
    """Return how much parameters on a grid differ from their neighbours, shape (n,).

    They have the shape (n, k, ...) with one axis or more of a grid. It is the sum over points, and over the neighbours of
    each along the axes, of the root of |difference|^2 + 1e-8, less 1e-4: every pair counts twice.
    """
    total = theta.new_zeros(len(theta))
    for axis in range(2, theta.ndim):
        square = theta.diff(dim=axis).square().sum(1)
        # sqrt(square + r) - sqrt(r), without the rounding of that difference
        total = total + 2 * (square / ((square + _ROUNDING).sqrt() + _ROUNDING**0.5)).flatten(1).sum(1)
    return total


def _length(flow: Tensor) -> Tensor:
    """Return the length of each displacement, shape (n, 1, height, width)."""
    return flow.square().sum(1, keepdim=True).sqrt()
