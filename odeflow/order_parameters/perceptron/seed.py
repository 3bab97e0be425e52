r"""Right-hand side of the seed model in the lanes of the solver; `rates`, the plain formula, is in the reference.

Isotropic mixture, normalised classifier, erf output, squared loss. Exact as N grows.

.. math::
    \frac{dR}{d\alpha} &= \eta_w \frac\rho2 (1-R^2) \sum_\tau p_\tau \tau \langle\delta\rangle_\tau
        - \frac{\eta_w^2}{2} R \sum_\tau p_\tau v_\tau \langle\delta^2\rangle_\tau \\
    \frac{db}{d\alpha} &= -\eta_b \sum_\tau p_\tau \langle\delta\rangle_\tau,
    \qquad m_\tau = \tau(\rho R/2 - \varepsilon) - b
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from numba.extending import overload

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES, inlined
from odeflow.order_parameters.perceptron.lane_averages import CLASS_ROWS, lane_averages, lane_constants
from odeflow.order_parameters.perceptron.reference import rates

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CONSTANTS", "PARAMETERS", "SeedModel", "rates"]


PARAMETERS = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "second_order", "R0", "b0")
"""Columns of `SeedModel.parameters`."""

_R, _B = range(2)  # rows of the state

_PLUS, _MINUS, _SHARED = 0, CLASS_ROWS, 2 * CLASS_ROWS  # where the constants of the class +1, of -1 and of both begin
CONSTANTS = _SHARED + 10
(
    _HALF_RHO, _EPSILON, _ETA_W_HALF_RHO, _HALF_ETA_W_SQUARED, _ETA_B, _P_PLUS, _P_MINUS, _P_V1, _P_V2, _HALF_SECOND_ORDER,
) = range(_SHARED, CONSTANTS)  # fmt: skip


class SeedModel(NamedTuple):
    """A batch of trajectories of the seed model, for `odeflow.numerics.runge_kutta.solve`."""

    parameters: npt.NDArray[np.float64]
    """One row a trajectory, columns as in `PARAMETERS`, float64, C-contiguous."""


def _is_seed_model(system: Any) -> bool:
    return getattr(system, "instance_class", None) is SeedModel


@inlined
def _set_eta_w(eta_w, lane, constants):
    constants[_ETA_W_HALF_RHO * LANES + lane] = eta_w * constants[_HALF_RHO * LANES + lane]
    constants[_HALF_ETA_W_SQUARED * LANES + lane] = constants[_HALF_SECOND_ORDER * LANES + lane] * (eta_w * eta_w)


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):
    if not _is_seed_model(system):
        return None

    def load(system, index, lane, constants, y):
        p, rho, v1, v2, eta_w, eta_b, epsilon, second_order, R0, b0 = system.parameters[index]
        lane_constants(v1, constants, _PLUS, lane)
        lane_constants(v2, constants, _MINUS, lane)
        constants[_HALF_RHO * LANES + lane] = rho / 2
        constants[_HALF_SECOND_ORDER * LANES + lane] = second_order / 2
        constants[_EPSILON * LANES + lane] = epsilon
        _set_eta_w(eta_w, lane, constants)
        constants[_ETA_B * LANES + lane] = eta_b
        constants[_P_PLUS * LANES + lane] = p
        constants[_P_MINUS * LANES + lane] = 1 - p
        constants[_P_V1 * LANES + lane] = p * v1
        constants[_P_V2 * LANES + lane] = (1 - p) * v2
        y[_R * LANES + lane] = R0
        y[_B * LANES + lane] = b0

    return load


runge_kutta.FOLLOWERS.add(SeedModel)


@overload(runge_kutta.follow)
def _follow(system, changes, values, constants):
    if not _is_seed_model(system):
        return None

    def follow(system, changes, values, constants):
        if changes[0]:
            for lane in range(LANES):
                constants[_EPSILON * LANES + lane] = values[lane]
        if changes[1]:
            for lane in range(LANES):
                _set_eta_w(values[LANES + lane], lane, constants)
        if changes[2]:
            for lane in range(LANES):
                constants[_ETA_B * LANES + lane] = values[2 * LANES + lane]

    return follow


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):
    if not _is_seed_model(system):
        return None

    def derivative(system, constants, y, dydt):
        for lane in range(LANES):
            R = y[_R * LANES + lane]
            b = y[_B * LANES + lane]
            half_rho = constants[_HALF_RHO * LANES + lane]
            epsilon = constants[_EPSILON * LANES + lane]
            eta_w_half_rho = constants[_ETA_W_HALF_RHO * LANES + lane]
            half_eta_w_squared = constants[_HALF_ETA_W_SQUARED * LANES + lane]
            eta_b = constants[_ETA_B * LANES + lane]
            p_plus = constants[_P_PLUS * LANES + lane]
            p_minus = constants[_P_MINUS * LANES + lane]
            p_v1 = constants[_P_V1 * LANES + lane]
            p_v2 = constants[_P_V2 * LANES + lane]
            margin = half_rho * R - epsilon
            plus, plus_squared = lane_averages(margin - b, constants, _PLUS, lane)
            minus, minus_squared = lane_averages(margin + b, constants, _MINUS, lane)
            plus = p_plus * plus
            minus = p_minus * minus
            squares = p_v1 * plus_squared + p_v2 * minus_squared
            dydt[_R * LANES + lane] = eta_w_half_rho * (1.0 - R * R) * (plus + minus) - half_eta_w_squared * R * squares
            dydt[_B * LANES + lane] = -eta_b * (plus - minus)

    return derivative
