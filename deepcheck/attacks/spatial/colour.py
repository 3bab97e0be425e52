"""Colours: CIELUV from sRGB and back, and one map of colours for all pixels of an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deepcheck.attacks.spatial.sampling import checked_pictures
from deepcheck.attacks.spatial.transformations import Transformation, roughness
from odeflow.model import checked_count

__all__ = ["Colour", "from_luv", "to_luv"]

_XYZ_OF_RGB = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
"""IEC 61966-2-1: sRGB with the white point D65, which is the sum of the columns."""
_RED, _GREEN, _BLUE = (0.4507, 0.5229), (0.1250, 0.5625), (0.1754, 0.1579)
"""Chromaticities u', v' of the primaries: those of all colours are between them."""
_SCALE = (100.0, 200.0, 200.0)
"""Units of L*, u* and v*, in which a map may change them by the same."""
_LOW, _HIGH = (0.0, -84.0, -135.0), (100.0, 176.0, 108.0)
"""What L*, u* and v* of sRGB lie between, and the grid spans."""
_KNEE = 6 / 29
"""The cube root of Y below which L* is linear in it."""


@dataclass(frozen=True)
class Colour(Transformation):
    """A map of colours, the same for all pixels (ReColorAdv: Laidlaw, Feizi, NeurIPS 2019): x'(p) = f(x(p)).

    Parameters are what f changes at the points of a grid, and f(c) - c is interpolated linearly between them. For RGB the
    grid spans the sRGB colours in CIELUV, and the parameters have the shape (n, 3, *grid), in units of 100 for L*, and of 200
    for u* and v*. For grey images it is a curve over the grey levels in [0, 1], shape (n, 1, levels). The size is the
    largest change of a coordinate at a point of the grid, so that no colour changes by more. The penalty is the sum over points of the grid, and over
    the neighbours of each along the axes, of the length of the difference.

    Colours that sRGB does not have are clipped: their chromaticity to the rectangle around that of the primaries, then RGB
    to the box.
    """

    bound: float = 0.06
    """Largest change of a coordinate of colours, > 0, in the units above."""
    smoothness: float = 0.05
    """Weight of the penalty, >= 0."""
    grid: tuple[int, int, int] = (16, 32, 32)
    """Points of the grid along L*, u* and v*, each >= 2."""
    levels: int = 16
    """Points of the curve for grey images, >= 2."""

    def __post_init__(self) -> None:
        self._check_numbers()
        grid: object = self.grid
        if not isinstance(grid, tuple | list) or len(grid) != 3:
            raise ValueError(f"grid = {grid!r} is not allowed: three whole numbers >= 2 are")
        object.__setattr__(self, "grid", tuple(checked_count("grid", count, 2) for count in grid))
        object.__setattr__(self, "levels", checked_count("levels", self.levels, 2))

    def check(self, shape: tuple[int, ...], bounds: tuple[float, float]) -> None:
        """Raise ValueError if these are no pictures in grey or RGB, with pixels in [0, 1]."""
        checked_pictures(shape)
        if shape[1] not in (1, 3):
            raise ValueError(f"images with {shape[1]} channels are not allowed for colours: 1 (grey) or 3 (RGB) are")
        if bounds != (0.0, 1.0):
            raise ValueError(f"bounds = {bounds} are not allowed for colours: (0, 1) are")

    def parameters(self, images: Tensor) -> Tensor:
        """Return no changes."""
        n, channels = images.shape[:2]
        return images.new_zeros((n, 1, self.levels) if channels == 1 else (n, 3, *self.grid))

    def apply(self, images: Tensor, theta: Tensor) -> Tensor:
        """Return the images in other colours.

        What the conversion of the colours rounds is taken out again, so that what does not change is exactly the same.
        """
        if images.shape[1] == 1:
            return images + _between(images, theta)
        luv = to_luv(images)
        low, high, scale = (luv.new_tensor(one).view(3, 1, 1) for one in (_LOW, _HIGH, _SCALE))
        changed = luv + scale * _between((luv - low) / (high - low), theta)
        return images + (from_luv(changed) - from_luv(luv))

    def penalty(self, theta: Tensor) -> Tensor:
        """Return the sum over neighbours on the grid of how much their changes differ, shape (n,)."""
        return roughness(theta)


def to_luv(rgb: Tensor) -> Tensor:
    """Return L*, u*, v* of sRGB colours in [0, 1], shape (n, 3, ...).

    With Y of white 1, and u', v' = (4 X, 9 Y) / (X + 15 Y + 3 Z): L* = 116 Y^(1/3) - 16, or (29/3)^3 Y where Y^(1/3) < 6/29;
    u* = 13 L* (u' - u'_white), and v* likewise.
    """
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, _power((rgb.clamp(min=0.04045) + 0.055) / 1.055, 2.4))
    xyz = _mixed(_XYZ_OF_RGB, linear)
    u, v = _chromaticity(xyz)
    white = _white(rgb)
    Y = xyz[:, 1] / white[1]
    L = torch.where(Y > _KNEE**3, 116 * _power(Y.clamp(min=_KNEE**3), 1 / 3) - 16, (29 / 3) ** 3 * Y)
    u_white, v_white = _chromaticity(white[None])
    return torch.stack([L, 13 * L * (u - u_white), 13 * L * (v - v_white)], 1)


def from_luv(luv: Tensor) -> Tensor:
    """Return the sRGB colours of L*, u*, v*, shape (n, 3, ...): beyond [0, 1] where sRGB has none.

    Chromaticities beyond the rectangle around those of the primaries are clipped to it: near black they are large, and would
    turn into light.
    """
    L, u, v = luv.unbind(1)
    white = _white(luv)
    u_white, v_white = _chromaticity(white[None])
    thirteen = 13 * torch.where(L > 0, L, torch.ones_like(L))
    u = (u / thirteen + u_white).clamp(min(_GREEN[0], _BLUE[0]) - 1e-3, _RED[0] + 1e-3)
    v = (v / thirteen + v_white).clamp(_BLUE[1] - 1e-3, _GREEN[1] + 1e-3)
    root = (L + 16) / 116
    Y = white[1] * torch.where(L > 8, root * root * root, L * (3 / 29) ** 3)
    linear = _mixed(_RGB_OF_XYZ, torch.stack([Y * 9 * u / (4 * v), Y, Y * (12 - 3 * u - 20 * v) / (4 * v)], 1))
    curved = 1.055 * _power(linear.clamp(min=0.0031308), 1 / 2.4) - 0.055
    return torch.where(linear <= 0.0031308, 12.92 * linear, curved)


def _power(base: Tensor, exponent: float) -> Tensor:
    """Return base^exponent of positive numbers.

    torch's own power rounds the last entries of a batch, which do not fill a register, in another way than the others.
    """
    return (base.log() * exponent).exp()


def _chromaticity(xyz: Tensor) -> tuple[Tensor, Tensor]:
    """Return u' and v' of X, Y, Z, shape (n, 3, ...); 0 for black, which has none."""
    X, Y, Z = xyz.unbind(1)
    total = X + 15 * Y + 3 * Z
    total = torch.where(total > 0, total, torch.ones_like(total))
    return 4 * X / total, 9 * Y / total


def _white(like: Tensor) -> Tensor:
    """Return X, Y, Z of white, shape (3,), in the precision of `like`."""
    return like.new_tensor(_XYZ_OF_RGB).sum(1)


def _mixed(matrix: tuple[tuple[float, ...], ...], values: Tensor) -> Tensor:
    """Return a matrix times the vectors along axis 1, entry by entry, so that no example's rounding depends on the others."""
    first, second, third = values.unbind(1)
    return torch.stack([a * first + b * second + c * third for a, b, c in matrix], 1)


