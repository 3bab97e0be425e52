"""Checks of a sweep's arguments: bad input is one clear message, before any work."""

from __future__ import annotations

import ast
import difflib
import itertools
import math
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
import numpy.typing as npt

from odeflow.integrate import checked_alpha
from odeflow.model import numeric_parameters, parameters
from odeflow.numerics.memory import check_memory
from odeflow.order_parameters.base import check_one_start, start_of
from odeflow.parameters import checked_count
from odeflow.schedule import Schedule
from odeflow.simulate import checked_method, seed_sequence
from odeflow.sweeps.computations import Parts, at_point
from odeflow.sweeps.grid import Grid
from odeflow.sweeps.records import Record

__all__ = ["check_size", "checked_counts", "checked_grid", "checked_seed", "checked_starts", "checked_times"]

_INDEX_BYTES = 24  # of a point's place in a store
_VALUE_BYTES = 48  # of a value of a parameter, while it is checked
_SWITCHES = ("second_order",)  # fields that are no numbers, but that the kernels take for each point


def checked_times(alpha: npt.ArrayLike | None, compute: str) -> npt.NDArray[np.float64] | None:
    """Return the checked output times; None for equilibria."""
    if compute == "equilibria":
        if alpha is not None:
            raise ValueError(f"alpha = {alpha!r} has no meaning for compute = {compute!r}: leave it out")
        return None
    if alpha is None:
        raise ValueError(f"alpha = None: allowed for compute = {compute!r} are increasing finite numbers >= 0")
    return checked_alpha(alpha)


def checked_grid(over: Mapping[str, Any], parts: Parts, others: Mapping[str, Any]) -> Grid:
    """Return the checked grid over fields of the parts and over `others`."""
    known = {**numeric_parameters(parts[0]), **parameters(*parts[1:3]), **numeric_parameters(parts[3]), **others}
    allowed = [
        name for name, value in known.items() if name in (*others, *_SWITCHES) or isinstance(value, float | Schedule)
    ]
    if not over:
        raise ValueError(f"over = {over!r} is an empty grid: allowed is a dict of values for {', '.join(allowed)}")
    check_size({name: len(values) if isinstance(values, Sized) else 1 for name, values in over.items()})
    values = {}
    for name, given in over.items():
        if name not in allowed:
            close = difflib.get_close_matches(str(name), allowed, n=1)
            guess = f": did you mean {close[0]!r}?" if close else ":"
            raise ValueError(f"over has no parameter {name!r}{guess} allowed are {', '.join(allowed)}")
        values[name] = _values(name, given, bool if isinstance(known[name], bool) else float)
        for value in _extremes(values[name]):
            at_point(parts, {name: value})  # the parts check their fields
    return Grid(values)


def check_size(sizes: Mapping[str, int]) -> None:
    """Raise a ValueError if a grid of so many values of each parameter does not fit into memory, by its index alone."""
    points = math.prod(sizes.values())
    grid = " x ".join(f"{name} {size:,}" for name, size in sizes.items())
    check_memory(
        max(_INDEX_BYTES * points, _VALUE_BYTES * sum(sizes.values())),
        f"the grid {grid} has {points:,} points, whose index alone needs",
        "a smaller grid is allowed, or several stores",
    )


def _values(name: str, given: npt.ArrayLike, kind: type) -> npt.NDArray[Any]:
    """Return the values of a swept parameter as an array of `kind` (N and runs become integers where they are checked)."""
    allowed = f"allowed for over[{name!r}] are finite numbers, at least one, none twice"
    dims = getattr(given, "dims", (name,))
    if dims != (name,):
        raise ValueError(
            f"over[{name!r}] is a DataArray with the dims {dims}: each parameter has a dimension of its own, so allowed is "
            f"the dim {name!r} alone, or values without names"
        )
    try:
        values = np.array(given, np.float64) + 0.0  # no -0.0: it would have other random numbers
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {given!r} is not an array of numbers: {allowed}") from None
    if values.ndim != 1 or values.size == 0:
        what = "an empty grid" if values.size == 0 else f"of shape {values.shape}"
        raise ValueError(f"{name} = {given!r} is {what}: {allowed}")
    if not np.all(np.isfinite(values)):
        raise ValueError(f"{name} contains {float(values[~np.isfinite(values)][0])!r}: {allowed}")
    distinct, counts = np.unique(values, return_counts=True)
    if np.any(counts > 1):
        raise ValueError(f"{name} contains {float(distinct[counts > 1][0])!r} twice: {allowed}")
    if kind is bool:
        if not np.all((values == 0) | (values == 1)):
            raise ValueError(f"{name} = {given!r} is out of range: allowed are True and False")
        return values.astype(bool)
    return values


def _extremes(values: npt.NDArray[Any]) -> list[Any]:
    """Return the least and the largest value. What is allowed are intervals, so that all are if these are."""
    return [values.min().item(), values.max().item()]


def checked_starts(
    parts: Parts, start: Mapping[str, Any], initial: Mapping[str, Any], grid: Grid, runs: int | None
) -> dict[str, Any]:
    """Return the checked initial values of the order parameters; those of swept ones have no meaning."""
    mixture, rule, _, network = parts
    names = [variable.start_name for variable in network.starts(rule, mixture) if variable.start_name in grid.values]
    start = {name: value for name, value in start.items() if f"{name}0" not in names}
    found: dict[str, Any] = {}
    for values in itertools.product(*(_extremes(grid.values[name]) for name in names)):
        found = start_of(network, mixture, rule, start, {**initial, **dict(zip(names, values, strict=True))})
    check_one_start(network.variables(rule, mixture), found, runs)
    return found


def checked_counts(counts: dict[str, int | None], grid: Grid, parts: Parts, method: str) -> dict[str, int | None]:
    """Return N and runs, and make their values in the grid integers."""
    least_N = checked_method(parts[3], parts[0], method)
    checked: dict[str, int | None] = {}
    for name, least, where in (("N", least_N, f" with the {method} method"), ("runs", 1, "")):
        if name in grid.values:
            values = [checked_count(name, value, least, where) for value in grid.values[name].tolist()]
            grid.values[name] = np.array(values, np.int64)
            checked[name] = None
        elif counts[name] is None:
            raise ValueError(
                f"{name} is missing for compute = 'simulate': allowed is a whole number >= {least}{where}, or values in over"
            )
        else:
            checked[name] = checked_count(name, counts[name], least, where)
    return checked


def checked_seed(rng: Any, record: Record | None) -> np.random.SeedSequence:
    """Return the seed: the caller's, the store's, or a fresh one."""
    text = record.attrs.get("seed") if rng is None and record is not None else None
    if text is None:
        return seed_sequence(rng)
    entropy, spawn_key = text.removeprefix("entropy=").split(", spawn_key=")
    return np.random.SeedSequence(ast.literal_eval(entropy), spawn_key=ast.literal_eval(spawn_key))
