r"""A block of nodes of units :math:`g(x) = \mathrm{erf}(x/\sqrt2)`: the attack at each, and what is averaged, in SIMD loops.

Each row of the array `rows` has one quantity at the block's nodes. The nodes come with y, their weight, and the sign of the
push: that of :math:`\phi - \tau` for FGSM, :math:`-\tau` against the label.
"""

from __future__ import annotations

import math

import numba

from odeflow.numerics.compilation import inlined
from odeflow.numerics.elementary import erfcx, exp, fma
from odeflow.order_parameters.committee.quadrature.sums import layout, width

__all__ = ["BLOCK", "PAD", "add_block", "first_rows", "n_rows"]

BLOCK = 128
"""Nodes in a block."""

PAD = 16
"""The nodes of a block are made a multiple of this, with weight 0."""

_SLOPE = math.sqrt(2.0 / math.pi)
_compiled = numba.njit(nogil=True, error_model="numpy")


@inlined
def n_rows(K):
    """Return the number of rows."""
    return 6 * K + 5


@inlined
def first_rows(K):
    """Return the rows of y (K of them), of the weight and of the sign."""
    return 0, K, K + 1


@inlined
def _fields(n, rows, K, k, x, mean, A):
    """Set row x to m_k + sum_j A_kj y_j."""
    to = rows[x]
    for i in range(n):
        to[i] = mean[k]
    for j in range(k + 1):
        a, y = A[k, j], rows[j]
        for i in range(n):
            to[i] = fma(a, y[i], to[i])


@_compiled
def _gradient(n, rows, K, x, u, r, f, Q, c, epsilon):
    """Set rows u to the gradient of the output in the fields over its largest exponential, r to Q u, f to the push over its norm.

    The push is epsilon times the sign, row K + 1: with d = f u, |d| = epsilon, whatever the factor of u.
    """
    largest = 0.0
    for k in range(K):
        largest = max(largest, abs(c[k]))
    scale = 1.0 / largest if largest > 0.0 else 0.0
    nearest, sign, push = rows[r], rows[K + 1], rows[f]
    for i in range(n):
        nearest[i] = 1e300
    for k in range(K):
        if c[k] != 0.0:
            at = rows[x + k]
            for i in range(n):
                nearest[i] = min(nearest[i], at[i] * at[i])
    for k in range(K):
        at, to = rows[x + k], rows[u + k]
        factor = scale * c[k]
        for i in range(n):
            to[i] = factor * exp(0.5 * min(nearest[i] - at[i] * at[i], 0.0))
    for i in range(n):
        push[i] = 0.0
    for k in range(K):
        to, own = rows[r + k], rows[u + k]
        for i in range(n):
            to[i] = Q[k, 0] * rows[u, i]
        for j in range(1, K):
            q, other = Q[k, j], rows[u + j]
            for i in range(n):
                to[i] = fma(q, other[i], to[i])
        for i in range(n):
            push[i] = fma(own[i], to[i], push[i])
    for i in range(n):
        push[i] = epsilon * sign[i] / math.sqrt(max(push[i], 1e-300))


@inlined
def _add_products(n, a, b, total):
    """Add a_i b_i to the PAD partial sums."""
    for start in range(0, n, PAD):
        for i in range(PAD):
            total[i] = fma(a[start + i], b[start + i], total[i])


@_compiled
def add_block(count, rows, totals, mean, A, Q, c, offset, epsilon):
    """Add the averages over the block's first `count` nodes to the partial sums `totals`, shape (width, PAD).

    x = mean + A y; the error is offset + sum_k c_k g(x_k), so offset = b0 - tau.
    """
    K = c.size
    s_y, s_d, s_s, e_g, at_e, e_e = layout(K, K)
    weight = rows[K]
    x, u, r, s = K + 2, 2 * K + 2, 3 * K + 2, 4 * K + 2  # rows of x, then attacked x; of u, then d; of Q u; of s
    g, f, e, we = 5 * K + 2, 6 * K + 2, 6 * K + 3, 6 * K + 4
    n = (count + PAD - 1) // PAD * PAD
    for i in range(count, n):
        rows[K, i] = 0.0
        rows[K + 1, i] = 1.0
        for k in range(K):
            rows[k, i] = 0.0
    for k in range(K):
        _fields(n, rows, K, k, x + k, mean, A)
    if epsilon > 0.0:
        _gradient(n, rows, K, x, u, r, f, Q, c, epsilon)
        push = rows[f]
        for k in range(K):
            at, d, shift = rows[x + k], rows[u + k], rows[r + k]
            for i in range(n):
                at[i] = fma(push[i], shift[i], at[i])
                d[i] = push[i] * d[i]
    error = rows[e]
    for i in range(n):
        error[i] = offset
    for k in range(K):
        at, unit, slope = rows[x + k], rows[g + k], rows[s + k]
        output, factor = c[k], -c[k] * _SLOPE
        for i in range(n):
            z = at[i]
            decay = exp(-0.5 * z * z)
            tail = decay * erfcx(abs(z) * math.sqrt(0.5))  # 1 - |g|
            value = 1.0 - tail
            value = value if z > 0.0 else -value
            unit[i] = value
            slope[i] = factor * decay
            error[i] = fma(output, value, error[i])
    weighted, ones = rows[we], rows[f]
    for i in range(n):
        weighted[i] = weight[i] * error[i]
        ones[i] = 1.0
    _add_products(n, weighted, ones, totals[at_e])
    _add_products(n, weighted, error, totals[e_e])
    for k in range(K):
        _add_products(n, weighted, rows[g + k], totals[e_g + k])
        own = rows[s + k]
        for i in range(n):
            own[i] = own[i] * error[i]
    for k in range(K):
        for i in range(n):
            weighted[i] = weight[i] * rows[s + k, i]
        _add_products(n, weighted, ones, totals[k])
        for j in range(K):
            _add_products(n, weighted, rows[j], totals[s_y + k * K + j])
        if epsilon > 0.0:
            for j in range(K):
                _add_products(n, weighted, rows[u + j], totals[s_d + k * K + j])
        for j in range(k, K):
            _add_products(n, weighted, rows[s + j], totals[s_s + k * K + j])


@_compiled
def add_totals(K, share, totals, sums):
    """Add `share` times the partial sums to `sums`."""
    _, _, s_s, _, _, _ = layout(K, K)
    for k in range(K):
        for j in range(k):
            for i in range(PAD):
                totals[s_s + k * K + j, i] = totals[s_s + j * K + k, i]
    for at in range(width(K, K)):
        total = 0.0
        for i in range(PAD):
            total += totals[at, i]
        sums[at] += share * total
