"""The averages of one class as polynomials on windows of u, for a kernel that evaluates them some hundred times a point.

D1(u) and D2(u) (`odeflow.order_parameters.perceptron.averages`) are entire functions whose width is about sqrt(1 + 4v) / 2. On a window
of half-width w they are polynomials in x = (u - u0) / w, |x| <= 1, interpolated at Chebyshev nodes. A centre u0 is a
multiple of w / 2, so that a window depends on v and on where it is, and not on the way there.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numpy.polynomial import chebyshev

from odeflow.numerics.compilation import called, inlined
from odeflow.numerics.elementary import fma
from odeflow.numerics.lanes import prefer_512_bits, product
from odeflow.order_parameters.perceptron.averages import lane_averages

__all__ = ["FAR", "TERMS", "half_width", "nearest", "window"]

TERMS = 16
"""Coefficients of a window: then its error is at most 3e-11 of D(0)."""
_HALF = TERMS // 2
_WIDTH = 0.95 / 2

FAR = 2.0**40  # in half-widths: beyond, D1 and D2 are 0 and u has no digits to say where in a window it is


def _matrices() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return what makes Chebyshev coefficients of sums and differences of values at +-x, and powers of x of these.

    Even and odd coefficients stand beside each other, twice, for the two functions. By way of the Chebyshev
    coefficients, since the matrix from the values to the powers would lose six digits.
    """
    nodes = np.pi * (2 * np.arange(TERMS) + 1) / (2 * TERMS)
    transform = np.cos(np.outer(np.arange(TERMS), nodes)) * 2 / TERMS
    transform[0] /= 2
    powers = np.zeros((TERMS, TERMS))
    for k in range(TERMS):
        powers[: k + 1, k] = chebyshev.cheb2poly(np.eye(TERMS)[k])[: k + 1]
    one = np.stack([transform[0::2, :_HALF], transform[1::2, :_HALF]] * 2, axis=2)
    other = np.stack([powers[0::2, 0::2], powers[1::2, 1::2]] * 2, axis=2)
    return one, other


_transform, _to_powers = map(product, _matrices())
_NODES = np.cos(np.pi * (2 * np.arange(_HALF) + 1) / (2 * TERMS))
_NODES = np.concatenate([_NODES, -_NODES])


@inlined
def half_width(v):
    """Return the half-width of windows of a class with variance v."""
    return _WIDTH * math.sqrt(1 + 4 * v)


@inlined
def nearest(u, w):
    """Return which window has its centre nearest to u: k for the centre k w / 2. Far out all are the same."""
    k = np.rint(2.0 * u / w)
    return k if abs(k) < FAR else FAR  # also for nan


@called
def window(k, w, constants, start, lane, work, table, at):
    """Store window k at ``table[at:]``: the coefficients of x^0 and x^1 of D1, of D2, then of x^2 and x^3, and so on.

    `constants` are those that `averages.lane_constants` stored from `start` for this lane; `work` has room for
    6 `TERMS` numbers.
    """
    prefer_512_bits()
    u0 = 0.5 * w * k
    for i in range(TERMS):
        work[i], work[TERMS + i] = lane_averages(fma(w, _NODES[i], u0), constants, start, lane)
    folded = 2 * TERMS
    transformed = 4 * TERMS
    for i in range(_HALF):
        work[folded + 4 * i] = work[i] + work[_HALF + i]
        work[folded + 4 * i + 1] = work[i] - work[_HALF + i]
        work[folded + 4 * i + 2] = work[TERMS + i] + work[TERMS + _HALF + i]
        work[folded + 4 * i + 3] = work[TERMS + i] - work[TERMS + _HALF + i]
    _transform(work, folded, work, transformed)
    _to_powers(work, transformed, table, at)
