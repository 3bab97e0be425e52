"""Random changes of whole batches of images, on the device where they are."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["crop", "flip"]


def crop(images: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Shift every image by its own random number of pixels, up to `padding` each way; black comes in at the edges.

    Parameters
    ----------
    images
        Shape (n, C, H, W).
    padding
        Largest shift in pixels, >= 0. The shifts are uniform over the (2 padding + 1)^2 possible ones.
    generator
        Source of the shifts, on any device.
    """
    n, channels, height, width = images.shape
    shifts = torch.randint(2 * padding + 1, (2, n, 1), generator=generator, device=generator.device).to(
        images.device, non_blocking=True
    )
    rows = shifts[0] + torch.arange(height, device=images.device)  # (n, H), in the padded image
    columns = shifts[1] + torch.arange(width, device=images.device)
    padded = F.pad(images, (padding,) * 4)
    taken = padded.gather(2, rows[:, None, :, None].expand(-1, channels, -1, width + 2 * padding))
    return taken.gather(3, columns[:, None, None, :].expand(-1, channels, height, -1))


def flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror every image left to right with probability 1/2."""
    drawn = torch.rand(len(images), generator=generator, device=generator.device)
    drawn = drawn.to(images.device, non_blocking=True)
    return torch.where((drawn < 0.5).view(-1, 1, 1, 1), images.flip(3), images)
