r"""Averages over the fields of units :math:`g(x) = \mathrm{erf}(x/\sqrt2)`, by nested quadrature split where an integrand breaks.

The fields are :math:`x = m + \sqrt v\,L y`, :math:`y \sim N(0, I_K)`, the innermost integral is over :math:`y_K`. The
integrand is smooth except on :math:`\phi = \tau`, where FGSM changes its side. The last integral is split there: :math:`x_K
= g^{-1}((\tau - b_0 - \sum_{k<K} c_k g(x_k))/c_K)`. As a function of an outer coordinate what is left breaks where that
point leaves the range of the inner ones: at

.. math:: c_l\,g(x_l) + \sum_{i>l} c_i\,g(\bar x_i \pm R\,\sigma_i) = \tau - b_0 - \sum_{k<l} c_k\,g(x_k),

:math:`\bar x_i` the mean of a deeper field given :math:`y_1..y_l`, :math:`\sigma_i` its standard deviation, R the reach: there
the panels of :math:`y_l` end. Between such ends the outer integrand is a Gaussian tail or, where the tail runs into the
saturation of g, has powers :math:`\delta^{1/(v Q)}` of the distance to them: those panels are graded, y =
S(u) with S' of second order zeros at both ends, in which Gauss-Legendre converges fast.

Nodes: the ball :math:`|y| < R`, which is :math:`\sqrt{2 D}` of :math:`D = \ln(1/\mathrm{tolerance})` + a constant; a panel of
length h gets :math:`D'/(2\,\mathrm{arsinh}(2\delta/h))` nodes, which is what Gauss-Legendre needs to gain exp(-D') with
the nearest singularity at the distance :math:`\delta` from the middle of the panel; D' is what of D is not yet gained by the
Gaussian weight. Both :math:`\delta` (for the Gaussian and the units) and the constant are found by trial, see `rule`.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import inlined
from odeflow.numerics.elementary import exp
from odeflow.order_parameters.committee.quadrature.erf_block import BLOCK, add_block, n_rows
from odeflow.order_parameters.committee.quadrature.sums import MARGIN

__all__ = ["Rule", "add_averages_erf", "rule", "scratch"]

Array = npt.NDArray[np.float64]

_MOST = 64  # nodes of a panel
_EDGES = 40  # ends of panels of a level, at most
_NODES = _MOST * _EDGES
_SHORTEST = 1e-12  # panel
_FEWEST = 2.0  # nodes of a panel that is hardly needed
_SCAN = 12  # intervals in which the ends of panels are looked for
_GRADED = 15.0 / 8.0  # the largest slope of S
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
    """Distance of the singularities of an attacked unit, in x."""
    nodes: Array
    """Gauss-Legendre on (0, 1) with n = 1, 2.. nodes, one after another: that with n nodes begins at n(n - 1)/2."""
    weights: Array
    graded_nodes: Array
    """The same nodes mapped by S(u) = u^3 (10 - 15 u + 6 u^2)."""
    graded_weights: Array


@cache
def _tables() -> tuple[Array, Array, Array, Array]:
    pairs = [np.polynomial.legendre.leggauss(n) for n in range(1, _MOST + 1)]
    u = np.concatenate([0.5 + 0.5 * x for x, _ in pairs])
    w = np.concatenate([0.5 * w for _, w in pairs])
    return u, w, u**3 * (10.0 - 15.0 * u + 6.0 * u * u), w * 30.0 * (u * (1.0 - u)) ** 2


def rule(K: int, tolerance: float) -> Rule:
    """Return the nodes with which the averages of K units are within `tolerance`, absolutely."""
    digits = math.log(1.0 / tolerance) + 1.0
    return Rule(digits, math.sqrt(2.0 * digits), 2.0, 1.0, *_tables())


@inlined
def scratch(K, rule):
    """Return the size of the array `work`."""
    return n_rows(K) * BLOCK + 2 * K * _NODES + _EDGES + 3 * K * K + 7 * K


@inlined
def _g(x):
    return math.erf(x * math.sqrt(0.5))


@_compiled
def _inverse(z):
    """Return x with g(x) = z for |z| < 1: a start that is good to 2e-3 (S. Winitzki), then steps of Halley."""
    logarithm = math.log((1.0 - z) * (1.0 + z))
    half = 2.0 / (math.pi * 0.147) + 0.5 * logarithm
    x = math.copysign(math.sqrt(2.0 * (math.sqrt(half * half - logarithm / 0.147) - half)), z)
    for _ in range(2):
        slope = math.sqrt(2.0 / math.pi) * math.exp(-0.5 * x * x)
        if slope < 1e-14:
            break
        step = (_g(x) - z) / slope
        x -= step / (1.0 + 0.5 * x * step)
    return x


@inlined
def _insert(edges, count, y, reach):
    """Insert y into the ends of panels edges[:count], which are in order, if it is within the reach."""
    if not (-reach < y < reach) or count >= _EDGES:
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
    total = c[level] * _g(mean[level] + A[level, level] * y) - target
    for i in range(level + 1, c.size):
        end = spread[i] if (pattern >> (i - level - 1)) & 1 else -spread[i]
        total += c[i] * _g(mean[i] + A[i, level] * y + end)
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
                count = _insert(edges, count, y, reach)
            low, f_low = high, f_high
    return count


@inlined
def _distance(i, level, rule, A, spread, reach):
    """Return how far from the axis of this level's y the nearest singularity is that unit i makes where it bends."""
    if i == level:
        return rule.bend / abs(A[i, level])
    deviation = spread[i] / reach  # of what the deeper levels add, and smooth
    return rule.bend * math.sqrt(1.0 + deviation * deviation) / max(abs(A[i, level]), 1e-300)


