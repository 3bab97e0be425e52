"""Walk through a cell of the fields of ReLU units: levels of panels, and closed moments along the last coordinate.

What a cell is, and why the panels are where they are, says `odeflow.order_parameters.committee.quadrature.relu`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from odeflow.numerics.compilation import inlined
from odeflow.numerics.elementary import erfcx, exp

__all__ = [
    "BLOCK", "CENTRE", "CLEAN", "CUT", "LEFT", "MOST", "SHIFT", "SLOPE", "SPREAD", "WEIGHT", "A", "D", "Space",
    "bit", "compiled", "fill_cells", "is_possible", "space_of", "space_size",
]  # fmt: skip

BLOCK = 8
"""Nodes that are evaluated together."""
MOST = 48
"""Most nodes of a panel."""
_FAR = 37.0  # beyond it the normal density is 0 in float64
_SHARP = 0.6  # a transition narrower than this has panels of its own
_WIDE = 5.0  # half their length, in widths of the transition
_ROOT_HALF, _ROOT_TWO_PI = math.sqrt(0.5), math.sqrt(2.0 * math.pi)
_DENSITY = 1.0 / _ROOT_TWO_PI

compiled = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator: compile, and leave it to the compiler whether to inline. Without wrappers: it is called by kernels alone."""

# Pages of `Space.fields`
A, SPREAD, CENTRE, _EDGES, _MIDDLES, _WIDTHS = range(6)
# Columns of `Space.levels`
CLEAN, _ATTACKED, LEFT, _Y, WEIGHT, D, SHIFT, SLOPE = range(8)
# Columns of `Space.counts`
CUT, _CUT_PANEL, _UNITS, _PANELS, _PANEL, _NODES, _NODE, _TRANSITIONS = range(8)


class Space(NamedTuple):
    """What is known on each level j, where y_i is known for i < j."""

    fields: npt.NDArray[np.float64]
    """Pages: A = sqrt(v) L; SPREAD and CENTRE, the standard deviation and the mean [j, k] of x_k and, for k = K, of phi - tau with
    the units S; the edges of the panels of level j, the places of its sharp transitions, and half their widths."""
    levels: npt.NDArray[np.float64]
    """[j] CLEAN: b - tau + sum_{i < j} c_i x_i over S; the same at the attacked example; LEFT: squared length left for y_j, ...;
    y_j; WEIGHT: product of the weights of i < j. [k] D: d; SHIFT: Delta; SLOPE: d(phi - tau)/dy_k with the units S."""
    cells: npt.NDArray[np.float64]
    """[units active at the attacked example] The averages of e and of e y_j."""
    lines: npt.NDArray[np.float64]
    """[6, BLOCK] Partial sums along a line."""
    counts: npt.NDArray[np.int64]
    """[j] CUT: whether the half-space can still cut what is left; whether on the present panel of level j - 1; the bits of the
    units i < j that are active at the attacked example; number of panels, the present one, its nodes, the next one; transitions."""


@inlined
def _columns(K):
    """Return the most edges of a level: its ends, its plane, corners, three for each transition."""
    return 3 + 2 ** (K - 1) + 3 * (2 * K + 1)


@compiled
def space_size(K):
    """Return the length of `work` for `space_of`."""
    return (K + 1) * (6 * _columns(K) + 8) + 2**K * (K + 1) + 6 * BLOCK


@compiled
def space_of(K, work):
    """Return the views of `work`."""
    columns = _columns(K)
    fields = 6 * (K + 1) * columns
    levels = fields + 8 * (K + 1)
    cells = levels + 2**K * (K + 1)
    return Space(
        work[:fields].reshape((6, K + 1, columns)),
        work[fields:levels].reshape((K + 1, 8)),
        work[levels:cells].reshape((2**K, K + 1)),
        work[cells : cells + 6 * BLOCK].reshape((6, BLOCK)),
        np.zeros((K + 1, 8), np.int64),
    )


@compiled
def _line(n, middle, half, nodes, weights, x0, x1, sd, e0, e1, h0, h1, c, shift, is_active, side, out):
    """Add, along a panel of the last but one coordinate y, the averages of e, e y and e z over the last one, z.

    The last field is x0 + x1 y + sd z, the attacked error without it e0 + e1 y, and with side = +-1 only what has the sign
    `side` of x + (h0 + h1 y) / c counts. ``out[:3]`` is where the attacked unit is off, ``out[3:]`` where it is on.
    """
    inverse = 1.0 / sd
    h0, h1 = (h0 / c, h1 / c) if side != 0 else (0.0, 0.0)
    out[:] = 0.0
    for start in range(0, n, BLOCK):
        for lane in range(BLOCK):
            y = middle + half * nodes[start + lane]
            weight = half * weights[start + lane] * exp(-0.5 * y * y)
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
            out[0, lane] += off
            out[1, lane] += off * y
            out[2, lane] += weight * e * (n_low - n_cut)
            e += c * (x + shift)
            slope = c * sd
            first = n_cut - n_high
            on = weight * (e * (p_high - p_cut) + slope * first)
            out[3, lane] += on
            out[4, lane] += on * y
            out[5, lane] += weight * (e * first + slope * (p_high - p_cut + cut * n_cut - high * n_high))
    for lane in range(1, BLOCK):
        for k in range(6):
            out[k, 0] += out[k, lane]


