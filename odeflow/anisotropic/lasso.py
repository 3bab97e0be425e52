r"""The lasso for a given Gram matrix: coordinate descent, and Newton steps on the entries that are not 0.

The kernels call nothing of another file, so that numba's cache sees every change, and no linear algebra library, whose
threads cost more than they gain here (and would make the last digits depend on their number).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

import odeflow.numerics.compilation  # noqa: F401 -- finds where compiled code is kept

__all__ = ["SEPARATE", "ConvergenceError", "lasso", "product", "rounding", "rounding_of_product", "separates"]

Array = npt.NDArray[np.float64]

_SWEEPS = 5  # of coordinate descent between two Newton steps
_ROUNDS = 1000
_RIDGE = 1e-10  # relative, on the diagonal of a Newton step: the step may be shorter for it, the solution is the same
SEPARATE = 40
"""Margin, in standard deviations, beyond which no error is left: Phi(-40) < 1e-300."""


class ConvergenceError(RuntimeError):
    """An optimum was not found to the accuracy that was asked for."""


def lasso(C: Array, mu: Array, epsilon: float, *, rtol: float, start: Array | None = None) -> tuple[Array, float]:
    r"""Return the w that minimises :math:`\tfrac12 w^TCw - w\cdot\mu + \varepsilon|w|_1`, and a bound of its gap.

    It is also the w with the largest margin :math:`M(w) = (w\cdot\mu - \varepsilon|w|_1)/\sqrt{w^TCw}`, up to `rtol`
    (certified): if :math:`z = \mu - Cw` has :math:`|z|_\infty\le\varepsilon`, no margin is above
    :math:`\sqrt{(\mu-z)^TC^+(\mu-z)} = \sqrt{w^TCw}`. For the z of an approximate w to be allowed, it is found for an
    epsilon that is smaller by a part of what `rtol` permits.

    Parameters
    ----------
    C
        Covariance, symmetric and positive semidefinite, shape (N, N).
    mu
        Half the difference of the means, shape (N,); at most epsilon in size where C_ii = 0.
    epsilon
        Size of the perturbation, > 0.
    rtol
        Largest relative gap, > 0.
    start
        Where to begin, shape (N,): the solution of a similar problem (its length does not matter). Default: 0.

    Returns
    -------
    w
        Shape (N,). It is 0 if epsilon is at least the largest size of an entry of mu (to nine digits). If a w has :math:`Cw = 0` and
        :math:`w\cdot\mu > \varepsilon|w|_1` there is no minimum, and such a w (up to rounding) is returned.
    gap
        :math:`1 - M(w)/\sqrt{w^TCw}`, at least the relative distance of M(w) from the largest margin.

    Raises
    ------
    ConvergenceError
        If the gap stays above `rtol`.

    References
    ----------
    J. Friedman, T. Hastie and R. Tibshirani, J. Statistical Software 33 (2010) 1 (coordinate descent).

    Examples
    --------
    >>> w, gap = lasso(np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([2.0, 0.1]), 1.0, rtol=1e-9)
    >>> w.round(6).tolist(), gap <= 1e-9
    ([0.5, 0.0], True)
    """
    if np.abs(mu).max() <= epsilon * (1 + 1e-9):  # nearer, rounding would hide the gap
        return np.zeros_like(mu), 0.0
    C, gap = np.ascontiguousarray(C), np.inf
    w = np.zeros_like(mu) if start is None else start.copy()
    for _ in range(_ROUNDS):
        g = product(C, w)
        variance, length = float(w @ g), float(np.abs(w).sum())
        excess = float(w @ mu) - epsilon * length
        if separates(excess, variance, rounding(C, w)):
            return w, 0.0
        if variance > 0 and np.all(np.abs(mu - g) <= epsilon + rounding_of_product(C, w)):
            gap = max(1 - excess / variance, 0.0)
            if gap <= rtol:
                return w, gap
        permitted = 0.5 * rtol * variance / length if variance > 0 else 0.0
        inner = epsilon - min(permitted, 0.5 * epsilon)
        _coordinate_descent(C, mu, inner, w, g, _SWEEPS)
        w = _newton_step(C, mu, inner, w, g)
    raise ConvergenceError(
        f"epsilon = {epsilon!r}: the relative gap is {gap:.3g} after {_ROUNDS} rounds, and rtol = {rtol:g}: choose a "
        "larger rtol, an epsilon farther from where the best margin vanishes, or covariances with shrinkage"
    )


def rounding(C: Array, w: Array) -> float:
    """Return the accuracy to which w' C w is known, for a C of shape (N, N), or (N,) if it is diagonal."""
    spread = np.abs(w) @ np.sqrt(C if C.ndim == 1 else C.diagonal())
    return float(1e-15 * spread * spread)


