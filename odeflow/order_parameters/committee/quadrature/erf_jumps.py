r"""Where an attack on erf units that is known point by point only jumps: found by halving, along the last field and across it.

The worst case jumps where its two sides are as bad, :math:`\max\phi + \min\phi = 2\tau` over what is within reach, which happens
once along a field, since both rise or fall with it; and where two local maxima of one side are.
"""

from __future__ import annotations

import math

import numba

from odeflow.numerics.compilation import inlined
from odeflow.order_parameters.committee.attacks import attack, attack_scratch
from odeflow.order_parameters.committee.quadrature.erf_panels import insert
from odeflow.order_parameters.committee.units import ERF

__all__ = ["cut", "is_cut_at", "jumps_scratch"]

_SCAN = 16  # intervals along a coordinate
_MOST = _SCAN
_SUSPECT = 0.1  # change of an attack, over epsilon, in one of them beyond which a jump is looked for
_SMOOTH = 0.02  # a change that falls below this is no jump
_FINE, _COARSE = 1e-10, 1e-3  # to which a jump is found, and to which only counted
_ACROSS = 1e-6  # to which a change of their number is
_compiled = numba.njit(nogil=True, error_model="numpy")


@inlined
def jumps_scratch(K):
    """Return the size of the array `work`."""
    return _MOST + 6 * K + attack_scratch(K)


@_compiled
def _attack_at(y, point, scale, Q, c, b, tau, epsilon, how, x, rest, d):
    """Fill d with the attack at the fields `point`, the last moved by scale y."""
    for k in range(c.size):
        x[k] = point[k]
    x[c.size - 1] += scale * y
    attack(ERF, x, Q, c, b, tau, epsilon, how, rest, d)


@_compiled
def _apart(one, two, Q, epsilon):
    """Return the distance of two attacks over epsilon."""
    square = 0.0
    for k in range(one.size):
        for l in range(one.size):
            square += (one[k] - two[k]) * Q[k, l] * (one[l] - two[l])
    return math.sqrt(max(square, 0.0)) / epsilon


@_compiled
def _jumps(point, scale, reach, width, Q, c, b, tau, epsilon, how, work, found):
    """Return how many jumps are at abs(y) < reach, x = point but for the last field, which is more by scale y.

    They are found to within the width, and `found` is filled with them.
    """
    K = c.size
    x, low, high, middle = work[:K], work[K : 2 * K], work[2 * K : 3 * K], work[3 * K : 4 * K]
    after, rest = work[4 * K : 5 * K], work[5 * K :]
    count = 0
    _attack_at(-reach, point, scale, Q, c, b, tau, epsilon, how, x, rest, after)
    for interval in range(_SCAN):
        start, stop = reach * (2.0 * interval / _SCAN - 1.0), reach * (2.0 * (interval + 1) / _SCAN - 1.0)
        for k in range(K):
            low[k] = after[k]
        _attack_at(stop, point, scale, Q, c, b, tau, epsilon, how, x, rest, after)
        change = _apart(low, after, Q, epsilon)
        if change < _SUSPECT:
            continue
        for k in range(K):
            high[k] = after[k]
        while change > _SMOOTH and stop - start > width:
            y = 0.5 * (start + stop)
            _attack_at(y, point, scale, Q, c, b, tau, epsilon, how, x, rest, middle)
            first, second = _apart(low, middle, Q, epsilon), _apart(middle, high, Q, epsilon)
            if first > second:
                stop, change = y, first
            else:
                start, change = y, second
            side = high if first > second else low
            for k in range(K):
                side[k] = middle[k]
        if change > _SMOOTH and count < found.size:
            found[count] = 0.5 * (start + stop)
            count += 1
    return count


@_compiled
def _jumps_across(y, level, digits, width, mean, A, Q, c, b, tau, epsilon, how, work, found, point):
    """`_jumps` along the last field at y of the one before it; the fields before that stand in `point`."""
    last = c.size - 1
    for k in range(level, c.size):
        point[k] = mean[level, k] + A[k, level] * y
    reach = math.sqrt(max(2.0 * digits - y * y, 1e-6))
    return _jumps(point, A[last, last], reach, width, Q, c, b, tau, epsilon, how, work, found)


@inlined
def _parts(K, work):
    """Return found, point and the rest of the work."""
    return work[:_MOST], work[_MOST : _MOST + K], work[_MOST + K :]


@_compiled
def cut(level, digits, reach, x, mean, A, Q, c, b, tau, epsilon, how, work, edges, count):
    """Insert the ends of panels of the last level, or of that before it, into edges[:count]; return their number.

    Of the last these are the jumps; of that before it, where the number of them changes.
    """
    K = c.size
    found, point, rest = _parts(K, work)
    for k in range(level):
        point[k] = x[k]
    if level == K - 1:
        point[level] = mean[level, level]
        n = _jumps(point, A[level, level], reach, _FINE, Q, c, b, tau, epsilon, how, rest, found)
        for i in range(n):
            count = insert(edges, count, found[i], reach)
        return count
    before = _jumps_across(-reach, level, digits, _COARSE, mean, A, Q, c, b, tau, epsilon, how, rest, found, point)
    for interval in range(_SCAN):
        start, stop = reach * (2.0 * interval / _SCAN - 1.0), reach * (2.0 * (interval + 1) / _SCAN - 1.0)
        after = _jumps_across(stop, level, digits, _COARSE, mean, A, Q, c, b, tau, epsilon, how, rest, found, point)
        if after != before:
            while stop - start > _ACROSS:
                y = 0.5 * (start + stop)
                n = _jumps_across(y, level, digits, _COARSE, mean, A, Q, c, b, tau, epsilon, how, rest, found, point)
                if n == before:
                    start = y
                else:
                    stop = y
            count = insert(edges, count, 0.5 * (start + stop), reach)
        before = after
    return count


@_compiled
def is_cut_at(y, level, digits, x, mean, A, Q, c, b, tau, epsilon, how, work):
    """Return whether there are jumps along the last field at y of the level before it."""
    found, point, rest = _parts(c.size, work)
    for k in range(level):
        point[k] = x[k]
    n = _jumps_across(y, level, digits, _COARSE, mean, A, Q, c, b, tau, epsilon, how, rest, found, point)
    return n > 0
