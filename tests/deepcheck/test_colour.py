"""Colours: CIELUV against published values, maps of colours against the curves that they are."""

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck.attacks import Colour
from deepcheck.attacks.spatial.colour import from_luv, to_luv
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def normals(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("rgb", "luv"),
    [
        ((0, 0, 0), (0, 0, 0)),
        ((1, 1, 1), (100, 0, 0)),
        ((0.5, 0.5, 0.5), (53.39, 0, 0)),
        ((1, 0, 0), (53.24, 175.01, 37.75)),
        ((0, 1, 0), (87.73, -83.08, 107.40)),
        ((0, 0, 1), (32.30, -9.40, -130.34)),
        ((0, 1, 1), (91.11, -70.48, -15.20)),
        ((1, 0, 1), (60.32, 84.07, -108.68)),
        ((1, 1, 0), (97.14, 7.70, 106.78)),
    ],
)
def test_published_values(rgb: tuple[float, ...], luv: tuple[float, ...]) -> None:
    found = to_luv(torch.tensor([rgb], dtype=torch.float64))[0]
    torch.testing.assert_close(found, torch.tensor(luv, dtype=torch.float64), rtol=0, atol=0.03)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
def test_there_and_back(dtype: torch.dtype, within: float) -> None:
    """Over the whole cube, its edges and black among it."""
    steps = torch.linspace(0, 1, 18, dtype=torch.float64)
    rgb = torch.cartesian_prod(steps, steps, steps).to(dtype)
    torch.testing.assert_close(from_luv(to_luv(rgb)), rgb, rtol=0, atol=within)


def test_the_grid_spans_all_colours() -> None:
    steps = torch.linspace(0, 1, 18, dtype=torch.float64)
    luv = to_luv(torch.cartesian_prod(steps, steps, steps))
    assert (luv >= luv.new_tensor([0, -84, -135]) - 1e-9).all()
    assert (luv <= luv.new_tensor([100, 176, 108]) + 1e-9).all()
    assert (luv.amin(0) < luv.new_tensor([1, -83, -130])).all()
    assert (luv.amax(0) > luv.new_tensor([99, 175, 107])).all()


def test_colours_and_their_gradients_are_finite_everywhere() -> None:
    steps = torch.linspace(0, 1, 6, dtype=torch.float64)
    rgb = torch.cartesian_prod(steps, steps, steps).requires_grad_()
    luv = to_luv(rgb)
    (gradient,) = torch.autograd.grad(luv.sum(), rgb)
    assert gradient.isfinite().all()
    far = (luv.detach() + torch.tensor([-12.0, 40.0, -40.0])).requires_grad_()
    back = from_luv(far)
    (gradient,) = torch.autograd.grad(back.sum(), far)
    assert back.isfinite().all()
    assert gradient.isfinite().all()


def test_black_stays_dark() -> None:
    """Where chromaticity is next to nothing, a change of u* and v* must not become light.

    The most that a channel may have is that of pure blue of the same luminance: 0.107 for grey of 0.01.
    """
    x = torch.full((1, 3, 2, 2), 0.01, dtype=torch.float64)
    for signs in itertools.product((-1, 1), repeat=2):
        theta = torch.zeros(1, 3, 4, 5, 6, dtype=torch.float64)
        theta[:, 1], theta[:, 2] = 0.06 * signs[0], 0.06 * signs[1]
        assert (Colour().apply(x, theta).clamp(0, 1) < 0.1075).all()


def test_a_grey_map_is_its_curve() -> None:
    x, theta = pictures(3, 1, 4, 5), 0.1 * normals(3, 1, 7)
    z = Colour(levels=7).apply(x, theta)
    for one, curve, found in zip(x, theta, z, strict=True):
        change = np.interp(one.cpu().numpy(), np.linspace(0, 1, 7), curve[0].cpu().numpy())
        np.testing.assert_allclose((found - one).cpu().numpy(), change, rtol=0, atol=1e-14)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_map_changes_the_coordinate_that_it_says(axis: int) -> None:
    """By as much as it says, for colours that stay in sRGB."""
    x = 0.3 + 0.3 * pictures(2, 3, 3, 4)
    colour = Colour(grid=(3, 4, 5))
    theta = colour.parameters(x)
    theta[:, axis] = 0.02
    change = to_luv(colour.apply(x, theta)) - to_luv(x)
    expected = torch.zeros(3, dtype=x.dtype)
    expected[axis] = 0.02 * (100, 200, 200)[axis]
    torch.testing.assert_close(change, expected.view(3, 1, 1).expand_as(change), rtol=0, atol=1e-9)


