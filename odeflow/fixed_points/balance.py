# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
r"""Compiled balance of the two classes' forces at one parameter point: the biases at rest for a given M.

A class is described by a tuple of constants (`class_constants`); b enters through the margins s = M - b of the class +1
and t = M + b of the class -1, with M = rho R/2 - epsilon. The biases are the zeros of :math:`L(M, b) = \ln[p D_1(s)] -
\ln[(1-p) D_1(t)]`. The forces in plain NumPy are in `odeflow.order_parameters.perceptron.forces`.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from odeflow.numerics.elementary import erfcx

__all__ = ["balance", "biases", "class_constants", "force", "noise", "peak", "scalar"]

_SLOPE = 2 / math.sqrt(math.pi)
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(8)  # the interval is shorter than 0.3
_FAR = 5e3  # times (1 + |M|) (2 + 2 v1 + 2 v2): a bias beyond which a zero is taken to be at infinity

scalar = njit(error_model="numpy")
"""Decorator of the functions of one parameter point. The kernel that calls them has the digest of all sources in its cache's key."""


@scalar
def class_constants(v):
    """Return 1/(1+2v), k, ln A0, g/u, a, v C0/A0 and 2/(1+4v) of one class (see `odeflow.order_parameters.perceptron.forces`)."""
    return (
        1 / (1 + 2 * v),
        1 / math.sqrt((1 + 2 * v) * (1 + 4 * v)),
        math.log(2 / math.sqrt(math.pi * (1 + 2 * v))),
        1 / math.sqrt((1 + 4 * v) * (1 + 6 * v)),
        math.sqrt((1 + 4 * v) / (1 + 8 * v)),
        v * _SLOPE * math.sqrt((1 + 2 * v) / (1 + 4 * v)),
        2 / (1 + 4 * v),
    )


@scalar
def _erfcx(x):
    """Return exp(x^2) erfc(x) for x >= 0."""
    if x < 25.0:
        return erfcx(x)
    y = 1 / (x * x)
    return (1 - y * (0.5 - y * (0.75 - 1.875 * y))) / (x * math.sqrt(math.pi))


@scalar
def force(u, c):
    """Return psi = ln D1, its slope and its curvature."""
    x = c[1] * u
    if x >= 0:
        tail = _erfcx(x)
        hazard = _SLOPE / tail
        log_erfc = math.log(tail) - x * x
    else:
        erfc = math.erfc(x)
        hazard = _SLOPE * math.exp(-x * x) / erfc
        log_erfc = math.log(erfc)
    return (
        c[2] - u * u * c[0] + log_erfc,
        -2 * u * c[0] - c[1] * hazard,
        -2 * c[0] - c[1] * c[1] * hazard * (hazard - 2 * x),
    )


@scalar
def noise(u, c):
    """Return r = v D2/D1 and the slope of ln D2."""
    x, g, a = c[1] * u, c[3] * u, c[4]
    integral = 0.0
    for i in range(_NODES.size):
        y = (1 + a) / 2 + (1 - a) / 2 * _NODES[i]
        integral += (1 - a) / 2 * _WEIGHTS[i] * math.exp(-g * g * (1 + y * y)) / (1 + y * y)
    erfc_g = math.erfc(g)
    W = erfc_g * erfc_g + 4 / math.pi * integral
    dW = -2 * _SLOPE * math.exp(-g * g) * math.erfc(a * g)
    fall = 1 / _erfcx(x) if x >= 0 else math.exp(-x * x) / math.erfc(x)
    return c[5] * fall * W, -2 * c[6] * u + c[3] * dW / max(W, 1e-300)


@scalar
def peak(c):
    """Return the margin where D1 is largest: Newton on a concave falling function from its right."""
    u = 0.0
    for _ in range(60):
        _, phi, bend = force(u, c)
        u -= phi / bend
        if abs(phi / bend) <= 4e-16:
            break
    return u


@scalar
def balance(M, b, prior, c1, c2):
    """Return L = ln(p D1(s)) - ln((1-p) D1(t)), dL/db, d2L/db2 and dL/dM."""
    psi1, phi1, bend1 = force(M - b, c1)
    psi2, phi2, bend2 = force(M + b, c2)
    return prior + psi1 - psi2, -phi1 - phi2, bend1 - bend2, phi1 - phi2


