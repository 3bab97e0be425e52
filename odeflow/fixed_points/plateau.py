"""How long the units of a network stay alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from odeflow.fixed_points.search import start_state, units_of
from odeflow.integrate import IntegrationError, integrate_batch
from odeflow.model import Adversary, Data, LearningRule, check_constant, numeric_parameters, parameters
from odeflow.order_parameters import Network
from odeflow.order_parameters.base import Array, checked_network, flat, unflat
from odeflow.parameters import checked_number

__all__ = ["plateau_length", "units_apart"]

_TIMES = 200  # at which a trajectory is looked at
_INSIDE = 33  # between two of them, again and again
_NEAR = 1e-7  # relative width at which the crossing is known


def units_apart(overlaps: npt.ArrayLike) -> Array:
    """Return how far the units are apart: the largest difference of two units' overlaps with one direction of the data.

    Parameters
    ----------
    overlaps
        M or R of a network, shape (..., units, directions), or (..., units) where there is one direction.

    Examples
    --------
    >>> round(units_apart([[0.5, 0.1], [0.2, 0.4]]).item(), 6)
    0.3
    """
    values = np.asarray(overlaps, np.float64)
    values = values[..., None] if values.ndim == 1 else values
    return np.asarray(np.ptp(values, axis=-2).max(axis=-1))


def plateau_length(
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    *,
    network: Network,
    start: Mapping[str, npt.ArrayLike],
    size: float,
    alpha_max: float = 1e4,
    **options: Any,
) -> float:
    """Return the alpha at which the units are first as far apart as `size` (exact as N grows; relative accuracy 1e-6).

    From a start whose units differ little they stay alike while learning rests near a symmetric fixed point
    (`symmetric_fixed_points`), and each difference there grows by e in one over the `specialisation_rate`. The trajectory is
    looked at on 200 times in geometric progression; an earlier, shorter crossing would be missed.

    Parameters
    ----------
    mixture, rule, adversary
        The model.
    network
        What learns: of at least two units.
    start
        Initial values by the name of the order parameter, as for `integrate`.
    size
        The largest difference of two units' overlaps with a centre, or with a teacher's unit, > 0: see `units_apart`.
    alpha_max
        Latest alpha to look at, > 0.
    **options
        Of `integrate_batch`: rtol, atol, max_steps.

    Returns
    -------
    float
        The length; 0 if they are as far apart at the start, inf if not until `alpha_max`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.
    IntegrationError
        If the trajectory cannot be integrated.
    """
    checked_network(network).check(mixture, rule, adversary)
    check_constant(rule, adversary)
    size = checked_number("size", size, above=0)
    alpha_max = checked_number("alpha_max", alpha_max, above=0)
    variables = network.variables(rule, mixture)
    if units_of(variables) < 2:
        raise ValueError(f"network = {network!r} has one unit: allowed are several")
    first = variables[0]
    directions = 1 if len(first.dims) == 1 else first.sizes[1]

    model = {**parameters(rule, adversary), **numeric_parameters(mixture, network)}

    def look(alpha: Array, state: Array) -> tuple[Array, Array]:
        begin = unflat(state, variables)
        seen = integrate_batch(**model, mixture=mixture, network=network, alpha=alpha, start=begin, **options)
        if seen.status[0] != 0:
            raise IntegrationError(
                f"the trajectory of {mixture}, {rule}, {adversary} failed with the status {int(seen.status[0])} before its units"
                " were that far apart: odeflow.integrate says what may help"
            )
        overlaps = unflat(seen.y[0], variables)[first.name]
        return units_apart(overlaps.reshape(len(alpha), first.sizes[0], directions)), seen.y[0]

    state = flat(start_state(network, mixture, rule, start), variables)
    offset, grid = 0.0, np.concatenate([[0.0], np.geomspace(min(1e-3, alpha_max / 2), alpha_max, _TIMES)])
    apart, states = look(grid[:1], state)
    if apart[0] >= size:
        return 0.0
    # piece by piece, so that nothing is integrated long after the crossing
    high = 0
    for piece in np.array_split(grid[1:], _TIMES // 10):
        apart, states = look(np.concatenate([[0.0], piece - offset]), state)
        if np.any(apart >= size):
            high = int(np.argmax(apart >= size))
            break
        offset, state = float(piece[-1]), states[-1]
    else:
        return math.inf
    times = np.concatenate([[0.0], piece - offset])
    while True:
        offset, state, width = offset + times[high - 1], states[high - 1], times[high] - times[high - 1]
        if width <= _NEAR * (offset + width):
            share = (size - apart[high - 1]) / (apart[high] - apart[high - 1])
            return float(offset + width * share)
        times = np.linspace(0.0, width, _INSIDE)
        apart, states = look(times, state)
        high = max(int(np.argmax(apart >= size)), 1)
