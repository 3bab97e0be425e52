"""Errors of two-layer networks of given order parameters: closed forms, limits, and drawn examples that are attacked."""

import math
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erf
from scipy.stats import norm

from odeflow.order_parameters.committee.attacks import attack_scratch, worst_output
from odeflow.order_parameters.committee.errors import (
    adversarial_error,
    adversarial_error_bound,
    clean_error,
    fgsm_error,
)
from odeflow.order_parameters.committee.quadrature.sums import MARGIN, PGD, WORST, Attack
from odeflow.order_parameters.committee.units import ERF, RELU

Array = npt.NDArray[np.float64]

PGD_STEPS, PGD_STEP = 4, 0.4
STATE: dict[str, Any] = {
    "M": np.array([[0.5, -0.5], [0.1, -0.1]]),
    "Q": np.array([[1.2, 0.3], [0.3, 0.8]]),
    "c": np.array([1.0, 0.8]),
    "theta": np.array([0.1, -0.2]),
    "b": 0.05,
    "p": np.array([0.7, 0.3]),
    "v": np.array([1.0, 0.8]),
    "tau": np.array([1.0, -1.0]),
}


def drawn_state(rng: np.random.Generator, K: int, clusters: int, scale: float = 1.0) -> dict[str, Any]:
    weights = rng.standard_normal((K, K + 1)) * scale / math.sqrt(K + 1)
    return {
        "M": rng.normal(0, 0.7, (K, clusters)),
        "Q": weights @ weights.T,
        "c": rng.normal(0, 1, K),
        "theta": rng.normal(0, 0.5, K),
        "b": rng.normal(0, 0.4),
        "p": rng.dirichlet(np.ones(clusters)),
        "v": rng.uniform(0.2, 1.5, clusters),
        "tau": np.array([1.0, -1.0, 1.0, -1.0])[:clusters],
    }


def output(kind: int, x: Array, c: Array, b: float) -> Array:
    return np.asarray(b + (erf(x / math.sqrt(2)) if kind == ERF else np.maximum(x, 0)) @ c)


def drawn_errors(
    kind: int, state: dict[str, Any], epsilon: float, n: int, rng: np.random.Generator
) -> dict[str, Array]:
    """Return of n drawn examples which are wrong: clean, under both attacks, and for K <= 2 by search over the disc."""
    Q, c, b = state["Q"], state["c"], state["b"]
    L = np.linalg.cholesky(Q)
    a = rng.choice(len(state["p"]), n, p=state["p"])
    tau = state["tau"][a]
    x = state["M"].T[a] - state["theta"] + np.sqrt(state["v"][a])[:, None] * (rng.standard_normal((n, len(c))) @ L.T)
    phi = output(kind, x, c, b)
    u = c * (np.exp(-x * x / 2) if kind == ERF else x > 0)
    length = np.sqrt(np.einsum("nk,kl,nl->n", u, Q, u))
    step = epsilon * u / np.where(length > 0, length, 1.0)[:, None] @ Q
    found = {
        "clean": tau * phi <= 0,
        "fgsm": tau * output(kind, x + np.sign(phi - tau)[:, None] * step, c, b) <= 0,
        "margin": tau * output(kind, x - tau[:, None] * step, c, b) <= 0,
    }
    d = np.zeros_like(x)
    for _ in range(PGD_STEPS):
        moved = x + d @ Q
        u = c * (np.exp(-moved * moved / 2) if kind == ERF else moved > 0)
        length = np.sqrt(np.einsum("nk,kl,nl->n", u, Q, u))
        side = np.sign(output(kind, moved, c, b) - tau)
        d += PGD_STEP * epsilon * (side / np.where(length > 0, length, 1.0))[:, None] * u
        d /= np.maximum(1.0, np.sqrt(np.einsum("nk,kl,nl->n", d, Q, d)) / epsilon)[:, None]
    found["pgd"] = tau * output(kind, x + d @ Q, c, b) <= 0
    if len(c) <= 2:
        worst = found["clean"] | found["margin"]
        for angle in np.linspace(0, 2 * math.pi, 160, endpoint=False):
            direction = epsilon * np.array([math.cos(angle), math.sin(angle)])[: len(c)]
            for part in (1.0,) if kind == ERF else (0.25, 0.5, 0.75, 1.0):
                worst |= tau * output(kind, x + part * direction @ L.T, c, b) <= 0
        found["worst"] = worst
    return found


