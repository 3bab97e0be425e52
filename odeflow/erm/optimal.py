r"""The best ridge and the best attack in training: those of the least adversarial error on new examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.erm.data import Data, Points
from odeflow.erm.errors import wrong
from odeflow.erm.existence import checked_data, checked_loss, largest_epsilon
from odeflow.erm.losses import Loss
from odeflow.erm.saddle import Solution, derivatives_at
from odeflow.erm.theory import NAMES, Grid, Value, check_status, grid_of, labelled, points_of, solved
from odeflow.model import MOST, numeric_parameters
from odeflow.parameters import as_numbers, checked_number, checked_switch, label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["optimal_epsilon", "optimal_ridge"]

Array = npt.NDArray[np.float64]

_RIDGES = (1e-5, 1e4)
_PER_DECADE = 1.5
_NEAR = 0.999  # of the attack at which the weights vanish


def optimal_ridge(
    data: Data,
    *,
    alpha: Value,
    loss: Literal["logistic", "hinge", "squared"] = "logistic",
    epsilon: Value = 0.0,
    bias: bool = True,
    test_epsilon: Value = None,
    bounds: tuple[float, float] = _RIDGES,
) -> xr.Dataset:
    """Return the ridge with the least adversarial error at test_epsilon, and what `solve` finds there (exact as N grows).

    A grid of 1.5 ridges a decade is searched first, and the least is then refined until its derivative, by the implicit
    function theorem, is 0.

    Parameters
    ----------
    data, alpha, loss, epsilon, bias
        As for `solve`.
    test_epsilon
        Size of the attack at which the error is to be least, >= 0; default: epsilon. Another dim, where it is an array.
    bounds
        Least and largest ridge, > 0.

    Returns
    -------
    Dataset
        That of `solve`, with the variables ridge and at_bound: whether the error still falls there, or is flat, because the
        bias has outgrown the weights and the label is constant. Of equal classes the best ridge is infinite.

    Raises
    ------
    TypeError, ValueError, ConvergenceError
        As for `solve`.

    Examples
    --------
    >>> from odeflow.erm import ProbitTeacher
    >>> round(float(optimal_ridge(ProbitTeacher(0.05), alpha=4.0).ridge), 8)
    0.00683428
    """
    problem = _problem(data, loss, bias, alpha=alpha, epsilon=epsilon, test_epsilon=test_epsilon)
    best = _best_ridge(problem, problem.grid.columns["epsilon"], _checked_bounds(bounds))
    return _result("erm.optimal_ridge", problem, best, bounds=bounds)


def optimal_epsilon(
    data: Data,
    *,
    alpha: Value,
    test_epsilon: Value,
    ridge: Value | Literal["optimal"] = "optimal",
    loss: Literal["logistic", "hinge", "squared"] = "logistic",
    bias: bool = True,
    bounds: tuple[float, float] = _RIDGES,
) -> xr.Dataset:
    """Return the training epsilon with the least adversarial error at test_epsilon, and what `solve` finds there.

    Exact as N grows. It is looked for from 0 to 0.999 of the attack at which the weights vanish, on a grid of 9 and then until
    the derivative of the error, by the implicit function theorem, is 0.

    Parameters
    ----------
    data, alpha, loss, bias, test_epsilon
        As for `solve`.
    ridge
        As for `solve`, > 0; or "optimal", the best for each epsilon.
    bounds
        Least and largest ridge where it is optimal.

    Returns
    -------
    Dataset
        That of `solve`, with the variables epsilon, ridge and at_bound: whether epsilon or the ridge is at an end of its range.

    Raises
    ------
    TypeError, ValueError, ConvergenceError
        As for `solve`.

    Examples
    --------
    >>> from odeflow import GaussianMixture
    >>> best = optimal_epsilon(GaussianMixture(p=0.7), alpha=4.0, test_epsilon=0.5, ridge=0.1)
    >>> round(float(best.epsilon), 3)
    0.749
    """
    given: dict[str, Value] = {"alpha": alpha} | ({} if isinstance(ridge, str) else {"ridge": ridge})
    if isinstance(ridge, str) and ridge != "optimal":
        raise ValueError(f"ridge = {ridge!r}: allowed are numbers > 0, and 'optimal'")
    problem = _problem(data, loss, bias, **given, test_epsilon=test_epsilon)
    low, high = _checked_bounds(bounds)
    columns = problem.grid.columns
    most = _NEAR * largest_epsilon(problem.points, columns["alpha"], bias=problem.bias)

    best = _best_epsilon(problem, most, None if isinstance(ridge, str) else columns["ridge"], (low, high))
    return _result("erm.optimal_epsilon", problem, best, bounds=(low, high))


class _Problem(NamedTuple):
    """What is to be optimised, at all points of a grid at once."""

    data: Data
    loss: Loss
    bias: bool
    grid: Grid
    points: Points
    test: Array

    def error(self, theta: Array) -> Array:
        """Return the adversarial error of overlaps, inf where there are none."""
        r = np.hypot(theta[:, 0], theta[:, 1])
        return np.nan_to_num(wrong(self.points, theta[:, 0] / r, theta[:, 2] / r, self.test), nan=np.inf)


class _Best(NamedTuple):
    """The best so far at each point."""

    ridge: Array
    epsilon: Array
    found: Solution
    error: Array
    at_bound: npt.NDArray[np.bool_]


def _problem(data: Data, loss: str, bias: bool, *, test_epsilon: Value, **values: Value) -> _Problem:
    checked_data(data)
    kind = checked_loss(loss)
    if "ridge" in values and not np.all(as_numbers("ridge", values["ridge"]) > 0):
        raise ValueError("ridge = 0.0 is out of range: allowed is a finite number > 0")
    same = test_epsilon is None
    grid = grid_of(data, **values, **({} if same else {"test_epsilon": test_epsilon}))
    points = points_of(data, grid.columns["alpha"].size)
    bias = checked_switch("bias", bias) and "p" in numeric_parameters(data)
    return _Problem(data, kind, bias, grid, points, grid.columns["epsilon" if same else "test_epsilon"])


def _best_ridge(problem: _Problem, epsilon: Array, bounds: tuple[float, float], near: _Best | None = None) -> _Best:
    """Return the best ridge at each point: near that of another epsilon, or of all between the bounds."""
    low, high = np.log(bounds)
    if near is None:
        grid = np.linspace(low, high, max(int(_PER_DECADE * (high - low) / np.log(10)) + 1, 3))
        tried: list[Solution] = []
        for x in grid[::-1]:  # from the largest, where the weights are short; each from the solution of the one before
            tried.append(_at(problem, epsilon, np.full(epsilon.size, np.exp(x)), tried[-1].theta if tried else None))
        tried.reverse()
        k = np.argmin([problem.error(one.theta) for one in tried], axis=0)
        start = np.stack([one.theta for one in tried])[k, np.arange(k.size)]
        x = grid[k]
    else:
        x, start = np.log(near.ridge), near.found.theta
    now = [start]

    def slope(x: Array) -> Array:
        slope, found = _slope(problem, epsilon, np.exp(x), now[0], "ridge")
        now[0] = _filled(found.theta, now[0])
        return slope

    x, at_bound = _minimum(slope, x, low, high, 0.2)
    found = _at(problem, epsilon, np.exp(x), now[0])
    error = problem.error(found.theta)
    if near is None:  # what falls to the last digits before it reaches the bound
        at_bound |= np.minimum(*(problem.error(tried[i].theta) for i in (0, -1))) <= error + 1e-13
    return _Best(np.exp(x), epsilon, found, error, at_bound)


def _best_epsilon(problem: _Problem, most: Array, ridge: Array | None, bounds: tuple[float, float]) -> _Best:
    """Return the best epsilon from 0 to `most` at each point, with the ridge that is given, or the best one."""

    def at(share: Array, near: _Best | None) -> _Best:
        if ridge is None:
            return _best_ridge(problem, share * most, bounds, near)
        found = _at(problem, share * most, ridge, None if near is None else near.found.theta)
        return _Best(ridge, share * most, found, problem.error(found.theta), np.zeros(most.size, bool))

    grid = np.linspace(0, 1, 9)
    tried: list[_Best] = []
    for share in grid:
        tried.append(at(np.full(most.size, share), tried[-1] if tried else None))
    k = np.argmin([one.error for one in tried], axis=0)
    now = tried[0]
    for i, one in enumerate(tried):
        now = _where(k == i, one, now)
    nearby = [now]

    def slope(share: Array) -> Array:
        """Return the derivative by epsilon, which at the best ridge is that at a fixed ridge."""
        nearby[0] = at(share, nearby[0])
        return _slope(problem, share * most, nearby[0].ridge, nearby[0].found.theta, "epsilon")[0]

    share, at_bound = _minimum(slope, grid[k], 0.0, 1.0, 0.02)
    best = at(share, nearby[0])
    return best._replace(at_bound=best.at_bound | at_bound)


def _minimum(
    slope: Callable[[Array], Array], x: Array, low: float, high: float, step: float
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return the minimum between the bounds to which a function falls from x, by its slope, and whether it is at a bound.

    Downhill by steps that double until the slope turns, then by secants and bisection. What is flat at x stays there.
    """
    first = slope(x)
    a, b, slope_a, slope_b = x, x, first, first
    ahead = -np.sign(first)
    on = (first != 0) & np.where(ahead > 0, x < high, x > low)
    at_bound = ~on
    while np.any(on):
        y = np.where(on, np.clip(x + ahead * step, low, high), x)
        here = slope(y)
        turned = on & (here * ahead >= 0)
        up, down = turned & (ahead > 0), turned & (ahead < 0)
        a, slope_a = np.where(up, x, np.where(down, y, a)), np.where(up, first, np.where(down, here, slope_a))
        b, slope_b = np.where(up, y, np.where(down, x, b)), np.where(up, here, np.where(down, first, slope_b))
        stuck = on & ~turned & ((y == low) | (y == high))
        at_bound |= stuck
        a, b = np.where(stuck, y, a), np.where(stuck, y, b)
        x, first = np.where(on & ~turned, y, x), np.where(on & ~turned, here, first)
        on &= ~turned & ~stuck
        step *= 2
    return _root(slope, a, b, slope_a, slope_b, 1e-9), at_bound


