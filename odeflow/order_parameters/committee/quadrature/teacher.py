r"""Averages over the fields of a student and its teacher, under FGSM on the loss.

With :math:`X = (\lambda, \nu) = L y`, :math:`y \sim N(0, I_{K+M})`, :math:`L L^T = C = (Q, R; R^T, T)`, the student's output
:math:`\phi = b + \sum_k c_k g(\lambda_k - \theta_k)` and the label :math:`\tau = \sum_n c^*_n g(\nu_n)`. Given
:math:`\lambda`, FGSM asks only for the sign of :math:`\phi - \tau`, and the attacked output is the same for all labels on one
side. So the averages over :math:`\nu` are moments of :math:`\tau` on one side
(`odeflow.order_parameters.committee.quadrature.teacher_moments`); on the other they are what is left of the closed whole, and
the student is attacked twice for each :math:`\lambda`.

As functions of :math:`\lambda` the moments are not smooth where :math:`\phi = \pm c^*_1 \pm c^*_2 \ldots`, so each of the
coordinates of :math:`\lambda` is cut where this begins or ends, as in the other files here.

Exact but for the quadrature, whose accuracy is that of the rule.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import called, inlined, once
from odeflow.order_parameters.committee.attacks import attack, attack_scratch, output, worst_output
from odeflow.order_parameters.committee.quadrature import teacher_moments
from odeflow.order_parameters.committee.quadrature.sums import FGSM, WORST, Attack, layout, width
from odeflow.order_parameters.committee.quadrature.teacher_block import add_block, block_of, teacher_given
from odeflow.order_parameters.committee.quadrature.teacher_moments import WIDTH, bell
from odeflow.order_parameters.committee.states import MOST_STUDENT, MOST_TEACHER, teacher_is_integrated
from odeflow.order_parameters.committee.units import ERF, unit

__all__ = ["TeacherRule", "add_averages_teacher", "rule", "scratch"]

Array = npt.NDArray[np.float64]

_ROOT_HALF = math.sqrt(0.5)
_SLOPE = math.sqrt(2.0 / math.pi)

_MOST = 64  # nodes of a panel
_MOST_GRADED = 96
_THRESHOLDS = 16  # of a point, at most
_SCAN = 24  # intervals in which a crossing is looked for
_ROOTS = 6  # crossings, at most
_SHARP = 0.5  # width of a crossing below which it has panels of its own


class TeacherRule(NamedTuple):
    """Nodes and weights of panels on (0, 1), and how they are laid."""

    reach: float
    """Where the coordinates y end."""
    least: float
    """Nodes of a short panel of the student's coordinates."""
    density: float
    """Nodes in addition for each unit of length, at fields of variance 1."""
    panels: Array
    """``panels[n - 1, 0, :n]``, ``panels[n - 1, 1, :n]``: nodes and weights of n points."""
    graded: Array
    """The same for the teacher's coordinates but the last."""
    graded_size: float
    """Nodes of these, see `_levels`."""
    last_nodes: Array
    """Of the teacher's last coordinate."""
    last_weights: Array


class _Levels(NamedTuple):
    """What the moments of the teacher take of the rule."""

    reach: float
    graded_nodes: Array
    graded_weights: Array
    last_nodes: Array
    last_weights: Array


def _legendre(n: int) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (1 + nodes) / 2, weights / 2


def _graded(n: int) -> tuple[Array, Array]:
    """Return Gauss-Legendre in t of the integral over t^2 (3 - 2 t): dense at both ends."""
    t, weights = _legendre(n)
    return t * t * (3 - 2 * t), 6 * t * (1 - t) * weights


