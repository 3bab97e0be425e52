"""Fixed points of any network by Newton's method from many guesses: what there is where no better solver is known.

Each guess follows the network's reference `rates` and `jacobian` in its own `coordinates`; what converges within the ranges
is kept once. Nothing guarantees that a fixed point is not missed, and one at an infinite bias is not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import permutations
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.model import Adversary, Data, LearningRule
from odeflow.order_parameters import Network
from odeflow.order_parameters.base import Array, OrderParameter, flat, start_of, unflat

__all__ = ["ROUGH", "Flow", "Found", "distinct", "flow_at", "newton", "search", "start_state", "swapped", "units_of"]

_ITERATIONS = 60
_CONVERGED = 1e-12  # size of the last step, relative
_NOISE = 1e-6  # below it, a step that is not smaller than half of the one before is the rates' rounding
ROUGH = 1e-5
"""Size of the last of Newton's steps where the fixed point is polished afterwards."""
_SAME = 1e-7  # distance of what counts as one
_ASIDE = (-0.5, -0.2, -0.05, 0.05, 0.2, 0.5)  # relative distances from an unstable fixed point, on its ways out
_NEAR = 0.2  # the same, of more units
_HALVINGS = 8  # of a step that leaves the states that are possible
_FEW = 2  # units up to which a search is thorough: with each more all rates take some 20 times as long
_PATIENCE = 15  # iterations after which, of more units, states are given up whose steps are still longer than _LONG
_LONG = 0.1
_MOST_PERMUTED = 5  # units of which all orders are looked at


class Found(NamedTuple):
    """Fixed points of one model."""

    states: Array
    """Shape (fixed points, width)."""
    eigenvalues: npt.NDArray[np.complex128]
    """Of the Jacobian by the coordinates that learn, the largest real part first, shape (fixed points, coordinates)."""


@dataclass(frozen=True, eq=False)
class Flow:
    """The rates of a model along some directions of its state, at fixed values of the rest."""

    network: Network
    mixture: Data
    rule: LearningRule
    adversary: Adversary
    basis: Array
    """Orthonormal directions, shape (width, coordinates)."""

    @property
    def variables(self) -> tuple[OrderParameter, ...]:
        """The order parameters."""
        return self.network.variables(self.rule, self.mixture)

    def rates(self, y: Array) -> Array:
        """Return the rates of states, shape (..., width), along the directions."""
        found = self.network.rates(unflat(y, self.variables), self.mixture, self.rule, self.adversary)
        return flat(found, self.variables) @ self.basis

    def jacobian(self, y: Array, order: Literal[1, 4] = 4) -> Array:
        """Return the derivatives of `rates` along the directions, shape (..., coordinates, coordinates)."""
        state = unflat(y, self.variables)
        J = self.network.jacobian(state, self.mixture, self.rule, self.adversary, along=self.basis, order=order)
        return np.asarray(self.basis.T @ J)

    def regular(self, y: Array) -> Array:
        """Return the states around which all others are possible: one on the edge, or far out, has no Jacobian."""
        return y[np.all(np.isfinite(self.jacobian(y)), axis=(1, 2))]

    def eigenvalues(self, y: Array) -> npt.NDArray[np.complex128]:
        """Return the eigenvalues of `jacobian`, the largest real part first."""
        values = np.linalg.eigvals(self.jacobian(y)).astype(np.complex128)
        return np.take_along_axis(values, np.argsort(-values.real, axis=-1, kind="stable"), axis=-1)

    def roughened(self) -> Flow:
        """Return the same with the network's rates as they are good enough to look around."""
        return replace(self, network=self.network.roughened())

    def sharpened(self) -> Flow:
        """Return the same with the network's most accurate rates."""
        return replace(self, network=self.network.sharpened())


