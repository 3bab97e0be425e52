r"""Moments of the update's factor and their derivatives by the mean, in the lanes of a kernel.

With :math:`u \sim N(m, v)`, what fluctuates at finite N and what a parameter changes needs

.. math:: D_k^{(i)} = \partial_m^i \langle f(u)^k \rangle, \qquad k = 1, \dots, 4,

while derivatives by v follow from the heat equation, :math:`\partial_v = \tfrac12 \partial_m^2`, and averages with powers of u
from :math:`\langle f^k (u - m) \rangle = v D_k'`. Where :math:`\langle f^k \rangle` obeys an equation of first order in m, each
derivative follows from those before it:

- :math:`f = a + c u` for u < cut: :math:`D_k' = k c D_{k-1} - f(\mathrm{cut})^k n`, with :math:`D_0 = \Phi` and the density n
  of u at the cut;
- :math:`f = g'(u)` of erf for u < cut: :math:`(1 + 2kv) D_k' = -2km D_k - f(\mathrm{cut})^k n`;
- :math:`f = \mathrm{erfc}(u) g'(u)`: :math:`D_1' = -2m D_1/(1+2v) - \beta`, and :math:`\beta` is a Gaussian in m;
  :math:`D_2' = -4m D_2/(1+4v) - \omega`, and :math:`\omega` is like :math:`D_1`. :math:`D_3` and :math:`D_4` by quadrature.

The others by the quadrature of `odeflow.order_parameters.perceptron.variant_averages`, with Hermite polynomials. Equations (6.5)
to (6.7) of the theory page.

All arrays are flat: row r of a lane is at ``r * lanes + lane``. `lanes` is a constant of each caller, so that loops are SIMD code.
"""

from __future__ import annotations

import math

import numpy as np

from odeflow.numerics.compilation import LANES, inlined
from odeflow.numerics.elementary import erfcx, exp, fma
from odeflow.order_parameters.perceptron.variant_averages import (
    CLOSED_ERF,
    CLOSED_LINE,
    CLOSED_SLOPE,
    LINEAR_LOGISTIC,
    NODES,
    SIGMAS,
    WEIGHTS,
    factor,
    lane_factors,
)

__all__ = ["D1", "D2", "D3", "D4", "ERF_ROWS", "MEAN", "ROWS", "VARIANCE", "erf_constants", "erf_moments", "moments"]

# rows of the array that `moments` works in
MEAN, VARIANCE = range(2)
D1 = 2
"""Row of D1; its derivatives of orders 1 to 5 follow."""
D2 = 8
"""Row of D2; its derivatives of orders 1 to 4 follow."""
D3 = 13
"""Row of D3; its derivative follows."""
D4 = 15
_LATER = 16  # beta, omega and chi, or the density at the cut, and their derivatives; or what a quadrature needs
_BETA, _OMEGA, _CHI = _LATER, _LATER + 6, _LATER + 11
_U, _F, _HALF, _MIDDLE = range(_LATER, _LATER + 4)
ROWS = _LATER + 16
"""Rows of that array."""

# rows of what the closed forms of (1 - erf u) g'(u) need of a variance
_TERMS = 11  # of the series F of odeflow.order_parameters.perceptron.averages
_ALPHA, _GAMMA, _KAPPA_2, _A_2, _K, _KAPPA, _A_KAPPA, _A0, _C0, _SERIES = range(10)
ERF_ROWS = _SERIES + _TERMS
"""Rows of the constants of one variance."""

_SHORT_NODES, _SHORT_WEIGHTS = np.polynomial.legendre.leggauss(12)
_HERMITE_NODES, _HERMITE_WEIGHTS = np.polynomial.hermite.hermgauss(8)
_HERMITE_WEIGHTS = _HERMITE_WEIGHTS / math.sqrt(math.pi)
_SLOPE = 2 / math.sqrt(math.pi)  # g'(0) of erf