def _inverse(matrix: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in torch.tensor(matrix, dtype=torch.float64).inverse().tolist())


_RGB_OF_XYZ = _inverse(_XYZ_OF_RGB)


def _between(places: Tensor, values: Tensor) -> Tensor:
    """Return values on a grid at some places between its points, linearly along each axis.

    Parameters
    ----------
    places
        In [0, 1] along each of k axes, shape (n, k, height, width).
    values
        Shape (n, channels, m_1, ..., m_k).

    Returns
    -------
    Tensor
        Shape (n, channels, height, width).
    """
    n, channels, *counts = values.shape
    index = torch.zeros_like(places[:, :1], dtype=torch.int64)
    weight = torch.ones_like(places[:, :1])
    for axis, count in enumerate(counts):  # the corners around a place: twice as many with each axis
        place = places[:, axis : axis + 1].clamp(0, 1) * (count - 1)
        before = place.detach().floor().clamp(max=count - 2)
        share = place - before
        first = index * count + before.long()
        index = torch.cat([first, first + 1], 1)
        weight = torch.cat([weight * (1 - share), weight * share], 1)
    corners = weight.shape[1]
    flat = index.view(n, 1, -1).expand(n, channels, -1)
    at_corners = values.flatten(2).gather(2, flat).view(n, channels, corners, *places.shape[2:])
    return (at_corners * weight[:, None]).sum(2)