@scalar
def _bracketed(M, low, high, prior, c1, c2):
    """Return the zero of L(M, .) in [low, high], at whose ends L has opposite signs: Newton, kept in the bracket."""
    rising = balance(M, low, prior, c1, c2)[0] < 0
    b = 0.5 * (low + high)
    for _ in range(200):
        L, dL, _, _ = balance(M, b, prior, c1, c2)
        if (L < 0) == rising:
            low = b
        else:
            high = b
        new = b - L / dL
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - b) <= 2e-15 * (1 + abs(b)):
            return new
        b = new
    return b


@scalar
def _outward(M, start, direction, wanted, prior, c1, c2):
    """Return a bias beyond `start` where L has the sign `wanted`, and whether there is one that is not far."""
    far = _FAR * (1 + abs(M)) * (1 / c1[0] + 1 / c2[0])
    step = 0.5 * (1 + abs(M))
    while step < far:
        b = start + direction * step
        if balance(M, b, prior, c1, c2)[0] * wanted > 0:
            return b, True
        step *= 2
    return start, False


@scalar
def _turning_points(M, prior, c1, c2):
    """Return the zeros b- <= b+ of dL/db, a convex function of b that is +inf at b = -inf (asks for v2 >= v1).

    -inf where there is none, b+ = +inf where dL/db stays negative.
    """
    far = _FAR * (1 + abs(M)) * (1 / c1[0] + 1 / c2[0])
    # left of b-: dL/db > 0 and falling
    step = 0.5 * (1 + abs(M))
    b = 0.0
    _, dL, bend, _ = balance(M, b, prior, c1, c2)
    while not (dL > 0 and bend < 0):
        b = -step
        if step > far:
            return -math.inf, -math.inf
        step *= 2
        _, dL, bend, _ = balance(M, b, prior, c1, c2)
    # Newton on a convex function from the left of its zero: monotone
    for _ in range(200):
        new = b - dL / bend
        if not new > b + 1e-15 * (1 + abs(b)):
            break
        b = new
        if b > far:
            return -math.inf, -math.inf
        _, dL, bend, _ = balance(M, b, prior, c1, c2)
        if bend >= 0:
            if dL > 0:
                return -math.inf, -math.inf
            break
        if dL <= 0:
            break
    left = b
    step = 0.25
    right = left + step
    _, dL, bend, _ = balance(M, right, prior, c1, c2)
    while not (dL > 0 and bend > 0):
        step *= 2
        if step > far:
            return left, math.inf
        right = left + step
        _, dL, bend, _ = balance(M, right, prior, c1, c2)
    for _ in range(200):
        new = right - dL / bend
        if not left <= new < right - 1e-15 * (1 + abs(right)):
            break
        right = new
        _, dL, bend, _ = balance(M, right, prior, c1, c2)
        if dL <= 0 or bend <= 0:
            break
    return left, right


@scalar
def biases(M, prior, c1, c2, roots):
    """Put the biases with L(M, b) = 0, at most three, into `roots` in rising order; return how many. v2 >= v1."""
    left, right = _turning_points(M, prior, c1, c2)
    if left == -math.inf:  # L rises everywhere
        low, below = _outward(M, 0.0, -1.0, -1.0, prior, c1, c2)
        high, above = _outward(M, 0.0, 1.0, 1.0, prior, c1, c2)
        if not (below and above):
            return 0
        roots[0] = _bracketed(M, low, high, prior, c1, c2)
        return 1
    count = 0
    crest = balance(M, left, prior, c1, c2)[0]
    if crest >= 0:
        low, found = _outward(M, left, -1.0, -1.0, prior, c1, c2)
        if found:
            roots[count] = _bracketed(M, low, left, prior, c1, c2)
            count += 1
    if right == math.inf:
        if crest > 0:
            high, found = _outward(M, left, 1.0, -1.0, prior, c1, c2)
            if found:
                roots[count] = _bracketed(M, left, high, prior, c1, c2)
                count += 1
        return count
    trough = balance(M, right, prior, c1, c2)[0]
    if crest > 0 and trough < 0:
        roots[count] = _bracketed(M, left, right, prior, c1, c2)
        count += 1
    if trough <= 0:
        high, found = _outward(M, right, 1.0, 1.0, prior, c1, c2)
        if found:
            roots[count] = _bracketed(M, right, high, prior, c1, c2)
            count += 1
    return count
