r"""Rules for the Gaussian average over d >= 2 coordinates, at 2^l times as many points.

For d = 2 and 3, the points are those of the lattice with the basis :math:`2\cos(2\pi j k/(2d + 1))`, the conjugates of an
algebraic integer (K. K. Frolov, Soviet Math. Dokl. 17 (1976) 1665), with the Gaussian density as weight: the error falls
exponentially for an analytic integrand, as the trapezoidal rule's does in one dimension, and faster than 1/n where it has
kinks, since no point of the dual lattice but 0 is near an axis. Otherwise they are Sobol' points.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

__all__ = ["lattices"]

Array = npt.NDArray[np.float64]

_LEVELS = 10
_FIRST = 400  # points of the first level, about
_LEAST = 1e-9  # the weights beyond are left out: exp(-R^2 / 2), relative to the largest


@lru_cache(maxsize=16)
def lattices(units: tuple[int, ...]) -> tuple[Array, Array, npt.NDArray[np.int64]]:
    """Return the rules for K - 1 coordinates for each K of `units` that is 3 or more, one after the other.

    Points, shape (n, K - 1 of the largest), the first coordinates for fewer; their weights; and in row K where each level of
    the rule begins (and the last ends).
    """
    most = max((*units, 2))
    starts = np.zeros((most + 1, _LEVELS + 1), np.int64)
    points, weights = [np.empty((0, most - 1))], [np.empty(0)]
    n = 0
    for K in units:
        if K < 3:
            continue
        starts[K, 0] = n
        for level in range(_LEVELS):
            t, w = _frolov(K - 1, _FIRST * 2**level) if K <= 4 else _sobol(K - 1, level)
            points.append(np.pad(t, ((0, 0), (0, most - K))))
            weights.append(w / w.sum())
            n += w.size
            starts[K, level + 1] = n
    return np.concatenate(points), np.concatenate(weights), starts


def _frolov(d: int, n: int) -> tuple[Array, Array]:
    k = np.arange(1, d + 1)
    basis = 2 * np.cos(2 * math.pi * np.outer(k, k) / (2 * d + 1))
    reach = math.sqrt(-2 * math.log(_LEAST))
    ball = math.pi ** (d / 2) / math.gamma(d / 2 + 1) * reach**d
    basis *= (ball / n / abs(np.linalg.det(basis))) ** (1 / d)
    shift = np.full(d, 0.5) / math.sqrt(2)  # no point at the centre: the mean is often special
    most = np.ceil(reach * np.linalg.norm(np.linalg.inv(basis), axis=1) + 1).astype(int)
    grid = np.stack(np.meshgrid(*(np.arange(-m, m + 1) for m in most), indexing="ij"), axis=-1).reshape(-1, d)
    t = (grid + shift) @ basis.T
    t = np.ascontiguousarray(t[np.einsum("nj,nj->n", t, t) <= reach**2])
    return t, np.exp(-np.einsum("nj,nj->n", t, t) / 2)


def _sobol(d: int, level: int) -> tuple[Array, Array]:
    from scipy.special import ndtri
    from scipy.stats import qmc

    u = qmc.Sobol(d, rng=np.random.default_rng(level)).random_base2(9 + level)
    return np.ascontiguousarray(ndtri(np.clip(u, 1e-16, 1 - 1e-16))), np.ones(len(u))
