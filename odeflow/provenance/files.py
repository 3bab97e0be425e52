"""Files are written whole or not at all: in a hidden folder beside the target, from which they are renamed.

The folder, ``.NAME.new``, is in the hands of one process (and thread) at a time, which holds the lock in it. What a
process that was killed has left there is removed by the next one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = [
    "SUFFIXES",
    "InUse",
    "SaveError",
    "check_package",
    "check_target",
    "empty",
    "hidden",
    "in_hand",
    "placed",
    "recover",
    "release",
    "replacing",
    "take",
    "uninterrupted",
    "write_bytes",
]

SUFFIXES = (".nc", ".zarr")
_PACKAGES = {".nc": "h5netcdf", ".zarr": "zarr"}
_LONGEST = 200  # bytes of a name: the hidden names beside it are longer, and most systems allow 255
_PATIENCE = 600.0  # seconds that a file may be in the hands of another process
_LAST = ("manifest.json", "lock")  # of a folder's files these are removed last, in this order


class SaveError(OSError):
    """A result could not be written. The old file, if there was one, is as it was."""


class InUse(Exception):
    """A folder is in the hands of another process, or of another thread of this one."""


def check_target(path: str | os.PathLike[str], suffixes: tuple[str, ...] = SUFFIXES, *, overwrite: bool = True) -> Path:
    """Return `path` if a file can be put there, before any work is done for it.

    Parameters
    ----------
    path
        Where a file is to be written. A symbolic link stays: what it leads to is written.
    suffixes
        Which suffixes are allowed.
    overwrite
        Whether a file may stand there already.

    Raises
    ------
    ValueError
        If the suffix is unknown or the name too long, or if something stands there that is not of its kind or not to be
        overwritten.
    FileNotFoundError
        If its folder does not exist.
    PermissionError
        If its folder, or the file that stands there, cannot be written to.
    ModuleNotFoundError
        If the package for such files is not installed.
    """
    target = Path(path)
    if target.suffix not in suffixes:
        raise ValueError(
            f"path = {str(target)!r} has the suffix {target.suffix!r}: allowed is one of {', '.join(suffixes)}"
        )
    check_package(target)
    if len(os.fsencode(target.name)) > _LONGEST:
        raise ValueError(f"path = {str(target)!r} has a name of more than {_LONGEST} bytes: allowed is a shorter one")
    try:
        real = target.resolve()
        folder = real.parent
        is_there = real.exists()
    except (OSError, RuntimeError, ValueError) as error:  # a circle of links, a path that is too long, a null byte
        raise ValueError(f"path = {str(target)!r} is no path of a file: {error}") from None
    if not folder.is_dir():
        raise FileNotFoundError(f"path = {str(target)!r}: the folder {str(folder)!r} does not exist: create it first")
    if is_there and not _replaceable(real):
        kind = "folder that is no Zarr store" if real.is_dir() else "file"
        raise ValueError(
            f"path = {str(target)!r} is a {kind}: it is not replaced; move it away, or choose another name"
        )
    if is_there and not overwrite:
        raise ValueError(f"path = {str(target)!r} is there already: allowed is --overwrite, or another name")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"path = {str(target)!r}: the folder {str(folder)!r} cannot be written to")
    if is_there and not os.access(real, os.W_OK):
        raise PermissionError(f"path = {str(target)!r} is there, and is read-only: it is not replaced")
    return target


def check_package(path: Path) -> None:
    """Raise a ModuleNotFoundError that names it if the package for a result's file is not installed."""
    package = _PACKAGES.get(path.suffix)
    try:
        found = package is None or importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise ModuleNotFoundError(
            f"path = {str(path)!r} needs {package}, which is not installed: pip install {package}", name=package
        )


def _replaceable(target: Path) -> bool:
    """Return whether what stands at `target` is of the kind that is to be written there."""
    if target.suffix == ".zarr":
        return target.is_dir() and any((target / name).is_file() for name in ("zarr.json", ".zgroup"))
    return target.is_file()


def hidden(target: Path, kind: str) -> Path:
    """Return the hidden folder that belongs to a target, on the same disk: beside what a link leads to."""
    real = target.resolve()
    return real.parent / f".{real.name}.{kind}"


# A folder in the hands of one.


