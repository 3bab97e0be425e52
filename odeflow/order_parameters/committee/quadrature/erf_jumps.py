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

__all__ = ["cut", "jumps_scratch"]

_SCAN = 16  # intervals along a coordinate
_SUSPECT = 0.1  # change of an attack, over epsilon, in one of them beyond which a jump is looked for
_SMOOTH = 0.02  # a change that falls below this is no jump
_FINE, _COARSE = 1e-10, 1e-3  # to which a jump is found, and to which only counted
_ACROSS = 1e-6  # to which a change of their number is
_compiled = numba.njit(nogil=True, error_model="numpy")


@inlined
def jumps_scratch(K):
    """Return the size of the array `work`."""
    return _SCAN + 6 * K + attack_scratch(K)


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
def _jumps(y, level, digits, width, x, mean, A, Q, c, b, tau, epsilon, how, work, found):
    """Fill `found` with the jumps along the last field, to within the width, and return how many they are.

    Of the last level y is 0; of that before it, its coordinate.
    """
    K = c.size
    point, low, high, middle = work[:K], work[K : 2 * K], work[2 * K : 3 * K], work[3 * K : 4 * K]
    after, moved, rest = work[4 * K : 5 * K], work[5 * K : 6 * K], work[6 * K :]
    for k in range(K):
        point[k] = x[k] if k < level else mean[level, k] + A[k, level] * y
    scale = A[K - 1, K - 1]
    reach = math.sqrt(max(2.0 * digits - y * y, 1e-6))
    count = 0
    stop = -reach
    for interval in range(_SCAN + 1):
        start, stop = stop, reach * (2.0 * interval / _SCAN - 1.0)
        for k in range(K):
            low[k] = after[k]
        _attack_at(stop, point, scale, Q, c, b, tau, epsilon, how, moved, rest, after)
        change = _apart(low, after, Q, epsilon) if interval > 0 else 0.0
        if change < _SUSPECT:
            continue
        left, right = start, stop
        for k in range(K):
            high[k] = after[k]
        while change > _SMOOTH and right - left > width:
            z = 0.5 * (left + right)
            _attack_at(z, point, scale, Q, c, b, tau, epsilon, how, moved, rest, middle)
            first, second = _apart(low, middle, Q, epsilon), _apart(middle, high, Q, epsilon)
            if first > second:
                right, change = z, first
            else:
                left, change = z, second
            side = high if first > second else low
            for k in range(K):
                side[k] = middle[k]
        if change > _SMOOTH:
            found[count] = 0.5 * (left + right)
            count += 1
    return count


@_compiled
def cut(level, digits, reach, x, mean, A, Q, c, b, tau, epsilon, how, work, edges, count):
    """Insert the ends of panels of the last level, or of that before it, into edges[:count]; return their number.

    Of the last these are the jumps; of that before it, where the number of them changes.
    """
    found, rest = work[:_SCAN], work[_SCAN:]
    if level == c.size - 1:
        for i in range(_jumps(0.0, level, digits, _FINE, x, mean, A, Q, c, b, tau, epsilon, how, rest, found)):
            count = insert(edges, count, found[i], reach)
        return count
    before, stop = 0, -reach
    for interval in range(_SCAN + 1):
        start, stop = stop, reach * (2.0 * interval / _SCAN - 1.0)
        after = _jumps(stop, level, digits, _COARSE, x, mean, A, Q, c, b, tau, epsilon, how, rest, found)
        if interval > 0 and after != before:
            left, right = start, stop
            while right - left > _ACROSS:
                y = 0.5 * (left + right)
                n = _jumps(y, level, digits, _COARSE, x, mean, A, Q, c, b, tau, epsilon, how, rest, found)
                if n == before:
                    left = y
                else:
                    right = y
            count = insert(edges, count, 0.5 * (left + right), reach)
        before = after
    return count
