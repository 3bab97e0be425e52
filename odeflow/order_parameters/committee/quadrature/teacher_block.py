"""What a block of points of the student's fields adds to the averages: the teacher's moments, and two attacks a point.

Examples with the label below a threshold are attacked in one way, the others in another. Of FGSM the threshold is the output.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import called, once
from odeflow.numerics.elementary import exp
from odeflow.order_parameters.committee.quadrature import teacher_moments
from odeflow.order_parameters.committee.quadrature.sums import FGSM, layout
from odeflow.order_parameters.committee.quadrature.teacher_moments import WIDTH, add_scaled, erf_lane
from odeflow.order_parameters.committee.quadrature.teacher_relu import MOST, relu_below
from odeflow.order_parameters.committee.units import ERF, KINK

__all__ = ["Block", "Teacher", "add_block", "block_of", "teacher_given"]

Array = npt.NDArray[np.float64]

_SLOPE = math.sqrt(2.0 / math.pi)


class Teacher(NamedTuple):
    """The teacher given the student's fields; the signs of erf units are turned so that all c > 0."""

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
    threshold: Array
    rest: Array
    """1 at another threshold of a point that stands in the block already: then the whole is not counted again."""
    up: Array
    """The attack d on examples with the label below the threshold, (K, WIDTH)."""
    down: Array
    """That on the others."""
    mean: Array
    under: Array
    """The moments of the teacher on either side."""
    over: Array
    fields: Array
    """Scratch of the student, (4 K + 4, WIDTH)."""
    work: Array
    """Scratch of the teacher, (M, 9 + 3 M, WIDTH)."""


@once
def teacher_given(teacher_kind, L, K, c):
    """Return the teacher of output weights c, L that of all fields."""
    M = c.size
    turned = c < (0.0 if teacher_kind == ERF else -MOST)
    size, later = np.where(turned, -c, c), np.zeros((M, 1 << M))
    inner, given = np.zeros((M, M)), np.zeros((M, K))
    for n in range(M):
        teacher_moments.extremes(size, n + 1, later[n])
        for k in range(K):
            given[n, k] = -L[K + n, k] if turned[n] else L[K + n, k]
        for j in range(n + 1):
            inner[n, j] = -L[K + n, K + j] if turned[n] != turned[j] else L[K + n, K + j]
    return Teacher(size, inner, given, later, turned)


@once
def block_of(K, M):
    """Return an empty block."""
    of_units, moments = (4, K, WIDTH), (2, 3 + 2 * M, WIDTH)
    units, sides, single = np.zeros(of_units), np.zeros(moments), np.zeros((3, WIDTH))
    fields, work = np.zeros((4 * K + 4, WIDTH)), np.zeros((M, 9 + 3 * M, WIDTH))
    return Block(
        units[0], units[1], single[0], single[1], single[2], units[2], units[3], np.zeros((M, WIDTH)),
        sides[0], sides[1], fields, work,
    )  # fmt: skip


@once
def _directions(kind, epsilon, Q, c, block):
    """Fill the attacks of FGSM: +-epsilon u / sqrt(u^T Q u), u_k = c_k g'(x_k)."""
    K = c.size
    least, norm = block.fields[0], block.fields[1]
    least[:] = MOST
    for k in range(K):
        if c[k] != 0.0:
            x = block.x[k]
            for lane in range(WIDTH):
                least[lane] = min(least[lane], x[lane] * x[lane])
    for k in range(K):
        x, u, factor = block.x[k], block.up[k], c[k]
        if kind == ERF and factor != 0.0:
            for lane in range(WIDTH):
                # far out all exponentials underflow, but not their ratios
                u[lane] = factor * exp(0.5 * (least[lane] - x[lane] * x[lane]))
        else:
            for lane in range(WIDTH):
                u[lane] = factor if x[lane] > 0.0 else 0.0
    norm[:] = 0.0
    for k in range(K):
        for l in range(K):
            u, other, factor = block.up[k], block.up[l], Q[k, l]
            for lane in range(WIDTH):
                norm[lane] += factor * u[lane] * other[lane]
    for lane in range(WIDTH):
        norm[lane] = epsilon / math.sqrt(max(norm[lane], 1e-300))
    for k in range(K):
        up, down = block.up[k], block.down[k]
        for lane in range(WIDTH):
            up[lane] *= norm[lane]
            down[lane] = -up[lane]


@called
def _add_product(a, b, out):
    for lane in range(WIDTH):
        out[lane] += a[lane] * b[lane]


@called
def _moved(kind, x, c, unit, slope, phi):
    """Fill g and c g' of a unit, and add to the output."""
    if kind == ERF:
        for lane in range(WIDTH):
            at = x[lane]
            unit[lane] = erf_lane(at)
            slope[lane] = c * _SLOPE * exp(-0.5 * at * at)
    else:
        for lane in range(WIDTH):
            unit[lane] = max(x[lane], 0.0)
            slope[lane] = c if x[lane] > KINK else 0.0
    add_scaled(c, unit, phi)


