"""Empirical risk minimisation as N grows: the fixed-point equations by other means, closed forms, limits, and drawn examples."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from odeflow import GaussianMixture, adversarial_error, classification_error, erm, optimal_classifier
from odeflow.erm import ProbitTeacher, optimal_epsilon, optimal_ridge, simulate, solve
from odeflow.erm.data import Data
from odeflow.erm.experiment import draw
from odeflow.erm.losses import LOSSES
from odeflow.erm.saddle import derivatives_at

UNEQUAL = GaussianMixture(p=0.7, rho=2.0, v1=1.0, v2=0.5)


def slope(loss: str, t: float) -> float:
    """The derivative of a loss, once more."""
    if loss == "logistic":
        return float(-1 / (1 + np.exp(t)))
    return t - 1 if loss == "squared" else -float(t < 1)


def curvature(loss: str, t: float) -> float:
    """The second derivative of a loss, 0 for the hinge."""
    small = float(np.exp(-abs(t)))
    return {"logistic": small / (1 + small) ** 2, "squared": 1.0, "hinge": 0.0}[loss]


def f_of(loss: str, x: float, V: float) -> float:
    """(prox(x) - x) / V by a root, with the sign of l'(prox)."""
    if loss == "hinge":
        t = x + V if x < 1 - V else max(x, 1.0)
    else:
        t = brentq(lambda t: t - x + V * slope(loss, t), x - V * (2 + abs(x)), x + V * (2 + abs(x)), xtol=1e-14)
    return (x - t) / V


def averaged(function: Any, breaks: tuple[float, ...] = ()) -> float:
    points = sorted({-9.0, -3.0, 0.0, 3.0, 9.0, *(min(max(x, -9.0), 9.0) for x in breaks)})
    return float(sum(quad(function, a, b, epsabs=1e-11, epsrel=1e-11, limit=200)[0] for a, b in pairwise(points)))


@pytest.mark.parametrize("loss", ["logistic", "hinge", "squared"])
@pytest.mark.parametrize(("tau", "epsilon", "alpha", "ridge"), [(0.5, 0.3, 2.0, 0.05), (0.05, 0.0, 0.6, 0.3)])
def test_teacher_fulfils_the_published_equations(
    loss: Any, tau: float, epsilon: float, alpha: float, ridge: float
) -> None:
    found = solve(ProbitTeacher(tau), alpha=alpha, ridge=ridge, loss=loss, epsilon=epsilon)
    m, q, V = (float(found[name]) for name in ("m", "q", "V"))
    V0, s, r = 1 - m**2 / q + tau**2, epsilon * q**0.5, q**0.5
    kinks = tuple((k + s) / r for k in (1.0, 1.0 - V)) if loss == "hinge" else ()

    def f(xi: float) -> float:  # of the label +1; that of -1 is the mirror image
        return -f_of(loss, r * xi - s, V)

    def Z(xi: float) -> float:
        return float(norm.cdf(m * xi / (q * V0) ** 0.5))

    m_hat = 2 * alpha * averaged(lambda xi: norm.pdf(xi) * f(xi) * norm.pdf(m * xi / r, scale=V0**0.5), kinks)
    q_hat = 2 * alpha * averaged(lambda xi: norm.pdf(xi) * Z(xi) * f(xi) ** 2, kinks)
    P_hat = 2 * alpha * epsilon / r * averaged(lambda xi: norm.pdf(xi) * Z(xi) * f(xi), kinks)

    def h(xi: float) -> float:
        x = r * xi - s
        if loss == "hinge":
            return 1 / V if 1 - V < x < 1 else 0.0
        second = curvature(loss, x + V * f(xi))
        return second / (1 + V * second)

    V_hat = 2 * alpha * averaged(lambda xi: norm.pdf(xi) * Z(xi) * h(xi), kinks)
    L = ridge + V_hat + P_hat
    assert m == pytest.approx(m_hat / L, rel=1e-7)
    assert q == pytest.approx((q_hat + m_hat**2) / L**2, rel=1e-7)
    assert pytest.approx(1 / L, rel=1e-7) == V


