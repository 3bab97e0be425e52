r"""Right-hand side of the two-layer network's order parameters, for clusters.

With the averages of `odeflow.order_parameters.committee.quadrature` over the fields of cluster a, :math:`L L^T = Q`,
:math:`V_{kl} = \sqrt{v_a} \sum_j \langle s_k y_j\rangle (L^{-1})_{jl} + \langle s_k d_l\rangle` and :math:`B_{kl} = \langle
s_k\rangle M_{la} + \sum_m V_{km} Q_{ml}` (section 5.2 of the theory),

.. math::
    dM_{kb}/d\alpha &= \eta_w \sum_a p_a [\langle s_k\rangle_a \mu_a\cdot\mu_b + \sum_l V^a_{kl} M_{lb}] \\
    dQ_{kl}/d\alpha &= \eta_w \sum_a p_a (B^a_{kl} + B^a_{lk}) + \eta_w^2 \sum_a p_a v_a \langle s_k s_l\rangle_a \\
    dc_k/d\alpha &= -\eta_c \sum_a p_a \langle\tilde e\,g(\tilde x_k)\rangle_a, \qquad
    d\theta_k/d\alpha = -\eta_\theta \sum_a p_a \langle s_k\rangle_a, \qquad
    db/d\alpha = -\eta_b \sum_a p_a \langle\tilde e\rangle_a .

Exact as N grows, up to the quadrature.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import kept, once
from odeflow.order_parameters.committee.batch import (
    ETA_B,
    ETA_C,
    ETA_THETA,
    ETA_W,
    FIRST,
    KERNELS,
    SCALE,
    SECOND_ORDER,
    attack_at,
    factor,
    set_rates,
    solve_right,
    unpacked,
)
from odeflow.order_parameters.committee.quadrature.by_rule import averages, scratch
from odeflow.order_parameters.committee.quadrature.sums import Attack, layout, width

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CommitteeModel"]


class CommitteeModel(NamedTuple):
    """A batch of trajectories that share all but numbers, for `odeflow.numerics.runge_kutta.solve`."""

    parameters: npt.NDArray[np.float64]
    """One row a trajectory, float64, C-contiguous: `PARAMETERS`, scale^2, p_a, v_a, and the initial state."""
    nodes: npt.NDArray[np.float64]
    """Factors of epsilon: quadrature nodes of the law."""
    weights: npt.NDArray[np.float64]
    """Their weights, which sum to 1."""
    products: npt.NDArray[np.float64]
    """mu_j.mu_a of the directions j whose overlaps are in the state, without the scale, shape (directions, clusters)."""
    shares: npt.NDArray[np.float64]
    """mu_a by the directions, shape (directions, clusters)."""
    labels: npt.NDArray[np.float64]
    """tau_a, shape (clusters,)."""
    units: int
    """K."""
    gain: float
    """Of the units, see `odeflow.order_parameters.committee.units`."""
    attack: Attack
    """What the adversary does."""
    rule: Any
    """Of the quadrature; its type says which."""


@once
def _rates(model, constants, y, dydt, work):
    """Set dydt at one state; nan where Q is not positive semidefinite."""
    K, S, C, gain = model.units, model.products.shape[0], model.labels.size, model.gain
    M, Q, c, theta, b = unpacked(y, K, S, gain, 1.0)
    eta_w, eta_theta = gain * gain * constants[ETA_W], gain * gain * constants[ETA_THETA]
    L = np.empty((K, K))
    if not factor(Q, L):
        dydt[:] = np.nan
        return
    dM, dQ, dc, dtheta = np.zeros((K, S)), np.zeros((K, K)), np.zeros(K), np.zeros(K)
    db = 0.0
    sums = np.empty(width(K, K))
    V, B, means, shifted = np.empty((K, K)), np.empty((K, K)), np.empty(K), np.empty(K)
    s_y, s_d, s_s, e_g, e, _ = layout(K, K)
    for a in range(C):
        p, v, tau = constants[FIRST + a], constants[FIRST + C + a], model.labels[a]
        if p == 0.0:
            continue
        for k in range(K):
            means[k] = 0.0
            for j in range(S):
                means[k] += M[k, j] * model.shares[j, a]
            shifted[k] = means[k] - theta[k]
        sums[:] = 0.0
        for node in range(model.nodes.size + 1):
            size, share = attack_at(model, constants, node)
            if share > 0.0:
                averages(shifted, v, L, Q, c, b, tau, size, model.attack, share, model.rule, work, sums)
        for k in range(K):
            row = V[k]
            for j in range(K):
                row[j] = math.sqrt(v) * sums[s_y + k * K + j]
            solve_right(L, row)
            for l in range(K):
                row[l] += sums[s_d + k * K + l]
        for k in range(K):
            for l in range(K):
                B[k, l] = sums[k] * means[l]
                for m in range(K):
                    B[k, l] += V[k, m] * Q[m, l]
            for j in range(S):
                change = sums[k] * constants[SCALE] * model.products[j, a]
                for l in range(K):
                    change += V[k, l] * M[l, j]
                dM[k, j] += p * eta_w * change
            dc[k] -= p * constants[ETA_C] * sums[e_g + k]
            dtheta[k] -= p * eta_theta * sums[k]
        for k in range(K):
            for l in range(K):
                noise = constants[SECOND_ORDER] * eta_w * eta_w * v * sums[s_s + k * K + l]
                dQ[k, l] += p * (eta_w * (B[k, l] + B[l, k]) + noise)
        db -= p * constants[ETA_B] * sums[e]
    set_rates(dM, dQ, dc, dtheta, db, gain, 1.0, dydt)


@kept
def evaluate(model, constants, states, out):
    """Set the rates of many states, see `odeflow.order_parameters.committee.batch.KERNELS`."""
    work = np.empty(scratch(model.units, model.rule))
    for i in range(len(states)):
        _rates(model, constants[i], states[i], out[i], work)


KERNELS[CommitteeModel] = evaluate
runge_kutta.FOLLOWERS.add(CommitteeModel)
