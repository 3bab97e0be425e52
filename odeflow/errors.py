r"""Classification error, adversarial error and robustness curves (exact at any N).

Section 1.3 of the theory page. Arguments broadcast; where one is a DataArray, so is the result.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from odeflow.labels import label
from odeflow.model import GaussianMixture, check_parts
from odeflow.provenance import provenance

__all__ = ["adversarial_error", "classification_error", "robustness_curve"]


def classification_error(R: Any, b: Any, mixture: GaussianMixture) -> Any:
    r"""Return the probability that the classifier (R, b) errs on a new example (exact).

    Parameters
    ----------
    R
        Overlap w.B in [-1, 1]; a number, array or DataArray.
    b
        Bias; any real number, or infinite (a constant classifier).
    mixture
        The data.

    Returns
    -------
    float, ndarray or DataArray
        :math:`E = p\,\Phi(-(\rho R/2 - b)/\sqrt{v_1}) + (1-p)\,\Phi(-(\rho R/2 + b)/\sqrt{v_2})`, in [0, 1].

    Raises
    ------
    ValueError
        If an R is outside [-1, 1].

    Examples
    --------
    >>> round(float(classification_error(1.0, 0.0, GaussianMixture())), 8)
    0.15865525
    """
    return _relabelled(adversarial_error(R, b, mixture, 0.0), "error")


def adversarial_error(R: Any, b: Any, mixture: GaussianMixture, epsilon: Any) -> Any:
    r"""Return the probability that (R, b) errs on an example moved by epsilon in the worst direction (exact).

    Parameters
    ----------
    R
        Overlap w.B in [-1, 1]; a number, array or DataArray.
    b
        Bias; any real number, or infinite (a constant classifier).
    mixture
        The data.
    epsilon
        Size of the perturbation, >= 0; a number, array or DataArray.

    Returns
    -------
    float, ndarray or DataArray
        :math:`S = p\,\Phi(-(\rho R/2 - b - \varepsilon)/\sqrt{v_1}) + (1-p)\,\Phi(-(\rho R/2 + b -
        \varepsilon)/\sqrt{v_2})`, in [0, 1]; it does not decrease with epsilon.

    Raises
    ------
    ValueError
        If an R is outside [-1, 1] or an epsilon is negative.
    """
    from scipy.special import ndtr

    check_parts(mixture=mixture)
    R, b, epsilon = (value if hasattr(value, "dims") else np.asarray(value, np.float64) for value in (R, b, epsilon))
    if np.any(np.abs(R) > 1 + 1e-9):
        raise ValueError(f"R = {float(np.nanmax(np.abs(R)))!r} (largest size) is out of range: allowed is [-1, 1]")
    if not np.all(epsilon >= 0):
        raise ValueError(f"epsilon = {float(np.min(epsilon))!r} (smallest) is out of range: allowed is >= 0")
    margin = mixture.rho * R / 2 - epsilon
    S = mixture.p * ndtr(-(margin - b) / np.sqrt(mixture.v1)) + (1 - mixture.p) * ndtr(
        -(margin + b) / np.sqrt(mixture.v2)
    )
    return _relabelled(S, "adversarial_error")


def robustness_curve(R: Any, b: Any, mixture: GaussianMixture, epsilon: Any = None) -> Any:
    """Return the adversarial error of one classifier, or of several, against the size of the test perturbation (exact).

    Parameters
    ----------
    R, b
        Overlap in [-1, 1] and bias: numbers, or DataArrays (their dims are kept, epsilon comes last; a
        coordinate epsilon of theirs, the training's, is called training_epsilon in the result).
    mixture
        The data.
    epsilon
        Increasing test perturbations >= 0, shape (epsilon,). Default: 101 values from 0 to the separation rho (to 1 if
        rho is 0).

    Returns
    -------
    DataArray
        Adversarial error with dim epsilon.

    Raises
    ------
    ValueError
        If epsilon is not one-dimensional, not increasing, or negative; or if an R is outside [-1, 1].
    """
    import xarray as xr

    if epsilon is None:
        epsilon = np.linspace(0, mixture.rho or 1.0, 101)
    grid = np.atleast_1d(np.asarray(epsilon, np.float64))
    if grid.ndim != 1 or not np.all(np.isfinite(grid)) or np.any(np.diff(grid) <= 0):
        raise ValueError(f"epsilon = {epsilon!r} is not a grid: allowed are increasing finite numbers >= 0")
    epsilon = xr.DataArray(grid, dims="epsilon", coords={"epsilon": grid})
    curve = adversarial_error(_of_training(R), _of_training(b), mixture, epsilon).transpose(..., "epsilon")
    return label(curve.assign_attrs(provenance("robustness_curve", mixture)))


def _of_training(values: Any) -> Any:
    """Return a DataArray whose coordinate epsilon, the training's, is out of the way of the test's."""
    import xarray as xr

    values = xr.DataArray(values).drop_vars("test_epsilon", errors="ignore")
    return values.rename(epsilon="training_epsilon") if "epsilon" in values.coords else values


def _relabelled(values: Any, name: str) -> Any:
    """Give a DataArray the name and labels of an error; other arrays pass, 0-d ones as numbers."""
    if hasattr(values, "dims"):
        values = values.rename(name)
        values.attrs.clear()
        return label(values)
    return values[()]
