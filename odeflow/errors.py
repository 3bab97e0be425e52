r"""Classification error, adversarial error and robustness curves of perceptrons (exact at any N).

Section 1.3 of the theory page. Arguments broadcast; where one is a DataArray, so is the result. All of it is
`Perceptron.error`, which `integrate`, `simulate` and `sweep` use for their errors too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from odeflow.model import GaussianMixture, check_parts
from odeflow.order_parameters import Perceptron
from odeflow.parameters import label
from odeflow.provenance import provenance

__all__ = ["adversarial_error", "classification_error", "robustness_curve"]

_PERCEPTRON = Perceptron()
_MIXTURE = ("p", "rho", "v1", "v2")


def classification_error(R: Any, b: Any, mixture: GaussianMixture, *, Q: Any = None) -> Any:
    r"""Return the probability that the classifier (R, b) errs on a new example (exact).

    Parameters
    ----------
    R
        Overlap w.B in [-1, 1], or in [-sqrt(Q), sqrt(Q)]; a number, array or DataArray.
    b
        Bias; any real number, or infinite (a constant classifier).
    mixture
        The data. What R has as coordinates, such as the swept parameters of a result, goes before it.
    Q
        Squared length of the weights, > 0, where they are not normalised; default: 1.

    Returns
    -------
    float, ndarray or DataArray
        :math:`E = p\,\Phi(-(\rho R/2 - b)/\sqrt{v_1}) + (1-p)\,\Phi(-(\rho R/2 + b)/\sqrt{v_2})`, in [0, 1]; with
        :math:`R/\sqrt Q` and :math:`b/\sqrt Q` for free weights.

    Raises
    ------
    ValueError
        If an R is outside its range, a Q is not positive, or Q is missing for a result of free weights.

    Examples
    --------
    >>> round(float(classification_error(1.0, 0.0, GaussianMixture())), 8)
    0.15865525
    """
    return _relabelled(adversarial_error(R, b, mixture, 0.0, Q=Q), "error")


def adversarial_error(R: Any, b: Any, mixture: GaussianMixture, epsilon: Any, *, Q: Any = None) -> Any:
    r"""Return the probability that (R, b) errs on an example moved by epsilon in the worst direction (exact).

    Parameters
    ----------
    R, b, mixture, Q
        As for `classification_error`.
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
        If an R is outside its range, a Q is not positive, an epsilon is negative, or Q is missing for a result of free
        weights.
    """
    check_parts(mixture=mixture)
    if Q is None and "Q0" in getattr(R, "coords", ()):
        raise ValueError("Q = None: R is of weights that are not normalised (it has the coordinate Q0): give their Q")
    given = {"R": R, "b": b, "epsilon": epsilon} | ({} if Q is None else {"Q": Q})
    state = {name: value if hasattr(value, "dims") else np.asarray(value, np.float64) for name, value in given.items()}
    epsilon = state.pop("epsilon")
    if Q is not None and not np.all(state["Q"] > 0):
        raise ValueError(f"Q = {float(np.nanmin(state['Q']))!r} (smallest) is out of range: allowed is > 0")
    cosine = np.abs(state["R"] if Q is None else state["R"] / np.sqrt(state["Q"]))
    if np.any(cosine > 1 + (1e-9 if Q is None else 1e-6)):
        name, allowed = ("R", "[-1, 1]") if Q is None else ("R / sqrt(Q)", "[-1, 1]")
        raise ValueError(f"{name} = {float(np.nanmax(cosine))!r} (largest size) is out of range: allowed is {allowed}")
    if not np.all(epsilon >= 0):
        raise ValueError(f"epsilon = {float(np.min(epsilon))!r} (smallest) is out of range: allowed is >= 0")
    coords = getattr(R, "coords", {})
    points = {name: coords[name] if name in coords else getattr(mixture, name) for name in _MIXTURE}
    S = _PERCEPTRON.error(state, points, epsilon)
    if hasattr(S, "dims"):  # the dims in the order of the arguments, not of the coordinates
        arrays = (*state.values(), epsilon)
        S = S.transpose(*dict.fromkeys(dim for array in arrays for dim in getattr(array, "dims", ())))
    return _relabelled(S, "adversarial_error")


def robustness_curve(R: Any, b: Any, mixture: GaussianMixture, epsilon: Any = None, *, Q: Any = None) -> Any:
    """Return the adversarial error of one classifier, or of several, against the size of the test perturbation (exact).

    Parameters
    ----------
    R, b, mixture, Q
        As for `classification_error`: numbers, or DataArrays (their dims are kept, epsilon comes last; a coordinate
        epsilon of theirs, the training's, is called training_epsilon in the result).
    epsilon
        Increasing test perturbations >= 0, shape (epsilon,). Default: 101 values from 0 to the separation rho, the
        largest where R has several (to 1 if rho is 0).

    Returns
    -------
    DataArray
        Adversarial error with dim epsilon.

    Raises
    ------
    ValueError
        If epsilon is not one-dimensional, not increasing, or negative; or for R and Q as in `adversarial_error`.
    """
    import xarray as xr

    if epsilon is None:
        rho = getattr(R, "coords", {}).get("rho", mixture.rho)
        epsilon = np.linspace(0, float(np.max(rho)) or 1.0, 101)
    grid = np.atleast_1d(np.asarray(epsilon, np.float64))
    if grid.ndim != 1 or not np.all(np.isfinite(grid)) or np.any(np.diff(grid) <= 0):
        raise ValueError(f"epsilon = {epsilon!r} is not a grid: allowed are increasing finite numbers >= 0")
    epsilon = xr.DataArray(grid, dims="epsilon", coords={"epsilon": grid})
    R, b, Q = (None if value is None else _of_training(value) for value in (R, b, Q))
    curve = adversarial_error(R, b, mixture, epsilon, Q=Q).transpose(..., "epsilon")
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