def flow_at(network: Network, mixture: Data, rule: LearningRule, adversary: Adversary, states: Array) -> Flow:
    """Return the flow along the network's coordinates that learn: those whose rate is not 0 at all of the states."""
    whole = Flow(network, mixture, rule, adversary, network.coordinates(rule, mixture))
    learns = np.any(np.nan_to_num(whole.rates(states)) != 0, axis=0)
    return replace(whole, basis=np.ascontiguousarray(whole.basis[:, learns]))


def start_state(
    network: Network, mixture: Data, rule: LearningRule, start: Mapping[str, npt.ArrayLike]
) -> dict[str, Any]:
    """Return a whole state by name: what is given, checked, and each network's own initial values for the rest."""
    values = start_of(network, mixture, rule, start, {})
    return {
        variable.name: variable.filled(np.asarray(values[variable.start_name], np.float64))
        if np.ndim(values[variable.start_name]) == 0 and variable.dims
        else values[variable.start_name]
        for variable in network.variables(rule, mixture)
    }


def search(
    network: Network,
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    start: Mapping[str, npt.ArrayLike] | None = None,
) -> Found:
    """Return the fixed points that Newton's method finds from the network's guesses, in rising order of the second entry.

    Entries of the state whose rate is always 0, such as output weights with the learning rate 0, stay at the guess. Those
    given by `start` are among the guesses. Of fixed points that differ in the order of their units, one is returned. Of more than
    two units fewer guesses are followed, and not as long: see `_FEW`.
    """
    given = None if start is None else start_state(network, mixture, rule, start)
    y = network.guesses(mixture, rule, adversary, given)
    if given is not None:
        y = np.concatenate([flat(given, network.variables(rule, mixture))[None], y])
    flow = flow_at(network, mixture, rule, adversary, y)
    few = units_of(flow.variables) <= _FEW
    coarse, patience = flow.roughened(), _ITERATIONS if few else _PATIENCE
    rough = distinct(coarse, newton(coarse, y, converged=ROUGH, patience=patience), near=1e2 * ROUGH)
    beside = newton(coarse, _beside_unstable(coarse, rough, few), converged=ROUGH, patience=patience)
    rough = distinct(coarse, np.concatenate([rough, beside]), near=1e2 * ROUGH)
    flow = flow.sharpened()
    found = flow.regular(distinct(flow, newton(flow, rough)))
    found = found[np.argsort(found[:, min(1, found.shape[1] - 1)], kind="stable")]
    return Found(found, flow.eigenvalues(found))


def _beside_unstable(flow: Flow, states: Array, every: bool) -> Array:
    """Return states on the ways out of unstable fixed points, where there may be others: on every way, or near the steepest."""
    found = [states[:0]]
    for state, (values, vectors) in zip(states, map(np.linalg.eig, flow.jacobian(states, order=1)), strict=True):
        grow = np.flatnonzero(values.real > 0)
        if not every:
            grow = grow[np.argsort(-values.real[grow])][:1]
        for direction in vectors[:, grow].real.T @ flow.basis.T:
            scale = (1 + np.max(np.abs(state))) * direction / np.max(np.abs(direction))
            found.append(state + np.multiply.outer(_ASIDE if every else (-_NEAR, _NEAR), scale))
    return np.concatenate(found)


