"""Blur."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws
from deepcheck.corruptions.base import Corruption, unit
from deepcheck.corruptions.filters import blurred, clipped_zoom, filtered, streaked

__all__ = ["DefocusBlur", "GaussianBlur", "GlassBlur", "MotionBlur", "ZoomBlur"]

_FINE = 9
"""Points a pixel, along each side, at which a disk is looked at whose radius is not that of the tables."""


class GaussianBlur(Corruption):
    """Gaussian blur of standard deviation c pixels."""

    group = "blur"
    random = False
    grey = (1, 2, 3, 4, 6)
    colour = (0.4, 0.6, 0.7, 0.8, 1)

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Blur them."""
        del draws
        return blurred(images, parameter * unit(images))


class GlassBlur(Corruption):
    """Frosted glass: blurred, neighbouring pixels exchanged, and blurred again.

    A parameter is (standard deviation of both blurs, largest distance d of pixels that are exchanged, passes, share of the pixels
    that are exchanged in a pass). The pixels are taken one after the other, from the lower right corner to the upper left one, d
    from the border; each changes places with one at a distance of -d, ..., d - 1 along both sides.
    """

    group = "blur"
    grey = ((0.7, 1, 2, 0.5), (0.9, 2, 1, 0.5), (1, 2, 3, 0.5), (1.1, 3, 2, 0.5), (1.5, 4, 2, 0.5))
    colour = ((0.05, 1, 1, 1), (0.25, 1, 1, 1), (0.4, 1, 1, 1), (0.25, 1, 2, 1), (0.4, 1, 2, 1))
    published = 1

    def apply(self, images: Tensor, parameter: tuple[float, int, int, float], draws: Draws) -> Tensor:
        """Blur, exchange and blur."""
        sigma, distance, passes, share = parameter
        scale = unit(images)
        sigma, distance = sigma * scale, max(1, round(distance * scale))
        n, channels, height, width = images.shape
        rows, columns = (range(side - distance, distance, -1) for side in (height, width))
        places = [(row, column) for row in rows for column in columns]
        order = torch.arange(height * width, device=images.device).repeat(n, 1)
        for _ in range(passes):
            ends = (2 * distance,) * len(places)
            down, right = torch.stack(draws.below(*ends)), torch.stack(draws.below(*ends))
            moved = (1 + draws.symmetric(images.new_empty(n, len(places)))) / 2 < share
            step = (down - distance) * width + right - distance
            step = torch.where(moved.T, step, 0)
            for k, (row, column) in enumerate(places):
                here = row * width + column
                there = (here + step[k])[:, None]
                first, second = order[:, here].clone(), order.gather(1, there)
                order[:, here] = second[:, 0]
                order.scatter_(1, there, first[:, None])
        shuffled = blurred(images, sigma).flatten(2).gather(2, order[:, None].expand(-1, channels, -1))
        return blurred(shuffled.view(images.shape), sigma)


class DefocusBlur(Corruption):
    """Defocus: every point becomes a disk of radius c[0] pixels, with an edge blurred by c[1]."""

    group = "blur"
    random = False
    grey = ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))
    colour = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))

    def apply(self, images: Tensor, parameter: tuple[float, float], draws: Draws) -> Tensor:
        """Blur them."""
        del draws
        scale = unit(images)
        return filtered(images, disk(parameter[0] * scale, parameter[1], 1 if scale == 1 else _FINE))


class MotionBlur(Corruption):
    """Motion blur along a direction at random, at most 45 degrees from the rows: radius c[0], standard deviation c[1]."""

    group = "blur"
    grey = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))
    colour = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))
    published = 1

    def apply(self, images: Tensor, parameter: tuple[float, float], draws: Draws) -> Tensor:
        """Blur them."""
        scale = unit(images)
        angle = 90 * draws.uniform(images) - 45
        return streaked(images, parameter[0] * scale, parameter[1] * scale, angle)


class ZoomBlur(Corruption):
    """Zoom blur: the mean of the image and of c[1] enlarged ones, by the factors 1, 1 + c[0], 1 + 2 c[0], ..."""

    group = "blur"
    random = False
    grey = ((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11))
    colour = ((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26))

    def apply(self, images: Tensor, parameter: tuple[float, int], draws: Draws) -> Tensor:
        """Blur them."""
        del draws
        step, count = parameter
        total = images.clone()
        for k in range(count):
            total += clipped_zoom(images, 1 + k * step)
        return total / (count + 1)


def disk(radius: float, alias: float, fine: int = 1) -> Tensor:
    """Return a disk as a filter whose sum is 1, float64, on the CPU: the share of each pixel that is within the radius.

    Shares are of `fine` x `fine` points a pixel: with one, a pixel is inside or not. Then it is blurred with the Gaussian weights
    of 3 x 3 neighbours, of 5 x 5 where the radius is above 8.
    """
    reach = math.ceil(radius)
    inner = (torch.arange(fine, dtype=torch.float64) + 0.5) / fine - 0.5
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)[:, None] + inner
    square = place[:, None, :, None] ** 2 + place[None, :, None, :] ** 2
    shares = (square <= radius**2).double().mean((2, 3))
    near = 2 if radius > 8 else 1
    edge = torch.exp(-(torch.arange(-near, near + 1, dtype=torch.float64) ** 2) / (2 * alias**2))
    edge = edge / edge.sum()
    kernel = torch.nn.functional.conv2d(shares[None, None], torch.outer(edge, edge)[None, None], padding=2 * near)[0, 0]
    return kernel / kernel.sum()
