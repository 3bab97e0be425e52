"""The median of neighbouring pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.spatial.sampling import checked_pictures
from deepcheck.defences.base import Defence
from odeflow.model import checked_count

__all__ = ["Median"]


class Median(Defence):
    r"""The net on images whose every pixel is the median of those in a square window around it, channel by channel.

    Feature squeezing (Xu et al., NDSS 2018). Of an even number of pixels it is the upper one of the two in the middle, and a
    window of even size reaches one pixel farther up and left than down and right. At the border the image is mirrored, its outermost
    pixels twice. The median is one of the pixels, and the gradient goes to that one: exact but where two are equal.

    Parameters
    ----------
    net, seed
        See `Defence`; there is nothing random in it.
    window
        Height and width of the window, in pixels, >= 1; 1 changes nothing.
    """

    def __init__(self, net: Model, *, window: int = 2, seed: int = 0) -> None:
        super().__init__(net, seed=seed)
        self.window = checked_count("window", window, 1)

    def smoothed(self, images: Tensor) -> Tensor:
        """Return the medians, in the shape of the images, (n, C, H, W)."""
        checked_pictures(tuple(images.shape))
        height, width = images.shape[2:]
        rows, columns = _mirrored(height, self.window, images.device), _mirrored(width, self.window, images.device)
        windows = images[:, :, rows][..., columns]  # (n, C, H, window, W, window)
        values = windows.transpose(3, 4).flatten(4)
        return values.sort(-1).values[..., values.shape[-1] // 2]

    def _logits(self, images: Tensor) -> Tensor:
        return self.net(self.smoothed(images))


def _mirrored(length: int, window: int, device: torch.device) -> Tensor:
    """Return the pixels of the window around each pixel of a row, shape (length, window), mirrored at the border."""
    place = torch.arange(length, device=device)[:, None] + torch.arange(window, device=device) - window // 2
    place = place.remainder(2 * length)
    return torch.minimum(place, 2 * length - 1 - place)
