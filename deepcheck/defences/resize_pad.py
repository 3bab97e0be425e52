"""Another size and another place in each pass."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.draws import Draws
from deepcheck.attacks.spatial.sampling import checked_pictures
from deepcheck.defences.passes import RandomPasses
from odeflow.model import checked_number

__all__ = ["ResizePad"]


class ResizePad(RandomPasses):
    r"""The mean over several passes of the net, each on the image in a random size, at a random place, with zeros around it.

    Random resizing and padding (Xie et al., ICLR 2018), the mean of probabilities over the passes. There images grow from 299
    pixels to between 299 and 330 of 331; here a net takes images of its own size alone, so that they shrink and the zeros fill
    what is left: the same share, about a tenth, of the frame is free. For each image and pass the height is uniform on
    :math:`\lfloor \mathrm{least} \cdot H \rfloor, \ldots, H`, the width :math:`W` changes by the same factor, and the place is uniform
    among those that fit. Between pixels the image is interpolated bilinearly (there: the nearest pixel). Judged by EOT on the
    mean logits of 30 passes: on the mean probability it finds less.

    Parameters
    ----------
    net, seed
        See `Defence`.
    least
        Least size as a share of the image's, in (0, 1]. 0.9 is 25 to 28 pixels of 28, and 28 to 32 of 32.
    passes
        Passes T through the net, >= 1.
    """

    averaged = "logits"

    def __init__(self, net: Model, *, least: float = 0.9, passes: int = 30, seed: int = 0) -> None:
        super().__init__(net, passes=passes, seed=seed)
        self.least = checked_number("least", least, above=0, most=1)

    def one_pass(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the logits of the images in random sizes and places, shape (n, K)."""
        return self.net(self.resized(images, draws))

    def resized(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the images, shape (n, C, H, W), each in a size and at a place of its own."""
        checked_pictures(tuple(images.shape))
        height, width = images.shape[2:]
        smallest = max(math.floor(self.least * height), 1)
        (more,) = draws.below(height - smallest + 1)
        h = (smallest + more).to(images.dtype)
        w = (h * width / height).round().clamp(min=1)
        top = (draws.uniform(images) * (height - h + 1)).floor()
        left = (draws.uniform(images) * (width - w + 1)).floor()
        down, across = shrunk(height, h, top), shrunk(width, w, left)
        return down[:, None] @ images @ across.mT[:, None]


def shrunk(length: int, size: Tensor, start: Tensor) -> Tensor:
    """Return matrices that bring rows of pixels to other sizes and places, bilinearly, with zeros elsewhere.

    Pixel i of the result is the middle of ((i - start) +- 1/2) length / size, which is clamped to the middles of the pixels.

    Parameters
    ----------
    length
        Pixels of a row, and of the result.
    size, start
        Pixels that the row has in the result, and the first of them; shape (n,), of a floating type.

    Returns
    -------
    Tensor
        Shape (n, length, length): from pixels, in columns, to pixels.
    """
    pixel = torch.arange(length, dtype=size.dtype, device=size.device)
    place = pixel - start[:, None]
    source = ((place + 0.5) * length / size[:, None] - 0.5).clamp(0, length - 1)
    inside = (place >= 0) & (place < size[:, None])
    weights = (1 - (source[:, :, None] - pixel).abs()).clamp(min=0)
    return weights * inside[:, :, None]
