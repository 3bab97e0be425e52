r"""Optimal and optimally robust linear classifiers of the seed model (exact)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from odeflow.errors import adversarial_error, classification_error
from odeflow.model import MOST, GaussianMixture, check_parts, checked_number, parameters
from odeflow.parameters import label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["optimal_classifier", "stationary_biases"]


def optimal_classifier(mixture: GaussianMixture, epsilon: float = 0.0) -> xr.Dataset:
    r"""Return the linear classifier with the least adversarial error at `epsilon` (exact).

    The adversarial error falls with the margin :math:`M = \rho R/2 - \varepsilon` at every b, so R = 1. The bias is
    the best of the stationary ones, the roots of

    .. math::
        \left(\tfrac1{v_2} - \tfrac1{v_1}\right) b^2 + 2M\left(\tfrac1{v_1} + \tfrac1{v_2}\right) b
        + M^2\left(\tfrac1{v_2} - \tfrac1{v_1}\right) + 2\ln\left[\tfrac{p}{1-p}\sqrt{v_2/v_1}\right] = 0,

    and of the two constant classifiers, :math:`b = \mp\infty`. For equal variances that is
    :math:`b = v \ln((1-p)/p)/(\rho - 2\varepsilon)` while :math:`\varepsilon < \rho/2`, and the constant majority
    label beyond.

    Parameters
    ----------
    mixture
        The data.
    epsilon
        Size of the perturbation to be robust against, >= 0; 0 gives the least classification error.

    Returns
    -------
    Dataset
        Scalars R, b (-inf: always +1; +inf: always -1), error, adversarial_error (at `epsilon`). Where the two
        constant classifiers tie for the best, it is the label +1.

    Raises
    ------
    TypeError, ValueError
        If epsilon is not a number in [0, 1e6].

    References
    ----------
    Dobriban, Hassani, Hong and Robey, arXiv:2006.05161; Bhagoji, Cullina and Mittal, arXiv:1909.12272.

    Examples
    --------
    >>> float(optimal_classifier(GaussianMixture(p=0.5), epsilon=0.3).b)
    0.0
    """
    import xarray as xr

    check_parts(mixture=mixture)
    epsilon = checked_number("epsilon", epsilon, least=0, most=MOST)
    candidates = np.array(
        [*stationary_biases(mixture.p, mixture.rho / 2 - epsilon, mixture.v1, mixture.v2), -math.inf, math.inf]
    )
    b = float(candidates[np.argmin(adversarial_error(1.0, candidates, mixture, epsilon))])
    data = {
        "R": 1.0,
        "b": b,
        "error": classification_error(1.0, b, mixture),
        "adversarial_error": adversarial_error(1.0, b, mixture, epsilon),
    }
    coords = {**parameters(mixture), "epsilon": epsilon}
    return label(xr.Dataset(data, coords, provenance("optimal_classifier", mixture, epsilon=epsilon)))


def stationary_biases(p: float, M: float, v1: float, v2: float) -> list[float]:
    """Return the real roots of the stationarity condition, without cancellation, of centres at +-M after the attack."""
    a2 = 1 / v2 - 1 / v1
    a1 = M * (1 / v1 + 1 / v2)  # half the linear coefficient
    a0 = M**2 * a2 + 2 * (math.log(p) - math.log1p(-p)) + math.log(v2 / v1)
    discriminant = a1**2 - a2 * a0
    if discriminant < 0:
        return []
    q = -(a1 + math.copysign(math.sqrt(discriminant), a1))
    roots = []
    if q != 0:
        roots.append(a0 / q)
    if a2 != 0:
        roots.append(q / a2)
    return [root + 0.0 for root in roots]
