"""Transformations of images: samples between pixels, flows, rotations and shifts, and the projections of their parameters."""

import math
import re
from collections.abc import Callable
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from deepcheck.attacks import Additive, Colour, Flow, Rigid
from deepcheck.attacks.spatial.sampling import BORDERS, Border, sample
from deepcheck.attacks.spatial.transformations import Transformation
from tests.deepcheck.devices import on_every_device, rounding

pytestmark = on_every_device

PADS = {"edge": "replicate", "mirror": "reflect", "zero": "constant"}
SAMPLERS = {"edge": "border", "mirror": "reflection", "zero": "zeros"}
KINDS = [Flow(), Flow(border="mirror"), Flow(border="zero"), Rigid(), Rigid(border="edge"), Additive(), Colour()]


def pictures(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=draw, dtype=torch.float64).to(dtype)


def normals(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("size", [(5, 7), (7, 5), (1, 4), (1, 1), (8, 8)])
def test_no_parameters_change_nothing(kind: Transformation, dtype: torch.dtype, size: tuple[int, int]) -> None:
    """To the last bit, at the border and at the edges of the box too."""
    for channels in (1, 3):
        x = (3 * pictures(4, channels, *size, dtype=dtype) - 1).clamp(0, 1)
        theta = kind.parameters(x)
        assert theta.dtype is dtype
        assert torch.equal(kind.apply(x, theta), x)
        assert (kind.size(theta) == 0).all()
        assert (kind.penalty(theta) == 0).all()


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize(("down", "right"), list(product((-2, 0, 1), (-1, 0, 3))))
def test_flows_by_whole_pixels_are_shifts(border: Border, down: int, right: int) -> None:
    x = pictures(3, 2, 5, 7)
    theta = torch.zeros(3, 2, 5, 7, dtype=x.dtype)
    theta[:, 0], theta[:, 1] = down, right
    z = Flow(border=border).apply(x, theta)
    padded = F.pad(x, (4, 4, 4, 4), mode=PADS[border])
    assert torch.equal(z, padded[:, :, 4 + down : 9 + down, 4 + right : 11 + right])
    inside = (slice(2, -2), slice(3, -3))
    assert torch.equal(z[:, :, *inside], x.roll((-down, -right), (2, 3))[:, :, *inside])


@pytest.mark.parametrize("border", BORDERS)
@pytest.mark.parametrize("size", [(5, 7), (6, 2), (1, 3)])
def test_samples_are_those_of_torch(border: Border, size: tuple[int, int]) -> None:
    height, width = size
    if min(size) == 1 and border == "mirror":
        pytest.skip("torch mirrors one pixel in its own way")
    x = pictures(3, 2, *size)
    rows, columns = 6 * normals(3, 4, 5), 6 * normals(3, 4, 5, seed=2)
    grid = torch.stack([2 * columns / max(width - 1, 1) - 1, 2 * rows / max(height - 1, 1) - 1], -1)
    if height == 1:
        rows, grid[..., 1] = rows * 0, 0.0
    theirs = F.grid_sample(x, grid, mode="bilinear", padding_mode=SAMPLERS[border], align_corners=True)
    torch.testing.assert_close(sample(x, rows, columns, border), theirs, rtol=0, atol=1e-12)


def test_one_flow_for_each_image_and_pixel() -> None:
    x = pictures(2, 1, 4, 6)
    theta = torch.zeros(2, 2, 4, 6, dtype=x.dtype)
    theta[1, 0, 2, 5], theta[1, 1, 2, 5] = 1.0, -3.0
    z = Flow().apply(x, theta)
    expected = x.clone()
    expected[1, 0, 2, 5] = x[1, 0, 3, 2]
    assert torch.equal(z, expected)


@pytest.mark.parametrize(("turns", "angle"), [(1, 90.0), (2, 180.0)])
@pytest.mark.parametrize("border", BORDERS)
def test_rotations_by_right_angles(turns: int, angle: float, border: Border) -> None:
    for side in (4, 5):
        x = pictures(2, 3, side, side)
        rigid = Rigid(angle, 0.0, border)
        for sign in (1, -1):
            theta = x.new_tensor([[sign, 0.0, 0.0]]).expand(2, 3)
            torch.testing.assert_close(rigid.apply(x, theta), x.rot90(sign * turns, (2, 3)), rtol=0, atol=1e-12)


def test_a_picture_that_is_not_square_is_turned_by_half() -> None:
    x = pictures(2, 1, 3, 6)
    half = Rigid(180.0).apply(x, x.new_tensor([[1.0, 0, 0]]).expand(2, 3))
    torch.testing.assert_close(half, x.flip(2, 3), rtol=0, atol=1e-12)


def test_shifts_are_down_and_to_the_right_and_before_the_rotation() -> None:
    x = pictures(2, 1, 5, 5)
    rigid = Rigid(90.0, 2.0)
    down = rigid.apply(x, x.new_tensor([[0, 0.5, 0]]).expand(2, 3))
    assert torch.equal(down[:, :, 1:], x[:, :, :-1])
    assert (down[:, :, 0] == 0).all()
    right = rigid.apply(x, x.new_tensor([[0, 0, 1.0]]).expand(2, 3))
    assert torch.equal(right[:, :, :, 2:], x[:, :, :, :-2])
    both = rigid.apply(x, x.new_tensor([[1.0, 0.5, 0]]).expand(2, 3))
    torch.testing.assert_close(both, down.rot90(1, (2, 3)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("border", BORDERS)
def test_gradients_by_finite_differences(border: Border) -> None:
    """Between the pixels: at them, bilinear samples have kinks."""
    x = pictures(2, 2, 3, 4).requires_grad_()
    flow = (0.3 + 0.2 * normals(2, 2, 3, 4).tanh()).requires_grad_()
    assert torch.autograd.gradcheck(Flow(border=border).apply, (x, flow))
    rigid = normals(2, 3).tanh().requires_grad_()
    assert torch.autograd.gradcheck(Rigid(20.0, 1.3, border).apply, (x, rigid))
    assert torch.autograd.gradcheck(Flow().penalty, (flow,))


def test_the_penalty_is_the_papers_sum_over_neighbours() -> None:
    theta = normals(3, 2, 3, 4)
    expected = torch.zeros(3, dtype=theta.dtype)
    for a, b in product(range(3), range(4)):
        for c, d in ((a - 1, b), (a + 1, b), (a, b - 1), (a, b + 1)):
            if 0 <= c < 3 and 0 <= d < 4:
                expected += ((theta[:, :, a, b] - theta[:, :, c, d]).square().sum(1) + 1e-8).sqrt() - 1e-4
    torch.testing.assert_close(Flow().penalty(theta), expected)


@pytest.mark.parametrize("kind", [Flow(), Colour(grid=(2, 3, 4))], ids=repr)
def test_a_constant_has_no_penalty_and_its_gradient_is_finite(kind: Transformation) -> None:
    theta = (kind.parameters(pictures(2, 3, 5, 4)) + 0.7).requires_grad_()
    penalty = kind.penalty(theta)
    (gradient,) = torch.autograd.grad(penalty.sum(), theta)
    assert (penalty == 0).all()
    assert (gradient == 0).all()


def every(check: Callable[[Transformation, Tensor, float], None]) -> None:
    """Run a check on parameters of all kinds, sizes, precisions, and bounds."""

    @settings(max_examples=60, deadline=None)
    @given(
        kind=st.sampled_from(KINDS),
        dtype=st.sampled_from([torch.float32, torch.float64]),
        seed=st.integers(0, 10_000),
        scale=st.sampled_from([1e-6, 0.01, 1.0, 30.0]),
        bound=st.sampled_from([0.0, 1e-3, 0.1, 0.2, 1.0, 7.0]),
    )
    def checked(kind: Transformation, dtype: torch.dtype, seed: int, scale: float, bound: float) -> None:
        if isinstance(kind, Colour):
            kind = Colour(grid=(2, 3, 4))
        x = pictures(3, 3, 4, 5, dtype=dtype)
        theta = scale * normals(*kind.parameters(x).shape, seed=seed).to(dtype)
        check(kind, theta, bound)

    checked()


def test_projections_are_inside_and_leave_alone_what_is() -> None:
    def check(kind: Transformation, theta: Tensor, bound: float) -> None:
        inside = kind.confine(theta, bound)
        assert (kind.size(inside).double() <= bound).all()  # in the numbers themselves
        torch.testing.assert_close(kind.confine(inside, bound), inside, rtol=1e-5, atol=0)
        short = (
            theta.abs() if not isinstance(kind, Flow) else theta.square().sum(1, keepdim=True).sqrt().expand_as(theta)
        )
        assert torch.equal(inside[short < bound * 0.999], theta[short < bound * 0.999])
        assert (inside * theta >= 0).all()

    every(check)


def test_projections_are_the_nearest() -> None:
    """No other point inside is nearer: (theta - p) . (q - p) <= 0 for all q inside."""

    def check(kind: Transformation, theta: Tensor, bound: float) -> None:
        p, q = kind.confine(theta, bound).double(), kind.confine(theta.flip(0) * 3 + 0.1, bound).double()
        excess = ((theta.double() - p) * (q - p)).flatten(1).sum(1)
        assert (excess <= 1e-4 * bound * theta.double().abs().flatten(1).sum(1)).all()

    every(check)


def test_sizes_are_homogeneous() -> None:
    def check(kind: Transformation, theta: Tensor, bound: float) -> None:
        torch.testing.assert_close(kind.size(-bound * theta), bound * kind.size(theta), rtol=1e-5, atol=1e-30)

    every(check)


def test_examples_do_not_matter_to_each_other() -> None:
    for kind in KINDS:
        x = pictures(5, 3, 4, 6)
        theta = 0.05 * normals(*kind.parameters(x).shape)
        z = kind.apply(x, theta)
        for row in range(5):
            one = kind.apply(x[row : row + 1], theta[row : row + 1])
            torch.testing.assert_close(one[0], z[row], rtol=0, atol=rounding())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Flow(0.0), "bound = 0.0 is out of range"),
        (lambda: Flow(math.nan), "bound = nan"),
        (lambda: Flow(smoothness=-1.0), "smoothness = -1.0 is out of range"),
        (lambda: Flow(border="wrap"), "border = 'wrap' is unknown: allowed is one of edge, mirror, zero"),  # type: ignore[arg-type]
        (lambda: Rigid(181.0), "angle = 181.0 is out of range"),
        (lambda: Rigid(shift=-1.0), "shift = -1.0 is out of range"),
        (lambda: Additive(-0.1), "bound = -0.1 is out of range"),
        (
            lambda: Flow().check((3, 20), (0.0, 1.0)),
            "images of shape (3, 20) are not allowed: (n, channels, height, width)",
        ),
        (lambda: Rigid().check((3, 1, 0, 4), (0.0, 1.0)), "images of shape (3, 1, 0, 4) are not allowed"),
    ],
    ids=[f"case {k}" for k in range(9)],
)
def test_bad_input(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()