def test_the_check_values() -> None:
    assert float(clean_error(ERF, **STATE)) == pytest.approx(0.329642, abs=5e-7)
    assert float(fgsm_error(ERF, **STATE, epsilon=0.3)) == pytest.approx(0.447663, abs=5e-7)
    assert float(adversarial_error(ERF, **STATE, epsilon=0.3)) == pytest.approx(0.448088, abs=5e-7)


@pytest.mark.parametrize("kind", [ERF, RELU])
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_they_are_the_shares_of_drawn_examples(kind: int, K: int) -> None:
    rng = np.random.default_rng(10 * K + kind)
    n, tolerance = 20_000, 1e-6 if K <= 2 else 1e-3
    deviations = []
    for epsilon, scale in ((0.3, 1.0), (1.0, 2.0), (0.1, 0.5))[: 3 if K <= 3 else 1]:
        state = drawn_state(rng, K, 3, scale)
        found = {
            "clean": clean_error(kind, **state, tolerance=tolerance),
            "fgsm": fgsm_error(kind, **state, epsilon=epsilon, tolerance=tolerance),
            "margin": fgsm_error(kind, **state, epsilon=epsilon, how=Attack(MARGIN, 1, 1.0), tolerance=tolerance),
        }
        found["pgd"] = fgsm_error(
            kind, **state, epsilon=epsilon, how=Attack(PGD, PGD_STEPS, PGD_STEP), tolerance=max(tolerance, 1e-4)
        )
        if K <= 2:
            found["worst"] = adversarial_error(kind, **state, epsilon=epsilon, tolerance=tolerance)
        for name, wrong in drawn_errors(kind, state, epsilon, n, rng).items():
            share = float(found[name])
            deviations.append((np.mean(wrong) - share) / math.sqrt(max(share * (1 - share), 1 / n) / n))
    assert np.max(np.abs(deviations)) < 4
    assert np.sqrt(np.mean(np.square(deviations))) < 1.8


@numba.njit(error_model="numpy")
def _largest(x, Q, c, b, sign, epsilon, out):  # type: ignore[no-untyped-def]
    work, d = np.empty(attack_scratch(c.size)), np.empty(c.size)
    for i in range(len(x)):
        out[i] = worst_output(RELU, x[i], Q, c, b, sign[i], epsilon, work, d)


@pytest.mark.parametrize("K", [3, 4])
def test_of_more_relu_units_the_worst_case_is_that_of_drawn_examples(K: int) -> None:
    """Each example's worst move is found by itself; that it is the worst is a test of the attacks."""
    rng = np.random.default_rng(K)
    n, epsilon, deviations = 40_000, 0.8, []
    for scale in (0.7, 1.5):
        state = drawn_state(rng, K, 3, scale)
        L = np.linalg.cholesky(state["Q"])
        a = rng.choice(3, n, p=state["p"])
        x = state["M"].T[a] - state["theta"]
        x += np.sqrt(state["v"][a])[:, None] * (rng.standard_normal((n, K)) @ L.T)
        largest = np.empty(n)
        _largest(x, state["Q"], state["c"], state["b"], -state["tau"][a], epsilon, largest)
        S = float(adversarial_error(RELU, **state, epsilon=epsilon, tolerance=3e-4))
        error = math.sqrt(S * (1 - S) / n)
        deviations.append((np.mean(largest >= 0) - S) / error)
        assert float(clean_error(RELU, **state, tolerance=1e-3)) + 20 * error < S
    assert np.max(np.abs(deviations)) < 4


