"""States from which a search for fixed points of a two-layer network starts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations_with_replacement, product
from typing import Any

import numpy as np

from odeflow.model import Data, GaussianMixture, TeacherStudent
from odeflow.order_parameters.base import Array, flat
from odeflow.order_parameters.committee.states import (
    TwoLayers,
    cluster_numbers,
    directions,
    state_variables,
)

__all__ = ["guesses"]

_MOST = 100  # of several units, where each costs one quadrature for each entry of the state and step
_FEW = 2  # units of which there are the more guesses, because these cost little


def guesses(network: TwoLayers, mixture: Data, start: Mapping[str, Any]) -> Array:
    """Return states that weights can have; what does not learn is as `start` has it.

    Of one unit on the seed's mixture a grid of cosines, lengths, thresholds and output biases; output weights are 1, or near
    it if they learn. Otherwise see `_weights`.
    """
    if network.hidden > 1 or not isinstance(mixture, GaussianMixture):
        return _several(network, mixture, start)
    weights = [float(np.ravel(start.get("c", 1.0))[0])] if network.eta_c == 0 else [0.6, 1.0, 1.5]
    thresholds = [float(np.ravel(start.get("theta", 0.0))[0])] if network.eta_theta == 0 else [-1.0, 0.0, 1.0]
    grid = np.meshgrid([0.3, 0.9], [0.3, 1.0, 3.0], weights, thresholds, [-0.5, 0.01, 0.5], indexing="ij")
    cosine, length, c, theta, b = (values.ravel() for values in grid)
    theta = theta if network.eta_theta == 0 else theta * length
    return np.stack([mixture.rho / 2 * cosine * length, length**2, c, theta, b], axis=1)


def _several(network: TwoLayers, mixture: Data, start: Mapping[str, Any]) -> Array:
    """Return the states of `_weights`, with c, theta and b as `start` has them."""
    K = network.hidden
    variables = state_variables(K, mixture)
    first = variables[0].name
    c = np.broadcast_to(np.asarray(start.get("c", 1.0), np.float64), (K,))
    theta = np.broadcast_to(np.asarray(start.get("theta", 0.0), np.float64), (K,))
    b = np.asarray(start.get("b", 0.0), np.float64)
    gram = directions(mixture).gram * cluster_numbers(mixture, vars(mixture))[0]
    found = []
    for A, noise in _weights(network, mixture, c):
        overlaps = A @ gram
        M = overlaps[:, 0] if isinstance(mixture, GaussianMixture) else overlaps
        state = {first: M, "Q": A @ gram @ A.T + noise, "c": c, "theta": theta, "b": b}
        found.append(flat(state, variables))
        if len(found) == _MOST:
            break
    return np.array(found)


def _weights(network: TwoLayers, mixture: Data, c: Array) -> Iterator[tuple[Array, Array]]:
    """Yield weights as sums of the directions, shape (units, directions), and the products of the rest, (units, units).

    Unspecialised: all units alike, along the mean direction of their sign of c, the rest anticorrelated or not. Specialised:
    each unit along one of the teacher's, or along one centre of the label sgn(c), in every way.
    """
    K = network.hidden
    eye, ones = np.eye(K), np.ones((K, K))
    gram, shares, labels = directions(mixture)
    scale = max(float(cluster_numbers(mixture, vars(mixture))[0]), 1e-6)
    if isinstance(mixture, TeacherStudent):
        mean = np.array(mixture.weights)
        own = [0.9 * np.eye(K, len(gram)), 0.5 * np.eye(K, len(gram))]
        alike = np.outer(c, mean) / max(float(np.abs(c @ c)), 1e-6)
    else:
        priors = cluster_numbers(mixture, vars(mixture))[1]
        mean = shares @ (priors * labels)
        alike = np.outer(np.sign(c), mean)
        kinds = [np.flatnonzero(labels * np.sign(one or 1.0) > 0) for one in (1.0, -1.0)]
        positive, negative = np.flatnonzero(c > 0), np.flatnonzero(c <= 0)
        ways = product(
            combinations_with_replacement(kinds[0], len(positive)),
            combinations_with_replacement(kinds[1], len(negative)),
        )
        own = []
        for plus, minus in ways:
            A = np.zeros((K, len(gram)))
            for k, a in zip([*positive, *negative], [*plus, *minus], strict=True):
                A[k] = shares[:, a] / scale
            own += [A, 0.5 * A][: 1 + (K <= _FEW)]
    few = K <= _FEW
    for length, rest, together in product((1.0, 0.5)[: 1 + few], (0.3, 1.0)[: 1 + few], (-0.6, 0.0, 0.6)[: 2 + few]):
        together = max(together, -0.9 / max(K - 1, 1))  # as anticorrelated as K vectors can be
        yield length * alike, rest * ((1 - together) * eye + together * ones)
    graded = 0.5 ** np.arange(K)
    for A, rest in product(own, (0.2, 0.05)[: 1 + few]):
        yield A, rest * eye
    if few:
        yield graded[:, None] * alike, 0.3 * np.diag(graded)