@_compiled
def _panels(level, is_split, target, reach, rule, mean, A, c, spread, limit, edges):
    """Set the ends of the panels of an outer level; return their number."""
    edges[0], edges[1] = -reach, reach
    count = 2
    if is_split:
        count = _insert_roots(level, target, reach, mean, A, c, spread, edges, count)
    for i in range(level, c.size):
        if _distance(i, level, rule, A, spread, rule.reach) < rule.smooth:
            end = limit[i] + (spread[i] if i > level else 0.0)
            count = _insert(edges, count, (-mean[i] - end) / A[i, level], reach)
            count = _insert(edges, count, (-mean[i] + end) / A[i, level], reach)
    return count


@inlined
def _is_broken(level, y, target, mean, A, c, spread):
    """Return whether the deeper integrals are split at y."""
    lowest = highest = c[level] * _g(mean[level] + A[level, level] * y) - target
    for i in range(level + 1, c.size):
        one = c[i] * _g(mean[i] + A[i, level] * y - spread[i])
        other = c[i] * _g(mean[i] + A[i, level] * y + spread[i])
        lowest += min(one, other)
        highest += max(one, other)
    return lowest < 0.0 < highest


@inlined
def _count(low, high, is_graded, level, digits, rule, mean, A, spread, limit):
    """Return the number of nodes of a panel."""
    middle = 0.5 * (low + high)
    distance = rule.smooth
    for i in range(level, mean.size):
        end = limit[i] + (spread[i] if i > level else 0.0)
        if abs(mean[i] + A[i, level] * middle) < end:
            distance = min(distance, _distance(i, level, rule, A, spread, rule.reach))
    length = high - low
    if is_graded:
        # the split of the deeper integral crosses its whole range
        distance = min(distance, rule.smooth * 0.5 * length / rule.reach) / _GRADED
    nearest = max(max(low, -high), 0.0)
    left = max(digits - 0.5 * nearest * nearest, 0.0)
    return min(math.ceil(_FEWEST + left / (2.0 * math.asinh(2.0 * distance / length))), _MOST)


@inlined
def _place(low, high, n, is_graded, factor, rule, y, weight, at):
    """Write the nodes of a panel and their weights, times `factor` and that of the Gaussian."""
    first = n * (n - 1) // 2
    length = high - low
    nodes = rule.graded_nodes if is_graded else rule.nodes
    weights = rule.graded_weights if is_graded else rule.weights
    nodes, weights = nodes[first : first + n], weights[first : first + n]
    y, weight = y[at : at + n], weight[at : at + n]
    factor *= _GAUSS * length
    for i in range(n):
        z = low + length * nodes[i]
        y[i] = z
        weight[i] = factor * weights[i] * exp(-0.5 * z * z)


@_compiled
def _outer_nodes(level, is_split, target, digits, rule, mean, A, c, spread, limit, edges, y, weight):
    """Write the nodes of an outer level; return their number."""
    reach = math.sqrt(2.0 * max(digits, 0.0))
    n_edges = _panels(level, is_split, target, reach, rule, mean, A, c, spread, limit, edges)
    total = 0
    for i in range(n_edges - 1):
        low, high = edges[i], edges[i + 1]
        if high - low < _SHORTEST:
            continue
        is_graded = is_split and _is_broken(level, 0.5 * (low + high), target, mean, A, c, spread)
        n = _count(low, high, is_graded, level, digits, rule, mean, A, spread, limit)
        _place(low, high, n, is_graded, 1.0, rule, y, weight, total)
        total += n
    return total


