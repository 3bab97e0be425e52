r"""Averages over the fields of units :math:`g(x) = \mathrm{erf}(x/\sqrt2)` without an attack, in closed form.

For :math:`x \sim N(m, C)`, with :math:`t = \tau - b_0`, :math:`e = \sum_j c_j g(x_j) - t` and :math:`s_k = -e\,c_k g'(x_k)`
(section 5.3 of the theory). A factor :math:`g'(x_k) = \sqrt{2/\pi}\,e^{-x_k^2/2}` tilts the Gaussian law of the fields, which
stays Gaussian, and what is left are averages of one g or of the product of two,

.. math:: \langle g(x_i)\rangle = 2\Phi(h_i) - 1, \qquad \langle g(x_i) g(x_j)\rangle = 4\Phi_2(h_i, h_j; \rho_{ij}) -
   2\Phi(h_i) - 2\Phi(h_j) + 1,

:math:`h_i = m_i/\sqrt{1 + C_{ii}}`, :math:`\rho_{ij} = C_{ij}/\sqrt{(1 + C_{ii})(1 + C_{jj})}`, with the normal distribution
functions :math:`\Phi` and :math:`\Phi_2`. With zero means and a teacher these are the integrals of Saad and Solla (1995).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, owens_t

from odeflow.order_parameters.committee.quadrature.sums import layout, width

__all__ = ["averages_without_attack", "bivariate_normal"]

Array = npt.NDArray[np.float64]


def bivariate_normal(h: npt.ArrayLike, k: npt.ArrayLike, rho: npt.ArrayLike) -> Array:
    r"""Return :math:`\Phi_2(h, k; \rho) = P(X < h, Y < k)` for standard normal X, Y of correlation |rho| < 1.

    By Owen's T function (Owen 1956, eq. 2.1), to double precision; arrays are broadcast.
    """
    h, k, rho = np.broadcast_arrays(np.asarray(h, float), np.asarray(k, float), np.asarray(rho, float))
    root = np.sqrt((1 - rho) * (1 + rho))
    at_zero = (h == 0) & (k == 0)

    def part(one: Array, other: Array) -> Array:
        rise = np.where(at_zero, 1 - rho, other - rho * one)
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = np.where(one == 0, np.where(at_zero, rise / root, np.copysign(np.inf, rise)), rise / (one * root))
        return np.asarray(owens_t(one, slope), float)

    product = h * k
    opposite = (product < 0) | ((product == 0) & (h + k < 0))
    return np.asarray(0.5 * (ndtr(h) + ndtr(k)) - part(h, k) - part(k, h) - 0.5 * opposite, float)


def _one(m: Array, C: Array) -> Array:
    """Return <g(x_i)>."""
    return np.asarray(2 * ndtr(m / np.sqrt(1 + np.diag(C))) - 1, float)


def _two(m: Array, C: Array) -> Array:
    """Return <g(x_i) g(x_j)>."""
    root = np.sqrt(1 + np.diag(C))
    h = m / root
    below = ndtr(h)
    both = bivariate_normal(h[:, None], h[None, :], C / np.outer(root, root))
    return np.asarray(4 * both - 2 * below[:, None] - 2 * below[None, :] + 1, float)


def averages_without_attack(m: Array, v: float, L: Array, c: Array, b: float, tau: float) -> Array:
    r"""Return the averages over :math:`x = m + \sqrt v\,L y`, :math:`y \sim N(0, I_K)`, at epsilon = 0. Exact.

    Parameters
    ----------
    m
        Means of the fields less the thresholds, shape (K,).
    v, L
        The cluster's variance, and the lower Cholesky factor of the weights' Gram matrix, shape (K, K).
    c, b, tau
        Output weights, shape (K,); output bias; label.

    Returns
    -------
    Array
        In the order of `odeflow.order_parameters.committee.quadrature.sums`, with n = K; <s d> = 0.
    """
    K = c.size
    C = v * L @ L.T
    t = tau - b
    s_y, s_d, s_s, e_g, e, e_e = layout.py_func(K, K)
    out = np.zeros(width.py_func(K, K))

    gradient = np.zeros((K, K))  # d<s_k>/dm_l
    for k in range(K):
        spread = 1 + C[k, k]
        slope = math.sqrt(2 / math.pi / spread) * math.exp(-(m[k] ** 2) / (2 * spread))
        towards = C[:, k] / spread
        mean, tilted = m - towards * m[k], C - np.outer(towards, C[k])
        root = np.sqrt(1 + np.diag(tilted))
        error = c @ _one(mean, tilted) - t
        bend = c * math.sqrt(2 / math.pi) * np.exp(-((mean / root) ** 2) / 2) / root
        out[k] = -c[k] * slope * error
        gradient[k] = -c[k] * slope * bend
        gradient[k, k] += c[k] * slope * (error * m[k] / spread + bend @ towards)
    # Stein: <s_k y_j> = sqrt(v) sum_l d<s_k>/dm_l L_lj
    out[s_y:s_d] = (math.sqrt(v) * gradient @ L).ravel()

    for k in range(K):
        for l in range(K):
            # both exponentials tilt: exp(-(x_k^2 + x_l^2)/2), twice x_k where l = k
            pick = np.zeros((2, K))
            pick[0, k] = pick[1, l] = 1
            W = np.linalg.inv(np.eye(2) + pick @ C @ pick.T)
            both = pick @ m
            size = 2 / math.pi * math.sqrt(np.linalg.det(W)) * math.exp(-0.5 * both @ W @ both)
            towards = C @ pick.T @ W
            mean, tilted = m - towards @ both, C - towards @ pick @ C
            square = c @ _two(mean, tilted) @ c - 2 * t * c @ _one(mean, tilted) + t * t
            out[s_s + k * K + l] = c[k] * c[l] * size * square

    one, two = _one(m, C), _two(m, C)
    out[e_g:e] = two @ c - t * one
    out[e] = c @ one - t
    out[e_e] = c @ two @ c - 2 * t * c @ one + t * t
    return out
