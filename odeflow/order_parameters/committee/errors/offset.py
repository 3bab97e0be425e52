r"""Two erf units against the exact worst case: the curve at the distance epsilon from the boundary.

In the plane t of the frame the wrong region lies below the graph of an analytic function :math:`Y(t_1)`, and so does the region
within reach r of it: below the upper envelope of the offset curve

.. math:: o_1 = t - r Y' / \sqrt{1 + Y'^2}, \qquad o_2 = Y + r / \sqrt{1 + Y'^2} .

So :math:`S = \int \Phi(o_2)\,\varphi(o_1)\,o_1'\,dt` where :math:`o_1` grows throughout. Where the boundary bends more than a
circle of radius r, it turns back, and the parts below the envelope are cut off where the curve crosses itself.
"""

from __future__ import annotations

import math

import numpy as np

from odeflow.numerics.compilation import called
from odeflow.order_parameters.committee.errors.roots import root

__all__ = ["density", "offset", "pieces", "width"]

_DENSITY = 1.0 / math.sqrt(2.0 * math.pi)
_SCAN = 384


@called
def offset(frame, t, work):
    """Return o_1, o_2 and do_1/dt at t."""
    X = work[2]
    sigma = frame.G[1, 1]
    X[0] = frame.mean[0] + frame.G[0, 0] * t
    X[1] = frame.mean[1] + frame.G[1, 0] * t
    w = root(frame.kind, frame.B, frame.a, frame.sign, X[:2], work[0, 0])
    work[0, 0] = w
    X[0] += w
    X[1] += w
    # the shares of the units in the slope of f
    ratio = frame.a[1] / frame.a[0] * math.exp(0.5 * (X[0] * X[0] - X[1] * X[1]))
    first = 1.0 / (1.0 + ratio)
    second = 1.0 if ratio > 1e300 else ratio * first
    rise = -first * frame.G[0, 0] - second * frame.G[1, 0]  # dw/dt
    dX0, dX1 = frame.G[0, 0] + rise, frame.G[1, 0] + rise
    bend = first * X[0] * dX0 * dX0 + second * X[1] * dX1 * dX1
    length = math.hypot(sigma, rise)
    r = frame.radius
    return t - r * rise / length, w / sigma + r * sigma / length, 1.0 - r * bend * sigma * sigma / length**3


@called
def density(frame, t, reach, work):
    """Return the integrand; note in work[0, 3] if the curve turns back within reach."""
    one, two, speed = offset(frame, t, work)
    if speed < 0.0 and abs(one) < reach and abs(two) < reach:
        work[0, 3] = 1.0
    return 0.5 * math.erfc(-two * math.sqrt(0.5)) * _DENSITY * math.exp(-0.5 * one * one) * speed


@called
def width(frame, reach):
    """Return on how many panels the curve is to be integrated at first."""
    turns = abs(frame.G[0, 0] - frame.G[1, 0])  # over which t the share of the units changes
    return int(min(max(math.ceil((reach + frame.radius) * max(1.0, turns) / 2.2), 3.0), 24.0))


@called
def _turning(frame, low, high, forward, work):
    """Return where do_1/dt changes its sign between low and high; `forward`: whether it is positive at high."""
    for _ in range(60):
        middle = 0.5 * (low + high)
        if (offset(frame, middle, work)[2] > 0.0) == forward:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)


@called
def _height(frame, one, low, high, work):
    """Return t on the arc from low to high, on which o_1 grows, with o_1 = `one`, and o_2 there."""
    t = 0.5 * (low + high)
    two = 0.0
    for _ in range(80):
        here, two, speed = offset(frame, t, work)
        if here > one:
            high = t
        else:
            low = t
        new = t - (here - one) / speed if speed > 0.0 else low
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - t) <= 1e-13 * (1.0 + abs(t)):
            break
        t = new
    return t, two


@called
def pieces(frame, low, high, work):
    """Return the parts from low to high, a row each, that make the upper envelope of the offset curve."""
    arcs = np.empty((_SCAN, 2))
    count = 0
    forward = offset(frame, low, work)[2] > 0.0
    if forward:
        arcs[0, 0] = low
    step = (high - low) / _SCAN
    for point in range(1, _SCAN + 1):
        t = low + step * point
        is_forward = offset(frame, t, work)[2] > 0.0
        if is_forward != forward:
            turn = _turning(frame, t - step, t, is_forward, work)
            if is_forward:
                arcs[count, 0] = turn
            else:
                arcs[count, 1] = turn
                count += 1
        forward = is_forward
    if forward:
        arcs[count, 1] = high
        count += 1
    # the envelope of the arcs so far: parts of them, from left to right
    parts = np.empty((count, 2))
    size = 0
    for arc in range(count):
        begin, end = arcs[arc]
        is_above = True
        while size > 0:
            last, last_end = parts[size - 1]
            left = max(offset(frame, begin, work)[0], offset(frame, last, work)[0])
            right = min(offset(frame, end, work)[0], offset(frame, last_end, work)[0])
            if right <= left:
                break
            if _above(frame, left, begin, end, last, last_end, work) > 0.0:
                size -= 1  # the last is below it from its own beginning
                continue
            if _above(frame, right, begin, end, last, last_end, work) <= 0.0:
                is_above = False
                break
            for _ in range(60):
                middle = 0.5 * (left + right)
                if _above(frame, middle, begin, end, last, last_end, work) > 0.0:
                    right = middle
                else:
                    left = middle
                if right - left < 1e-13:
                    break
            parts[size - 1, 1] = _height(frame, left, last, last_end, work)[0]
            begin = _height(frame, left, begin, end, work)[0]
            break
        if is_above:
            parts[size, 0] = begin
            parts[size, 1] = end
            size += 1
    return parts[:size]


@called
def _above(frame, one, begin, end, last, last_end, work):
    """Return how far the arc from begin to end is above that from last to last_end, at o_1 = `one`."""
    return _height(frame, one, begin, end, work)[1] - _height(frame, one, last, last_end, work)[1]