@_compiled
def _line(is_split, target, digits, rule, mean, A, c, spread, limit, edges):
    """Set the ends of the panels of the last level in `edges`; return their number and where the output is the target."""
    last = c.size - 1
    reach = math.sqrt(2.0 * max(digits, 0.0))
    scale = A[last, last]
    edges[0], edges[1] = -reach, reach
    count = 2
    if _distance(last, last, rule, A, spread, rule.reach) < rule.smooth:
        count = _insert(edges, count, (-mean[last] - limit[last]) / scale, reach)
        count = _insert(edges, count, (-mean[last] + limit[last]) / scale, reach)
    jump = math.inf
    if is_split and abs(target) < abs(c[last]):
        jump = (_inverse(target / c[last]) - mean[last]) / scale
        count = _insert(edges, count, jump, reach)
    return count, jump


@_compiled
def add_averages_erf(m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums):
    r"""Add `share` times the averages over :math:`x = m + \sqrt v\,L y` to `sums`.

    Parameters
    ----------
    m, v, L, Q
        Means of the fields less the thresholds, shape (K,); the cluster's variance; the lower Cholesky factor of the weights'
        Gram matrix, and that matrix, shape (K, K).
    c, b, tau
        Output weights, of either sign or 0, shape (K,); output bias; label.
    epsilon, how
        Size of the attack and its kind.
    rule, work
        Nodes, and an array of `scratch` floats that is written over.
    sums
        The averages, in the order of `odeflow.order_parameters.committee.quadrature.sums`, n = K.
    """
    K = c.size
    last = K - 1
    is_split = epsilon > 0.0 and how.kind != MARGIN
    size = n_rows(K) * BLOCK
    rows = work[:size].reshape((n_rows(K), BLOCK))
    start = size
    nodes = work[start : start + 2 * K * _NODES].reshape((2, K, _NODES))
    start += 2 * K * _NODES
    edges = work[start : start + _EDGES]
    start += _EDGES
    matrices = work[start : start + 3 * K * K].reshape((3, K, K))
    start += 3 * K * K
    vectors = work[start : start + 7 * K].reshape((7, K))
    A = matrices[0]  # sqrt(v) L
    spread = matrices[1]  # of level l and unit i: R times the deviation of x_i given y up to this level
    mean = matrices[2]  # of level l and unit i: the mean of x_i given y before this level
    y, factor, digits, target, limit = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4]
    length, position = vectors[5], vectors[6]

    root = math.sqrt(v)
    for i in range(K):
        mean[0, i] = m[i]
        limit[i] = rule.reach + epsilon * math.sqrt(Q[i, i])
        total = 0.0
        for j in range(i, -1, -1):
            A[i, j] = root * L[i, j]
            spread[j, i] = rule.reach * math.sqrt(total)
            total += A[i, j] * A[i, j]
    factor[0], digits[0], target[0] = 1.0, rule.digits, tau - b

    count = 0  # nodes in the block
    level = 0
    length[0], position[0] = -1.0, 0.0
    while level >= 0:
        if level == last:
            n_edges, jump = _line(
                is_split, target[level], digits[level], rule, mean[level], A, c, spread[level], limit, edges
            )
            for i in range(n_edges - 1):
                low, high = edges[i], edges[i + 1]
                if high - low < _SHORTEST:
                    continue
                n = _count(low, high, False, last, digits[level], rule, mean[level], A, spread[level], limit)
                if count + n > BLOCK:
                    add_block(count, rows, m, A, Q, c, b - tau, epsilon, share, sums)
                    count = 0
                if not is_split:
                    sign = -tau
                elif jump == math.inf:
                    sign = -1.0 if target[level] > 0.0 else 1.0
                else:
                    sign = 1.0 if (low + high > 2.0 * jump) == (c[last] > 0.0) else -1.0
                _place(low, high, n, False, factor[level], rule, rows[last], rows[K], count)
                for k in range(last):
                    row = rows[k, count : count + n]
                    for j in range(n):
                        row[j] = y[k]
                row = rows[K + 1, count : count + n]
                for j in range(n):
                    row[j] = sign
                count += n
            level -= 1
            continue
        if length[level] < 0.0:
            length[level] = _outer_nodes(
                level,
                is_split,
                target[level],
                digits[level],
                rule,
                mean[level],
                A,
                c,
                spread[level],
                limit,
                edges,
                nodes[0, level],
                nodes[1, level],
            )
        if position[level] == length[level]:
            level -= 1
            continue
        node = int(position[level])
        position[level] += 1.0
        z = nodes[0, level, node]
        y[level] = z
        inner = level + 1
        factor[inner] = factor[level] * nodes[1, level, node]
        digits[inner] = digits[level] - 0.5 * z * z
        target[inner] = target[level] - c[level] * _g(mean[level, level] + A[level, level] * z)
        for i in range(inner, K):
            mean[inner, i] = mean[level, i] + A[i, level] * z
        length[inner], position[inner] = -1.0, 0.0
        level = inner
    if count > 0:
        add_block(count, rows, m, A, Q, c, b - tau, epsilon, share, sums)
