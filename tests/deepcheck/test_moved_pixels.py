"""Corruptions that move pixels, by what they do to moments, slopes and whole pixels."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from deepcheck.attacks.draws import Draws
from deepcheck.corruptions import CORRUPTIONS, SEVERITIES
from tests.deepcheck.corruption_cases import draw, pictures
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device

severities = pytest.mark.parametrize("severity", SEVERITIES)


def table(name: str) -> tuple[float, ...]:
    return CORRUPTIONS[name].parameters(1)


def bump(count: int, *, wide: float = 3.0, high: float = 1.5, turned: float = 0.0) -> Tensor:
    """Return Gaussian bumps in the middle of grey images, with these standard deviations along columns and rows."""
    place = torch.arange(28, dtype=torch.float64) - 13.5
    row, column = place[:, None], place[None]
    u = column * math.cos(turned) + row * math.sin(turned)
    v = row * math.cos(turned) - column * math.sin(turned)
    return torch.exp(-(u**2) / (2 * wide**2) - v**2 / (2 * high**2)).repeat(count, 1, 1, 1)


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return the middle, (column, row), shape (n, 2), and the second moments about it, shape (n, 2, 2)."""
    place = torch.arange(28, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(place, place, indexing="xy"))  # columns, rows
    weight = z[:, 0] / z[:, 0].sum((1, 2), keepdim=True)
    middle = (weight[:, None] * grid).sum((2, 3))
    away = grid - middle[:, :, None, None]
    return middle, torch.einsum("nhw,nahw,nbhw->nab", weight, away, away)


@severities
def test_a_rotation_turns_the_moments(severity: int) -> None:
    angle = table("rotate")[severity - 1]
    z = CORRUPTIONS["rotate"](bump(40), severity, draw())
    _, second = moments(z)
    found = 0.5 * torch.atan2(2 * second[:, 0, 1], second[:, 0, 0] - second[:, 1, 1])
    assert found.abs().tolist() == pytest.approx([angle] * 40, abs=0.01)
    assert 8 < int((found > 0).sum()) < 32  # one way or the other
    torch.testing.assert_close(
        second.diagonal(dim1=1, dim2=2).sum(1), torch.full((40,), 9 + 2.25).double(), rtol=0.05, atol=0
    )


@severities
def test_a_shear_maps_the_moments(severity: int) -> None:
    """The picture is that of A (u, v) = (u - v sin c, v cos c): its moments are those of the inverse."""
    c = float(table("shear")[severity - 1])
    before = bump(20, wide=1.5, high=1.5)
    _, second = moments(CORRUPTIONS["shear"](before, severity, draw()))
    start = moments(before)[1][0]
    seen = set()
    for one in second:
        sign = 1.0 if one[0, 1] > 0 else -1.0
        seen.add(sign)
        inverse = torch.tensor([[1, -sign * math.sin(c)], [0, math.cos(c)]], dtype=torch.float64).inverse()
        torch.testing.assert_close(one, inverse @ start @ inverse.T, rtol=0.06, atol=0.15)
    assert seen == {1.0, -1.0}


@severities
def test_a_smaller_picture_has_smaller_moments(severity: int) -> None:
    c = float(table("scale")[severity - 1])
    before = bump(1, wide=4, high=3)
    _, second = moments(CORRUPTIONS["scale"](before, severity, draw()))
    torch.testing.assert_close(second[0].diagonal(), c**2 * moments(before)[1][0].diagonal(), rtol=0.02, atol=0.02)


@severities
def test_a_translation_moves_whole_pixels(severity: int) -> None:
    c = int(table("translate")[severity - 1])
    x = pictures("grey", 40, dtype=torch.float64)
    z = CORRUPTIONS["translate"](x, severity, draw())
    seen = set()
    for before, after in zip(x[:, 0].cpu().numpy(), z[:, 0].cpu().numpy(), strict=True):
        for down in (-c, c):
            for right in (-c, c):
                if np.array_equal(ndimage.shift(before, (down, right), order=0), after):
                    seen.add((down, right))
                    break
    assert len(seen) == 4


def test_three_points_move_an_image_as_an_affine_map() -> None:
    """A slope stays a slope; its height where the points are says how far they moved."""
    slope = torch.linspace(0, 1, 33, dtype=torch.float64)[:32, None].expand(50, 3, 32, 32).contiguous()
    z = CORRUPTIONS["elastic_transform"].apply(slope, (0, 0, 0.08), Draws.of(draw(), slope))
    inner = z[:, 0, 10:22, 10:22]
    assert float(inner.diff(n=2, dim=1).abs().max()) < 1e-9
    assert float(inner.diff(n=2, dim=2).abs().max()) < 1e-9
    # the middle of two of the points goes to the middle of where they are: the shift is the mean of two uniform ones
    shift = 32 * (slope[:, 0, 16, 16] - z[:, 0, 16, 16])
    assert float(shift.abs().max()) <= 0.08 * 32 * 1.2
    assert float(shift.std()) == pytest.approx(0.08 * 32 / math.sqrt(6), rel=4 / math.sqrt(2 * 50))


def test_displacements_are_smoothed_uniform_numbers() -> None:
    slope = torch.linspace(0.2, 0.8, 32, dtype=torch.float64)[:, None].expand(60, 3, 32, 32).contiguous()
    length, sigma = 0.1, 0.03
    z = CORRUPTIONS["elastic_transform"].apply(slope, (length, sigma, 0), Draws.of(draw(), slope))
    shift = (z - slope)[:, 0, 8:24, 8:24] * 31 / 0.6
    reach = int(3 * 32 * sigma + 0.5)
    weight = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * (32 * sigma) ** 2))
    weight /= weight.sum()
    expected = length * 32 * (weight**2).sum() / math.sqrt(3)
    assert float(shift.std()) == pytest.approx(expected, rel=0.05)  # some 2,000 that do not depend on each other