def _root(
    slope: Callable[[Array], Array], a: Array, b: Array, slope_a: Array, slope_b: Array, tolerance: float
) -> Array:
    """Return where a slope turns from negative at a to positive at b, by secants and bisection; a where b is the same."""
    before = b - a
    for i in range(100):
        # the secant's root and a little beyond, so that the other end moves, too; the middle where that was slow
        with np.errstate(all="ignore"):
            guess = a - slope_a * (b - a) / (slope_b - slope_a)
        guess = guess + np.where(guess - a < b - guess, 0.4, -0.4) * np.minimum(tolerance, b - a)
        slow = (i % 3 == 2) & (b - a > before / 4)
        before = b - a if i % 3 == 2 else before
        x = np.where(np.isfinite(guess) & (guess > a) & (guess < b) & ~slow, guess, (a + b) / 2)
        if np.all(b - a <= tolerance):
            break
        here = slope(x)
        a, slope_a = np.where(here <= 0, x, a), np.where(here <= 0, here, slope_a)
        b, slope_b = np.where(here >= 0, x, b), np.where(here >= 0, here, slope_b)
    return np.where(a == b, a, (a + b) / 2)


def _columns(problem: _Problem, epsilon: Array, ridge: Array) -> dict[str, Array]:
    return {"alpha": problem.grid.columns["alpha"], "epsilon": epsilon, "ridge": ridge}