@pytest.mark.parametrize("kind", [ERF, RELU])
def test_the_tolerance_is_kept(kind: int) -> None:
    rng = np.random.default_rng(3)
    states = [drawn_state(rng, 2, 2) for _ in range(40)]
    batch = {name: np.array([state[name] for state in states]) for name in states[0]}
    for tolerance in (1e-4, 1e-7):
        for epsilon in (0.3, 1.0):
            for function in (fgsm_error, adversarial_error):
                found = function(kind, **batch, epsilon=epsilon, tolerance=tolerance)
                best = function(kind, **batch, epsilon=epsilon, tolerance=1e-11)
                np.testing.assert_allclose(found, best, rtol=0, atol=tolerance)


@pytest.mark.parametrize("c", [(0.8, 0.8), (-0.5, -0.5)])
@pytest.mark.parametrize("epsilon", [0.0, 0.4])
def test_two_erf_units_of_one_weight_without_thresholds_are_a_line(c: tuple[float, float], epsilon: float) -> None:
    state = STATE | {"c": np.array(c), "theta": np.zeros(2), "b": 0.0}
    margin = np.sign(c[0]) * state["tau"] * state["M"].sum(axis=0) / math.sqrt(state["Q"].sum())
    expected = np.sum(state["p"] * norm.cdf(-(margin - epsilon) / np.sqrt(state["v"])))
    assert float(adversarial_error(ERF, **state, epsilon=epsilon, tolerance=1e-9)) == pytest.approx(expected, abs=2e-9)


def test_one_relu_unit_is_a_perceptron() -> None:
    M, Q, c, theta, b, v, epsilon = 0.4, 1.3, -1.2, 0.2, 0.5, 0.7, 0.3
    # tau = 1: wrong where c max(x, 0) <= -b, so above a threshold of x
    threshold = -b / c
    state: dict[str, Any] = dict(zip(STATE, ([[M]], [[Q]], [c], [theta], b, [1.0], [v], [1.0]), strict=True))
    for radius, found in (
        (0.0, clean_error(RELU, **state)),
        (epsilon, adversarial_error(RELU, **state, epsilon=epsilon)),
    ):
        expected = norm.sf((threshold + theta - M) / math.sqrt(v * Q) - radius / math.sqrt(v))
        assert float(found) == pytest.approx(expected, abs=1e-12)


def test_three_relu_units_in_a_corner() -> None:
    """With equal positive weights and independent fields, all must be off or below a simplex: seen from far, half-spaces."""
    state: dict[str, Any] = {
        "M": np.zeros((3, 1)), "Q": np.eye(3), "c": np.ones(3), "theta": np.array([0.0, 0.0, 0.0]), "b": 0.0,
        "p": [1.0], "v": [1.0], "tau": [1.0],
    }  # fmt: skip
    # an output of 0 is an error: wrong is the octant where all units are off
    assert float(clean_error(RELU, **state, tolerance=1e-7)) == pytest.approx(1 / 8, abs=1e-7)
    # its neighbourhood, by Steiner's formula for the Gaussian measure: faces, edges and the vertex, each a product
    r = 0.5
    side = norm.cdf(r) - 0.5
    wedge = (1 - math.exp(-r * r / 2)) / 4
    ball = (2 * norm.cdf(r) - 1 - 2 * r * norm.pdf(r)) / 8
    expected = 1 / 8 + 3 * side / 4 + 3 * wedge / 2 + ball
    assert float(adversarial_error(RELU, **state, epsilon=r, tolerance=1e-6)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("kind", "K"), [(ERF, 1), (ERF, 2), (RELU, 1), (RELU, 2), (RELU, 3)])
