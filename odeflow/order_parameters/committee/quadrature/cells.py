"""Walk through a cell of the fields of ReLU units: levels of panels, and closed moments along the last coordinate.

What a cell is, and why the panels are where they are, says `odeflow.order_parameters.committee.quadrature.relu`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import called, inlined
from odeflow.numerics.elementary import erfcx, exp

__all__ = [
    "CENTRE", "CLEAN", "CUT", "LEFT", "MOST", "OUTPUT", "SHIFT", "SLOPE", "SPREAD", "SUM_SPREAD",
    "WEIGHT", "A", "D", "Space",
    "bit", "fill_cells", "is_possible", "space_of", "space_size",
]  # fmt: skip

_BLOCK = 8  # nodes that are evaluated together
MOST = 64
"""Most nodes of a panel: a multiple of 8."""
_FAR = 37.0  # beyond it the normal density is 0 in float64
_SHARP = 0.6  # a transition narrower than this has panels of its own
_WIDE = 5.0  # half their length, in widths of the transition
_BEND = 1.0  # a transition of width w bends as a density of that width over _BEND
_ROOT_HALF, _ROOT_TWO_PI = math.sqrt(0.5), math.sqrt(2.0 * math.pi)
_DENSITY = 1.0 / _ROOT_TWO_PI

# Pages of `Space.fields`
A, SPREAD, CENTRE, SLOPE, SUM_SPREAD, _EDGES, _MIDDLES, _WIDTHS = range(8)
# Columns of `Space.levels`
CLEAN, _ATTACKED, LEFT, _Y, WEIGHT, D, SHIFT, OUTPUT, _RATE = range(9)
# Columns of `Space.counts`
CUT, _CUT_PANEL, _UNITS, _PANELS, _PANEL, _NODES, _NODE, _TRANSITIONS = range(8)


class Space(NamedTuple):
    """What is known on each level j, where y_i is known for i < j."""

    fields: npt.NDArray[np.float64]
    """Pages: A = sqrt(v) L; SPREAD and CENTRE, the standard deviation and the mean [j, k] of x_k; with F_k = sum_{i <= k} c_i x_i
    over S, SLOPE [j, k], dF_k/dy_j, and SUM_SPREAD [j, k], the standard deviation of F_k; the edges of the panels of level j, the
    places of its sharp transitions, and half their widths."""
    levels: npt.NDArray[np.float64]
    """[j] CLEAN: b - tau + F_{j-1}; the same at the attacked example; LEFT: squared length left for y_j, ...; y_j; WEIGHT: product
    of the weights of i < j; OUTPUT: the mean of phi - tau with the units S; the largest
    squared inverse width of a transition that is not sharp. [k] D: d; SHIFT: Delta."""
    cells: npt.NDArray[np.float64]
    """[units active at the attacked example] The averages of e and of e y_j."""
    lines: npt.NDArray[np.float64]
    """[6, node] The terms of a line."""
    counts: npt.NDArray[np.int64]
    """[j] CUT: whether the half-space can still cut what is left; whether on the present panel of level j - 1; the bits of the
    units i < j that are active at the attacked example; number of panels, the present one, its nodes, the next one; transitions."""


@inlined
def _columns(K):
    """Return the most edges of a level: its ends, its plane, corners, three for each transition."""
    return 3 + 2 ** (K - 1) + 3 * (2 * K + 2 ** (K - 1))


@called
def space_size(K):
    """Return the length of `work` for `space_of`."""
    return (K + 1) * (8 * _columns(K) + 9) + 2**K * (K + 1) + 6 * MOST


@called
def space_of(K, work):
    """Return the views of `work`."""
    columns = _columns(K)
    fields = 8 * (K + 1) * columns
    levels = fields + 9 * (K + 1)
    cells = levels + 2**K * (K + 1)
    return Space(
        work[:fields].reshape((8, K + 1, columns)),
        work[fields:levels].reshape((K + 1, 9)),
        work[levels:cells].reshape((2**K, K + 1)),
        work[cells : cells + 6 * MOST].reshape((6, MOST)),
        np.zeros((K + 1, 8), np.int64),
    )


@called
def _line(n, middle, half, nodes, weights, x0, x1, sd, e0, e1, h0, h1, c, shift, is_active, side, out):
    """Add, along a panel of the last but one coordinate y, the averages of e, e y and e z over the last one, z.

    The last field is x0 + x1 y + sd z, the attacked error without it e0 + e1 y, and with side = +-1 only what has the sign
    `side` of x + (h0 + h1 y) / c counts. ``out[:3]`` is where the attacked unit is off, ``out[3:]`` where it is on.
    """
    inverse = 1.0 / sd
    h0, h1 = (h0 / c, h1 / c) if side != 0 else (0.0, 0.0)
    for node in range(-(-n // _BLOCK) * _BLOCK):
        y = middle + half * nodes[node]
        weight = half * weights[node] * exp(-0.5 * y * y)
        x = x0 + x1 * y
        zero = min(max(-x * inverse, -_FAR), _FAR)
        low = zero if is_active else -_FAR
        high = _FAR if is_active else zero
        edge = min(max((-x - (h0 + h1 * y)) * inverse, -_FAR), _FAR)
        low = max(low, edge) if side > 0 else low
        high = min(high, edge) if side < 0 else high
        high = max(high, low)
        cut = min(max((-x - shift) * inverse, low), high)
        # normal densities, times sqrt(2 pi), and probabilities of more than |z|
        n_low, n_cut, n_high = exp(-0.5 * low * low), exp(-0.5 * cut * cut), exp(-0.5 * high * high)
        p_low = 0.5 * n_low * erfcx(_ROOT_HALF * abs(low))
        p_cut = 0.5 * n_cut * erfcx(_ROOT_HALF * abs(cut))
        p_high = 0.5 * n_high * erfcx(_ROOT_HALF * abs(high))
        p_low = 1.0 - p_low if low > 0.0 else p_low
        p_cut = 1.0 - p_cut if cut > 0.0 else p_cut
        p_high = 1.0 - p_high if high > 0.0 else p_high
        n_low *= _DENSITY
        n_cut *= _DENSITY
        n_high *= _DENSITY
        e = e0 + e1 * y
        off = weight * e * (p_cut - p_low)
        out[0, node] = off
        out[1, node] = off * y
        out[2, node] = weight * e * (n_low - n_cut)
        e += c * (x + shift)
        slope = c * sd
        first = n_cut - n_high
        on = weight * (e * (p_high - p_cut) + slope * first)
        out[3, node] = on
        out[4, node] = on * y
        out[5, node] = weight * (e * first + slope * (p_high - p_cut + cut * n_cut - high * n_high))
    for k in range(6):
        for node in range(1, n):
            out[k, 0] += out[k, node]


@inlined
def bit(units, k):
    """Return whether unit k is one of a set."""
    return (units >> k) & 1 == 1


@called
def _add_edge(y, edges, count):
    """Add y to the increasing edges if it lies between the first and the last; return their number."""
    if y <= edges[0] or y >= edges[count - 1]:
        return count
    at = count
    while edges[at - 1] > y:
        edges[at] = edges[at - 1]
        at -= 1
    edges[at] = y
    return count + 1


@called
def _add_transition(j, at, half, count, space):
    """Add the edges of a sharp transition, if it reaches level j's range; return the number of edges."""
    edges = space.fields[_EDGES, j]
    if at + half <= edges[0] or at - half >= edges[count - 1]:
        return count
    transition = space.counts[j, _TRANSITIONS]
    space.fields[_MIDDLES, j, transition] = at
    space.fields[_WIDTHS, j, transition] = half
    space.counts[j, _TRANSITIONS] += 1
    for side in range(3):
        count = _add_edge(at + (side - 1) * half, edges, count)
    return count