def _at(problem: _Problem, epsilon: Array, ridge: Array, start: Array | None) -> Solution:
    """Return the solutions from a start, and again from none where that fails."""
    columns = _columns(problem, epsilon, ridge)
    found = solved(problem.points, problem.loss, columns, bias=problem.bias, start=start)
    failed = found.status != 0  # from there
    if start is not None and np.any(failed):
        some: dict[str, Array] = {name: column[failed] for name, column in columns.items()}
        again = solved({name: c[failed] for name, c in problem.points.items()}, problem.loss, some, bias=problem.bias)
        found.theta[failed], found.status[failed] = again.theta, again.status
        found.training_loss[failed] = again.training_loss
    return found


def _filled(theta: Array, start: Array | None) -> Array:
    return theta if start is None else np.where(np.isnan(theta), start, theta)


def _slope(problem: _Problem, epsilon: Array, ridge: Array, start: Array | None, by: str) -> tuple[Array, Solution]:
    """Return the derivative of the error by the logarithm of the ridge, or by epsilon, and the solutions."""
    found = _at(problem, epsilon, ridge, start)
    theta = found.theta
    good = found.status == 0
    columns = _columns(problem, epsilon, ridge)
    with np.errstate(invalid="ignore"):
        H = derivatives_at(problem.points, problem.loss, columns, theta).hessian
        if by == "ridge":
            push = np.stack([theta[:, 0], theta[:, 1], 0 * theta[:, 0], 0 * theta[:, 0]], axis=1) * ridge[:, None]
        else:
            h = 1e-6 * (1 + epsilon)
            ahead, behind = (
                derivatives_at(problem.points, problem.loss, {**columns, "epsilon": epsilon + sign * h}, theta).gradient
                for sign in (1, -1)
            )
            push = (ahead - behind) / (2 * h[:, None])
    # the solution moves by -H^-1 push; the error along its path, a closed form, by central differences
    free = np.array([True, True, problem.bias, True])
    H, push = H[good][:, free][:, :, free], push[good][:, free]
    moves = np.zeros((np.count_nonzero(good), 4))
    moves[:, free] = -np.linalg.solve(H, push[..., None])[..., 0]
    r = np.hypot(theta[good, 0], theta[good, 1])
    step = np.zeros(len(theta))
    step[good] = 1e-4 * r / np.maximum(np.max(np.abs(moves), axis=1), 1e-300)
    path = np.zeros_like(theta)
    path[good] = moves
    slope = np.zeros(len(theta))
    higher, lower = (problem.error(theta + sign * step[:, None] * path) for sign in (1, -1))
    slope[good] = (higher[good] - lower[good]) / (2 * step[good])
    return slope, found