def test_between_the_points_of_the_grid_it_is_linear_along_each_axis() -> None:
    """A change that is linear in L*, u*, v* is interpolated exactly: none of the axes is another."""
    x = 0.3 + 0.3 * pictures(2, 3, 3, 4)
    colour = Colour(grid=(3, 4, 5))
    axes = [torch.linspace(0, 1, m, dtype=x.dtype) for m in colour.grid]
    a, b, c = torch.meshgrid(*axes, indexing="ij")
    theta = colour.parameters(x)
    theta[:, 0] = 0.01 * (a + 2 * b - 3 * c)
    luv = to_luv(x)
    low, high = luv.new_tensor([0, -84, -135]), luv.new_tensor([100, 176, 108])
    share = (luv - low.view(3, 1, 1)) / (high - low).view(3, 1, 1)
    change = (to_luv(colour.apply(x, theta)) - luv)[:, 0]
    torch.testing.assert_close(change, share[:, 0] + 2 * share[:, 1] - 3 * share[:, 2], rtol=0, atol=1e-9)


def test_no_colour_changes_by_more_than_the_bound() -> None:
    x = 0.3 + 0.3 * pictures(2, 3, 5, 6)
    colour = Colour(grid=(4, 5, 6))
    theta = colour.confine(normals(*colour.parameters(x).shape), 0.03)
    change = (to_luv(colour.apply(x, theta)) - to_luv(x)) / torch.tensor([100.0, 200, 200], dtype=x.dtype).view(3, 1, 1)
    assert (change.abs() <= 0.03 + 1e-12).all()
    assert change.abs().max() > 0.01


def test_equal_colours_stay_equal_and_images_have_maps_of_their_own() -> None:
    x = pictures(2, 3, 4, 4)
    x[:, :, 2, 3] = x[:, :, 0, 1]
    x[1] = x[0]
    colour = Colour(grid=(4, 5, 6))
    z = colour.apply(x, 0.05 * normals(2, 3, 4, 5, 6))
    torch.testing.assert_close(z[:, :, 2, 3], z[:, :, 0, 1], rtol=0, atol=1e-12)
    assert (z[0] != z[1]).any()


def test_gradients_by_finite_differences() -> None:
    x = (0.2 + 0.6 * pictures(2, 3, 2, 3)).requires_grad_()
    theta = (0.02 * normals(2, 3, 2, 3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(Colour(grid=(2, 3, 4)).apply, (x, theta))
    grey, curve = pictures(2, 1, 3, 4).requires_grad_(), normals(2, 1, 5).requires_grad_()
    assert torch.autograd.gradcheck(Colour(levels=5).apply, (grey, curve))
    assert torch.autograd.gradcheck(Colour().penalty, (theta,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bound": 0.0}, "bound = 0.0 is out of range"),
        ({"grid": (16, 32)}, "grid = (16, 32) is not allowed: three whole numbers >= 2 are"),
        ({"grid": (16, 1, 32)}, "grid = 1 is out of range"),
        ({"levels": 1}, "levels = 1 is out of range"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Colour(**options)


@pytest.mark.parametrize(
    ("shape", "bounds", "message"),
    [
        ((5, 2, 4, 4), (0.0, 1.0), "images with 2 channels are not allowed for colours: 1 (grey) or 3 (RGB) are"),
        ((5, 16), (0.0, 1.0), "images of shape (5, 16) are not allowed: (n, channels, height, width) is"),
        ((5, 3, 4, 4), (-1.0, 1.0), "bounds = (-1.0, 1.0) are not allowed for colours: (0, 1) are"),
    ],
)
def test_bad_images(shape: tuple[int, ...], bounds: tuple[float, float], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Colour().check(shape, bounds)
