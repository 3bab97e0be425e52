"""Weather: fog, frost, snow, spatter, and a brighter sky."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws
from deepcheck.corruptions.base import GREY_HEIGHT, OURS, Corruption, unit
from deepcheck.corruptions.filters import blurred, clipped_zoom, luminance, plasma, streaked

__all__ = ["Brightness", "Fog", "Frost", "Snow", "Spatter"]

_GREY_MAP = 256
"""Side of the height maps of MNIST-C: its images are a corner of them. Those of CIFAR-10-C are as large as its images."""
_MUD = (63 / 255, 42 / 255, 20 / 255)
_WATER = (175 / 255, 238 / 255, 238 / 255)
_ICE = (0.82, 0.92, 1.0)
_SOLID = 0.8
"""Coverage below which there is no mud."""


class Brightness(Corruption):
    """Brightness: the largest channel of each pixel (the value V of HSV) is raised by c, the others in proportion."""

    group = "weather"
    random = False
    grey = (0.1, 0.2, 0.3, 0.4, 0.5)
    colour = (0.05, 0.1, 0.15, 0.2, 0.3)
    published = 5

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Raise it."""
        del draws
        value = images.amax(1, keepdim=True)
        raised = (value + parameter).clamp(max=1)
        return torch.where(value > 0, images * (raised / value.clamp(min=1e-12)), raised)


class Fog(Corruption):
    """Fog: a random height map (plasma) of weight c[0] is added, and the sum scaled back to the image's range."""

    group = "weather"
    grey = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))
    colour = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))
    published = 5

    def apply(self, images: Tensor, parameter: tuple[float, float], draws: Draws) -> Tensor:
        """Add it: (x + c m) max(x) / (max(x) + c)."""
        weight, decay = parameter
        most = images.amax((1, 2, 3), keepdim=True)
        return (images + weight * heights(images, decay, draws)) * (most / (most + weight))


class Frost(Corruption):
    """Frost: c[0] times the image, and c[1] times ice, which is drawn by a formula.

    The benchmarks cut the ice out of five photographs. Here there are needles in three directions 60 degrees apart, over a random
    height map: the weights c are published, the ice is ours.
    """

    group = "weather"
    grey = ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))
    colour = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))
    grey_from = colour_from = OURS

    def apply(self, images: Tensor, parameter: tuple[float, float], draws: Draws) -> Tensor:
        """Add the ice."""
        grey = images[:, :1]
        scale = max(unit(images), 0.5)
        angle = 60 * draws.uniform(images)
        needles = torch.zeros_like(grey)
        for turn in (0, 60, 120):
            seeds = (draws.normal(grey) > 2).to(grey)
            one, other = (streaked(seeds, 6 * scale, 4 * scale, angle + turn + back) for back in (0, 180))
            needles = torch.maximum(needles, (4 * (one + other)).clamp(max=1))
        side = 2 ** math.ceil(math.log2(max(*images.shape[2:], 2)))
        ground = plasma(images, side, 3, draws)[..., : images.shape[2], : images.shape[3]]
        ice = 0.45 * ground + 0.55 * needles
        return parameter[0] * images + parameter[1] * ice * _tint(images, _ICE)


class Snow(Corruption):
    """Snow: flakes that fall, one layer and the same turned by 180 degrees, over a whitened image.

    A parameter is (mean and standard deviation of a Gaussian number in each pixel, enlargement, threshold below which there is
    no flake, radius and standard deviation of the motion blur, share of the image that is not whitened).
    """

    group = "weather"
    grey = (
        (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
        (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
        (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
    )
    colour = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )

    def apply(self, images: Tensor, parameter: tuple[float, ...], draws: Draws) -> Tensor:
        """Let it fall."""
        mean, spread, zoom, threshold, radius, sigma, kept = parameter
        scale = unit(images)
        flakes = clipped_zoom(mean + spread * draws.normal(images[:, :1]), zoom)
        flakes = torch.where(flakes < threshold, 0, flakes).clamp(0, 1)
        angle = -135 + 90 * draws.uniform(images)
        flakes = streaked(flakes, radius * scale, sigma * scale, angle)
        white = torch.maximum(images, 1.5 * luminance(images) + 0.5)
        return kept * images + (1 - kept) * white + flakes + flakes.flip(2, 3)


class Spatter(Corruption):
    """Spatter: drops of mud, or in severities 1 to 3 of coloured images of water.

    Gaussian numbers of mean c[0] and standard deviation c[1], blurred by c[2], are wet above c[3]. Mud covers: the wet mask,
    blurred by c[4], where it is above 0.8. Water (c[5] = 0) shines through: the depth above the threshold, over the largest, is
    the weight c[4] of a pale turquoise that is added. The benchmark shades its water with edges and their distances; here it is
    not shaded.
    """

    group = "weather"
    grey = (
        (0.65, 0.3, 4, 0.69, 0.6, 1),
        (0.65, 0.3, 3, 0.68, 0.6, 1),
        (0.65, 0.3, 2, 0.68, 0.5, 1),
        (0.65, 0.3, 1, 0.65, 1.5, 1),
        (0.67, 0.4, 1, 0.65, 1.5, 1),
    )
    colour = (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    )
    published = 4

    def apply(self, images: Tensor, parameter: tuple[float, ...], draws: Draws) -> Tensor:
        """Throw it."""
        mean, spread, smooth, threshold, last, muddy = parameter
        scale = unit(images)
        liquid = blurred(mean + spread * draws.normal(images[:, :1]), smooth * scale)
        wet = (liquid > threshold).to(images)
        if muddy:
            cover = blurred(wet, last * scale)
            cover = torch.where(cover < _SOLID, 0, cover)
            return images * (1 - cover) + cover * _tint(images, _MUD)
        depth = blurred(wet * liquid, scale / 2)
        share = depth / depth.amax((2, 3), keepdim=True).clamp(min=1e-12)
        return images + last * share * _tint(images, _WATER)


def heights(images: Tensor, decay: float, draws: Draws) -> Tensor:
    """Return a random height map for each image, shape (n, 1, height, width): a corner of a larger one."""
    height, width = images.shape[2:]
    grey = images.shape[1] == 1
    share = _GREY_MAP / GREY_HEIGHT if grey else 1
    side = 2 ** round(math.log2(share * height))
    side = max(side, 2 ** math.ceil(math.log2(max(height, width, 2))))
    return plasma(images, side, decay, draws)[..., :height, :width]


def _tint(images: Tensor, colour: tuple[float, float, float]) -> Tensor:
    """Return a colour, shape (channels, 1, 1); of grey images its first entry."""
    return images.new_tensor(colour[: images.shape[1]]).view(-1, 1, 1)
