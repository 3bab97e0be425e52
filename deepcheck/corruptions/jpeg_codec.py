r"""What JPEG makes of an image: ITU-T T.81 (1992) without its lossless part, the coding of the numbers, which changes nothing.

Colours become a luminance and two chrominances, these are halved in both directions, every block of 8 x 8 is transformed by the
cosine transform, and its coefficients are rounded to multiples of a table's entries; then all of it back. The tables are those
of the standard's Annex K, scaled by a quality as the Independent JPEG Group's library scales them. Everything is rounded to
whole numbers where a file holds whole numbers, so that the result agrees with that library but for a level here and there.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcheck.attacks.spatial.sampling import checked_pictures
from deepcheck.corruptions.filters import along
from odeflow.model import checked_count

__all__ = ["CHROMINANCE", "LUMINANCE", "jpeg", "quantisation"]

LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
"""Table K.1: steps of the coefficients, by vertical and horizontal frequency, at quality 50."""
CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
"""Table K.2."""
_LEVELS = 255


def quantisation(table: tuple[tuple[int, ...], ...], quality: int) -> Tensor:
    r"""Return the steps at a quality q, shape (8, 8), int64, on the CPU: :math:`\lfloor (s t + 50) / 100 \rfloor` in 1..255.

    Here t is the entry of the table, and the scale s is :math:`\lfloor 5000 / q \rfloor` for q < 50, else :math:`200 - 2 q`.
    """
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return (torch.tensor(table) * scale + 50).div(100, rounding_mode="floor").clamp(1, 255)


def jpeg(images: Tensor, quality: int, *, subsample: bool = True) -> Tensor:
    """Return images as they come out of a JPEG file. It has no useful gradient: everything is rounded.

    Parameters
    ----------
    images
        Shape (n, 1 or 3, height, width), pixels in [0, 1]; they are rounded to 256 levels first. Sides that are not
        multiples of 8 are continued by their last pixel, as the library does.
    quality
        1 to 100.
    subsample
        Whether the chrominances have half the resolution (4:2:0, the usual), or all of it (4:4:4).

    Returns
    -------
    Tensor
        Of the same shape and precision: multiples of 1/255.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or images are neither grey nor of three colours.

    Examples
    --------
    >>> jpeg(torch.full((1, 1, 8, 8), 0.5), 50).unique() * 255
    tensor([128.])
    """
    checked_count("quality", quality, 1)
    if quality > 100:
        raise ValueError(f"quality = {quality} is out of range: allowed is a whole number from 1 to 100")
    checked_pictures(tuple(images.shape))
    channels = images.shape[1]
    if channels not in (1, 3):
        raise ValueError(f"images of shape {tuple(images.shape)} are not allowed: 1 channel (grey) or 3 (colours) are")
    wide = images.to(torch.promote_types(images.dtype, torch.float32))
    x = (wide * _LEVELS).round()
    luminance = quantisation(LUMINANCE, quality).to(x)
    if channels == 1:
        return (_coded(x, luminance) / _LEVELS).to(images.dtype)
    chrominance = quantisation(CHROMINANCE, quality).to(x)
    y, c = _to_ycc(x).split((1, 2), 1)
    height, width = c.shape[2:]
    y = _coded(y, luminance)
    c = _doubled(_coded(_halved(c), chrominance))[..., :height, :width] if subsample else _coded(c, chrominance)
    return (_from_ycc(torch.cat([y, c], 1)) / _LEVELS).to(images.dtype)


def _coded(x: Tensor, steps: Tensor) -> Tensor:
    """Return planes, shape (n, c, height, width), in 0..255, after their cosine coefficients were rounded to steps."""
    n, c, height, width = x.shape
    x = _extended(x, 8)
    blocks = x.unflatten(3, (-1, 8)).unflatten(2, (-1, 8)).transpose(3, 4) - 128  # (n, c, rows, columns, 8, 8)
    cosine = _cosines().to(x)
    coefficients = _both(blocks, cosine)
    coefficients = _rounded(coefficients / steps) * steps
    blocks = _both(coefficients, cosine.T) + 128
    x = blocks.transpose(3, 4).reshape(n, c, *x.shape[2:])[..., :height, :width]
    return x.round().clamp(0, _LEVELS)


def _rounded(x: Tensor) -> Tensor:
    """Return the nearest whole numbers, of two as near the one away from 0, as the library has them.

    Half-way cases are common: the first coefficient is a whole number over 8. What is half-way but for rounding counts as such.
    """
    return x.sign() * (x.abs() + (0.5 + 1e-5)).floor()


def _cosines() -> Tensor:
    r"""Return the cosine transform, shape (8, 8): :math:`c_u \cos((2 k + 1) u \pi / 16) / 2`, :math:`c_0 = 1 / \sqrt2`, else 1."""
    u, k = torch.arange(8, dtype=torch.float64)[:, None], torch.arange(8, dtype=torch.float64)
    matrix = torch.cos((2 * k + 1) * u * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _both(blocks: Tensor, matrix: Tensor) -> Tensor:
    """Return matrix B matrix^T for every block B."""
    return along(along(blocks, matrix, -2), matrix, -1)


def _extended(x: Tensor, multiple: int) -> Tensor:
    """Return planes whose sides are multiples of a number, continued by their last pixel."""
    for dim in (2, 3):
        length = x.shape[dim]
        more = -length % multiple
        if more:
            x = torch.cat([x, x.narrow(dim, length - 1, 1).expand(*_with(x.shape, dim, more))], dim)
    return x


def _with(shape: torch.Size, dim: int, length: int) -> list[int]:
    return [length if k == dim else size for k, size in enumerate(shape)]


def _halved(x: Tensor) -> Tensor:
    """Return the means over squares of 2 x 2."""
    x = _extended(x, 2)
    quarters = x[..., ::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, ::2] + x[..., 1::2, 1::2]
    return (quarters / 4).round()


def _doubled(x: Tensor) -> Tensor:
    """Return planes of twice the sides: each new pixel is 3/4 of its own and 1/4 of the nearest other, along both sides."""
    for dim in (2, 3):
        length = x.shape[dim]
        before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, length - 1)], dim)
        after = torch.cat([x.narrow(dim, 1, length - 1), x.narrow(dim, length - 1, 1)], dim)
        x = torch.stack([(3 * x + before) / 4, (3 * x + after) / 4], dim + 1).flatten(dim, dim + 1)
    return x.round()


def _to_ycc(rgb: Tensor) -> Tensor:
    """Return luminance and the chrominances of blue and of red, in 0..255 (JFIF 1.02)."""
    r, g, b = rgb.unbind(1)
    y = 0.299 * r + 0.587 * g + 0.114 * b
    return torch.stack([y, (b - y) / 1.772 + 128, (r - y) / 1.402 + 128], 1).round().clamp(0, _LEVELS)


def _from_ycc(ycc: Tensor) -> Tensor:
    """Return the colours, in 0..255."""
    y, blue, red = ycc.unbind(1)
    blue, red = blue - 128, red - 128
    g = y - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587
    return torch.stack([y + 1.402 * red, g, y + 1.772 * blue], 1).round().clamp(0, _LEVELS)
