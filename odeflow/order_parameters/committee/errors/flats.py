r"""ReLU units against the exact worst case: how far along a line the wrong region is within reach.

The boundary of the wrong region f <= 0 consists of pieces of flats: on each some of the units are at their kink, :math:`X_k =
0`, and the sum over a set of others is 0. The point of the wrong region that is nearest to an example is its foot on one of
the flats, and any foot that is itself wrong shows that the region is no farther. So the highest point of a line that is within
reach is the highest of those at the distance epsilon from a flat whose foot is wrong: a quadratic equation a flat.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from odeflow.numerics.compilation import called
from odeflow.order_parameters.committee.errors.roots import output, root
from odeflow.order_parameters.committee.units import RELU

__all__ = ["flats_of", "worst_line"]


@called
def flats_of(frame, are_wanted):
    """Return the flats: up to K rows of a unit vector of t and its product with the flat's points; first how many rows.

    The last flat is followed by one of no rows.
    """
    K = frame.a.size
    choices = 3**K if are_wanted and frame.kind == RELU else 0
    flats = np.zeros((choices + 1, 1 + K * (K + 1)))
    found = 0
    whole = np.empty(K)
    for choice in range(choices):  # a digit a unit: off, on, at the kink
        row = flats[found]
        rank: Any = np.int64(0)
        rest, is_good, on = choice, True, 0
        level = -frame.B
        for k in range(K):
            whole[k] = 0.0
        for k in range(K):
            digit = rest % 3
            rest //= 3
            if digit == 1:
                on += 1
                for j in range(K):
                    whole[j] += frame.a[k] * frame.G[k, j]
                level -= frame.a[k] * frame.mean[k]
            elif digit == 2:
                is_good = is_good and _add(row, rank, frame.G[k], -frame.mean[k])
                rank += 1
        if is_good and on > 0:
            is_good = rank < K and _add(row, rank, whole, level)
            rank += 1
        elif is_good:  # all that are not at their kink are off: f = B
            is_good = frame.B == 0.0 and rank > 0
        row[0] = 0.0
        if is_good:
            row[0] = rank
            found += 1
    return flats


@called
def _add(row, rank, normal, level):
    """Add normal . t = level to the flat, orthonormalised; return whether it is independent of the rows before."""
    K = normal.size
    at = 1 + rank * (K + 1)
    length, rest = 0.0, 0.0
    for j in range(K):
        row[at + j] = normal[j]
        length += normal[j] * normal[j]
    row[at + K] = level
    for i in range(2 * rank):  # twice: the first leaves a rounding error where little is left
        before = 1 + i % rank * (K + 1)
        product = 0.0
        for j in range(K):
            product += row[before + j] * row[at + j]
        for j in range(K + 1):
            row[at + j] -= product * row[before + j]
    for j in range(K):
        rest += row[at + j] * row[at + j]
    if not rest > 1e-18 * length:
        return False
    for j in range(K + 1):
        row[at + j] /= math.sqrt(rest)
    return True


@called
def worst_line(frame, flats, start, t, work):
    """Return the probability that an example of the line is wrong, or within reach of what is wrong."""
    K = frame.a.size
    sigma = frame.G[K - 1, K - 1]
    r = frame.radius
    w = root(frame.kind, frame.B, frame.a, frame.sign, start, work[0, 0])
    if w == np.inf:
        return 1.0
    top = w / sigma
    if frame.kind != RELU:  # one unit
        return 0.5 * math.erfc(-(top + r) * math.sqrt(0.5))
    scale = abs(frame.B)
    for k in range(K):
        scale += frame.a[k] * abs(start[k])
    foot, X = work[1], work[2]
    for flat in range(flats.shape[0]):
        row = flats[flat]
        rank = int(row[0])
        if rank == 0:
            break
        square, product, rest = 0.0, 0.0, -r * r
        for i in range(rank):
            at = 1 + i * (K + 1)
            away = -row[at + K]
            for j in range(K - 1):
                away += row[at + j] * t[j]
            work[3, i] = away
            square += row[at + K - 1] * row[at + K - 1]
            product += row[at + K - 1] * away
            rest += away * away
        high = 0.0
        if square > 1e-18:
            discriminant = product * product - square * rest
            if discriminant < 0.0:
                continue
            high = (math.sqrt(discriminant) - product) / square
            if high <= top:
                continue
        elif rest > 0.0:
            continue
        for j in range(K):
            foot[j] = t[j] if j < K - 1 else high
        for i in range(rank):
            at = 1 + i * (K + 1)
            away = work[3, i] + row[at + K - 1] * high
            for j in range(K):
                foot[j] -= away * row[at + j]
        for k in range(K):
            X[k] = frame.mean[k]
            for j in range(K):
                X[k] += frame.G[k, j] * foot[j]
        if output(frame.kind, frame.B, frame.a, frame.sign, X[:K]) <= 1e-12 * scale:
            top = high if square > 1e-18 else np.inf
    return 0.5 * math.erfc(-top * math.sqrt(0.5))
