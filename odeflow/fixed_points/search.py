"""Fixed points of any network by Newton's method from many guesses: what there is where no better solver is known.

Each guess follows the network's reference `rates` and `jacobian`; what converges within the ranges is kept once. Nothing
guarantees that a fixed point is not missed, and one at an infinite bias is not found.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.model import Adversary, Data, LearningRule
from odeflow.order_parameters import Network
from odeflow.order_parameters.base import Array, flat, unflat

__all__ = ["Found", "search"]

_ITERATIONS = 60
_CONVERGED = 1e-12  # size of the last step, relative
_SAME = 1e-7  # distance of what counts as one


class Found(NamedTuple):
    """Fixed points of one model."""

    states: Array
    """Shape (fixed points, width)."""
    eigenvalues: npt.NDArray[np.complex128]
    """Of the Jacobian by the entries that learn, the largest real part first, shape (fixed points, entries)."""


def search(network: Network, mixture: Data, rule: LearningRule, adversary: Adversary) -> Found:
    """Return the fixed points that Newton's method finds from the network's guesses, in rising order of the second entry.

    Entries of the state whose rate is always 0, such as output weights with the learning rate 0, stay at the guess.
    """
    variables = network.variables(rule, mixture)

    def rates(y: Array) -> Array:
        return flat(network.rates(unflat(y, variables), mixture, rule, adversary), variables)

    def jacobian(y: Array) -> Array:
        return network.jacobian(unflat(y, variables), mixture, rule, adversary)

    low = np.concatenate([np.full(v.size, max(v.range.above, v.range.least)) for v in variables])
    high = np.concatenate([np.full(v.size, min(v.range.below, v.range.most)) for v in variables])
    y = network.guesses(mixture, rule, adversary)
    learns = np.any(rates(y) != 0, axis=0)
    ends = []
    for _ in range(_ITERATIONS):
        f = rates(y)
        J = jacobian(y)[:, learns][:, :, learns]
        with np.errstate(all="ignore"):
            regular = np.abs(np.linalg.det(J)) > 0
            good = regular & np.all(np.isfinite(f), axis=1)
        y, f, J = y[good], f[good], J[good]
        if not len(y):
            break
        step = np.zeros_like(y)
        step[:, learns] = np.linalg.solve(J, -f[:, learns, None])[..., 0]
        limit = np.max(np.abs(step) / (1 + np.abs(y)), axis=1, keepdims=True)
        done = limit[:, 0] < _CONVERGED
        ends.append(y[done])
        y, step, limit = y[~done], step[~done], limit[~done]
        y = y + step * np.minimum(1, 0.5 / np.maximum(limit, 1e-300))
        y = y[np.all((y > low) & (y < high) & (np.abs(y) < 1e6), axis=1)]
    found = _distinct(np.concatenate([*ends, y[:0]]), network, mixture, rule)
    found = found[np.argsort(found[:, min(1, found.shape[1] - 1)], kind="stable")]
    eigenvalues = np.linalg.eigvals(jacobian(found)[:, learns][:, :, learns]).astype(np.complex128)
    order = np.argsort(-eigenvalues.real, axis=1, kind="stable")
    return Found(found, np.take_along_axis(eigenvalues, order, axis=1))


def _distinct(states: Array, network: Network, mixture: Data, rule: LearningRule) -> Array:
    """Return each allowed state once."""
    kept: list[Array] = []
    for state in states:
        values = unflat(state, network.variables(rule, mixture))
        try:
            starts = {variable.start_name: np.asarray(variable.start) for variable in network.starts(rule, mixture)}
            network.check_start(rule, starts | {f"{name}0": value for name, value in values.items()})
        except ValueError:
            continue
        if all(np.max(np.abs(state - other)) > _SAME * (1 + np.max(np.abs(other))) for other in kept):
            kept.append(state)
    return np.array(kept).reshape(-1, states.shape[1])