@cache
def rule(K: int, M: int, tolerance: float = 1e-6) -> TeacherRule:
    """Return the nodes with which the averages of K units and M of the teacher err by about the tolerance.

    Parameters
    ----------
    K, M
        Hidden units of student and teacher, 1 to 4 and 1 to 3.
    tolerance
        From 1e-2 to 1e-9, absolute, for fields of variance about 1; larger ones err more, and so does a C near singular, where
        the student's fields all but say the label, and WORST, whose thresholds have no panels of their own.

    Raises
    ------
    ValueError
        If there are more units.
    """
    if not teacher_is_integrated(K, M):
        raise ValueError(
            f"hidden = {K}, units of the teacher = {M}: the quadrature has up to {MOST_STUDENT} and {MOST_TEACHER}; "
            "simulate has more"
        )
    digits = min(max(-math.log10(tolerance), 2.0), 9.0)
    panels = np.zeros((_MOST, 2, _MOST))
    for n in range(1, _MOST + 1):
        panels[n - 1, 0, :n], panels[n - 1, 1, :n] = _legendre(n)
    graded = np.zeros((_MOST_GRADED, 2, _MOST_GRADED))
    for n in range(1, _MOST_GRADED + 1):
        graded[n - 1, 0, :n], graded[n - 1, 1, :n] = _graded(n)
    return TeacherRule(
        math.sqrt(2 * math.log(10) * (digits + 0.5)),
        1.0 + digits,
        0.4 * digits - 0.4,
        panels,
        graded,
        4 + 3.8 * digits,
        *_legendre(round(2 + 2.5 * digits)),
    )


@inlined
def _most_nodes(K, M):
    return ((1 << (M + K - 1)) + 5 * _ROOTS + 9) * _MOST


@inlined
def scratch(K):
    """Return how many floats of scratch `add_averages_teacher` needs."""
    return attack_scratch(K)


@called
def _levels(L, rule):
    """Return the nodes for the teacher given the student's fields, L its Cholesky factor.

    Where one of its fields all but follows from the one before, what is integrated over that turns within a short way.
    """
    ratio = 1.0
    for n in range(1, L.shape[0]):
        ratio = max(ratio, math.hypot(L[n - 1, n - 1], L[n, n - 1]) / max(L[n, n], 1e-9))
    n = int(min(rule.graded_size * (1.0 + 0.13 * (ratio - 1.0)) + 0.5, _MOST_GRADED))
    return _Levels(rule.reach, rule.graded[n - 1, 0, :n], rule.graded[n - 1, 1, :n], rule.last_nodes, rule.last_weights)


@called
def _panels(start, scale, cuts, count, rule, nodes, weights):
    """Fill nodes and weights of one coordinate from ``start`` on, between the cuts; return how many there are."""
    cuts[:count].sort()
    total = 0
    for i in range(count + 1):
        stop = rule.reach if i == count else min(max(cuts[i], start), rule.reach)
        if stop - start < 1e-9:
            continue
        n = rule.least + rule.density * scale * (stop - start)
        pieces = min(1 + int(n / _MOST), 8)
        size = min(int(n / pieces) + 1, _MOST)
        length = (stop - start) / pieces
        for piece in range(pieces):
            for node in range(size):
                y = start + length * (piece + rule.panels[size - 1, 0, node])
                nodes[total] = y
                weights[total] = length * rule.panels[size - 1, 1, node] * bell(y)
                total += 1
        start = stop
    return total


@called
def _excess(y, phi, mean, scale, c, given, T, variance):
    """Return the output less the label to be expected, and its derivative and the label's standard deviation."""
    x = mean + scale * y
    value, slope, spread = phi + c * math.erf(x * _ROOT_HALF), scale * c * _SLOPE * math.exp(-0.5 * x * x), 0.0
    last = T.given.shape[1] - 1
    M = T.c.size
    for j in range(M):
        along = 0.0
        for n in range(j, M):
            root = 1.0 / math.sqrt(1.0 + variance[n])
            h = (given[n] + T.given[n, last] * y) * root
            bend = T.c[n] * root * _SLOPE * math.exp(-0.5 * h * h)
            along += bend * T.L[n, j]
            if n == j:
                value -= T.c[n] * math.erf(h * _ROOT_HALF)
                slope -= bend * T.given[n, last]
        spread += along * along
    return value, slope, math.sqrt(spread)


@called
def _crossings(phi, mean, scale, c, given, T, variance, rule, cuts, count):
    """Add cuts where the sign of the error turns within a short way: where the student's fields all but say the label."""
    step = 2.0 * rule.reach / _SCAN
    low = -rule.reach
    at_low = _excess(low, phi, mean, scale, c, given, T, variance)[0]
    most = count + 5 * _ROOTS
    for i in range(_SCAN):
        high = -rule.reach + step * (i + 1)
        at_high = _excess(high, phi, mean, scale, c, given, T, variance)[0]
        if (at_low < 0.0) != (at_high < 0.0) and count < most:
            begin, end = low, high
            for _ in range(30):
                middle = 0.5 * (begin + end)
                if (_excess(middle, phi, mean, scale, c, given, T, variance)[0] < 0.0) == (at_low < 0.0):
                    begin = middle
                else:
                    end = middle
            _, slope, spread = _excess(begin, phi, mean, scale, c, given, T, variance)
            if spread < _SHARP * abs(slope):
                for side in range(-2, 3):
                    # half a Gaussian's width and all of it, on either side
                    cuts[count] = begin + 0.5 * side * rule.reach * spread / abs(slope)
                    count += 1
        low, at_low = high, at_high
    return count


