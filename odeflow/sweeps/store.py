"""The store of a sweep: chunks are journalled as they come, and the finished grid is one netCDF file or Zarr store.

While a sweep runs, a hidden folder ``.NAME.parts`` beside the target has a manifest and one file for each finished
chunk, which is written under another name, flushed to disk and renamed. A kill at any moment leaves whole chunks and
perhaps a stray temporary file. When no point is missing, the target is written from the chunks, renamed into place, and
the folder is removed, the manifest last. To extend a finished store, its points are first put into the journal again.

A chunk begins with a digest of what the sweep is and of what the chunk holds. One that is damaged, or of another sweep,
does not have it, and its points are computed anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from odeflow.provenance import SaveError, check_target
from odeflow.provenance.files import InUse, empty, hidden, placed, recover, release, take, uninterrupted
from odeflow.provenance.results import sign
from odeflow.sweeps.computations import Rows, Variable
from odeflow.sweeps.grid import Grid, Index
from odeflow.sweeps.records import Record, checked, manifest_file, read_records

if TYPE_CHECKING:
    import xarray as xr
    from filelock import BaseFileLock

__all__ = ["Store"]

_LOGGER = logging.getLogger(__name__)
_BOX_BYTES = 2**24  # of results are held at once when the target is read or written
_END = object()
_HELD = 4  # parts, when the target is written
_DIGEST = 32  # bytes, at the beginning of a part


def _taken(target: Path, folder: Path) -> BaseFileLock:
    """Keep other processes and threads out. The lock ends with this process, however it ends."""
    try:
        return take(folder)
    except InUse:
        raise ValueError(f"store = {str(target)!r} is in use by another process, or by another thread") from None
    except OSError as error:
        raise SaveError(f"{str(folder)!r} cannot be used: {error}") from error


class Store:
    """One sweep's results on disk, in the hands of this thread alone while it is entered.

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
    overwrite
        Whether what stands there is removed on entry, whatever it is of.

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
        overwrite: bool = False,
    ) -> None:
        self.target = check_target(target)
        self.grid = grid
        self._variables = variables
        self._template = template
        self._attrs = attrs
        self._overwrite = overwrite
        self._folder = hidden(self.target, "parts")
        self._key = b""
        self._is_whole = False
        # where each point is: in which part, and in which row of it
        self._part = np.full(grid.size, -1, np.int32)
        self._row = np.zeros(grid.size, np.int32)
        self._parts = 0
        self._held: dict[int, Rows] = {}
        self._lock: BaseFileLock | None = None

    def __enter__(self) -> Self:
        """Check that the store is of this sweep, and find out which points it has."""
        try:
            with uninterrupted():
                self._lock = _taken(self.target, self._folder)
            recover(self.target, self._folder)
            if self._overwrite:
                self._discard()
            self._check()
            if not self._is_whole:
                self._begin()
        except BaseException as error:
            self._leave()
            if isinstance(error, OSError) and not isinstance(error, SaveError):
                raise SaveError(f"{str(self._folder)!r} cannot be used: {error}") from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the store to others; a finished one has no journal any more."""
        self._leave()

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
                file.write(bytes(_DIGEST))
                for array in (points, *(rows[name] for name in self._variables)):
                    np.save(file, array, allow_pickle=False)
                digest = self._digest(file)
                file.seek(0)
                file.write(digest)
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
            try:
                with placed(self.target, self._folder) as new:  # what a kill leaves there goes with the journal
                    pieces = self._write_zarr(new) if self.target.suffix == ".zarr" else self._write_netcdf(new)
                    _run_uninterrupted(pieces)
                    with uninterrupted():
                        sign(new)
            except RuntimeError as error:  # h5py's
                raise SaveError(f"{str(self.target)!r} could not be saved: {error}") from error
            except _Damaged as error:
                raise SaveError(
                    f"{str(self.target)!r} could not be saved: {error}: call again, for its points"
                ) from error
            self._is_whole = True
        return checked(self.target)

    # The journal.

    def _leave(self) -> None:
        with uninterrupted():
            if self._lock is not None:
                has_journal = manifest_file(self.target).exists()
                release(self._folder, self._lock, keep=has_journal and not self._is_whole)
                self._lock = None

    def _discard(self) -> None:
        """Remove what stands there: the result first, so that a kill leaves nothing that is not what it was."""
        real = self.target.resolve()
        if real.exists():
            real.replace(self._folder / f"old{real.suffix}")
        empty(self._folder)

    def _check(self) -> None:
        """Take over what the store says of itself, or raise a ValueError if it is of another sweep."""
        records = read_records(self.target)
        new = Record.of(self._template)
        for record in records:
            conflict = record.conflict(new)
            if conflict:
                raise ValueError(f"store = {str(self.target)!r} is of another sweep: {conflict}")
        if records:
            self._template = self._template.assign_attrs(records[0].attrs)
        self._key = (records[0] if records else new).key()
        self._is_whole = self.target.exists() and records[0].over == new.over

    def _begin(self) -> None:
        """Write the manifest, and find the points that are there already."""
        for stray in self._folder.glob("*.tmp"):
            stray.unlink()
        parts = []
        for part in sorted(int(path.stem) for path in self._folder.glob("*.part")):
            try:
                points, _ = self._read_part(part)
            except (OSError, _Damaged) as error:
                _LOGGER.warning("%s; its points are computed anew", error)
                self._part_file(part).unlink()
            else:
                parts.append((part, points))
        # before it is there no part is that could be another sweep's
        with _replaced(manifest_file(self.target)) as file:
            file.write(json.dumps(asdict(Record.of(self._template))).encode())
        for part, points in parts:
            self._add(part, self.grid.find(dict(zip(self.grid.values, points.T, strict=True))))
        if self.target.exists():
            self._reopen()

    def _reopen(self) -> None:
        """Put the points of the finished store, whose grid is smaller, into the journal."""
        with checked(self.target) as dataset:
            old = Grid({name: dataset[name].values for name in self.grid.values})
            for indices, where in old.boxes(self._box_points()):
                index = self.grid.find(old.points(np.arange(indices.start, indices.stop)))
                new = self._part[index] < 0
                if np.any(new):
                    box = dataset.isel(dict(zip(old.values, where, strict=True)))
                    rows = {
                        name: box[name]
                        .transpose(*old.values, ...)
                        .values.reshape(index.size, *(box.sizes[dim] for dim in variable.dims))[new]
                        for name, variable in self._variables.items()
                    }
                    self.write(index[new], rows)

    def _add(self, part: int, index: Index) -> None:
        on_grid = index >= 0
        self._part[index[on_grid]] = part
        self._row[index[on_grid]] = np.flatnonzero(on_grid)
        self._parts = part + 1

    def _part_file(self, part: int) -> Path:
        return self._folder / f"{part}.part"

    def _digest(self, file: BinaryIO) -> bytes:
        """Return the digest of this sweep and of what a part holds."""
        digest = hashlib.sha256(self._key)
        file.seek(_DIGEST)
        while block := file.read(2**20):
            digest.update(block)
        return digest.digest()

    def _read_part(self, part: int) -> tuple[npt.NDArray[np.float64], Rows]:
        """Return the points of a part, shape (points, parameters), and the variables there."""
        with open(self._part_file(part), "rb") as file:
            if file.read(_DIGEST) != self._digest(file):
                raise _Damaged(f"{self._part_file(part)} is damaged, or of another sweep")
            file.seek(_DIGEST)
            points: npt.NDArray[np.float64] = np.load(file, allow_pickle=False)
            return points, {name: np.load(file, allow_pickle=False) for name in self._variables}

    def _read(self, part: int) -> Rows:
        """Return the variables of a part; the last few are held."""
        if part not in self._held:
            if len(self._held) == _HELD:
                self._held.pop(next(iter(self._held)))
            self._held[part] = self._read_part(part)[1]
        return self._held[part]

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

    def _write_netcdf(self, new: Path) -> Generator[None]:
        """Write the target in pieces, one a step."""
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
                yield

    def _write_zarr(self, new: Path) -> Generator[None]:
        """Write the target in pieces, one a step."""
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
            yield


class _Damaged(Exception):
    """A part is not what was written by this sweep."""


def _run_uninterrupted(pieces: Generator[None]) -> None:
    """Do work in pieces, between which Ctrl-C ends it; the generator is closed by then, and with it what it has open."""
    is_left = True
    try:
        while is_left:
            with uninterrupted():
                is_left = next(pieces, _END) is not _END
    finally:
        with uninterrupted():
            pieces.close()


@contextmanager
def _replaced(path: Path) -> Iterator[Any]:
    """Give a file to write to that becomes `path` when it is on the disk."""
    new = path.with_name(path.name + ".tmp")
    with open(new, "w+b") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
