r"""Panels of one level of the nested integrals over the fields of erf units: where they end, and their nodes.

See `odeflow.order_parameters.committee.quadrature.erf` for the method. A level's y is one coordinate; `mean[level, i]` is the mean
of :math:`x_i` given the coordinates before it, A[i, level] how it moves with y, `spread[level, i]` R times the deviation that
the deeper coordinates add. Where two units weigh alike in the attack its direction turns, and has singularities beside the
real axis: there a panel is stretched.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import inlined
from odeflow.numerics.elementary import erfcx, exp, log

__all__ = [
    "EDGES",
    "MOST",
    "NODES",
    "SHORTEST",
    "WEAK",
    "Rule",
    "ends",
    "insert",
    "is_broken_at",
    "place",
    "tables",
    "value",
]

Array = npt.NDArray[np.float64]

MOST = 80  # nodes of a panel
EDGES = 40  # ends of panels of a level, at most
NODES = MOST * EDGES
SHORTEST = 1e-12  # panel
_FEWEST = 2.0  # nodes of a panel that is hardly needed
_SCAN = 12  # intervals in which the ends of panels are looked for
_GRADED = 15.0 / 8.0  # the largest slope of S
WEAK = 0.45  # deviation of a deeper field, beyond which panels are graded
_AWAY = 0.5  # of the distance to a singularity counts, since less is to be gained where the Gaussian weight is small
_SLOPE = math.sqrt(2.0 / math.pi)
_GAUSS = 1.0 / math.sqrt(2.0 * math.pi)
_compiled = numba.njit(nogil=True, error_model="numpy")


class Rule(NamedTuple):
    """Nodes of the quadrature, for the kernels."""

    digits: float
    """D: contributions below exp(-D) are dropped."""
    reach: float
    """R, the largest abs(y)."""
    smooth: float
    """Distance of the singularity that stands for the Gaussian weight, in y."""
    bend: float
    """The same for an attacked unit, in x."""
    turn: float
    """Distance in y of the singularities of an attack's direction below which a panel is stretched at them."""
    sharp: float
    """Distance of the singularities of an attack's direction in the variable that is stretched for them, at most pi/2."""
    nodes: Array
    """Gauss-Legendre on (0, 1) with n = 1, 2.. nodes, one after another: that with n nodes begins at n(n - 1)/2."""
    weights: Array
    graded_nodes: Array
    """The same nodes mapped by S(u) = u^3 (10 - 15 u + 6 u^2)."""
    graded_weights: Array


@cache
def tables() -> tuple[Array, Array, Array, Array]:
    """Return nodes and weights, plain and graded, as `Rule` has them."""
    pairs = [np.polynomial.legendre.leggauss(n) for n in range(1, MOST + 1)]
    u = np.concatenate([0.5 + 0.5 * x for x, _ in pairs])
    w = np.concatenate([0.5 * w for _, w in pairs])
    return u, w, u**3 * (10.0 - 15.0 * u + 6.0 * u * u), w * 30.0 * (u * (1.0 - u)) ** 2


@inlined
def value(x):
    """Return g(x)."""
    return math.erf(x * math.sqrt(0.5))


@inlined
def _asinh(x):
    """Return arsinh x within a few 1e-16, absolutely."""
    return math.copysign(log(abs(x) + math.sqrt(x * x + 1.0)), x)


@inlined
def _inverse(z):
    """Return x with g(x) = z for |z| < 1: a start that is good to 2e-3 (S. Winitzki), then steps of Halley."""
    logarithm = log(max((1.0 - z) * (1.0 + z), 1e-16))
    half = 2.0 / (math.pi * 0.147) + 0.5 * logarithm
    x = math.sqrt(2.0 * (math.sqrt(half * half - logarithm / 0.147) - half))  # that of |z|
    for _ in range(2):
        decay = exp(-0.5 * x * x)
        slope = _SLOPE * max(decay, 1e-15)
        step = (1.0 - decay * erfcx(x * math.sqrt(0.5)) - abs(z)) / slope
        x = max(x - step / (1.0 + 0.5 * x * step), 0.0)
    return math.copysign(x, z)


@inlined
def insert(edges, count, y, reach):
    """Insert y into the ends of panels edges[:count], which are in order, if it is within the reach."""
    if not (-reach < y < reach) or count >= EDGES:
        return count
    at = count
    while edges[at - 1] > y:
        edges[at] = edges[at - 1]
        at -= 1
    edges[at] = y
    return count + 1


@inlined
def _output(level, pattern, y, target, mean, A, c, spread):
    """Return the output less the target at y with the deeper units at the ends of their ranges that `pattern` says."""
    total = c[level] * value(mean[level, level] + A[level, level] * y) - target
    for i in range(level + 1, c.size):
        end = spread[level, i] if (pattern >> (i - level - 1)) & 1 else -spread[level, i]
        total += c[i] * value(mean[level, i] + A[i, level] * y + end)
    return total


