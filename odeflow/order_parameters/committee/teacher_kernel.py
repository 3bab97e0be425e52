r"""Right-hand side of the two-layer network's order parameters, for a teacher that labels the inputs.

With :math:`L L^T = C`, C the covariance of the fields of student and teacher, :math:`A = \langle s y^T\rangle L^{-1}` (K x (K +
M)), :math:`V = A_{1..K} + \langle s d^T\rangle`, :math:`W = A_{K+1..}` and :math:`B = V Q + W R^T` (section 5.2 of the theory),

.. math::
    dR/d\alpha &= \eta_w (V R + W T) \\
    dQ/d\alpha &= \eta_w (B + B^T) + \eta_w^2 \langle s s^T\rangle \\
    dc_k/d\alpha &= -\eta_c \langle\tilde e\,g(\tilde x_k)\rangle, \qquad
    d\theta_k/d\alpha = -\eta_\theta \langle s_k\rangle, \qquad
    db/d\alpha = -\eta_b \langle\tilde e\rangle .

Exact as N grows, up to the quadrature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from odeflow.order_parameters.committee.batch import (
    EPSILON,
    ETA_B,
    ETA_C,
    ETA_THETA,
    ETA_W,
    FRACTION,
    KERNELS,
    SCALE,
    SECOND_ORDER,
    Kernel,
    factor,
    solve_right,
)
from odeflow.order_parameters.committee.quadrature.sums import Attack, layout, width
from odeflow.order_parameters.committee.quadrature.teacher import add_averages_teacher, scratch

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["TeacherModel"]


class TeacherModel(NamedTuple):
    """A batch of trajectories that share all but numbers, for `odeflow.numerics.runge_kutta.solve`."""

    parameters: npt.NDArray[np.float64]
    """One row a trajectory, float64, C-contiguous: `odeflow.order_parameters.committee.batch.PARAMETERS`, scale^2, the start."""
    nodes: npt.NDArray[np.float64]
    """Factors of epsilon: quadrature nodes of the law."""
    weights: npt.NDArray[np.float64]
    """Their weights, which sum to 1."""
    products: npt.NDArray[np.float64]
    """w*_n.w*_m without the scale, shape (M, M)."""
    output: npt.NDArray[np.float64]
    """The teacher's output weights, shape (M,)."""
    kind: int
    """The student's units, of `odeflow.order_parameters.committee.units`."""
    gain: float
    """Their gain."""
    teacher_kind: int
    """The teacher's units."""
    teacher_gain: float
    """Their gain."""
    units: int
    """K."""
    labels: npt.NDArray[np.float64]
    """None: there are no clusters."""
    attack: Attack
    """What the adversary does."""
    rule: Any
    """Of the quadrature."""


@njit(nogil=True, error_model="numpy")
def teacher_rates(model, constants, y, dydt, work):
    """Set dydt at one state; nan where no weights have its overlaps."""
    K, m = model.units, model.output.size
    n = K + m
    gain, teacher_gain = model.gain, model.teacher_gain
    R = gain * teacher_gain * y[: K * m].reshape(K, m)
    Q = gain * gain * y[K * m : K * n].reshape(K, K)
    T = teacher_gain * teacher_gain * constants[SCALE] * model.products
    c = y[K * n : K * n + K]
    theta = gain * y[K * n + K : K * n + 2 * K]
    b = y[K * n + 2 * K]
    eta_w, eta_theta = gain * gain * constants[ETA_W], gain * gain * constants[ETA_THETA]
    attacked = constants[FRACTION]
    C, L = np.empty((n, n)), np.empty((n, n))
    C[:K, :K] = Q
    C[:K, K:] = R
    C[K:, :K] = R.T
    C[K:, K:] = T
    if not factor(C, L):
        dydt[:] = np.nan
        return
    sums = np.zeros(width(K, n))
    for node in range(model.nodes.size):
        size, share = constants[EPSILON] * model.nodes[node], attacked * model.weights[node]
        add_averages_teacher(
            model.kind, R, T, L, Q, theta, c, b, model.teacher_kind, model.output, size, model.attack, share,
            model.rule, work, sums,
        )  # fmt: skip
    if attacked < 1.0:
        add_averages_teacher(
            model.kind, R, T, L, Q, theta, c, b, model.teacher_kind, model.output, 0.0, model.attack, 1.0 - attacked,
            model.rule, work, sums,
        )  # fmt: skip
    s_y, s_d, s_s, e_g, e, _ = layout(K, n)
    A, B = np.empty((K, n)), np.empty((K, K))
    for k in range(K):
        row = A[k]
        for j in range(n):
            row[j] = sums[s_y + k * n + j]
        solve_right(L, row)
        for l in range(K):
            row[l] += sums[s_d + k * K + l]
        for l in range(K):
            B[k, l] = 0.0
            for j in range(n):
                B[k, l] += A[k, j] * C[j, l]
    at = 0
    for k in range(K):
        for i in range(m):
            change = 0.0
            for j in range(n):
                change += A[k, j] * C[j, K + i]
            dydt[at] = eta_w * change / (gain * teacher_gain)
            at += 1
    for k in range(K):
        for l in range(K):
            noise = constants[SECOND_ORDER] * eta_w * eta_w * sums[s_s + k * K + l]
            dydt[at] = (eta_w * (B[k, l] + B[l, k]) + noise) / (gain * gain)
            at += 1
    for k in range(K):
        dydt[at + k] = -constants[ETA_C] * sums[e_g + k]
        dydt[at + K + k] = -eta_theta * sums[k] / gain
    dydt[at + 2 * K] = -constants[ETA_B] * sums[e]


@njit(nogil=True, error_model="numpy")
def _scratch(model):
    return scratch(model.units, model.output.size, model.rule)


KERNELS[TeacherModel] = Kernel(teacher_rates, _scratch)
