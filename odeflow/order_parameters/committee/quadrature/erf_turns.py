r"""Where the direction of an attack on erf units turns: its singularities beside the real axis of one level's coordinate.

With :math:`u_k = c_k e^{-x_k^2/2}` the direction is singular where :math:`u^{\mathsf T} Q u = 0`. For two units, i and j, that is

.. math:: x_j^2 - x_i^2 = \ln\frac{c_j^2 Q_{jj}}{c_i^2 Q_{ii}} \pm 2\mathrm{i}\psi, \qquad
    \cos\psi = -\mathrm{sgn}(c_i c_j)\,Q_{ij}/\sqrt{Q_{ii} Q_{jj}} :

near the real axis where their weights all but cancel. Both fields are linear in a level's y, so that these are the roots of a
quadratic. What the deeper coordinates add smears them, by the deviation of the root.
"""

from __future__ import annotations

import math

import numba

from odeflow.numerics.compilation import inlined

__all__ = ["find_turns", "most_turns"]

_SMEARED = 0.7  # how much of the deviation of a root counts as its distance
_compiled = numba.njit(nogil=True, error_model="numpy")


@inlined
def most_turns(K):
    """Return how many singularities of a level there may be."""
    return 2 * K * K


@inlined
def _root(a, psi):
    """Return the parts, both positive, of sqrt(a + 2 i psi)."""
    size = math.sqrt(a * a + 4.0 * psi * psi)
    if a > 0.0:
        real = math.sqrt(0.5 * (size + a))
        return real, psi / real
    imaginary = math.sqrt(0.5 * (size - a))
    return psi / max(imaginary, 1e-300), imaginary


@inlined
def _alike(x, level, Q, c):
    """Return ln(|u w|^2/|r|^2) at x = 0, and psi, of this level's unit and r = sum_{j<level} u_j w_j; psi = -1 if there is no r.

    With r, P = r.r and C = r.w, the direction is singular where |r + u w|^2 = P + 2 u C + u^2 Q = 0: at u = sqrt(P/Q)
    exp(+-i(pi - psi)), cos psi = -sgn(c) C/sqrt(P Q), so that x^2 = ln(c^2 Q/P) -+ 2 i psi; exp(-x_0^2/2) is taken out of r.
    """
    nearest = 1e300
    for j in range(level):
        if c[j] != 0.0:
            nearest = min(nearest, x[j] * x[j])
    if nearest == 1e300 or c[level] == 0.0:
        return 0.0, -1.0
    P, C = 0.0, 0.0
    for j in range(level):
        u = c[j] * math.exp(0.5 * (nearest - x[j] * x[j]))
        C += u * Q[level, j]
        P += u * u * Q[j, j]
        for i in range(j):
            P += 2.0 * u * c[i] * math.exp(0.5 * (nearest - x[i] * x[i])) * Q[i, j]
    own = Q[level, level]
    P = max(P, 1e-300)
    cosine = min(max(-math.copysign(C, C * c[level]) / math.sqrt(P * own), -1.0), 1.0)
    return nearest + math.log(c[level] * c[level] * own / P), math.acos(cosine)


@_compiled
def _insert(turns, count, centre, distance):
    """Insert a singularity among those in order of their y; of two that are nearer than the wider, the sharper stays."""
    kept = 0
    for i in range(count):
        gap = abs(turns[0, i] - centre)
        if turns[1, i] <= distance and gap < distance:
            return count
        if not (distance < turns[1, i] and gap < turns[1, i]):
            turns[0, kept], turns[1, kept] = turns[0, i], turns[1, i]
            kept += 1
    at = kept
    while at > 0 and turns[0, at - 1] > centre:
        turns[0, at], turns[1, at] = turns[0, at - 1], turns[1, at - 1]
        at -= 1
    turns[0, at], turns[1, at] = centre, distance
    return kept + 1


@_compiled
def find_turns(level, x, Q, c, rule, mean, A, spread, limit, turns):
    """Set turns to y and the distance of a level's singularities that are nearer than the Gaussian's; return their number."""
    count = 0
    scale = A[level, level]
    real, psi = _alike(x, level, Q, c)
    if psi >= 0.0:
        near, far = _root(real, psi)
        if far < rule.smooth * scale:
            count = _add(turns, count, near, far, scale, mean[level, level], limit[level])
    for j in range(level + 1, c.size):
        for i in range(level, j):
            if c[i] == 0.0 or c[j] == 0.0:
                continue
            cosine = -math.copysign(1.0, c[i] * c[j]) * Q[i, j] / math.sqrt(Q[i, i] * Q[j, j])
            psi = math.acos(min(max(cosine, -1.0), 1.0))
            ratio = math.log(c[j] * c[j] * Q[j, j] / (c[i] * c[i] * Q[i, i]))
            if i == level:  # where the two on either side of x_j = 0 meet
                near, far = _root(-ratio, psi)
                if far < rule.smooth * scale:
                    count = _add(turns, count, near, far, scale, mean[level, level], limit[level])
            count = _add_crossings(level, i, j, ratio, psi, rule, mean, A, spread, limit, turns, count)
    return count


@inlined
def _add(turns, count, near, far, scale, mean, limit):
    """Add x = +-near +-i far of the level's unit."""
    if near > far:
        if near < limit:
            count = _insert(turns, count, (-near - mean) / scale, far / scale)
            count = _insert(turns, count, (near - mean) / scale, far / scale)
        return count
    return _insert(turns, count, -mean / scale, far / scale)


@inlined
def _add_crossings(level, i, j, ratio, psi, rule, mean, A, spread, limit, turns, count):
    """Add the y at which the mean fields meet the singularities of two units: the roots of a y^2 + 2 b y + e = 2 i psi."""
    p, q, d_p, d_q = mean[level, i], mean[level, j], A[i, level], A[j, level]
    a, b, e = d_q * d_q - d_p * d_p, q * d_q - p * d_p, q * q - p * p - ratio
    a = math.copysign(max(abs(a), 1e-100), a)
    real, imaginary = _root(b * b - a * e, psi * abs(a))
    real, imaginary = math.copysign(real, b), math.copysign(imaginary, a * b)
    # numerator -(b + s) of the one root, s^2 = b^2 - a e + 2 i psi a; the other is (e - 2 i psi) over it
    top, side = -(b + real), -imaginary
    square = top * top + side * side
    for which in range(2):
        if which == 0:
            y, h = top / a, side / a
        else:
            y, h = (e * top - 2.0 * psi * side) / square, (-2.0 * psi * top - e * side) / square
        h = abs(h)
        # the deeper coordinates move D by 2 x_j dx_j - 2 x_i dx_i, y by that over D' = 2 a y + 2 b
        slope = math.sqrt((a * y + b) ** 2 + (a * h) ** 2)
        s_i, s_j = spread[level, i] / rule.reach, spread[level, j] / rule.reach
        smear = math.sqrt(((p + d_p * y) * s_i) ** 2 + ((q + d_q * y) * s_j) ** 2)
        h = math.sqrt(h * h + (_SMEARED * smear / max(slope, 1e-300)) ** 2)
        is_felt = abs(p + d_p * y) < limit[i] + spread[level, i] and abs(q + d_q * y) < limit[j] + spread[level, j]
        if is_felt and h < rule.smooth and abs(y) < rule.reach:
            count = _insert(turns, count, y, h)
    return count
