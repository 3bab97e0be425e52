"""Attacks in field space, against the same attacks in R^N and a dense search of the budget."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import erf

from odeflow.order_parameters.committee.attacks import attack, attack_scratch, is_exact, output, worst_output
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD, WORST, Attack
from odeflow.order_parameters.committee.units import ERF, RELU

Array = npt.NDArray[np.float64]
KINDS = pytest.mark.parametrize("kind", [ERF, RELU])
UNITS = pytest.mark.parametrize("K", [1, 2, 3, 4])


def g(kind: int, x: Array) -> Array:
    return np.maximum(x, 0) if kind == RELU else np.asarray(erf(x / math.sqrt(2)))


def slopes(kind: int, x: Array) -> Array:
    return np.where(x > 0, 1.0, 0.0) if kind == RELU else math.sqrt(2 / math.pi) * np.exp(-x * x / 2)


def attacked(kind: int, x: Array, Q: Array, c: Array, b: float, tau: float, epsilon: float, how: Attack) -> Array:
    d = np.full(c.size, np.nan)
    attack(kind, x, Q, c, b, tau, epsilon, how, np.full(attack_scratch(c.size), np.nan), d)
    return d


def worst(kind: int, x: Array, Q: Array, c: Array, b: float, sign: float, epsilon: float) -> tuple[float, Array]:
    d = np.full(c.size, np.nan)
    value = worst_output(kind, x, Q, c, b, sign, epsilon, np.full(attack_scratch(c.size), np.nan), d)
    return value, d


def in_input_space(
    kind: int, w: Array, xi: Array, theta: Array, c: Array, b: float, tau: float, epsilon: float, how: Attack
) -> Array:
    """Return the move in R^N: signed gradient steps of the loss by the input, each projected to the ball."""
    moved = np.zeros(xi.size)
    for _ in range(how.steps if how.kind == PGD else 1):
        x = w @ (xi + moved) - theta
        e = b + c @ g(kind, x) - tau if how.kind != MARGIN else -tau
        gradient = (c * slopes(kind, x)) @ w
        length = np.linalg.norm(gradient)
        step = how.step * epsilon if how.kind == PGD else epsilon
        moved = moved + (step * np.sign(e) * gradient / length if length > 0 else 0.0)
        moved *= min(1.0, epsilon / max(float(np.linalg.norm(moved)), 1e-300))
    return moved


@KINDS
@UNITS
@pytest.mark.parametrize("how", [Attack(FGSM, 1, 1.0), Attack(MARGIN, 1, 1.0), Attack(PGD, 7, 0.4)])
def test_attacks_in_field_space_are_those_in_input_space(kind: int, K: int, how: Attack) -> None:
    rng = np.random.default_rng(K)
    for trial in range(40):
        w = rng.standard_normal((K, 30)) * rng.choice([0.1, 0.4])
        xi, theta, c = rng.standard_normal(30), rng.standard_normal(K) / 2, rng.standard_normal(K)
        tau = rng.choice([-1.0, 1.0, 0.3])
        arguments = (c, 0.1, tau, 0.8, how)
        d = attacked(kind, w @ xi - theta, w @ w.T, *arguments)
        np.testing.assert_allclose(
            d @ w, in_input_space(kind, w, xi, theta, *arguments), atol=1e-12, err_msg=str(trial)
        )


def test_pgd_of_one_whole_step_is_fgsm_and_the_margin_turns_round_where_the_output_overshoots() -> None:
    x, Q, c = np.array([0.8, 0.6]), np.array([[1.0, 0.2], [0.2, 0.7]]), np.array([1.5, 1.2])
    fgsm, margin, pgd = (
        attacked(ERF, x, Q, c, 0.0, 1.0, 0.3, how)
        for how in (Attack(FGSM, 1, 1.0), Attack(MARGIN, 1, 1.0), Attack(PGD, 1, 1.0))
    )
    assert output(ERF, x, c, 0.0) > 1
    np.testing.assert_allclose(pgd, fgsm, rtol=1e-14)
    np.testing.assert_allclose(margin, -fgsm, rtol=1e-14)
    assert fgsm @ Q @ fgsm == pytest.approx(0.09, rel=1e-14)


@pytest.mark.parametrize("how", [Attack(FGSM, 1, 1.0), Attack(MARGIN, 1, 1.0), Attack(PGD, 5, 0.4)])
def test_where_no_unit_of_relu_is_active_nothing_is_moved(how: Attack) -> None:
    x, Q = np.array([-0.1, -0.3]), np.eye(2)
    assert not attacked(RELU, x, Q, np.ones(2), 0.5, 1.0, 0.4, how).any()
    # two units that cancel have no gradient either
    parallel = np.array([[1.0, 1.0], [1.0, 1.0]])
    assert not attacked(RELU, np.ones(2), parallel, np.array([1.0, -1.0]), 0.5, 1.0, 0.4, how).any()


def test_far_out_where_the_slope_of_erf_underflows_the_direction_is_that_of_the_nearer_unit() -> None:
    x, Q, c = np.array([50.0, 55.0]), np.array([[1.0, 0.2], [0.2, 0.7]]), np.array([1.0, -1.0])
    d = attacked(ERF, x, Q, c, 0.0, -1.0, 0.3, Attack(FGSM, 1, 1.0))
    np.testing.assert_allclose(d, [0.3, 0.0], atol=1e-15)


@KINDS
@pytest.mark.parametrize("K", [1, 2])
def test_the_worst_output_is_that_of_a_dense_search(kind: int, K: int) -> None:
    rng = np.random.default_rng(10 + K)
    angles, radii = np.linspace(0, 2 * np.pi, 2001), np.linspace(0, 1, 41)[:, None]
    disc = np.stack([(radii * np.cos(angles)).ravel(), (radii * np.sin(angles)).ravel()], axis=1)
    for trial in range(60):
        w = rng.standard_normal((K, 2)) * rng.choice([0.3, 1.0, 4.0])
        if trial % 10 == 0 and K == 2:
            w[1] = w[0] * rng.choice([-2.0, 1.0])  # parallel
        x, c = rng.standard_normal(K) * rng.choice([0.3, 1.5]), rng.standard_normal(K)
        epsilon, sign = rng.choice([0.1, 0.5, 2.0]), rng.choice([-1.0, 1.0])
        value, d = worst(kind, x, w @ w.T, c, 0.1, sign, epsilon)
        fields = x + epsilon * disc @ w.T
        searched = np.max(sign * (0.1 + g(kind, fields) @ c))
        # a point of the grid is at most this far away, and g' <= 1
        off = epsilon * (0.5 / 40 + np.pi / 2000) * np.abs(c) @ np.linalg.norm(w, axis=1)
        assert searched - 1e-12 <= value <= searched + off, trial
        assert np.linalg.norm(d @ w) <= epsilon * (1 + 1e-12)
        assert value == pytest.approx(sign * (0.1 + c @ g(kind, x + w @ (d @ w))), abs=1e-12)


@KINDS
@pytest.mark.parametrize("K", [2, 3, 4])
def test_no_move_that_is_drawn_does_better_than_the_worst(kind: int, K: int) -> None:
    """In 200,000 moves on and in the ball the largest output comes near; a climb finds it too, at this size."""
    rng = np.random.default_rng(20 + K)
    for trial in range(15):
        w = rng.standard_normal((K, K + 2)) / 2
        x, c, epsilon = rng.standard_normal(K), rng.standard_normal(K), 0.5
        moves = rng.standard_normal((100_000, K + 2))
        moves *= epsilon / np.linalg.norm(moves, axis=1)[:, None]
        moves[::10] *= rng.random((10_000, 1))
        value, _ = worst(kind, x, w @ w.T, c, 0.0, 1.0, epsilon)
        values = g(kind, x + moves @ w.T) @ c
        best = moves[np.argmax(values)]
        for size in 0.3 * epsilon * 0.7 ** np.arange(40):  # and a search nearer and nearer the best of them
            near = best + size * rng.standard_normal((300, K + 2)) / math.sqrt(K + 2)
            near *= np.minimum(1, epsilon / np.linalg.norm(near, axis=1))[:, None]
            near_values = g(kind, x + near @ w.T) @ c
            if np.max(near_values) > np.max(values):
                best, values = near[np.argmax(near_values)], near_values
        assert np.max(values) - 1e-9 <= value <= np.max(values) + 1e-4, trial


@KINDS
@UNITS
def test_the_worst_case_is_worse_than_every_other_attack(kind: int, K: int) -> None:
    rng = np.random.default_rng(30 + K)
    others = [Attack(FGSM, 1, 1.0), Attack(MARGIN, 1, 1.0), Attack(PGD, 1, 1.0), Attack(PGD, 20, 0.2)]

    def loss(how: Attack, x: Array, Q: Array, c: Array, tau: float) -> float:
        d = attacked(kind, x, Q, c, 0.2, tau, 0.7, how)
        return float((0.2 + c @ g(kind, x + Q @ d) - tau) ** 2 / 2)

    stronger = 0
    for _ in range(60):
        w = rng.standard_normal((K, K)) * rng.choice([0.5, 1.5])
        point = rng.standard_normal(K), w @ w.T, rng.standard_normal(K), rng.choice([-1.0, 1.0])
        losses = [loss(how, *point) for how in others]
        strongest = loss(Attack(WORST, 1, 1.0), *point)
        assert strongest >= max(losses) - 1e-11
        stronger += strongest > losses[0] + 1e-6
    # FGSM turns at one point for all, goes the wrong way round the label, and wakes no unit of ReLU
    assert stronger >= (1 if kind == ERF and K == 1 else 6)


def test_what_is_exact_is_said() -> None:
    assert [is_exact(ERF, K) for K in (1, 2, 3)] == [True, True, False]
    assert [is_exact(RELU, K) for K in (2, 6, 7)] == [True, True, False]


def test_beyond_six_units_of_relu_the_climb_is_near_the_exact_worst_case() -> None:
    """Seven units of which one has no output weight are six: the climb against the search of all faces."""
    rng = np.random.default_rng(40)
    gaps = []
    for _ in range(30):
        w = rng.standard_normal((7, 9)) / 3
        x, c = rng.standard_normal(7), rng.standard_normal(7)
        c[6] = 0.0
        Q = w @ w.T
        exact, _ = worst(RELU, x[:6], np.ascontiguousarray(Q[:6, :6]), c[:6], 0.0, 1.0, 0.5)
        climbed, d = worst(RELU, x, Q, c, 0.0, 1.0, 0.5)
        assert d @ Q @ d <= 0.25 * (1 + 1e-12)
        gaps.append(exact - climbed)
    assert min(gaps) > -1e-12
    assert np.median(gaps) < 1e-6
