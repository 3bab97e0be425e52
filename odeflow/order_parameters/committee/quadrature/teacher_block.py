"""What a block of points of the student's fields adds to the averages: the teacher's moments, and two attacks a point."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from odeflow.numerics.elementary import exp
from odeflow.order_parameters.committee.quadrature import teacher_moments
from odeflow.order_parameters.committee.quadrature.sums import layout
from odeflow.order_parameters.committee.quadrature.teacher_moments import WIDTH, erf_lane

__all__ = ["Block", "Teacher", "add_block", "block_of", "teacher_given"]

Array = npt.NDArray[np.float64]

_SLOPE = math.sqrt(2.0 / math.pi)


class Teacher(NamedTuple):
    """The teacher given the student's fields, with the signs of its units turned so that all c > 0."""

    c: Array
    L: Array
    """Cholesky factor of the covariance of its fields, (M, M)."""
    given: Array
    """Their means are this, (M, K), times y."""
    later: Array
    """``later[n]``: sums of +-c_i over i > n, ascending."""
    turned: Array
    """Whether the sign of the unit was turned."""


class Block(NamedTuple):
    """What is known at `WIDTH` points of the student's fields: the last axis."""

    y: Array
    x: Array
    weight: Array
    phi: Array
    sign: Array
    mean: Array
    whole: Array
    inside: Array
    direction: Array
    shift: Array
    unit: Array
    slope: Array
    work: Array


@njit(nogil=True, error_model="numpy")
def teacher_given(L, K, c):
    """Return the teacher given the student's fields."""
    M = c.size
    size, later = np.abs(c), np.zeros((M, 1 << M))
    inner, given, turned = np.zeros((M, M)), np.zeros((M, K)), c < 0.0
    for n in range(M):
        teacher_moments.extremes(size, n + 1, later[n])
        for k in range(K):
            given[n, k] = -L[K + n, k] if turned[n] else L[K + n, k]
        for j in range(n + 1):
            inner[n, j] = -L[K + n, K + j] if turned[n] != turned[j] else L[K + n, K + j]
    return Teacher(size, inner, given, later, turned)


@njit(nogil=True, error_model="numpy")
def block_of(K, M):
    one, moments = (K, WIDTH), (3 + 2 * M, WIDTH)
    return Block(
        np.zeros(one),
        np.zeros(one),
        np.zeros(WIDTH),
        np.zeros(WIDTH),
        np.zeros(WIDTH),
        np.zeros((M, WIDTH)),
        np.zeros(moments),
        np.zeros(moments),
        np.zeros(one),
        np.zeros(one),
        np.zeros(one),
        np.zeros(one),
        np.zeros((M, 9 + 3 * M, WIDTH)),
    )


@njit(nogil=True, error_model="numpy")
def _direction(x, Q, c, direction, shift):
    """Fill ``direction`` with u / sqrt(u^T Q u), u_k = c_k g'(x_k), and ``shift`` with Q times that, (K, WIDTH)."""
    K = c.size
    least, norm = np.empty(WIDTH), np.empty(WIDTH)
    least[:] = 1e300
    for k in range(K):
        if c[k] != 0.0:
            row = x[k]
            for lane in range(WIDTH):
                least[lane] = min(least[lane], row[lane] * row[lane])
    for k in range(K):
        row, u, factor = x[k], direction[k], c[k]
        for lane in range(WIDTH):
            # far out all exponentials underflow, but not their ratios
            u[lane] = factor * exp(0.5 * (least[lane] - row[lane] * row[lane])) if factor != 0.0 else 0.0
    norm[:] = 0.0
    for k in range(K):
        row, u = shift[k], direction[k]
        row[:] = 0.0
        for l in range(K):
            other, factor = direction[l], Q[k, l]
            for lane in range(WIDTH):
                row[lane] += factor * other[lane]
        for lane in range(WIDTH):
            norm[lane] += u[lane] * row[lane]
    for lane in range(WIDTH):
        norm[lane] = 1.0 / math.sqrt(max(norm[lane], 1e-300))
    for k in range(K):
        row, u = shift[k], direction[k]
        for lane in range(WIDTH):
            row[lane] *= norm[lane]
            u[lane] *= norm[lane]


