"""The store of a sweep: chunks are journalled as they come, and the finished grid is one netCDF file or Zarr store.

While a sweep runs, a hidden folder ``.NAME.parts`` beside the target has a manifest and one file for each finished
chunk, which is written under another name, flushed to disk and renamed. A kill at any moment leaves whole chunks and
perhaps a stray temporary file. When no point is missing, the target is written from the chunks, renamed into place, and
the folder is removed. To extend a finished store, its points are first put into the journal again.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from odeflow.provenance import SaveError, check_target, replacing
from odeflow.sweeps.computations import Rows, Variable
from odeflow.sweeps.grid import Grid, Index

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Store", "exists", "stored_seed"]

_LOGGER = logging.getLogger(__name__)
_BOX_BYTES = 2**24  # of results are held at once when the target is read or written


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
            if mine.get(name) != others.get(name):
                return f"it has {name} = {_shown(mine.get(name))}, now {name} = {_shown(others.get(name))} is asked for"
        for name, values in self.over.items():
            lost = sorted(set(values) - set(new.over[name]))
            if lost:
                return f"it has {name} = {lost[0]!r}, which is not in over[{name!r}]: a stored grid can only grow"
        return None

    def _facts(self) -> dict[str, Any]:
        version = ".".join(self.attrs["odeflow_version"].split(".")[:2])
        configuration = json.loads(self.attrs["configuration"])
        facts = {**configuration.pop("options"), **_flat(configuration)}
        return {"odeflow_version": version, **facts, "seed": self.attrs.get("seed"), "alpha": self.alpha}


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def _shown(value: Any) -> str:
    if isinstance(value, list) and len(value) > 6:
        return f"[{value[0]!r}, {value[1]!r}, ..., {value[-1]!r}] ({len(value)} values)"
    return repr(value)


def exists(target: Path) -> bool:
    """Return whether a finished or unfinished sweep stands at `target`."""
    return target.exists() or _manifest_file(target).exists()


def stored_seed(target: Path) -> str | None:
    """Return the seed of the store at `target`, as text; None if there is no store, or no seed in it."""
    records = _records(target)
    return records[0].attrs.get("seed") if records else None


def _parts_folder(target: Path) -> Path:
    return target.absolute().parent / f".{target.name}.parts"


def _manifest_file(target: Path) -> Path:
    return _parts_folder(target) / "manifest.json"


def _records(target: Path) -> list[Record]:
    """Return the records of the finished store and of the journal, as far as they exist."""
    records = []
    if target.exists():
        try:
            with _opened(target) as stored:
                records.append(Record.of(stored))
        except ValueError as error:
            raise ValueError(f"store = {str(target)!r} cannot be continued: {error}") from error
    if _manifest_file(target).exists():
        records.append(Record(**json.loads(_manifest_file(target).read_text())))
    return records


def _opened(target: Path) -> xr.Dataset:
    """Open a store without loading it."""
    import xarray as xr

    try:
        if target.suffix == ".zarr":
            return xr.open_dataset(target, engine="zarr", consolidated=False)
        return xr.open_dataset(target, engine="h5netcdf")
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ValueError(f"it cannot be read, perhaps it is truncated: {error}") from error


class Store:
    """One sweep's results on disk, in the hands of this process alone while it is entered.

    Parameters
    ----------
    target
        Path of the netCDF file or Zarr store.
    grid
        Points of the sweep.
    variables
        What is stored at each point.
    template
        Coordinates and attributes of the result. A store that exists keeps the attributes of its first start.
    attrs
        Attributes of each variable.

    Raises
    ------
    ValueError
        On entry, if the store is of another sweep, or another process uses it.
    """

    def __init__(
        self,
        target: Path,
        grid: Grid,
        variables: Mapping[str, Variable],
        template: xr.Dataset,
        attrs: Mapping[str, dict[str, str]],
    ) -> None:
        self.target = check_target(target)
        self.grid = grid
        self._variables = variables
        self._template = template
        self._attrs = attrs
        self._folder = _parts_folder(self.target)
        self._is_whole = False
        # where each point is: in which part, and in which row of it
        self._part = np.full(grid.size, -1, np.int32)
        self._row = np.zeros(grid.size, np.int32)
        self._parts = 0
        self._read = lru_cache(maxsize=4)(self._read_part)

    def __enter__(self) -> Self:
        """Check that the store is of this sweep, and find out which points it has."""
        records = _records(self.target)
        new = Record.of(self._template)
        for record in records:
            conflict = record.conflict(new)
            if conflict:
                raise ValueError(f"store = {str(self.target)!r} is of another sweep: {conflict}")
        if records:
            self._template = self._template.assign_attrs(records[0].attrs)
        self._is_whole = self.target.exists() and records[0].over == new.over
        try:
            self._folder.mkdir(exist_ok=True)
            self._take()
            if not self._is_whole:
                self._begin()
        except OSError as error:
            raise SaveError(f"{str(self._folder)!r} cannot be used: {error}") from error
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the store to others; a finished one has no journal any more."""
        if self._is_whole:
            shutil.rmtree(self._folder, ignore_errors=True)
        lock_is_left = self._is_whole and self._folder.exists()  # Windows removes no file that is open
        self._lock.release()
        if lock_is_left:
            with suppress(OSError):  # another process has it by now
                (self._folder / "lock").unlink()
                self._folder.rmdir()

    def missing(self) -> Index:
        """Return the indices of the points that are not there."""
        return np.arange(0) if self._is_whole else np.flatnonzero(self._part < 0)

    def write(self, index: Index, rows: Rows) -> None:
        """Add a chunk of points.

        Raises
        ------
        SaveError
            If writing fails, say because the disk is full.
        """
        points = np.stack([np.asarray(column, np.float64) for column in self.grid.points(index).values()], axis=1)
        try:
            with _replaced(self._part_file(self._parts)) as file:
                for array in (points, *(rows[name] for name in self._variables)):
                    np.save(file, array, allow_pickle=False)
        except OSError as error:
            raise SaveError(f"{str(self.target)!r} could not be saved: {error.strerror or error}") from error
        self._add(self._parts, index)

    def finish(self) -> xr.Dataset:
        """Put the target into place if it is not there, and return it, opened but not loaded.

        Raises
        ------
        SaveError
            If writing fails.
        """
        if not self._is_whole:
            assert np.all(self._part >= 0)
            with replacing(self.target, self._folder) as new:  # what a kill leaves there goes with the journal
                write = self._write_zarr if self.target.suffix == ".zarr" else self._write_netcdf
                write(new)
            self._is_whole = True
        return _opened(self.target)

    # The journal.

    def _take(self) -> None:
        """Keep other processes out. The lock ends with this process, however it ends."""
        from filelock import FileLock, Timeout

        self._lock = FileLock(self._folder / "lock", blocking=False, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            raise ValueError(f"store = {str(self.target)!r} is in use by another process") from None

    def _begin(self) -> None:
        """Write the manifest, and find the points that are there already."""
        for stray in self._folder.glob("*.tmp"):
            stray.unlink()
        with _replaced(_manifest_file(self.target)) as file:
            file.write(json.dumps(asdict(Record.of(self._template))).encode())
        for part in sorted(int(path.stem) for path in self._folder.glob("*.part")):
            try:
                points = self._points_of(part)
            except (OSError, ValueError, EOFError) as error:  # after a crash of the whole machine
                _LOGGER.warning("%s cannot be read and its points are computed anew: %s", self._part_file(part), error)
                self._part_file(part).unlink()
                continue
            self._add(part, self.grid.find(dict(zip(self.grid.values, points.T, strict=True))))
        if self.target.exists():
            self._reopen()

    def _reopen(self) -> None:
        """Put the points of the finished store, whose grid is smaller, into the journal."""
        with _opened(self.target) as stored:
            old = Grid({name: stored[name].values for name in self.grid.values})
            for indices, where in old.boxes(self._box_points()):
                index = self.grid.find(old.points(np.arange(indices.start, indices.stop)))
                new = self._part[index] < 0
                if np.any(new):
                    box = stored.isel(dict(zip(old.values, where, strict=True)))
                    rows = {
                        name: box[name]
                        .transpose(*old.values, ...)
                        .values.reshape(index.size, *(box.sizes[dim] for dim in variable.dims))[new]
                        for name, variable in self._variables.items()
                    }
                    self.write(index[new], rows)

    def _add(self, part: int, index: Index) -> None:
        self._part[index] = part
        self._row[index] = np.arange(index.size)
        self._parts = part + 1

    def _part_file(self, part: int) -> Path:
        return self._folder / f"{part}.part"

    def _points_of(self, part: int) -> npt.NDArray[np.float64]:
        """Return the points of a part, shape (points, parameters); raise if the part is not whole."""
        with open(self._part_file(part), "rb") as file:
            points: npt.NDArray[np.float64] = np.load(file, allow_pickle=False)
            for _ in self._variables:
                np.lib.format.read_magic(file)
                shape, _, dtype = np.lib.format.read_array_header_1_0(file)
                file.seek(math.prod(shape) * dtype.itemsize, os.SEEK_CUR)
            if file.tell() != file.seek(0, os.SEEK_END):
                raise ValueError("it is truncated")
            return points

    def _read_part(self, part: int) -> Rows:
        """Return the variables of a part."""
        with open(self._part_file(part), "rb") as file:
            np.load(file, allow_pickle=False)  # the points
            return {name: np.load(file, allow_pickle=False) for name in self._variables}

    # The target.

    def _box_points(self) -> int:
        """Return how many points are held at once."""
        return max(1, _BOX_BYTES // sum(variable.nbytes for variable in self._variables.values()))

    def _gather(self, indices: slice) -> Rows:
        """Return the variables at consecutive points; where a point has less than others have, it is nan."""
        part, row = self._part[indices], self._row[indices]
        gathered = {
            name: np.full((part.size, *variable.sizes), variable.missing, variable.dtype)
            for name, variable in self._variables.items()
        }
        for source in np.unique(part).tolist():
            rows = self._read(source)
            here: Any = np.flatnonzero(part == source)
            for name, values in gathered.items():
                extent = (slice(size) for size in rows[name].shape[1:])
                values[here, *extent] = rows[name][row[here]]
        return gathered

    def _boxes(self) -> Iterator[tuple[tuple[slice, ...], Rows]]:
        """Yield the whole grid in boxes: their slice of each parameter, and their variables in the box's shape."""
        for indices, where in self.grid.boxes(self._box_points()):
            shape = [part.stop - part.start for part in where]
            rows = self._gather(indices)
            yield where, {name: values.reshape(*shape, *values.shape[1:]) for name, values in rows.items()}

    def _write_netcdf(self, new: Path) -> None:
        import h5netcdf  # type: ignore[import-untyped]

        self._template.to_netcdf(new, engine="h5netcdf")
        with h5netcdf.File(new, "a") as file:
            for name, variable in self._variables.items():
                for dim, size in zip(variable.dims, variable.sizes, strict=True):
                    if dim not in file.dimensions:
                        file.dimensions[dim] = size
                # netCDF has no bool; this is how xarray writes one
                dtype, mark = ("int8", {"dtype": "bool"}) if variable.dtype == "bool" else (variable.dtype, {})
                stored = file.create_variable(name, (*self.grid.values, *variable.dims), dtype)
                stored.attrs.update({**self._attrs[name], **mark})
            for where, box in self._boxes():
                for name, values in box.items():
                    file[name][where] = values
        with open(new, "rb+") as written:
            os.fsync(written.fileno())

    def _write_zarr(self, new: Path) -> None:
        import zarr

        self._template.to_zarr(new, mode="w", consolidated=False)
        group = zarr.open_group(new, mode="r+")
        box_shape = self.grid.box_shape(self._box_points())
        for name, variable in self._variables.items():
            group.create_array(
                name,
                shape=(*self.grid.shape, *variable.sizes),
                chunks=(*box_shape, *variable.sizes),
                dtype=variable.dtype,
                fill_value=variable.missing,
                dimension_names=(*self.grid.values, *variable.dims),
                attributes=dict(self._attrs[name]),
            )
        for where, box in self._boxes():
            for name, values in box.items():
                array: Any = group[name]
                array[where] = values


@contextmanager
def _replaced(path: Path) -> Iterator[Any]:
    """Give a file to write to that becomes `path` when it is on the disk."""
    new = path.with_name(path.name + ".tmp")
    with open(new, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
