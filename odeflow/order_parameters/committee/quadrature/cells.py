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

__all__ = ["BLOCK", "MOST", "bit", "compiled", "fill_cells", "is_possible", "views", "views_size"]

BLOCK = 8
"""Nodes that are evaluated together."""
MOST = 48
"""Most nodes of a panel."""
_FAR = 37.0  # beyond it the normal density is 0 in float64
_SHARP = 0.6  # a transition narrower than this has panels of its own
_WIDE = 5.0  # half their length, in widths of the transition
_ROOT_HALF, _ROOT_TWO_PI = math.sqrt(0.5), math.sqrt(2.0 * math.pi)
_DENSITY = 1.0 / _ROOT_TWO_PI

compiled = njit(nogil=True, error_model="numpy")
"""Decorator: compile, and leave it to the compiler whether to inline."""


class Space(NamedTuple):
    """Views of the scratch arrays. Where an index j is a level, y_i is known for i < j."""

    A: npt.NDArray[np.float64]
    """sqrt(v) L."""
    spread: npt.NDArray[np.float64]
    """[j, k] Standard deviation of x_k, and for k = K that of phi - tau with the units S."""
    centre: npt.NDArray[np.float64]
    """[j, k] Mean of x_k, and for k = K that of phi - tau with the units S."""
    slope: npt.NDArray[np.float64]
    """[i] d(phi - tau)/dy_i with the units S."""
    clean: npt.NDArray[np.float64]
    """[j] b - tau + sum_{i < j} c_i x_i over S."""
    attacked: npt.NDArray[np.float64]
    """[j] The same at the attacked example."""
    left: npt.NDArray[np.float64]
    """[j] Squared length that is left for y_j, y_{j+1}, ..."""
    y: npt.NDArray[np.float64]
    weight: npt.NDArray[np.float64]
    """[j] Product of the weights of the levels i < j."""
    edges: npt.NDArray[np.float64]
    """[j] Edges of the panels, increasing."""
    middles: npt.NDArray[np.float64]
    """[j] Where the sharp transitions are."""
    widths: npt.NDArray[np.float64]
    """[j] How sharp."""
    d: npt.NDArray[np.float64]
    shift: npt.NDArray[np.float64]
    """Delta."""
    cells: npt.NDArray[np.float64]
    """[units active at the attacked example] The averages of e and of e y_j."""
    lines: npt.NDArray[np.float64]
    """[6, BLOCK] Partial sums along a line."""
    panels: npt.NDArray[np.int64]
    """[j] Number of panels, the present one, its nodes, the present one, the transitions."""
    units: npt.NDArray[np.int64]
    """[j] The bits of the units i < j that are active at the attacked example."""
    cut: npt.NDArray[np.bool_]
    """[j] Whether the half-space can still cut what is left, given y_i for i < j."""
    cut_panel: npt.NDArray[np.bool_]
    """[j] The same on the whole panel of level j - 1."""


@compiled
def views_size(K):
    """Return the length of `work` for `views`."""
    edges = 3 + 2 ** (K - 1) + 3 * (2 * K + 1)
    return K * K + 2 * (K + 1) * (K + 1) + 6 * (K + 1) + 3 * K * edges + 2 * K + 2**K * (K + 1) + 6 * BLOCK