@called
def _cuts(level, phi, mean, scale, c, values, cuts):
    """Fill ``cuts`` with the y at which the output begins or ends to reach one of the values; return how many there are."""
    later = teacher_moments.extremes(np.abs(c), level + 1, cuts)
    sums = cuts[:later].copy()
    count = 0
    for i in range(later * values.size):
        ratio = (values[i // later] - phi - sums[i % later]) / c[level] if c[level] != 0.0 else 2.0
        if abs(ratio) < 1.0 - 1e-10:
            cuts[count] = (teacher_moments.inverse_lane(ratio) - mean) / scale
            count += 1
    return count


@called
def _relu_cuts(level, phi, mean, scale, c, Q, move, values, cuts):
    """Fill ``cuts`` with the y at which the unit, or the unit once attacked, is switched on; return how many there are.

    Within one pattern of active units FGSM moves the fields by constants, epsilon Q u / sqrt(u^T Q u).
    """
    K = c.size
    cuts[0] = -mean / scale
    count = 1
    for pattern in range(1, 1 << K if move > 0.0 else 1):
        square, shift = 0.0, 0.0
        for k in range(K):
            for l in range(K):
                if pattern >> k & 1 and pattern >> l & 1:
                    square += c[k] * Q[k, l] * c[l]
            if pattern >> k & 1:
                shift += Q[level, k] * c[k]
        if square > 0.0:
            shift *= move / math.sqrt(square)
            cuts[count] = (-shift - mean) / scale
            cuts[count + 1] = (shift - mean) / scale
            count += 2
    for value in values:
        # where the output is the value with the later units off
        if c[level] != 0.0 and (value - phi) / c[level] > 0.0:
            cuts[count] = ((value - phi) / c[level] - mean) / scale
            count += 1
    return count


@once
def _thresholds(kind, x, Q, c, b, epsilon, how, work, moved, d, values):
    """Fill ``values`` with the labels at which the attack on x changes, ascending; return how many there are.

    PGD asks at each step whether the label is above the output so far; the worst case, which end of the outputs is farther.
    """
    K = c.size
    if how.kind == WORST:
        high = worst_output(kind, x, Q, c, b, 1.0, epsilon, work, d)
        low = -worst_output(kind, x, Q, c, b, -1.0, epsilon, work, d)
        values[0] = 0.5 * (low + high)
        return 1
    values[0] = output(kind, x, c, b)
    count = 1
    for steps in range(1, how.steps):
        before = count
        for down in range(before + 1):  # from the last part: a new threshold moves those above it
            part = before - down
            tau = _inside(values, count, part)
            attack(kind, x, Q, c, b, tau, epsilon, Attack(how.kind, steps, how.step), work, d)
            for k in range(K):
                moved[k] = x[k]
                for l in range(K):
                    moved[k] += Q[k, l] * d[l]
            phi = output(kind, moved, c, b)
            above, beneath = part == 0 or phi > values[part - 1], part == count or phi < values[part]
            if above and beneath and count < values.size:
                values[count] = phi
                count += 1
                values[:count].sort()
    return count


@called
def _inside(values, count, part):
    """Return a label between two thresholds."""
    if part == 0:
        return values[0] - 1.0
    return values[count - 1] + 1.0 if part == count else 0.5 * (values[part - 1] + values[part])


@called
def add_averages_teacher(kind, L, Q, theta, c, b, teacher_kind, teacher_c, epsilon, how, share, rule, work, sums):
    """Add ``share`` times the averages to ``sums``, in the order of `odeflow.order_parameters.committee.quadrature.sums`.

    Parameters
    ----------
    kind, teacher_kind
        Units of student and teacher.
    L
        Cholesky factor of C, the products of all weights, (K + M, K + M): that of `factor`.
    Q
        The products of the student's, (K, K).
    theta, c, b
        The student's thresholds, output weights and output bias.
    teacher_c
        The teacher's output weights, (M,).
    epsilon, how
        Size and kind of the attack: FGSM, PGD or WORST; MARGIN has no meaning here.
    """
    K, M = c.size, teacher_c.size
    n = K + M
    teacher, block = teacher_given(teacher_kind, L, K, teacher_c), block_of(K, M)
    lanes = np.zeros((width(K, n), WIDTH))
    values = np.zeros(1 << M)
    if teacher_kind == ERF:
        teacher_moments.extremes(teacher.c, np.int64(0), values)
    else:
        values = values[:1]
    if epsilon == 0.0:
        values = values[:0]  # the labels are not cut
    levels = _levels(teacher.L, rule)
    # nothing but the signs of <s> and <e> changes with the signs of all fields
    mirrored = kind == ERF and teacher_kind == ERF and b == 0.0
    for k in range(K):
        mirrored = mirrored and theta[k] == 0.0
    given, variance = np.zeros(M), np.zeros(M)
    for j in range(M):
        for i in range(j + 1):
            variance[j] += teacher.L[j, i] * teacher.L[j, i]
    most = _most_nodes(K, M)
    nodes, weights, cuts = np.empty((K, most)), np.empty((K, most)), np.empty(most)
    total, at = np.zeros(K, np.int64), np.zeros(K, np.int64)
    y, x, mean = np.zeros(K), np.zeros(K), np.zeros(K)
    phi, part = np.full(K + 1, b), np.full(K + 1, 2.0 * share if mirrored else share)
    moved, d, thresholds = np.empty(K), np.empty(K), np.empty(_THRESHOLDS)
    exact = how.kind == FGSM or epsilon == 0.0
    filled, level, enters = 0, np.int64(0), True
    while level >= 0 or filled > 0:
        count: Any = np.int64(0)
        if level >= 0:
            if enters:
                mean[level] = -theta[level]
                for j in range(level):
                    mean[level] += L[level, j] * y[j]
                if kind == ERF:
                    count = _cuts(level, phi[level], mean[level], L[level, level], c, values, cuts)
                else:
                    count = _relu_cuts(level, phi[level], mean[level], L[level, level], c, Q, epsilon, values, cuts)
                if level == K - 1 and kind == ERF and teacher_kind == ERF and epsilon != 0.0:
                    for j in range(M):
                        given[j] = 0.0
                        for k in range(level):
                            given[j] += teacher.given[j, k] * y[k]
                    count = _crossings(
                        phi[level], mean[level], L[level, level], c[level], given, teacher, variance, rule, cuts, count
                    )
                scale = 1.0
                for k in range(level, K):
                    scale = max(scale, abs(L[k, level]))
                start = 0.0 if mirrored and level == 0 else -rule.reach
                total[level] = _panels(start, scale, cuts, count, rule, nodes[level], weights[level])
                at[level] = 0
            enters = False
            if at[level] == total[level]:
                level -= 1
                continue
            y[level] = nodes[level, at[level]]
            x[level] = mean[level] + L[level, level] * y[level]
            part[level + 1] = part[level] * weights[level, at[level]]
            phi[level + 1] = phi[level] + c[level] * unit(kind, x[level])
            at[level] += 1
            if level < K - 1:
                level += 1
                enters = True
                continue
            count = 1
            thresholds[0] = phi[K]
            if not exact:
                count = _thresholds(kind, x, Q, c, b, epsilon, how, work, moved, d, thresholds)
        if level < 0 or filled + count > WIDTH:
            block.weight[filled:] = 0.0
            add_block(kind, teacher_kind, teacher, Q, c, b, epsilon, how, levels, block, lanes)
            filled = 0
        for i in range(count):
            for k in range(K):  # assigned as one, numba would compile its strings, for a message
                block.y[k, filled] = y[k]
                block.x[k, filled] = x[k]
            block.weight[filled] = part[K]
            block.threshold[filled] = thresholds[i]
            block.rest[filled] = 1.0 if i > 0 else 0.0
            for side in range(0 if exact else 2):
                attack(kind, x, Q, c, b, _inside(thresholds, count, i + side), epsilon, how, work, d)
                to = block.up if side == 0 else block.down
                for k in range(K):
                    to[k, filled] = d[k]
            filled += 1
    e = layout(K, n)[4]
    for i in range(lanes.shape[0]):
        if mirrored and (i < K or i == e):
            continue
        for lane in range(WIDTH):
            sums[i] += lanes[i, lane]
