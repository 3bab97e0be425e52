r"""Averages over the fields of ReLU units: exact moments along the last coordinate, panels over the others.

Let S be the units that are active at :math:`x = m + \sqrt v\,L y` and :math:`\sigma = \mathrm{sgn}(\phi - \tau)`. While both
stay the same, FGSM moves the fields by one *constant* vector, :math:`\tilde x = x + \Delta`,

.. math:: \Delta = \varepsilon\sigma\,\frac{Q u}{\sqrt{u^T Q u}}, \qquad u_k = c_k \text{ on } S, \text{ else } 0,

so that the units active at the attacked example change on planes :math:`x_k = -\Delta_k`. A *cell* (S, :math:`\sigma`,
:math:`\tilde S`) is therefore a box of x, cut by one half-space :math:`\sigma\,(\sum_{k\in S} c_k x_k - t) > 0`, :math:`t =
\tau - b`; on it :math:`\tilde e = b + \sum_{k\in\tilde S} c_k\tilde x_k - \tau` is linear, and all averages follow from
:math:`\langle\tilde e\rangle` and :math:`\langle\tilde e\,y_j\rangle` of the cell. The margin attack and :math:`\varepsilon =
0` have no half-space.

Along the last coordinate, given the others, the cell is an interval, whose Gaussian moments are closed. Level j < K of the
others is an interval as well, and what lies behind it is smooth in y_j between the places where a corner of the deeper
box meets the half-space: there it is split, and Gauss-Legendre panels converge geometrically. With one unit nothing is left
to integrate.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import called, once
from odeflow.order_parameters.committee.quadrature.cells import (
    CENTRE,
    CLEAN,
    CUT,
    LEFT,
    MOST,
    OUTPUT,
    SHIFT,
    SLOPE,
    SPREAD,
    SUM_SPREAD,
    WEIGHT,
    A,
    D,
    bit,
    fill_cells,
    is_possible,
    space_of,
    space_size,
)
from odeflow.order_parameters.committee.quadrature.points import add_difference, normal_points, points_scratch
from odeflow.order_parameters.committee.quadrature.sums import MARGIN, PGD, WORST, layout
from odeflow.order_parameters.committee.states import MOST_UNITS
from odeflow.order_parameters.committee.units import RELU

__all__ = ["ReluRule", "add_averages_relu", "rule", "scratch"]

_TINY = 1e-100


class ReluRule(NamedTuple):
    """Nodes of the quadrature, made by `rule`."""

    nodes: npt.NDArray[np.float64]
    """Row n: the n Gauss-Legendre nodes on [-1, 1], then zeros."""
    weights: npt.NDArray[np.float64]
    """Their weights over sqrt(2 pi), then zeros."""
    reach: float
    """Squared length of y_1..y_{K-1} up to which they are integrated."""
    least: float
    """Nodes of a short panel."""
    density: float
    """Nodes for a unit of length."""
    points: npt.NDArray[np.float64]
    """Points y for PGD and the worst case, shape (points, K)."""


@functools.cache
def _panels() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the nodes and weights of `ReluRule`."""
    nodes, weights = np.zeros((2, MOST + 1, MOST))
    for n in range(1, MOST + 1):
        nodes[n, :n], weights[n, :n] = np.polynomial.legendre.leggauss(n)
    return nodes, weights / math.sqrt(2 * math.pi)


def rule(K: int, tolerance: float, points: int = 2**13) -> ReluRule:
    """Return the nodes with which the averages of K units are good to about `tolerance`.

    Parameters
    ----------
    K
        Number of hidden units, from 1 to `MOST_UNITS`.
    tolerance
        Largest error of an average, in units of the cluster's mean square error, in [1e-12, 0.1].
    points
        Number of points for PGD and the worst case, a power of 2.

    Returns
    -------
    ReluRule

    Raises
    ------
    ValueError
        If there are more units than can be integrated over.
    """
    from scipy.stats import chi2

    if K > MOST_UNITS:
        raise ValueError(
            f"hidden = {K} with activation = 'relu': allowed are 1 to {MOST_UNITS}, each takes some 20 times as long as one less"
        )
    digits = -math.log10(tolerance)
    return ReluRule(
        *_panels(),
        float(chi2.isf(0.03 * tolerance, K)),
        1.0 + 0.4 * digits,
        0.3 + 0.25 * digits,
        normal_points(K, points),
    )


@called
def scratch(K, rule):
    """Return the length of `work` for `add_averages_relu`."""
    return max(space_size(K), points_scratch(K))


