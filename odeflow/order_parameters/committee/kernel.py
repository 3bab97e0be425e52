r"""Right-hand side of the two-layer network's order parameters in the lanes of the solver, for one hidden unit.

With the averages of `odeflow.order_parameters.committee.averages`, :math:`V = \sqrt{v_a/Q}\,\langle s y\rangle + \langle s
d\rangle` and :math:`B = \langle s\rangle M_a + V Q` (section 5.2 of the theory, K = 1),

.. math::
    dM/d\alpha &= \eta_w \sum_a p_a [\langle s\rangle_a \mu_a\cdot\mu_+ + V_a M] \\
    dQ/d\alpha &= 2\eta_w \sum_a p_a B_a + \eta_w^2 \sum_a p_a v_a \langle s^2\rangle_a \\
    dc/d\alpha &= -\eta_c \sum_a p_a \langle\tilde e\,g(\tilde x)\rangle_a, \qquad
    d\theta/d\alpha = -\eta_\theta \sum_a p_a \langle s\rangle_a, \qquad
    db/d\alpha = -\eta_b \sum_a p_a \langle\tilde e\rangle_a .

Exact as N grows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba.extending import overload

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES
from odeflow.order_parameters.committee.averages import add_averages

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CONSTANTS", "PARAMETERS", "CommitteeModel"]

PARAMETERS = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "second_order", "fraction", "eta_c", "eta_theta")
"""Columns of `CommitteeModel.parameters`; the initial M, Q, c, theta and b follow."""

CONSTANTS = len(PARAMETERS)
_P, _RHO, _V1, _V2, _ETA_W, _ETA_B, _EPSILON, _SECOND_ORDER, _FRACTION, _ETA_C, _ETA_THETA = range(CONSTANTS)
_M, _Q, _C, _THETA, _B = range(5)


class CommitteeModel(NamedTuple):
    """A batch of trajectories that share a law of the perturbation, for `odeflow.numerics.runge_kutta.solve`."""

    parameters: npt.NDArray[np.float64]
    """One row a trajectory, float64, C-contiguous."""
    nodes: npt.NDArray[np.float64]
    """Factors of epsilon: quadrature nodes of the law."""
    weights: npt.NDArray[np.float64]
    """Their weights, which sum to 1."""


def _is_committee(system: Any) -> bool:
    return getattr(system, "instance_class", None) is CommitteeModel


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):
    if not _is_committee(system):
        return None

    def load(system, index, lane, constants, y):
        for k in range(CONSTANTS):
            constants[k * LANES + lane] = system.parameters[index, k]
        for i in range(5):
            y[i * LANES + lane] = system.parameters[index, CONSTANTS + i]

    return load


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):
    if not _is_committee(system):
        return None

    def derivative(system, constants, y, dydt):
        sums = np.zeros(6)
        for lane in range(LANES):
            M = y[_M * LANES + lane]
            Q = max(y[_Q * LANES + lane], 1e-300)
            c = y[_C * LANES + lane]
            theta = y[_THETA * LANES + lane]
            b = y[_B * LANES + lane]
            p = constants[_P * LANES + lane]
            rho = constants[_RHO * LANES + lane]
            eta_w = constants[_ETA_W * LANES + lane]
            epsilon = constants[_EPSILON * LANES + lane]
            attacked = constants[_FRACTION * LANES + lane]
            eta_w_squared = constants[_SECOND_ORDER * LANES + lane] * eta_w * eta_w
            dM, dQ, dc, dtheta, db = 0.0, 0.0, 0.0, 0.0, 0.0
            for label in range(2 if p > 0.0 else 0):  # an idle lane has p = 0
                tau = 1.0 - 2.0 * label
                share = p if label == 0 else 1.0 - p
                v = constants[(_V1 + label) * LANES + lane]
                sums[:] = 0.0
                for node in range(system.nodes.size):
                    size = epsilon * system.nodes[node]
                    add_averages(tau * M, v, Q, c, theta, b, tau, size, attacked * system.weights[node], sums)
                if attacked < 1.0:
                    add_averages(tau * M, v, Q, c, theta, b, tau, 0.0, 1.0 - attacked, sums)
                s, s_y, s_d, s_s, e_g, e = sums
                V = math.sqrt(v / Q) * s_y + s_d
                dM += share * eta_w * (s * tau * rho * rho / 4 + V * M)
                dQ += share * (2.0 * eta_w * (s * tau * M + V * Q) + eta_w_squared * v * s_s)
                dc -= share * constants[_ETA_C * LANES + lane] * e_g
                dtheta -= share * constants[_ETA_THETA * LANES + lane] * s
                db -= share * constants[_ETA_B * LANES + lane] * e
            dydt[_M * LANES + lane] = dM
            dydt[_Q * LANES + lane] = dQ
            dydt[_C * LANES + lane] = dc
            dydt[_THETA * LANES + lane] = dtheta
            dydt[_B * LANES + lane] = db

    return derivative
