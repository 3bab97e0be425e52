r"""Moments of a teacher of ReLU units over the part of its fields where its output is below a threshold, one point at a time.

The same as `odeflow.order_parameters.committee.quadrature.teacher_moments`, for :math:`\tau = \sum_n c_n \max(\nu_n, 0)`.
Over the last field all is closed: moments of a Gaussian over intervals that end where :math:`\nu_M = 0` and where
:math:`\tau = \phi`. The fields before it, n, are cut where :math:`\nu_n = 0` and where :math:`c_n \nu_n` is what is left of
:math:`\phi`; between these points all is smooth.
"""

from __future__ import annotations

import math
from typing import Any

from odeflow.numerics.compilation import called

__all__ = ["MOST", "relu_below"]

MOST = 1e300
"""A threshold above all outputs."""

_BELL = 1.0 / math.sqrt(2.0 * math.pi)
_SMALL = 1e-150


@called
def _add_interval(low, high, mean, scale, c, n, M, out):
    """Add the moments of z_n over low < z < high, where the unit gives c (mean + scale z)."""
    if not low < high:
        return
    bell_low, bell_high = _BELL * math.exp(-0.5 * low * low), _BELL * math.exp(-0.5 * high * high)
    root = math.sqrt(0.5)
    # of two tails the difference, not of two numbers near 1
    if low > 0.0:
        one = 0.5 * (math.erfc(low * root) - math.erfc(high * root))
    else:
        one = 0.5 * (math.erfc(-high * root) - math.erfc(-low * root))
    first = bell_low - bell_high
    second = one + max(low, -40.0) * bell_low - min(high, 40.0) * bell_high
    out[0] += one
    out[1] += c * (mean * one + scale * first)
    out[2] += c * c * (mean * mean * one + 2.0 * mean * scale * first + scale * scale * second)
    out[3 + n] += first
    out[3 + M + n] += c * (mean * first + scale * second)


@called
def _below_1(phi, mean, L, c, rule, work, out):
    """Fill ``out`` (3 + 2 M,) with the moments over the last field: the threshold, and the mean given those before."""
    M = c.size
    n = M - 1
    scale = max(L[n, n], _SMALL)
    zero = -mean[n] / scale
    at = (phi / c[n] - mean[n]) / scale if c[n] != 0.0 else zero
    out[:3] = 0.0
    out[3 + n] = 0.0
    out[3 + M + n] = 0.0
    if phi > 0.0:
        _add_interval(-math.inf, zero, 0.0, 0.0, 0.0, n, M, out)
        _add_interval(zero, at if c[n] > 0.0 else math.inf, mean[n], scale, c[n], n, M, out)
    elif c[n] < 0.0:
        _add_interval(max(zero, at), math.inf, mean[n], scale, c[n], n, M, out)


def _before(deeper: Any, n_from_last: int) -> Any:
    """Return the moments over one field more than `deeper` does."""

    @called
    def below(phi, mean, L, c, rule, work, out):
        M = c.size
        n = M - n_from_last
        scale = max(L[n, n], _SMALL)
        inner, next_mean = work[2 * n], work[2 * n + 1]
        out[:3] = 0.0
        for i in range(n, M):
            out[3 + i] = 0.0
            out[3 + M + i] = 0.0
        zero = min(max(-mean[n] / scale, -rule.reach), rule.reach)
        at = zero
        if c[n] != 0.0 and phi / c[n] > 0.0:
            at = min(max((phi / c[n] - mean[n]) / scale, zero), rule.reach)
        for segment in range(3):
            low = -rule.reach if segment == 0 else (zero if segment == 1 else at)
            high = zero if segment == 0 else (at if segment == 1 else rule.reach)
            if not low < high:
                continue
            for node in range(rule.graded_nodes.size):
                z = low + (high - low) * rule.graded_nodes[node]
                weight = (high - low) * rule.graded_weights[node] * _BELL * math.exp(-0.5 * z * z)
                a = c[n] * max(mean[n] + scale * z, 0.0)
                for i in range(n + 1, M):
                    next_mean[i] = mean[i] + L[i, n] * z
                deeper(phi - a, next_mean, L, c, rule, work, inner)
                # tau = a + what the later units give
                tau = a * inner[0] + inner[1]
                out[0] += weight * inner[0]
                out[1] += weight * tau
                out[2] += weight * (a * (tau + inner[1]) + inner[2])
                out[3 + n] += weight * z * inner[0]
                out[3 + M + n] += weight * z * tau
                for i in range(n + 1, M):
                    out[3 + i] += weight * inner[3 + i]
                    out[3 + M + i] += weight * (a * inner[3 + i] + inner[3 + M + i])

    return below


_below_2 = _before(_below_1, 2)
_below_3 = _before(_below_2, 3)


@called
def relu_below(phi, mean, L, c, rule, work, out):
    """Fill ``out`` (3 + 2 M,) with the moments over tau < phi, for M = 1, 2 or 3; ``work`` has 2 M rows of 3 + 2 M floats."""
    if c.size == 1:
        _below_1(phi, mean, L, c, rule, work, out)
    elif c.size == 2:
        _below_2(phi, mean, L, c, rule, work, out)
    else:
        _below_3(phi, mean, L, c, rule, work, out)
