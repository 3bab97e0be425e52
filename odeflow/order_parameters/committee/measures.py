"""What a result says of a two-layer network beside its order parameters: errors of a classifier, losses of a regression."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from odeflow.model import Data, TeacherStudent
from odeflow.order_parameters.base import Array, Points
from odeflow.order_parameters.committee.states import TwoLayers
from odeflow.order_parameters.perceptron.network import error_probability

__all__ = ["measured", "names"]


def names(network: TwoLayers, mixture: Data) -> tuple[str, ...]:
    """Return what is known of a network on some data."""
    if isinstance(mixture, TeacherStudent):
        return "loss", "adversarial_loss"
    return "error", "adversarial_error"


def measured(
    network: TwoLayers, parts: tuple[Array, ...], mixture: Data, points: Points, epsilon: Any
) -> dict[str, Any]:
    """Return the errors or losses of states, given as `odeflow.order_parameters.committee.states.part` returns them."""
    if network.hidden == 1 and network.activation == "erf" and "p" in points:
        return {"error": _one_unit(parts, points, 0.0), "adversarial_error": _one_unit(parts, points, epsilon)}
    return dict.fromkeys(names(network, mixture), np.full(parts[4].shape, np.nan))


def _one_unit(parts: tuple[Array, ...], points: Points, epsilon: Any) -> Any:
    r"""Return the probability that sign(phi) is wrong after the worst perturbation of length epsilon (exact).

    One unit's output has the sign of c (w.xi - t), t = theta + g^-1(-b/c): a perceptron with the overlap
    2 sgn(c) M / (rho sqrt Q) and the bias sgn(c) t / sqrt Q, infinite where |b| >= |c|.
    """
    from scipy.special import erfinv

    M, Q, c, theta, b = parts
    M, c, theta = M[..., 0, 0], c[..., 0], theta[..., 0]
    length, sign = np.sqrt(Q[..., 0, 0]), np.sign(c)
    with np.errstate(divide="ignore", invalid="ignore"):
        bias = sign * (theta + math.sqrt(2) * erfinv(-b / c)) / length
    bias = np.where(np.abs(b) < np.abs(c), bias, -np.copysign(np.inf, b))
    constant = ~np.isfinite(bias)
    margin = np.where(constant, 0.0, sign * M / length)
    # rho R / 2 = sgn(c) M / sqrt Q, so rho = 2 and R = that
    values = (points["p"], 2.0, points["v1"], points["v2"])
    return error_probability(margin, bias, epsilon, *values)
