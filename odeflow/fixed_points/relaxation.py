"""How fast learning comes to rest, and where: relaxation times, learning times, end states."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.fixed_points.equilibria import PARAMETERS, fixed_points, parameter_table, solve_table
from odeflow.integrate import integrate, integrate_batch
from odeflow.model import Adversary, Data, GaussianMixture, LearningRule, check_constant, checked_number
from odeflow.order_parameters import Network, Perceptron
from odeflow.order_parameters.base import recorded, start_of
from odeflow.parameters import by_dims, checked_array
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["EndStates", "end_states_batch", "learning_time", "relaxation_time"]

Array = npt.NDArray[np.float64]


def relaxation_time(
    mixture: Data, rule: LearningRule, adversary: Adversary, *, network: Network = Perceptron()
) -> xr.DataArray:
    r"""Return the time in which a small deviation from each stable fixed point falls by a factor e (exact as N grows).

    Parameters
    ----------
    mixture, rule, adversary, network
        The model.

    Returns
    -------
    DataArray
        :math:`-1/\max \mathrm{Re}\,\lambda` in units of alpha, dim fixed_point in the order of `fixed_points`, with the
        order parameters that are numbers as coordinates; nan where the fixed point is unstable, inf where the rate is below the smallest float.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> time = relaxation_time(GaussianMixture(), LearningRule(), Adversary())
    >>> round(float(time[0]), 1)
    37.1
    """
    points = fixed_points(mixture, rule, adversary, network=network)
    rate = -points.eigenvalues.real.max("eigenvalue")
    state = {variable.name: points[variable.name] for variable in network.variables(rule, mixture) if not variable.dims}
    with np.errstate(divide="ignore", over="ignore"):
        time = (1 / abs(rate)).where(points.stable).assign_coords(state)
    time.attrs = {
        "long_name": "relaxation time, examples per dimension",
        "units": "1",
        **provenance("relaxation_time", mixture, rule, adversary, **recorded(network)),
    }
    result: xr.DataArray = time.rename("relaxation_time")
    return result


def learning_time(
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    *,
    error: float,
    kind: Literal["error", "adversarial_error"] = "error",
    network: Network = Perceptron(),
    start: Mapping[str, npt.ArrayLike] | None = None,
    alpha_max: float = 1e4,
    test_epsilon: float | None = None,
    **initial: npt.ArrayLike,
) -> float:
    """Return the alpha at which an error is first as small as `error` (exact as N grows; relative accuracy 1e-9).

    The trajectory is looked at on 2,000 times in geometric progression, and twice as finely again around each minimum
    of the error: a shorter dip would be missed. The crossing itself is bracketed and refined.

    Parameters
    ----------
    mixture, rule, adversary
        The seed model or a variant.
    error
        The error to reach, in [0, 1].
    kind
        Which error: "error", or "adversarial_error" at `test_epsilon`.
    network, start, **initial
        What learns, and from where, as for `integrate`.
    alpha_max
        Latest alpha to look at, > 0.
    test_epsilon
        Perturbation of the adversarial error, >= 0; default: the adversary's.

    Returns
    -------
    float
        Learning time; 0 if the error is that small at the start, inf if never until `alpha_max`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> round(learning_time(GaussianMixture(), LearningRule(), Adversary(), error=0.2), 4)
    63.5121
    """
    error = checked_number("error", error, least=0, most=1)
    check_constant(rule, adversary)
    alpha_max = checked_number("alpha_max", alpha_max, above=0)
    if kind not in ("error", "adversarial_error"):
        raise ValueError(f"kind = {kind!r}: allowed is 'error' or 'adversarial_error'")
    options: dict[str, Any] = {"test_epsilon": test_epsilon, "rtol": 1e-11, "atol": 1e-13}

    variables = network.variables(rule, mixture)

    def look(alpha: Array, state: Mapping[str, Any]) -> tuple[Array, xr.Dataset]:
        seen = integrate(mixture, rule, adversary, alpha=alpha, network=network, start=state, **options)
        return seen[kind].values - error, seen

    alpha = np.concatenate([[0.0], np.geomspace(alpha_max * 1e-7, alpha_max, 2000)])
    values = start_of(network, mixture, rule, start, initial)
    gap, seen = look(alpha, {variable.name: values[variable.start_name] for variable in variables})
    if gap[0] <= 0:
        return 0.0
    dip = (gap[1:-1] <= gap[:-2]) & (gap[1:-1] <= gap[2:])
    # between the times it may be deeper, but not by 10 times its depth: rounding of an error at rest makes no dip
    dip &= gap[1:-1] <= 10 * (np.maximum(gap[:-2], gap[2:]) - gap[1:-1])
    dips = np.flatnonzero(dip) + 1
    first = int(np.argmax(gap <= 0)) if np.any(gap <= 0) else alpha.size
    for i in [*dips[dips < first], first]:
        if i == alpha.size:
            return math.inf
        last = min(i + 1, alpha.size - 1) if i in dips else i
        offset, low, high = alpha[i - 1], 0.0, alpha[last] - alpha[i - 1]
        state = {variable.name: seen[variable.name].values[i - 1] for variable in variables}
        inside = look(np.linspace(low, high, 129), state)[0]
        while np.any(inside <= 0):
            j = max(int(np.argmax(inside <= 0)), 1)
            grid = np.linspace(low, high, inside.size)
            low, high = grid[j - 1], grid[j]
            if high - low <= 1e-10 * (offset + high):
                # between the last two, along the chord
                return float(offset + low + (high - low) * inside[j - 1] / (inside[j - 1] - inside[j]))
            grid = np.linspace(low, high, 33)
            inside = look(grid, state)[0]
    return math.inf


class EndStates(NamedTuple):
    """Where trajectories end, as plain arrays of shape (points,)."""

    R: Array
    """Overlap; 1 where the bias runs away, nan where it was not decided or no end is stable."""
    b: Array
    """Bias; +-inf where it runs away, nan as for R."""
    alpha: Array
    """Until when the trajectory was integrated to decide; inf where it was not decided."""


_DELTA_MAX = 1.3776  # bound on |delta|
_MARGINS = 17  # values of M on which the barrier is looked at
_NEAR = 1e-6  # a distance of R and b from a stable fixed point that counts as having arrived
_TIMES = (0.0, 1e1, 1e2, 1e3, 1e4, 1e5)  # when to look


def end_states_batch(*, R0: npt.ArrayLike = 0.0, b0: npt.ArrayLike = 0.0, **model: Any) -> EndStates:
    r"""Return the fixed point that each trajectory approaches as alpha grows, however slowly (exact as N grows).

    A trajectory is integrated only until it is decided. At a frozen M, the bias cannot cross the one value b_u(M) at
    which the forces balance unstably (`odeflow.fixed_points.equilibria`). A bias that is on one side of b_u for every M still to come
    (R stays above the smaller of its present value and its lower bound at rest) stays on that side, where at most one
    stable fixed point is left, or infinity; or the trajectory comes within 1e-6 of a stable fixed point. Two things are not proved: b_u is looked at on 17 values of M, and that
    there are no limit cycles is taken for granted.

    Parameters
    ----------
    R0, b0
        Initial overlap in [-1, 1] and bias. At p = 1/2 and v1 = v2 a trajectory from b0 = 0 ends at b = 0, stable or
        not; a small b0 gives the end state of a finite system.
    **model
        The seed model's parameters, as for `fixed_points_batch`; all broadcast together with R0 and b0.

    Returns
    -------
    EndStates
        Plain arrays.

    Raises
    ------
    TypeError, ValueError
        If an argument is unknown or not allowed.

    Examples
    --------
    >>> end_states_batch(p=0.3, v2=2.0, epsilon=[0.0, 1.0]).b.round(2).tolist()
    [0.57, inf]
    """
    table, R, b = _trajectories(model, R0, b0)
    ends = _ends(table)
    end = EndStates(np.full(len(table), np.nan), np.full(len(table), np.nan), np.full(len(table), np.inf))
    left = np.arange(len(table))
    for before, time in zip((0.0, *_TIMES), _TIMES, strict=False):
        if time > 0:
            columns = dict(zip(PARAMETERS, table[left].T, strict=True))
            state = integrate_batch(alpha=[time - before], R0=R[left], b0=b[left], **columns).y[:, 0]
            R[left], b[left] = state[:, 0].clip(-1, 1), state[:, 1]
        side = _side(table[left], R[left], b[left])
        side[np.isnan(ends[left, 2, 0])] = 0  # there is one end only
        for k in (-1, 1):  # it has arrived
            there = np.stack([R[left], b[left]], axis=1)
            side[np.all(np.abs(ends[left, k + 1] - there) < _NEAR, axis=1)] = k
        known = left[side < 2]
        end.R[known], end.b[known] = ends[known, side[side < 2] + 1].T
        end.alpha[known] = time
        left = left[side == 2]
        if left.size == 0:
            break
    return end


def _trajectories(model: dict[str, Any], R0: npt.ArrayLike, b0: npt.ArrayLike) -> tuple[Array, Array, Array]:
    """Return the table of parameters and the initial states, broadcast together and checked."""
    model = by_dims({**model, "R0": R0, "b0": b0})
    start = {name: checked_array(name, model.pop(name)) for name in ("R0", "b0")}
    outside = np.abs(start["R0"]) > 1
    if np.any(outside):
        raise ValueError(f"R0 = {float(start['R0'][outside].flat[0])!r} is out of range: allowed is [-1, 1]")
    try:
        shape = np.broadcast_shapes(*(np.shape(value) for value in (*start.values(), *model.values())))
    except ValueError:
        shapes = {name: np.shape(value) for name, value in {**start, **model}.items() if np.shape(value)}
        raise ValueError(f"the shapes {shapes} do not broadcast together: allowed are shapes that do") from None
    table = parameter_table({**model, "p": np.broadcast_to(model.get("p", GaussianMixture().p), shape)})
    R, b = (np.broadcast_to(values, shape).ravel().copy() for values in start.values())
    return table, R, b


def _ends(table: Array) -> Array:
    """Return R, b of where a trajectory can end, shape (points, 3, 2): below the barrier, on it, above it.

    Where there is one end only, it stands in the middle and the others are nan.
    """
    points = solve_table(table)
    v1, v2 = table[:, 2], table[:, 3]
    ends = np.full((len(table), 3, 2), np.nan)
    for i in range(len(table)):
        stable = points.stable[i]
        possible = [(R, b) for R, b in zip(points.R[i][stable], points.b[i][stable], strict=True)]
        if v2[i] >= v1[i] + 0.25:
            possible.append((1.0, math.inf))
        if v1[i] >= v2[i] + 0.25:
            possible.insert(0, (1.0, -math.inf))
        if len(possible) == 1:
            ends[i, 1] = possible[0]
        elif possible:
            ends[i, 0], ends[i, 2] = possible[0], possible[-1]
            between = ~stable & (points.b[i] > possible[0][1]) & (points.b[i] < possible[-1][1]) & (points.R[i] >= 0)
            if np.any(between):
                ends[i, 1] = points.R[i][between][0], points.b[i][between][0]
    return ends


def _side(table: Array, R: Array, b: Array) -> npt.NDArray[np.int64]:
    """Return on which side of the barrier b stays: -1 below, 0 on it, 1 above, 2 not yet known."""
    _, rho, v1, v2, eta_w, _, epsilon, second_order = table.T
    c = np.where(rho > 0, second_order * eta_w / np.maximum(rho, 1e-300) * np.maximum(v1, v2) * _DELTA_MAX, np.inf)
    least = np.minimum(R, 2 / (c + np.hypot(c, 2)))
    M = rho[:, None] / 2 * np.linspace(least, 1, _MARGINS, axis=1) - epsilon[:, None]
    # the balanced biases at a frozen M: fixed points of a model without second order
    frozen = np.repeat(table, _MARGINS, axis=0)
    frozen[:, 1], frozen[:, 6], frozen[:, 7] = 2.0, 1.0 - M.ravel(), 0.0
    balanced = solve_table(frozen)
    upper = balanced.R == 1
    barrier = np.where(upper & ~balanced.stable, balanced.b, np.nan)
    rest = np.where(upper & balanced.stable, balanced.b, np.nan)
    barrier, rest = (_first(values).reshape(M.shape) for values in (barrier, rest))
    rest = np.where(np.isnan(rest), np.copysign(np.inf, v2 - v1)[:, None], rest)
    exists = np.isfinite(barrier)
    low = np.min(np.where(exists, barrier, np.inf), axis=1)
    high = np.max(np.where(exists, barrier, -np.inf), axis=1)
    side = np.full(len(table), 2)
    side[(b < low) & np.all(exists | (rest <= low[:, None]), axis=1)] = -1
    side[(b > high) & np.all(exists | (rest >= high[:, None]), axis=1)] = 1
    side[np.all(barrier == b[:, None], axis=1)] = 0
    return side


def _first(values: Array) -> Array:
    """Return the first entry of each row that is not nan, or nan."""
    first: Array = values[np.arange(len(values)), np.argmax(~np.isnan(values), axis=1)]
    return first
