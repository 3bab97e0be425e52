r"""ReLU units against the exact worst case: how far along a line the wrong region is within reach.

The boundary of the wrong region f <= 0 consists of pieces of flats: on each some of the units are at their kink, :math:`X_k =
0`, and the sum over a set of others is 0. The point of the wrong region that is nearest to an example is its foot on one of
the flats, and any foot that is itself wrong shows that the region is no farther. So the highest point of a line that is within
reach is the highest of those at the distance epsilon from a flat whose foot is wrong: a quadratic equation a flat.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from odeflow.order_parameters.committee.errors.roots import output, root
from odeflow.order_parameters.committee.units import RELU

__all__ = ["flats_of", "worst_line"]


@njit(nogil=True, error_model="numpy")
def flats_of(frame):
    """Return the flats: up to K rows of a unit vector of t and its product with the flat's points; first how many rows."""
    K = frame.a.size
    if frame.kind != RELU:
        return np.empty((0, 1 + K * (K + 1)))
    flats = np.empty((3**K, 1 + K * (K + 1)))
    found = 0
    for choice in range(3**K):  # a digit a unit: off, on, at the kink
        row = flats[found]
        rank, rest, is_good, on = 0, choice, True, 0
        whole = np.zeros(K)
        level = -frame.B
        for k in range(K):
            digit = rest % 3
            rest //= 3
            if digit == 1:
                on += 1
                whole += frame.a[k] * frame.G[k]
                level -= frame.a[k] * frame.mean[k]
            elif digit == 2:
                is_good = is_good and _add(row, rank, frame.G[k].copy(), -frame.mean[k], K)
                rank += 1
        if is_good and on > 0:
            is_good = rank < K and _add(row, rank, whole, level, K)
            rank += 1
        elif is_good:  # all that are not at their kink are off: f = B
            is_good = frame.B == 0.0 and rank > 0
        if is_good:
            row[0] = rank
            found += 1
    return flats[:found]


@njit(nogil=True, error_model="numpy")
def _add(row, rank, normal, level, K):
    """Add normal . t = level to the flat, orthonormalised; return whether it is independent of the rows before."""
    length = math.sqrt(np.sum(normal * normal))
    for _ in range(2):
        for i in range(rank):
            at = 1 + i * (K + 1)
            product = 0.0
            for j in range(K):
                product += row[at + j] * normal[j]
            for j in range(K):
                normal[j] -= product * row[at + j]
            level -= product * row[at + K]
    rest = math.sqrt(np.sum(normal * normal))
    if not rest > 1e-9 * length:
        return False
    at = 1 + rank * (K + 1)
    for j in range(K):
        row[at + j] = normal[j] / rest
    row[at + K] = level / rest
    return True


@njit(nogil=True, error_model="numpy")
def worst_line(frame, flats, start, t, work):
    """Return the probability that an example of the line is wrong, or within reach of what is wrong."""
    K = frame.a.size
    sigma = frame.G[K - 1, K - 1]
    r = frame.radius
    w = root(frame.kind, frame.B, frame.a, frame.sign, start, work[0, 0])
    if w == np.inf:
        return 1.0
    top = w / sigma if sigma > 0.0 else (np.inf if w >= 0.0 else -np.inf)
    if frame.kind != RELU:  # one unit
        return 0.5 * math.erfc(-(top + r) * math.sqrt(0.5))
    scale = abs(frame.B)
    for k in range(K):
        scale += frame.a[k] * abs(start[k])
    foot, X = work[1], work[2]
    for flat in range(flats.shape[0]):
        row = flats[flat]
        rank = int(row[0])
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
