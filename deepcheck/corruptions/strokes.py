"""What is drawn over a picture, and what is drawn of it: stripes, lines, edges."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws
from deepcheck.corruptions.base import GREY_HEIGHT, OURS, Corruption, unit
from deepcheck.corruptions.edges import canny
from deepcheck.corruptions.filters import luminance

__all__ = ["CannyEdges", "DottedLine", "Stripe", "Zigzag"]

_WIDTH = 2.3
"""Half the width of a line at which it ends, in pixels of an image 28 high."""
_FAINT = ((1 / 3, 1), (2 / 3, 1), (1, 1), (1, 2), (1, 3))
"""Brightness and number of lines: severity 3 is that of MNIST-C."""


class Stripe(Corruption):
    """Stripes: the first and the last c columns are inverted."""

    group = "digital"
    random = False
    grey = colour = (1, 3, 5, 7, 9)
    grey_from, colour_from = "MNIST-C 4, else ours", OURS
    published = 4

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Invert them; a column that is in a stripe in part, in part."""
        del draws
        column = torch.arange(images.shape[3], device=images.device).to(images)
        width = parameter * unit(images)
        share = (width - torch.minimum(column, column.flip(0))).clamp(0, 1)
        return images + share * (1 - 2 * images)


class DottedLine(Corruption):
    """Dotted lines from the left to the right: brightness c[0], c[1] of them."""

    group = "digital"
    grey = colour = _FAINT
    grey_from, colour_from = "MNIST-C 3, else ours", OURS
    published = 3

    def apply(self, images: Tensor, parameter: tuple[float, int], draws: Draws) -> Tensor:
        """Draw them: two columns out of four."""
        brightness, lines = parameter
        last = GREY_HEIGHT - 1
        column = _columns(images)
        dots = (column.div(2, rounding_mode="floor").remainder(2) == 1).to(images)
        for left, right in zip(*_ends(draws, lines), strict=True):
            drawn = _line(images, (0 * left, left), (0 * left + last, right))
            images = images + brightness * drawn * dots
        return images


class Zigzag(Corruption):
    """Zigzag lines from the left to the right: brightness c[0], c[1] of them."""

    group = "digital"
    grey = colour = _FAINT
    grey_from, colour_from = "MNIST-C 3, else ours", OURS
    published = 3

    def apply(self, images: Tensor, parameter: tuple[float, int], draws: Draws) -> Tensor:
        """Draw them: corners 4 apart along a line from column 2 to 25, 2 above it and 2 below in turn."""
        brightness, lines = parameter
        first, last, half = 2.0, 25.0, 2.0
        starts = draws.below(*(27,) * lines)
        rises = draws.below(*(10,) * lines)
        for start, rise in zip(starts, rises, strict=True):
            slope = (rise - 5).to(images) / (last - first)
            cos = 1 / (1 + slope * slope).sqrt()
            length = (last - first) / cos
            corners = [(0 * length, 0 * length)]
            count = int((last - first - half) // (2 * half)) + 1
            corners += [
                (0 * length + (2 * k + 1) * half, 0 * length + (half if k % 2 == 0 else -half)) for k in range(count)
            ]
            corners.append((length, 0 * length))
            turned = [(first + cos * (a - slope * b), start.to(images) + cos * (slope * a + b)) for a, b in corners]
            for one, other in pairwise(turned):
                images = images + brightness * _line(images, one, other)
        return images


class CannyEdges(Corruption):
    """Edges in the place of the picture, by Canny's detector: the image fades, and a share c of edges stays."""

    group = "digital"
    random = False
    grey = colour = (0.2, 0.4, 0.6, 0.8, 1.0)
    grey_from, colour_from = "MNIST-C 5, else ours", OURS
    published = 5

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Mix them."""
        del draws
        edges = canny(luminance(images), sigma=unit(images)).to(images)
        return (1 - parameter) * images + parameter * edges


def _ends(draws: Draws, lines: int) -> tuple[list[Tensor], list[Tensor]]:
    """Return the rows, 0 to 26, where lines begin and end, each shape (n,)."""
    rows = draws.below(*(27,) * (2 * lines))
    return rows[:lines], rows[lines:]


def _columns(images: Tensor) -> Tensor:
    """Return the columns as those of an image 28 high, shape (width,)."""
    return torch.arange(images.shape[3], device=images.device).to(images) * (GREY_HEIGHT / images.shape[2])


def _line(images: Tensor, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> Tensor:
    r"""Return a line between two points, (column, row), each (n,), from left to right, as an image, shape (n, 1, height, width).

    At the distance d along the rows it has the brightness :math:`1 + \log(1 - d / 2.3)`, in [0, 1]. In small images it is at least
    about a pixel wide. Numbers are pixels of an image 28 high.
    """
    (left, above), (right, below) = (
        (a.to(images).view(-1, 1, 1), b.to(images).view(-1, 1, 1)) for a, b in (one, other)
    )
    column = _columns(images)
    row = torch.arange(images.shape[2], device=images.device).to(images)[:, None] * (GREY_HEIGHT / images.shape[2])
    away = (row - above - (below - above) / (right - left) * (column - left)).abs()
    away = away * min(1.0, 2 * images.shape[2] / GREY_HEIGHT)
    drawn = (1 + torch.log1p(-away.clamp(max=_WIDTH * (1 - 1e-6)) / _WIDTH)).clamp(0, 1)
    within = (column >= left.floor()) & (column < right.ceil())
    return (drawn * within)[:, None]