def test_limits_and_order_of_epsilon(kind: int, K: int) -> None:
    rng = np.random.default_rng(K)
    tolerance = 1e-8 if K <= 2 else 1e-5
    for _ in range(4):
        state = drawn_state(rng, K, 2)
        epsilon = np.array([0.0, 0.01, 0.2, 1.0, 3.0, 60.0])
        clean = float(clean_error(kind, **state, tolerance=tolerance))
        fgsm = fgsm_error(kind, **state, epsilon=epsilon, tolerance=tolerance)
        worst = adversarial_error(kind, **state, epsilon=epsilon, tolerance=tolerance)
        assert fgsm[0] == pytest.approx(clean, abs=2 * tolerance)
        assert worst[0] == pytest.approx(clean, abs=2 * tolerance)
        assert np.all(fgsm <= worst + 2 * tolerance)
        assert np.all(np.diff(worst) >= -2 * tolerance)
        # from afar every label that the output can take anywhere is within reach
        ends = [state["b"] + (np.abs(state["c"]).sum() if kind == ERF else np.inf) * side for side in (-1, 1)]
        if kind == RELU:
            low, high = state["c"].min(), state["c"].max()
            ends = [state["b"] if low >= 0 else -np.inf, state["b"] if high <= 0 else np.inf]
        can_be_wrong = np.array([ends[0] <= 0, ends[1] >= 0])
        assert worst[-1] == pytest.approx(np.sum(state["p"] * can_be_wrong), abs=2 * tolerance)


@pytest.mark.parametrize("kind", [ERF, RELU])
def test_constant_networks_and_units_without_say(kind: int) -> None:
    both: dict[str, Any] = {"epsilon": 0.5}
    for b, expected in ((2.0, 0.3), (-2.0, 0.7), (0.0, 1.0)):
        for change in ({"c": np.zeros(2)}, {"Q": np.zeros((2, 2)), "M": np.zeros((2, 2)), "theta": np.zeros(2)}):
            state = STATE | {"b": b} | change
            for found in (clean_error(kind, **state), fgsm_error(kind, **state, **both)):
                assert float(found) == pytest.approx(expected, abs=1e-6)
            assert float(adversarial_error(kind, **state, **both)) == pytest.approx(expected, abs=1e-6)
    one = STATE | {"M": STATE["M"][:1], "Q": STATE["Q"][:1, :1], "c": STATE["c"][:1], "theta": STATE["theta"][:1]}
    silent = STATE | {"c": np.array([1.0, 0.0])}
    for function in (fgsm_error, adversarial_error):
        assert float(function(kind, **silent, **both)) == float(function(kind, **one, **both))


def test_relu_units_that_are_off_are_not_attacked() -> None:
    """Far in the corner where no unit is on FGSM does nothing, but the worst case of a long attack does."""
    state = STATE | {"M": np.full((2, 2), -20.0), "b": 0.5, "c": np.array([-1.0, -0.5])}
    assert float(fgsm_error(RELU, **state, epsilon=30.0)) == pytest.approx(0.3, abs=1e-6)
    assert float(adversarial_error(RELU, **state, epsilon=30.0)) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("kind", [ERF, RELU])
def test_singular_overlaps_are_the_limit_of_regular_ones(kind: int) -> None:
    for sign in (1.0, -1.0):
        weights = np.array([[1.0, 0.3], [0.8 * sign, 0.24 * sign]])
        state = STATE | {"Q": weights @ weights.T, "c": np.array([1.0, -0.6])}
        near = state | {"Q": state["Q"] + 1e-7 * np.eye(2)}
        for function in (fgsm_error, adversarial_error):
            found = function(kind, **state, epsilon=0.4, tolerance=1e-6)
            assert float(found) == pytest.approx(float(function(kind, **near, epsilon=0.4, tolerance=1e-6)), abs=1e-4)


