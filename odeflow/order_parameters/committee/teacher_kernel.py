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

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import kept, once
from odeflow.order_parameters.committee.batch import (
    ETA_B,
    ETA_C,
    ETA_THETA,
    ETA_W,
    KERNELS,
    SCALE,
    SECOND_ORDER,
    attack_at,
    factor,
    set_rates,
    solve_right,
    unpacked,
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
    attack: Attack
    """What the adversary does."""
    rule: Any
    """Of the quadrature."""


@once
def _rates(model, constants, y, dydt, work):
    """Set dydt at one state; nan where no weights have its overlaps. An entry behind those of the state gets <e e>."""
    K, m = model.units, model.output.size
    n = K + m
    gain, teacher_gain = model.gain, model.teacher_gain
    R, Q, c, theta, b = unpacked(y, K, m, gain, teacher_gain)
    T = teacher_gain * teacher_gain * constants[SCALE] * model.products
    eta_w, eta_theta = gain * gain * constants[ETA_W], gain * gain * constants[ETA_THETA]
    C, L = np.empty((n, n)), np.empty((n, n))
    for k in range(n):
        for j in range(n):
            if k < K:
                C[k, j] = Q[k, j] if j < K else R[k, j - K]
            else:
                C[k, j] = R[j, k - K] if j < K else T[k - K, j - K]
    if not factor(C, L):
        dydt[:] = np.nan
        return
    sums = np.zeros(width(K, n))
    for node in range(model.nodes.size + 1):
        size, share = attack_at(model, constants, node)
        if share > 0.0:
            add_averages_teacher(
                model.kind, L, Q, theta, c, b, model.teacher_kind, model.output, size, model.attack, share,
                model.rule, work, sums,
            )  # fmt: skip
    s_y, s_d, s_s, e_g, e, e_e = layout(K, n)
    A, B, dR, dQ = np.empty((K, n)), np.empty((K, K)), np.empty((K, m)), np.empty((K, K))
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
        for i in range(m):
            change = 0.0
            for j in range(n):
                change += A[k, j] * C[j, K + i]
            dR[k, i] = eta_w * change
    for k in range(K):
        for l in range(K):
            noise = constants[SECOND_ORDER] * eta_w * eta_w * sums[s_s + k * K + l]
            dQ[k, l] = eta_w * (B[k, l] + B[l, k]) + noise
    dc, dtheta = -constants[ETA_C] * sums[e_g : e_g + K], -eta_theta * sums[:K]
    set_rates(dR, dQ, dc, dtheta, -constants[ETA_B] * sums[e], gain, teacher_gain, dydt)
    if dydt.size > y.size:
        dydt[y.size] = sums[e_e]


@kept
def evaluate(model, constants, states, out):
    """Set the rates of many states, see `odeflow.order_parameters.committee.batch.KERNELS`."""
    work = np.empty(scratch(model.units))
    for i in range(len(states)):
        _rates(model, constants[i], states[i], out[i], work)


KERNELS[TeacherModel] = evaluate
runge_kutta.FOLLOWERS.add(TeacherModel)
