r"""The expanded system: order parameters, what they change by parameters, and how they fluctuate at finite N, for the solver.

The state has rows for the order parameters; for each parameter, their derivatives by it; and if the fluctuations are wanted, the
upper triangle of N times their covariance, row by row, and N times the correction of their mean:

.. math:: \dot S = J S + \partial f/\partial p, \qquad \dot\Sigma = J\Sigma + \Sigma J^T + G, \qquad
   \dot m_1 = J m_1 + g + \tfrac12 H{:}\Sigma - \tfrac12 J f .
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba.extending import overload

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES, inlined
from odeflow.order_parameters.perceptron.expansion import free, normalised
from odeflow.order_parameters.perceptron.expansion.moments import ERF_ROWS, erf_constants
from odeflow.order_parameters.perceptron.expansion.rows import (
    ALL_ROWS,
    DERIVED,
    DIFFUSION,
    DRIFT,
    EPSILON,
    ERF,
    ETA_B,
    ETA_W,
    JACOBIAN,
    PARAMETERS,
    RATE,
    STARTS,
    V1,
)
from odeflow.order_parameters.perceptron.variant_averages import UpdateFactor

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CONSTANTS", "ExpandedModel", "expanded_derivative", "numbers_of", "variables_of"]

CONSTANTS = ALL_ROWS
_MODEL = len(DERIVED) + 1  # columns of the table that are constants


class ExpandedModel(NamedTuple):
    """A batch of trajectories that share a rule and a law of the perturbation, for `odeflow.numerics.runge_kutta.solve`."""

    parameters: npt.NDArray[np.float64]
    """One row a trajectory, columns as in `TABLE`, float64, C-contiguous."""
    nodes: npt.NDArray[np.float64]
    """Factors of epsilon: quadrature nodes of the law."""
    weights: npt.NDArray[np.float64]
    """Their weights, which sum to 1."""
    how: UpdateFactor
    """How the averages are computed."""
    normalised: bool
    """Order parameters R, b if True, else R, b, Q."""
    by: npt.NDArray[np.int64]
    """Parameters by which there are derivatives: their numbers in (*DERIVED, *STARTS)."""
    fluctuations: bool
    """Whether covariance and mean correction are wanted."""


def numbers_of(names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return the numbers of parameters by name."""
    known = (*DERIVED, *STARTS)
    return np.array([known.index(name) for name in names], np.int64)


def variables_of(n: int, parameters: int, fluctuations: bool) -> int:
    """Return the number of rows of the state with n order parameters."""
    return n + n * parameters + (n * (n + 1) // 2 + n if fluctuations else 0)


@inlined
def linearised(how, nodes, weights, is_normalised, x, y, covariance, fluctuations, lanes):
    """Set the rows of rates, Jacobian and, if wanted, diffusion and drift, and the sums that `by_parameter` reads."""
    if is_normalised:
        normalised.sums(how, nodes, weights, x, y, fluctuations, lanes)
        normalised.rates(x, y, covariance, fluctuations, lanes)
    else:
        free.sums(how, nodes, weights, x, y, covariance, fluctuations, lanes)
        free.rates(x, y, covariance, fluctuations, lanes)


@inlined
def expanded_derivative(system, x, y, dydt, lanes):
    """Set dydt of the whole state."""
    n = 2 if system.normalised else 3
    covariance = n + n * system.by.size
    mean = covariance + n * (n + 1) // 2
    linearised(
        system.how, system.nodes, system.weights, system.normalised, x, y, covariance, system.fluctuations, lanes
    )
    for at in range(n * lanes):
        dydt[at] = x[RATE * lanes + at]
    for j in range(system.by.size):
        row = n + n * j
        if system.normalised:
            normalised.by_parameter(x, y, system.by[j], dydt, row, lanes)
        else:
            free.by_parameter(x, y, system.by[j], dydt, row, lanes)
        for i in range(n):
            for k in range(n):
                for lane in range(lanes):
                    dydt[(row + i) * lanes + lane] += (
                        x[(JACOBIAN + i * n + k) * lanes + lane] * y[(row + k) * lanes + lane]
                    )
    if system.fluctuations:
        at = 0
        for i in range(n):
            for j in range(i, n):
                row = covariance + at
                for lane in range(lanes):
                    dydt[row * lanes + lane] = x[(DIFFUSION + at) * lanes + lane]
                for k in range(n):
                    kj = covariance + _upper(n, min(k, j), max(k, j))
                    ki = covariance + _upper(n, min(k, i), max(k, i))
                    for lane in range(lanes):
                        dydt[row * lanes + lane] += (
                            x[(JACOBIAN + i * n + k) * lanes + lane] * y[kj * lanes + lane]
                            + x[(JACOBIAN + j * n + k) * lanes + lane] * y[ki * lanes + lane]
                        )
                at += 1
        for i in range(n):
            for lane in range(lanes):
                dydt[(mean + i) * lanes + lane] = x[(DRIFT + i) * lanes + lane]
            for k in range(n):
                for lane in range(lanes):
                    # a step of 1/N with the old rates, and not the curve: half of it times d^2/dalpha^2 = J f
                    behind = y[(mean + k) * lanes + lane] - 0.5 * x[(RATE + k) * lanes + lane]
                    dydt[(mean + i) * lanes + lane] += x[(JACOBIAN + i * n + k) * lanes + lane] * behind


@inlined
def _upper(n, i, j):
    """Return the row of an entry i <= j of the upper triangle of an n x n matrix."""
    return i * n - i * (i - 1) // 2 + j - i


def _is_expanded(system: Any) -> bool:
    return getattr(system, "instance_class", None) is ExpandedModel


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):
    if not _is_expanded(system):
        return None

    def load(system, index, lane, constants, y):
        n = 2 if system.normalised else 3
        table = system.parameters[index]
        for k in range(_MODEL):
            constants[(PARAMETERS + k) * LANES + lane] = table[k]
        if system.normalised:
            for label in range(2):
                erf_constants(constants, V1 + label, ERF + label * ERF_ROWS, lane, lane + 1, LANES)
        rows = n + n * system.by.size
        if system.fluctuations:
            rows += n * (n + 1) // 2 + n
        for row in range(rows):
            y[row * LANES + lane] = 0.0
        for i in range(n):
            y[i * LANES + lane] = table[_MODEL + i]
            if system.fluctuations:
                y[(rows - n + i) * LANES + lane] = table[_MODEL + 3 + i]
        for j in range(system.by.size):
            i = system.by[j] - (_MODEL - 1)
            if i >= 0:  # an initial value
                y[(n + n * j + i) * LANES + lane] = 1.0

    return load


runge_kutta.FOLLOWERS.add(ExpandedModel)


@overload(runge_kutta.follow)
def _follow(system, lane, epsilon, eta_w, eta_b, constants):
    if not _is_expanded(system):
        return None

    def follow(system, lane, epsilon, eta_w, eta_b, constants):
        constants[EPSILON * LANES + lane] = epsilon
        constants[ETA_W * LANES + lane] = eta_w
        constants[ETA_B * LANES + lane] = eta_b

    return follow


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):
    if not _is_expanded(system):
        return None

    def derivative(system, constants, y, dydt):
        expanded_derivative(system, constants, y, dydt, LANES)

    return derivative
