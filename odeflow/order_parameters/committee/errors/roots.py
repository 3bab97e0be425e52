"""Where the output reaches a level along a line on which all fields X_k rise together: X_k = start_k + w."""

from __future__ import annotations

import math

import numpy as np

from odeflow.numerics.compilation import called
from odeflow.order_parameters.committee.units import ERF

__all__ = ["output", "root"]

_SLOPE = math.sqrt(2.0 / math.pi)


@called
def output(kind, B, a, sign, X):
    """Return f at X: B + sum a_k erf(X_k / sqrt 2), or with a_k max(X_k, 0), of negative c_k a_k min(X_k, 0)."""
    total = B
    for k in range(a.size):
        if kind == ERF:
            total += a[k] * math.erf(X[k] * math.sqrt(0.5))
        elif sign[k] * X[k] > 0.0:
            total += a[k] * X[k]
    return total


@called
def root(kind, B, a, sign, start, guess):
    """Return the largest w with f(start + w) <= 0, which may be -inf or inf; `guess` is where to begin."""
    return _root_erf(B, a, start, guess) if kind == ERF else _root_relu(B, a, sign, start)


@called
def _root_erf(B, a, start, guess):
    """Newton's method in a bracket; f is summed from its tails, so that it is exact where all units are saturated."""
    total, low, high = 0.0, np.inf, -np.inf
    for k in range(a.size):
        total += a[k]
        low = min(low, -40.0 - start[k])
        high = max(high, 40.0 - start[k])
    if total + B <= 0.0:
        return np.inf
    if total - B <= 0.0:
        return -np.inf
    w = guess if low < guess < high else 0.5 * (low + high)
    for _ in range(200):
        plateau, tails, slope = B, 0.0, 0.0
        for k in range(a.size):
            X = start[k] + w
            side = math.copysign(a[k], X)
            plateau += side
            tails += side * math.erfc(abs(X) * math.sqrt(0.5))
            slope += a[k] * math.exp(-0.5 * X * X)
        f = plateau - tails
        if f > 0.0:
            high = w
        else:
            low = w
        step = f / (_SLOPE * slope) if slope > 0.0 else np.inf
        new = w - step
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - w) <= 1e-12 * (1.0 + abs(w)):
            return new
        w = new
    return w


@called
def _root_relu(B, a, sign, start):
    """Exact: f is linear between the kinks, w = -start_k."""
    low, high, f_low, f_high = -np.inf, np.inf, 0.0, 0.0
    for k in range(a.size):
        kink = -start[k]
        f = B
        for n in range(a.size):
            X = start[n] + kink
            if sign[n] * X > 0.0:
                f += a[n] * X
        if f <= 0.0 and kink >= low:
            low, f_low = kink, f
        elif f > 0.0 and kink <= high:
            high, f_high = kink, f
    slope = 0.0  # between low and high
    for k in range(a.size):
        on = -start[k] <= low if sign[k] > 0.0 else -start[k] >= high
        if on:
            slope += a[k]
    if low > -np.inf:
        return low - f_low / slope if slope > 0.0 else high
    return high - f_high / slope if slope > 0.0 else -np.inf
