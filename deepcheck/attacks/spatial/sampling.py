"""Images between their pixels: bilinear samples, and what is beyond the border."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

__all__ = ["BORDERS", "Border", "checked_pictures", "pixels", "sample"]

Border = Literal["edge", "mirror", "zero"]
"""What is sampled outside: the nearest pixel; the image mirrored at its outermost pixels; or 0."""
BORDERS = ("edge", "mirror", "zero")


def pixels(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and the columns of all pixels, shapes (height, 1) and (1, width), in the precision of the images."""
    height, width = images.shape[2:]
    options = {"dtype": images.dtype, "device": images.device}
    return torch.arange(height, **options)[:, None], torch.arange(width, **options)[None]  # type: ignore[call-overload]


def sample(images: Tensor, rows: Tensor, columns: Tensor, border: Border) -> Tensor:
    """Return the images at some places, interpolated bilinearly between the four pixels around each.

    Parameters
    ----------
    images
        Shape (n, channels, height, width).
    rows, columns
        The places, in pixels, from 0 to height - 1 and width - 1, shapes (n, a, b), or (1, a, b) for all images.
    border
        What is outside.

    Returns
    -------
    Tensor
        Shape (n, channels, a, b): at whole numbers the pixels themselves, exactly.
    """
    _, channels, height, width = images.shape
    top, below, down = _neighbours(rows, height, border)
    left, right, across = _neighbours(columns, width, border)
    up, back = 1 - down, 1 - across
    corners = (
        (top, left, up * back),
        (top, right, up * across),
        (below, left, down * back),
        (below, right, down * across),
    )
    index = torch.stack(
        [row.clamp(0, height - 1) * width + column.clamp(0, width - 1) for row, column, _ in corners], 1
    )
    n, count = len(images), index[0].numel()
    if len(index) == 1:
        values = images.flatten(2)[:, :, index.flatten()]
    else:
        values = images.flatten(2).gather(2, index.view(n, 1, count).expand(n, channels, count))
    values = values.view(n, channels, *index.shape[1:])
    sampled = torch.zeros_like(values[:, :, 0])
    for k, (row, column, weight) in enumerate(corners):
        if border == "zero":
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            weight = weight * inside
        sampled = sampled + weight[:, None] * values[:, :, k]
    return sampled


def checked_pictures(shape: tuple[int, ...]) -> None:
    """Raise ValueError if images of this shape have no height and width."""
    if len(shape) != 4 or 0 in shape[1:]:
        raise ValueError(f"images of shape {shape} are not allowed: (n, channels, height, width) is")


def _neighbours(places: Tensor, length: int, border: Border) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels before and after each place, int64, and how far it is from the one before, in [0, 1]."""
    last = length - 1
    if border == "mirror":
        turned = places.remainder(2 * last) if last else places * 0
        places = torch.where(turned > last, 2 * last - turned, turned)
    elif border == "edge":
        places = places.clamp(0, last)
    else:
        places = places.clamp(-1, length)
    before = places.detach().floor()
    return before.long(), before.long() + 1, places - before
