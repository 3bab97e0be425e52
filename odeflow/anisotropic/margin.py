r"""The largest margin of a linear classifier for two Gaussian classes with one covariance: a convex problem.

With L-infinity it is a lasso (`odeflow.anisotropic.lasso`); with L2 its stationarity :math:`Cw + \varepsilon w/|w| = \mu` is
:math:`(C + \kappa I)w = \mu` with :math:`\kappa|w| = \varepsilon`, one equation for one number.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.lasso import ConvergenceError, lasso, product, rounding, rounding_of_product, separates

__all__ = ["certified_gap", "covariance_product", "max_margin"]

Array = npt.NDArray[np.float64]

_SMALLEST = 1e-150  # difference of the means, below which its square is not a normal number
_NEGLIGIBLE = 1e-8  # relative size of a difference of means in a direction without variance that is taken for rounding


def max_margin(
    C: Array, mu: Array, epsilon: float, norm: str, *, rtol: float = 1e-6, start: Array | None = None
) -> tuple[Array, float]:
    r"""Return the w that minimises :math:`\tfrac12 w^TCw - w\cdot\mu + \varepsilon|w|_*`, and its certified gap.

    It has the largest margin :math:`M(w) = (w\cdot\mu - \varepsilon|w|_*)/\sqrt{w^TCw}`. For every z of size at most
    epsilon with :math:`\mu - z = c\,Cw`, no margin is above :math:`\sqrt{(\mu-z)^TC^+(\mu-z)} = c\sqrt{w^TCw}`; this
    bound is what the gap compares with.

    Parameters
    ----------
    C
        Covariance, shape (N, N), or (N,), the diagonal of a diagonal one; positive semidefinite.
    mu
        Half the difference of the means, shape (N,).
    epsilon
        Size of the perturbation, >= 0.
    norm
        "l2" or "linf".
    rtol
        Largest relative gap, > 0.
    start
        Where to begin (L-infinity), shape (N,). Default: 0.

    Returns
    -------
    w
        Shape (N,). It is 0 if the size of mu is at most epsilon (to nine digits): no margin is positive. If a w has
        :math:`Cw = 0` and :math:`w\cdot\mu > \varepsilon|w|_*`, there is no minimum, and such a w (up to rounding) is
        returned. Otherwise, if C is singular and epsilon = 0, the shortest w.
    gap
        At least the relative distance of M(w) from the largest margin, up to rounding.

    Raises
    ------
    ConvergenceError
        If the gap stays above `rtol`.

    References
    ----------
    A. Bhagoji, D. Cullina and P. Mittal, arXiv:1909.12272 (the dual problem). A. R. Conn, N. I. M. Gould and P. L. Toint,
    Trust-Region Methods (2000), section 7.3 (the secular equation of L2).
    """
    size = _size(mu, norm)
    if size <= max(epsilon * (1 + 1e-9), _SMALLEST):
        return np.zeros_like(mu), 0.0
    if epsilon < 1e-15 * size:  # below rounding
        epsilon = 0.0
    variances = C if C.ndim == 1 else C.diagonal()
    free = np.where(variances == 0, mu, 0.0)
    if _size(free, norm) > max(epsilon * (1 + 1e-9), _NEGLIGIBLE * size):
        return free if norm == "l2" else _shrunk(free, epsilon), 0.0
    if norm == "linf" and epsilon > 0:
        if C.ndim == 1:
            return np.divide(_shrunk(mu, epsilon), C, out=np.zeros_like(mu), where=C > 0), 0.0
        return lasso(C, mu, epsilon, rtol=rtol, start=start)
    gap = math.inf
    for solve in (_by_cholesky, _by_eigenvectors, _scaled) if C.ndim == 2 else (_diagonal,):
        w = solve(C, mu, epsilon)
        if w is not None:
            gap = certified_gap(C, mu, epsilon, w)
            if gap <= rtol:
                return w, gap
    raise ConvergenceError(
        f"epsilon = {epsilon!r}: the relative gap is {gap:.3g}, and rtol = {rtol:g}: choose a larger rtol, an epsilon "
        "farther from where the best margin vanishes, or covariances with shrinkage"
    )


def _size(z: Array, norm: str) -> float:
    """Return |z|, the norm of perturbations."""
    return float(np.abs(z).max() if norm == "linf" else np.linalg.norm(z))


def _shrunk(mu: Array, epsilon: float) -> Array:
    return np.sign(mu) * np.maximum(np.abs(mu) - epsilon, 0.0)


def _by_cholesky(C: Array, mu: Array, epsilon: float) -> Array | None:
    """Solve the problem for L2 by factorising C + kappa I for some kappa; None where C is nearly singular."""
    from scipy.linalg import LinAlgError, cho_factor, cho_solve, solve_triangular

    scale = float(np.trace(C))

    def resolvent(kappa: float) -> tuple[Array, float]:
        H = C.copy()
        H[np.diag_indices_from(H)] += kappa
        L, lower = cho_factor(H.T, lower=True, overwrite_a=True, check_finite=False)  # LAPACK's order of entries
        if kappa < 1e-14 * scale and L.diagonal().min() ** 2 < 1e-12 * scale:
            raise LinAlgError
        w = cho_solve((L, lower), mu, check_finite=False)
        root = solve_triangular(L, w, lower=lower, check_finite=False)
        return w, float(root @ root)

    try:
        return _secular(resolvent, mu, float(mu @ covariance_product(C, mu)), epsilon)
    except LinAlgError:
        return None


def _by_eigenvectors(C: Array, mu: Array, epsilon: float) -> Array:
    """Solve the problem for L2 and any C."""
    from scipy.linalg import eigh

    c, Q = eigh(C, check_finite=False)
    c[c <= len(c) * np.finfo(float).eps * c[-1]] = 0.0
    return np.asarray(Q @ _diagonal(c, Q.T @ mu, epsilon))


def _scaled(C: Array, mu: Array, epsilon: float) -> Array | None:
    """Solve the problem for epsilon = 0 and variances of very different sizes."""
    if epsilon > 0:
        return None
    variances = C.diagonal()
    scale = np.divide(1.0, np.sqrt(variances), out=np.zeros_like(mu), where=variances > 0)
    return scale * _by_eigenvectors(C * np.outer(scale, scale), scale * mu, 0.0)


def _diagonal(c: Array, mu: Array, epsilon: float) -> Array:
    """Solve the problem for L2 and a diagonal covariance."""
    null = c == 0
    if np.linalg.norm(mu[null]) > max(epsilon, _NEGLIGIBLE * float(np.linalg.norm(mu))):
        return np.where(null, mu, 0.0)
    if epsilon == 0:
        return np.divide(mu, c, out=np.zeros_like(mu), where=~null)

    def resolvent(kappa: float) -> tuple[Array, float]:
        w = mu / (c + kappa)
        return w, float(w @ (w / (c + kappa)))

    return _secular(resolvent, mu, float(mu @ (c * mu)), epsilon)


def _secular(resolvent: Callable[[float], tuple[Array, float]], mu: Array, mu_C_mu: float, epsilon: float) -> Array:
    r"""Return :math:`w(\kappa) = (C+\kappa I)^{-1}\mu` with :math:`\kappa|w| = \varepsilon`: then Cw + epsilon w/|w| = mu.

    Newton's method for the zero of :math:`\psi = 1/|w(\kappa)| - \kappa/\varepsilon`. As :math:`1/|w|` is concave, it
    falls monotonically to the zero from any kappa above it, and :math:`1/|w| \le (\kappa+a)/|\mu|`, :math:`a =
    \mu^TC\mu/|\mu|^2` (Jensen), gives one. `resolvent` returns w and :math:`w^T(C+\kappa I)^{-1}w`.
    """
    size = float(np.linalg.norm(mu))
    kappa = mu_C_mu / size**2 * epsilon / (size - epsilon)
    while True:
        w, w_w = resolvent(kappa)
        length = float(np.linalg.norm(w))
        if epsilon == 0:
            return w
        slope = w_w / length**3 - 1 / epsilon
        new = kappa - (1 / length - kappa / epsilon) / slope if slope < 0 else kappa
        if not 0 < new < kappa * (1 - 1e-15):
            return w
        kappa = new


def certified_gap(C: Array, mu: Array, epsilon: float, w: Array) -> float:
    """Return the certified gap of a w for L2, with the least c for which z = mu - c Cw is allowed, up to rounding."""
    g = covariance_product(C, w)
    length = float(np.linalg.norm(w))
    variance, excess = float(w @ g), float(w @ mu) - epsilon * length
    if separates(excess, variance, rounding(C, w)):
        return 0.0
    z = mu - g
    allowed = epsilon + float(np.linalg.norm(rounding_of_product(C, w)))
    # |z - (c - 1) g| = allowed
    z_g, g_g, beyond = float(z @ g), float(g @ g), float(z @ z) - allowed**2
    if variance <= 0 or z_g**2 < g_g * beyond:
        return math.inf
    c = 1 + beyond / (z_g + math.sqrt(z_g**2 - g_g * beyond))
    return max(1 - excess / (c * variance), 0.0)


def covariance_product(C: Array, w: Array) -> Array:
    """Return Cw, for a diagonal C from its diagonal."""
    return C * w if C.ndim == 1 else np.asarray(product(C, w))
