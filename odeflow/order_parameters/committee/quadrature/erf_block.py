r"""A block of nodes of units :math:`g(x) = \mathrm{erf}(x/\sqrt2)`: the attack at each, and what is averaged, in SIMD loops.

Each row of the array `rows` has one quantity at the block's nodes. First come y (K rows), the weight, and the sign of the push:
that of :math:`\phi - \tau` for FGSM, :math:`-\tau` against the label.
"""

from __future__ import annotations

import math

import numba

from odeflow.numerics.compilation import inlined
from odeflow.numerics.dot import WIDTH, dot
from odeflow.numerics.elementary import erfcx, exp, fma
from odeflow.order_parameters.committee.attacks import attack, attack_scratch
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, layout
from odeflow.order_parameters.committee.units import ERF

__all__ = ["BLOCK", "add_block", "block_scratch", "n_rows"]

BLOCK = 160
"""Nodes in a block."""

_SLOPE = math.sqrt(2.0 / math.pi)
_compiled = numba.njit(nogil=True, error_model="numpy")


@inlined
def n_rows(K):
    """Return the number of rows."""
    return 6 * K + 5


@inlined
def block_scratch(K):
    """Return the size of the array `work` of `add_block`."""
    return 2 * K + attack_scratch(K)


@inlined
def _gradient(n, rows, K, x, u, r, f, Q, c, epsilon):
    """Set rows u to the gradient of the output in the fields over its largest exponential, r to Q u, f to the push over its norm.

    The push is epsilon times the sign, row K + 1: with d = f u, |d| = epsilon, whatever the factor of u.
    """
    largest = 0.0
    for k in range(K):
        largest = max(largest, abs(c[k]))
    scale = 1.0 / largest if largest > 0.0 else 0.0
    for i in range(n):
        rows[r, i] = 1e300
    for k in range(K):
        if c[k] != 0.0:
            for i in range(n):
                rows[r, i] = min(rows[r, i], rows[x + k, i] * rows[x + k, i])
    for k in range(K):
        factor = scale * c[k]
        for i in range(n):
            z = rows[x + k, i]
            rows[u + k, i] = factor * exp(0.5 * min(rows[r, i] - z * z, 0.0))
    for i in range(n):
        rows[f, i] = 0.0
    for k in range(K):
        q = Q[k, 0]
        for i in range(n):
            rows[r + k, i] = q * rows[u, i]
        for j in range(1, K):
            q = Q[k, j]
            for i in range(n):
                rows[r + k, i] = fma(q, rows[u + j, i], rows[r + k, i])
        for i in range(n):
            rows[f, i] = fma(rows[u + k, i], rows[r + k, i], rows[f, i])
    least = 1e-300
    for k in range(K):
        least = max(least, 1e-20 * Q[k, k])
    for i in range(n):  # an output that does not depend on the example is not attacked
        push = epsilon * rows[K + 1, i] / math.sqrt(max(rows[f, i], least))
        rows[f, i] = push if rows[f, i] > least else 0.0


@_compiled
def _attacks(n, rows, K, x, u, r, f, Q, c, b, tau, epsilon, how, work):
    """Set rows u to the attack, point by point, r to Q u and f to 1."""
    point, d, rest = work[:K], work[K : 2 * K], work[2 * K :]
    for i in range(n):
        for k in range(K):
            point[k] = rows[x + k, i]
        attack(ERF, point, Q, c, b, tau, epsilon, how, rest, d)
        rows[f, i] = 1.0
        for k in range(K):
            rows[u + k, i] = d[k]
            rows[r + k, i] = 0.0
            for j in range(K):
                rows[r + k, i] += Q[k, j] * d[j]


@_compiled
def add_block(count, rows, mean, A, Q, c, b, tau, epsilon, how, work, share, sums):
    """Add `share` times the averages over the block's first `count` nodes to `sums`.

    x = mean + A y; `work` has `block_scratch` floats.
    """
    K = c.size
    s_y, s_d, s_s, e_g, at_e, e_e = layout(K, K)
    x, u, r, s = K + 2, 2 * K + 2, 3 * K + 2, 4 * K + 2  # rows of x, then attacked x; of u, then d; of Q u; of s
    g, f, e, we = 5 * K + 2, 6 * K + 2, 6 * K + 3, 6 * K + 4
    n = (count + WIDTH - 1) // WIDTH * WIDTH
    for i in range(count, n):
        rows[K, i] = 0.0
        rows[K + 1, i] = 1.0
        for k in range(K):
            rows[k, i] = 0.0
    for k in range(K):
        a = mean[k]
        for i in range(n):
            rows[x + k, i] = a
        for j in range(k + 1):
            a = A[k, j]
            for i in range(n):
                rows[x + k, i] = fma(a, rows[j, i], rows[x + k, i])
    if epsilon > 0.0:
        if how.kind == FGSM or how.kind == MARGIN:
            _gradient(n, rows, K, x, u, r, f, Q, c, epsilon)
        else:
            _attacks(n, rows, K, x, u, r, f, Q, c, b, tau, epsilon, how, work)
        for k in range(K):
            for i in range(n):
                rows[x + k, i] = fma(rows[f, i], rows[r + k, i], rows[x + k, i])
                rows[u + k, i] = rows[f, i] * rows[u + k, i]
    for i in range(n):
        rows[e, i] = b - tau
    for k in range(K):
        output, factor = c[k], -c[k] * _SLOPE
        for i in range(n):
            z = rows[x + k, i]
            decay = exp(-0.5 * z * z)
            tail = decay * erfcx(abs(z) * math.sqrt(0.5))  # 1 - |g|
            value = 1.0 - tail
            value = value if z > 0.0 else -value
            rows[g + k, i] = value
            rows[s + k, i] = factor * decay
            rows[e, i] = fma(output, value, rows[e, i])
    for i in range(n):
        rows[we, i] = rows[K, i] * rows[e, i]
        rows[f, i] = 1.0
    sums[at_e] += share * dot(rows, we, f, n)
    sums[e_e] += share * dot(rows, we, e, n)
    for k in range(K):
        sums[e_g + k] += share * dot(rows, we, g + k, n)
        for i in range(n):
            rows[s + k, i] = rows[s + k, i] * rows[e, i]
    for k in range(K):
        for i in range(n):
            rows[we, i] = rows[K, i] * rows[s + k, i]
        sums[k] += share * dot(rows, we, f, n)
        for j in range(K):
            sums[s_y + k * K + j] += share * dot(rows, we, j, n)
        if epsilon > 0.0:
            for j in range(K):
                sums[s_d + k * K + j] += share * dot(rows, we, u + j, n)
        for j in range(k + 1):
            product = share * dot(rows, we, s + j, n)
            sums[s_s + k * K + j] += product
            if j < k:
                sums[s_s + j * K + k] += product
