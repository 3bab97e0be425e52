r"""Closed Gaussian averages of the update's factor :math:`\delta`, for one class.

With :math:`x \sim N(m, v)`, :math:`\delta = (\tau - \mathrm{erf}(x))\, g'(x)` and :math:`g'(x) = (2/\sqrt\pi)
e^{-x^2}`, the dynamics need :math:`\langle\delta\rangle`, :math:`\langle\delta'\rangle` and
:math:`\langle\delta^2\rangle`. All are exact (closed forms, up to rounding and one short quadrature that is converged
to rounding). Equations (1.2) of the theory page.

The functions are NumPy ufuncs: they broadcast over arrays and can be called from numba.
"""

from __future__ import annotations

import math

import numpy as np
from numba import vectorize

from odeflow.numerics import compilation  # noqa: F401 -- asks where compiled code is kept
from odeflow.order_parameters.perceptron.lane_averages import CLASS_ROWS, TERMS, lane_averages, lane_constants

__all__ = [
    "CLASS_ROWS",
    "TERMS",
    "delta",
    "delta_derivative",
    "delta_squared",
    "g_prime",
    "lane_averages",
    "lane_constants",
]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


@vectorize(["float64(float64, float64)"], cache=True)
def g_prime(m, v):
    r"""Average of :math:`g'(x)` (exact).

    Parameters
    ----------
    m
        Mean of x, any real number.
    v
        Variance of x, > 0.

    Returns
    -------
    float
        :math:`A = 2 / \sqrt{\pi(1+2v)} \; e^{-m^2/(1+2v)}`.
    """
    return 2 / math.sqrt(math.pi * (1 + 2 * v)) * math.exp(-m * m / (1 + 2 * v))


@vectorize(["float64(float64, float64, float64)"], cache=True)
def delta(m, v, tau):
    r"""Average of :math:`\delta` (exact).

    Parameters
    ----------
    m
        Mean of x, any real number.
    v
        Variance of x, > 0.
    tau
        Label, +1 or -1.

    Returns
    -------
    float
        :math:`A\,[\tau - \mathrm{erf}(m/\sqrt{(1+2v)(1+4v)})]`, written with erfc so that nothing cancels.

    Examples
    --------
    >>> round(float(delta(0.3, 1.0, 1.0)), 12)
    0.577068342285
    """
    A = 2 / math.sqrt(math.pi * (1 + 2 * v)) * math.exp(-m * m / (1 + 2 * v))
    return A * tau * math.erfc(tau * m / math.sqrt((1 + 2 * v) * (1 + 4 * v)))


@vectorize(["float64(float64, float64, float64)"], cache=True)
def delta_derivative(m, v, tau):
    r"""Average of :math:`\delta'(x)`, which is :math:`\partial\langle\delta\rangle/\partial m` (exact).

    Parameters and range as for `delta`.
    """
    A = 2 / math.sqrt(math.pi * (1 + 2 * v)) * math.exp(-m * m / (1 + 2 * v))
    q = (1 + 2 * v) * (1 + 4 * v)
    mean_delta = A * tau * math.erfc(tau * m / math.sqrt(q))
    return -2 * m / (1 + 2 * v) * mean_delta - A * 2 / math.sqrt(math.pi) * math.exp(-m * m / q) / math.sqrt(q)


@vectorize(["float64(float64, float64, float64)"], cache=True)
def delta_squared(m, v, tau):
    r"""Average of :math:`\delta^2` (exact).

    Parameters and range as for `delta`. With :math:`g = \tau m / \sqrt{(1+4v)(1+6v)}` (which is :math:`\tau h/\sqrt2`
    of the theory page), Owen's T function at unit argument turns :math:`1 - 2\tau e_1 + e_2` into a sum of two
    positive terms,

    .. math:: \mathrm{erfc}(g)^2 + \frac4\pi \int_a^1 \frac{e^{-g^2(1+x^2)}}{1+x^2}\,dx,
       \qquad a = \sqrt{\frac{1+4v}{1+8v}}.

    The interval is short (a > 0.707): 12 Gauss-Legendre points reach rounding.
    """
    C = 4 / math.pi / math.sqrt(1 + 4 * v) * math.exp(-2 * m * m / (1 + 4 * v))
    g = tau * m / math.sqrt((1 + 4 * v) * (1 + 6 * v))
    a = math.sqrt((1 + 4 * v) / (1 + 8 * v))
    integral = 0.0
    for i in range(_NODES.size):
        x = (1 + a) / 2 + (1 - a) / 2 * _NODES[i]
        integral += (1 - a) / 2 * _WEIGHTS[i] * math.exp(-g * g * (1 + x * x)) / (1 + x * x)
    return C * (math.erfc(g) ** 2 + 4 / math.pi * integral)
