"""No classifier of given examples has a smaller adversarial error, and one has this: against all of them, on small sets."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.distance import cdist

from odeflow.anisotropic import empirical_adversarial_error
from odeflow.optimal import lower_bound
from odeflow.optimal.distances import levels

Array = npt.NDArray[np.float64]
METRIC = {"l2": "euclidean", "linf": "chebyshev"}


def conflicts(plus: Array, minus: Array, epsilon: float, norm: str) -> list[tuple[int, int]]:
    """Return the pairs whose balls meet, from their distances."""
    size = (lambda d: math.hypot(*d)) if norm == "l2" else (lambda d: max(map(abs, d)))
    pairs = itertools.product(range(len(plus)), range(len(minus)))
    return [(i, j) for i, j in pairs if size((plus[i] - minus[j]).tolist()) <= 2 * epsilon]


def least_error(plus: Array, minus: Array, epsilon: float, norm: str) -> float:
    """Return the least error over all choices of the examples that a classifier gets right under attack.

    A choice can be got right just if no two balls of it with different labels meet.
    """
    n, m = len(plus), len(minus)
    pairs = conflicts(plus, minus, epsilon, norm)
    best = 0
    for right in itertools.product((False, True), repeat=n + m):
        if not any(right[i] and right[n + j] for i, j in pairs):
            best = max(best, sum(right))
    return (n + m - best) / (n + m)


few = st.lists(st.lists(st.integers(0, 4), min_size=2, max_size=2), min_size=1, max_size=5)


@given(plus=few, minus=few, double=st.integers(0, 5), norm=st.sampled_from(sorted(METRIC)))
def test_it_is_the_least_error_of_all_classifiers(
    plus: list[list[int]], minus: list[list[int]], double: int, norm: str
) -> None:
    """On a lattice, where many distances are 2 epsilon exactly, and examples stand on each other."""
    x, z = np.array(plus, float), np.array(minus, float)
    found = lower_bound(x, z, double / 2, norm)
    assert found.dims == ()
    assert float(found) == least_error(x, z, double / 2, norm)


@pytest.mark.parametrize("norm", sorted(METRIC))
@pytest.mark.parametrize(("n", "m"), [(40, 40), (25, 70)])
def test_the_relaxed_problem_has_the_same_optimum(n: int, m: int, norm: str) -> None:
    """An error of each example in [0, 1], of two near ones at least 1 together: a linear program, by another method."""
    rng = np.random.default_rng(n + m)
    plus, minus = rng.standard_normal((n, 4)), rng.standard_normal((m, 4)) + 0.5
    epsilon = np.quantile(cdist(plus, minus, METRIC[norm]), [0.003, 0.02, 0.05, 0.2]) / 2
    for size, found in zip(epsilon, lower_bound(plus, minus, epsilon, norm).values, strict=True):
        pairs = conflicts(plus, minus, size, norm)
        together = np.zeros((len(pairs), n + m))
        for row, (i, j) in enumerate(pairs):
            together[row, [i, n + j]] = -1
        solved = linprog(np.ones(n + m), A_ub=together, b_ub=-np.ones(len(pairs)), bounds=(0, 1))
        assert 0 < found < 0.5
        assert found == pytest.approx(solved.fun / (n + m), abs=1e-9)


def test_two_examples_and_a_star() -> None:
    """Known: one pair at distance 5; and one example among many, on which alone one need err."""
    pair = lower_bound([[0.0, 0.0]], [[3.0, 4.0]], [2.4, 2.5, 9.0], "l2")
    np.testing.assert_array_equal(pair, [0, 1 / 2, 1 / 2])
    np.testing.assert_array_equal(lower_bound([[0.0, 0.0]], [[3.0, 4.0]], [1.9, 2.0], "linf"), [0, 1 / 2])
    around = 1.5 * np.stack([np.cos(np.arange(7)), np.sin(np.arange(7))], axis=1)
    np.testing.assert_allclose(lower_bound([[0.0, 0.0]], around, [0.7, 0.8]), [0, 1 / 8], rtol=1e-15)


@given(
    d=st.integers(1, 30).map(lambda k: k / 8), epsilon=st.lists(st.integers(0, 64).map(lambda k: k / 16), min_size=1, max_size=4), n=st.integers(1, 6),
    side=st.sampled_from(sorted(METRIC)),
)  # fmt: skip
def test_rows_of_points_that_face_each_other(d: float, epsilon: list[float], n: int, side: str) -> None:
    """Points 100 apart in a row, each with one of the other class at d: all pairs are taken at once, at d/2."""
    plus = np.stack([100.0 * np.arange(n), np.zeros(n)], axis=1)
    expected = np.where(np.array(epsilon) >= d / 2, 0.5, 0.0)
    np.testing.assert_array_equal(lower_bound(plus, plus + np.array([0, d]), epsilon, side), expected)


@given(seed=st.integers(0, 10**6), norm=st.sampled_from(sorted(METRIC)))
def test_no_linear_classifier_is_below(seed: int, norm: str) -> None:
    rng = np.random.default_rng(seed)
    plus, minus = rng.standard_normal((30, 3)) + 0.7, rng.standard_normal((20, 3)) - 0.7
    X, y = np.concatenate([plus, minus]), np.repeat([1.0, -1.0], [30, 20])
    w, b = rng.standard_normal((50, 3)) + 1, rng.standard_normal(50)
    sizes = np.linspace(0, 2, 9)
    errors = empirical_adversarial_error(w, b, X, y, sizes, norm)
    assert (errors >= lower_bound(plus, minus, sizes, norm).values - 1e-12).all()


def test_the_nearest_neighbour_attains_it_while_it_is_zero() -> None:
    """Just below half the least distance no balls meet; from there on they do."""
    rng = np.random.default_rng(5)
    plus, minus = rng.random((60, 5)), rng.random((50, 5))
    half = cdist(plus, minus).min() / 2
    np.testing.assert_allclose(lower_bound(plus, minus, [0.999 * half, half]), [0, 1 / 110], rtol=1e-15)


@pytest.mark.parametrize("norm", sorted(METRIC))
def test_symmetries(norm: str) -> None:
    """The classes exchanged, the examples in another order, moved, in another unit and as images; epsilons in any order."""
    rng = np.random.default_rng(8)
    plus, minus = rng.random((45, 6)), rng.random((70, 6))
    sizes = np.linspace(0, 0.5, 12)
    bound = lower_bound(plus, minus, sizes, norm).values
    assert (np.diff(bound) >= 0).all()
    assert 0 == bound[0] < bound[3] < bound[-1] == 45 / 115
    shuffled = rng.permutation(12)
    for other in (
        lower_bound(minus, plus, sizes, norm),
        lower_bound(rng.permutation(plus), minus[::-1], sizes, norm),
        lower_bound(plus + 3.0, minus + 3.0, sizes, norm),
        lower_bound(1024 * plus, 1024 * minus, 1024 * sizes, norm),
        lower_bound(plus.reshape(45, 1, 2, 3), minus.reshape(70, 1, 2, 3), sizes, norm),
    ):
        np.testing.assert_array_equal(other, bound)
    other = lower_bound(plus, minus, np.repeat(sizes[shuffled], 2), norm)
    np.testing.assert_array_equal(other, np.repeat(bound[shuffled], 2))
    wider = lower_bound(plus, minus, sizes, "linf").values
    assert (wider >= bound).all()


@pytest.mark.parametrize("norm", sorted(METRIC))
@pytest.mark.parametrize("unit", [1e-200, 1e-160, 1e-3])
@pytest.mark.parametrize("far", [1.0, 1e200])
def test_no_square_is_lost_or_overflows(far: float, unit: float, norm: str) -> None:
    """Two examples are 4 units apart, the others far away."""
    plus, minus = [[0.0, unit], [far, 0.0]], [[4 * unit, unit], [-far, 0.0]]
    np.testing.assert_array_equal(lower_bound(plus, minus, [1.9 * unit, 2.0 * unit], norm), [0, 1 / 4])


def test_pixels_whose_distance_is_2_epsilon_exactly_count() -> None:
    """Multiples of 1/255, less a mean that is none: the distances in whole numbers say which pairs are near."""
    rng = np.random.default_rng(3)
    plus, minus = rng.integers(0, 256, (40, 3)), rng.integers(0, 256, (50, 3))
    apart = cdist(plus, minus, "chebyshev")
    steps = np.arange(2, 60, 2)
    assert all((apart == step).any() for step in steps[10:])
    mean = rng.random(3)
    scaled = lower_bound(plus / 255 - mean, minus / 255 - mean, steps / 2 / 255, "linf")
    np.testing.assert_array_equal(scaled, lower_bound(plus, minus, steps / 2, "linf"))
    np.testing.assert_array_equal(scaled, lower_bound(plus.astype(np.uint8), minus.astype(np.uint8), steps / 2, "linf"))
    assert (np.diff(scaled) > 0).any()


@pytest.mark.parametrize("norm", sorted(METRIC))
@pytest.mark.parametrize(("n", "m", "N"), [(1, 1, 1), (7, 32, 16), (50, 33, 130), (20, 64, 47)])
def test_distances_are_sorted_into_lengths(n: int, m: int, N: int, norm: str) -> None:
    """In every size of blocks, with coordinates that never change, and lengths below and above all distances."""
    rng = np.random.default_rng(n + N)
    plus, minus = rng.random((n, N)), rng.random((m, N))
    plus[:, :: max(N // 3, 2)] = minus[:, :: max(N // 3, 2)] = 0.25
    distances = cdist(plus, minus, METRIC[norm])
    for lengths in (np.quantile(distances, [0.001, 0.1, 0.3]) * 1.0001, np.array([0.0, 1e-3]), np.array([1.0, 100.0])):
        expected = np.searchsorted(lengths, distances)
        found = levels(plus, minus, lengths, norm)
        np.testing.assert_array_equal(found, expected)


def test_it_says_what_it_is() -> None:
    found = lower_bound(np.zeros((2, 1, 4, 4)), np.ones((3, 1, 4, 4)), [0.0, 0.5], "linf")
    assert (found.name, found.dims) == ("adversarial_error", ("epsilon",))
    assert found.attrs["long_name"] == "adversarial error"
    assert '"n_plus": 2' in found.attrs["configuration"]
    assert found.values.tolist() == [0.0, 2 / 5]


GOOD = [[0.0, 1.0]]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([], GOOD, 0.1), ValueError, r"plus has shape \(0,\): allowed is \(examples, \.\.\.\)"),
        ((GOOD, [1.0, 2.0], 0.1), ValueError, r"minus has shape \(2,\): allowed is"),
        ((GOOD, [[1.0]], 0.1), ValueError, r"minus has examples of shape \(1,\): allowed is \(2,\), that of plus"),
        (([[math.nan, 1.0]], GOOD, 0.1), ValueError, "plus = nan is out of range: allowed are finite numbers"),
        (([["a", "b"]], GOOD, 0.1), TypeError, "plus = .* is not a number or an array of numbers"),
        ((GOOD, GOOD, -0.1), ValueError, "epsilon = -0.1 is out of range: allowed are finite numbers >= 0"),
        ((GOOD, GOOD, [0.1, math.inf]), ValueError, "epsilon = inf is out of range"),
        ((GOOD, GOOD, [[0.1]]), ValueError, r"epsilon has shape \(1, 1\): allowed are a number or"),
        ((GOOD, GOOD, []), ValueError, r"epsilon has shape \(0,\)"),
        ((GOOD, GOOD, "0.1"), TypeError, "epsilon = '0.1' is not a number"),
        ((GOOD, GOOD, 0.1, "l1"), ValueError, "norm = 'l1' is unknown: allowed is one of l2, linf"),
    ],
)
def test_bad_input(arguments: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lower_bound(*arguments)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("odeflow.numerics.memory.free_memory", lambda: 1000.0)
    with pytest.raises(ValueError, match=r"1000 x 1000 pairs need up to .* allowed are fewer examples"):
        lower_bound(np.zeros((1000, 1)), np.ones((1000, 1)), 0.1)