def newton(flow: Flow, y: Array, *, converged: float = _CONVERGED, patience: int = _ITERATIONS) -> Array:
    """Return the zeros of the rates to which Newton's method converges from states, shape (states, width).

    A step that leads to no possible state is halved. The rates have an error, of their quadrature: where the steps have come
    down to it, they are no longer halved from one to the next, and the search is over. After as many iterations as the patience
    is, states whose steps are still long are given up.
    """
    low = np.concatenate([np.full(v.size, max(v.range.above, v.range.least)) for v in flow.variables])
    high = np.concatenate([np.full(v.size, min(v.range.below, v.range.most)) for v in flow.variables])
    ends = []
    f = flow.rates(y)
    last = np.full(len(y), np.inf)
    for iteration in range(_ITERATIONS):
        J = flow.jacobian(y, order=1)
        with np.errstate(all="ignore"):
            good = np.all(np.isfinite(f), axis=1) & np.all(np.isfinite(J), axis=(1, 2))
            good[good] = np.abs(np.linalg.det(J[good])) > 0
        good &= (iteration < patience) | (last < _LONG)
        y, f, J, last = y[good], f[good], J[good], last[good]
        if not len(y):
            break
        step = np.linalg.solve(J, -f[..., None])[..., 0] @ flow.basis.T
        size = np.max(np.abs(step) / (1 + np.abs(y)), axis=1)
        done = (size < converged) | ((size < _NOISE) & (size > last / 2))
        ends.append(y[done])
        y, step, last = y[~done], step[~done], size[~done]
        step *= np.minimum(1, 0.5 / np.maximum(last, 1e-300))[:, None]
        y, f, inside = _moved(flow, y, step, low, high)
        y, f, last = y[inside], f[inside], last[inside]
    return np.concatenate([*ends, y[:0]])


def _moved(flow: Flow, y: Array, step: Array, low: Array, high: Array) -> tuple[Array, Array, npt.NDArray[np.bool_]]:
    """Return y + step and the rates there, the step halved where there are none, and whether there are then."""
    f = np.full((len(y), flow.basis.shape[1]), np.nan)
    new = y.copy()
    todo = np.arange(len(y))
    for _ in range(_HALVINGS):
        new[todo] = y[todo] + step[todo]
        f[todo] = flow.rates(new[todo])
        bad = ~np.all(np.isfinite(f[todo]), axis=1)
        todo = todo[bad]
        if not len(todo):
            break
        step[todo] /= 2
    inside = np.all((new > low) & (new < high) & (np.abs(new) < 1e6), axis=1)
    return new, f, inside & np.all(np.isfinite(f), axis=1)


def distinct(flow: Flow, states: Array, near: float = _SAME) -> Array:
    """Return each allowed state once, of those that differ in the order of alike units one."""
    network, variables = flow.network, flow.variables
    kept: list[Array] = []
    for state in states:
        values = unflat(state, variables)
        try:
            starts = {
                variable.start_name: np.asarray(variable.start) for variable in network.starts(flow.rule, flow.mixture)
            }
            network.check_start(flow.rule, starts | {f"{name}0": value for name, value in values.items()})
        except ValueError:
            continue
        orders = list(_orders(flow, state))
        if all(np.max(np.abs(one - other)) > near * (1 + np.max(np.abs(other))) for one in orders for other in kept):
            kept.append(state)
    return np.array(kept).reshape(-1, states.shape[1])


def swapped(y: Array, variables: tuple[OrderParameter, ...], order: tuple[int, ...]) -> Array:
    """Return states, shape (..., width), with the units in another order."""
    state = unflat(y, variables)
    for variable in variables:
        for axis, dim in enumerate(variable.dims, start=y.ndim - 1):
            if dim in ("unit", "other_unit"):
                state[variable.name] = np.take(state[variable.name], order, axis=axis)
    return flat(state, variables)


def units_of(variables: tuple[OrderParameter, ...]) -> int:
    """Return the number of units that can be put in another order; 1 where there are none."""
    sizes = [size for v in variables for dim, size in zip(v.dims, v.sizes, strict=True) if dim == "unit"]
    return max(sizes, default=1)


def _orders(flow: Flow, state: Array) -> Iterator[Array]:
    """Yield the states that are a state with its units in another order, as far as what does not learn is the same."""
    variables = flow.variables
    units = units_of(variables)
    rest = state - flow.basis @ (flow.basis.T @ state)
    if units == 1 or units > _MOST_PERMUTED:
        yield state
        return
    for order in permutations(range(units)):
        if np.allclose(swapped(rest, variables, order), rest, rtol=0, atol=1e-12):
            yield swapped(state, variables, order)
