"""Integral over all coordinates of the frame but the last of the probability along each line: adaptive, or by a lattice."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import called, once
from odeflow.order_parameters.committee.errors.climb import climbed_line
from odeflow.order_parameters.committee.errors.flats import worst_line
from odeflow.order_parameters.committee.errors.frame import below
from odeflow.order_parameters.committee.errors.lines import attacked_line
from odeflow.order_parameters.committee.errors.offset import density
from odeflow.order_parameters.committee.errors.roots import root

__all__ = ["ATTACKED", "BOUND", "CLEAN", "CURVE", "WORST_CASE", "adaptive", "by_lattice", "line"]

CLEAN, ATTACKED, WORST_CASE, CURVE, BOUND = range(5)
"""What is integrated: CURVE is the worst case of two erf units, over the parameter of the offset curve; BOUND that of any."""

_ORDER = 16
_DEEPEST = 48


def _clenshaw_curtis(order: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the nodes cos(pi j / order) of the rule on [-1, 1], ascending, and its weights."""
    j = np.arange(order + 1)
    k = np.arange(0, order + 1, 2)
    # the integral of the interpolating sum of Chebyshev polynomials T_k, whose own is 2 / (1 - k^2)
    ends = np.where((j == 0) | (j == order), 0.5, 1.0)
    halves = np.where((k == 0) | (k == order), 0.5, 1.0)
    cosines = np.cos(math.pi * np.outer(j, k) / order)
    weights = 2.0 / order * ends * (cosines @ (halves * 2.0 / (1.0 - k**2)))
    return -np.cos(math.pi * j / order), weights


def _last_coefficients(order: int) -> npt.NDArray[np.float64]:
    """Return the matrix that gives the last four Chebyshev coefficients from the values at the nodes (to their sign)."""
    j = np.arange(order + 1)
    k = np.arange(order - 3, order + 1)
    ends = np.where((j == 0) | (j == order), 0.5, 1.0)
    return 2.0 / order * ends * np.cos(math.pi * np.outer(k, j) / order) * np.where(k == order, 0.5, 1.0)[:, None]


_NODES, _FINE = _clenshaw_curtis(_ORDER)
_COARSE = _clenshaw_curtis(_ORDER // 2)[1]
_FINE_TAIL = _last_coefficients(_ORDER)
_COARSE_TAIL = _last_coefficients(_ORDER // 2)
_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)


@called
def line(what, frame, how, flats, t, reach, work):
    """Return the probability of an error along the line with these t_1, ..., t_{K-1}."""
    K = frame.a.size
    start = work[7]
    for k in range(K):
        start[k] = frame.mean[k]
        for j in range(K - 1):
            start[k] += frame.G[k, j] * t[j]
    if what == CLEAN:
        w = root(frame.kind, frame.B, frame.a, frame.sign, start[:K], work[0, 0])
        if abs(w) < np.inf:
            work[0, 0] = w
        return below(w, frame.G[K - 1, K - 1])
    if what == ATTACKED:
        return attacked_line(frame, how, start[:K], reach, work)
    if what == BOUND:
        return climbed_line(frame, start[:K], work)
    return worst_line(frame, flats, start[:K], t, work)


@called
def _rule(values, stride, weights):
    """Return the sum over every stride-th value."""
    total = 0.0
    for node in range(weights.size):
        total += weights[node] * values[stride * node]
    return total


@called
def _tail(values, stride, rows):
    """Return the largest of the last Chebyshev coefficients of every stride-th value."""
    largest = 0.0
    for row in range(rows.shape[0]):
        largest = max(largest, abs(_rule(values, stride, rows[row])))
    return largest


@called
def adaptive(what, frame, how, flats, first, last, panels, reach, tolerance, work):
    """Return the integral over t_1 from first to last, of two units. Error: less than `tolerance`, as a rule.

    Clenshaw-Curtis rules of 9 and 17 points a panel, which is halved until the last Chebyshev coefficients are small: they are
    for a smooth integrand long before its error is seen in the sum, and are not where it has a kink.
    """
    t = np.zeros(1)
    goal = 0.04 * tolerance
    open_panels = np.empty((panels + _DEEPEST, 2))
    for panel in range(panels):
        open_panels[panel, 1] = (last - first) / panels
        open_panels[panel, 0] = first + panel * open_panels[panel, 1]
    values = np.empty(_ORDER + 1)
    count, total = panels, 0.0
    while count > 0:
        count -= 1
        low, width = open_panels[count]
        best, error = 0.0, np.inf
        for stage in range(2):  # the even nodes are those of the coarse rule
            for node in range(stage, _ORDER + 1, 2):
                t[0] = low + 0.5 * width * (1.0 + _NODES[node])
                if what == CURVE:
                    value = density(frame, t[0], reach, work)
                else:
                    value = line(what, frame, how, flats, t, reach, work)
                    value *= _DENSITY * math.exp(-0.5 * t[0] * t[0])
                values[node] = 0.5 * width * value
            if stage == 0:
                best, error = _rule(values, 2, _COARSE), _tail(values, 2, _COARSE_TAIL)
                if error < 0.01 * goal:
                    break
            else:
                # what is lost is of twice the order: 1/4 at a kink, and far less where it is smooth
                best, error = _rule(values, 1, _FINE), 0.25 * _tail(values, 1, _FINE_TAIL)
        if error < goal or count + 2 > open_panels.shape[0] or width < 1e-10:
            total += best
        else:
            for half in range(2):
                open_panels[count, 0] = low + 0.5 * half * width
                open_panels[count, 1] = 0.5 * width
                count += 1
    return total


@once
def by_lattice(what, frame, how, flats, points, weights, starts, reach, tolerance, work):
    """Return the average over t_1, ..., t_{K-1}, by more and more points until the last three results agree."""
    before, last = np.inf, np.inf
    for level in range(starts.size - 1):
        total = 0.0
        for point in range(starts[level], starts[level + 1]):
            total += weights[point] * line(what, frame, how, flats, points[point], reach, work)
        if max(abs(total - last), 0.25 * abs(last - before)) < 0.5 * tolerance:
            return total
        before, last = last, total
    return last
