"""Integral over all coordinates of the frame but the last, nested and adaptive, of the probability along each line."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from numba import njit

from odeflow.order_parameters.committee.errors.flats import worst_line
from odeflow.order_parameters.committee.errors.frame import below
from odeflow.order_parameters.committee.errors.lines import attacked_line
from odeflow.order_parameters.committee.errors.offset import density
from odeflow.order_parameters.committee.errors.roots import root

__all__ = ["ATTACKED", "CLEAN", "CURVE", "WORST_CASE", "integral"]

CLEAN, ATTACKED, WORST_CASE, CURVE = range(4)
"""What is integrated; CURVE is the worst case of two erf units, over the parameter of the offset curve."""

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


@njit(nogil=True, error_model="numpy")
def _line(what, frame, how, flats, t, reach, work):
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
    return worst_line(frame, flats, start[:K], t, work)


@njit(nogil=True, error_model="numpy")
def _rule(values, stride, weights):
    """Return the sum over every stride-th value."""
    total = 0.0
    for node in range(weights.size):
        total += weights[node] * values[stride * node]
    return total


@njit(nogil=True, error_model="numpy")
def _tail(values, stride, rows):
    """Return the largest of the last Chebyshev coefficients of every stride-th value."""
    largest = 0.0
    for row in range(rows.shape[0]):
        largest = max(largest, abs(_rule(values, stride, rows[row])))
    return largest


@njit(nogil=True, error_model="numpy")
def integral(what, frame, how, flats, first, last, panels, reach, tolerance, work):
    """Return the integral over t_1, ..., t_{K-1}, each over +-reach, t_1 from first to last. Error: about `tolerance`.

    Clenshaw-Curtis rules of 9 and 17 points a panel, which is halved until the last Chebyshev coefficients are small: they are
    for a smooth integrand long before its error is seen in the sum, and are not where it has a kink. The levels are kept by hand: numba keeps no function on disk that calls itself.
    """
    levels = max(frame.a.size - 1, 1)
    t = np.zeros(levels)
    if frame.a.size == 1:
        return _line(what, frame, how, flats, t, reach, work)
    open_panels = np.empty((levels, panels + _DEEPEST, 2))
    count = np.zeros(levels, np.int64)
    done = np.zeros(levels, np.int64)  # nodes of the present panel: the even ones come first
    values = np.empty((levels, _ORDER + 1))
    total = np.zeros(levels)
    level, is_new = 0, True
    while True:
        if is_new:
            total[level], done[level], count[level] = 0.0, 0, panels
            width = (last - first if level == 0 else 2.0 * reach) / panels
            for panel in range(panels):
                open_panels[level, panel, 0] = (first if level == 0 else -reach) + panel * width
                open_panels[level, panel, 1] = width
        low, width = open_panels[level, count[level] - 1]
        node = 2 * done[level] if done[level] <= _ORDER // 2 else 2 * done[level] - _ORDER - 1
        t[level] = low + 0.5 * width * (1.0 + _NODES[node])
        is_new = level < levels - 1
        if is_new:
            level += 1
            continue
        value = density(frame, t[0], reach, work) if what == CURVE else _line(what, frame, how, flats, t, reach, work)
        while True:  # hand the value to its panel, and a panel that is finished to the level above
            low, width = open_panels[level, count[level] - 1]
            node = 2 * done[level] if done[level] <= _ORDER // 2 else 2 * done[level] - _ORDER - 1
            if what != CURVE:
                value *= _DENSITY * math.exp(-0.5 * t[level] * t[level])
            values[level, node] = 0.5 * width * value
            done[level] += 1
            if done[level] != _ORDER // 2 + 1 and done[level] != _ORDER + 1:
                break
            goal = 0.04 * tolerance * 0.2**level
            if done[level] == _ORDER // 2 + 1:
                best, error = _rule(values[level], 2, _COARSE), _tail(values[level], 2, _COARSE_TAIL)
                if error > 0.01 * goal:
                    break
            else:
                best, error = _rule(values[level], 1, _FINE), _tail(values[level], 1, _FINE_TAIL)
                error *= 0.25  # what is lost is of twice the order: 1/4 at a kink, and far less where it is smooth
            done[level] = 0
            count[level] -= 1
            if error < goal or count[level] + 2 > open_panels.shape[1] or width < 1e-10:
                total[level] += best
            else:
                for half in range(2):
                    open_panels[level, count[level], 0] = low + 0.5 * half * width
                    open_panels[level, count[level], 1] = 0.5 * width
                    count[level] += 1
            if count[level] > 0:
                break
            value = total[level]
            level -= 1
            if level < 0:
                return value
