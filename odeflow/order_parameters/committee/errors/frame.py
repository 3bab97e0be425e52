r"""Coordinates in which the output is monotone along the last one.

With the label absorbed, :math:`f = \tau\phi = B + \sum_k C_k g(x_k)`, an example is wrong where f <= 0. Along :math:`x_k =
x^0_k + \mathrm{sgn}(C_k)\,w` no term of f falls as w grows: the wrong part of every such line is a half-line, and that within
reach of an attack of length epsilon is one again. So the fields of a cluster are written as

.. math:: \mathrm{sgn}(C_k)\,x_k = X_k = \bar X_k + \sum_{j<K} G_{kj} t_j + \sigma\,t_K, \qquad t \sim N(0, I_K),

with one :math:`\sigma` for all k. The t are a rotation of the whitened fields: an attack of length epsilon moves t by at most
:math:`\varepsilon/\sqrt{v}`, in any direction. Units with c = 0 have no say and are left out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import called, inlined
from odeflow.order_parameters.committee.units import RELU

__all__ = ["Frame", "below", "frame_of"]

Array = npt.NDArray[np.float64]

_LEAST = 1e-7  # of sigma, in units of the largest standard deviation


class Frame(NamedTuple):
    """A network before one cluster, for K units whose output weight is not 0."""

    kind: int
    B: float
    a: Array
    """|c_k|."""
    sign: Array
    """sgn(tau c_k)."""
    mean: Array
    """Means of X."""
    G: Array
    """K x K; the last column is sigma."""
    S: Array
    """sgn(C_k) Q_kl sgn(C_l)."""
    Q: Array
    c: Array
    b: float
    tau: float
    epsilon: float
    radius: float
    """epsilon / sqrt(v)."""
    shifts: Array
    """Of ReLU units, by the pattern of those that are on (bit k for unit k): where FGSM moves X while f < 1."""


@inlined
def below(w, sigma):
    """Return the probability of sigma t <= w, t ~ N(0, 1)."""
    return 0.5 * math.erfc(-w / sigma * math.sqrt(0.5))


@called
def _cholesky(A):
    """Replace A by its lower Cholesky factor, with zeros in the columns of directions without variance."""
    n = A.shape[0]
    for j in range(n):
        whole = A[j, j]
        for i in range(j):
            A[j, j] -= A[j, i] * A[j, i]
        pivot = math.sqrt(A[j, j]) if A[j, j] > 1e-13 * whole else 0.0
        A[j, j] = pivot
        for k in range(j + 1, n):
            for i in range(j):
                A[k, j] -= A[k, i] * A[j, i]
            A[k, j] = A[k, j] / pivot if pivot > 0.0 else 0.0
            A[j, k] = 0.0


@called
def frame_of(kind, m, Q, c, b, v, tau, epsilon):
    """Return the frame; the units are sorted by their variance, the largest last."""
    order, K = np.empty(c.size, np.int64), 0
    for k in range(c.size):
        if c[k] != 0.0:
            n = K
            while n > 0 and Q[order[n - 1], order[n - 1]] > Q[k, k]:
                order[n] = order[n - 1]
                n -= 1
            order[n] = k
            K += 1
    a, sign, mean, weights = np.empty(K), np.empty(K), np.empty(K), np.empty(K)
    for k in range(K):
        weights[k] = c[order[k]]
        a[k] = abs(weights[k])
        sign[k] = tau if weights[k] > 0.0 else -tau
        mean[k] = sign[k] * m[order[k]]
    S, inner = np.empty((K, K)), np.empty((K, K))
    for k in range(K):
        for n in range(K):
            inner[k, n] = Q[order[k], order[n]]
            S[k, n] = sign[k] * inner[k, n] * sign[n]
    # the covariance of X_k - X_K, k < K, and X_K
    A = np.empty((K, K))
    for k in range(K):
        for n in range(K):
            A[k, n] = S[k, n]
            if k < K - 1:
                A[k, n] -= S[K - 1, n]
            if n < K - 1:
                A[k, n] -= S[k, K - 1]
            if k < K - 1 and n < K - 1:
                A[k, n] += S[K - 1, K - 1]
            A[k, n] *= v
    _cholesky(A)
    if K > 0:  # singular Q: the last coordinate still needs some width
        A[K - 1, K - 1] = max(A[K - 1, K - 1], _LEAST * math.sqrt(v * S[K - 1, K - 1]))
    for k in range(K - 1):
        for n in range(K):
            A[k, n] += A[K - 1, n]
    patterns = 1 << K if kind == RELU and epsilon > 0.0 else 0
    shifts = np.zeros((patterns, K))
    for pattern in range(patterns):
        square = 0.0
        for k in range(K):
            for n in range(K):
                if pattern >> n & 1:
                    shifts[pattern, k] -= S[k, n] * a[n]
            if pattern >> k & 1:
                square -= a[k] * shifts[pattern, k]
        for k in range(K):
            shifts[pattern, k] *= epsilon / math.sqrt(square) if square > 0.0 else 0.0
    return Frame(
        kind, tau * b, a, sign, mean, A, S, inner, weights, b, tau, epsilon, epsilon / math.sqrt(v), shifts
    )  # fmt: skip
