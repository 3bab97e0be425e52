r"""Classification error, adversarial error and robustness curves of a linear classifier (exact at any N).

Section 1.3 of the theory page for perceptrons, whose arguments broadcast; where one is a DataArray, so is the result. All of
it is `Perceptron.error`, which `integrate`, `simulate` and `sweep` use for their errors too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from odeflow.model import GaussianMixture, check_parts
from odeflow.order_parameters import Perceptron
from odeflow.parameters import as_numbers, label
from odeflow.provenance import provenance

__all__ = ["adversarial_error", "classification_error", "of_training", "prepared", "relabelled", "robustness_curve"]

_PERCEPTRON = Perceptron()
_MIXTURE = ("p", "rho", "v1", "v2")


def classification_error(R: Any, b: Any, mixture: GaussianMixture, *, Q: Any = None) -> Any:
    r"""Return the probability that the classifier (R, b) errs on a new example (exact).

    Parameters
    ----------
    R
        Overlap w.B in [-1, 1], or in [-sqrt(Q), sqrt(Q)]; a number, array or DataArray. Where it or b is nan, as of a
        trajectory that failed, so is the result.
    b
        Bias; any real number, or infinite (a constant classifier).
    mixture
        The data. What R, b or Q has as coordinates, such as the swept parameters of a result, goes before it.
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
        If an R is outside its range, a Q is not positive and finite, Q is missing for a result of free weights, or the
        arguments are of different points.

    Examples
    --------
    >>> round(float(classification_error(1.0, 0.0, GaussianMixture())), 8)
    0.15865525
    """
    return relabelled(adversarial_error(R, b, mixture, 0.0, Q=Q), "error")


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
        If an epsilon is negative, or as for `classification_error`.
    """
    state, points = prepared({"R": R, "b": b, "epsilon": epsilon}, mixture, Q)
    epsilon = state.pop("epsilon")
    if not np.all(epsilon >= 0):
        raise ValueError(f"epsilon = {float(np.min(epsilon))!r} (smallest) is out of range: allowed is >= 0")
    try:
        S = _PERCEPTRON.error(state, points, epsilon)
    except ValueError as error:
        shapes = {name: np.shape(value) for name, value in {**state, "epsilon": epsilon}.items()}
        raise ValueError(f"the shapes {shapes} do not broadcast together: allowed are shapes that do") from error
    if hasattr(S, "dims"):  # the dims in the order of the arguments, not of the coordinates
        arrays = (*state.values(), epsilon)
        S = S.transpose(*dict.fromkeys(dim for array in arrays for dim in getattr(array, "dims", ())))
    return relabelled(S, "adversarial_error")


def prepared(given: dict[str, Any], mixture: GaussianMixture, Q: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return R, b, Q if it is given, and what goes with them as arrays or DataArrays, and the mixture's parameters of each."""
    check_parts(mixture=mixture)
    given = given | ({} if Q is None else {"Q": Q})
    state = {name: _numbers(name, value) for name, value in given.items()}
    coords = _coordinates({name: value for name, value in state.items() if hasattr(value, "dims")})
    if Q is None and "Q0" in coords:
        raise ValueError("Q = None: R is of weights that are not normalised (it has the coordinate Q0): give their Q")
    if Q is not None:
        _check("Q", state["Q"], (state["Q"] > 0) & (state["Q"] < np.inf), "a finite number > 0")
    # the tolerance of a trajectory, where it is divided by sqrt(Q)
    cosine = np.abs(state["R"] if Q is None else state["R"] / np.sqrt(state["Q"]))
    _check("R" if Q is None else "R / sqrt(Q)", cosine, cosine <= 1 + (1e-9 if Q is None else 1e-6), "in [-1, 1]")
    return state, {name: coords[name] if name in coords else getattr(mixture, name) for name in _MIXTURE}


def _numbers(name: str, value: Any) -> Any:
    """Return a DataArray as it is, and what else is a number or an array of numbers as an array."""
    return value if hasattr(value, "dims") else as_numbers(name, value)


def _check(name: str, values: Any, good: Any, allowed: str) -> None:
    """Raise a ValueError if a value that is not nan is not good."""
    bad = np.asarray(values)[~np.asarray(good) & ~np.isnan(np.asarray(values))]
    if bad.size:
        raise ValueError(f"{name} = {float(bad[0])!r} is out of range: allowed is {allowed}")


def _coordinates(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return the coordinates of DataArrays, which must not contradict each other."""
    import xarray as xr

    coords: dict[str, Any] = {}
    for name, array in arrays.items():
        for key in array.coords:
            if key in ("epsilon", "training_epsilon", "test_epsilon"):  # the training's, or the test's
                continue
            if not coords.setdefault(key, array.coords[key]).equals(array.coords[key]):
                raise ValueError(
                    f"{name} and another argument have different coordinates {key!r}: allowed are states of the same points"
                )
    try:
        xr.align(*arrays.values(), join="exact", copy=False)
    except ValueError as error:
        raise ValueError(f"{', '.join(arrays)} are of different points: {error}") from None
    return coords


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
        rho = [getattr(value, "coords", {}).get("rho", mixture.rho) for value in (R, b, Q)]
        epsilon = np.linspace(0, max(float(np.max(values)) for values in rho) or 1.0, 101)
    grid = np.atleast_1d(np.asarray(epsilon, np.float64))
    if grid.ndim != 1 or not np.all(np.isfinite(grid)) or np.any(np.diff(grid) <= 0):
        raise ValueError(f"epsilon = {epsilon!r} is not a grid: allowed are increasing finite numbers >= 0")
    epsilon = xr.DataArray(grid, dims="epsilon", coords={"epsilon": grid})
    R, b, Q = (None if value is None else of_training(value) for value in (R, b, Q))
    curve = adversarial_error(R, b, mixture, epsilon, Q=Q).transpose(..., "epsilon")
    return label(curve.assign_attrs(provenance("robustness_curve", mixture)))


def of_training(values: Any) -> Any:
    """Return a DataArray whose coordinate epsilon, the training's, is out of the way of the test's."""
    import xarray as xr

    values = xr.DataArray(values).drop_vars("test_epsilon", errors="ignore")
    return values.rename(epsilon="training_epsilon") if "epsilon" in values.coords else values


def relabelled(values: Any, name: str) -> Any:
    """Give a DataArray the name and labels of an error; other arrays pass, 0-d ones as numbers."""
    if hasattr(values, "dims"):
        values = values.rename(name)
        values.attrs.clear()
        return label(values)
    return values[()]
