r"""Where the answers of the most confident neighbour change, as graphs over a line, for two units.

In the plane :math:`h = L^{-1}\lambda` take the direction e that halves the angle between :math:`\mathrm{sgn}(c_k) L_k`, the
directions in which the units raise the output, and s across it: :math:`h = s e_\perp + y e`. The output grows with y on every
line of constant s, and so do its largest and its least value within a distance xi. So what is answered +1 lies above a graph
y(s), and what is answered -1 below it; with a threshold of confidence t there are two graphs:

.. math:: y \ge f_+(s):\ \max\phi \ge \max(-\min\phi, t), \qquad y \le f_-(s):\ -\min\phi \ge \max(\max\phi, t) .
"""

from __future__ import annotations

import math

import numpy as np

from odeflow.numerics.compilation import called, kept
from odeflow.order_parameters.committee.attacks import attack_scratch, worst_output
from odeflow.order_parameters.committee.units import ERF

__all__ = ["dilated", "graphs"]

_TRIALS = 100


@called
def _value(what, t, y, kind, start, G, Q, c, b, xi, x, work, d):
    """Return the sum of the largest and the least output within xi (what = 0), max - t (1), or min + t (2)."""
    for k in range(c.size):
        x[k] = start[k] + G[k] * y
    if what == 1:
        return worst_output(kind, x, Q, c, b, 1.0, xi, work, d) - t
    low = worst_output(kind, x, Q, c, b, -1.0, xi, work, d)
    if what == 2:
        return t - low
    return worst_output(kind, x, Q, c, b, 1.0, xi, work, d) - low


@called
def _root(what, strict, t, near, low, high, kind, start, G, Q, c, b, xi, x, work, d):
    """Return where a value that grows with y begins to be >= 0, or > 0, in [low, high]: inf or -inf if not there.

    Brackets from `near`, then Illinois.
    """
    width = 0.01
    y = min(max(near, low), high)
    f = _value(what, t, y, kind, start, G, Q, c, b, xi, x, work, d)
    up = f < 0.0 or (strict and f == 0.0)
    left, f_left, right, f_right = y, f, y, f
    while True:
        if y == (high if up else low):
            return math.inf if up else -math.inf
        y = min(y + width, high) if up else max(y - width, low)
        f = _value(what, t, y, kind, start, G, Q, c, b, xi, x, work, d)
        below = f < 0.0 or (strict and f == 0.0)
        if below:
            left, f_left = y, f
        else:
            right, f_right = y, f
        if below != up:
            break
        width *= 2.0
    side = 0
    for trial in range(_TRIALS):
        y = 0.5 * (left + right)
        if trial % 3 < 2 and f_right > f_left:  # every third is halved: the value may be flat
            y = (left * f_right - right * f_left) / (f_right - f_left)
        f = _value(what, t, y, kind, start, G, Q, c, b, xi, x, work, d)
        if f < 0.0 or (strict and f == 0.0):
            left, f_left = y, f
            if side == -1:
                f_right *= 0.5
            side = -1
        else:
            right, f_right = y, f
            if side == 1:
                f_left *= 0.5
            side = 1
        if right - left <= 1e-12 * (1.0 + abs(right)):
            break
    return 0.5 * (left + right)


@kept
def graphs(kind, Q, c, b, base, across, along, s, low, high, xi, t, out):
    """Fill `out`, shape (2 + 2 levels, n), with where the answer +1 begins, where -1 ends, and f_+ and f_- of each threshold t.

    The first two differ where the mid-range is 0 on a stretch, as that of ReLU can be.

    Parameters
    ----------
    kind, Q, c, b
        The network.
    base, across, along
        The units' x = base + across s + along y, shape (2,) each; across s is increasing.
    s
        Shape (n,).
    low, high
        Between which graphs are looked for.
    xi
        Radius.
    t
        Thresholds of the output, >= 0, shape (levels,).
    """
    K = c.size
    x, d, start, work = np.empty(K), np.empty(K), np.empty(K), np.empty(attack_scratch(K))
    for i in range(s.size):
        for k in range(c.size):
            start[k] = base[k] + across[k] * s[i]
        for row in range(out.shape[0]):
            near = out[row, i - 1] if i > 0 else 0.0
            what, level = 0, 0.0
            if row == 1 and kind == ERF:
                out[1, i] = out[0, i]
                continue
            if row > 1:
                level = t[(row - 2) // 2]
                what = 1 + row % 2
            strict = row % 2 == 1
            y = _root(what, strict, level, near, low, high, kind, start, along, Q, c, b, xi, x, work, d)
            if what == 1:
                y = max(y, out[0, i])
            elif what == 2:
                y = min(y, out[1, i])
            out[row, i] = y


@kept
def dilated(f, step, radius, out):
    """Fill `out` with the graph above the points within `radius` of what lies below the graph f, on nodes at a distance `step`."""
    n = f.size
    reach = int(radius / step)
    part = radius / step - reach
    for i in range(n):
        best = f[i] + radius
        for k in range(1, reach + 1):
            rise = math.sqrt(max(radius * radius - (k * step) ** 2, 0.0))
            if i + k < n:
                best = max(best, f[i + k] + rise)
            if i >= k:
                best = max(best, f[i - k] + rise)
        for side in range(-1, 2, 2):
            near, far = i + side * reach, i + side * (reach + 1)
            if 0 <= far < n and math.isfinite(f[near]) and math.isfinite(f[far]):
                best = max(best, (1.0 - part) * f[near] + part * f[far])
        out[i] = best
