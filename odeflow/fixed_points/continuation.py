"""Branches of fixed points along one parameter, with the bifurcations between them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.fixed_points.equilibria import PARAMETERS, FixedPoints, fixed_points_batch, seed_parameters
from odeflow.fixed_points.phases import KINDS, with_kinds
from odeflow.model import Adversary, GaussianMixture, LearningRule
from odeflow.parameters import label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["branches"]

Array = npt.NDArray[np.float64]


def branches(
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    parameter: str = "epsilon",
    values: npt.ArrayLike,
) -> xr.Dataset:
    """Follow the fixed points along one parameter, and locate where they change (exact as N grows).

    All fixed points with R >= 0 are found at each of the values and joined to branches by nearness. Between two values at
    which their number or stability differs, the place of the change is bracketed down to 1e-11 of the parameter's size.
    (Two changes between neighbouring values that undo each other are not seen.)

    Parameters
    ----------
    mixture, rule, adversary
        The seed model; its value of `parameter` is not used.
    parameter
        Any parameter of the seed model that is a number.
    values
        Increasing values of the parameter, at least two, shape (parameter,).

    Returns
    -------
    Dataset
        R, b, stable, growth_rate (the largest real part of the eigenvalues) with the dims branch and `parameter`, nan
        (stable: False) where a branch does not exist. With dim bifurcation: the place as bifurcation_`parameter`,
        bifurcation_R, bifurcation_b, and kind (index into `odeflow.fixed_points.phases.KINDS`).

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> result = branches(GaussianMixture(), LearningRule(), Adversary(), values=np.linspace(0, 2, 21))
    >>> result.bifurcation_epsilon.values.round(6).tolist()
    [1.378416]
    """
    import xarray as xr

    model = seed_parameters(mixture, rule, adversary)
    allowed = [name for name in PARAMETERS if name != "second_order"]
    if parameter not in allowed:
        raise ValueError(f"parameter = {parameter!r} is unknown: allowed is one of {', '.join(allowed)}")
    grid = np.asarray(values, np.float64)
    if grid.ndim != 1 or grid.size < 2 or not np.all(np.diff(grid) > 0):
        raise ValueError(f"values = {values!r} is not a grid: allowed are at least two increasing numbers")

    def solve(at: Array) -> FixedPoints:
        return fixed_points_batch(**{**model, parameter: at})

    points = solve(grid)
    joined = _joined(points)
    dims = ("branch", parameter)
    data: dict[str, Any] = {name: (dims, values) for name, values in joined.items()}
    symmetric = mixture.p == 0.5 and mixture.v1 == mixture.v2 and parameter not in ("p", "v1", "v2")
    located = [place for low, high in pairwise(grid.tolist()) for place in _changes(solve, low, high, symmetric)]
    if parameter in ("v1", "v2"):  # a far fixed point leaves or comes where the variances differ by 1/4, exactly
        other = model["v2" if parameter == "v1" else "v1"]
        located = [
            (other + math.copysign(0.25, at - other), R, math.copysign(math.inf, b), kind)
            if kind == KINDS.index("from_infinity") else (at, R, b, kind)
            for at, R, b, kind in located
        ]  # fmt: skip
    columns = np.array(located).reshape(-1, 4).T
    for name, column in zip((parameter, "R", "b"), columns, strict=False):
        data[f"bifurcation_{name}"] = ("bifurcation", column)
    data["kind"] = ("bifurcation", columns[3])
    del model["second_order"], model[parameter]
    attrs = provenance("branches", mixture, rule, adversary, parameter=parameter, values=grid)
    result = with_kinds(label(xr.Dataset(data, {parameter: grid, **model}, attrs)))
    names = {
        "stable": "whether small deviations decay",
        "growth_rate": "largest real part of the eigenvalues, per unit of alpha",
        f"bifurcation_{parameter}": f"{parameter} at the bifurcation",
        "bifurcation_R": "R at the bifurcation",
        "bifurcation_b": "b at the bifurcation",
    }
    for name, text in names.items():
        result[name].attrs = {"long_name": text, "units": "1"}
    return result


def _joined(points: FixedPoints) -> dict[str, Any]:
    """Return R, b, stable and growth_rate of shape (branch, value): fixed points of neighbouring values are joined."""
    states = []
    for i in range(len(points.count)):
        kept = np.flatnonzero(points.R[i] >= 0)
        states.append(
            [(points.R[i, j], points.b[i, j], points.stable[i, j], points.eigenvalues[i, j].real.max()) for j in kept]
        )
    rows: list[dict[int, tuple[float, ...]]] = []
    before: list[int] = []
    one: Any
    for i, state in enumerate(states):
        ends = [rows[branch][i - 1][:2] for branch in before]
        now = [-1] * len(state)
        for old, new in _matched(ends, [one[:2] for one in state]):
            now[new] = before[old]
        for j, one in enumerate(state):
            if now[j] < 0:
                now[j] = len(rows)
                rows.append({})
            rows[now[j]][i] = one
        before = now
    shape = (len(rows), len(states))
    R, b, rate, stable = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, np.nan), np.zeros(shape, bool)
    for k, row in enumerate(rows):
        for i, one in row.items():
            R[k, i], b[k, i], stable[k, i], rate[k, i] = one
    return {"R": R, "b": b, "stable": stable, "growth_rate": rate}


def _matched(old: Sequence[Any], new: Sequence[Any]) -> list[tuple[int, int]]:
    """Return the pairs of indices that join the shorter list to the longer in order, at the least total distance."""
    if len(old) > len(new):
        return [(i, j) for j, i in _matched(new, old)]
    places = combinations(range(len(new)), len(old))
    best = min(places, key=lambda chosen: sum(math.dist(old[i], new[j]) for i, j in enumerate(chosen)))
    return list(enumerate(best))


def _signature(points: FixedPoints) -> npt.NDArray[np.int64]:
    """Return the number of fixed points with R >= 0 and of stable ones, as one integer a point."""
    return np.asarray(8 * np.sum(points.R >= 0, axis=1) + np.sum(points.stable, axis=1))


def _changes(
    solve: Callable[[Array], FixedPoints], low: float, high: float, symmetric: bool
) -> list[tuple[float, float, float, int]]:
    """Return all places between two values where the signature changes: parameter, R, b, kind.

    What happens within 1e-9 of the parameter's size is taken as one place.
    """
    places: list[tuple[float, float, float, int]] = []
    scale = max(abs(low), abs(high))
    while True:
        first, last = _signature(solve(np.array([low, high])))
        if first == last:
            return places
        start, stop = low, high
        while stop - start > 1e-11 * scale:
            grid = np.linspace(start, stop, 65)
            at = max(int(np.argmax(_signature(solve(grid)) != first)), 1)
            start, stop = float(grid[at - 1]), float(grid[at])
        place = (start + stop) / 2
        low = min(stop + 1e-9 * scale, high)
        sides = solve(np.array([max(start - 1e-9 * scale, 0.0), low]))
        places.append((place, *_meeting(sides, symmetric)))


def _meeting(sides: FixedPoints, symmetric: bool) -> tuple[float, float, int]:
    """Return R, b and the kind of the bifurcation between two close parameter values."""
    counts = np.sum(sides.R >= 0, axis=1)
    more = int(np.argmax(counts))
    kept = sides.R[more] >= 0
    R, b = sides.R[more][kept], sides.b[more][kept]
    change = abs(int(counts[1] - counts[0]))
    if change == 0:  # the fixed point whose growth rate changes sign
        i = int(np.argmin(np.abs(sides.eigenvalues[more][kept].real.max(axis=1))))
        return float(R[i]), float(b[i]), KINDS.index("stability")
    if change == 1:
        i = int(np.argmax(np.abs(b)))
        return float(R[i]), float(b[i]), KINDS.index("from_infinity")
    i = int(np.argmin(np.diff(b)))
    if symmetric and np.any(np.abs(b[i : i + 2]) == 0):
        return float(R[b == 0][0]), 0.0, KINDS.index("pitchfork")
    return float(np.mean(R[i : i + 2])), float(np.mean(b[i : i + 2])), KINDS.index("fold")