@called
def _add_cells(K, m, c, b, tau, share, space, sums):
    """Add the averages over the cells, and empty them."""
    s_y, s_d, s_s, e_g, at_e, e_e = layout(K, K)
    fields, levels = space.fields, space.levels
    for units in range(2**K):
        cell = space.cells[units]
        for i in range(K + 1):
            cell[i] *= share
        e = cell[0]
        sums[at_e] += e
        square = (b - tau) * e
        for k in range(K):
            if not bit(units, k):
                continue
            g = (m[k] + levels[k, SHIFT]) * e  # e times the attacked field
            for i in range(k + 1):
                g += fields[A, k, i] * cell[1 + i]
            square += c[k] * g
            sums[e_g + k] += g
            sums[k] -= c[k] * e
            for i in range(K):
                sums[s_y + k * K + i] -= c[k] * cell[1 + i]
                sums[s_d + k * K + i] -= c[k] * levels[i, D] * e
        sums[e_e] += square
        for k in range(K):
            for i in range(K):
                if bit(units, k) and bit(units, i):
                    sums[s_s + k * K + i] += c[k] * c[i] * square
        for i in range(K + 1):
            cell[i] = 0.0


@once
def _add_averages_cells(m, v, L, Q, c, b, tau, epsilon, is_margin, share, rule, work, sums):
    """`add_averages_relu` under FGSM, or the margin attack."""
    K = m.size
    space = space_of(K, work)
    fields, levels, counts = space.fields, space.levels, space.counts
    space.cells[:] = 0.0
    levels[0, CLEAN], levels[0, LEFT], levels[0, WEIGHT] = b - tau, rule.reach, 1.0
    total = b
    for k in range(K):
        total += m[k] + c[k]
        fields[CENTRE, 0, k] = m[k]
        square = 0.0
        for back in range(k + 1):
            j = k - back
            fields[A, k, j] = math.sqrt(v) * L[k, j]
            total += fields[A, k, j]
            if j == k:  # fields without spread fall on one side or the other
                fields[A, k, k] = max(fields[A, k, k], _TINY)
            square += fields[A, k, j] ** 2
            fields[SPREAD, j, k] = math.sqrt(square)
    if not math.isfinite(total):  # a step of a solver that went too far
        sums[:] = np.nan
        return
    for S in range(2**K):
        square = 0.0
        centre = b - tau
        for k in range(K):
            if bit(S, k):
                centre += c[k] * m[k]
                for i in range(K):
                    square += c[k] * Q[k, i] * c[i] if bit(S, i) else 0.0
        is_attacked = epsilon > 0.0 and square > 0.0
        signs = 2 if is_attacked and not is_margin else 1
        levels[0, OUTPUT] = centre
        for k in range(K):
            squares = 0.0
            for back in range(K):
                j = K - 1 - back
                fields[SLOPE, j, k] = fields[SLOPE, j, k - 1] if k > 0 else 0.0
                if bit(S, k) and j <= k:
                    fields[SLOPE, j, k] += c[k] * fields[A, k, j]
                squares += fields[SLOPE, j, k] ** 2
                fields[SUM_SPREAD, j, k] = math.sqrt(squares)
            fields[SUM_SPREAD, K, k] = 0.0
        for turn in range(signs):
            sign = 1.0 - 2.0 * turn
            size = 0.0
            if is_attacked:
                size = epsilon * (-tau if is_margin else sign) / math.sqrt(square)
            for k in range(K):
                levels[k, D] = size * c[k] if bit(S, k) else 0.0
            for k in range(K):
                levels[k, SHIFT] = 0.0
                for i in range(K):
                    levels[k, SHIFT] += Q[k, i] * levels[i, D]
            counts[0, CUT] = signs - 1
            if is_possible(0, K, S, sign, space):
                fill_cells(K, S, sign, c, rule, space)
                _add_cells(K, m, c, b, tau, share, space, sums)


@called
def add_averages_relu(m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums):
    """Add `share` times the averages over x = m + sqrt(v) L y, y normal, to `sums`.

    Exact up to the rule's tolerance for FGSM and the margin attack; that of the points for PGD and the worst case.

    Parameters
    ----------
    m, L, Q, c
        Mean of the fields less the thresholds, Cholesky factor of Q, overlaps of the weights, output weights: K, K x K.
    v, b, tau, epsilon, share
        Variance of the cluster, output bias, label, largest length of the move, factor.
    how
        An `odeflow.order_parameters.committee.quadrature.sums.Attack`.
    rule
        Of `rule`.
    work
        Scratch of `scratch(K, rule)` floats.
    sums
        Layout of `odeflow.order_parameters.committee.quadrature.sums` with n = K.
    """
    _add_averages_cells(m, v, L, Q, c, b, tau, epsilon, how.kind == MARGIN, share, rule, work, sums)
    if epsilon > 0.0 and (how.kind == PGD or how.kind == WORST):
        add_difference(RELU, m, v, L, Q, c, b, tau, epsilon, how, share, rule.points, work, sums)
