"""Batches of trajectories of two-layer networks for the solver: what the kernels of clusters and of a teacher share."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numba.extending import overload

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES, inlined, sources_digest

__all__ = ["KERNELS", "PARAMETERS", "Kernel", "constants", "evaluate", "factor", "solve_right"]

PARAMETERS = ("eta_w", "eta_b", "eta_c", "eta_theta", "epsilon", "fraction", "second_order")
"""First columns of a model's parameters; the squared scale of the centres, what the data add and the state follow."""

ETA_W, ETA_B, ETA_C, ETA_THETA, EPSILON, FRACTION, SECOND_ORDER = range(len(PARAMETERS))
SCALE = len(PARAMETERS)
FIRST = SCALE + 1
"""Where p_a of the clusters begin; v_a follow."""


class Kernel(NamedTuple):
    """What a kind of model adds."""

    rates: Any
    """``rates(model, constants, y, dydt, work)``, compiled: set dydt at one state."""
    scratch: Any
    """``scratch(model)``, compiled: the size of work."""


KERNELS: dict[type, Kernel] = {}
"""Kind of model to its kernel. A model is a NamedTuple with `parameters`, a row a trajectory, and `labels` of the clusters."""


def constants(model: Any) -> int:
    """Return the constants that the kernel keeps for a lane."""
    return int(FIRST + 2 * len(model.labels))


@njit(nogil=True, error_model="numpy")
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


def _kernel(model: Any) -> Any:
    return KERNELS.get(getattr(model, "instance_class", None))  # type: ignore[arg-type]


def _rates(model, constants, y, dydt, work):
    raise NotImplementedError


@overload(_rates)
def _rates_of_kind(model, constants, y, dydt, work):
    rates = _kernel(model).rates
    return lambda model, constants, y, dydt, work: rates(model, constants, y, dydt, work)


def _scratch(model):
    raise NotImplementedError


@overload(_scratch)
def _scratch_of_kind(model):
    scratch = _kernel(model).scratch
    return lambda model: scratch(model)


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


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):
    if _kernel(system) is None:
        return None

    def derivative(system, constants, y, dydt):
        kept, n = constants.size // LANES, y.size // LANES
        one, state, rate = np.empty(kept), np.empty(n), np.zeros(n)
        work = np.empty(_scratch(system))
        for lane in range(LANES):
            for k in range(kept):
                one[k] = constants[k * LANES + lane]
            if one[ETA_W] == 0.0:  # an idle lane
                for i in range(n):
                    dydt[i * LANES + lane] = 0.0
                continue
            for i in range(n):
                state[i] = y[i * LANES + lane]
            _rates(system, one, state, rate, work)
            for i in range(n):
                dydt[i * LANES + lane] = rate[i]

    return derivative


def _compile(sources: str) -> Any:
    """Return the compiled function. `sources` stands in its closure to make it part of the key of numba's cache."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def evaluate(model, rows, first, last, states, out):
        sources  # noqa: B018
        work = np.empty(_scratch(model))
        kept = model.parameters.shape[1] - states.shape[1]
        for i in range(first, last):
            _rates(model, model.parameters[rows[i], :kept], states[i], out[i], work)

    return evaluate


evaluate = _compile(sources_digest())
"""Set ``out[i]`` to the rates at ``states[i]`` with the parameters of row ``rows[i]``, from the first to before the last."""