def test_leading_axes_broadcast_and_failed_states_stay_nan() -> None:
    b = np.array([[0.05], [np.nan], [0.5]])
    epsilon = np.array([0.0, 0.3])
    found = adversarial_error(ERF, **STATE | {"b": b}, epsilon=epsilon)
    assert found.shape == (3, 2)
    assert np.array_equal(np.isnan(found), [[False] * 2, [True] * 2, [False] * 2])
    assert found[2, 1] == adversarial_error(ERF, **STATE | {"b": 0.5}, epsilon=0.3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epsilon": -0.1}, r"epsilon = -0\.1 is out of range: allowed is >= 0"),
        ({"tau": [1.0, 0.5]}, r"tau = 0\.5 is out of range: allowed is -1 or 1"),
        ({"v": [1.0, 0.0]}, r"v = 0\.0 is out of range: allowed is > 0"),
        ({"tolerance": 1.0}, r"tolerance = 1\.0 is out of range"),
        ({"Q": np.eye(3)}, r"Q has shape \(3, 3\): allowed is \(\.\.\., 2, 2\)"),
        ({"b": np.zeros(3), "c": np.zeros((2, 2))}, "leading axes do not broadcast"),
        ({"kind": 7}, "kind = 7 is unknown"),
        ({"M": 1.0}, r"M has shape \(\): allowed is \(\.\.\., units, clusters\)"),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        adversarial_error(**{"kind": ERF, **STATE, "epsilon": 0.1} | change)


def test_more_than_two_erf_units_have_no_exact_worst_case() -> None:
    state = drawn_state(np.random.default_rng(0), 3, 2)
    with pytest.raises(ValueError, match="3 erf units is not known: allowed are 1 and 2, or ReLU units"):
        adversarial_error(ERF, **state, epsilon=0.1)
    with pytest.raises(ValueError, match="for the worst case there is adversarial_error"):
        fgsm_error(ERF, **state, epsilon=0.1, how=Attack(WORST, 1, 1.0))


def test_the_bound_of_two_erf_units_is_the_exact_error_where_the_boundary_is_flat_enough() -> None:
    """Two independent computations: along the offset curve, and by climbs from each line."""
    rng = np.random.default_rng(5)
    states = [drawn_state(rng, 2, 2) for _ in range(20)]
    batch = {name: np.array([state[name] for state in states]) for name in states[0]}
    for epsilon in (0.1, 0.3, 1.0):
        exact = adversarial_error(ERF, **batch, epsilon=epsilon, tolerance=1e-8)
        bound = adversarial_error_bound(ERF, **batch, epsilon=epsilon, tolerance=1e-7)
        assert np.all(bound <= exact + 1e-7)
        if epsilon < 1:
            np.testing.assert_allclose(bound, exact, rtol=0, atol=2e-7)


def test_the_bound_of_three_erf_units_lies_between_the_attack_of_the_margin_and_that_of_two() -> None:
    rng = np.random.default_rng(6)
    state = drawn_state(rng, 3, 2)
    attacked = fgsm_error(ERF, **state, epsilon=0.5, how=Attack(MARGIN, 1, 1.0), tolerance=1e-5)
    bound = adversarial_error_bound(ERF, **state, epsilon=0.5, tolerance=1e-5)
    assert attacked + 1e-4 < bound < 1
    # a third unit that hardly speaks changes little
    state["c"][2] = 1e-6
    two = {name: state[name] for name in ("b", "p", "v", "tau")} | {"M": state["M"][:2], "Q": state["Q"][:2, :2]}
    two |= {"c": state["c"][:2], "theta": state["theta"][:2]}
    found = adversarial_error_bound(ERF, **state, epsilon=0.5, tolerance=1e-6)
    assert float(found) == pytest.approx(float(adversarial_error(ERF, **two, epsilon=0.5)), abs=1e-5)


@pytest.mark.parametrize("epsilon", [0.5, 2.0])
def test_two_steep_erf_units_are_a_corner(epsilon: float) -> None:
    """Right is the quadrant where both units are on, or wrong that where both are off: the offset curve turns back, or is round."""
    state: dict[str, Any] = {
        "M": np.zeros((2, 1)), "Q": 1e6 * np.eye(2), "c": np.ones(2), "theta": np.zeros(2), "b": -1.0,
        "p": [1.0], "v": [1.0], "tau": [1.0],
    }  # fmt: skip
    inner = 1 - norm.sf(epsilon) ** 2
    assert float(adversarial_error(ERF, **state, epsilon=epsilon, tolerance=1e-8)) == pytest.approx(inner, abs=1e-8)
    state["b"] = 1.0
    outer = 1 / 4 + (norm.cdf(epsilon) - 0.5) + (1 - math.exp(-(epsilon**2) / 2)) / 4
    # the corner itself is rounded over the width of the units, 1/1000
    assert float(adversarial_error(ERF, **state, epsilon=epsilon)) == pytest.approx(outer, abs=1e-4)
