r"""Gaussian averages of the update's factor for the variants of the learning rule, in the lanes of a kernel.

With :math:`u = \tau\tilde x \sim N(m, v)` and :math:`\delta = \tau f(u)`, the dynamics need

.. math:: D_1 = \langle f \rangle, \qquad D_2 = \langle f^2 \rangle, \qquad
          D_1' = \partial D_1/\partial m = \langle f\,(u - m) \rangle / v .

Closed forms where they exist; otherwise Gauss-Legendre quadrature on both sides of u = 0, with an error below 1e-10.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from odeflow.model import LearningRule
from odeflow.numerics.compilation import LANES, inlined
from odeflow.numerics.elementary import erfcx, exp

__all__ = [
    "CLOSED_ERF",
    "CLOSED_LINE",
    "CLOSED_SLOPE",
    "LINEAR_LOGISTIC",
    "NODES",
    "QUADRATURE",
    "SIGMAS",
    "WEIGHTS",
    "UpdateFactor",
    "averages",
    "below",
    "erf_and_slope",
    "factor",
    "lane_averages",
    "lane_factors",
    "law_scales",
    "logistic",
    "output_slope",
    "plain_factor",
    "smoothed_share",
    "tanh_and_slope",
    "update_factor",
]

CLOSED_LINE, CLOSED_SLOPE, CLOSED_ERF, QUADRATURE = range(4)
_ERF_SQUARED, _TANH_SQUARED, _TANH_SLOPE, LINEAR_LOGISTIC, _ERF_LOGISTIC, _TANH_LOGISTIC = range(6)

# Where f, or for the linear logistic f minus its limits 1 and 0, has fallen below 1e-14 of its scale.
_REACH = {
    _ERF_SQUARED: 6.0,
    _TANH_SQUARED: 17.0,
    _TANH_SLOPE: 17.0,
    LINEAR_LOGISTIC: 33.0,
    _ERF_LOGISTIC: 6.0,
    _TANH_LOGISTIC: 17.0,
}
SIGMAS = 8.0
NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
_SHORT_NODES, _SHORT_WEIGHTS = np.polynomial.legendre.leggauss(9)


class UpdateFactor(NamedTuple):
    """How f is averaged: a family of closed forms, or quadrature."""

    family: int
    """Closed forms of (a + c u) for u < cut; of g'(u) for u < cut (erf); of (1 - erf u) g'(u); or quadrature."""
    function: int
    """Which function is integrated, for the quadrature."""
    a: float
    c: float
    cut: float
    """f = 0 beyond; inf if there is no such point."""
    reach: float
    """Largest |u| at which f, or its difference from a limit, is not 0."""


def update_factor(rule: LearningRule) -> UpdateFactor:
    """Return how the averages of this rule's f are computed."""
    cut = 0.0 if rule.update == "non_robust" or rule.loss == "perceptron" else math.inf
    line = {
        ("linear", "squared"): (1.0, -1.0, cut),
        ("linear", "hinge"): (1.0, 0.0, min(cut, 1.0)),
        ("linear", "perceptron"): (1.0, 0.0, cut),
        ("sign", "squared"): (2.0, 0.0, 0.0),
        ("sign", "perceptron"): (1.0, 0.0, 0.0),
    }
    kind = (rule.activation, rule.loss)
    if kind in line:
        return UpdateFactor(CLOSED_LINE, 0, *line[kind], math.inf)
    if kind in (("erf", "hinge"), ("erf", "perceptron")):
        return UpdateFactor(CLOSED_SLOPE, 0, 0.0, 0.0, cut, _REACH[_ERF_SQUARED])
    if kind == ("erf", "squared") and rule.update == "all":
        return UpdateFactor(CLOSED_ERF, 0, 0.0, 0.0, cut, _REACH[_ERF_SQUARED])
    function = {
        ("erf", "squared"): _ERF_SQUARED,
        ("tanh", "squared"): _TANH_SQUARED,
        ("tanh", "hinge"): _TANH_SLOPE,
        ("tanh", "perceptron"): _TANH_SLOPE,
        ("linear", "logistic"): LINEAR_LOGISTIC,
        ("erf", "logistic"): _ERF_LOGISTIC,
        ("tanh", "logistic"): _TANH_LOGISTIC,
    }[kind]
    return UpdateFactor(QUADRATURE, function, 0.0, 0.0, cut, _REACH[function])