@called
def _open(j, K, S, c, space):
    """Split level j, given y_i for i < j, into panels on which what lies behind is smooth."""
    fields, levels, counts = space.fields, space.levels, space.counts
    edges = fields[_EDGES, j]
    centre, sd = fields[CENTRE, j, j], fields[A, j, j]
    reach = math.sqrt(levels[j, LEFT])
    counts[j, _TRANSITIONS] = 0
    edges[0], edges[1] = -reach, reach
    edges[0 if bit(S, j) else 1] = min(max(-centre / sd, -reach), reach)
    count = _add_edge((-levels[j, SHIFT] - centre) / sd, edges, 2)
    # where a field behind this one meets one of its planes within a short range of y
    rate = 0.0
    for k in range(j + 1, K):
        a, spread = fields[A, k, j], fields[SPREAD, j + 1, k]
        if spread >= _SHARP * abs(a):
            rate = max(rate, (a / spread) ** 2)
        else:
            half = _WIDE * spread / abs(a)
            count = _add_transition(j, -fields[CENTRE, j, k] / a, half, count, space)
            if levels[k, SHIFT] != 0.0 and (levels[k, SHIFT] < 0.0) == bit(S, k):
                count = _add_transition(j, (-levels[k, SHIFT] - fields[CENTRE, j, k]) / a, half, count, space)
    # where F_k meets the half-space at a corner of the fields behind x_k: at once for k = j, or within a short range
    if counts[j, CUT]:
        middle = levels[j, CLEAN]
        for k in range(j, K):
            if not bit(S, k):
                continue
            middle += c[k] * fields[CENTRE, j, k]
            a, spread = fields[SLOPE, j, k], fields[SUM_SPREAD, j + 1, k]
            if k > j and spread >= _SHARP * abs(a):
                rate = max(rate, (a / spread) ** 2) if spread > 0.0 else rate
                continue
            if a == 0.0:
                continue
            for corner in range(2 ** (K - 1 - k)):
                phi = middle
                is_corner = True
                for i in range(k + 1, K):
                    if bit(corner, i - k - 1):
                        is_corner = is_corner and bit(S, i) and levels[i, SHIFT] < 0.0
                        phi -= c[i] * levels[i, SHIFT]
                if is_corner and k == j:
                    count = _add_edge(-phi / a, edges, count)
                elif is_corner:
                    count = _add_transition(j, -phi / a, _WIDE * spread / abs(a), count, space)
    levels[j, _RATE] = rate
    counts[j, _PANELS] = count - 1
    counts[j, _PANEL] = -1
    counts[j, _NODES] = 0
    counts[j, _NODE] = 0


