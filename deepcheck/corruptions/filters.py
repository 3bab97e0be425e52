"""Linear filters, height maps and colours that corruptions are made of.

Sums run over the pixels of a row or the entries of a kernel, in a fixed order, and over whole batches at a time: a convolution of
a library may add in another order for another size of batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws
from deepcheck.attacks.spatial.sampling import Border

__all__ = ["along", "blurred", "clipped_zoom", "filtered", "luminance", "plasma", "streaked"]


def along(x: Tensor, matrix: Tensor, dim: int) -> Tensor:
    r"""Return :math:`y_{\dots j \dots} = \sum_i M_{ji} x_{\dots i \dots}` along one axis."""
    shape = [1] * x.ndim
    shape[dim] = len(matrix)
    columns = matrix.to(x)
    total = columns[:, 0].view(shape) * x.narrow(dim, 0, 1)
    for i in range(1, matrix.shape[1]):
        total += columns[:, i].view(shape) * x.narrow(dim, i, 1)
    return total


def inside(places: Tensor, length: int, border: Border) -> Tensor:
    """Return the pixel at each whole place, int64, which may lie outside; -1 where there is none (border "zero")."""
    if border == "edge":
        return places.clamp(0, length - 1)
    if border == "mirror":
        last = length - 1
        turned = places.remainder(2 * last) if last else places * 0
        return torch.where(turned > last, 2 * last - turned, turned)
    return torch.where((places < 0) | (places >= length), -1, places)


def blurred(x: Tensor, sigma: float, *, border: Border = "edge", truncate: float = 4.0) -> Tensor:
    """Return planes after a Gaussian filter of standard deviation `sigma` pixels, cut off after `truncate` of them."""
    if not sigma:
        return x
    reach = int(truncate * sigma + 0.5)
    offset = torch.arange(-reach, reach + 1)
    weight = torch.exp(-(offset.double() ** 2) / (2 * sigma**2))
    weight /= weight.sum()
    for dim in (2, 3):
        length = x.shape[dim]
        place = inside(torch.arange(length)[:, None] + offset, length, border)
        matrix = torch.zeros(length, length + 1, dtype=torch.float64)  # the last column is what lies at -1
        matrix.scatter_add_(1, place % (length + 1), weight.expand(length, -1).contiguous())
        x = along(x, matrix[:, :length], dim)
    return x


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Return planes after a filter, shape (a, b), both odd, with its middle at the pixel; images are mirrored outside."""
    height, width = x.shape[2:]
    above, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    for dim, length, reach in ((2, height, above), (3, width, left)):
        place = inside(torch.arange(-reach, length + reach), length, "mirror")
        x = x.index_select(dim, place.to(x.device))
    total = torch.zeros_like(x[..., :height, :width])
    for (row, column), weight in zip(_entries(kernel), kernel.flatten().tolist(), strict=True):
        if weight:
            total += weight * x[..., row : row + height, column : column + width]
    return total


def _entries(kernel: Tensor) -> Sequence[tuple[int, int]]:
    return [(row, column) for row in range(kernel.shape[0]) for column in range(kernel.shape[1])]


def streaked(x: Tensor, radius: float, sigma: float, angle: Tensor) -> Tensor:
    r"""Return planes blurred along a direction, one for each image: the motion blur of ImageMagick.

    A pixel becomes the mean of those at the distances i = 0, ..., 2 radius from it, on one side alone, with the weights
    :math:`e^{-i^2 / 2 \sigma^2}`; places are rounded to whole pixels, and outside is the nearest pixel.

    Parameters
    ----------
    x
        Shape (n, channels, height, width).
    radius, sigma
        In pixels, > 0.
    angle
        In degrees, from the direction of the columns, shape (n,).
    """
    n, channels, height, width = x.shape
    taps = 2 * math.ceil(radius) + 1
    weight = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(taps)]
    across, down = (turn(angle * (math.pi / 180)).view(n, 1, 1) for turn in (torch.cos, torch.sin))
    row, column = torch.arange(height, device=x.device)[:, None], torch.arange(width, device=x.device)
    planes, total = x.flatten(2), torch.zeros_like(x)
    for i, one in enumerate(weight):
        rows = (row + (i * down).round().long()).clamp(0, height - 1)
        columns = (column + (i * across).round().long()).clamp(0, width - 1)
        index = (rows * width + columns).view(n, 1, -1).expand(-1, channels, -1)
        total += (one / sum(weight)) * planes.gather(2, index).view(x.shape)
    return total


def clipped_zoom(x: Tensor, factor: float) -> Tensor:
    """Return the middle of planes, enlarged by a factor >= 1, bilinearly, in their old size.

    The middle are ceil(side / factor) pixels; enlarged they are round(factor) times as many, whose outermost are theirs.
    """
    for dim in (2, 3):
        length = x.shape[dim]
        part = math.ceil(length / factor)
        first, grown = (length - part) // 2, round(part * factor)
        place = torch.arange(length, dtype=torch.float64) + (grown - length) // 2
        place = first + place * ((part - 1) / max(grown - 1, 1))
        before = place.floor().long().clamp(0, length - 1)
        after = (before + 1).clamp(0, length - 1)
        share = (place - before).to(x).view(-1, *(1,) * (3 - dim))
        near, far = (x.index_select(dim, one.to(x.device)) for one in (before, after))
        x = near + share * (far - near)
    return x


def plasma(images: Tensor, side: int, decay: float, draws: Draws) -> Tensor:
    r"""Return random height maps in [0, 1], one for each image, shape (n, 1, side, side), by the diamond-square algorithm.

    Fournier, Fussell and Carpenter (Communications of the ACM, 1982), on a torus: from a coarse grid to a fine one, a new point
    is the mean of its four neighbours and a number from :math:`U(-a_k, a_k)`. The sizes are those of CIFAR-10-C, where
    :math:`a_k \propto d^{-2 k}` in the k-th halving, with the decay d. At last the map is shifted and scaled to [0, 1].

    Parameters
    ----------
    images
        Where, and in which precision.
    side
        A power of 2.
    decay
        > 1: the larger, the smoother.
    """
    n = len(images)
    heights = images.new_zeros(n, side, side)
    step, size = side, 1.0
    while step >= 2:
        half = step // 2
        corner = heights[:, ::step, ::step]
        sums = corner + corner.roll(-1, 1)
        heights[:, half::step, half::step] = (sums + sums.roll(-1, 2)) / 4 + size * draws.symmetric(corner)
        middle = heights[:, half::step, half::step]
        across = middle + middle.roll(1, 1) + corner + corner.roll(-1, 2)
        down = middle + middle.roll(1, 2) + corner + corner.roll(-1, 1)
        heights[:, ::step, half::step] = across / 4 + size * draws.symmetric(across)
        heights[:, half::step, ::step] = down / 4 + size * draws.symmetric(down)
        step, size = half, size / decay**2
    least, largest = (end(heights, (1, 2), keepdim=True) for end in (torch.amin, torch.amax))
    return ((heights - least) / (largest - least).clamp(min=torch.finfo(heights.dtype).tiny))[:, None]


def luminance(images: Tensor) -> Tensor:
    """Return the luminance, shape (n, 1, ...): 0.299 R + 0.587 G + 0.114 B, or the grey image."""
    if images.shape[1] == 1:
        return images
    return 0.299 * images[:, :1] + 0.587 * images[:, 1:2] + 0.114 * images[:, 2:]