def _where(which: npt.NDArray[np.bool_], one: _Best, other: _Best) -> _Best:
    """Return at each point the one or the other."""

    def chosen(a: Any, b: Any) -> Any:
        if isinstance(a, Solution):
            return Solution(*map(chosen, a, b))
        return np.where(which[:, None] if a.ndim == 2 else which, a, b)

    return _Best(*map(chosen, one, other))


def _checked_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    low = checked_number("bounds[0]", bounds[0], above=0)
    return low, checked_number("bounds[1]", bounds[1], above=low, most=MOST)


def _result(function: str, problem: _Problem, best: _Best, **options: Any) -> xr.Dataset:
    """Return a result at the best points."""
    import xarray as xr

    grid = problem.grid
    columns: Mapping[str, Array] = {**grid.columns, "epsilon": best.epsilon}
    check_status(best.found.status, problem.points, problem.loss, {**columns, "ridge": best.ridge}, problem.bias)
    variables = labelled(
        problem.data, grid._replace(columns=dict(columns)), best.found, grid.coords.get("test_epsilon")
    )
    for name, values in {"ridge": best.ridge, "epsilon": best.epsilon, "at_bound": best.at_bound}.items():
        if name not in grid.columns:
            attributes = {"long_name": NAMES[name], "units": "1"}
            variables[name] = xr.DataArray(values.reshape(grid.shape), grid.coords, grid.dims, name, attributes)
    attrs = provenance(function, problem.data, loss=problem.loss.name, bias=problem.bias, **options)
    return label(xr.Dataset(variables, attrs=attrs))