@inlined
def erf_constants(x, variance, start, first, last, lanes):
    """Set the rows from `start` on for the variances in a row of x, in the lanes first <= lane < last."""
    for lane in range(first, last):
        v = x[variance * lanes + lane]
        one, two, three, four = 1.0 + 2.0 * v, 1.0 + 4.0 * v, 1.0 + 6.0 * v, 1.0 + 8.0 * v
        x[(start + _ALPHA) * lanes + lane] = 1.0 / one
        x[(start + _GAMMA) * lanes + lane] = 2.0 / two
        x[(start + _KAPPA_2) * lanes + lane] = 1.0 / (two * three)
        x[(start + _A_2) * lanes + lane] = 1.0 / (three * four)
        x[(start + _K) * lanes + lane] = 1.0 / math.sqrt(one * two)
        x[(start + _KAPPA) * lanes + lane] = 1.0 / math.sqrt(two * three)
        x[(start + _A_KAPPA) * lanes + lane] = 1.0 / math.sqrt(three * four)
        x[(start + _A0) * lanes + lane] = _SLOPE / math.sqrt(one)
        x[(start + _C0) * lanes + lane] = 4 / math.pi / math.sqrt(two)
    for k in range(_TERMS):
        for lane in range(first, last):
            x[(start + _SERIES + k) * lanes + lane] = 0.0
    for node in range(_SHORT_NODES.size):
        for lane in range(first, last):
            v = x[variance * lanes + lane]
            a = math.sqrt((1.0 + 4.0 * v) / (1.0 + 8.0 * v))
            y = 0.5 * (1.0 + a) + 0.5 * (1.0 - a) * _SHORT_NODES[node]
            term = 2 / math.pi * (1.0 - a) * _SHORT_WEIGHTS[node] / (1.0 + y * y)
            for k in range(_TERMS):
                x[(start + _SERIES + k) * lanes + lane] += term
                term *= (1.0 - y * y) / (k + 1)


@inlined
def _next(x, row, i, rate, lane, lanes):
    """Return the derivative of order i + 1 of what falls like exp(-rate m^2 / 2): -rate (m D^(i) + i D^(i-1))."""
    before = x[(row + max(i - 1, 0)) * lanes + lane]
    return -rate * (x[MEAN * lanes + lane] * x[(row + i) * lanes + lane] + i * before)


@inlined
def _erf_closed(x, start, last_1, last_2, lanes):
    """Set D1 and D2 of f = (1 - erf u) g'(u) and their derivatives, from what `erf_constants` has set."""
    for lane in range(lanes):
        m = x[MEAN * lanes + lane]
        m2, size = m * m, abs(m)
        gamma, kappa_2, a_2 = (
            x[(start + _GAMMA) * lanes + lane],
            x[(start + _KAPPA_2) * lanes + lane],
            x[(start + _A_2) * lanes + lane],
        )
        A0, C0 = x[(start + _A0) * lanes + lane], x[(start + _C0) * lanes + lane]
        k, kappa = x[(start + _K) * lanes + lane], x[(start + _KAPPA) * lanes + lane]
        a_kappa = x[(start + _A_KAPPA) * lanes + lane]
        E_C = exp(-gamma * m2)
        y = kappa_2 * m2
        E_g = exp(-y)
        E_a = exp(-a_2 * m2)
        upper = E_C * erfcx(size * k)
        D = A0 * (upper if m >= 0 else 2.0 * exp(-x[(start + _ALPHA) * lanes + lane] * m2) - upper)
        x[D1 * lanes + lane] = D
        x[_BETA * lanes + lane] = A0 * _SLOPE * k * E_C
        tail = E_g * erfcx(size * kappa)
        tail = tail if m >= 0 else 2.0 - tail
        F = x[(start + _SERIES + 10) * lanes + lane]
        F = fma(F, y, x[(start + _SERIES + 9) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES + 8) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES + 7) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES + 6) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES + 5) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES + 4) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES + 3) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES + 2) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES + 1) * lanes + lane])
        F = fma(F, y, x[(start + _SERIES) * lanes + lane])
        x[D2 * lanes + lane] = C0 * E_C * (tail * tail + E_g * E_g * F)
        omega_0 = 2.0 * _SLOPE * C0 * kappa
        tail = E_a * erfcx(size * a_kappa)
        x[_OMEGA * lanes + lane] = omega_0 * E_C * E_g * (tail if m >= 0 else 2.0 - tail)
        x[_CHI * lanes + lane] = omega_0 * _SLOPE * a_kappa * E_C * E_g * E_a
    # beta, omega and chi fall with gamma, gamma + kappa^2 and gamma + kappa^2 + (a kappa)^2
    for i in range(last_1):
        for lane in range(lanes):
            alpha, gamma = x[(start + _ALPHA) * lanes + lane], x[(start + _GAMMA) * lanes + lane]
            x[(D1 + i + 1) * lanes + lane] = _next(x, D1, i, 2.0 * alpha, lane, lanes) - x[(_BETA + i) * lanes + lane]
            x[(_BETA + i + 1) * lanes + lane] = _next(x, _BETA, i, 2.0 * gamma, lane, lanes)
    for i in range(last_2):
        for lane in range(lanes):
            gamma = x[(start + _GAMMA) * lanes + lane]
            zeta = gamma + x[(start + _KAPPA_2) * lanes + lane]
            xi = zeta + x[(start + _A_2) * lanes + lane]
            x[(D2 + i + 1) * lanes + lane] = _next(x, D2, i, 2.0 * gamma, lane, lanes) - x[(_OMEGA + i) * lanes + lane]
            omega = _next(x, _OMEGA, i, 2.0 * zeta, lane, lanes) - x[(_CHI + i) * lanes + lane]
            x[(_OMEGA + i + 1) * lanes + lane] = omega
            x[(_CHI + i + 1) * lanes + lane] = _next(x, _CHI, i, 2.0 * xi, lane, lanes)