@compiled
def views(K, work):
    """Return the views of `work`."""
    edges = 3 + 2 ** (K - 1) + 3 * (2 * K + 1)
    n = K + 1
    at = 0
    A = work[at : at + K * K].reshape((K, K))
    at += K * K
    spread = work[at : at + n * n].reshape((n, n))
    at += n * n
    centre = work[at : at + n * n].reshape((n, n))
    at += n * n
    vectors = work[at : at + 6 * n].reshape((6, n))
    at += 6 * n
    levels = work[at : at + 3 * K * edges].reshape((3, K, edges))
    at += 3 * K * edges
    attack = work[at : at + 2 * K].reshape((2, K))
    at += 2 * K
    cells = work[at : at + 2**K * n].reshape((2**K, n))
    at += 2**K * n
    lines = work[at : at + 6 * BLOCK].reshape((6, BLOCK))
    return Space(
        A, spread, centre, vectors[0], vectors[1], vectors[2], vectors[3], vectors[4], vectors[5],
        levels[0], levels[1], levels[2], attack[0], attack[1], cells, lines,
        np.zeros((5, n), np.int64), np.zeros(n, np.int64), np.zeros(n, np.bool_), np.zeros(n, np.bool_),
    )  # fmt: skip


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
def _open(j, K, S, sign, c, space):
    """Split level j, given y_i for i < j, into panels on which what lies behind is smooth."""
    A, centre, shift, edges = space.A, space.centre, space.shift, space.edges[j]
    sd = A[j, j]
    reach = math.sqrt(space.left[j])
    low, high = -reach, reach
    zero = -centre[j, j] / sd
    if bit(S, j):
        low = min(max(zero, low), high)
    else:
        high = max(min(zero, high), low)
    edges[0], edges[1] = low, high
    count = 2
    count = _add_edge((-shift[j] - centre[j, j]) / sd, edges, count)
    # corners of the box of the active units behind this one, on the half-space's edge
    if space.cut[j] and bit(S, j) and c[j] != 0.0:
        for corner in range(2 ** (K - 1 - j)):
            phi = space.clean[j]
            is_corner = True
            for i in range(j + 1, K):
                if bit(corner, i - j - 1):
                    is_corner = is_corner and bit(S, i) and shift[i] < 0.0
                    phi -= c[i] * shift[i]
            if is_corner:
                count = _add_edge((-phi / c[j] - centre[j, j]) / sd, edges, count)
    # where a field behind this one, or the output, passes from one side to the other within a short range of y
    transitions = 0
    for k in range(j + 1, K + 1):
        if k == K and not space.cut[j]:
            continue
        a = space.slope[j] if k == K else A[k, j]
        width = space.spread[j + 1, k]
        if width >= _SHARP * abs(a):
            continue
        for place in range(2):
            if place == 1 and (k == K or (shift[k] < 0.0) != bit(S, k) or shift[k] == 0.0):
                continue
            at = -(centre[j, k] + (shift[k] if place == 1 else 0.0)) / a
            half = _WIDE * width / abs(a)
            if at + half <= low or at - half >= high:
                continue
            space.middles[j, transitions] = at
            space.widths[j, transitions] = half
            transitions += 1
            count = _add_edge(at - half, edges, count)
            count = _add_edge(at, edges, count)
            count = _add_edge(at + half, edges, count)
    edges[:count].sort()
    space.panels[0, j] = count - 1
    space.panels[1, j] = -1
    space.panels[2, j] = 0
    space.panels[3, j] = 0
    space.panels[4, j] = transitions


@inlined
def _add_edge(y, edges, count):
    """Add y to the edges if it lies between the first two."""
    if y > edges[0] and y < edges[1]:
        edges[count] = y
        count += 1
    return count


@compiled
def _panel(j, panel, K, S, sign, c, rule, space):
    """Return the nodes of a panel of level j, 0 if it is empty, and set what is true on all of it for level j + 1."""
    low, high = space.edges[j, panel], space.edges[j, panel + 1]
    if high - low < 1e-13:
        return 0
    x = space.centre[j, j] + space.A[j, j] * 0.5 * (low + high)
    space.cut_panel[j + 1] = space.cut[j]
    if space.cut[j]:
        phi = space.clean[j] + (c[j] * x if bit(S, j) else 0.0)
        rises, falls = False, False
        for i in range(j + 1, K):
            if bit(S, i):
                rises = rises or c[i] > 0.0
                falls = falls or c[i] < 0.0
        if phi * sign > 0.0:
            if not (falls if sign > 0.0 else rises):
                space.cut_panel[j + 1] = False
        elif not (rises if sign > 0.0 else falls):
            return 0
    is_on = x + space.shift[j] > 0.0
    space.units[j + 1] = space.units[j] | ((1 << j) if is_on else 0)
    scale = 1.0
    for i in range(space.panels[4, j]):
        middle, half = space.middles[j, i], space.widths[j, i]
        if low < middle + half * 0.999 and high > middle - half * 0.999:
            scale = min(scale, half / (_WIDE * _SHARP))
    return min(math.ceil(rule.least + rule.density * (high - low) / scale), MOST)