@pytest.mark.parametrize("loss", ["logistic", "hinge", "squared"])
def test_mixture_fulfils_its_equations(loss: Any) -> None:
    alpha, ridge, epsilon = 3.0, 0.05, 0.3
    found = solve(UNEQUAL, alpha=alpha, ridge=ridge, loss=loss, epsilon=epsilon)
    m, q, V, b = (float(found[name]) for name in ("m", "q", "V", "b"))
    totals = np.zeros(5)
    for y, share, v in ((1, 0.7, 1.0), (-1, 0.3, 0.5)):
        sd, centre = (v * q) ** 0.5, m - y * b - epsilon * q**0.5
        kinks = tuple((k - centre) / sd for k in (1.0, 1.0 - V * v))

        def f(xi: float, centre: float = centre, sd: float = sd, v: float = v) -> float:
            return f_of(loss, centre + sd * xi, V * v)

        mean = averaged(lambda xi, f=f: norm.pdf(xi) * f(xi), kinks)
        square = averaged(lambda xi, f=f: norm.pdf(xi) * f(xi) ** 2, kinks)
        tilt = averaged(lambda xi, f=f: norm.pdf(xi) * f(xi) * xi, kinks)
        totals += share * np.array([mean, y * mean, v * square, v**0.5 * tilt / q**0.5, 0.0])
    mean, bias, square, tilt, _ = alpha * totals
    L = ridge + tilt - epsilon * mean / q**0.5
    assert bias == pytest.approx(0, abs=1e-8)
    assert m == pytest.approx(-mean / L, rel=1e-7)  # rho/2 = 1
    assert q == pytest.approx((square + mean**2) / L**2, rel=1e-7)
    assert pytest.approx(1 / L, rel=1e-7) == V


def test_values_of_another_solver() -> None:
    found = solve(ProbitTeacher(), alpha=4.0, ridge=0.01, epsilon=0.3)
    values = [float(found[name]) for name in ("m", "q", "V", "error", "adversarial_error")]
    assert values == pytest.approx([4.95003348, 27.53196563, 3.07384761, 0.10762093, 0.26313307], rel=0, abs=5.1e-9)


@pytest.mark.parametrize(("alpha", "ridge"), [(0.5, 0.01), (1.0, 1.0), (8.0, 0.0)])
def test_ridge_regression_has_a_closed_form(alpha: float, ridge: float) -> None:
    """V from one quadratic equation, and the overlaps from it (no attack, no bias, rho = 2, v = 1)."""
    found = solve(GaussianMixture(), alpha=alpha, ridge=ridge, loss="squared", bias=False)
    c = ridge - 1 + alpha
    V = (-c + (c**2 + 4 * ridge) ** 0.5) / (2 * ridge) if ridge else 1 / (alpha - 1)
    k = alpha * V / (1 + V)
    m = k / (1 + k)
    # q = m^2 + s^2 with s^2 = V^2 alpha <f^2>, f = (m + sqrt(q) xi - 1)/(1 + V)
    a = alpha * V**2 / (1 + V) ** 2
    q = (m**2 + a * (1 - m) ** 2) / (1 - a)
    assert [float(found[name]) for name in ("V", "m", "q")] == pytest.approx([V, m, q], rel=1e-9)


@pytest.mark.parametrize("data", [UNEQUAL, ProbitTeacher(0.3)])
@pytest.mark.parametrize("loss", ["logistic", "hinge", "squared"])
def test_hessian_is_the_derivative_of_the_gradient(data: Data, loss: str) -> None:
    points = {name: np.array([getattr(data, name)]) for name in data.__dataclass_fields__}
    columns = {"alpha": np.array([2.0]), "epsilon": np.array([0.2]), "ridge": np.array([0.1])}
    theta, h = np.array([[1.2, 0.8, -0.3 if "p" in points else 0.0, 0.9]]), 1e-5
    H = derivatives_at(points, LOSSES[loss], columns, theta).hessian[0]
    for i in range(4):
        step = h * np.eye(4)[i]
        ahead, behind = (
            derivatives_at(points, LOSSES[loss], columns, theta + sign * step).gradient[0] for sign in (1, -1)
        )
        assert (ahead - behind) / (2 * h) == pytest.approx(H[i], rel=1e-7, abs=1e-8)