@called
def _panel(j, panel, K, S, sign, c, rule, space):
    """Return the nodes of a panel of level j, 0 if it is empty, and set what is true on all of it for level j + 1."""
    fields, levels, counts = space.fields, space.levels, space.counts
    low, high = fields[_EDGES, j, panel], fields[_EDGES, j, panel + 1]
    if high - low < 1e-13:
        return 0
    x = fields[CENTRE, j, j] + fields[A, j, j] * 0.5 * (low + high)
    counts[j + 1, _CUT_PANEL] = counts[j, CUT]
    if counts[j, CUT]:
        phi = levels[j, CLEAN] + (c[j] * x if bit(S, j) else 0.0)
        rises, falls = False, False
        for i in range(j + 1, K):
            if bit(S, i):
                rises = rises or sign * c[i] > 0.0
                falls = falls or sign * c[i] < 0.0
        if phi * sign > 0.0:
            if not falls:
                counts[j + 1, _CUT_PANEL] = 0
        elif not rises:
            return 0
    is_on = x + levels[j, SHIFT] > 0.0
    counts[j + 1, _UNITS] = counts[j, _UNITS] | ((1 << j) if is_on else 0)
    rate = levels[j, _RATE]
    for i in range(counts[j, _TRANSITIONS]):
        middle, half = fields[_MIDDLES, j, i], fields[_WIDTHS, j, i]
        if low < middle + half * 0.999 and high > middle - half * 0.999:
            rate = max(rate, (_WIDE / half) ** 2)
    length = (high - low) * math.sqrt(1.0 + _BEND * _BEND * rate)
    return int(math.ceil(min(rule.least + rule.density * length, float(MOST))))  # noqa: RUF046


@called
def _enter(j, K, S, sign, c, space):
    """Set level j + 1 after y_j is chosen; return whether anything is left there."""
    fields, levels, counts = space.fields, space.levels, space.counts
    y = levels[j, _Y]
    x = fields[CENTRE, j, j] + fields[A, j, j] * y
    is_on = bit(counts[j + 1, _UNITS], j)
    levels[j + 1, CLEAN] = levels[j, CLEAN] + (c[j] * x if bit(S, j) else 0.0)
    levels[j + 1, _ATTACKED] = levels[j, _ATTACKED] + (c[j] * (x + levels[j, SHIFT]) if is_on else 0.0)
    counts[j + 1, CUT] = counts[j + 1, _CUT_PANEL]
    left = levels[j, LEFT] - y * y
    levels[j + 1, LEFT] = left
    if left <= 0.0:
        return False
    for k in range(j + 1, K):
        fields[CENTRE, j + 1, k] = fields[CENTRE, j, k] + fields[A, k, j] * y
    levels[j + 1, OUTPUT] = levels[j, OUTPUT] + fields[SLOPE, j, K - 1] * y
    return is_possible(j + 1, K, S, sign, space)


