"""What theory says of the gap: one pass of SGD on the seed's mixture, and the least attacked loss on n examples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr
from scipy.special import ndtr

from odeflow import Adversary, GaussianMixture, LearningRule, sweep

__all__ = ["ALPHA", "EPSILONS", "MIXTURE", "RULE", "known_ends", "theory_of"]

Array = npt.NDArray[np.float64]

MIXTURE = GaussianMixture(p=0.5, rho=2.0)
RULE = LearningRule()
EPSILONS = (0.25, 0.5, 1.0, 1.5)
"""Half the separation is 1."""
ALPHA = np.geomspace(0.1, 300, 41)
"""Examples for each dimension."""
LINE = np.linspace(0, 2, 81)
"""Epsilons of the gap without and with unlimited data."""


def theory_of() -> xr.Dataset:
    """Return E and S of one pass of adversarial training over alpha, and the gap at both ends of it over epsilon."""
    found = sweep(MIXTURE, RULE, Adversary(), over={"epsilon": list(EPSILONS)}, alpha=ALPHA)
    nothing, everything = known_ends(LINE)
    return xr.Dataset(
        {
            "theory_error": (("theory_epsilon", "alpha"), found.error.values),
            "theory_adversarial_error": (("theory_epsilon", "alpha"), found.adversarial_error.values),
            "gap_without_data": ("line_epsilon", nothing),
            "gap_with_all_data": ("line_epsilon", everything),
        },
        {"theory_epsilon": list(EPSILONS), "alpha": ALPHA, "line_epsilon": LINE},
    )


def known_ends(epsilon: Array) -> tuple[Array, Array]:
    r"""Return S - E of weights without a part along the centres, and of the best classifier for epsilon below rho/2.

    With the margin :math:`M = \rho R/2` it is :math:`\Phi((\varepsilon - M)/\sqrt v) - \Phi(-M/\sqrt v)`, at R = 0 and R = 1. It is
    largest at :math:`M = \varepsilon/2`, and the same at M = 0 and M = epsilon: more data closes the gap in the end just if
    :math:`\varepsilon < \rho/2`, and widens it first.
    """
    ends = [ndtr(epsilon - M) - ndtr(-M) for M in (0.0, MIXTURE.rho / 2)]
    return ends[0], ends[1]
