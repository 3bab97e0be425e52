r"""How fixed points move with a parameter, by the implicit function theorem.

At a fixed point :math:`f(y, \theta) = 0`, so that :math:`dy/d\theta = -J^{-1}\,\partial f/\partial\theta`. The derivatives by
the parameter are differences of order 4 of the network's exact rates (error about 1e-11 of the rates' scale).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from odeflow.model import Adversary, Data, LearningRule, numeric_parameters
from odeflow.order_parameters import Network
from odeflow.order_parameters.base import Array, flat, unflat
from odeflow.parameters import checked_names as one_of
from odeflow.parameters import parameter_of

__all__ = ["checked_names", "derivatives"]

_STEP = 1e-3
_CENTRAL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}
_FORWARD = {0: -25 / 12, 1: 48 / 12, 2: -36 / 12, 3: 16 / 12, 4: -3 / 12}


def checked_names(
    names: str | Sequence[str], mixture: Data, rule: LearningRule, adversary: Adversary
) -> tuple[str, ...]:
    """Return parameters by name, or raise a ValueError if one is no number of these parts, or is named twice."""
    return one_of("sensitivities", names, numeric_parameters(mixture, rule, adversary))


def derivatives(
    network: Network,
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    states: Array,
    names: Sequence[str],
    test_epsilon: float | None,
) -> dict[str, Array]:
    """Return the derivatives of each order parameter and measure, shape (fixed points, parameters), by ``NAME_derivative``.

    Where the Jacobian is singular, as at a bifurcation, there are none: nan. `test_epsilon` is None where it is the adversary's.
    """
    parts: tuple[Any, ...] = (mixture, rule, adversary)
    variables = network.variables(rule, mixture)
    known = {name: (part, about) for part in parts for name, about in parameter_of(part).items()}
    basis = network.coordinates(rule, mixture)
    J = basis.T @ network.jacobian(unflat(states, variables), mixture, rule, adversary, along=basis)
    by_state = np.full((len(states), len(names), states.shape[1]), np.nan)
    measured: dict[str, Array] = {}

    for k, name in enumerate(names):
        part, about = known[name]
        value = float(getattr(part, name))
        step = _STEP * max(1.0, abs(value)) if about.range is None or about.range.contains(0.0) else _STEP * value
        weights = _CENTRAL
        if about.range is not None:
            ends = [value - 2 * step, value + 2 * step]
            low, high = about.range.contains(ends)
            if not low:
                weights = _FORWARD
            elif not high:
                step, weights = -step, _FORWARD

        def moved(by: int, name: str = name, value: float = value, step: float = step) -> tuple[Any, ...]:
            return tuple(replace(one, **{name: value + by * step}) if hasattr(one, name) else one for one in parts)

        def rates(by: int) -> Array:
            return flat(network.rates(unflat(states, variables), *moved(by)), variables)

        change = sum(weight * rates(by) for by, weight in weights.items()) / step @ basis
        for i in range(len(states)):
            if np.linalg.cond(J[i]) < 1e15:
                by_state[i, k] = basis @ np.linalg.solve(J[i], -change[i])

        def measures(by: int, k: int = k, step: float = step) -> Mapping[str, Any]:
            new = moved(by)
            numbers = numeric_parameters(*new, network)
            y = unflat(states + by * step * by_state[:, k], variables)
            tested = numbers["epsilon"] if test_epsilon is None else test_epsilon
            return network.measured(y, mixture, numbers, tested)

        found = {by: measures(by) for by in weights}
        for measure in network.measures(mixture):
            total = sum(weight * np.asarray(found[by][measure]) for by, weight in weights.items()) / step
            measured.setdefault(measure, np.full((len(states), len(names)), np.nan))[:, k] = total
    data = {}
    for variable, column in unflat(by_state, variables).items():
        data[f"{variable}_derivative"] = column
    return data | {f"{measure}_derivative": values for measure, values in measured.items()}