@inlined
def _erf_quadrature(x, lanes):
    """Set D3, its derivative and D4 of f = (1 - erf u) g'(u), with errors below 1e-6 and 1e-5 of their largest values.

    f^4 carries the Gaussian to mean m/(1+8v), variance v/(1+8v): by Gauss and Hermite, times 1/g' for f^3.
    """
    for row in (D3, D3 + 1, D4):
        for lane in range(lanes):
            x[row * lanes + lane] = 0.0
    for lane in range(lanes):
        m, v = x[MEAN * lanes + lane], x[VARIANCE * lanes + lane]
        four = 1.0 + 8.0 * v
        x[_MIDDLE * lanes + lane] = m / four
        x[_HALF * lanes + lane] = math.sqrt(2.0 * v / four)
    for node in range(_HERMITE_NODES.size):
        for lane in range(lanes):
            u = x[_MIDDLE * lanes + lane] + x[_HALF * lanes + lane] * _HERMITE_NODES[node]
            gauss = exp(-min(u * u, 500.0))  # its inverse stays finite
            tail = gauss * erfcx(abs(u))
            tail = tail if u >= 0 else 2.0 - tail
            cube = _HERMITE_WEIGHTS[node] * tail * tail * tail
            x[D4 * lanes + lane] += cube * tail
            cube /= gauss
            x[D3 * lanes + lane] += cube
            x[(D3 + 1) * lanes + lane] += cube * (u - x[MEAN * lanes + lane])
    for lane in range(lanes):
        m, v = x[MEAN * lanes + lane], x[VARIANCE * lanes + lane]
        four = 1.0 + 8.0 * v
        size = _SLOPE**3 / math.sqrt(four) * exp(-4.0 * m * m / four)
        x[D3 * lanes + lane] *= size
        x[(D3 + 1) * lanes + lane] *= size / v
        x[D4 * lanes + lane] *= size * _SLOPE


@inlined
def _density(x, cut, last, lanes):
    """Set _BETA to the density of u at the cut, and the rows below to its derivatives by m; return nothing of a cut at inf."""
    for lane in range(lanes):
        v = x[VARIANCE * lanes + lane]
        t = min(max((cut - x[MEAN * lanes + lane]) / math.sqrt(v), -40.0), 40.0)
        x[_BETA * lanes + lane] = exp(-0.5 * t * t) / math.sqrt(2 * math.pi * v)
        x[_OMEGA * lanes + lane] = t / math.sqrt(v)  # (cut - m) / v
    # n' = n (cut - m)/v, so that n^(i+1) = [(cut - m) n^(i) - i n^(i-1)]/v
    for i in range(last):
        for lane in range(lanes):
            before = x[(_BETA + max(i - 1, 0)) * lanes + lane]
            x[(_BETA + i + 1) * lanes + lane] = (
                x[_OMEGA * lanes + lane] * x[(_BETA + i) * lanes + lane] - i * before / x[VARIANCE * lanes + lane]
            )


@inlined
def _chance(cut, mean, variance):
    """Return the chance that N(mean, variance) is below the cut."""
    t = min(max((cut - mean) / math.sqrt(variance), -40.0), 40.0)
    tail = 0.5 * exp(-0.5 * t * t) * erfcx(abs(t) * math.sqrt(0.5))
    return 1.0 - tail if t >= 0 else tail


