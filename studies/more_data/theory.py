"""What theory says of the gap: one pass of SGD on the seed's mixture, and the least attacked loss on n examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import ndtr

from odeflow import Adversary, GaussianMixture, LearningRule, erm, sweep

__all__ = ["ALPHA", "EPSILONS", "MIXTURE", "RIDGE", "RULE", "THEORIES", "known_ends", "theory_of"]

Array = npt.NDArray[np.float64]

MIXTURE = GaussianMixture(p=0.5, rho=2.0)
RULE = LearningRule()
"""Of one pass."""
RIDGE = 0.1
"""Of the least loss."""
THEORIES = {"batch": "least loss on n examples", "online": "one pass of SGD"}
EPSILONS = (0.25, 0.5, 1.0, 1.5)
"""Half the separation is 1."""
ALPHA = np.geomspace(0.1, 300, 41)
"""Examples for each dimension."""
LINE = np.linspace(0, 2, 81)
"""Epsilons of the gap without and with unlimited data."""


def theory_of() -> xr.Dataset:
    """Return E and S over alpha, of the least attacked loss and of one pass of SGD, and the gap at both ends over epsilon.

    Where the attack leaves no weights, the classifier is a constant, and there is no gap: nan.
    """
    batch = erm.solve(MIXTURE, alpha=ALPHA, ridge=RIDGE, epsilon=np.array(EPSILONS), on_failure="return")
    online = sweep(MIXTURE, RULE, Adversary(), over={"epsilon": list(EPSILONS)}, alpha=ALPHA)
    found = [one.transpose("epsilon", "alpha") for one in (batch, online)]
    nothing, everything = known_ends(LINE)
    dims = "theory", "theory_epsilon", "alpha"
    return xr.Dataset(
        {
            "theory_error": (dims, [np.broadcast_to(one.error, one.adversarial_error.shape) for one in found]),
            "theory_adversarial_error": (dims, [one.adversarial_error.values for one in found]),
            "gap_without_data": ("line_epsilon", nothing),
            "gap_with_all_data": ("line_epsilon", everything),
        },
        {"theory": list(THEORIES), "theory_epsilon": list(EPSILONS), "alpha": ALPHA, "line_epsilon": LINE},
    )


def known_ends(epsilon: Array) -> tuple[Array, Array]:
    r"""Return S - E of weights without a part along the centres, and of the best classifier for epsilon below rho/2.

    With the margin :math:`M = \rho R/2` it is :math:`\Phi((\varepsilon - M)/\sqrt v) - \Phi(-M/\sqrt v)`, at R = 0 and R = 1. It is
    largest at :math:`M = \varepsilon/2`, and the same at M = 0 and M = epsilon: more data closes the gap in the end just if
    :math:`\varepsilon < \rho/2`, and widens it first.
    """
    ends = [ndtr(epsilon - M) - ndtr(-M) for M in (0.0, MIXTURE.rho / 2)]
    return ends[0], ends[1]