@inlined
def bit(units, k):
    """Return whether unit k is one of a set."""
    return (units >> k) & 1 == 1


@compiled
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


@compiled
def _open(j, K, S, c, space):
    """Split level j, given y_i for i < j, into panels on which what lies behind is smooth."""
    fields, levels, counts = space.fields, space.levels, space.counts
    edges = fields[_EDGES, j]
    centre, sd = fields[CENTRE, j, j], fields[A, j, j]
    reach = math.sqrt(levels[j, LEFT])
    edges[0], edges[1] = -reach, reach
    zero = min(max(-centre / sd, -reach), reach)
    edges[0 if bit(S, j) else 1] = zero
    count = _add_edge((-levels[j, SHIFT] - centre) / sd, edges, 2)
    # corners of the box of the active units behind this one, on the half-space's edge
    if counts[j, CUT] and bit(S, j) and c[j] != 0.0:
        for corner in range(2 ** (K - 1 - j)):
            phi = levels[j, CLEAN]
            is_corner = True
            for i in range(j + 1, K):
                if bit(corner, i - j - 1):
                    is_corner = is_corner and bit(S, i) and levels[i, SHIFT] < 0.0
                    phi -= c[i] * levels[i, SHIFT]
            if is_corner:
                count = _add_edge((-phi / c[j] - centre) / sd, edges, count)
    # where a field behind this one, or the output, passes from one side to the other within a short range of y
    transitions = 0
    for k in range(j + 1, K + 1):
        if k == K and not counts[j, CUT]:
            continue
        a = abs(levels[j, SLOPE] if k == K else fields[A, k, j])
        if fields[SPREAD, j + 1, k] >= _SHARP * a:
            continue
        half = _WIDE * fields[SPREAD, j + 1, k] / a
        for place in range(2):
            shift = 0.0
            if place == 1:
                shift = 0.0 if k == K else levels[k, SHIFT]
                if shift == 0.0 or (shift < 0.0) != bit(S, k):
                    continue
            at = -(fields[CENTRE, j, k] + shift) / (levels[j, SLOPE] if k == K else fields[A, k, j])
            if at + half <= edges[0] or at - half >= edges[count - 1]:
                continue
            fields[_MIDDLES, j, transitions] = at
            fields[_WIDTHS, j, transitions] = half
            transitions += 1
            for side in range(3):
                count = _add_edge(at + (side - 1) * half, edges, count)
    counts[j, _PANELS] = count - 1
    counts[j, _PANEL] = -1
    counts[j, _NODES] = 0
    counts[j, _NODE] = 0
    counts[j, _TRANSITIONS] = transitions


@compiled
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
    scale = 1.0
    for i in range(counts[j, _TRANSITIONS]):
        middle, half = fields[_MIDDLES, j, i], fields[_WIDTHS, j, i]
        if low < middle + half * 0.999 and high > middle - half * 0.999:
            scale = min(scale, half / (_WIDE * _SHARP))
    return min(int(math.ceil(rule.least + rule.density * (high - low) / scale)), MOST)  # noqa: RUF046


@compiled
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
    fields[CENTRE, j + 1, K] = fields[CENTRE, j, K] + levels[j, SLOPE] * y
    return is_possible(j + 1, K, S, sign, space)


@compiled
def is_possible(j, K, S, sign, space):
    """Return whether the units S, and the sign, can be met within the length that is left."""
    fields, counts, left = space.fields, space.counts, space.levels[j, LEFT]
    for k in range(j, K):
        x, spread = fields[CENTRE, j, k], fields[SPREAD, j, k]
        if (x < 0.0) == bit(S, k) and x * x > left * spread * spread:
            return False
    if counts[j, CUT]:
        e, spread = sign * fields[CENTRE, j, K], fields[SPREAD, j, K]
        if e * e > left * spread * spread:
            if e < 0.0:
                return False
            counts[j, CUT] = 0
    return True


@compiled
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


@compiled
def fill_cells(K, S, sign, c, rule, space):
    """Fill the cells of the units S with phi - tau of that sign."""
    fields, levels, counts = space.fields, space.levels, space.counts
    levels[0, _ATTACKED] = levels[0, CLEAN]
    counts[0, _CUT_PANEL] = counts[0, CUT]
    if K == 1:
        _add_line(-1, 1, -0.5 * _ROOT_TWO_PI, 0.5 * _ROOT_TWO_PI, K, S, sign, c, rule, space)
        return
    j = 0
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