@njit(nogil=True, error_model="numpy")
def _collect(move, sign, x, y, weight, direction, shift, c, b, moments, unit, slope, sums):
    """Add what the examples of one side give, attacked by ``move * sign`` times the direction."""
    K = c.size
    M = (moments.shape[0] - 3) // 2
    n = K + M
    s_y, s_d, s_s, e_g, e, e_e = layout(K, n)
    phi, first, second, side = np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH), np.empty(WIDTH)
    phi[:] = b
    for k in range(K):
        for lane in range(WIDTH):
            at = x[k, lane] + move * sign[lane] * shift[k, lane]
            unit[k, lane] = erf_lane(at)
            slope[k, lane] = c[k] * _SLOPE * exp(-0.5 * at * at)
            phi[lane] += c[k] * unit[k, lane]
    for lane in range(WIDTH):
        first[lane] = weight[lane] * (phi[lane] * moments[0, lane] - moments[1, lane])
        second[lane] = weight[lane] * (
            phi[lane] * (phi[lane] * moments[0, lane] - 2.0 * moments[1, lane]) + moments[2, lane]
        )
        sums[e, lane] += first[lane]
        sums[e_e, lane] += second[lane]
    for k in range(K):
        for lane in range(WIDTH):
            s = -slope[k, lane] * first[lane]
            side[lane] = s
            sums[k, lane] += s
            sums[e_g + k, lane] += unit[k, lane] * first[lane]
        for j in range(K):
            _add_product(side, y[j], sums[s_y + k * n + j])
            for lane in range(WIDTH):
                sums[s_d + k * K + j, lane] += side[lane] * move * sign[lane] * direction[j, lane]
                sums[s_s + k * K + j, lane] += slope[k, lane] * slope[j, lane] * second[lane]
        for j in range(M):
            for lane in range(WIDTH):
                z, tau_z = moments[3 + j, lane], moments[3 + M + j, lane]
                sums[s_y + k * n + K + j, lane] -= slope[k, lane] * weight[lane] * (phi[lane] * z - tau_z)


@njit(nogil=True, error_model="numpy")
def _add_product(a, b, out):
    for lane in range(WIDTH):
        out[lane] += a[lane] * b[lane]


@njit(nogil=True, error_model="numpy")
def add_block(T, Q, c, b, epsilon, rule, block, sums):
    """Add the averages over the teacher's fields at a block of the student's."""
    x, y, weight, phi = block.x, block.y, block.weight, block.phi
    K, M = c.size, T.c.size
    for j in range(M):
        mean = block.mean[j]
        mean[:] = 0.0
        for k in range(K):
            row, factor = y[k], T.given[j, k]
            for lane in range(WIDTH):
                mean[lane] += factor * row[lane]
    whole, inside, sign = block.whole, block.inside, block.sign
    teacher_moments.whole(block.mean, T.L, T.c, block.work, whole)
    _direction(x, Q, c, block.direction, block.shift)
    if epsilon != 0.0:
        # the side of the threshold that is below -|phi| once all signs are turned where phi > 0
        for lane in range(WIDTH):
            sign[lane] = 1.0 if phi[lane] <= 0.0 else -1.0
            phi[lane] *= sign[lane]
        for j in range(M):
            for lane in range(WIDTH):
                block.mean[j, lane] *= sign[lane]
        teacher_moments.below(phi, block.mean, T.L, T.c, T.later, rule, block.work, inside)
        for row in range(3 + 2 * M):
            odd = row == 1 or 3 <= row < 3 + M
            for lane in range(WIDTH):
                value = inside[row, lane] * (sign[lane] if odd else 1.0)
                inside[row, lane] = value
                whole[row, lane] -= value
    else:
        inside[:] = 0.0
        sign[:] = -1.0
    # both for the teacher with all c > 0; back to the z of the true one
    for j in range(M):
        if T.turned[j]:
            for row in (3 + j, 3 + M + j):
                for lane in range(WIDTH):
                    inside[row, lane] *= -1.0
                    whole[row, lane] *= -1.0
    _collect(epsilon, sign, x, y, weight, block.direction, block.shift, c, b, inside, block.unit, block.slope, sums)
    for lane in range(WIDTH):
        sign[lane] = -sign[lane]
    _collect(epsilon, sign, x, y, weight, block.direction, block.shift, c, b, whole, block.unit, block.slope, sums)
