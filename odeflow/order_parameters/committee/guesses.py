"""States from which a search for fixed points of a two-layer network starts."""

from __future__ import annotations

import numpy as np

from odeflow.model import Adversary, Data, GaussianMixture, LearningRule
from odeflow.order_parameters.base import Array
from odeflow.order_parameters.committee.states import TwoLayers

__all__ = ["guesses"]


def guesses(network: TwoLayers, mixture: Data, rule: LearningRule, adversary: Adversary) -> Array:
    """Return a grid of cosines, lengths, thresholds and output biases; output weights are 1, or near it if they learn."""
    if network.hidden > 1 or not isinstance(mixture, GaussianMixture):
        raise ValueError(f"network = {network!r}: allowed is one hidden unit on a GaussianMixture")
    weights = [1.0] if network.eta_c == 0 else [0.6, 1.0, 1.5]
    thresholds = [0.0] if network.eta_theta == 0 else [-1.0, 0.0, 1.0]
    grid = np.meshgrid([0.3, 0.9], [0.3, 1.0, 3.0], weights, thresholds, [-0.5, 0.01, 0.5], indexing="ij")
    cosine, length, c, theta, b = (values.ravel() for values in grid)
    return np.stack([mixture.rho / 2 * cosine * length, length**2, c, theta * length, b], axis=1)
