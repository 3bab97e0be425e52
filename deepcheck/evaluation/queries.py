"""How many evaluations of the model an attack needs: the share of the examples that it turns within so many."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deepcheck.checks import checked_choice
from deepcheck.evaluation.schema import checked, labelled, origin, text_array, texts

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["queries_needed", "success_over_queries"]

_RELATIVE = 1e-9  # epsilons that differ by less are the same


def queries_needed(success: npt.ArrayLike, queries: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the evaluations of the model up to the first success, over all restarts in their order (exact).

    Parameters
    ----------
    success
        Whether a restart reached the goal, shape (restarts, n).
    queries
        Evaluations of the model in it, of this shape, as `Attacked.queries` counts them; less than 0: not known.

    Returns
    -------
    ndarray
        Shape (n,): the sum over the restarts up to the first that reached the goal, that one included. Infinite where none
        did; NaN where one of them is not known.

    Raises
    ------
    ValueError
        If the shapes differ or are not of two axes.

    Examples
    --------
    >>> queries_needed([[False, False, True], [True, False, True]], [[100, 100, 7], [3, 100, 0]]).tolist()
    [103.0, inf, 7.0]
    """
    success, queries = np.asarray(success, bool), np.asarray(queries)
    if success.ndim != 2 or success.shape != queries.shape:
        raise ValueError(
            f"success and queries have the shapes {success.shape} and {queries.shape}: allowed is (restarts, n) for both"
        )
    if not len(success):
        return np.full(success.shape[1], np.inf)
    total = np.where(queries < 0, np.nan, queries).cumsum(axis=0)
    first = np.take_along_axis(total, success.argmax(axis=0)[None], axis=0)[0]
    return np.where(success.any(axis=0), first, np.inf)


def success_over_queries(
    records: xr.Dataset,
    *,
    epsilon: float | None = None,
    attacks: str | Iterable[str] | None = None,
    queries: npt.ArrayLike | None = None,
) -> xr.DataArray:
    """Return the share of the examples that were right and are turned within so many queries (exact, given the records).

    Parameters
    ----------
    records
        With the variable queries, see `deepcheck.evaluation.schema`: what `evaluate` or `assemble` returned.
    epsilon
        Size of the perturbation: one at which the attacks were run. Default: the only one.
    attacks
        Names of the attacks; default: all whose queries were counted at this epsilon.
    queries
        Numbers of queries, rising, >= 0; default: 0 and all at which an example is turned.

    Returns
    -------
    DataArray
        Dims attack and queries; the norm of each attack, and epsilon, are coordinates, and so is examples: the number of
        examples that are classified rightly without an attack, which the shares are of (NaN where there is none). Queries
        are evaluations of the model for one example, over all restarts up to the first that reached the attack's goal. Of
        an attack that looks for the nearest adversarial example, they are all that it made.

    Raises
    ------
    ValueError, TypeError
        If `records` are none or have no queries, an attack is unknown or was not run at this epsilon, or `queries` are not
        rising numbers.

    Examples
    --------
    >>> from deepcheck.evaluation import AttackRecord, assemble
    >>> attack = AttackRecord("linf", (0.1,), prediction=[[[1, 1, 2]]], confidence=[[[0.9, 0.8, 0.9]]],
    ...                       length=[[[0.1, 0.1, 0.1]]], queries=[[[12, 40, 100]]])
    >>> records = assemble({"spsa": attack}, label=[0, 0, 2], clean_prediction=[0, 0, 2], clean_confidence=[0.9, 0.9, 0.9])
    >>> success_over_queries(records, queries=[10, 20, 50]).values.round(3).tolist()
    [[0.0, 0.333, 0.667]]
    """
    import xarray as xr

    records = checked(records)
    if "queries" not in records:
        raise ValueError("records have no queries: allowed are those of attacks that count them, as from evaluate")
    index = _epsilon_index(records, epsilon)
    here = records.isel(epsilon=index)
    known = [str(name) for name in here["attack"].values[(here["queries"].values >= 0).any(axis=(1, 2))]]
    names = known if attacks is None else [attacks] if isinstance(attacks, str) else list(attacks)
    for name in names:
        checked_choice("attack", name, texts(records, "attack"))
    lost = [name for name in names if name not in known]
    if lost or not names:
        raise ValueError(
            f"attacks = {lost or names} were not run at epsilon = {here['epsilon'].item():g}, or their queries not counted: "
            f"allowed are {known}"
        )
    right = records["clean_prediction"].values == records["label"].values
    rows = [texts(records, "attack").index(name) for name in names]
    needed = [queries_needed(here["success"].values[row] == 1, here["queries"].values[row])[right] for row in rows]
    grid = _grid(queries, needed)
    shares = [(one[:, None] <= grid).mean(axis=0) if right.any() else np.full(len(grid), np.nan) for one in needed]
    result = xr.Dataset(
        {"success": (("attack", "queries"), np.array(shares))},
        coords={
            "attack": text_array(names),
            "norm": ("attack", here["norm"].values[rows]),
            "queries": grid,
            "epsilon": here["epsilon"].item(),
            "examples": int(right.sum()),
        },
    )
    found = labelled(result)["success"].rename("success_over_queries")
    found.attrs = {
        "long_name": "share of the examples that were right and are turned",
        "units": "1",
        **origin(records, "success_over_queries", epsilon=here["epsilon"].item()),
    }
    found["queries"].attrs.update(long_name="evaluations of the model for one example")
    found["examples"].attrs.update(long_name="number of examples that are right without an attack", units="1")
    return found


def _epsilon_index(records: xr.Dataset, epsilon: float | None) -> int:
    """Return the index of an epsilon, or of the only one."""
    run = records["epsilon"].values
    if epsilon is None:
        if len(run) > 1:
            raise ValueError(f"epsilon = None is not allowed: one of {run.tolist()} is, as there are several")
        return 0
    near = np.flatnonzero(np.abs(run - epsilon) <= _RELATIVE * np.maximum(run, abs(epsilon)))
    if not len(near):
        raise ValueError(f"epsilon = {epsilon!r} is not allowed: one of {run.tolist()} is, at which attacks were run")
    return int(near[0])


def _grid(queries: npt.ArrayLike | None, needed: list[npt.NDArray[np.float64]]) -> npt.NDArray[np.int64]:
    """Return the numbers of queries as they are given, or 0 and all at which an example is turned."""
    if queries is None:
        every = np.concatenate([np.zeros(1), *needed])
        return np.unique(every[np.isfinite(every)]).astype(np.int64)
    grid = np.atleast_1d(np.asarray(queries))
    if grid.ndim != 1 or grid.dtype.kind not in "iu" or not len(grid) or grid[0] < 0 or np.any(np.diff(grid) <= 0):
        raise ValueError(f"queries = {queries!r} are not allowed: rising whole numbers >= 0 are")
    return grid.astype(np.int64)