def rounding_of_product(C: Array, w: Array) -> Array:
    """Return the accuracy to which the entries of Cw are known."""
    sigma = np.sqrt(C if C.ndim == 1 else C.diagonal())
    return np.asarray(1e-14 * (sigma @ np.abs(w)) * sigma)


def separates(excess: float, variance: float, noise: float) -> bool:
    """Return whether w.mu - epsilon |w|_* = `excess` leaves no error, at a variance that is hardly above its accuracy."""
    return variance <= 1000 * noise and excess > SEPARATE * max(variance, noise) ** 0.5


def _newton_step(C: Array, mu: Array, epsilon: float, w: Array, g: Array) -> Array:
    """Return the least point on the way from w to the minimum over its entries that are not 0, at their signs."""
    support = np.flatnonzero(w)
    H = C[np.ix_(support, support)]
    H[np.diag_indices_from(H)] *= 1 + _RIDGE
    step = mu[support] - g[support] - epsilon * np.sign(w[support])
    if not _solve(H, step):
        return w
    d = np.zeros_like(w)
    d[support] = step
    return _line_minimum(C, mu, epsilon, w, g, d)


def _line_minimum(C: Array, mu: Array, epsilon: float, w: Array, g: Array, d: Array) -> Array:
    """Return the minimum over w + t d with 0 <= t <= 1. An entry that vanishes there is exactly 0."""
    turning = np.flatnonzero(w * d < 0)
    t = -w[turning] / d[turning]
    order = np.argsort(t)
    turning, t = turning[order], t[order]
    curvature = float(d @ product(C, d))
    # slopes at t = 0 of the parabolas in front of each turn, and behind the last
    jumps = np.concatenate(([0.0], 2 * epsilon * np.abs(d[turning])))
    slopes = np.cumsum(jumps) + (epsilon * (np.sign(w) @ d) - d @ (mu - g))
    rising = np.flatnonzero(slopes[1:] + curvature * t >= 0)
    k = int(rising[0]) if rising.size else len(t)
    if rising.size and t[k] <= 1 and slopes[k] + curvature * t[k] <= 0:
        new: Array = w + t[k] * d
        new[turning[k]] = 0.0
        return new
    return np.asarray(w + (-slopes[k] / curvature if -slopes[k] < curvature else 1.0) * d)


@njit(cache=True, nogil=True, error_model="numpy")
def product(C, w):
    """Return Cw for a symmetric C and a w of which many entries may be 0."""
    g = np.zeros(w.size)
    for i in range(w.size):
        if w[i] != 0.0:
            for j in range(w.size):
                g[j] += w[i] * C[i, j]
    return g


@njit(cache=True, nogil=True, error_model="numpy")
def _coordinate_descent(C, mu, epsilon, w, g, sweeps):
    """Minimise over one entry of w after the other, `sweeps` times. Both w and g = Cw are changed in place."""
    for _ in range(sweeps):
        for i in range(w.size):
            if C[i, i] > 0.0:
                pull = mu[i] - g[i] + C[i, i] * w[i]
                change = np.sign(pull) * max(abs(pull) - epsilon, 0.0) / C[i, i] - w[i]
                if change != 0.0:
                    w[i] += change
                    for j in range(w.size):
                        g[j] += change * C[i, j]


@njit(cache=True, nogil=True, fastmath={"reassoc"}, error_model="numpy")
def _solve(H, x):
    """Solve H y = x for y, put into x, by Cholesky's method in place; return whether H was positive definite."""
    n = x.size
    for first in range(0, n, 4):
        last = min(first + 4, n)
        if last - first == 4:  # four rows at once, which share what is loaded: nothing else is gained by it
            a, b, c, d = H[first], H[first + 1], H[first + 2], H[first + 3]
            for j in range(first):
                r = H[j]
                ar = br = cr = dr = 0.0
                for k in range(j):
                    ar += a[k] * r[k]
                    br += b[k] * r[k]
                    cr += c[k] * r[k]
                    dr += d[k] * r[k]
                a[j] = (a[j] - ar) / r[j]
                b[j] = (b[j] - br) / r[j]
                c[j] = (c[j] - cr) / r[j]
                d[j] = (d[j] - dr) / r[j]
        for i in range(first, last):
            for j in range(first if last - first == 4 else 0, i + 1):
                total = 0.0
                for k in range(j):
                    total += H[i, k] * H[j, k]
                if j < i:
                    H[i, j] = (H[i, j] - total) / H[j, j]
                elif H[i, i] > total:
                    H[i, i] = np.sqrt(H[i, i] - total)
                else:
                    return False
    for i in range(n):
        total = 0.0
        for k in range(i):
            total += H[i, k] * x[k]
        x[i] = (x[i] - total) / H[i, i]
    for i in range(n - 1, -1, -1):
        x[i] /= H[i, i]
        for k in range(i):
            x[k] -= H[i, k] * x[i]
    return True
