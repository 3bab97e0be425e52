"""One fixed point of any network followed along one parameter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.fixed_points.search import Flow, flow_at, newton, start_state
from odeflow.fixed_points.symmetric import blocks, named
from odeflow.integrate import labelled
from odeflow.model import Adversary, Data, LearningRule, check_constant, numeric_parameters
from odeflow.order_parameters import Network
from odeflow.order_parameters.base import Array, checked_network, flat, recorded
from odeflow.parameters import label, parameter_of
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["follow"]

_HALVINGS = 7  # of a step between two values
_JUMP = 0.3  # of the state, relative: a correction beyond it is another fixed point


class _Place(NamedTuple):
    at: float
    state: Array


def follow(
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    *,
    network: Network,
    start: Mapping[str, npt.ArrayLike],
    parameter: str = "epsilon",
    values: npt.ArrayLike,
    symmetric: bool = False,
    test_epsilon: float | None = None,
) -> xr.Dataset:
    """Follow one fixed point along a parameter by Newton's method (exact as N grows).

    From each value the fixed point at the next is looked for along the secant through the last two, with smaller steps where
    Newton's method does not find it near there. At a fold, or where a weight falls to 0, the path ends.

    Parameters
    ----------
    mixture, rule, adversary
        The model; its value of `parameter` is not used.
    network
        What learns.
    start
        The state at the first value, by the name of the order parameter: a fixed point, or near one.
    parameter
        Any parameter of the model or the network that is a number, as results have it: epsilon, rho, scale, spread, eta_w, ...
    values
        Rising or falling values of it, at least one, shape (parameter,).
    symmetric
        Follow it among states whose units with the same output weight are alike, as `symmetric_fixed_points` does.
    test_epsilon
        Perturbation at which the adversarial measures are evaluated, >= 0; default: the adversary's at each value.

    Returns
    -------
    Dataset
        With the dim `parameter`: the order parameters, the network's errors or losses, eigenvalues (dim eigenvalue, the largest
        real part first), growth_rate (that part) and stable; if symmetric also approach_rate and specialisation_rate, and the
        eigenvalues of states with units alike come first. From where the path ends on: nan (stable: False).

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed; if there is no fixed point near the start.
    """
    import xarray as xr

    parts = {"mixture": mixture, "rule": rule, "adversary": adversary, "network": checked_network(network)}
    owner = next((name for name, part in parts.items() if _is_number(part, parameter)), None)
    if owner is None:
        known = ", ".join(name for part in parts.values() for name in parameter_of(part) if _is_number(part, name))
        raise ValueError(f"parameter = {parameter!r} is unknown: allowed is one of {known}")
    grid = np.atleast_1d(np.asarray(values, np.float64))
    steps = np.diff(grid)
    if grid.ndim != 1 or grid.size < 1 or not (np.all(steps > 0) or np.all(steps < 0)):
        raise ValueError(f"values = {values!r} is no path: allowed are rising or falling numbers, at least one")

    def model(at: float) -> dict[str, Any]:
        return {**parts, owner: replace(parts[owner], **{parameter: float(at)})}  # type: ignore[type-var]

    network.check(mixture, rule, adversary)
    check_constant(rule, adversary)
    variables = network.variables(rule, mixture)
    given = start_state(network, mixture, rule, start)
    first = flat(given, variables)
    begun = model(grid[0])
    # what learns is seen at states that are no fixed points
    seen = network.guesses(begun["mixture"], begun["rule"], begun["adversary"], given)
    whole = flow_at(**begun, states=seen[:: max(1, len(seen) // 4)])
    alike, differences = blocks(whole, first) if symmetric else (whole, None)
    if differences is not None:
        first = first - differences.basis @ (differences.basis.T @ first)

    def flow(at: float, part: Flow = alike) -> Flow:
        return replace(part, **model(at)).sharpened()

    def reach(before: _Place | None, now: _Place, target: float, halvings: int) -> list[_Place]:
        """Return the places on the way to a target, that at the target last, or nothing."""
        guess = now.state
        if before is not None:
            guess = now.state + (target - now.at) / (now.at - before.at) * (now.state - before.state)
        for one in (guess, now.state):
            found = newton(flow(target), one[None])
            if len(found) and np.max(np.abs(found[0] - one)) < _JUMP * (1e-2 + np.max(np.abs(now.state))):
                return [_Place(target, found[0])]
        if halvings == 0:
            return []
        half = reach(before, now, (now.at + target) / 2, halvings - 1)
        if not half:
            return []
        track = [now, *half]
        rest = reach(track[-2], track[-1], target, halvings - 1)
        return [*half, *rest] if rest else []

    begin = newton(flow(grid[0]), first[None])
    if not len(begin):
        raise ValueError(f"start = {dict(start)!r}: allowed is a state near a fixed point at {parameter} = {grid[0]:g}")
    states = np.full((grid.size, len(first)), np.nan)
    states[0] = begin[0]
    track = [_Place(float(grid[0]), begin[0])]
    for place, at in enumerate(grid[1:], start=1):
        way = reach(track[-2] if len(track) > 1 else None, track[-1], float(at), _HALVINGS)
        if not way:
            break
        track = [*track, *way][-2:]
        states[place] = track[-1].state

    kinds = [alike] if differences is None else [alike, differences]
    eigenvalues = np.full((grid.size, sum(one.basis.shape[1] for one in kinds)), complex(np.nan, np.nan))
    rates = np.full((grid.size, len(kinds)), np.nan)
    there = np.flatnonzero(np.isfinite(states[:, 0]))
    for i in there:
        each = [flow(grid[i], one).eigenvalues(states[i]) for one in kinds]
        eigenvalues[i] = np.concatenate(each)
        rates[i] = [one.real.max() for one in each]
    numbers: dict[str, Any] = numeric_parameters(mixture, rule, adversary, network) | {parameter: grid}
    tested: Any = numbers["epsilon"] if test_epsilon is None else test_epsilon
    data = labelled(network, mixture, rule, states, (parameter,), numbers, tested)
    growth = rates.max(axis=1)
    data |= {
        "stable": (parameter, growth < 0),
        "growth_rate": (parameter, growth),
        "eigenvalues": ((parameter, "eigenvalue"), eigenvalues),
    }
    if symmetric:
        data |= {"approach_rate": (parameter, rates[:, 0]), "specialisation_rate": (parameter, rates[:, 1])}
    attrs = provenance("follow", mixture, rule, adversary, **recorded(network), parameter=parameter, values=grid)
    coords = numbers | ({} if test_epsilon is None else {"test_epsilon": test_epsilon})
    return named(label(xr.Dataset(data, coords, attrs)))


def _is_number(part: Any, name: str) -> bool:
    found = parameter_of(part).get(name)
    return found is not None and found.range is not None