@compiled
def _enter(j, K, S, sign, c, space):
    """Set level j + 1 after y_j is chosen; return whether anything is left there."""
    y = space.y[j]
    centre = space.centre
    x = centre[j, j] + space.A[j, j] * y
    space.clean[j + 1] = space.clean[j] + (c[j] * x if bit(S, j) else 0.0)
    space.attacked[j + 1] = space.attacked[j] + (c[j] * (x + space.shift[j]) if bit(space.units[j + 1], j) else 0.0)
    space.cut[j + 1] = space.cut_panel[j + 1]
    left = space.left[j] - y * y
    space.left[j + 1] = left
    if left <= 0.0:
        return False
    for k in range(j + 1, K):
        centre[j + 1, k] = centre[j, k] + space.A[k, j] * y
    centre[j + 1, K] = centre[j, K] + space.slope[j] * y
    return is_possible(j + 1, K, S, sign, space)


@compiled
def is_possible(j, K, S, sign, space):
    """Return whether the units S, and the sign, can be met within the length that is left."""
    left, centre, spread = space.left[j], space.centre, space.spread
    for k in range(j, K):
        x = centre[j, k] if bit(S, k) else -centre[j, k]
        if x < 0.0 and x * x > left * spread[j, k] * spread[j, k]:
            return False
    if space.cut[j]:
        e = sign * centre[j, K]
        if e * e > left * spread[j, K] * spread[j, K]:
            if e < 0.0:
                return False
            space.cut[j] = False
    return True


@compiled
def _add_line(j, n, low, high, K, S, sign, c, rule, space):
    """Add a panel of level j = K - 2 to its two cells; with one unit, j = -1, one node at y = 0."""
    last = K - 1
    half, middle = 0.5 * (high - low), 0.5 * (high + low)
    x0, x1, e0, e1, h0, h1 = space.centre[j + 1, last], 0.0, space.attacked[j + 1], 0.0, space.clean[j + 1], 0.0
    if j >= 0:
        x, sd = space.centre[j, j], space.A[j, j]
        x0, x1 = space.centre[j, last], space.A[last, j]
        e0, h0 = space.attacked[j], space.clean[j]
        if bit(space.units[j + 1], j):
            e0, e1 = e0 + c[j] * (x + space.shift[j]), c[j] * sd
        if bit(S, j):
            h0, h1 = h0 + c[j] * x, c[j] * sd
    is_active = bit(S, last)
    side = 0
    if space.cut_panel[j + 1] and is_active and c[last] != 0.0:
        side = 1 if sign * c[last] > 0.0 else -1
    _line(
        n, middle, half, rule.nodes[n], rule.weights[n], x0, x1, space.A[last, last], e0, e1, h0, h1, c[last],
        space.shift[last], is_active, side, space.lines,
    )  # fmt: skip
    for part in range(2):
        cell = space.cells[space.units[j + 1] | (part << last)]
        weight = space.weight[max(j, 0)]
        e = weight * space.lines[3 * part, 0]
        cell[0] += e
        for i in range(j):
            cell[1 + i] += e * space.y[i]
        if j >= 0:
            cell[1 + j] += weight * space.lines[3 * part + 1, 0]
        cell[1 + last] += weight * space.lines[3 * part + 2, 0]


@compiled
def fill_cells(K, S, sign, c, rule, space):
    """Fill the cells of the units S with phi - tau of that sign."""
    if K == 1:
        _add_line(-1, 1, -0.5 * _ROOT_TWO_PI, 0.5 * _ROOT_TWO_PI, K, S, sign, c, rule, space)
        return
    panels = space.panels
    j = 0
    _open(j, K, S, sign, c, space)
    while j >= 0:
        if j == K - 2:
            for panel in range(panels[0, j]):
                n = _panel(j, panel, K, S, sign, c, rule, space)
                if n > 0:
                    _add_line(j, n, space.edges[j, panel], space.edges[j, panel + 1], K, S, sign, c, rule, space)
            j -= 1
        elif panels[3, j] < panels[2, j]:
            low, high = space.edges[j, panels[1, j]], space.edges[j, panels[1, j] + 1]
            n, node = panels[2, j], panels[3, j]
            panels[3, j] += 1
            y = 0.5 * (low + high) + 0.5 * (high - low) * rule.nodes[n, node]
            space.y[j] = y
            space.weight[j + 1] = space.weight[j] * 0.5 * (high - low) * rule.weights[n, node] * exp(-0.5 * y * y)
            if _enter(j, K, S, sign, c, space):
                _open(j + 1, K, S, sign, c, space)
                j += 1
        else:
            panels[1, j] += 1
            panels[3, j] = 0
            panels[2, j] = 0
            if panels[1, j] == panels[0, j]:
                j -= 1
            else:
                panels[2, j] = _panel(j, panels[1, j], K, S, sign, c, rule, space)
