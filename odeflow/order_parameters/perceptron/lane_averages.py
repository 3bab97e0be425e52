r"""Closed Gaussian averages of the update's factor :math:`\delta` in the lanes of a kernel, for one class.

The plain formulas, as NumPy ufuncs, are in `odeflow.order_parameters.perceptron.averages`.
"""

from __future__ import annotations

import math

import numpy as np

from odeflow.numerics.compilation import LANES, inlined
from odeflow.numerics.elementary import erfcx, exp, fma

__all__ = ["CLASS_ROWS", "TERMS", "lane_averages", "lane_constants"]

# By symmetry only u = tau m matters: tau <delta>(m) = D1(u) and
# <delta^2>(m) = D2(u). With E_A = exp(-u^2/(1+2v)), E_C = exp(-2u^2/(1+4v)), E_g = exp(-g^2) and
# X(x) = exp(x^2) erfc(x), the exponents combine (E_A exp(-z^2) = E_C for z = u/sqrt((1+2v)(1+4v))), and three
# exponentials are enough:
#     D1 = A0 E_C X(z)               for u >= 0,      A0 (2 E_A - E_C X(-z))   for u < 0
#     D2 = C0 E_C [erfc(g)^2 + E_g^2 F(g^2)],         erfc(g) = E_g X(g)       for u >= 0
# F(y) = (4/pi) int_a^1 exp(y (1 - x^2)) / (1 + x^2) dx is a power series in y = g^2 with coefficients that depend on v
# alone. After TERMS terms the rest, times E_C E_g^2, is below 1e-15 for every u and v.

TERMS = 11
"""Terms of the series F."""

# rows of one class: what u^2 or u is multiplied by in the exponents of E_A, E_C and E_g and in z and g; A0, C0; and from
# _F on the coefficients of F
_IN_A, _IN_C, _IN_G_SQUARED, _IN_Z, _IN_G, _A0, _C0, _F = range(8)
CLASS_ROWS = _F + TERMS
"""Rows of constants of one class."""

_ODD, _WHOLE = 1 / (2 * np.arange(TERMS) + 3), 1 / (np.arange(TERMS) + 1.0)


@inlined
def lane_constants(v, constants, start, lane):
    """Store the constants of one class, which has variance v, at ``constants[(start + k) * LANES + lane]``."""
    constants[(start + _IN_A) * LANES + lane] = 1 / (1 + 2 * v)
    constants[(start + _IN_C) * LANES + lane] = 2 / (1 + 4 * v)
    constants[(start + _IN_G_SQUARED) * LANES + lane] = 1 / ((1 + 4 * v) * (1 + 6 * v))
    constants[(start + _IN_Z) * LANES + lane] = 1 / math.sqrt((1 + 2 * v) * (1 + 4 * v))
    constants[(start + _IN_G) * LANES + lane] = 1 / math.sqrt((1 + 4 * v) * (1 + 6 * v))
    constants[(start + _A0) * LANES + lane] = 2 / math.sqrt(math.pi * (1 + 2 * v))
    constants[(start + _C0) * LANES + lane] = 4 / math.pi / math.sqrt(1 + 4 * v)
    # F's coefficient k is (4/pi) J_k / k! with J_k = int_a^1 (1-x^2)^k / (1+x^2) dx, and J_(k+1) = 2 J_k - L_k with
    # L_k = int_a^1 (1-x^2)^k dx. An error of J_0 grows like 2^k, and E_g^2 y^k / k! makes up for that.
    a_squared = (1 + 4 * v) / (1 + 8 * v)
    a = math.sqrt(a_squared)
    J = math.pi / 4 - math.atan(a)
    L = 1 - a
    power = a  # a (1 - a^2)^k
    factor = 4 / math.pi  # over k!
    for k in range(TERMS):
        constants[(start + _F + k) * LANES + lane] = factor * J
        J = 2 * J - L
        power *= 1 - a_squared
        L = (2 * (k + 1) * L - power) * _ODD[k]
        factor *= _WHOLE[k]


@inlined
def lane_averages(u, constants, start, lane):
    """Return D1(u) and D2(u) for one class of one lane, from what `lane_constants` stored."""
    at = start * LANES + lane
    u2 = u * u
    size = abs(u)
    E_C = exp(-u2 * constants[_IN_C * LANES + at])
    y = u2 * constants[_IN_G_SQUARED * LANES + at]
    E_g = exp(-y)
    upper = E_C * erfcx(size * constants[_IN_Z * LANES + at])
    erfc_g = E_g * erfcx(size * constants[_IN_G * LANES + at])
    D1 = constants[_A0 * LANES + at] * (upper if u >= 0 else 2 * exp(-u2 * constants[_IN_A * LANES + at]) - upper)
    erfc_g = erfc_g if u >= 0 else 2 - erfc_g
    F = constants[(_F + 10) * LANES + at]
    F = fma(F, y, constants[(_F + 9) * LANES + at])
    F = fma(F, y, constants[(_F + 8) * LANES + at])
    F = fma(F, y, constants[(_F + 7) * LANES + at])
    F = fma(F, y, constants[(_F + 6) * LANES + at])
    F = fma(F, y, constants[(_F + 5) * LANES + at])
    F = fma(F, y, constants[(_F + 4) * LANES + at])
    F = fma(F, y, constants[(_F + 3) * LANES + at])
    F = fma(F, y, constants[(_F + 2) * LANES + at])
    F = fma(F, y, constants[(_F + 1) * LANES + at])
    F = fma(F, y, constants[_F * LANES + at])
    D2 = constants[_C0 * LANES + at] * E_C * (erfc_g * erfc_g + E_g * E_g * F)
    return D1, D2
