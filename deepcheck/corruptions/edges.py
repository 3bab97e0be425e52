"""Canny's detector of edges."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcheck.corruptions.filters import blurred

__all__ = ["canny"]


def canny(planes: Tensor, *, sigma: float = 1.0, low: float = 0.1, high: float = 0.2) -> Tensor:
    r"""Return where edges are, a bool for each pixel (Canny, IEEE PAMI 1986).

    The image is blurred, and its gradient taken with Sobel's weights, 1 2 1 across, whose sum is not scaled to 1. A pixel is kept
    where the gradient's length m is at least `low` and not smaller than at both places one pixel further along the gradient,
    interpolated between the two pixels there. An edge are the kept pixels, joined by sides or corners, among which one has
    :math:`m \ge` `high`. The outermost pixels are none.

    Parameters
    ----------
    planes
        Shape (n, channels, height, width), in [0, 1].
    sigma
        Of the Gaussian filter, in pixels; what is outside counts as nothing, not as black.
    low, high
        Thresholds, >= 0.
    """
    weight = blurred(torch.ones_like(planes), sigma, border="zero")
    smooth = blurred(planes, sigma, border="zero") / weight
    down, right = _sobel(smooth), _sobel(smooth.transpose(2, 3)).transpose(2, 3)
    length = (down * down + right * right).sqrt()
    kept = (length >= low) & _largest(length, down, right)
    kept[..., [0, -1], :] = False
    kept[..., :, [0, -1]] = False
    edges = kept & (length >= high)
    while True:  # as long as an edge grows
        grown = torch.nn.functional.max_pool2d(edges.to(planes), 3, 1, 1).bool() & kept
        if torch.equal(grown, edges):
            return edges
        edges = grown


def _sobel(x: Tensor) -> Tensor:
    """Return the differences of the rows below and above, summed across with the weights 1 2 1; outside is the nearest pixel."""
    x = torch.nn.functional.pad(x, (1, 1, 1, 1), mode="replicate")
    difference = x[..., 2:, :] - x[..., :-2, :]
    return difference[..., :-2] + 2 * difference[..., 1:-1] + difference[..., 2:]


def _largest(length: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Return where the length is not smaller than one pixel further along the gradient, both ways."""
    padded = torch.nn.functional.pad(length, (1, 1, 1, 1))
    height, width = length.shape[2:]

    def at(row: int, column: int) -> Tensor:
        return padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    steep = down.abs() >= right.abs()
    longer, shorter = torch.maximum(down.abs(), right.abs()), torch.minimum(down.abs(), right.abs())
    share = shorter / longer.clamp(min=torch.finfo(length.dtype).tiny)
    same = (down >= 0) == (right >= 0)  # the gradient points to the lower right, or upper left
    kept = torch.ones_like(steep)
    for sign in (1, -1):
        straight = torch.where(steep, at(sign, 0), at(0, sign))
        # the diagonal neighbour next to the straight one, on the side where the gradient points
        diagonal = torch.where(same, at(sign, sign), torch.where(steep, at(sign, -sign), at(-sign, sign)))
        kept &= length >= share * diagonal + (1 - share) * straight
    return kept