def take(folder: Path) -> BaseFileLock:
    """Make a folder, if it is not there, and keep all others out; the lock ends with this process, however it ends.

    Raises
    ------
    InUse
        If another has it.
    OSError
        If it cannot be made.
    """
    from filelock import FileLock, Timeout

    while True:
        folder.mkdir(exist_ok=True)
        lock = FileLock(folder / "lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except Timeout:
            raise InUse from None
        except FileNotFoundError:  # the one who had it has just removed it
            continue
        return lock


def release(folder: Path, lock: BaseFileLock, *, keep: bool = False) -> None:
    """Let others have a folder; unless it is to be kept, it is removed first.

    A kill leaves the manifest as long as anything that it describes.
    """
    try:
        if not keep:
            with suppress(OSError):
                empty(folder)
                _remove_lock(folder)
    finally:
        lock.release()
    if not keep and (folder / "lock").exists():  # Windows removes no file that is open
        _remove_lock(folder)


def empty(folder: Path) -> None:
    """Remove all but the lock from a folder that is in this process's hands, the manifest last."""
    for path in sorted(folder.iterdir(), key=_order):
        if path.name != "lock":
            _remove(path)


def _order(path: Path) -> int:
    return _LAST.index(path.name) if path.name in _LAST else -1


def _remove_lock(folder: Path) -> None:
    with suppress(OSError):  # another process has it by now
        (folder / "lock").unlink()
        folder.rmdir()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _gone(path: Path) -> Path:
    return path.with_name(f"gone{path.suffix}")


def _remove_at_once(path: Path) -> None:
    """Remove a file or folder so that its name is never that of a half of it, whenever this is killed."""
    gone = _gone(path)
    if path != gone:
        if gone.exists():
            _remove(gone)
        path.replace(gone)
    _remove(gone)


# A file that takes the place of another.


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Give a path to write to; what stands there afterwards takes the place of `target`.

    A failure, or a kill, leaves `target` as it was.

    Raises
    ------
    SaveError
        If writing fails.
    """
    with in_hand(target) as folder, placed(target, folder) as new:
        yield new


@contextmanager
def in_hand(target: Path) -> Iterator[Path]:
    """Give the hidden folder beside a target, in which it is written, when no other has it.

    Raises
    ------
    SaveError
        If it cannot be made, or if another has it for very long.
    """
    folder = hidden(target, "new")
    lock = None
    end = time.monotonic() + _PATIENCE
    try:
        while lock is None:
            try:
                with uninterrupted():
                    lock = take(folder)
            except InUse:
                if time.monotonic() > end:
                    raise SaveError(f"{str(target)!r} could not be saved: another process has it in use") from None
                time.sleep(0.02)
            except OSError as error:
                raise SaveError(f"{str(target)!r} could not be saved: {error}") from error
        yield folder
    finally:
        if lock is not None:
            with uninterrupted():
                release(folder, lock)


@contextmanager
def placed(target: Path, folder: Path) -> Iterator[Path]:
    """Give a path in `folder`, which is in this process's hands, to write to, as `replacing` does.

    Raises
    ------
    SaveError
        If writing fails.
    """
    real, new, old = target.resolve(), folder / f"new{target.suffix}", folder / f"old{target.suffix}"
    try:
        recover(target, folder)
        yield new
        if real.is_dir():  # two renames; between them there is only the old one, in the folder
            real.replace(old)
            try:
                new.replace(real)
            except BaseException:
                old.replace(real)
                raise
            _remove_at_once(old)
        else:
            new.replace(real)
    except OSError as error:
        if isinstance(error, SaveError):
            raise
        raise SaveError(f"{str(target)!r} could not be saved: {error.strerror or error}") from error


def recover(target: Path, folder: Path) -> None:
    """Bring back what a kill has left in `folder` of the old file, and remove what it has left of the new one."""
    real, new, old = target.resolve(), folder / f"new{target.suffix}", folder / f"old{target.suffix}"
    if old.exists() and not real.exists():
        old.replace(real)
    for path in (new, old, _gone(old)):
        if path.exists():
            _remove_at_once(path)


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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait for the end of a block: of calls of a library that does not survive an exception at any place.

    What takes long must be done in pieces.
    """
    waiting: dict[int, Any] = {}
    before: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # the others never hear of a signal
            for number in (signal.SIGINT, signal.SIGTERM):
                if callable(signal.getsignal(number)):
                    before[number] = signal.getsignal(number)
                    signal.signal(number, waiting.__setitem__)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for signalled, frame in waiting.items():
        before[signal.Signals(signalled)](signalled, frame)
