"""What made a result: attributes that every result carries; saving and loading."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odeflow.laws import Law, record

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SaveError", "check_target", "load", "provenance", "replacing", "save"]

SUFFIXES = (".nc", ".zarr")
_PARTS = {"GaussianMixture": "mixture", "LearningRule": "rule", "Adversary": "adversary"}


class SaveError(OSError):
    """A result could not be written. The old file, if there was one, is as it was."""


def provenance(
    function: str, *parts: Any, seed: str | None = None, device: str | None = None, **options: Any
) -> dict[str, str]:
    """Return the attributes of a result: configuration, seed, versions, device, time.

    Parameters
    ----------
    function
        Name of the public function that made the result.
    *parts
        Frozen dataclasses: mixture, rule, adversary.
    seed
        The seed as text, where there is one.
    device
        What it was computed on; default: this processor.
    **options
        The function's other arguments; anything JSON can hold, arrays as lists.

    Returns
    -------
    dict of str
        Only strings, so that every file format takes them.
    """
    configuration: dict[str, Any] = {"function": function}
    for part in parts:
        assert is_dataclass(part)
        assert not isinstance(part, type)
        values = {field.name: getattr(part, field.name) for field in fields(part)}
        configuration[_PARTS.get(type(part).__name__, type(part).__name__)] = values
    configuration["options"] = options
    attributes = {"configuration": json.dumps(configuration, default=_plain)}
    if seed is not None:
        attributes["seed"] = seed
    return {
        **attributes,
        **_software(),
        "device": device or _processor(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Law):
        return record(value)
    raise TypeError(f"{value!r} cannot be recorded as JSON")


def version(distribution: str) -> str:
    """Return the installed version of a distribution, without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


@cache
def _software() -> dict[str, str]:
    commit, dirty = _git()
    return {
        "odeflow_version": package_version(),
        "git_commit": commit,
        "git_dirty": dirty,
        **{f"{name}_version": version(name) for name in ("numpy", "scipy", "numba", "torch")},
    }


@cache
def package_version() -> str:
    """Return odeflow's version; a source tree that is not installed says so."""
    installed = version("odeflow")
    return installed if installed != "not installed" else "unknown (source tree)"


def _git() -> tuple[str, str]:
    """Return the commit of the source tree and "true" or "false" for uncommitted changes, or "unknown" twice."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        run = subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, timeout=10, check=True
        )
        return run.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # not merely a copy inside someone's repository
        return git("rev-parse", "HEAD"), "true" if git("status", "--porcelain", "--untracked-files=no") else "false"
    except (OSError, subprocess.SubprocessError):
        return "unknown", "unknown"


@cache
def _processor() -> str:
    name = platform.processor() or platform.machine()
    with suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return f"cpu: {name}"


def check_target(path: str | os.PathLike[str], suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """Return `path` if a file can be put there, before any work is done for it.

    Parameters
    ----------
    path
        Where a file is to be written.
    suffixes
        Which suffixes are allowed.

    Raises
    ------
    ValueError
        If the suffix is unknown, or if something stands there that is not of its kind.
    FileNotFoundError
        If its folder does not exist.
    PermissionError
        If its folder cannot be written to.
    """
    target = Path(path)
    if target.suffix not in suffixes:
        raise ValueError(
            f"path = {str(target)!r} has the suffix {target.suffix!r}: allowed is one of {', '.join(suffixes)}"
        )
    folder = target.absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"path = {str(target)!r}: the folder {str(folder)!r} does not exist: create it first")
    if target.exists() and not _replaceable(target):
        kind = "folder that is no Zarr store" if target.is_dir() else "file"
        raise ValueError(
            f"path = {str(target)!r} is a {kind}: it is not replaced; move it away, or choose another name"
        )
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"path = {str(target)!r}: the folder {str(folder)!r} cannot be written to")
    return target


def _replaceable(target: Path) -> bool:
    """Return whether what stands at `target` is of the kind that is to be written there."""
    if target.suffix == ".zarr":
        return target.is_dir() and any((target / name).is_file() for name in ("zarr.json", ".zgroup"))
    return target.is_file()


@contextmanager
def replacing(target: Path, folder: Path | None = None) -> Iterator[Path]:
    """Give a path in `folder` to write to; what stands there afterwards takes the place of `target`.

    The folder is on the same disk as `target`; by default it is the one that `target` is in.

    A failure, or a kill, leaves `target` as it was.

    Raises
    ------
    SaveError
        If writing fails.
    """
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=folder or target.absolute().parent))
    except OSError as error:
        raise SaveError(f"{str(target)!r} could not be saved: {error}") from error
    try:
        new = scratch / target.name
        yield new
        if target.is_dir():
            _swap(target, new, scratch / "old")
        else:
            new.replace(target)
    except OSError as error:
        raise SaveError(f"{str(target)!r} could not be saved: {error.strerror or error}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _swap(target: Path, new: Path, old: Path) -> None:
    """Put the folder `new` in the place of the folder `target`, which moves to `old`; or leave `target` where it is."""
    target.replace(old)
    try:
        new.replace(target)
    except BaseException:
        old.replace(target)
        raise


def save(result: xr.Dataset, path: str | os.PathLike[str]) -> Path:
    """Save a result as netCDF (suffix .nc) or Zarr (.zarr).

    It is written beside the target and renamed: there is never half a file, and a failure leaves the old file. (A Zarr
    store is a folder, which takes two renames to replace: a kill between them leaves the old store in a hidden folder.)

    Parameters
    ----------
    result
        Any Dataset.
    path
        Target; its folder must exist.

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
    if target.suffix == ".zarr":
        with replacing(target) as new:
            result.to_zarr(new, mode="w", consolidated=False)
    else:
        # Made in memory and written as bytes: the HDF5 library does not survive a full disk well.
        write_bytes(target, result.to_netcdf(engine="h5netcdf"))
    return target


def write_bytes(target: Path, content: bytes | memoryview) -> None:
    """Write a file beside `target` and rename it.

    Raises
    ------
    SaveError
        If writing fails.
    """
    with replacing(target) as new, open(new, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def load(path: str | os.PathLike[str]) -> xr.Dataset:
    """Load a result from netCDF (.nc) or Zarr (.zarr) into memory.

    Parameters
    ----------
    path
        A file that `save` wrote, or any other that xarray reads in these formats.

    Returns
    -------
    Dataset

    Raises
    ------
    FileNotFoundError
        If there is none.
    ValueError
        If it is not a whole netCDF file or Zarr store.
    """
    import xarray as xr

    source = Path(path)
    if source.suffix not in SUFFIXES:
        raise ValueError(
            f"path = {str(source)!r} has the suffix {source.suffix!r}: allowed is one of {', '.join(SUFFIXES)}"
        )
    if not source.exists():
        raise FileNotFoundError(f"path = {str(source)!r}: there is no such file")
    try:
        if source.suffix == ".zarr":
            with xr.open_zarr(source, consolidated=False) as opened:
                whole: xr.Dataset = opened.load()
                return whole
        with xr.open_dataset(source, engine="h5netcdf") as opened:
            return opened.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        kind = "a Zarr store" if source.suffix == ".zarr" else "a netCDF file"
        raise ValueError(
            f"path = {str(source)!r} is not {kind} that can be read, perhaps it is truncated: {error}"
        ) from error