@_compiled
def _insert_roots(level, target, reach, mean, A, c, spread, edges, count):
    """Insert where the output with the deeper units at the ends of their range is the target: scan, then Illinois."""
    step = 2.0 * reach / _SCAN
    for pattern in range(1 << (c.size - 1 - level)):
        low = -reach
        f_low = _output(level, pattern, low, target, mean, A, c, spread)
        for interval in range(_SCAN):
            high = -reach + step * (interval + 1)
            f_high = _output(level, pattern, high, target, mean, A, c, spread)
            if (f_low < 0.0) != (f_high < 0.0):
                a, b, f_a, f_b, side = low, high, f_low, f_high, 0
                y = a
                for _ in range(60):
                    y = (a * f_b - b * f_a) / (f_b - f_a)
                    f = _output(level, pattern, y, target, mean, A, c, spread)
                    if (f < 0.0) == (f_b < 0.0):
                        b, f_b = y, f
                        f_a *= 0.5 if side == 1 else 1.0
                        side = 1
                    else:
                        a, f_a = y, f
                        f_b *= 0.5 if side == -1 else 1.0
                        side = -1
                    if abs(f) < 1e-13 or b - a < 1e-13:
                        break
                count = insert(edges, count, y, reach)
            low, f_low = high, f_high
    return count


@inlined
def _distance(i, level, rule, A, spread):
    """Return the scale in this level's y on which unit i bends."""
    if i == level:
        return rule.bend / abs(A[i, level])
    deviation = spread[level, i] / rule.reach  # of what the deeper levels add, and smooth
    return rule.bend * math.sqrt(1.0 + deviation * deviation) / max(abs(A[i, level]), 1e-300)


@inlined
def _end(i, level, spread, limit):
    """Return the largest abs(mean of x_i) at which unit i bends."""
    return limit[i] + (spread[level, i] if i > level else 0.0)


@inlined
def ends(level, is_split, target, reach, turns, n_turns, rule, mean, A, c, spread, limit, edges):
    """Set the ends of the panels of a level; return their number and, of the last level, where the output is the target."""
    edges[0], edges[1] = -reach, reach
    count = 2
    jump = math.inf
    scale = A[level, level]
    if level == c.size - 1:
        if is_split and abs(target) < abs(c[level]):
            jump = (_inverse(target / c[level]) - mean[level, level]) / scale
            count = insert(edges, count, jump, reach)
    elif is_split:
        count = _insert_roots(level, target, reach, mean, A, c, spread, edges, count)
    for i in range(level, c.size):
        if _distance(i, level, rule, A, spread) < rule.smooth:
            end = _end(i, level, spread, limit)
            count = insert(edges, count, (-mean[level, i] - end) / A[i, level], reach)
            count = insert(edges, count, (-mean[level, i] + end) / A[i, level], reach)
    for i in range(n_turns - 1):
        count = insert(edges, count, 0.5 * (turns[0, i] + turns[0, i + 1]), reach)
    return count, jump


@inlined
def is_broken_at(level, y, target, mean, A, c, spread):
    """Return whether the deeper integrals are split at y."""
    lowest = highest = c[level] * value(mean[level, level] + A[level, level] * y) - target
    for i in range(level + 1, c.size):
        one = c[i] * value(mean[level, i] + A[i, level] * y - spread[level, i])
        other = c[i] * value(mean[level, i] + A[i, level] * y + spread[level, i])
        lowest += min(one, other)
        highest += max(one, other)
    return lowest < 0.0 < highest


@inlined
def place(
    low, high, is_broken, is_graded, level, digits, turns, n_turns, factor, rule, mean, A, spread, limit, to, y, weight
):
    """Write the nodes of a panel and their weights, times `factor` and that of the Gaussian; return how many.

    Near a singularity of the attack's direction y = centre + h sinh t, h its distance: in t it is pi/2 away.
    """
    middle = 0.5 * (low + high)
    distance = rule.smooth
    for i in range(level, limit.size):
        if abs(mean[level, i] + A[i, level] * middle) < _end(i, level, spread, limit):
            distance = min(distance, _distance(i, level, rule, A, spread))
    nearest = max(max(low, -high), 0.0)
    left = max(digits - 0.5 * nearest * nearest, 0.0)
    centre, h = 0.0, math.inf
    for i in range(n_turns):
        if abs(middle - turns[0, i]) < abs(middle - centre) or h == math.inf:
            centre, h = turns[0, i], turns[1, i]
    is_sharp = h < rule.turn
    if is_sharp:
        start, stop = _asinh((low - centre) / h), _asinh((high - centre) / h)
        farthest = _AWAY * max(abs(low - centre), abs(high - centre))
        distance = min(rule.sharp, distance / math.sqrt(h * h + farthest * farthest))
    else:
        start, stop = low, high
        distance = min(distance, h)
    length = stop - start
    if is_broken:
        # the split of the deeper integral may cross its whole range
        distance = min(distance, rule.smooth * 0.5 * length / rule.reach)
    if is_graded:
        distance /= _GRADED
    n = min(math.ceil(_FEWEST + left / (2.0 * _asinh(2.0 * distance / length))), MOST)
    first = np.uint64(n * (n - 1) // 2)
    nodes = rule.graded_nodes if is_graded else rule.nodes
    weights = rule.graded_weights if is_graded else rule.weights
    factor *= _GAUSS * length
    y, weight = np.uint64(y), np.uint64(weight)  # an index that cannot be negative keeps the loop simple
    if is_sharp:
        for i in range(np.uint64(n)):
            growth = exp(start + length * nodes[first + i])
            z = centre + 0.5 * h * (growth - 1.0 / growth)
            to[y + i] = z
            to[weight + i] = factor * weights[first + i] * 0.5 * h * (growth + 1.0 / growth) * exp(-0.5 * z * z)
    else:
        for i in range(np.uint64(n)):
            z = start + length * nodes[first + i]
            to[y + i] = z
            to[weight + i] = factor * weights[first + i] * exp(-0.5 * z * z)
    return n
