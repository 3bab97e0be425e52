r"""Averages over the fields of units :math:`g(x) = \mathrm{erf}(x/\sqrt2)`, by nested quadrature split where an integrand breaks.

The fields are :math:`x = m + \sqrt v\,L y`, :math:`y \sim N(0, I_K)`, the innermost integral is over :math:`y_K`. The
integrand is smooth except where the attack jumps: FGSM on :math:`\phi = \tau`. The last integral is split there: :math:`x_K
= g^{-1}((\tau - b_0 - \sum_{k<K} c_k g(x_k))/c_K)`. As a function of an outer coordinate what is left breaks where that
point leaves the range of the inner ones: at

.. math:: c_l\,g(x_l) + \sum_{i>l} c_i\,g(\bar x_i \pm R\,\sigma_i) = \tau - b_0 - \sum_{k<l} c_k\,g(x_k),

:math:`\bar x_i` the mean of a deeper field given :math:`y_1..y_l`, :math:`\sigma_i` its standard deviation, R the reach: there
the panels of :math:`y_l` end. Between such ends the outer integrand is a Gaussian tail or, where the tail runs into the
saturation of g, has powers :math:`\delta^{1/(v Q)}` of the distance to them: those panels are graded, y =
S(u) with S' of second order zeros at both ends, in which Gauss-Legendre converges fast.

The worst case jumps elsewhere: for one or two units its ends are found by halving, see
`odeflow.order_parameters.committee.quadrature.erf_jumps`. PGD, and the worst case of more, are averaged over the nodes of FGSM.

Nodes: the ball :math:`|y| < R`, which is :math:`\sqrt{2 D}` of :math:`D = \ln(1/\mathrm{tolerance})` + a constant; a panel of
length h gets :math:`D'/(2\,\mathrm{arsinh}(2\delta/h))` nodes, which is what Gauss-Legendre needs to gain exp(-D') with
the nearest singularity at the distance :math:`\delta` from the middle of the panel; D' is what of D is not yet gained by the
Gaussian weight. Both :math:`\delta` (for the Gaussian and the units) and the constant are found by trial, see `rule`.
"""

from __future__ import annotations

import math

import numba
import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import inlined
from odeflow.order_parameters.committee.quadrature.erf_block import BLOCK, add_block, block_scratch, n_rows
from odeflow.order_parameters.committee.quadrature.erf_jumps import cut, jumps_scratch
from odeflow.order_parameters.committee.quadrature.erf_panels import (
    EDGES,
    MOST,
    NODES,
    SHORTEST,
    WEAK,
    Rule,
    ends,
    is_broken_at,
    place,
    tables,
    value,
)
from odeflow.order_parameters.committee.quadrature.erf_turns import find_turns, most_turns
from odeflow.order_parameters.committee.quadrature.sums import MARGIN, WORST

__all__ = ["Rule", "add_averages_erf", "rule", "scratch"]

Array = npt.NDArray[np.float64]

_compiled = numba.njit(nogil=True, error_model="numpy")


def rule(K: int, tolerance: float) -> Rule:
    """Return the nodes with which the averages of K units are within `tolerance`, absolutely."""
    from scipy.stats import chi2

    # found by trial, see the tests: with more units fewer nodes a dimension do, since few contributions are near the largest
    smooth, bend = {1: (1.6, 0.9), 2: (2.0, 1.2)}.get(K, (2.5, 1.4))
    outside = 0.05 if K <= 2 else 0.1  # the part of the tolerance that lies beyond the reach
    digits = 0.5 * float(chi2.isf(min(outside * tolerance, 0.5), K))
    return Rule(digits, math.sqrt(2.0 * digits), smooth, bend, 1.2, 1.2, *tables())


@inlined
def scratch(K, rule):
    """Return the size of the array `work`."""
    return (
        n_rows(K) * BLOCK
        + 2 * K * NODES
        + EDGES
        + 3 * K * K
        + 8 * K
        + 2 * most_turns(K)
        + jumps_scratch(K)
        + block_scratch(K)
    )


