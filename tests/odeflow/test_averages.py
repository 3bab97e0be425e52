"""Closed averages against the integrals they stand for, and the lanes' version against the plain one."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit
from scipy import integrate as quadrature
from scipy.special import erf, ndtr, owens_t

from odeflow.numerics.compilation import LANES
from odeflow.order_parameters.perceptron.averages import (
    TERMS,
    delta,
    delta_derivative,
    delta_squared,
    g_prime,
    lane_averages,
    lane_constants,
)

means = st.floats(-6, 6)
variances = st.floats(np.log(1e-2), np.log(1e2)).map(lambda x: float(np.exp(x)))
labels = st.sampled_from([1.0, -1.0])


def gauss_average(power: int, m: float, v: float, tau: float) -> float:
    """Average of ((tau - erf x) g'(x))^power by adaptive quadrature, where the Gaussian and g' have their weight."""
    root = np.sqrt(v)

    def integrand(x: float) -> float:
        update = (tau - erf(x)) * 2 / np.sqrt(np.pi) * np.exp(-x * x)
        return float(update**power * np.exp(-((x - m) ** 2) / (2 * v)) / np.sqrt(2 * np.pi * v))

    centre, width = m / (1 + 2 * power * v), root / np.sqrt(1 + 2 * power * v)
    # rounded, so that no interval between two marks is too short for quad
    marks = sorted(
        {round(max(-26.0, min(26.0, centre + k * width)), 6) for k in (-12, -4, -1, 0, 1, 4, 12)} | {-6, 0, 6}
    )
    pieces = [quadrature.quad(integrand, a, b, epsabs=1e-14, epsrel=1e-13, limit=200)[0] for a, b in pairwise(marks)]
    return float(np.sum(pieces))


@pytest.mark.parametrize(
    ("m", "v", "tau", "mean", "square"),
    [(0.3, 1.0, 1.0, 0.577068342285, 0.589130087201), (-1.2, 0.5, -1.0, -0.189689605661, 0.146223221865)],
)
def test_reference_values(m: float, v: float, tau: float, mean: float, square: float) -> None:
    assert delta(m, v, tau) == pytest.approx(mean, abs=5e-13)
    assert delta_squared(m, v, tau) == pytest.approx(square, abs=5e-13)


@given(m=means, v=variances, tau=labels)
def test_closed_forms_are_the_integrals(m: float, v: float, tau: float) -> None:
    assert delta(m, v, tau) == pytest.approx(gauss_average(1, m, v, tau), rel=1e-10, abs=1e-13)
    assert delta_squared(m, v, tau) == pytest.approx(gauss_average(2, m, v, tau), rel=1e-10, abs=1e-13)


@given(m=means, v=variances, tau=labels)
def test_square_agrees_with_the_form_with_owens_t(m: float, v: float, tau: float) -> None:
    C = 4 / np.pi / np.sqrt(1 + 4 * v) * np.exp(-2 * m**2 / (1 + 4 * v))
    mu, s = m / (1 + 4 * v), v / (1 + 4 * v)
    h = np.sqrt(2) * mu / np.sqrt(1 + 2 * s)
    e1 = 2 * ndtr(h) - 1
    e2 = 4 * (ndtr(h) - 2 * owens_t(h, 1 / np.sqrt(1 + 4 * s))) - 4 * ndtr(h) + 1
    assert delta_squared(m, v, tau) == pytest.approx(C * (1 - 2 * tau * e1 + e2), abs=1e-14)


@given(m=means, v=variances, tau=labels)
def test_derivative_is_the_slope_of_the_mean(m: float, v: float, tau: float) -> None:
    h = 1e-4 * np.sqrt(1 + 2 * v)
    slope = (
        8 * (delta(m + h, v, tau) - delta(m - h, v, tau)) - delta(m + 2 * h, v, tau) + delta(m - 2 * h, v, tau)
    ) / (12 * h)
    assert delta_derivative(m, v, tau) == pytest.approx(slope, rel=1e-7, abs=1e-10)


@given(m=means, v=variances)
def test_swapping_the_classes_changes_signs_only(m: float, v: float) -> None:
    assert delta(m, v, 1.0) == -delta(-m, v, -1.0)
    assert delta_squared(m, v, 1.0) == delta_squared(-m, v, -1.0)
    assert g_prime(m, v) == g_prime(-m, v)


@given(m=means, v=variances, tau=labels)
def test_signs_and_the_inequality_of_the_second_moment(m: float, v: float, tau: float) -> None:
    assert tau * delta(m, v, tau) >= 0
    assert delta_squared(m, v, tau) >= delta(m, v, tau) ** 2 * (1 - 1e-12)


def test_far_tails_keep_their_relative_precision() -> None:
    # no cancellation in tau - erf: at m = 8, v = 0.01 the mean is about 1e-50
    assert delta(8.0, 0.01, 1.0) == pytest.approx(gauss_tail(), rel=1e-9)


def gauss_tail() -> float:
    from scipy.special import erfc

    def integrand(x: float) -> float:
        return float(
            erfc(x) * 2 / np.sqrt(np.pi) * np.exp(-x * x) * np.exp(-((x - 8) ** 2) / 0.02) / np.sqrt(0.02 * np.pi)
        )

    return float(quadrature.quad(integrand, 6, 9, epsabs=0, epsrel=1e-12, points=[7.6, 7.7, 7.8])[0])


@njit(error_model="numpy")
def _lanes(
    u: npt.NDArray[np.float64],
    v: float,
    constants: npt.NDArray[np.float64],
    D1: npt.NDArray[np.float64],
    D2: npt.NDArray[np.float64],
) -> None:
    for lane in range(LANES):
        lane_constants(v, constants, 0, lane)
    for lane in range(LANES):
        D1[lane], D2[lane] = lane_averages(u[lane], constants, 0, lane)


@given(
    u=st.lists(st.floats(-40, 40), min_size=LANES, max_size=LANES),
    v=st.floats(np.log(1e-4), np.log(1e4)).map(lambda x: float(np.exp(x))),
)
def test_the_lanes_compute_the_plain_formulas(u: list[float], v: float) -> None:
    u_lanes = np.array(u)
    D1, D2 = np.empty(LANES), np.empty(LANES)
    _lanes(u_lanes, v, np.zeros((7 + TERMS) * LANES), D1, D2)
    # absolute, in units of what the averages are at most
    np.testing.assert_allclose(D1, delta(u_lanes, v, 1.0), rtol=1e-14, atol=4e-15)
    np.testing.assert_allclose(D2, delta_squared(u_lanes, v, 1.0), rtol=1e-14, atol=1e-14)
