r"""Right-hand side for all variants of the rule and the adversary, including weights that are not normalised.

With :math:`Q = |w|^2`, :math:`u = \tau\tilde x \sim N(m_\tau, v_\tau Q)`, :math:`m_\tau = \rho R/2 - \varepsilon\sqrt Q
- \tau b`, and averages :math:`D_1, D_2, D_1'` of `odeflow.order_parameters.perceptron.variant_averages` that are also averaged over the law of
:math:`\varepsilon` (clean examples have :math:`\varepsilon = 0`), Stein's lemma gives

.. math::
    \langle \delta\,\tilde\xi\cdot B\rangle &= \sum_\tau p_\tau [(\rho/2 - \varepsilon R/\sqrt Q) D_1 + v_\tau R D_1'] \\
    \langle \delta\,\tilde\xi\cdot w\rangle &= \sum_\tau p_\tau [(\rho R/2 - \varepsilon\sqrt Q) D_1 + v_\tau Q D_1'] \\
    \langle \delta^2 v\rangle &= \sum_\tau p_\tau v_\tau D_2

and with these

.. math::
    dR/d\alpha = \eta_w \langle\delta\,\tilde\xi\cdot B\rangle, \qquad
    dQ/d\alpha = 2\eta_w \langle\delta\,\tilde\xi\cdot w\rangle + \eta_w^2 \langle\delta^2 v\rangle, \qquad
    db/d\alpha = -\eta_b \langle\delta\rangle

or, for normalised weights (Q = 1), :math:`dR/d\alpha = \eta_w(\langle\delta\,\tilde\xi\cdot B\rangle -
R\langle\delta\,\tilde\xi\cdot w\rangle) - (\eta_w^2/2) R \langle\delta^2 v\rangle`. Exact as N grows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from numba.extending import overload

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES, inlined
from odeflow.order_parameters.perceptron.variant_averages import UpdateFactor, lane_averages

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CONSTANTS", "PARAMETERS", "VariantModel"]

PARAMETERS = (
    "p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "second_order", "fraction", "R0", "b0", "Q0",
)  # fmt: skip
"""Columns of `VariantModel.parameters`."""

_R, _B, _Q = range(3)  # rows of the state; without _Q for normalised weights

# rows of constants: the parameters; the scratch space and the sums over classes and nodes, with rows of their own
_HALF_RHO, _EPSILON, _FRACTION, _ETA_W, _ETA_W_SQUARED, _ETA_B, _P, _V1, _V2, _SECOND_ORDER, _SCRATCH = range(11)
_MEAN, _VARIANCE, _D1, _D2, _SLOPE, _WORK = range(6)  # of the scratch space
_SUMS = _SCRATCH + _WORK + 4
_ALONG_B, _ALONG_W, _SQUARES, _PULL = range(4)  # of the sums
CONSTANTS = _SUMS + 4


class VariantModel(NamedTuple):
    """A batch of trajectories that share a rule and a law of the perturbation, for `odeflow.numerics.runge_kutta.solve`."""

    parameters: npt.NDArray[np.float64]
    """One row a trajectory, columns as in `PARAMETERS`, float64, C-contiguous."""
    nodes: npt.NDArray[np.float64]
    """Factors of epsilon: quadrature nodes of the law."""
    weights: npt.NDArray[np.float64]
    """Their weights, which sum to 1."""
    how: UpdateFactor
    """How the averages are computed."""
    normalised: bool
    """Variables R, b if True, else R, b, Q."""


def _is_variant_model(system: Any) -> bool:
    return getattr(system, "instance_class", None) is VariantModel


@inlined
def _set_eta_w(eta_w, lane, constants):
    constants[_ETA_W * LANES + lane] = eta_w
    constants[_ETA_W_SQUARED * LANES + lane] = constants[_SECOND_ORDER * LANES + lane] * (eta_w * eta_w)


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):
    if not _is_variant_model(system):
        return None

    def load(system, index, lane, constants, y):
        p, rho, v1, v2, eta_w, eta_b, epsilon, second_order, fraction, R0, b0, Q0 = system.parameters[index]
        constants[_HALF_RHO * LANES + lane] = rho / 2
        constants[_FRACTION * LANES + lane] = fraction
        constants[_SECOND_ORDER * LANES + lane] = second_order
        constants[_EPSILON * LANES + lane] = epsilon
        _set_eta_w(eta_w, lane, constants)
        constants[_ETA_B * LANES + lane] = eta_b
        constants[_P * LANES + lane] = p
        constants[_V1 * LANES + lane] = v1
        constants[_V2 * LANES + lane] = v2
        y[_R * LANES + lane] = R0
        y[_B * LANES + lane] = b0
        if not system.normalised:
            y[_Q * LANES + lane] = Q0

    return load


runge_kutta.FOLLOWERS.add(VariantModel)


@overload(runge_kutta.follow)
def _follow(system, changes, values, constants):
    if not _is_variant_model(system):
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
    if not _is_variant_model(system):
        return None

    def derivative(system, constants, y, dydt):
        scratch = constants[_SCRATCH * LANES : _SUMS * LANES].reshape(_SUMS - _SCRATCH, LANES)
        m, v, D1, D2, slope = scratch[_MEAN], scratch[_VARIANCE], scratch[_D1], scratch[_D2], scratch[_SLOPE]
        work = scratch[_WORK:]
        sums = constants[_SUMS * LANES : CONSTANTS * LANES].reshape(CONSTANTS - _SUMS, LANES)
        along_B, along_w, squares, pull = sums[_ALONG_B], sums[_ALONG_W], sums[_SQUARES], sums[_PULL]
        sums[:] = 0.0
        # the nodes of the law, and last the examples that are not attacked
        for node in range(system.nodes.size + 1):
            clean = node == system.nodes.size
            for label in range(2):
                tau = 1.0 - 2.0 * label
                for lane in range(LANES):
                    Q = 1.0 if system.normalised else max(y[_Q * LANES + lane], 1e-300)
                    epsilon = 0.0 if clean else constants[_EPSILON * LANES + lane] * system.nodes[node]
                    half_rho, R, b = constants[_HALF_RHO * LANES + lane], y[_R * LANES + lane], y[_B * LANES + lane]
                    m[lane] = half_rho * R - epsilon * math.sqrt(Q) - tau * b
                    v[lane] = constants[(_V1 + label) * LANES + lane] * Q
                lane_averages(system.how, m, v, D1, D2, slope, work)
                for lane in range(LANES):
                    R = y[_R * LANES + lane]
                    Q = 1.0 if system.normalised else max(y[_Q * LANES + lane], 1e-300)
                    half_rho = constants[_HALF_RHO * LANES + lane]
                    epsilon = 0.0 if clean else constants[_EPSILON * LANES + lane] * system.nodes[node]
                    attacked = constants[_FRACTION * LANES + lane]
                    share = 1.0 - attacked if clean else attacked * system.weights[node]
                    prior = constants[_P * LANES + lane]
                    share *= prior if label == 0 else 1.0 - prior
                    variance = constants[(_V1 + label) * LANES + lane]
                    root = math.sqrt(Q)
                    along_B[lane] += share * ((half_rho - epsilon * R / root) * D1[lane] + variance * R * slope[lane])
                    along_w[lane] += share * ((half_rho * R - epsilon * root) * D1[lane] + variance * Q * slope[lane])
                    squares[lane] += share * variance * D2[lane]
                    pull[lane] += share * tau * D1[lane]
        for lane in range(LANES):
            R = y[_R * LANES + lane]
            eta_w = constants[_ETA_W * LANES + lane]
            eta_w_squared = constants[_ETA_W_SQUARED * LANES + lane]
            if system.normalised:
                along = along_B[lane] - R * along_w[lane]
                dydt[_R * LANES + lane] = eta_w * along - 0.5 * eta_w_squared * R * squares[lane]
            else:
                dydt[_R * LANES + lane] = eta_w * along_B[lane]
                dydt[_Q * LANES + lane] = 2.0 * eta_w * along_w[lane] + eta_w_squared * squares[lane]
            dydt[_B * LANES + lane] = -constants[_ETA_B * LANES + lane] * pull[lane]

    return derivative
