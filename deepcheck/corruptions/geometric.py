"""Geometry: what moves the pixels of an image.

What comes from outside is black in grey images, and the mirrored image in coloured ones.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws
from deepcheck.attacks.spatial.sampling import Border, pixels, sample
from deepcheck.corruptions.base import OURS, Corruption, unit
from deepcheck.corruptions.filters import blurred

__all__ = ["ElasticTransform", "Rotate", "Scale", "Shear", "Translate"]


class Shear(Corruption):
    """Shear by c radians, to the left or to the right.

    The pixel at (column u, row v) from the middle is taken from (u - v sin c, v cos c): rows too are stretched, by 1 / cos c.
    """

    group = "geometric"
    grey = (0.2, 0.4, 0.6, 0.8, 1.0)
    colour = grey
    colour_from = OURS
    published = 2

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Shear them."""
        sign = draws.signs(images, 1)[:, 0]
        zero, one = torch.zeros_like(sign), torch.ones_like(sign)
        return _mapped(images, (math.cos(parameter) * one, zero, -math.sin(parameter) * sign, one))


class Rotate(Corruption):
    """Rotation by c radians, one way or the other."""

    group = "geometric"
    grey = (0.2, 0.4, 0.6, 0.8, 1.0)
    colour = grey
    colour_from = OURS
    published = 2

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Rotate them."""
        sign = draws.signs(images, 1)[:, 0]
        cos, sin = math.cos(parameter) * torch.ones_like(sign), math.sin(parameter) * sign
        return _mapped(images, (cos, sin, -sin, cos))


class Scale(Corruption):
    """A smaller picture: shrunk to c of its size."""

    group = "geometric"
    random = False
    grey = (0.9, 0.8, 0.7, 0.6, 0.5)
    colour = grey
    colour_from = OURS
    published = 3

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Shrink them."""
        del draws
        one = images.new_ones(len(images))
        return _mapped(images, (one / parameter, 0 * one, 0 * one, one / parameter))


class Translate(Corruption):
    """Translation by c pixels along both sides, each one way or the other."""

    group = "geometric"
    grey = (1, 2, 3, 4, 5)
    colour = grey
    colour_from = OURS
    published = 3

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Move them."""
        shift = parameter * unit(images) * draws.signs(images, 2)
        row, column = pixels(images)
        return sample(images, row + shift[:, 0, None, None], column + shift[:, 1, None, None], _border(images))


class ElasticTransform(Corruption):
    """Elastic: three points are moved at random, the image with them, and then every pixel on its own.

    A parameter is in shares of the image's height: (length of the displacements, standard deviation of the Gaussian filter that
    smooths them, largest movement of the three points along each side). The displacements are numbers from U(-1, 1) after the
    filter, times the length (Simard, Steinkraus and Platt, ICDAR 2003).
    """

    group = "geometric"
    grey = ((2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))
    colour = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))

    def apply(self, images: Tensor, parameter: tuple[float, float, float], draws: Draws) -> Tensor:
        """Move the points, and then every pixel."""
        size = images.shape[2]
        length, smooth, jitter = (size * one for one in parameter)
        border = _border(images)
        images = _moved(images, jitter * draws.symmetric(images.new_empty(len(images), 3, 2)))
        if not length:
            return images
        wild = draws.symmetric(images.new_empty(len(images), 2, *images.shape[2:]))
        shift = length * blurred(wild, smooth, border="mirror", truncate=3)
        row, column = pixels(images)
        return sample(images, row + shift[:, 0], column + shift[:, 1], border)


def _border(images: Tensor) -> Border:
    return "zero" if images.shape[1] == 1 else "mirror"


def _mapped(images: Tensor, entries: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Return what is at A (v, u) where (v, u) is the place of a pixel from the middle: row, column; A row by row, each (n,)."""
    height, width = images.shape[2:]
    row, column = pixels(images)
    row, column = row - (height - 1) / 2, column - (width - 1) / 2
    a, b, c, d = (one.view(-1, 1, 1) for one in entries)
    rows, columns = a * row + b * column, c * row + d * column
    return sample(images, rows + (height - 1) / 2, columns + (width - 1) / 2, _border(images))


def _moved(images: Tensor, shift: Tensor) -> Tensor:
    """Return images after the affine map that moves three points: middle + s, (row - s, column + s) and middle - s, s a third.

    Shifts, shape (n, 3, 2), are of rows and columns.
    """
    height, width = images.shape[2:]
    middle, third = images.new_tensor([height // 2, width // 2]), min(height, width) // 3
    before = middle + third * images.new_tensor([[1, 1], [-1, 1], [-1, -1]])
    after = before + shift
    # p = before[2] + A (q - after[2]), where A takes the two differences after the movement to those before it
    old, new = before[:2] - before[2], after[:, :2] - after[:, 2:]
    determinant = new[:, 0, 0] * new[:, 1, 1] - new[:, 0, 1] * new[:, 1, 0]
    row, column = pixels(images)
    down, right = row - after[:, 2, 0, None, None], column - after[:, 2, 1, None, None]
    first = (down * new[:, 1, 1, None, None] - right * new[:, 1, 0, None, None]) / determinant[:, None, None]
    second = (right * new[:, 0, 0, None, None] - down * new[:, 0, 1, None, None]) / determinant[:, None, None]
    rows, columns = (before[2, k] + first * old[0, k] + second * old[1, k] for k in (0, 1))
    return sample(images, rows, columns, _border(images))
