r"""Averages over the fields at given points, for the attacks whose cells are not known: PGD, and the worst case.

They differ from FGSM on a part of the examples, and little on many. Therefore only the difference from FGSM's averages, which
are known well, is summed over the points: scrambled Sobol' points with a fixed seed, so that the same state always has the
same averages. Approximate: the error falls a little faster than one over the root of their number.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import called
from odeflow.order_parameters.committee.attacks import attack, attack_scratch
from odeflow.order_parameters.committee.quadrature.sums import FGSM, Attack, layout
from odeflow.order_parameters.committee.units import slope, unit

__all__ = ["add_difference", "normal_points", "points_scratch"]

_SEED = 14


@functools.cache
def normal_points(n: int, count: int) -> npt.NDArray[np.float64]:
    """Return Sobol' points of the normal law in n dimensions, shape (count, n); count is a power of 2."""
    from scipy.special import ndtri
    from scipy.stats import qmc

    points = qmc.Sobol(n, rng=np.random.default_rng(_SEED)).random_base2(round(math.log2(count)))
    # a coordinate that is rounded to 0 stays in its cell
    return np.ascontiguousarray(ndtri(np.maximum(points, 0.5 / count)))


@called
def points_scratch(K):
    """Return the length of `work` for `add_difference`."""
    return 5 * K + attack_scratch(K)


@called
def add_difference(kind, m, v, L, Q, c, b, tau, epsilon, how, share, points, work, sums):
    """Add `share` times the averages under the attack `how` less those under FGSM, over x = m + sqrt(v) L y.

    Parameters
    ----------
    kind
        ERF or RELU, of `odeflow.order_parameters.committee.units`.
    points
        The y, shape (points, K), of equal weight.
    work
        Scratch of `points_scratch(K)` floats.
    sums
        Layout of `odeflow.order_parameters.committee.quadrature.sums` with n = K.
    """
    K = m.size
    x, d, moved, s, g = work[:K], work[K : 2 * K], work[2 * K : 3 * K], work[3 * K : 4 * K], work[4 * K : 5 * K]
    room = work[5 * K : 5 * K + attack_scratch(K)]
    fgsm = Attack(FGSM, 1, 1.0)
    root = math.sqrt(v)
    for point in range(points.shape[0]):
        y = points[point]
        for k in range(K):
            x[k] = m[k]
            for i in range(k + 1):
                x[k] += root * L[k, i] * y[i]
        for part in range(2):
            attack(kind, x, Q, c, b, tau, epsilon, how if part == 0 else fgsm, room, d)
            weight = (share if part == 0 else -share) / points.shape[0]
            _add_point(kind, x, y, d, Q, c, b, tau, weight, moved, s, g, sums)


@called
def _add_point(kind, x, y, d, Q, c, b, tau, weight, moved, s, g, sums):
    K = x.size
    s_y, s_d, s_s, e_g, at_e, e_e = layout(K, K)
    e = b - tau
    for k in range(K):
        moved[k] = x[k]
        for i in range(K):
            moved[k] += Q[k, i] * d[i]
        g[k] = unit(kind, moved[k])
        e += c[k] * g[k]
    for k in range(K):
        s[k] = -e * c[k] * slope(kind, moved[k])
    for k in range(K):
        weighted = weight * s[k]
        sums[k] += weighted
        for i in range(K):
            sums[s_y + k * K + i] += weighted * y[i]
            sums[s_d + k * K + i] += weighted * d[i]
            sums[s_s + k * K + i] += weighted * s[i]
        sums[e_g + k] += weight * e * g[k]
    sums[at_e] += weight * e
    sums[e_e] += weight * e * e
