"""Geometry of the balls: steepest steps and dual norms, uniform laws, ball and box, one example or many."""

import math
import re
from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from deepcheck.attacks.norms import L0, L1, L2, NORMS, LInf, Norm, moved, norm, rounded
from tests.deepcheck.devices import on_every_device, rounding

pytestmark = on_every_device

CONVEX = [LInf(), L2(), L1()]
ALL = [*CONVEX, L0(), L1(coordinates=3), L0(coordinates=3)]
EPSILON = {"linf": 0.2, "l2": 0.7, "l1": 1.3, "l0": 4.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=dtype)


def pictures(n: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Images with many pixels at the edges of the box [0, 1]."""
    return (1.6 * torch.rand(n, 2, 3, 4, generator=generator(2), dtype=dtype) - 0.3).clamp(0, 1)


def dual_length(of: Norm, g: Tensor) -> Tensor:
    """max{<g, d> : |d| <= 1} = |g|_q with 1/p + 1/q = 1."""
    order = {"linf": 1, "l2": 2, "l1": math.inf}[of.name]
    length: Tensor = torch.linalg.vector_norm(g.flatten(1), ord=order, dim=1)
    return length


# --- lengths and steepest steps ---


@pytest.mark.parametrize(("name", "order"), [("linf", math.inf), ("l2", 2), ("l1", 1), ("l0", 0)])
def test_length_is_the_vector_norm_of_that_order(name: str, order: float) -> None:
    delta = normals(9, 2, 3)
    delta[:, 0, 1] = 0
    delta[4] = 0
    expected = torch.linalg.vector_norm(delta.flatten(1), ord=order, dim=1)
    torch.testing.assert_close(NORMS[name].length(delta), expected)


@pytest.mark.parametrize("of", CONVEX, ids=repr)
def test_the_steepest_step_attains_the_dual_norm(of: Norm) -> None:
    g = normals(30, 2, 3)
    d = of.steepest(g)
    torch.testing.assert_close(of.length(d), torch.ones(30, dtype=torch.float64))
    torch.testing.assert_close((g * d).flatten(1).sum(1), dual_length(of, g))


@pytest.mark.parametrize("of", CONVEX, ids=repr)
def test_no_point_of_the_ball_beats_the_dual_norm(of: Norm) -> None:
    epsilon = EPSILON[of.name]
    g = normals(5, 2, 3)
    bound = epsilon * dual_length(of, g)
    for seed in range(200):
        points = of.project(4 * epsilon * normals(5, 2, 3, seed=seed), epsilon)
        assert ((g * points).flatten(1).sum(1) <= bound + 1e-12).all()
    assert of.dual is not None
    torch.testing.assert_close(NORMS[of.dual].length(g), dual_length(of, g))


def test_the_steepest_steps_of_several_coordinates_move_the_largest() -> None:
    g = torch.tensor([[0.5, -3.0, 0.0, 2.0, -1.0], [0.0, 0.0, 0.0, 0.0, -2.0]])
    assert L0(coordinates=2).steepest(g).tolist() == [[0, -1, 0, 1, 0], [0, 0, 0, 0, -1]]
    assert L1(coordinates=2).steepest(g).tolist() == [[0, -0.5, 0, 0.5, 0], [0, 0, 0, 0, -0.5]]
    # more coordinates than there are entries
    assert L0(coordinates=9).steepest(g).tolist() == g.sign().tolist()
    torch.testing.assert_close(L1(coordinates=9).steepest(g), g.sign() / 5)


@pytest.mark.parametrize("of", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zeros_stay_zero(of: Norm, dtype: torch.dtype) -> None:
    zero = torch.zeros(3, 2, 4, dtype=dtype)
    assert (of.steepest(zero) == 0).all()
    assert (of.length(zero) == 0).all()
    for epsilon in (0.0, 0.5, 3.0, torch.tensor([0.0, 0.5, 3.0], dtype=dtype)):
        assert (of.project(zero, epsilon) == 0).all()
    mixed = normals(3, 2, 4, dtype=dtype)
    mixed[1] = 0
    step = of.steepest(mixed)
    assert (step[1] == 0).all()
    assert step.isfinite().all()


@pytest.mark.parametrize("of", ALL, ids=repr)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_steepest_step_does_not_depend_on_the_scale_of_the_gradient(of: Norm, scale: float) -> None:
    g = normals(6, 2, 3, dtype=torch.float32)
    torch.testing.assert_close(of.steepest(scale * g), of.steepest(g), rtol=1e-5, atol=0)


# --- projections: what needs no search for examples; the rest is in tests/properties ---


@pytest.mark.parametrize("of", ALL, ids=repr)
def test_one_radius_for_each_example(of: Norm) -> None:
    delta = 3 * normals(5, 2, 3)
    radii = torch.tensor([0.0, 0.3, 1.0, 2.5, 100.0], dtype=torch.float64)
    together = of.project(delta, radii)
    for row, radius in enumerate(radii.tolist()):
        torch.testing.assert_close(
            together[row : row + 1], of.project(delta[row : row + 1], radius), rtol=1e-14, atol=0
        )
    assert torch.equal(together[4], delta[4])
    assert (together[0] == 0).all()


def test_the_l1_projection_is_exact_for_many_entries_and_large_excess() -> None:
    """In single precision and 3072 entries, the error is of the order of rounding of the length."""
    delta = 100 * normals(4, 3072, dtype=torch.float32)
    for epsilon in (1e-3, 1.0, 100.0):
        projected = L1().project(delta, epsilon)
        exact = L1().project(delta.double(), epsilon)
        assert (L1().length(projected.double()) <= epsilon + 1e-4).all()
        torch.testing.assert_close(projected.double(), exact, rtol=0, atol=1e-4)


# --- ball and box ---


@pytest.mark.parametrize("of", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-0.3, 1.7), (-math.inf, math.inf), (0.0, math.inf)])
def test_confined_points_are_in_ball_and_box(of: Norm, dtype: torch.dtype, bounds: tuple[float, float]) -> None:
    images = pictures(50, dtype)
    epsilon = EPSILON[of.name]
    confine = of.confinement(images, epsilon, bounds)
    inside = confine(images + normals(50, 2, 3, 4, dtype=dtype))
    assert inside.min() >= bounds[0]
    assert inside.max() <= bounds[1]
    tolerance = 20 * torch.finfo(dtype).eps
    assert (of.length(inside - images) <= epsilon + (0 if of.name == "l0" else tolerance)).all()
    # what is in both stays where it is
    torch.testing.assert_close(confine(inside.clone()), inside, rtol=0, atol=tolerance)
    assert torch.equal(confine(images.clone()), images)


def test_confinement_to_cube_and_box_gives_the_nearest_point() -> None:
    images, points = pictures(20), pictures(20) + normals(20, 2, 3, 4)
    confined = LInf().confinement(images, 0.2, (0.0, 1.0))(points.clone())
    low, high = (images - 0.2).clamp(min=0), (images + 0.2).clamp(max=1)
    expected = torch.minimum(torch.maximum(points, low), high)
    torch.testing.assert_close(confined, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("of", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_confined_points_are_inside_in_the_numbers_that_they_are_given_in(of: Norm, dtype: torch.dtype) -> None:
    """Not up to rounding: the length in double precision of what is returned is at most epsilon."""
    images = pictures(200, dtype)
    wide = images.float() if dtype in (torch.float16, torch.bfloat16) else images
    points = wide + normals(200, 2, 3, 4, dtype=wide.dtype)
    for epsilon in (1e-3, 0.1, 0.3, 1.0, 2.7, 8.0):
        inside = rounded(of.confinement(wide, epsilon, (0.0, 1.0))(points.clone()), wide, dtype)
        assert inside.dtype is dtype
        assert inside.min() >= 0
        assert inside.max() <= 1
        length = of.length(inside.double() - images.double())
        assert (length <= epsilon * (1 + (1e-12 if dtype is torch.float64 else 0))).all()
        assert length.max() >= 0.5 * (math.floor(epsilon) if of.name == "l0" else min(epsilon, 1.0))  # it moves


def test_sums_are_rounded_towards_the_images() -> None:
    images, delta = pictures(400, torch.float32), normals(400, 2, 3, 4, dtype=torch.float32)
    z = moved(images, delta)
    size, exact = delta.double().abs(), (z.double() - images.double()).abs()
    assert (exact <= size).all()
    torch.testing.assert_close(z, images + delta, rtol=3e-7, atol=1e-7)
    plain = ((images + delta).double() - images.double()).abs()
    assert (plain > size).any()  # or this would test nothing


@pytest.mark.parametrize("of", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_draws_in_half_precision_are_numbers(of: Norm, dtype: torch.dtype) -> None:
    drawn = of.uniform(torch.empty(500, 400, dtype=dtype), 3.0, generator())
    assert drawn.dtype is dtype
    assert drawn.isfinite().all()
    assert (of.length(drawn.double()) <= 3.0 * 1.02).all()


def test_steps_of_an_attack_move_many_entries_at_first_and_few_in_the_end() -> None:
    for of in (L1(coordinates=5, shares=(0.1, 0.001)), L0(coordinates=5, shares=(0.1, 0.001))):
        counts = [int((of.during(t, 1000).steepest(normals(1, 1000)) != 0).sum()) for t in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert counts == [100, 32, 10, 3, 1]
        assert int((of.steepest(normals(1, 1000)) != 0).sum()) == 5
    assert L1(coordinates=5).during(0.5, 1000) == L1(coordinates=5)
    with pytest.raises(ValueError, match=re.escape("shares = 0.0 is out of range")):
        L1(shares=(0.1, 0.0))


def test_confinement_to_few_entries_does_not_touch_the_others() -> None:
    """Bitwise, in single precision, where x + (z - x) is not z."""
    images = pictures(50, torch.float32)
    points = images + normals(50, 2, 3, 4, dtype=torch.float32)
    inside = L0().confinement(images, 5.9, (0.0, 1.0))(points)
    changed = (inside != images).flatten(1).sum(1)
    assert (changed <= 5).all()
    assert changed.max() == 5


def test_few_entries_are_those_by_which_the_point_comes_nearest() -> None:
    images = torch.tensor([[0.9, 0.5, 0.2, 0.5]])
    # changes in the box: 0.1, 0.3, 0.2, 0; by them the squares of the distances fall by 8.1^2 - 8^2, 0.3^2, 0.5^2 - 0.3^2
    points = torch.tensor([[9.0, 0.8, -0.3, 0.5]])
    expected = torch.tensor([[1.0, 0.5, 0.0, 0.5]])
    torch.testing.assert_close(L0().confinement(images, 2, (0.0, 1.0))(points), expected)


# --- one example or many ---


@pytest.mark.parametrize("of", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_example_alone_gives_what_it_gives_in_a_batch(of: Norm, dtype: torch.dtype) -> None:
    delta, images, epsilon = 3 * normals(17, 2, 3, 4, dtype=dtype), pictures(17, dtype), EPSILON[of.name]
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda d, _: of.length(d),
        lambda d, _: of.project(d, epsilon),
        lambda d, _: of.steepest(d),
        lambda d, x: of.confinement(x, epsilon, (0.0, 1.0))(x + d),
    ]
    for function in functions:
        together = function(delta, images)
        for row in range(17):
            part = slice(row, row + 1)
            alone = function(delta[part], images[part])
            torch.testing.assert_close(alone, together[part], rtol=0, atol=rounding(dtype))


# --- uniform laws ---

DIMENSION = 4
DRAWS = 20_000


def drawn(of: Norm, epsilon: float, seed: int = 4) -> Tensor:
    return of.uniform(torch.empty(DRAWS, 2, 2, dtype=torch.float64), epsilon, generator(seed))


@pytest.mark.parametrize("of", CONVEX, ids=repr)
def test_uniform_in_the_ball_by_length(of: Norm) -> None:
    """The share of the ball's volume within r epsilon is r^D."""
    length = of.length(drawn(of, 0.6)) / 0.6
    assert length.max() <= 1 + 1e-12
    assert stats.kstest(length.numpy() ** DIMENSION, "uniform").pvalue > 0.01


@pytest.mark.parametrize(
    ("of", "law"),
    [
        (LInf(), stats.uniform(-1, 2).cdf),
        # the slice at x is a ball of radius (1 - x^2)^(1/2), or 1 - |x|, in D - 1 dimensions
        (L2(), stats.beta((DIMENSION + 1) / 2, (DIMENSION + 1) / 2, loc=-1, scale=2).cdf),
        (L1(), lambda x: (1 + (abs(x) / x) * (1 - (1 - abs(x)) ** DIMENSION)) / 2),
    ],
    ids=["linf", "l2", "l1"],
)
def test_uniform_in_the_ball_by_entry(of: Norm, law: Callable[[object], object]) -> None:
    entries = drawn(of, 0.6).flatten(1) / 0.6
    for entry in entries.T:
        assert stats.kstest(entry.numpy(), law).pvalue > 0.002
    # signs are independent: every orthant is as likely
    orthant = ((entries > 0).long() * torch.tensor([1, 2, 4, 8])).sum(1)
    assert stats.chisquare(torch.bincount(orthant, minlength=16).numpy()).pvalue > 0.01


def test_uniform_over_few_entries() -> None:
    """floor(epsilon) different entries, every pair as likely, with values from U(-1, 1)."""
    delta = drawn(L0(), 2.7).flatten(1)
    assert ((delta != 0).sum(1) == 2).all()
    pair = ((delta != 0).long() * torch.tensor([1, 2, 4, 8])).sum(1)
    counts = torch.bincount(pair)
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 0.01
    assert int((counts > 0).sum()) == 6
    assert stats.kstest(delta[delta != 0].numpy(), stats.uniform(-1, 2).cdf).pvalue > 0.01


@pytest.mark.parametrize("of", ALL, ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draws_follow_the_generator_alone(of: Norm, dtype: torch.dtype) -> None:
    like = torch.empty(5, 3, 4, dtype=dtype)
    state = torch.get_rng_state()
    first = of.uniform(like, 2.0, generator())
    torch.rand(1, generator=(source := generator(9)))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.dtype is dtype
    assert first.shape == like.shape
    assert torch.equal(of.uniform(like, 2.0, generator()), first)
    assert not torch.equal(of.uniform(like, 2.0, source), first)
    assert (of.uniform(like, 0.0, generator()) == 0).all()


# --- names ---


def test_norms_by_name() -> None:
    for name, of in NORMS.items():
        assert norm(name) == of
        assert of.name == name
    own = L1(coordinates=5)
    assert norm(own) is own


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"norm = 'lnf' is unknown \(did you mean 'linf'\?\): allowed is one of"):
        norm("lnf")
    with pytest.raises(ValueError, match=re.escape("norm = 'xyz' is unknown: allowed is one of linf, l2, l1, l0")):
        norm("xyz")
    with pytest.raises(TypeError, match=re.escape("norm = 2 is of the wrong type: allowed is one of linf, l2")):
        norm(2)  # type: ignore[arg-type]
    for of in (L0, L1):
        with pytest.raises(ValueError, match="coordinates = 0 is out of range: allowed is a whole number >= 1"):
            of(coordinates=0)
        with pytest.raises(TypeError, match="coordinates = '3' is not a number"):
            of(coordinates="3")  # type: ignore[arg-type]
