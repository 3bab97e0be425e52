r"""Averages over the fields of a student and its teacher, under FGSM on the loss.

With :math:`X = (\lambda, \nu) = L y`, :math:`y \sim N(0, I_{K+M})`, :math:`L L^T = C = (Q, R; R^T, T)`, the student's output
:math:`\phi = b + \sum_k c_k g(\lambda_k - \theta_k)` and the label :math:`\tau = \sum_n c^*_n g(\nu_n)`. Given
:math:`\lambda`, FGSM asks only for the sign of :math:`\phi - \tau`, and the attacked output is the same for all labels on one
side. So the averages over :math:`\nu` are moments of :math:`\tau` on one side
(`odeflow.order_parameters.committee.quadrature.teacher_moments`); on the other they are what is left of the closed whole, and
the student is attacked twice for each :math:`\lambda`.

As functions of :math:`\lambda` the moments are not smooth where :math:`\phi = \pm c^*_1 \pm c^*_2 \ldots`, so each of the
coordinates of :math:`\lambda` is cut where this begins or ends, as in the other files here.

Exact but for the quadrature, whose accuracy is that of the rule.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from odeflow.numerics.compilation import inlined
from odeflow.order_parameters.committee.quadrature import teacher_moments as below
from odeflow.order_parameters.committee.quadrature.sums import layout, width
from odeflow.order_parameters.committee.quadrature.teacher_moments import WIDTH, bell, erf_lane

__all__ = ["TeacherRule", "add_averages_teacher", "factor", "rule", "scratch"]

Array = npt.NDArray[np.float64]

FLOOR = 1e-9
"""Smallest variance that a field has given those before it, see `factor`."""

_MOST = 64  # nodes of a panel


class TeacherRule(NamedTuple):
    """Nodes and weights of panels on (0, 1), and how they are laid."""

    reach: float
    """Where the coordinates y end."""
    least: float
    """Nodes of a short panel of the student's coordinates."""
    density: float
    """Nodes in addition for each unit of length, at fields of variance 1."""
    panels: Array
    """``panels[n - 1, 0, :n]``, ``panels[n - 1, 1, :n]``: nodes and weights of n points."""
    graded_nodes: Array
    """Of the teacher's coordinates but the last."""
    graded_weights: Array
    last_nodes: Array
    """Of the teacher's last coordinate."""
    last_weights: Array


def _legendre(n: int) -> tuple[Array, Array]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return (1 + nodes) / 2, weights / 2


def _graded(n: int) -> tuple[Array, Array]:
    """Return Gauss-Legendre in t of the integral over t^2 (3 - 2 t): dense at both ends."""
    t, weights = _legendre(n)
    return t * t * (3 - 2 * t), 6 * t * (1 - t) * weights


def rule(K: int, M: int, tolerance: float = 1e-6) -> TeacherRule:
    """Return the nodes with which the averages of K units and M of the teacher err by about the tolerance.

    Parameters
    ----------
    K, M
        Hidden units of student and teacher, 1 to 4 and 1 to 3.
    tolerance
        From 1e-2 to 1e-9, absolute, for fields of variance about 1; larger ones err more.
    """
    digits = min(max(-math.log10(tolerance), 2.0), 9.0)
    panels = np.zeros((_MOST, 2, _MOST))
    for n in range(1, _MOST + 1):
        panels[n - 1, 0, :n], panels[n - 1, 1, :n] = _legendre(n)
    return TeacherRule(
        math.sqrt(2 * math.log(10) * (digits + 0.5)),
        1.0 + digits,
        0.4 * digits - 0.4,
        panels,
        *_graded(round(4 + 3.8 * digits)),
        *_legendre(round(2 + 2.5 * digits)),
    )


@inlined
def _most_nodes(K, M):
    return ((1 << (M + K - 1)) + 9) * _MOST


def scratch(K: int, M: int) -> int:
    """Return how many floats of scratch `add_averages_teacher` needs."""
    lanes = 4 * K + 4 + M + 2 * (3 + 2 * M) + 3 + below.rows(M) + width(K, K + M) + 1
    return lanes * WIDTH + K * (2 * _most_nodes(K, M) + 6) + M * M + M + M * (1 << M) + (1 << (M + K)) + 64


@njit(nogil=True, error_model="numpy")
def factor(C, L):
    """Fill L with the Cholesky factor of C, which may be singular or, in a trial step, not quite positive.

    A field whose variance given those before it is below 1e-9 gets this variance, and those after it do not depend on what it
    adds: the averages change by less than 1e-4, and smoothly for what leaves the fields' own variances as they are.
    """
    n = C.shape[0]
    L[:] = 0.0
    for j in range(n):
        pivot = C[j, j]
        for k in range(j):
            pivot -= L[j, k] * L[j, k]
        if not pivot > FLOOR:
            L[j, j] = math.sqrt(FLOOR)
            continue
        L[j, j] = math.sqrt(pivot)
        for i in range(j + 1, n):
            rest = C[i, j]
            for k in range(j):
                rest -= L[i, k] * L[j, k]
            L[i, j] = rest / L[j, j]


@njit(nogil=True, error_model="numpy")
def _inverse(z):
    """Return x with erf(x / sqrt 2) = z, |z| < 1."""
    low, high = -9.0, 9.0
    for _ in range(54):
        middle = 0.5 * (low + high)
        if math.erf(middle * math.sqrt(0.5)) < z:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)
