r"""Adversarial empirical risk minimisation as N grows: overlaps and errors of the minimiser, as labelled results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.erm.data import Data, Points
from odeflow.erm.errors import MEASURES, measures
from odeflow.erm.existence import checked_data, checked_loss, largest_epsilon, threshold_at
from odeflow.erm.losses import Loss
from odeflow.erm.saddle import Solution, saddle
from odeflow.model import MOST, numeric_parameters
from odeflow.parameters import Range, as_numbers, checked_switch, label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "NAMES",
    "STATUS",
    "ConvergenceError",
    "Grid",
    "Value",
    "checked_failure",
    "grid_of",
    "labelled",
    "solve",
    "solved",
]

Array = npt.NDArray[np.float64]
Value = Any
"""A number, an array of one dimension, or a DataArray."""

STATUS = {
    0: "done",
    1: "not converged: nearby values of epsilon and ridge may be",
    2: "the weights vanish: the attack is stronger than what the examples say, and the minimiser is w = 0",
    3: "no minimiser without a ridge: the attacked examples can be fitted without loss",
}
"""What a status means."""

_BLOCK = 512  # points whose nodes are in memory together
_RANGES = {
    "alpha": Range(above=0, most=MOST),
    "epsilon": Range(least=0, most=MOST),
    "ridge": Range(least=0, most=MOST),
    "test_epsilon": Range(least=0, most=MOST),
}


class ConvergenceError(RuntimeError):
    """The equations could not be solved at a point; the message says which and why."""


class Grid(NamedTuple):
    """Points that the arguments span: columns of shape (points,), and what they are called in the result."""

    columns: dict[str, Array]
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    coords: dict[str, Any]


def solve(
    data: Data,
    *,
    alpha: Value,
    ridge: Value,
    loss: Literal["logistic", "hinge", "squared"] = "logistic",
    epsilon: Value = 0.0,
    bias: bool = True,
    test_epsilon: Value = None,
    on_failure: Literal["raise", "return"] = "raise",
) -> xr.Dataset:
    r"""Return overlaps and errors of the classifier that minimises the attacked loss on alpha N examples (exact as N grows).

    .. math::
        (w, b) = \arg\min \sum_{i=1}^{\alpha N} \ell\bigl(y_i(w\cdot x_i - b) - \varepsilon|w|\bigr)
        + \tfrac12 \lambda N |w|^2

    The equations are those of section 8 of the theory page.

    Parameters
    ----------
    data
        `GaussianMixture`, or `ProbitTeacher`, whose classifier has no bias.
    alpha
        Examples per dimension, > 0.
    ridge
        lambda, >= 0. In the notation with inputs divided by sqrt(d) it is the factor of |w|^2/2.
    loss
        Of the margin after the attack: "logistic", "hinge", or "squared", (1 - t)^2/2.
    epsilon
        Size of the attack in training, >= 0 (L2).
    bias
        Whether a mixture's classifier has a bias; otherwise b = 0.
    test_epsilon
        Size of the attack at which the errors are evaluated, >= 0; default: epsilon.
    on_failure
        What to do if there is a point without a result: raise, or return nan there and a `status` other than 0.

    alpha, ridge, epsilon and test_epsilon are numbers or arrays; each array is a dim of the result, of its name. DataArrays
    keep their own dims, so that ridge can be one number for each alpha.

    Returns
    -------
    Dataset
        m = w.B, q = :math:`|w|^2`, V (the width of the proximal map, per variance), R = :math:`m/\sqrt q`, b, training_loss
        (mean attacked loss of the training's examples); error, adversarial_error, and by attacks orthogonal to B
        misclassification_error, flipped_error, boundary_error; status.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed: among them a ridge of 0 where the attacked examples can be fitted without loss, and an
        epsilon at which the minimiser is w = 0; the message has the threshold.
    ConvergenceError
        If the equations cannot be solved.

    References
    ----------
    Tanner, Vilucchio, Loureiro and Krzakala, AISTATS 2025 (teacher); Vilucchio, Zdeborova and Loureiro, arXiv:2506.12454
    (errors by attacks that keep the label). For the mixture the equations are derived on the theory page.

    Examples
    --------
    >>> from odeflow.erm import ProbitTeacher
    >>> found = solve(ProbitTeacher(), alpha=4.0, ridge=0.01, epsilon=0.3)
    >>> round(float(found.adversarial_error), 8)
    0.26313307
    """
    import xarray as xr

    checked_data(data)
    kind = checked_loss(loss)
    checked_failure(on_failure)
    grid = grid_of(data, alpha=alpha, epsilon=epsilon, ridge=ridge)
    bias = checked_switch("bias", bias) and "p" in numeric_parameters(data)
    points = points_of(data, grid.columns["alpha"].size)
    found = solved(points, kind, grid.columns, bias=bias)
    if on_failure == "raise":
        check_status(found.status, points, kind, grid.columns, bias)
    variables = labelled(data, grid, found, test_epsilon)
    attrs = provenance("erm.solve", data, loss=loss, bias=bias)
    return label(xr.Dataset(variables, attrs=attrs))


def grid_of(data: Data, **values: Value) -> Grid:
    """Return the points that arguments span, each checked against its range."""
    import xarray as xr

    arrays = {}
    for name, value in values.items():
        array = value if hasattr(value, "dims") else as_numbers(name, value)
        if array.ndim > 1 and not hasattr(array, "dims"):
            raise ValueError(
                f"{name} has shape {array.shape}: allowed are numbers, arrays of one dimension, and DataArrays"
            )
        good = _RANGES[name].contains(array)
        if array.size == 0 or not np.all(good):
            bad = "an empty array" if array.size == 0 else repr(float(np.asarray(array)[~good][0]))
            raise ValueError(f"{name} = {bad} is out of range: allowed is a finite number {_RANGES[name]}")
        dims = array.dims if hasattr(array, "dims") else (name,) * array.ndim
        coords = (
            {key: c for key, c in getattr(array, "coords", {}).items() if key in dims} if hasattr(array, "dims") else {}
        )
        if dims == (name,) and not coords:
            coords = {name: np.asarray(array)}
        arrays[name] = xr.DataArray(np.asarray(array), coords, dims)
    try:
        aligned = xr.align(*arrays.values(), join="exact", copy=False)
    except ValueError as error:
        raise ValueError(f"{', '.join(arrays)} have different coordinates along a dim they share: {error}") from None
    whole = xr.broadcast(*aligned)
    columns = {name: np.array(array.values, np.float64).ravel() for name, array in zip(arrays, whole, strict=True)}
    coords = {**whole[0].coords, **{name: array for name, array in arrays.items() if name not in whole[0].dims}}
    return Grid(columns, tuple(map(str, whole[0].dims)), whole[0].shape, {**numeric_parameters(data), **coords})


def points_of(data: Data, count: int) -> Points:
    """Return the parameters of the data, the same at all points."""
    return {name: np.full(count, value) for name, value in numeric_parameters(data).items()}


def solved(
    points: Points, loss: Loss, columns: Mapping[str, Array], *, bias: bool, start: Array | None = None
) -> Solution:
    """Return the saddle points, nan where there is none, with a status each."""
    alpha, epsilon, ridge = columns["alpha"], columns["epsilon"], columns["ridge"]
    theta = np.full((alpha.size, 4), np.nan)
    status, training_loss = np.zeros(alpha.size, np.int8), np.full(alpha.size, np.nan)
    status[epsilon >= largest_epsilon(points, alpha, bias=bias)] = 2
    for i in np.flatnonzero((ridge == 0) & (status == 0)):
        one = {name: column[i : i + 1] for name, column in points.items()}
        status[i] = 3 * (alpha[i] <= threshold_at(one, loss, float(epsilon[i]), bias))
    good = np.flatnonzero(status == 0)
    for first in range(0, good.size, _BLOCK):
        rows = good[first : first + _BLOCK]
        some = {name: column[rows] for name, column in points.items()}
        begin = None if start is None or np.any(np.isnan(start[rows])) else start[rows]
        part = saddle(some, loss, alpha[rows], epsilon[rows], ridge[rows], bias=bias, start=begin)
        status[rows] = part.status
        fine = part.status == 0
        theta[rows[fine]], training_loss[rows[fine]] = part.theta[fine], part.training_loss[fine]
    return Solution(theta, status, training_loss)


def check_status(
    status: npt.NDArray[np.int8], points: Points, loss: Loss, columns: Mapping[str, Array], bias: bool
) -> None:
    """Raise an error at the first point that has no result."""
    if not np.any(status):
        return
    i = int(np.argmax(status != 0))
    at = {name: float(column[i]) for name, column in columns.items()}
    one = {name: column[i : i + 1] for name, column in points.items()}
    where = ", ".join(f"{name} = {value:g}" for name, value in at.items())
    if status[i] == 3:
        threshold = threshold_at(one, loss, at["epsilon"], bias)
        raise ValueError(
            f"ridge = 0 with {loss.name} loss, alpha = {at['alpha']:g} and epsilon = {at['epsilon']:g}: the attacked examples can be "
            f"fitted without loss up to alpha = {threshold:.6g}, and there is no single minimiser; allowed is a ridge > 0, or a larger "
            "alpha"
        )
    if status[i] == 2:
        most = float(largest_epsilon(one, np.array([at["alpha"]]), bias=bias)[0])
        below = f"epsilon < {most:.6g}" if at["epsilon"] >= most else "a smaller epsilon, or another loss"
        raise ValueError(f"epsilon = {at['epsilon']:g} is too large ({where}): {STATUS[2]}; allowed is {below}")
    raise ConvergenceError(f"{where}, {loss.name} loss: {STATUS[1]}; on_failure='return' gives the other points")


def checked_failure(on_failure: str) -> None:
    """Raise a ValueError if `on_failure` is neither of its values."""
    if on_failure not in ("raise", "return"):
        raise ValueError(f"on_failure = {on_failure!r}: allowed is 'raise' or 'return'")


def labelled(data: Data, grid: Grid, found: Solution, test_epsilon: Value = None) -> dict[str, xr.DataArray]:
    """Return the variables of a result at the points of a grid."""
    import xarray as xr

    def named(values: npt.ArrayLike, name: str) -> xr.DataArray:
        long_name = {**MEASURES, **NAMES}[name]
        array = np.asarray(values).reshape(grid.shape)
        return xr.DataArray(array, grid.coords, grid.dims, name, {"long_name": long_name, "units": "1"})

    m, s, b, beta = found.theta.T
    r = np.hypot(m, s)
    variables = {"m": named(m, "m"), "q": named(r**2, "q"), "V": named(s / beta, "V"), "R": named(m / r, "R")}
    if "p" in numeric_parameters(data):
        variables["b"] = named(b, "b")
    variables["training_loss"] = named(found.training_loss, "training_loss")
    if test_epsilon is None:
        test = named(grid.columns["epsilon"], "status")
    else:
        given = grid_of(data, test_epsilon=test_epsilon)
        test = xr.DataArray(given.columns["test_epsilon"].reshape(given.shape), given.coords, given.dims)
    try:
        R, bias, test = xr.broadcast(variables["R"], named(b / r, "b"), test.reset_coords(drop=True))
    except ValueError as error:
        raise ValueError(f"test_epsilon has different coordinates along a dim: {error}") from None
    points = points_of(data, R.size)
    errors = measures(points, R.values.ravel(), bias.values.ravel(), test.values.ravel())
    clean = errors.pop("error").reshape(R.shape)
    variables["error"] = named(clean[tuple(slice(None) if dim in grid.dims else 0 for dim in R.dims)], "error")
    for name, values in errors.items():
        attributes = {"long_name": MEASURES[name], "units": "1"}
        variables[name] = xr.DataArray(values.reshape(R.shape), R.coords, R.dims, name, attributes)
        if "test_epsilon" not in R.dims:
            coordinate = grid.coords["epsilon"] if test_epsilon is None else test_epsilon
            variables[name] = variables[name].assign_coords(test_epsilon=_plain(coordinate))
    variables["status"] = named(found.status, "status")
    variables["status"].attrs["meaning"] = "; ".join(f"{code}: {text}" for code, text in STATUS.items())
    return variables


def _plain(coordinate: Any) -> Any:
    """Return a coordinate without coordinates of its own."""
    return coordinate.reset_coords(drop=True) if hasattr(coordinate, "reset_coords") else coordinate


NAMES = {
    "m": "overlap of the weights with the true direction",
    "q": "squared length of the weights",
    "V": "width of the proximal map, per variance",
    "R": "cosine of the angle between the weights and the true direction",
    "b": "bias",
    "training_loss": "mean attacked loss of the training's examples",
    "status": "status of the solution",
    "ridge": "ridge",
    "epsilon": "size of the perturbation in training",
    "at_bound": "whether the optimum is at the end of the range",
}