@inlined
def _line(how, x, last_1, last_2, with_powers, lanes):
    """Set all of f = a + c u for u < cut."""
    is_cut = how.cut < 1e300
    at_cut = how.a + how.c * how.cut if is_cut else 0.0
    _density(x, how.cut if is_cut else 0.0, 4, lanes)
    for lane in range(lanes):
        m, v = x[MEAN * lanes + lane], x[VARIANCE * lanes + lane]
        P = _chance(how.cut if is_cut else 0.0, m, v) if is_cut else 1.0
        n = x[_BETA * lanes + lane] if is_cut else 0.0
        level = how.a + how.c * m
        first = level * P - how.c * v * n  # D1, and in D_k = level D_(k-1) + c v D_(k-1)'
        first_slope = how.c * P - at_cut * n
        second = level * first + how.c * v * first_slope
        second_slope = 2.0 * how.c * first - at_cut * at_cut * n
        third = level * second + how.c * v * second_slope
        third_slope = 3.0 * how.c * second - at_cut * at_cut * at_cut * n
        x[D1 * lanes + lane] = first
        x[(D1 + 1) * lanes + lane] = first_slope
        x[D2 * lanes + lane] = second
        x[(D2 + 1) * lanes + lane] = second_slope
        x[D3 * lanes + lane] = third
        x[(D3 + 1) * lanes + lane] = third_slope
        x[D4 * lanes + lane] = level * third + how.c * v * third_slope
    for i in range(1, last_1):  # P^(i) = -n^(i-1)
        for lane in range(lanes):
            n, n_before = x[(_BETA + i) * lanes + lane], x[(_BETA + i - 1) * lanes + lane]
            x[(D1 + i + 1) * lanes + lane] = -how.c * n_before - at_cut * n if is_cut else 0.0
    for i in range(1, last_2):
        for lane in range(lanes):
            n = x[(_BETA + i) * lanes + lane] if is_cut else 0.0
            x[(D2 + i + 1) * lanes + lane] = 2.0 * how.c * x[(D1 + i) * lanes + lane] - at_cut * at_cut * n


@inlined
def _slope(how, x, last_1, last_2, with_powers, lanes):
    """Set all of f = g'(u) of erf for u < cut."""
    is_cut = how.cut < 1e300
    cut = how.cut if is_cut else 0.0
    at_cut = _SLOPE * math.exp(-cut * cut) if is_cut else 0.0
    _density(x, cut, 4, lanes)
    for power, row, last in ((1, D1, last_1), (2, D2, last_2), (3, D3, 1), (4, D4, 0)):
        size, falls = _SLOPE**power, at_cut**power
        for lane in range(lanes):
            m, v = x[MEAN * lanes + lane], x[VARIANCE * lanes + lane]
            shrunk = 1.0 + 2.0 * power * v
            P = _chance(cut, m / shrunk, v / shrunk) if is_cut else 1.0
            x[row * lanes + lane] = size / math.sqrt(shrunk) * exp(-power * m * m / shrunk) * P
        for i in range(last):
            for lane in range(lanes):
                rate = 2.0 * power / (1.0 + 2.0 * power * x[VARIANCE * lanes + lane])
                n = x[(_BETA + i) * lanes + lane] / (1.0 + 2.0 * power * x[VARIANCE * lanes + lane])
                x[(row + i + 1) * lanes + lane] = _next(x, row, i, rate, lane, lanes) - falls * n


