r"""Rates without attacks in closed form, student and teacher of units :math:`g(x) = \mathrm{erf}(x/\sqrt2)` without thresholds.

D. Saad and S. A. Solla, Phys. Rev. E 52, 4225 (1995): with the covariances C of Gaussian fields of mean 0,

.. math::
    I_2(i, j) &= \langle g(u_i)\,g(u_j)\rangle = \frac2\pi \arcsin\frac{C_{ij}}{\sqrt{(1 + C_{ii})(1 + C_{jj})}} \\
    I_3(i; j, l) &= \langle g'(u_i)\,u_j\,g(u_l)\rangle = \frac2\pi \frac{1}{\sqrt{\Lambda_3}}
        \frac{C_{jl}(1 + C_{ii}) - C_{ij}C_{il}}{1 + C_{ii}}, \qquad \Lambda_3 = (1 + C_{ii})(1 + C_{ll}) - C_{il}^2 \\
    I_4(i, j; l, m) &= \langle g'(u_i)\,g'(u_j)\,g(u_l)\,g(u_m)\rangle = \frac{4}{\pi^2} \frac{1}{\sqrt{\Lambda_4}}
        \arcsin\frac{\Lambda_0}{\sqrt{\Lambda_1\Lambda_2}}

(their equations 16 to 21, here with :math:`I_4` by the covariance that is left of l and m when i and j are tilted, and
output weights c). Plain NumPy, exact; what the quadratures are held against.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["loss", "rates"]

Array = npt.NDArray[np.float64]


def _i2(C: Array) -> Array:
    """Return I_2 of all pairs."""
    root = np.sqrt(1 + np.diag(C))
    return np.asarray(2 / np.pi * np.arcsin(C / np.outer(root, root)))


def _i3(C: Array, i: int) -> Array:
    """Return I_3(i; j, l), of all j and l."""
    one = 1 + C[i, i]
    root = np.sqrt(one * (1 + np.diag(C)) - C[i] ** 2)
    return np.asarray(2 / np.pi * (C * one - np.outer(C[i], C[i])) / one / root)


def _i4(C: Array, i: int, j: int) -> Array:
    """Return I_4(i, j; l, m), of all l and m: g' g' is a Gaussian that tilts the others to the covariance C - C W C."""
    pair = [i, j]
    W = np.eye(2) + C[np.ix_(pair, pair)] if i != j else np.array([[1 + 2 * C[i, i]]])
    tilt = np.linalg.inv(W)
    columns = C[:, pair] if i != j else C[:, [i]] * np.sqrt(2)
    return np.asarray(2 / np.pi * np.sqrt(np.linalg.det(tilt)) * _i2(C - columns @ tilt @ columns.T))


def loss(R: Array, Q: Array, T: Array, c: Array, teacher_c: Array) -> float:
    """Return 1/2 <(phi - tau)^2>."""
    C, sign = np.block([[Q, R], [R.T, T]]), np.concatenate([c, -teacher_c])
    return float(sign @ _i2(C) @ sign / 2)


def rates(R: Array, Q: Array, T: Array, c: Array, teacher_c: Array, eta: float) -> tuple[Array, Array, Array]:
    """Return dR/dalpha, dQ/dalpha and <e g(x_k)>.

    Parameters
    ----------
    R, Q, T
        Products of the weights, shape (K, M), (K, K) and (M, M).
    c, teacher_c
        Output weights, shape (K,) and (M,).
    eta
        Learning rate of the weights.
    """
    K = len(Q)
    C, sign = np.block([[Q, R], [R.T, T]]), np.concatenate([c, -teacher_c])
    # F[k, j] = <s_k u_j>, s_k = -e c_k g'(x_k), e = sum of sign g(u)
    F = np.stack([-c[k] * _i3(C, k) @ sign for k in range(K)])
    square = np.array([[c[k] * c[l] * sign @ _i4(C, k, l) @ sign for l in range(K)] for k in range(K)])
    return eta * F[:, K:], eta * (F[:, :K] + F[:, :K].T) + eta**2 * square, (_i2(C) @ sign)[:K]
