"""What a store of a sweep says of itself, and whether another sweep may go on with it."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.model import Adversary, LearningRule, parameters
from odeflow.provenance.files import hidden
from odeflow.provenance.results import opened

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Record", "checked", "exists", "manifest_file", "read_records", "stored"]

_LOGGER = logging.getLogger(__name__)
_MOST_SHOWN = 6  # values of a list
_LATER = {
    f"{name}.{field}": value
    for name, part in (("rule", LearningRule()), ("adversary", Adversary()))
    for field, value in parameters(part).items()
}
"""What stores of an earlier date meant by parameters that they do not have: each parameter's default."""
_ROUNDING = 1e-12  # of the largest number: values that differ by less are the same, computed in another way


@dataclass(frozen=True)
class Record:
    """What a store says of itself."""

    attrs: dict[str, str]
    alpha: list[float] | None
    over: dict[str, list[float]]

    @classmethod
    def of(cls, result: xr.Dataset) -> Record:
        """Return the record of a sweep's result, or of its coordinates and attributes.

        Raises
        ------
        ValueError
            If it is no sweep's.
        """
        configuration = json.loads(result.attrs.get("configuration", "{}"))
        if configuration.get("function") != "sweep":
            raise ValueError("it does not hold a sweep")
        alpha = result["alpha"].values.tolist() if "alpha" in result.dims else None
        over = {name: result[name].values.tolist() for name in configuration["options"]["over"]}
        return cls(dict(result.attrs), alpha, over)

    def conflict(self, new: Record) -> str | None:
        """Return in words what keeps the sweep of `new` from going on with this one; None if nothing does."""
        mine, others = self._facts(), new._facts()
        for name in {**mine, **others}:
            had, now = mine.get(name), others.get(name)
            if had != now:
                where, had, now = _first_difference(had, now)
                return f"it has {name}{where} = {_shown(had)}, now {name}{where} = {_shown(now)} is asked for"
        for name, values in self.over.items():
            lost = sorted(set(values) - set(new.over[name]))
            if lost:
                return f"it has {name} = {lost[0]!r}, which is not in over[{name!r}]: a stored grid can only grow"
        return None

    def key(self) -> bytes:
        """Return a digest of all that the numbers at a point depend on, beside the values that are swept."""
        return hashlib.sha256(json.dumps(self._facts(), sort_keys=True).encode()).digest()

    def settled(self, values: npt.NDArray[Any], stored: list[float]) -> npt.NDArray[Any]:
        """Return values of which those that are a stored one but for rounding are that one exactly."""
        known = np.array(stored, values.dtype)
        if values.dtype.kind != "f" or known.size == 0:
            return values
        settled = values.copy()
        free = known[~np.isin(known, values)]
        for i in np.flatnonzero(~np.isin(values, known)):
            near = free[np.abs(free - values[i]) <= _ROUNDING * np.max(np.abs(known))]
            if near.size == 1:
                settled[i] = near[0]
                free = free[free != near[0]]
        return settled

    def _facts(self) -> dict[str, Any]:
        version = ".".join(self.attrs["odeflow_version"].split(".")[:2])
        configuration = json.loads(self.attrs["configuration"])
        facts = {**configuration.pop("options"), **_flat(configuration)}
        return {"odeflow_version": version, **_LATER, **facts, "seed": self.attrs.get("seed"), "alpha": self.alpha}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _first_difference(one: Any, other: Any) -> tuple[str, Any, Any]:
    """Return where two long lists of one length differ, and what they have there; other values as they are."""
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other) > _MOST_SHOWN:
        i = next(i for i, (a, b) in enumerate(zip(one, other, strict=True)) if a != b)
        return f"[{i}]", one[i], other[i]
    return "", one, other


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) > _MOST_SHOWN:
        return f"[{value[0]!r}, {value[1]!r}, ..., {value[-1]!r}] ({len(value)} values)"
    return repr(value)


def exists(target: Path) -> bool:
    """Return whether a finished or unfinished sweep stands at `target`."""
    return target.exists() or manifest_file(target).exists()


def stored(target: Path) -> Record | None:
    """Return what the store at `target`, finished or not, says of itself; None if there is none.

    Raises
    ------
    ValueError
        If what stands there is no sweep's.
    """
    records = read_records(target)
    return records[0] if records else None


def manifest_file(target: Path) -> Path:
    """Return where the record of an unfinished sweep is."""
    return hidden(target, "parts") / "manifest.json"


def read_records(target: Path) -> list[Record]:
    """Return the records of the finished store and of the journal, as far as they exist."""
    records = []
    if target.exists():
        try:
            with checked(target) as dataset:
                records.append(Record.of(dataset))
        except ValueError as error:
            raise ValueError(f"store = {str(target)!r} cannot be continued: {error}") from error
    manifest = manifest_file(target)
    if manifest.exists():
        try:
            record = Record(**json.loads(manifest.read_bytes()))
            record.key()
            records.append(record)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            _LOGGER.warning("%s cannot be read and is written anew: %s", manifest, error)
    return records


def checked(target: Path) -> xr.Dataset:
    """Open a store, if it is as it was written, without loading it."""
    try:
        return opened(target)
    except Exception as error:  # whatever the readers of these formats make of a damaged file
        raise ValueError(f"it cannot be read: {error}") from error
