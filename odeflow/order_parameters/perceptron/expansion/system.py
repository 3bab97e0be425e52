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
from odeflow.order_parameters.perceptron.expansion.moments import ERF_ROWS, erf_constants, erf_moments, moments
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
from odeflow.order_parameters.perceptron.variant_averages import CLOSED_ERF, UpdateFactor

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["CONSTANTS", "Expansion", "kind_of", "numbers_of", "variables_of"]

CONSTANTS = ALL_ROWS
_FRACTION = DERIVED.index("fraction")
_MODEL = len(DERIVED) + 1  # columns of the table that are constants


class Expansion(NamedTuple):
    """A batch of trajectories that share a rule and a law of the perturbation, for `odeflow.numerics.runge_kutta.solve`.

    Its subclasses have kernels of their own, so that who needs one compiles no more than that.
    """

    parameters: npt.NDArray[np.float64]
    """One row a trajectory, columns as in `TABLE`, float64, C-contiguous."""
    nodes: npt.NDArray[np.float64]
    """Factors of epsilon: quadrature nodes of the law."""
    weights: npt.NDArray[np.float64]
    """Their weights, which sum to 1."""
    how: UpdateFactor
    """How the averages are computed."""
    by: npt.NDArray[np.int64]
    """Parameters by which there are derivatives: their numbers in (*DERIVED, *STARTS)."""
    fluctuations: bool
    """Whether covariance and mean correction are wanted."""


class SeedExpansion(Expansion):
    """The seed's f = (1 - erf u) g'(u), with normalised weights."""


class NormalisedExpansion(Expansion):
    """Any f, with normalised weights."""


class FreeExpansion(Expansion):
    """Any f, with free weights."""


_KINDS = {
    SeedExpansion: (2, normalised, erf_moments),
    NormalisedExpansion: (2, normalised, moments),
    FreeExpansion: (3, free, moments),
}
"""Number of order parameters, equations and averages of each."""


def kind_of(how: UpdateFactor, is_normalised: bool) -> type[Expansion]:
    """Return the kind of expansion of a rule."""
    if not is_normalised:
        return FreeExpansion
    return SeedExpansion if how.family == CLOSED_ERF else NormalisedExpansion


def numbers_of(names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Return the numbers of parameters by name."""
    known = (*DERIVED, *STARTS)
    return np.array([known.index(name) for name in names], np.int64)


def variables_of(n: int, parameters: int, fluctuations: bool) -> int:
    """Return the number of rows of the state with n order parameters."""
    return n + n * parameters + (n * (n + 1) // 2 + n if fluctuations else 0)


@inlined
def _sensitivities(system, n, by_parameter, x, y, dydt):
    """Set dS/dalpha = J S + df/dp for each parameter."""
    for j in range(system.by.size):
        row = n + n * j
        by_parameter(x, y, system.by[j], dydt, row, LANES)
        for i in range(n):
            for k in range(n):
                J, S = (JACOBIAN + i * n + k) * LANES, (row + k) * LANES
                for lane in range(LANES):
                    dydt[(row + i) * LANES + lane] += x[J + lane] * y[S + lane]


@inlined
def _fluctuations(n, covariance, x, y, dydt):
    """Set dSigma/dalpha = J Sigma + Sigma J^T + G and that of the mean's correction."""
    at = 0
    for i in range(n):
        for j in range(i, n):
            row = (covariance + at) * LANES
            for lane in range(LANES):
                dydt[row + lane] = x[(DIFFUSION + at) * LANES + lane]
            for k in range(n):
                kj = (covariance + _upper(n, min(k, j), max(k, j))) * LANES
                ki = (covariance + _upper(n, min(k, i), max(k, i))) * LANES
                J_ik, J_jk = (JACOBIAN + i * n + k) * LANES, (JACOBIAN + j * n + k) * LANES
                for lane in range(LANES):
                    dydt[row + lane] += x[J_ik + lane] * y[kj + lane] + x[J_jk + lane] * y[ki + lane]
            at += 1
    mean = covariance + at
    for i in range(n):
        for lane in range(LANES):
            dydt[(mean + i) * LANES + lane] = x[(DRIFT + i) * LANES + lane]
        for k in range(n):
            J = (JACOBIAN + i * n + k) * LANES
            for lane in range(LANES):
                # a step of 1/N with the old rates, and not the curve: half of it times d^2/dalpha^2 = J f
                behind = y[(mean + k) * LANES + lane] - 0.5 * x[(RATE + k) * LANES + lane]
                dydt[(mean + i) * LANES + lane] += x[J + lane] * behind


@inlined
def _upper(n, i, j):
    """Return the row of an entry i <= j of the upper triangle of an n x n matrix."""
    return i * n - i * (i - 1) // 2 + j - i


def _kind(system: Any) -> type[Expansion] | None:
    kind = getattr(system, "instance_class", None)
    return kind if kind in _KINDS else None


runge_kutta.FOLLOWERS.update(_KINDS)


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):
    kind = _kind(system)
    if kind is None:
        return None
    n, is_seed = _KINDS[kind][0], kind is SeedExpansion

    def load(system, index, lane, constants, y):
        table = system.parameters[index]
        for k in range(_MODEL):
            constants[(PARAMETERS + k) * LANES + lane] = table[k]
        if is_seed:
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


@overload(runge_kutta.follow)
def _follow(system, changes, values, constants):
    if _kind(system) is None:
        return None

    def follow(system, changes, values, constants):
        for i, row in enumerate((EPSILON, ETA_W, ETA_B)):
            if changes[i]:
                for lane in range(LANES):
                    constants[row * LANES + lane] = values[i * LANES + lane]

    return follow


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):
    kind = _kind(system)
    if kind is None:
        return None
    n, equations, averages = _KINDS[kind]
    sums, rates, by_parameter = equations.sums, equations.rates, equations.by_parameter

    def derivative(system, constants, y, dydt):
        covariance = n + n * system.by.size
        by_fraction = False
        for j in range(system.by.size):
            by_fraction = by_fraction or system.by[j] == _FRACTION
        sums(
            averages,
            system.how,
            system.nodes,
            system.weights,
            by_fraction,
            constants,
            y,
            covariance,
            system.fluctuations,
            LANES,
        )
        rates(constants, y, covariance, system.fluctuations, LANES)
        for at in range(n * LANES):
            dydt[at] = constants[RATE * LANES + at]
        _sensitivities(system, n, by_parameter, constants, y, dydt)
        if system.fluctuations:
            _fluctuations(n, covariance, constants, y, dydt)

    return derivative