CASES = [
    (UNEQUAL, {"loss": "logistic", "alpha": 3.0, "epsilon": 0.3, "ridge": 0.05}),
    (UNEQUAL, {"loss": "squared", "alpha": 0.6, "epsilon": 0.3, "ridge": 0.05}),
    (
        GaussianMixture(0.3, 3.0, 0.5, 2.0),
        {"loss": "logistic", "alpha": 1.0, "epsilon": 0.8, "ridge": 0.01, "bias": False},
    ),
    (ProbitTeacher(0.2), {"loss": "logistic", "alpha": 2.0, "epsilon": 0.2, "ridge": 0.02}),
    (UNEQUAL, {"loss": "hinge", "alpha": 2.0, "epsilon": 0.3, "ridge": 0.2}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("data", "options"), CASES)
def test_minimisers_of_drawn_examples_have_the_overlaps_of_the_theory(data: Data, options: dict[str, Any]) -> None:
    """Four standard errors and 4/N, the size of the correction; the theory of another v2, alpha or epsilon is off by more."""
    N, runs = (100, 16) if options["loss"] == "hinge" else (400, 30)
    found, theory = simulate(data, N=N, runs=runs, rng=1, **options), solve(data, **options)
    for name in ("m", "q", "R", "b", "training_loss", "error", "adversarial_error"):
        if name in theory:
            mean, error = float(found[name].mean()), float(found[name].std(ddof=1)) / runs**0.5
            assert abs(mean - float(theory[name])) < 4 * error + 4 / N * (abs(float(theory[name])) + 0.1), name


def test_swapping_the_classes_turns_the_bias_round() -> None:
    options: dict[str, Any] = {"alpha": 2.0, "ridge": 0.1, "epsilon": 0.2}
    one, other = solve(UNEQUAL, **options), solve(GaussianMixture(0.3, 2.0, 0.5, 1.0), **options)
    assert float(other.b) == pytest.approx(-float(one.b), rel=1e-8)
    assert float(other.m) == pytest.approx(float(one.m), rel=1e-9)


def test_scaling_the_inputs_scales_the_weights() -> None:
    """Inputs and attack k times as large, with k^2 times the ridge: weights 1/k as long, and the same errors."""
    k = 1.7
    one = solve(UNEQUAL, alpha=2.0, ridge=0.1, epsilon=0.2)
    other = solve(GaussianMixture(0.7, 2 * k, k**2, 0.5 * k**2), alpha=2.0, ridge=0.1 * k**2, epsilon=0.2 * k)
    assert float(other.q) == pytest.approx(float(one.q) / k**2, rel=1e-9)
    assert float(other.adversarial_error) == pytest.approx(float(one.adversarial_error), rel=1e-9)


def test_many_examples_give_the_optimal_classifier() -> None:
    """The logistic loss is that of the right model if the variances are equal: the error is above the least by O(1/alpha)."""
    mixture = GaussianMixture(p=0.7)
    excess = solve(mixture, alpha=[100.0, 1000.0, 10000.0], ridge=0.0).error.values - float(
        optimal_classifier(mixture).error
    )
    assert np.all(excess > 0)
    assert excess[:-1] / excess[1:] == pytest.approx([10, 10], rel=0.05)


def test_many_examples_and_the_best_training_epsilon_give_the_optimal_robust_classifier() -> None:
    mixture = GaussianMixture(p=0.7, rho=3.0)
    least = float(optimal_classifier(mixture, 0.5).adversarial_error)
    best = optimal_epsilon(mixture, alpha=[1e4, 1e5], test_epsilon=0.5, ridge=1e-3)
    excess = best.adversarial_error.values - least
    assert np.all(excess > 0)
    assert excess[0] / excess[1] == pytest.approx(10, rel=0.1)


def test_errors_are_those_of_the_same_classifier() -> None:
    found = solve(UNEQUAL, alpha=2.0, ridge=0.1, epsilon=0.2, test_epsilon=[0.0, 0.4])
    b = float(found.b) / float(found.q) ** 0.5
    assert float(found.error) == pytest.approx(classification_error(float(found.R), b, UNEQUAL), rel=1e-12)
    expected = adversarial_error(float(found.R), b, UNEQUAL, np.array([0.0, 0.4]))
    assert found.adversarial_error.values == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("data", [UNEQUAL, ProbitTeacher(0.4)])
def test_errors_of_attacks_that_keep_the_label_by_moving_examples(data: Data) -> None:
    """200,000 examples, each moved by epsilon along the part of w that is orthogonal to B."""
    from odeflow.erm.experiment import draw

    epsilon, N, count = 0.4, 5, 200_000
    found = solve(data, alpha=2.0, ridge=0.1, epsilon=0.2, test_epsilon=epsilon)
    R, b = float(found.R), (float(found.b) if "b" in found else 0.0) / float(found.q) ** 0.5
    X, y = draw(data, N, count, np.random.default_rng(3))
    w, across = np.zeros(N), np.zeros(N)
    w[0], w[1], across[1] = R, (1 - R**2) ** 0.5, 1.0
    before = X @ w - b
    wrong = y * ((X - epsilon * y[:, None] * across) @ w - b) <= 0
    guess = np.sign(before)
    flipped = guess * ((X - epsilon * guess[:, None] * across) @ w - b) <= 0
    shares = {
        "misclassification_error": wrong, "flipped_error": flipped, "boundary_error": wrong & (y * before > 0),
        "adversarial_error": y * before <= epsilon, "error": y * before <= 0,
    }  # fmt: skip
    for name, share in shares.items():
        p = float(share.mean())
        assert float(found[name]) == pytest.approx(p, abs=4 * (p * (1 - p) / count) ** 0.5), name


def test_arrays_are_dims_and_labelled_arrays_keep_theirs() -> None:
    best = optimal_ridge(ProbitTeacher(0.05), alpha=[2.0, 4.0], epsilon=0.1)
    again = solve(ProbitTeacher(0.05), alpha=best.alpha, ridge=best.ridge, epsilon=0.1)
    xr.testing.assert_allclose(again.adversarial_error.drop_vars("ridge"), best.adversarial_error, rtol=1e-9)
    assert solve(UNEQUAL, alpha=[1.0, 2.0], ridge=[0.1, 1.0], epsilon=0.1).m.dims == ("alpha", "ridge")


def test_a_point_does_not_depend_on_the_others() -> None:
    alone = solve(UNEQUAL, alpha=2.0, ridge=0.1, epsilon=0.2)
    among = solve(UNEQUAL, alpha=[0.3, 2.0, 50.0], ridge=[1e-3, 0.1], epsilon=0.2)
    assert float(among.q.sel(alpha=2.0, ridge=0.1)) == pytest.approx(float(alone.q), rel=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_the_solver_arrives_over_six_decades(loss: Any) -> None:
    alpha, ridge = np.geomspace(0.05, 500, 12), np.geomspace(1e-5, 1e3, 12)
    for data in (
        GaussianMixture(0.85, 1.0, 2.0, 0.4),
        GaussianMixture(0.2, 5.0, 0.3, 3.0),
        ProbitTeacher(),
        ProbitTeacher(3.0),
    ):
        for epsilon in (0.0, 0.2):
            found = solve(data, alpha=alpha, ridge=ridge, epsilon=epsilon, loss=loss)
            assert np.all(found.status == 0)
            assert np.all(np.diff(found.q, axis=1) < 0)  # a larger ridge, shorter weights


@pytest.mark.parametrize("loss", ["logistic", "squared"])
def test_under_too_strong_an_attack_the_weights_are_exactly_zero(loss: Any) -> None:
    mixture = GaussianMixture(p=0.7, rho=3.0)
    found = erm.simulate(mixture, N=50, alpha=4.0, ridge=0.1, epsilon=1.9, runs=3, rng=1, loss=loss)
    assert np.all(found.q == 0)
    assert np.all(np.isnan(found.R))
    np.testing.assert_allclose(found.error, 0.3)  # the constant label
    np.testing.assert_allclose(found.adversarial_error, 0.3)
    # and not under a weaker one, whose minimiser is found from the other side
    X, y = draw(mixture, 50, 200, np.random.default_rng(1))
    yX = y[:, None] * X
    for epsilon in (1.3, 1.9):
        one = erm.minimise(X, y, loss=loss, epsilon=epsilon, ridge=0.1)
        for direction in (yX.mean(axis=0), np.eye(50)[0]):
            w = one.w + 1e-3 * direction
            t = yX @ w - y * one.b - epsilon * np.linalg.norm(w)
            assert LOSSES[loss].value(t).sum() / 50 + 0.05 * w @ w >= one.objective - 1e-12
        assert (np.linalg.norm(one.w) == 0) == (epsilon > 1.5)


def test_labels_of_one_class_have_no_bias() -> None:
    with pytest.raises(ValueError, match=r"y has the label \+1 alone, of 3 examples"):
        erm.minimise(np.ones((3, 2)), [1, 1, 1], ridge=100.0)
    assert erm.minimise(np.ones((3, 2)), [1, 1, 1], ridge=100.0, bias=False).gap < 1e-6
    with pytest.raises(TypeError, match="bias = None is not a bool"):
        erm.solve(GaussianMixture(), alpha=1.0, ridge=1.0, bias=None)  # type: ignore[arg-type]