@inlined
def _fill(to, start, n, value):
    """Set to[start : start + n] to the value."""
    first = np.uint64(start)
    for i in range(np.uint64(n)):
        to[first + i] = value


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
    is_searched = is_split and how.kind == WORST and K <= 2  # beyond that it would take three times as long
    size = n_rows(K) * BLOCK
    rows = work[:size].reshape((n_rows(K), BLOCK))
    start = size
    nodes = start  # of level l: y at nodes + 2 l NODES, their weights NODES later
    start += 2 * K * NODES
    edges = work[start : start + EDGES]
    start += EDGES
    matrices = work[start : start + 3 * K * K].reshape((3, K, K))
    start += 3 * K * K
    vectors = work[start : start + 8 * K].reshape((8, K))
    A = matrices[0]  # sqrt(v) L
    spread = matrices[1]  # of level l and unit i: R times the deviation of x_i given y up to this level
    mean = matrices[2]  # of level l and unit i: the mean of x_i given y before this level
    y, factor, digits, target, limit = vectors[0], vectors[1], vectors[2], vectors[3], vectors[4]
    length, position, x = vectors[5], vectors[6], vectors[7]
    start += 8 * K
    turns = work[start : start + 2 * most_turns(K)].reshape(
        (2, most_turns(K))
    )  # of a level: their y, and their distance
    start += 2 * most_turns(K)
    search = work[start : start + jumps_scratch(K)]
    start += jumps_scratch(K)

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
    is_new = True
    while level >= 0:
        if is_new:
            n_turns = 0
            if epsilon > 0.0:
                n_turns = find_turns(level, x, Q, c, rule, mean, A, spread, limit, turns)
            reach = math.sqrt(2.0 * max(digits[level], 0.0))
            by_formula = is_split and not is_searched
            n_edges, jump = ends(
                level, by_formula, target[level], reach, turns, n_turns, rule, mean, A, c, spread, limit, edges
            )
            if is_searched:
                n_edges = cut(
                    level, digits[level], reach, x, mean, A, Q, c, b, tau, epsilon, how, search, edges, n_edges
                )
            has_powers = False  # 1/(v Q) so small that the ends of panels are felt
            for i in range(level + 1, K):
                has_powers = has_powers or spread[level, i] > WEAK * rule.reach
            total = 0
            for i in range(n_edges - 1):
                low, high = edges[i], edges[i + 1]
                if high - low < SHORTEST:
                    continue
                is_broken, is_graded = False, False
                if level == last:
                    if count + MOST > BLOCK:
                        add_block(
                            count,
                            rows,
                            m,
                            A,
                            Q,
                            c,
                            b,
                            tau,
                            epsilon,
                            how,
                            work[start : start + block_scratch(K)],
                            share,
                            sums,
                        )
                        count = 0
                    y_at, weight_at = last * BLOCK + count, K * BLOCK + count
                else:
                    is_broken = is_searched  # perhaps
                    if by_formula:
                        is_broken = is_broken_at(level, 0.5 * (low + high), target[level], mean, A, c, spread)
                    is_graded = is_broken and has_powers and (low > -reach or high < reach)
                    y_at = nodes + 2 * level * NODES + total
                    weight_at = y_at + NODES
                n = place(
                    low,
                    high,
                    is_broken,
                    is_graded,
                    level,
                    digits[level],
                    turns,
                    n_turns,
                    factor[level],
                    rule,
                    mean,
                    A,
                    spread,
                    limit,
                    work,
                    y_at,
                    weight_at,
                )
                total += n
                if level == last:
                    sign = -tau
                    if by_formula and jump == math.inf:
                        sign = -1.0 if target[level] > 0.0 else 1.0
                    elif by_formula:
                        sign = 1.0 if (low + high > 2.0 * jump) == (c[last] > 0.0) else -1.0
                    for k in range(last):
                        _fill(work, k * BLOCK + count, n, y[k])
                    _fill(work, (K + 1) * BLOCK + count, n, sign)
                    count += n
            length[level], position[level] = total, 0.0
            is_new = False
        if level == last or position[level] == length[level]:
            level -= 1
            continue
        node = nodes + 2 * level * NODES + int(position[level])
        position[level] += 1.0
        z = work[node]
        y[level] = z
        inner = level + 1
        factor[inner] = work[node + NODES]
        digits[inner] = digits[level] - 0.5 * z * z
        x[level] = mean[level, level] + A[level, level] * z
        target[inner] = target[level] - c[level] * value(x[level])
        for i in range(inner, K):
            mean[inner, i] = mean[level, i] + A[i, level] * z
        level = inner
        is_new = True
    if count > 0:
        add_block(count, rows, m, A, Q, c, b, tau, epsilon, how, work[start : start + block_scratch(K)], share, sums)
