"""Batches of trajectories of two-layer networks for the solver: what the kernels of clusters and of a teacher share."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba.extending import overload

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES, called, inlined

__all__ = ["KERNELS", "PARAMETERS", "attack_at", "factor", "set_rates", "solve_right", "unpacked"]

PARAMETERS = ("eta_w", "eta_b", "eta_c", "eta_theta", "epsilon", "fraction", "second_order")
"""First columns of a model's parameters; the squared scale of the centres, what the data add and the state follow."""

ETA_W, ETA_B, ETA_C, ETA_THETA, EPSILON, FRACTION, SECOND_ORDER = range(len(PARAMETERS))
SCALE = len(PARAMETERS)
FIRST = SCALE + 1
"""Where p_a of the clusters begin; v_a follow."""

KERNELS: dict[type, Any] = {}
"""Kind of model to its compiled ``evaluate(model, constants, states, out)``.

That sets ``out[i]`` to the rates at ``states[i]`` with the constants ``constants[i]``; nan where no weights have its overlaps. A model is a NamedTuple with `parameters`, a row a trajectory: its constants, then its
initial state. The solver calls the same function as Python does, so that what is below it is compiled once.
"""


@called
def factor(C, L):
    """Set L L^T = C, lower triangular, and return whether C is positive semidefinite up to rounding.

    A field whose variance given those before it is below 1e-9 of its own, as of units that have become one, gets that
    variance, and those after it do not depend on what it adds.
    """
    n = C.shape[0]
    good = True
    for j in range(n):
        pivot = C[j, j]
        for k in range(j):
            pivot -= L[j, k] * L[j, k]
            L[k, j] = 0.0
        least = 1e-9 * abs(C[j, j]) + 1e-300
        good = good and C[j, j] > 0.0 and pivot > -1e-6 * C[j, j]
        L[j, j] = math.sqrt(max(pivot, least))
        for i in range(j + 1, n):
            rest = C[i, j]
            for k in range(j):
                rest -= L[i, k] * L[j, k]
            L[i, j] = rest / L[j, j] if pivot > least else 0.0
    return good


@inlined
def solve_right(L, row):
    """Set row to row L^-1."""
    for l in range(row.size - 1, -1, -1):
        rest = row[l]
        for j in range(l + 1, row.size):
            rest -= row[j] * L[j, l]
        row[l] = rest / L[l, l]


@inlined
def unpacked(y, K, S, gain, other_gain):
    """Return the overlaps with S directions, Q, c, theta and b of a state, in the kernels' units."""
    first, second = K * S, K * (S + K)
    return (
        gain * other_gain * y[:first].reshape(K, S),
        gain * gain * y[first:second].reshape(K, K),
        y[second : second + K],
        gain * y[second + K : second + 2 * K],
        y[second + 2 * K],
    )


@inlined
def attack_at(model, constants, node):
    """Return the size of the attack at a node of the law, and the share of the examples; at one more those not attacked."""
    if node == model.nodes.size:
        return 0.0, 1.0 - constants[FRACTION]
    return constants[EPSILON] * model.nodes[node], constants[FRACTION] * model.weights[node]


@inlined
def set_rates(dM, dQ, dc, dtheta, db, gain, other_gain, dydt):
    """Set dydt to the rates, given in the kernels' units."""
    K, S = dM.shape
    at = 0
    for k in range(K):
        for j in range(S):
            dydt[at] = dM[k, j] / (gain * other_gain)
            at += 1
    for k in range(K):
        for l in range(K):
            dydt[at] = dQ[k, l] / (gain * gain)
            at += 1
    for k in range(K):
        dydt[at + k] = dc[k]
        dydt[at + K + k] = dtheta[k] / gain
    dydt[at + 2 * K] = db


def _kernel(model: Any) -> Any:
    return KERNELS.get(getattr(model, "instance_class", None))  # type: ignore[arg-type]


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):
    if _kernel(system) is None:
        return None

    def load(system, index, lane, constants, y):
        row = system.parameters[index]
        kept = constants.size // LANES
        for k in range(kept):
            constants[k * LANES + lane] = row[k]
        for i in range(row.size - kept):
            y[i * LANES + lane] = row[kept + i]

    return load


@overload(runge_kutta.follow)
def _follow(system, changes, values, constants):
    if _kernel(system) is None:
        return None

    def follow(system, changes, values, constants):
        for i, row in enumerate((EPSILON, ETA_W, ETA_B)):
            if changes[i]:
                for lane in range(LANES):
                    constants[row * LANES + lane] = values[i * LANES + lane]

    return follow


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):
    kernel = _kernel(system)
    if kernel is None:
        return None

    def derivative(system, constants, y, dydt):
        kept, n = constants.size // LANES, y.size // LANES
        numbers, states, rates = np.empty((LANES, kept)), np.empty((LANES, n)), np.empty((LANES, n))
        lanes, count = np.empty(LANES, np.int64), 0
        for lane in range(LANES):
            idle = True
            for k in range(kept):
                idle = idle and constants[k * LANES + lane] == 0.0
            if idle:
                for i in range(n):
                    dydt[i * LANES + lane] = 0.0
                continue
            for k in range(kept):
                numbers[count, k] = constants[k * LANES + lane]
            for i in range(n):
                states[count, i] = y[i * LANES + lane]
            lanes[count] = lane
            count += 1
        kernel(system, numbers[:count], states[:count], rates[:count])
        for row in range(count):
            for i in range(n):
                dydt[i * LANES + lanes[row]] = rates[row, i]

    return derivative
