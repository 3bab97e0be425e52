"""Small Datasets as JSON: what a unit of a card has measured, in a form that people can read, too."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

__all__ = ["packed", "restored", "unpacked", "written"]


def written(data: xr.Dataset) -> dict[str, Any]:
    """Return variables and coordinates, without attributes, as dicts of texts: numbers to 7 digits, in a row.

    `restored` is the inverse.
    """
    return {
        "sizes": {str(name): size for name, size in data.sizes.items()},
        "data": {str(name): _row(data[name]) for name in data.data_vars},
        "coords": {str(name): _row(data[name]) for name in data.coords},
    }


def _row(values: xr.DataArray) -> dict[str, Any]:
    flat = values.values.ravel()
    if flat.dtype.kind in "biu":
        return {"dims": list(values.dims), "whole": " ".join(str(int(one)) for one in flat)}
    if flat.dtype.kind == "f":
        return {"dims": list(values.dims), "numbers": " ".join(f"{one:.7g}" for one in flat)}
    return {"dims": list(values.dims), "texts": [str(one) for one in flat]}


def restored(record: dict[str, Any]) -> xr.Dataset:
    """Return the Dataset of a record."""

    def variable(row: dict[str, Any]) -> tuple[list[str], npt.NDArray[Any]]:
        shape = [record["sizes"][dim] for dim in row["dims"]]
        if "texts" in row:
            return row["dims"], np.array(row["texts"], object).reshape(shape)
        kind, text = (np.int64, row["whole"]) if "whole" in row else (np.float64, row["numbers"])
        return row["dims"], np.array(text.split()).astype(kind).reshape(shape)

    parts = ({name: variable(row) for name, row in record[key].items()} for key in ("data", "coords"))
    return xr.Dataset(*parts)


def packed(values: npt.NDArray[np.float64]) -> str:
    """Return a long row of numbers in single precision as base64."""
    return base64.b64encode(values.astype("<f4").tobytes()).decode("ascii")


def unpacked(text: str) -> npt.NDArray[np.float64]:
    """Return the numbers of `packed`."""
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float64)