@inlined
def _quadrature(how, x, last_1, last_2, with_powers, lanes):
    """Both sides of 0, each over the overlap of the Gaussian's and f's reach, with Hermite polynomials for the derivatives."""
    one_limit = how.function == LINEAR_LOGISTIC
    for row in range(D1, D4 + 1):
        for lane in range(lanes):
            x[row * lanes + lane] = 0.0
    for side in range(2 if how.cut > 0.0 else 1):
        for lane in range(lanes):
            m, s = x[MEAN * lanes + lane], SIGMAS * math.sqrt(x[VARIANCE * lanes + lane])
            low = max(m - s, -how.reach if side == 0 else 0.0)
            high = min(m + s, 0.0 if side == 0 else how.reach)
            x[_HALF * lanes + lane] = max(0.5 * (high - low), 0.0)
            x[_MIDDLE * lanes + lane] = 0.5 * (high + low)
        limit = 1.0 if one_limit and side == 0 else 0.0  # of the logistic's f for u -> -inf: that part is closed
        for node in range(NODES.size):
            for lane in range(lanes):
                x[_U * lanes + lane] = x[_MIDDLE * lanes + lane] + x[_HALF * lanes + lane] * NODES[node]
            _factors(how, x, lanes)
            for lane in range(lanes):
                v, f = x[VARIANCE * lanes + lane], x[_F * lanes + lane]
                z = x[_U * lanes + lane] - x[MEAN * lanes + lane]
                density = exp(-0.5 * z * z / v) / math.sqrt(2 * math.pi * v)
                weight = WEIGHTS[node] * x[_HALF * lanes + lane] * density
                square = f * f
                first, second = weight * (f - limit), weight * (square - limit)
                third = weight * (square * f - limit)
                H1 = z / v
                H2 = (z * H1 - 1.0) / v
                x[D1 * lanes + lane] += first
                x[(D1 + 1) * lanes + lane] += first * H1
                x[(D1 + 2) * lanes + lane] += first * H2
                x[D2 * lanes + lane] += second
                x[(D2 + 1) * lanes + lane] += second * H1
                x[(D2 + 2) * lanes + lane] += second * H2
                x[D3 * lanes + lane] += third
                x[(D3 + 1) * lanes + lane] += third * H1
                x[D4 * lanes + lane] += weight * (square * square - limit)
                if last_1 > 2:
                    H3 = (z * H2 - 2.0 * H1) / v
                    H4 = (z * H3 - 3.0 * H2) / v
                    H5 = (z * H4 - 4.0 * H3) / v
                    x[(D1 + 3) * lanes + lane] += first * H3
                    x[(D1 + 4) * lanes + lane] += first * H4
                    x[(D1 + 5) * lanes + lane] += first * H5
                    x[(D2 + 3) * lanes + lane] += second * H3
                    x[(D2 + 4) * lanes + lane] += second * H4
    if one_limit:
        _density(x, 0.0, 4, lanes)
        for lane in range(lanes):
            P, n = _chance(0.0, x[MEAN * lanes + lane], x[VARIANCE * lanes + lane]), x[_BETA * lanes + lane]
            for row in (D1, D2, D3, D4):
                x[row * lanes + lane] += P
            x[(D3 + 1) * lanes + lane] -= n
        for i in range(5):
            for lane in range(lanes):
                x[(D1 + 1 + i) * lanes + lane] -= x[(_BETA + i) * lanes + lane]
        for i in range(4):
            for lane in range(lanes):
                x[(D2 + 1 + i) * lanes + lane] -= x[(_BETA + i) * lanes + lane]


@inlined
def _factors(how, x, lanes):
    """Set _F to f(_U)."""
    if lanes == LANES:
        lane_factors(how, x[_U * LANES : (_U + 1) * LANES], x[_F * LANES : (_F + 1) * LANES])
    else:
        for lane in range(lanes):
            x[_F * lanes + lane] = factor(how, x[_U * lanes + lane])


@inlined
def erf_moments(how, x, constants, last_1, last_2, with_powers, lanes):
    """Do what `moments` does for f = (1 - erf u) g'(u)."""
    _erf_closed(x, constants, last_1, last_2, lanes)
    if with_powers:
        _erf_quadrature(x, lanes)


@inlined
def moments(how, x, constants, last_1, last_2, with_powers, lanes):
    """Set D1 and D2 with derivatives up to the orders last_1 and last_2, and with_powers also D3, its derivative, and D4.

    Parameters
    ----------
    how
        An `UpdateFactor`: whose f.
    x
        The rows MEAN and VARIANCE of u are read, those from D1 to D4 are set, the others are overwritten.
    constants
        Row in x from which `erf_constants` has put those of the variances; only read for the closed form of erf.
    last_1, last_2
        At most 5 and 4; at least 2.
    lanes
        Entries of a row.
    """
    if how.family == CLOSED_LINE:
        _line(how, x, last_1, last_2, with_powers, lanes)
    elif how.family == CLOSED_SLOPE:
        _slope(how, x, last_1, last_2, with_powers, lanes)
    elif how.family == CLOSED_ERF:
        erf_moments(how, x, constants, last_1, last_2, with_powers, lanes)
    else:
        _quadrature(how, x, last_1, last_2, with_powers, lanes)
