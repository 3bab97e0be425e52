r"""The dual norms |w|_2 and |w|_1 of fluctuating weights: Gaussian coordinates with means w_i and variances V_i.

For L-infinity with :math:`\varphi_i = N(0; w_i, V_i)`, the density at zero,

.. math:: \langle|w|_1\rangle = \sum_i w_i s_i + 2 V_i \varphi_i, \quad
          s_i = \langle\mathrm{sign}\,w_i\rangle = \mathrm{erf}(w_i/\sqrt{2V_i}), \quad
          \partial s_i/\partial w_i = 2\varphi_i .

For L2, :math:`\langle|w|_2\rangle = \sqrt{|w|^2 + \sum_i V_i}`, whose fluctuations vanish as N grows.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import erf

__all__ = ["L2", "NORM", "LInfinity"]

Array = npt.NDArray[np.float64]


class LInfinity:
    """Attacks in L-infinity: the dual norm is |w|_1."""

    @staticmethod
    def squared_gradient(N: int) -> float:
        """Return the squared length of the gradient of the dual norm in N dimensions, without fluctuations."""
        return float(N)

    @staticmethod
    def dual(w: Array, V: Array) -> float:
        """Return the mean dual norm."""
        return float(w @ erf(w / np.sqrt(2 * V)) + 2 * V @ _density(w, V))

    @staticmethod
    def direction(w: Array, V: Array) -> Array:
        """Return s, the mean gradient of the dual norm."""
        return np.asarray(erf(w / np.sqrt(2 * V)))

    @staticmethod
    def curvature(w: Array, V: Array) -> Array:
        """Return the diagonal of ds/dw."""
        return 2 * _density(w, V)

    @staticmethod
    def spread(s: Array) -> Array:
        """Return the variance of each coordinate of the gradient."""
        return 1 - s * s

    @staticmethod
    def shrink(y: Array, k: float, V: Array) -> Array:
        """Return the w that solves w + k s(w) = y, for k >= 0: for V -> 0, soft thresholding."""
        w = np.sign(y) * np.maximum(np.abs(y) - k, 0)
        inside = y / (1 + 2 * k / np.sqrt(2 * math.pi * V))  # where s is still linear
        w = np.where(np.abs(inside) > np.abs(w), inside, w)
        low, high = np.minimum(y, 0), np.maximum(y, 0)
        for _ in range(60):
            excess = w + k * erf(w / np.sqrt(2 * V)) - y
            low, high = np.where(excess <= 0, w, low), np.where(excess >= 0, w, high)
            newton = w - excess / (1 + 2 * k * _density(w, V))
            new = np.where((newton >= low) & (newton <= high), newton, (low + high) / 2)
            done = np.all(np.abs(new - w) <= 1e-6 * np.sqrt(V) + 1e-9 * np.abs(w))
            w = new
            if done:
                break
        return w


class L2:
    """Attacks in L2: the dual norm is |w|_2."""

    @staticmethod
    def squared_gradient(N: int) -> float:  # noqa: ARG004
        """Return the squared length of the gradient of the dual norm in N dimensions, without fluctuations."""
        return 1.0

    @staticmethod
    def dual(w: Array, V: Array) -> float:
        """Return the mean dual norm."""
        return math.sqrt(w @ w + V.sum())

    @staticmethod
    def direction(w: Array, V: Array) -> Array:
        """Return s, the mean gradient of the dual norm."""
        return w / L2.dual(w, V)

    @staticmethod
    def curvature(w: Array, V: Array) -> Array:
        """Return the diagonal of ds/dw (the rest is of order 1/N)."""
        return np.full(w.shape, 1 / L2.dual(w, V))

    @staticmethod
    def spread(s: Array) -> Array:
        """Return the variance of each coordinate of the gradient, which vanishes as N grows."""
        return np.zeros(s.shape)

    @staticmethod
    def shrink(y: Array, k: float, V: Array) -> Array:
        """Return the w that solves w + k s(w) = y, for k >= 0: w = y (1 - k / |y|) for V = 0 and k < |y|."""
        length, total = math.sqrt(y @ y), V.sum()
        if length == 0 or k == 0:
            return y
        n = max(length - k, length / (1 + k / math.sqrt(total)) if total > 0 else 0.0)
        for _ in range(60):  # Newton on n + k n / sqrt(n^2 + total) = |y|: concave in n, so from one side
            root = math.sqrt(n * n + total)
            if root == 0:
                break
            step = (n + k * n / root - length) / (1 + k * total / root**3)
            n = min(max(n - step, 0.0), length)
            if abs(step) <= 1e-12 * length:
                break
        return y * (n / length)


NORM: dict[str, type[L2 | LInfinity]] = {"l2": L2, "linf": LInfinity}
"""The geometry of each norm of the adversary, by name."""


def _density(w: Array, V: Array) -> Array:
    return np.asarray(np.exp(-w * w / (2 * V)) / np.sqrt(2 * math.pi * V))