@called
def _collect(kind, d, Q, c, b, block, moments, sums):
    """Add what the examples on one side of the threshold give, attacked by d."""
    K = c.size
    M = (moments.shape[0] - 3) // 2
    n = K + M
    s_y, s_d, s_s, e_g, e, e_e = layout(K, n)
    unit, slope, moved = block.fields[:K], block.fields[K : 2 * K], block.fields[2 * K]
    phi, first, second, s = (
        block.fields[3 * K],
        block.fields[3 * K + 1],
        block.fields[3 * K + 2],
        block.fields[3 * K + 3],
    )
    weight, one, tau, square = block.weight, moments[0], moments[1], moments[2]
    phi[:] = b
    for k in range(K):
        for lane in range(WIDTH):
            moved[lane] = block.x[k, lane]
        for l in range(K):
            add_scaled(Q[k, l], d[l], moved)
        _moved(kind, moved, c[k], unit[k], slope[k], phi)
    # the averages of e = phi - tau and of its square over this side
    for lane in range(WIDTH):
        first[lane] = weight[lane] * (phi[lane] * one[lane] - tau[lane])
        second[lane] = weight[lane] * (phi[lane] * (phi[lane] * one[lane] - 2.0 * tau[lane]) + square[lane])
        sums[e, lane] += first[lane]
        sums[e_e, lane] += second[lane]
    for k in range(K):
        for lane in range(WIDTH):
            s[lane] = -slope[k, lane] * first[lane]
            sums[k, lane] += s[lane]
        _add_product(unit[k], first, sums[e_g + k])
        for j in range(K):
            _add_product(s, block.y[j], sums[s_y + k * n + j])
            _add_product(s, d[j], sums[s_d + k * K + j])
        for j in range(K):
            for lane in range(WIDTH):
                sums[s_s + k * K + j, lane] += slope[k, lane] * slope[j, lane] * second[lane]
        for lane in range(WIDTH):
            s[lane] = -slope[k, lane] * weight[lane]
        for j in range(M):
            z, tau_z, out = moments[3 + j], moments[3 + M + j], sums[s_y + k * n + K + j]
            for lane in range(WIDTH):
                out[lane] += s[lane] * (phi[lane] * z[lane] - tau_z[lane])


@once
def _erf_sides(T, cuts, rule, block):
    """Fill the moments of a teacher of erf units on the sides of the threshold; without `cuts`, all are over it."""
    M = T.c.size
    under, over, threshold, mean = block.under, block.over, block.threshold, block.mean
    teacher_moments.whole(mean, T.L, T.c, block.work, over)
    if cuts:
        # the side that is below -|threshold| once all signs are turned where it is positive
        sign = block.fields[0]
        for lane in range(WIDTH):
            sign[lane] = 1.0 if threshold[lane] <= 0.0 else -1.0
            threshold[lane] *= sign[lane]
        for j in range(M):
            for lane in range(WIDTH):
                mean[j, lane] *= sign[lane]
        teacher_moments.below(threshold, mean, T.L, T.c, T.later, rule, block.work, under)
        for row in range(3 + 2 * M):
            odd = row == 1 or 3 <= row < 3 + M
            one, other = under[row], over[row]
            for lane in range(WIDTH):
                value = one[lane] * (sign[lane] if odd else 1.0)
                rest = other[lane] - value
                one[lane] = value if sign[lane] > 0.0 else rest
                other[lane] = rest if sign[lane] > 0.0 else value
    # back to the z of the true teacher
    for j in range(M):
        if T.turned[j]:
            for row in (3 + j, 3 + M + j):
                for lane in range(WIDTH):
                    under[row, lane] *= -1.0
                    over[row, lane] *= -1.0


@once
def _relu_sides(T, cuts, rule, block):
    """Fill the same of a teacher of ReLU units."""
    M = T.c.size
    size = 3 + 2 * M
    mean, work, one = np.empty(M), np.empty((2 * M, size)), np.empty(size)
    for lane in range(WIDTH):
        for j in range(M):
            mean[j] = block.mean[j, lane]
        relu_below(MOST, mean, T.L, T.c, rule, work, one)
        for row in range(size):
            block.over[row, lane] = one[row]
        if cuts:
            relu_below(block.threshold[lane], mean, T.L, T.c, rule, work, one)
            for row in range(size):
                block.under[row, lane] = one[row]
                block.over[row, lane] -= one[row]


@called
def add_block(kind, teacher_kind, T, Q, c, b, epsilon, how, rule, block, sums):
    """Add the averages over the teacher's fields at a block of the student's."""
    K, M = c.size, T.c.size
    cuts = epsilon != 0.0
    if how.kind == FGSM or not cuts:
        _directions(kind, epsilon, Q, c, block)
    for j in range(M):
        block.mean[j, :] = 0.0
        for k in range(K):
            add_scaled(T.given[j, k], block.y[k], block.mean[j])
    block.under[:] = 0.0
    if teacher_kind == ERF:
        _erf_sides(T, cuts, rule, block)
    else:
        _relu_sides(T, cuts, rule, block)
    for row in range(3 + 2 * M):
        under, over = block.under[row], block.over[row]
        for lane in range(WIDTH):
            under[lane] = -over[lane] if block.rest[lane] > 0.0 else under[lane]
    if cuts:
        _collect(kind, block.up, Q, c, b, block, block.under, sums)
    _collect(kind, block.down, Q, c, b, block, block.over, sums)
