"""Averages by a plain product of Gauss-Hermite rules."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from odeflow.order_parameters.committee.quadrature.sums import MARGIN, layout
from odeflow.order_parameters.committee.units import slope, unit

__all__ = ["PlainRule", "add_averages_plain", "plain_rule"]


class PlainRule(NamedTuple):
    """Nodes of a one-dimensional rule for N(0, 1)."""

    kind: int
    scratch: int
    nodes: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


def plain_rule(kind: int, count: int) -> PlainRule:
    """Return the Gauss-Hermite rule of so many nodes."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return PlainRule(kind, 1, nodes, weights / math.sqrt(2 * math.pi))


@njit(nogil=True, error_model="numpy")
def add_averages_plain(m, v, L, Q, c, b, tau, epsilon, how, share, rule, work, sums):
    """Add the averages to sums; FGSM and the margin's attack."""
    K = m.size
    n = rule.nodes.size
    s_y, s_d, s_s, e_g, at_e, at_ee = layout(K, K)
    at = np.zeros(K, np.int64)
    y, x, d, s, u = np.empty(K), np.empty(K), np.empty(K), np.empty(K), np.empty(K)
    sd = math.sqrt(v)
    while at[K - 1] < n:
        weight = share
        for k in range(K):
            y[k] = rule.nodes[at[k]]
            weight *= rule.weights[at[k]]
        phi = b
        for k in range(K):
            x[k] = m[k]
            for j in range(k + 1):
                x[k] += sd * L[k, j] * y[j]
            phi += c[k] * unit(rule.kind, x[k])
            u[k] = c[k] * slope(rule.kind, x[k])
        sign = -tau if how.kind == MARGIN else np.sign(phi - tau)
        norm = 0.0
        for k in range(K):
            for l in range(K):
                norm += u[k] * Q[k, l] * u[l]
        for k in range(K):
            d[k] = epsilon * sign * u[k] / math.sqrt(norm) if norm > 0.0 else 0.0
        e = b - tau
        for k in range(K):
            for l in range(K):
                x[k] += Q[k, l] * d[l]
            u[k] = unit(rule.kind, x[k])
            e += c[k] * u[k]
        for k in range(K):
            s[k] = -e * c[k] * slope(rule.kind, x[k])
        for k in range(K):
            sums[k] += weight * s[k]
            for l in range(K):
                sums[s_y + k * K + l] += weight * s[k] * y[l]
                sums[s_d + k * K + l] += weight * s[k] * d[l]
                sums[s_s + k * K + l] += weight * s[k] * s[l]
            sums[e_g + k] += weight * e * u[k]
        sums[at_e] += weight * e
        sums[at_ee] += weight * e * e
        k = 0
        at[0] += 1
        while k < K - 1 and at[k] == n:
            at[k] = 0
            k += 1
            at[k] += 1
