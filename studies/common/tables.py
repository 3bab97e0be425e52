"""Labels of a study's data, and what its table and its claims share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["allowed_share", "describe", "listed", "noted"]


def describe(data: xr.Dataset, names: Mapping[str, str]) -> None:
    """Give variables their long names, and the unit 1."""
    for name, text in names.items():
        data[name].attrs = {"long_name": text, "units": "1"}


def noted(data: xr.Dataset) -> list[str]:
    """Return the first lines of a table: what the reader must know about the data, if there is such a note."""
    return [data.attrs["note"]] if data.attrs["note"] else []


def listed(values: Any, digits: int = 3) -> str:
    """Return numbers in a row."""
    return ", ".join(f"{value:.{digits}f}" for value in np.ravel(values))


def allowed_share(found: xr.DataArray, expected: xr.DataArray, allowance: float, dim: str = "run") -> xr.DataArray:
    """Return how far the mean of runs is from what is expected, in units of 4 standard errors + allowance.

    Runs that are NaN everywhere do not count.
    """
    count = found.count(dim)
    share: xr.DataArray = abs(found.mean(dim) - expected) / (4 * found.std(dim, ddof=1) / np.sqrt(count) + allowance)
    return share
