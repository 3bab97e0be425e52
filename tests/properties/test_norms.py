"""Projections onto the balls are nearest points: by the condition of optimality, and by brute force."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from deepcheck.attacks.norms import L0, L1, L2, LInf, Norm

CONVEX: list[Norm] = [LInf(), L2(), L1()]
DUAL = {"linf": 1, "l2": 2, "l1": math.inf}

# ties and zeros are likely, and so are numbers of very different size
numbers = st.one_of(st.integers(-4, 4).map(float), st.floats(-100, 100), st.floats(-1e-6, 1e-6))
vectors = st.lists(numbers, min_size=1, max_size=7).map(lambda row: torch.tensor([row], dtype=torch.float64))
radii = st.one_of(st.floats(0, 300), st.floats(0, 1e-3), st.integers(0, 12).map(float))


def distance(a: Tensor, b: Tensor) -> float:
    return float(torch.linalg.vector_norm(a - b))


@pytest.mark.parametrize("norm", CONVEX, ids=repr)
@given(delta=vectors, epsilon=radii)
def test_a_projection_is_the_nearest_point(norm: Norm, delta: Tensor, epsilon: float) -> None:
    """Of a convex ball, P is the nearest point if and only if <delta - P, y - P> <= 0 for every y in the ball.

    The largest <delta - P, y> is epsilon times the dual norm.
    """
    projected = norm.project(delta, epsilon)
    tolerance = 1e-13 * (1 + float(delta.abs().sum()))
    assert float(norm.length(projected)) <= epsilon + tolerance
    normal = delta - projected
    largest = epsilon * float(torch.linalg.vector_norm(normal, ord=DUAL[norm.name]))
    assert largest - float((normal * projected).sum()) <= tolerance * (1 + float(delta.abs().sum()))


@pytest.mark.parametrize("norm", CONVEX, ids=repr)
@given(delta=vectors, epsilon=radii, seed=st.integers(0, 2**32))
def test_no_random_point_of_the_ball_is_nearer(norm: Norm, delta: Tensor, epsilon: float, seed: int) -> None:
    points = norm.uniform(delta.expand(50, -1), epsilon, torch.Generator().manual_seed(seed))
    nearest = distance(delta, norm.project(delta, epsilon))
    assert torch.linalg.vector_norm(points - delta, dim=1).min() >= nearest - 1e-12 * (1 + nearest)


@pytest.mark.parametrize("norm", [*CONVEX, L0()], ids=repr)
@given(delta=vectors, epsilon=radii)
def test_a_projection_does_nothing_the_second_time(norm: Norm, delta: Tensor, epsilon: float) -> None:
    once = norm.project(delta, epsilon)
    torch.testing.assert_close(norm.project(once, epsilon), once, rtol=1e-12, atol=1e-13)
    if float(norm.length(delta)) <= epsilon * (1 - 1e-12):
        torch.testing.assert_close(once, delta, rtol=0, atol=1e-150)  # squares of less are 0


@given(delta=vectors, epsilon=radii)
def test_the_l1_projection_by_bisection(delta: Tensor, epsilon: float) -> None:
    """sign(delta) (|delta| - t)_+ with the least t >= 0 for which its length is at most epsilon."""
    size = delta.abs()
    low, high = 0.0, float(size.max())
    if float(size.sum()) <= epsilon:
        high = 0.0
    for _ in range(200):
        t = (low + high) / 2
        low, high = (t, high) if float((size - t).clamp(min=0).sum()) > epsilon else (low, t)
    expected = delta.sign() * (size - high).clamp(min=0)
    torch.testing.assert_close(L1().project(delta, epsilon), expected, rtol=1e-9, atol=1e-12)


@given(delta=vectors, epsilon=radii)
def test_the_l0_projection_by_trying_all_subsets(delta: Tensor, epsilon: float) -> None:
    projected = L0().project(delta, epsilon)
    size = min(math.floor(epsilon), delta.numel())
    assert int((projected != 0).sum()) <= size
    kept = (projected != 0) & (projected != delta)
    assert not kept.any()
    distances = []
    for subset in itertools.combinations(range(delta.numel()), size):
        candidate = torch.zeros_like(delta)
        candidate[0, list(subset)] = delta[0, list(subset)]
        distances.append(distance(delta, candidate))
    assert distance(delta, projected) == pytest.approx(min(distances), rel=1e-12, abs=1e-300)


@given(delta=vectors, epsilon=st.integers(0, 7))
def test_the_l0_projection_keeps_what_is_largest(delta: Tensor, epsilon: int) -> None:
    """For a radius of the whole batch and for one of each example, which choose among equal entries as they like."""
    largest = delta.abs().flatten().sort(descending=True).values[:epsilon]
    for radius in (float(epsilon), epsilon + 0.9, torch.tensor([epsilon + 0.9])):
        kept = L0().project(delta, radius)
        assert torch.equal(kept.abs().flatten().sort(descending=True).values[:epsilon], largest)
        assert int((kept != 0).sum()) <= epsilon


@pytest.mark.parametrize("norm", [*CONVEX, L0()], ids=repr)
@given(
    image=st.lists(st.floats(0, 1), min_size=4, max_size=4),
    point=st.lists(st.floats(-3, 3), min_size=4, max_size=4),
    epsilon=st.floats(0, 5),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_confined_points_are_in_ball_and_box(
    norm: Norm, image: list[float], point: list[float], epsilon: float, dtype: torch.dtype
) -> None:
    x, z = torch.tensor([image], dtype=dtype), torch.tensor([point], dtype=dtype)
    confined = norm.confinement(x, epsilon, (0.0, 1.0))(z.clone())
    assert ((confined >= 0) & (confined <= 1)).all()
    slack = 0 if norm.name == "l0" else 10 * torch.finfo(dtype).eps
    assert float(norm.length(confined - x)) <= epsilon + slack


boxed = st.lists(st.tuples(numbers, st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6)


def rows_of(entries: list[tuple[float, float, float]]) -> tuple[Tensor, Tensor, Tensor]:
    """Return delta, low <= 0 and high >= 0, shape (1, D)."""
    delta, low, high = torch.tensor([entries], dtype=torch.float64).unbind(2)
    return delta, -low, high


def by_multiplier(norm: Norm, delta: Tensor, epsilon: float, low: Tensor, high: Tensor) -> Tensor:
    """The conditions of Karush, Kuhn and Tucker, solved by bisection: clip(delta / (1 + t)) or clip((|delta| - t)_+)."""

    def point(t: float) -> Tensor:
        inner = delta / (1 + t) if norm.name == "l2" else delta.sign() * (delta.abs() - t).clamp(min=0)
        return inner.clamp(low, high)

    if float(norm.length(point(0.0))) <= epsilon:
        return point(0.0)
    least, most = 0.0, 1.0
    while float(norm.length(point(most))) > epsilon:
        most *= 4
    for _ in range(200):
        t = (least + most) / 2
        least, most = (t, most) if float(norm.length(point(t))) > epsilon else (least, t)
    return point(most)


@pytest.mark.parametrize("norm", [L1(), L2()], ids=repr)
@given(entries=boxed, epsilon=st.one_of(st.floats(1e-3, 4), st.integers(1, 4).map(float)))
def test_the_projection_on_ball_and_box_satisfies_the_conditions_of_optimality(
    norm: Norm, entries: list[tuple[float, float, float]], epsilon: float
) -> None:
    delta, low, high = rows_of(entries)
    projected = norm.project_within(delta, epsilon, low, high)
    torch.testing.assert_close(
        projected, by_multiplier(norm, delta, epsilon, low, high), rtol=1e-9, atol=1e-9 * (1 + float(delta.abs().max()))
    )
    assert float(norm.length(projected)) <= epsilon * (1 + 1e-9)
    assert ((projected >= low) & (projected <= high)).all()


@pytest.mark.parametrize("norm", CONVEX, ids=repr)
@given(entries=boxed, epsilon=st.floats(0, 4), seed=st.integers(0, 2**32))
def test_no_random_point_of_ball_and_box_is_nearer(
    norm: Norm, entries: list[tuple[float, float, float]], epsilon: float, seed: int
) -> None:
    delta, low, high = rows_of(entries)
    points = norm.uniform(delta.expand(200, -1), epsilon, torch.Generator().manual_seed(seed)).clamp(low, high)
    projected = norm.project_within(delta, epsilon, low, high)
    nearest = distance(delta, projected)
    points = torch.cat([points, (points + projected) / 2])  # a convex set: these are in it too
    assert torch.linalg.vector_norm(points - delta, dim=1).min() >= nearest - 1e-9 * (1 + nearest)


@given(entries=boxed, epsilon=st.integers(0, 6))
def test_few_entries_in_the_box_by_trying_all_subsets(entries: list[tuple[float, float, float]], epsilon: int) -> None:
    delta, low, high = rows_of(entries)
    clipped, size = delta.clamp(low, high), min(epsilon, delta.numel())
    for radius in (epsilon + 0.5, torch.tensor([epsilon + 0.5])):
        projected = L0().project_within(delta, radius, low, high)
        assert int((projected != 0).sum()) <= size
        distances = []
        for subset in itertools.combinations(range(delta.numel()), size):
            candidate = torch.zeros_like(delta)
            candidate[0, list(subset)] = clipped[0, list(subset)]
            distances.append(distance(delta, candidate))
        assert distance(delta, projected) == pytest.approx(min(distances), rel=1e-9, abs=1e-12)