def output_slope(rule: LearningRule) -> UpdateFactor:
    """Return how the averages of g' are computed, at the examples that this rule learns from."""
    cut = update_factor(rule).cut
    if rule.activation == "erf":
        return UpdateFactor(CLOSED_SLOPE, 0, 0.0, 0.0, cut, _REACH[_ERF_SQUARED])
    if rule.activation == "tanh":
        return UpdateFactor(QUADRATURE, _TANH_SLOPE, 0.0, 0.0, cut, _REACH[_TANH_SLOPE])
    return UpdateFactor(CLOSED_LINE, 0, 1.0, 0.0, cut, math.inf)


def smoothed_share(loss: str, smoothing: Any) -> Any:
    """Return k of the factor f - k g' of smoothed labels."""
    return smoothing if loss == "squared" else smoothing / 2


def law_scales(
    rule: LearningRule,
    rho: npt.ArrayLike,
    v1: npt.ArrayLike,
    v2: npt.ArrayLike,
    epsilon: npt.ArrayLike,
    input_noise: npt.ArrayLike = 0.0,
    epsilon_ratio: npt.ArrayLike = 1.0,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return over which factors of epsilon the averages vary, at least, and up to which factor: for `odeflow.laws`.

    u has the standard deviation sqrt(v Q) and moves by epsilon sqrt(Q) times the factor, through 0 where rho R / 2 - tau b is
    as large. An f without kinks varies over 1/2 or more itself; free weights are taken to have Q < 1e4 for that.
    """
    kinked = rule.update == "non_robust" or rule.activation == "sign" or rule.loss == "perceptron"
    kinked |= rule.activation == "linear" and rule.loss == "hinge"
    scale = 0.5
    if rule.factor is not None:
        kinked, scale = rule.update == "non_robust" or bool(rule.factor.kinks), rule.factor.scale
    own = 0.0 if kinked else scale**2 if rule.normalised else 1e-4 * scale**2
    rho, v1, v2, epsilon, noise, ratio = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(x, np.float64)) for x in (rho, v1, v2, epsilon, input_noise, epsilon_ratio))
    )
    epsilon = epsilon * np.maximum(1.0, ratio)
    width = np.sqrt(np.minimum(v1, v2) + noise**2 + own)
    margin = rho / 2 + 4 * np.sqrt(1 + np.maximum(v1, v2) + noise**2)
    with np.errstate(divide="ignore", over="ignore"):
        return width / epsilon, margin / epsilon


def plain_factor(rule: LearningRule, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return f(u), the negative derivative of the loss by the margin u, in plain NumPy: what the kernels are held to."""
    if rule.factor is not None:
        from odeflow.order_parameters.perceptron.own_factor import evaluated

        f = evaluated(rule.factor, u)
        return np.where(u < 0, f, 0.0) if rule.update == "non_robust" else f
    from scipy.special import erf, erfc, expit

    g, short, slope = {  # g, 1 - g and g'
        "erf": lambda: (erf(u), erfc(u), 2 / math.sqrt(math.pi) * np.exp(-u * u)),
        "tanh": lambda: (np.tanh(u), 2 * expit(-2 * u), 4 * expit(2 * u) * expit(-2 * u)),
        "linear": lambda: (u, 1 - u, np.ones_like(u)),
        "sign": lambda: (np.sign(u), 1 - np.sign(u), np.ones_like(u)),
    }[rule.activation]()
    f = {
        "squared": lambda: short * slope,
        "hinge": lambda: np.where(short > 0, slope, 0.0),
        "logistic": lambda: slope * expit(-g),
        "perceptron": lambda: np.where(u < 0, slope, 0.0),
    }[rule.loss]()
    f = f - smoothed_share(rule.loss, rule.smoothing) * slope
    return np.where(u < 0, f, 0.0) if rule.update == "non_robust" else f


@inlined
def erf_and_slope(u):
    """Return 1 - erf(u), erf(u) and g'(u) = (2/sqrt(pi)) exp(-u^2)."""
    gauss = exp(-u * u)
    tail = gauss * erfcx(abs(u))
    upper = tail if u >= 0 else 2.0 - tail
    return upper, 1.0 - upper, 2 / math.sqrt(math.pi) * gauss


@inlined
def tanh_and_slope(u):
    """Return 1 - tanh(u), tanh(u) and its derivative, without cancellation."""
    small = exp(-2.0 * abs(u))
    lower = 2.0 * small / (1.0 + small)
    upper = lower if u >= 0 else 2.0 - lower
    return upper, 1.0 - upper, 4.0 * small / ((1.0 + small) * (1.0 + small))


@inlined
def logistic(s):
    """Return 1 / (1 + e^s)."""
    small = exp(-abs(s))
    return (small if s >= 0 else 1.0) / (1.0 + small)


@inlined
def _erf_squared(u):
    upper, _, slope = erf_and_slope(u)
    return upper * slope


@inlined
def _tanh_squared(u):
    upper, _, slope = tanh_and_slope(u)
    return upper * slope


@inlined
def _tanh_slope(u):
    return tanh_and_slope(u)[2]


@inlined
def _erf_logistic(u):
    _, g, slope = erf_and_slope(u)
    return slope * logistic(g)


@inlined
def _tanh_logistic(u):
    _, g, slope = tanh_and_slope(u)
    return slope * logistic(g)


@inlined
def factor(how, u):
    """Return f(u)."""
    if u >= how.cut:
        return 0.0
    if how.family == CLOSED_LINE:
        return how.a + how.c * u
    if how.family == CLOSED_SLOPE:
        return erf_and_slope(u)[2]
    if how.family == CLOSED_ERF or how.function == _ERF_SQUARED:
        return _erf_squared(u)
    if how.function == _TANH_SQUARED:
        return _tanh_squared(u)
    if how.function == _TANH_SLOPE:
        return _tanh_slope(u)
    if how.function == LINEAR_LOGISTIC:
        return logistic(u)
    if how.function == _ERF_LOGISTIC:
        return _erf_logistic(u)
    return _tanh_logistic(u)


@inlined
def lane_factors(how, u, out):
    """Set out = f(u) in every lane: `factor`, with one branch-free loop for each function."""
    if how.family == CLOSED_LINE:
        for lane in range(LANES):
            out[lane] = how.a + how.c * u[lane]
    elif how.family == CLOSED_SLOPE:
        for lane in range(LANES):
            out[lane] = erf_and_slope(u[lane])[2]
    elif how.family == CLOSED_ERF or how.function == _ERF_SQUARED:
        for lane in range(LANES):
            out[lane] = _erf_squared(u[lane])
    elif how.function == _TANH_SQUARED:
        for lane in range(LANES):
            out[lane] = _tanh_squared(u[lane])
    elif how.function == _TANH_SLOPE:
        for lane in range(LANES):
            out[lane] = _tanh_slope(u[lane])
    elif how.function == LINEAR_LOGISTIC:
        for lane in range(LANES):
            out[lane] = logistic(u[lane])
    elif how.function == _ERF_LOGISTIC:
        for lane in range(LANES):
            out[lane] = _erf_logistic(u[lane])
    else:
        for lane in range(LANES):
            out[lane] = _tanh_logistic(u[lane])
    if how.cut < math.inf:
        for lane in range(LANES):
            out[lane] = out[lane] if u[lane] < how.cut else 0.0


@inlined
def below(cut, m, v):
    """Return Phi(t), s phi(t), t = (cut - m)/s: chance and density (times v) of N(m, v) at the cut."""
    s = math.sqrt(v)
    t = (cut - m) / s
    t = min(max(t, -40.0), 40.0)
    gauss = exp(-0.5 * t * t)
    tail = 0.5 * gauss * erfcx(abs(t) * math.sqrt(0.5))
    return (1.0 - tail if t >= 0 else tail), s * gauss / math.sqrt(2 * math.pi)


@inlined
def _closed_line(how, m, v, D1, D2, slope):
    """Average f = a + c u, u < cut."""
    for lane in range(LANES):
        P, density = below(how.cut, m[lane], v[lane])
        cut = how.cut if how.cut < 1e300 else 0.0  # its density is 0 then
        first = m[lane] * P - density
        second = (m[lane] * m[lane] + v[lane]) * P - (m[lane] + cut) * density
        D1[lane] = how.a * P + how.c * first
        D2[lane] = how.a * how.a * P + 2.0 * how.a * how.c * first + how.c * how.c * second
        # <f (u - m)> / v
        slope[lane] = (how.a * (first - m[lane] * P) + how.c * (second - m[lane] * first)) / v[lane]


@inlined
def _closed_slope(how, m, v, D1, D2, slope):
    """Average f = g'(u) of erf, u < cut: a Gaussian times g' is a Gaussian again."""
    for lane in range(LANES):
        one, two = 1.0 + 2.0 * v[lane], 1.0 + 4.0 * v[lane]
        m2 = m[lane] * m[lane]
        P, density = below(how.cut, m[lane] / one, v[lane] / one)
        A = 2.0 / math.sqrt(math.pi * one) * exp(-m2 / one)
        D1[lane] = A * P
        slope[lane] = (A * (m[lane] / one * P - density) - m[lane] * A * P) / v[lane]
        P, density = below(how.cut, m[lane] / two, v[lane] / two)
        D2[lane] = 4.0 / math.pi / math.sqrt(two) * exp(-2.0 * m2 / two) * P


@inlined
def _closed_erf(m, v, D1, D2, slope):
    """Average f = (1 - erf u) g'(u): equations (1.2) of the theory page."""
    for lane in range(LANES):
        one, two = 1.0 + 2.0 * v[lane], 1.0 + 4.0 * v[lane]
        q = one * two
        m2 = m[lane] * m[lane]
        A = 2.0 / math.sqrt(math.pi * one) * exp(-m2 / one)
        tail = exp(-m2 / q) * erfcx(abs(m[lane]) / math.sqrt(q))
        tail = tail if m[lane] >= 0 else 2.0 - tail
        D1[lane] = A * tail
        slope[lane] = -2.0 * m[lane] / one * A * tail - A * 2.0 / math.sqrt(math.pi * q) * exp(-m2 / q)
    # <f^2> = C [erfc(g)^2 + (4/pi) int_a^1 exp(-g^2 (1 + x^2)) / (1 + x^2) dx], as in odeflow.order_parameters.perceptron.averages.delta_squared
    for lane in range(LANES):
        D2[lane] = 0.0
    for node in range(_SHORT_NODES.size):
        for lane in range(LANES):
            two = 1.0 + 4.0 * v[lane]
            g2 = m[lane] * m[lane] / (two * (1.0 + 6.0 * v[lane]))
            a = math.sqrt(two / (1.0 + 8.0 * v[lane]))
            x = 0.5 * (1.0 + a) + 0.5 * (1.0 - a) * _SHORT_NODES[node]
            D2[lane] += 2.0 / math.pi * (1.0 - a) * _SHORT_WEIGHTS[node] * exp(-g2 * (1.0 + x * x)) / (1.0 + x * x)
    for lane in range(LANES):
        two = 1.0 + 4.0 * v[lane]
        g = m[lane] / math.sqrt(two * (1.0 + 6.0 * v[lane]))
        tail = exp(-g * g) * erfcx(abs(g))
        tail = tail if g >= 0 else 2.0 - tail
        D2[lane] = 4.0 / math.pi / math.sqrt(two) * exp(-2.0 * m[lane] * m[lane] / two) * (tail * tail + D2[lane])


@inlined
def _quadrature(how, m, v, D1, D2, slope, work):
    """Both sides of 0, each over the overlap of the Gaussian's and f's reach."""
    u, f, half, middle = work[0], work[1], work[2], work[3]
    one_limit = how.function == LINEAR_LOGISTIC
    for lane in range(LANES):
        D1[lane] = 0.0
        D2[lane] = 0.0
        slope[lane] = 0.0
    for side in range(2 if how.cut > 0.0 else 1):
        for lane in range(LANES):
            s = SIGMAS * math.sqrt(v[lane])
            low = max(m[lane] - s, -how.reach if side == 0 else 0.0)
            high = min(m[lane] + s, 0.0 if side == 0 else how.reach)
            half[lane] = max(0.5 * (high - low), 0.0)
            middle[lane] = 0.5 * (high + low)
        for node in range(NODES.size):
            for lane in range(LANES):
                u[lane] = middle[lane] + half[lane] * NODES[node]
            lane_factors(how, u, f)
            for lane in range(LANES):
                z = u[lane] - m[lane]
                density = exp(-0.5 * z * z / v[lane]) / math.sqrt(2 * math.pi * v[lane])
                weight = WEIGHTS[node] * half[lane] * density
                # the logistic's f tends to 1 for u -> -inf: that part is closed
                limit = 1.0 if one_limit and side == 0 else 0.0
                D1[lane] += weight * (f[lane] - limit)
                D2[lane] += weight * (f[lane] * f[lane] - limit)
                slope[lane] += weight * (f[lane] - limit) * z / v[lane]
    if one_limit:
        for lane in range(LANES):
            P, density = below(0.0, m[lane], v[lane])
            D1[lane] += P
            D2[lane] += P
            slope[lane] -= density / v[lane]


@njit(nogil=True, error_model="numpy")
def lane_averages(how, m, v, D1, D2, slope, work):
    """Set D1, D2 and D1' (`slope`) in every lane.

    m, v, D1, D2 and slope have LANES entries; `work` has four times as many.
    """
    if how.family == CLOSED_LINE:
        _closed_line(how, m, v, D1, D2, slope)
    elif how.family == CLOSED_SLOPE:
        _closed_slope(how, m, v, D1, D2, slope)
    elif how.family == CLOSED_ERF:
        _closed_erf(m, v, D1, D2, slope)
    else:
        _quadrature(how, m, v, D1, D2, slope, work)


def averages(
    m: npt.ArrayLike, v: npt.ArrayLike, rule: LearningRule
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return D1, D2 and D1' for u ~ N(m, v): closed forms, or quadrature with an error below 1e-10.

    Parameters
    ----------
    m, v
        Mean, any real number, and variance, > 0, of u = tau x after the attack; they broadcast.
    rule
        Whose update.

    Returns
    -------
    tuple of ndarray
        D1, D2, D1', of the broadcast shape.
    """
    shape = np.broadcast_shapes(np.shape(m), np.shape(v))
    size = math.prod(shape)
    padded = -(-size // LANES) * LANES
    means, variances = np.zeros(padded), np.ones(padded)
    means[:size], variances[:size] = (np.broadcast_to(x, shape).ravel() for x in (m, v))
    out = np.empty((3, padded))
    work = np.zeros((4, LANES))
    how = update_factor(rule)
    for start in range(0, padded, LANES):
        here = slice(start, start + LANES)
        lane_averages(how, means[here], variances[here], *(row[here] for row in out), work)
    D1, D2, slope = (row[:size].reshape(shape) for row in out)
    return D1, D2, slope
