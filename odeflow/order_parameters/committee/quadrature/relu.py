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

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.order_parameters.committee.quadrature.cells import (
    BLOCK,
    MOST,
    bit,
    compiled,
    fill_cells,
    is_possible,
    views,
    views_size,
)
from odeflow.order_parameters.committee.quadrature.points import add_difference, normal_points, points_scratch
from odeflow.order_parameters.committee.quadrature.sums import MARGIN, PGD, WORST, layout
from odeflow.order_parameters.committee.units import RELU

__all__ = ["ReluRule", "add_averages_relu", "rule", "scratch"]


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


def rule(K: int, tolerance: float, points: int = 2**13) -> ReluRule:
    """Return the nodes with which the averages of K units are good to about `tolerance`.

    Parameters
    ----------
    K
        Number of hidden units, >= 1.
    tolerance
        Largest error of an average, in units of the cluster's mean square error, in [1e-12, 0.1].
    points
        Number of points for PGD and the worst case, a power of 2.

    Returns
    -------
    ReluRule
    """
    from scipy.stats import chi2

    columns = -(-MOST // BLOCK) * BLOCK
    nodes, weights = np.zeros((2, MOST + 1, columns))
    for n in range(1, MOST + 1):
        nodes[n, :n], weights[n, :n] = np.polynomial.legendre.leggauss(n)
    digits = -math.log10(tolerance)
    return ReluRule(
        nodes,
        weights / math.sqrt(2 * math.pi),
        float(chi2.isf(tolerance / 10, K)),
        1.0 + 0.4 * digits,
        0.3 + 0.25 * digits,
        normal_points(K, points),
    )


@compiled
def scratch(K, rule):
    """Return the length of `work` for `add_averages_relu`."""
    return max(views_size(K), points_scratch(K))


@compiled
def _add_cells(K, m, c, b, tau, share, space, sums):
    """Add the averages over the cells, and empty them."""
    s_y, s_d, s_s, e_g, e, e_e = layout(K, K)
    A, shift, d = space.A, space.shift, space.d
    for units in range(2**K):
        cell = space.cells[units]
        if not np.any(cell):
            continue
        cell *= share
        sums[e] += cell[0]
        total = (b - tau) * cell[0]  # e e
        for k in range(K):
            if not bit(units, k):
                continue
            g = (m[k] + shift[k]) * cell[0]  # e x_k at the attacked example
            for i in range(k + 1):
                g += A[k, i] * cell[1 + i]
            sums[e_g + k] += g
            total += c[k] * g
            sums[k] -= c[k] * cell[0]
            for i in range(K):
                sums[s_y + k * K + i] -= c[k] * cell[1 + i]
                sums[s_d + k * K + i] -= c[k] * d[i] * cell[0]
        sums[e_e] += total
        for k in range(K):
            for i in range(K):
                if bit(units, k) and bit(units, i):
                    sums[s_s + k * K + i] += c[k] * c[i] * total
        cell[:] = 0.0


@compiled
def _add_averages_cells(m, v, L, Q, c, b, tau, epsilon, is_margin, share, rule, work, sums):
    """`add_averages_relu` under FGSM, or the margin attack."""
    K = m.size
    space = views(K, work)
    root = math.sqrt(v)
    for k in range(K):
        for i in range(K):
            space.A[k, i] = root * L[k, i] if i <= k else 0.0
        for j in range(k + 1):
            spread = 0.0
            for i in range(j, k + 1):
                spread += space.A[k, i] * space.A[k, i]
            space.spread[j, k] = math.sqrt(spread)
        space.centre[0, k] = m[k]
    space.cells[:] = 0.0
    space.clean[0] = space.attacked[0] = b - tau
    space.left[0] = rule.reach
    space.weight[0] = 1.0
    for S in range(2**K):
        length = 0.0
        for k in range(K):
            space.d[k] = 0.0
            for i in range(K):
                if bit(S, k) and bit(S, i):
                    length += c[k] * Q[k, i] * c[i]
        is_attacked = epsilon > 0.0 and length > 0.0
        for turn in range(2 if is_attacked and not is_margin else 1):
            sign = 1.0 - 2.0 * turn
            space.cut[0] = is_attacked and not is_margin
            space.cut_panel[0] = space.cut[0]
            if is_attacked:
                size = epsilon * (-tau if is_margin else sign) / math.sqrt(length)
                for k in range(K):
                    space.d[k] = size * c[k] if bit(S, k) else 0.0
            for k in range(K):
                space.shift[k] = 0.0
                for i in range(K):
                    space.shift[k] += Q[k, i] * space.d[i]
            space.centre[0, K] = b - tau
            for k in range(K):
                space.slope[k] = 0.0
                for i in range(k, K):
                    if bit(S, i):
                        space.slope[k] += c[i] * space.A[i, k]
                if bit(S, k):
                    space.centre[0, K] += c[k] * m[k]
            spread = 0.0
            for j in range(K - 1, -1, -1):
                spread += space.slope[j] * space.slope[j]
                space.spread[j, K] = math.sqrt(spread)
            if is_possible(0, K, S, sign, space):
                space.cut_panel[0] = space.cut[0]
                fill_cells(K, S, sign, c, rule, space)
                _add_cells(K, m, c, b, tau, share, space, sums)


@compiled
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
