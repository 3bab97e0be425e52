"""The errors of many states, one after the other: a network before each cluster, in the coordinates of the frame."""

from __future__ import annotations

import math

import numpy as np

from odeflow.numerics.compilation import is_set, kept, once
from odeflow.order_parameters.committee.errors.flats import flats_of
from odeflow.order_parameters.committee.errors.frame import frame_of
from odeflow.order_parameters.committee.errors.integral import CLEAN, CURVE, WORST_CASE, adaptive, by_lattice, line
from odeflow.order_parameters.committee.errors.offset import pieces, width
from odeflow.order_parameters.committee.errors.roots import output
from odeflow.order_parameters.committee.units import ERF

__all__ = ["errors"]

_PANELS = 4


@once
def _error(what, kind, m, Q, c, b, v, tau, epsilon, how, rules, reach, tolerance):
    """Return the probability of an error on one cluster."""
    frame = frame_of(kind, m, Q, c, b, v, tau, epsilon)
    K = frame.a.size
    work = np.zeros((8, max(K + 4, 8)))
    largest, total = 0.0, 0.0
    for k in range(K):
        largest = max(largest, frame.S[k, k])
        total += frame.a[k]
    if largest == 0.0:  # a constant
        return 1.0 if output(kind, frame.B, frame.a, frame.sign, frame.mean) <= 0.0 else 0.0
    if epsilon == 0.0:
        what = CLEAN
    flats = flats_of(frame, what == WORST_CASE)
    panels = _PANELS
    if K == 1:
        return line(what, frame, how, flats, np.empty(0), reach, work)
    if K > 2:
        points, weights, starts = rules
        return by_lattice(what, frame, how, flats, points, weights, starts[K], reach, tolerance, work)
    last = reach
    if what == WORST_CASE and kind == ERF and abs(frame.B) < total:
        what += CURVE - WORST_CASE
        last += frame.radius
        panels = width(frame, reach)
    total = adaptive(what, frame, how, flats, -last, last, panels, reach, tolerance, work)
    if what == CURVE and work[0, 3] > 0.0:
        parts = pieces(frame, -last, last, work)
        total = 0.0
        for part in range(parts.shape[0]):
            low, high = parts[part]
            share = math.ceil(panels * (high - low) / (2.0 * last))
            total += adaptive(what, frame, how, flats, low, high, share, reach, tolerance, work)
    return total


@kept
def errors(what, kind, M, Q, c, theta, b, p, v, tau, epsilon, how, rules, reach, tolerance, first, last, stop, out):
    """Fill out[first:last], a state each: M (states, K, clusters), p (states, clusters), and so on."""
    for state in range(first, last):
        if is_set(stop):
            return
        total = 0.0
        for a in range(p.shape[1]):
            if p[state, a] > 0.0:
                m = M[state, :, a] - theta[state]
                total += p[state, a] * _error(
                    what, kind, m, Q[state], c[state], b[state], v[state, a], tau[state, a], epsilon[state],
                    how, rules, reach, tolerance,
                )  # fmt: skip
        out[state] = min(max(total, 0.0), 1.0)
