r"""The averages of one class as polynomials on windows of u, for a kernel that evaluates them some hundred times a point.

With s = 2u / sqrt(1+4v), b = 1 / (2 sqrt(1+2v)) and c = 1 / (2 sqrt(1+6v)), both in (0, 1/2), the averages of
`odeflow.order_parameters.perceptron.averages` are A0 and C0 times functions of two numbers each,

.. math::
    D_1 / A_0 &= e^{-s^2/2 + s^2 b^2}\, \mathrm{erfc}(s b), \\
    D_2 / C_0 &= e^{-s^2/2} \left[ \mathrm{erfc}(s c)^2
        + \frac4\pi \int_a^1 \frac{e^{-s^2 c^2 (1+x^2)}}{1+x^2}\,dx \right], \qquad a^2 = \frac{1+2c^2}{2(1-c^2)} ,

which are smooth for all v. They are interpolated once, at Chebyshev nodes, on windows of s and in b or c; where the centre s0 of
a window is negative, D1 is divided by exp(s0^2 b^2), by which it grows. A class puts its b and c into a window's table, and has
there polynomials in x = (u - u0) / w, -1 <= x <= 1.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

from odeflow.numerics.compilation import inlined
from odeflow.numerics.lanes import polynomial

__all__ = ["BEYOND", "FIRST", "LAST", "TERMS", "half_width", "nearest", "tables", "window", "window_constants"]

Array = npt.NDArray[np.float64]

TERMS = 16
"""Coefficients of a window. Its error is at most 1.1e-11 of D(0)."""
_ORDER = 20  # coefficients of b and of c
_WIDTH = 0.85  # half of a window in s; their centres are half of that apart

FIRST, LAST = -34, 28
"""Numbers of the windows: the one of number k has its centre at k w / 2. Beyond, both averages are below 1e-18 of D(0)."""
BEYOND = (FIRST + 1) / 2, (LAST - 1) / 2
"""Where, in half-widths, the two windows beyond end: a class that is put into one up to 3/4 ahead is inside."""


def _first(s: Array, b: Array, s0: Array) -> Array:
    y = s * b
    return np.asarray(np.exp(y * y - s * s / 2 - (np.minimum(s0, 0) * b) ** 2) * _erfc(y))


def _second(s: Array, c: Array, s0: Array) -> Array:
    a = np.sqrt((1 + 2 * c * c) / (2 * (1 - c * c)))
    integral = np.zeros(s.shape)
    for node, weight in zip(*np.polynomial.legendre.leggauss(12), strict=True):
        x = (1 + a) / 2 + (1 - a) / 2 * node
        integral += (1 - a) / 2 * weight * np.exp(-((s * c) ** 2) * (1 + x * x)) / (1 + x * x)
    return np.asarray(np.exp(-s * s / 2) * (_erfc(s * c) ** 2 + 4 / np.pi * integral))


def _erfc(x: Array) -> Array:
    return np.array([math.erfc(value) for value in x.flat]).reshape(x.shape)


def _nodes(count: int) -> Array:
    return np.cos(np.pi * (2 * np.arange(count) + 1) / (2 * count))


def _powers(values: Array) -> Array:
    """Return the coefficients of the powers of x from the values at Chebyshev nodes, along the last axis.

    By way of the coefficients of Chebyshev polynomials, since the matrix from values to powers would lose six digits.
    """
    count = values.shape[-1]
    angles = np.pi * (2 * np.arange(count) + 1) / (2 * count)
    found = 2 / count * np.einsum("...i,ki->...k", values, np.cos(np.outer(np.arange(count), angles)))
    found[..., 0] /= 2
    to_powers = np.zeros((count, count))
    for k in range(count):
        to_powers[k, : k + 1] = chebyshev.cheb2poly(np.eye(count)[k])[: k + 1]
    return np.asarray(np.einsum("...k,km->...m", found, to_powers))


@cache
def tables() -> Array:
    """Return the windows, shape (windows + 2, order, 2 terms): of D1 and then of D2; the first and the last are zeros."""
    numbers = np.arange(FIRST, LAST + 1)
    s0 = _WIDTH / 2 * numbers[:, None, None]
    parameter = (_nodes(_ORDER)[:, None] + 1) / 4
    arguments = np.broadcast_arrays(s0 + _WIDTH * _nodes(TERMS), parameter, s0)
    values = [function(*arguments) for function in (_first, _second)]
    powers = [np.swapaxes(_powers(np.swapaxes(_powers(one), 1, 2)), 1, 2) for one in values]
    table = np.zeros((numbers.size + 2, _ORDER, 2 * TERMS))
    table[1:-1] = np.concatenate(powers, axis=2)
    return table


_in_parameter = polynomial(_ORDER, 2 * TERMS)


@inlined
def half_width(v):
    """Return the half-width w of windows of a class with variance v."""
    return 0.5 * _WIDTH * math.sqrt(1 + 4 * v)


@inlined
def window_constants(v):
    """Return the places of b and c in their interval, from -1 to 1, and A0 and C0, of a class with variance v."""
    b = 0.5 / math.sqrt(1 + 2 * v)
    c = 0.5 / math.sqrt(1 + 6 * v)
    return 4 * b - 1, 4 * c - 1, 4 / math.sqrt(math.pi) * b, 4 / math.pi / math.sqrt(1 + 4 * v)


@inlined
def nearest(u, w):
    """Return the number of the window with its centre nearest to u: FIRST - 1 and LAST + 1 are all that is beyond."""
    k = np.rint(2.0 * u / w)
    k = min(LAST + 1.0, k)  # also for nan
    return max(FIRST - 1.0, k)


@inlined
def window(k, place_b, place_c, flat_tables, coefficients):
    """Set the coefficients of D1 / A0 in window k, lowest power first, and after them those of D2 / C0."""
    first = (np.int64(k) - (FIRST - 1)) * (2 * TERMS * _ORDER)
    y = min(k, 0.0) * (0.125 * _WIDTH) * (place_b + 1.0)  # s0 b
    grown = math.exp(y * y)
    for i in range(TERMS):
        coefficients[i] = grown * _in_parameter(place_b, flat_tables, first + i)
        coefficients[TERMS + i] = _in_parameter(place_c, flat_tables, first + TERMS + i)
