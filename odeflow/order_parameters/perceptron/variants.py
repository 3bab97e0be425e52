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
from odeflow.numerics.compilation import LANES
from odeflow.order_parameters.perceptron.variant_averages import UpdateFactor, lane_averages

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["CONSTANTS", "PARAMETERS", "VariantModel"]

PARAMETERS = (
    "p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "second_order", "fraction", "R0", "b0", "Q0",
)  # fmt: skip
"""Columns of `VariantModel.parameters`."""

_SCRATCH = 9  # rows of constants before the space for averages
_SUMS = _SCRATCH + 9
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


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):
    if not _is_variant_model(system):
        return None

    def load(system, index, lane, constants, y):
        p, rho, v1, v2, eta_w, eta_b, epsilon, second_order, fraction, R0, b0, Q0 = system.parameters[index]
        constants[0 * LANES + lane] = rho / 2
        constants[1 * LANES + lane] = epsilon
        constants[2 * LANES + lane] = fraction
        constants[3 * LANES + lane] = eta_w
        constants[4 * LANES + lane] = second_order * eta_w**2
        constants[5 * LANES + lane] = eta_b
        constants[6 * LANES + lane] = p
        constants[7 * LANES + lane] = v1
        constants[8 * LANES + lane] = v2
        y[lane] = R0
        y[LANES + lane] = b0
        if not system.normalised:
            y[2 * LANES + lane] = Q0

    return load


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):
    if not _is_variant_model(system):
        return None

    def derivative(system, constants, y, dydt):
        scratch = constants[_SCRATCH * LANES : _SUMS * LANES].reshape(9, LANES)
        m, v, D1, D2, slope, work = scratch[0], scratch[1], scratch[2], scratch[3], scratch[4], scratch[5:]
        sums = constants[_SUMS * LANES : (_SUMS + 4) * LANES].reshape(4, LANES)
        along_B, along_w, squares, pull = sums[0], sums[1], sums[2], sums[3]
        sums[:] = 0.0
        # the nodes of the law, and last the examples that are not attacked
        for node in range(system.nodes.size + 1):
            clean = node == system.nodes.size
            for label in range(2):
                tau = 1.0 - 2.0 * label
                for lane in range(LANES):
                    Q = 1.0 if system.normalised else max(y[2 * LANES + lane], 1e-300)
                    epsilon = 0.0 if clean else constants[LANES + lane] * system.nodes[node]
                    m[lane] = constants[lane] * y[lane] - epsilon * math.sqrt(Q) - tau * y[LANES + lane]
                    v[lane] = constants[(7 + label) * LANES + lane] * Q
                lane_averages(system.how, m, v, D1, D2, slope, work)
                for lane in range(LANES):
                    R = y[lane]
                    Q = 1.0 if system.normalised else max(y[2 * LANES + lane], 1e-300)
                    half_rho = constants[lane]
                    epsilon = 0.0 if clean else constants[LANES + lane] * system.nodes[node]
                    attacked = constants[2 * LANES + lane]
                    share = 1.0 - attacked if clean else attacked * system.weights[node]
                    prior = constants[6 * LANES + lane]
                    share *= prior if label == 0 else 1.0 - prior
                    variance = constants[(7 + label) * LANES + lane]
                    root = math.sqrt(Q)
                    along_B[lane] += share * ((half_rho - epsilon * R / root) * D1[lane] + variance * R * slope[lane])
                    along_w[lane] += share * ((half_rho * R - epsilon * root) * D1[lane] + variance * Q * slope[lane])
                    squares[lane] += share * variance * D2[lane]
                    pull[lane] += share * tau * D1[lane]
        for lane in range(LANES):
            R = y[lane]
            eta_w = constants[3 * LANES + lane]
            eta_w_squared = constants[4 * LANES + lane]
            if system.normalised:
                dydt[lane] = eta_w * (along_B[lane] - R * along_w[lane]) - 0.5 * eta_w_squared * R * squares[lane]
            else:
                dydt[lane] = eta_w * along_B[lane]
                dydt[2 * LANES + lane] = 2.0 * eta_w * along_w[lane] + eta_w_squared * squares[lane]
            dydt[LANES + lane] = -constants[5 * LANES + lane] * pull[lane]

    return derivative