@called
def is_possible(j, K, S, sign, space):
    """Return whether the units S, and the sign, can be met within the length that is left."""
    fields, counts, left = space.fields, space.counts, space.levels[j, LEFT]
    for k in range(j, K):
        x, spread = fields[CENTRE, j, k], fields[SPREAD, j, k]
        if (x < 0.0) == bit(S, k) and x * x > left * spread * spread:
            return False
    if counts[j, CUT]:
        e, spread = sign * space.levels[j, OUTPUT], fields[SUM_SPREAD, j, K - 1]
        if e * e > left * spread * spread:
            if e < 0.0:
                return False
            counts[j, CUT] = 0
    return True


@called
def _add_line(j, n, low, high, K, S, sign, c, rule, space):
    """Add a panel of level j = K - 2 to its two cells; with one unit, j = -1, one node at y = 0."""
    fields, levels, counts = space.fields, space.levels, space.counts
    last = K - 1
    x0, x1 = fields[CENTRE, max(j, 0), last], 0.0
    e0, e1, h0, h1 = levels[max(j, 0), _ATTACKED], 0.0, levels[max(j, 0), CLEAN], 0.0
    if j >= 0:
        x, sd = fields[CENTRE, j, j], fields[A, j, j]
        x1 = fields[A, last, j]
        if bit(counts[j + 1, _UNITS], j):
            e0, e1 = e0 + c[j] * (x + levels[j, SHIFT]), c[j] * sd
        if bit(S, j):
            h0, h1 = h0 + c[j] * x, c[j] * sd
    side = 0
    if counts[j + 1, _CUT_PANEL] and bit(S, last) and c[last] != 0.0:
        side = 1 if sign * c[last] > 0.0 else -1
    _line(
        n, 0.5 * (high + low), 0.5 * (high - low), rule.nodes[n], rule.weights[n], x0, x1, fields[A, last, last],
        e0, e1, h0, h1, c[last], levels[last, SHIFT], bit(S, last), side, space.lines,
    )  # fmt: skip
    weight = levels[max(j, 0), WEIGHT]
    for part in range(2):
        cell = space.cells[counts[j + 1, _UNITS] | (part << last)]
        e = weight * space.lines[3 * part, 0]
        cell[0] += e
        for i in range(j):
            cell[1 + i] += e * levels[i, _Y]
        if j >= 0:
            cell[1 + j] += weight * space.lines[3 * part + 1, 0]
        cell[1 + last] += weight * space.lines[3 * part + 2, 0]


@called
def fill_cells(K, S, sign, c, rule, space):
    """Fill the cells of the units S with phi - tau of that sign."""
    fields, levels, counts = space.fields, space.levels, space.counts
    levels[0, _ATTACKED] = levels[0, CLEAN]
    counts[0, _CUT_PANEL] = counts[0, CUT]
    if K == 1:
        _add_line(np.int64(-1), np.int64(1), -0.5 * _ROOT_TWO_PI, 0.5 * _ROOT_TWO_PI, K, S, sign, c, rule, space)
        return
    j = np.int64(0)
    _open(j, K, S, c, space)
    while j >= 0:
        edges = fields[_EDGES, j]
        if j == K - 2:
            for panel in range(counts[j, _PANELS]):
                n = _panel(j, panel, K, S, sign, c, rule, space)
                if n > 0:
                    _add_line(j, n, edges[panel], edges[panel + 1], K, S, sign, c, rule, space)
            j -= 1
        elif counts[j, _NODE] < counts[j, _NODES]:
            n, node = counts[j, _NODES], counts[j, _NODE]
            counts[j, _NODE] += 1
            low, high = edges[counts[j, _PANEL]], edges[counts[j, _PANEL] + 1]
            half = 0.5 * (high - low)
            y = 0.5 * (low + high) + half * rule.nodes[n, node]
            levels[j, _Y] = y
            levels[j + 1, WEIGHT] = levels[j, WEIGHT] * half * rule.weights[n, node] * exp(-0.5 * y * y)
            if _enter(j, K, S, sign, c, space):
                j += 1
                _open(j, K, S, c, space)
        else:
            counts[j, _NODE] = counts[j, _NODES] = 0
            counts[j, _PANEL] += 1
            if counts[j, _PANEL] == counts[j, _PANELS]:
                j -= 1
            else:
                counts[j, _NODES] = _panel(j, counts[j, _PANEL], K, S, sign, c, rule, space)
