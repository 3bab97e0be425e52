"""What processing does to a picture: contrast, saturation, fewer pixels, fewer levels, JPEG."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws
from deepcheck.corruptions.base import OURS, Corruption
from deepcheck.corruptions.filters import along
from deepcheck.corruptions.jpeg_codec import jpeg

__all__ = ["Contrast", "JpegCompression", "Pixelate", "Quantize", "Saturate"]


class Contrast(Corruption):
    """Contrast: differences from the mean, image by image and channel by channel, are multiplied by c."""

    group = "digital"
    random = False
    grey = (0.4, 0.3, 0.2, 0.1, 0.05)
    colour = (0.75, 0.5, 0.4, 0.3, 0.15)

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Multiply them."""
        del draws
        mean = images.mean((2, 3), keepdim=True)
        return mean + parameter * (images - mean)


class Saturate(Corruption):
    """Saturation: that of HSV becomes c[0] S + c[1], within [0, 1]. Grey pixels have the hue 0, red."""

    group = "digital"
    random = False
    grey = None
    colour = ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2))

    def apply(self, images: Tensor, parameter: tuple[float, float], draws: Draws) -> Tensor:
        """Change it: with hue and value fixed, V - x is proportional to S."""
        del draws
        value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
        grey = value == least
        saturation = (value - least) / value.clamp(min=1e-12)
        changed = (parameter[0] * saturation + parameter[1]).clamp(0, 1)
        red = images.new_tensor([0, 1, 1]).view(3, 1, 1)
        below = torch.where(grey, value * red, (value - images) / saturation.clamp(min=1e-12))
        return value - below * changed


class JpegCompression(Corruption):
    """JPEG of quality c, with chrominances of half the resolution."""

    group = "digital"
    random = False
    grey = (25, 18, 15, 10, 7)
    colour = (80, 65, 58, 50, 40)

    def apply(self, images: Tensor, parameter: int, draws: Draws) -> Tensor:
        """Compress them."""
        del draws
        return jpeg(images, parameter)


class Pixelate(Corruption):
    """Fewer pixels: int(c side) of them along each side, each the mean of those around its middle."""

    group = "digital"
    random = False
    grey = (0.6, 0.5, 0.4, 0.3, 0.25)
    colour = (0.95, 0.9, 0.85, 0.75, 0.65)

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Resize them and back."""
        del draws
        for dim in (2, 3):
            length = images.shape[dim]
            few = max(1, int(parameter * length))
            images = along(along(images, box(length, few), dim), box(few, length), dim)
        return images


class Quantize(Corruption):
    """Fewer grey levels: of c bits."""

    group = "digital"
    random = False
    grey = colour = (5, 4, 3, 2, 1)
    colour_from = OURS

    def apply(self, images: Tensor, parameter: int, draws: Draws) -> Tensor:
        """Round them."""
        del draws
        m: int = 2**parameter - 1
        return (images * m).round() / m


def box(length: int, wanted: int) -> Tensor:
    r"""Return the matrix, shape (wanted, length), float64, on the CPU, that resizes a row of pixels by a box filter.

    A new pixel is the mean of the old ones whose middles are within half its width of its own; where it is smaller than they are,
    the one that its middle is in.
    """
    scale = length / wanted
    middle = (torch.arange(wanted, dtype=torch.float64) + 0.5) * scale
    away = torch.arange(length, dtype=torch.float64) + 0.5 - middle[:, None]
    within = max(scale, 1) / 2
    weight = ((away > -within) & (away <= within)).double()
    return weight / weight.sum(1, keepdim=True)
