"""Saving and loading Datasets, with a checksum that is looked at before anything else is read.

A netCDF file ends in one line more than HDF5 asks for, with the SHA-256 of what stands before it. Other programs do not see
it, and drop it when they change the file. A Zarr store has a group ``odeflow_checksums``, whose attributes have the
SHA-256 of each file. What has no checksum, of older versions and other programs, is read without.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odeflow.provenance.files import (
    SUFFIXES,
    SaveError,
    check_package,
    check_target,
    hidden,
    in_hand,
    recover,
    replacing,
    uninterrupted,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_content", "load", "opened", "save", "sign"]

_MARK = b"\nodeflow sha256 "
_LINE = len(_MARK) + 64 + 1
_CHECKSUMS = "odeflow_checksums"
_PATIENCE = 60.0  # seconds that another process has to read a file without a checksum, and
_SLOW = 5e6  # bytes a second more

_READ = """
import sys
import xarray as xr
with xr.open_dataset(sys.argv[1], engine="h5netcdf") as dataset:
    for variable in dataset.variables.values():
        rows = variable.shape[0] if variable.ndim else 1
        step = max(1, 2**24 * rows // max(1, variable.nbytes))
        for first in range(0, rows, step):
            variable[first : first + step].values if variable.ndim else variable.values
"""


def save(result: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Save a result as netCDF (suffix .nc) or Zarr (.zarr).

    It is written beside the target and renamed: there is never half a file, and a failure leaves the old file. (A Zarr
    store is a folder, which takes two renames to replace: a kill between them leaves the old store in a hidden folder,
    from which `load` and the next `save` bring it back.)

    Parameters
    ----------
    result
        Any Dataset.
    path
        Target; its folder must exist. A symbolic link stays, and what it leads to is written.

    Returns
    -------
    Path
        The target.

    Raises
    ------
    ValueError, FileNotFoundError, PermissionError
        If the target is not one (see `check_target`).
    SaveError
        If writing fails, say because the disk is full.
    """
    target = check_target(path)
    with replacing(target) as new, uninterrupted():
        _write(result, new)
    return target


def _write(result: xr.Dataset, new: Path) -> None:
    try:
        if new.suffix == ".zarr":
            result.to_zarr(new, mode="w", consolidated=False)
        else:
            # Made in memory and written as bytes: the HDF5 library does not survive a full disk well.
            new.write_bytes(result.to_netcdf(engine="h5netcdf"))
        sign(new)
    except RuntimeError as error:  # h5py's
        raise SaveError(f"{str(new)!r} could not be written: {error}") from error


def sign(new: Path) -> None:
    """Add the checksum to a file or store that is written, and flush it to the disk."""
    if new.suffix == ".zarr":
        group = {"zarr_format": 3, "node_type": "group", "attributes": {"sha256": _digests(new)}}
        (new / _CHECKSUMS).mkdir()
        (new / _CHECKSUMS / "zarr.json").write_text(json.dumps(group, indent=1))
        return
    with open(new, "r+b") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        file.write(_MARK + digest.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _digests(store: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a Zarr store by its path in it."""
    found = {}
    for path in sorted(store.rglob("*")):
        name = path.relative_to(store).as_posix()
        if path.is_file() and not name.startswith(_CHECKSUMS):
            with open(path, "rb") as file:
                found[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Load a result from netCDF (.nc) or Zarr (.zarr) into memory.

    Parameters
    ----------
    path
        A file that `save` wrote, or any other that xarray reads in these formats. The HDF5 library can hang on a damaged
        file: one without the checksum that `save` writes is first read by another process, which has a minute and
        longer for a large file.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is not a whole netCDF file or Zarr store, or is not what was written.
    ModuleNotFoundError
        If the package for such files is not installed.
    """
    source = Path(path)
    if source.suffix not in SUFFIXES:
        raise ValueError(
            f"path = {str(source)!r} has the suffix {source.suffix!r}: allowed is one of {', '.join(SUFFIXES)}"
        )
    if not source.exists():
        _bring_back(source)
    if not source.exists():
        raise FileNotFoundError(f"path = {str(source)!r}: there is no such file")
    check_package(source)
    kind = "a Zarr store" if source.suffix == ".zarr" else "a netCDF file"
    try:
        with opened(source) as dataset:
            return dataset.load()
    except Exception as error:  # whatever the readers of these formats make of a damaged file
        raise ValueError(f"path = {str(source)!r} is not {kind} that can be read: {error}") from error


def _bring_back(source: Path) -> None:
    """Bring a Zarr store back that a kill has left in the hidden folder, between the two renames of `save`."""
    folder = hidden(source, "new")
    if (folder / f"old{source.suffix}").exists():
        with in_hand(source):
            recover(source, folder)


def opened(source: Path) -> xr.Dataset:
    """Return a Dataset that is checked and opened, but not loaded.

    Raises
    ------
    ValueError
        If it is not what was written, or is no whole file.
    Exception
        Whatever the readers of these formats make of a damaged file.
    """
    import xarray as xr

    check_content(source)
    if source.suffix == ".zarr":
        store: xr.Dataset = xr.open_zarr(source, consolidated=False)
        return store
    return xr.open_dataset(source, engine="h5netcdf")


def check_content(source: Path) -> None:
    """Raise a ValueError unless a file has the content of its checksum or, where it has none, can be read in time."""
    if source.suffix == ".zarr":
        _check_store(source)
    else:
        state = source.stat()
        _check_file(source.resolve(), (state.st_ino, state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=64)
def _check_file(source: Path, state: Any) -> None:
    del state  # the file is looked at again when it is another
    size = source.stat().st_size
    with open(source, "rb") as file:
        end = _end_of_data(file.read(48))
        if end is not None and size < end:
            raise ValueError(f"perhaps it is truncated: it has {size:,} of {end:,} bytes")
        file.seek(max(0, size - _LINE))
        line = file.read()
        if line.startswith(_MARK) or (end is not None and size == end + _LINE):
            file.seek(0)
            if line != _MARK + _digest(file, size - _LINE) + b"\n":
                raise ValueError("it is damaged: its content is not that of its checksum")
            return
    _check_readable(source, _PATIENCE + size / _SLOW)


def _digest(file: Any, size: int) -> bytes:
    digest = hashlib.sha256()
    while size > 0:
        block = file.read(min(size, 2**20))
        size -= len(block)
        digest.update(block)
        if not block:
            break
    return digest.hexdigest().encode()


def _end_of_data(head: bytes) -> int | None:
    """Return where an HDF5 file says that its data end; None if it does not begin like one."""
    if len(head) < 48 or head[:8] != b"\x89HDF\r\n\x1a\n":
        return None
    at = 40 if head[8] < 2 else 28  # versions 0 and 1, 2 and 3 of the superblock
    return int.from_bytes(head[at : at + 8], "little")


def _check_readable(source: Path, seconds: float) -> None:
    """Raise a ValueError if the HDF5 library hangs or crashes on a file, as another process finds out."""
    try:
        run = subprocess.run(
            [sys.executable, "-c", _READ, str(source)], capture_output=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise ValueError(
            f"perhaps it is damaged: the HDF5 library takes more than {seconds:.0f} s to read it"
        ) from None
    if run.returncode < 0:
        raise ValueError("perhaps it is damaged: the HDF5 library crashes on it")


def _check_store(source: Path) -> None:
    """Raise a ValueError unless every file of a Zarr store is as it was written."""
    file = source / _CHECKSUMS / "zarr.json"
    if not file.exists():
        return
    try:
        expected = json.loads(file.read_text())["attributes"]["sha256"].items()
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise ValueError(f"it is damaged: its checksums, {str(file)!r}, cannot be read") from None
    found = _digests(source)
    for name, digest in expected:
        if found.get(name) != digest:
            what = "is not what was written" if name in found else "is missing"
            raise ValueError(
                f"it is damaged: its file {name!r} {what} (if it was changed on purpose, delete its folder {_CHECKSUMS!r})"
            )
