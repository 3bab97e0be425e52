"""What a long study keeps between runs: parts that are made once for the same settings by the same code.

The file of a part is NAME_SETTINGS_CODE.nc, with the first digits of a digest of the settings and of one of the code
(`studies.common.sources`). So a part that other code made is never taken for this one's: it stays on disk under the name
that says so, and is there again for whoever goes back to that code.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.provenance import load, provenance, save, write_bytes
from studies.common.errors import Unavailable
from studies.common.sources import digest

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Part", "digest_of", "discard", "kept", "made_here", "own_folder", "record", "recorded", "study_folder"]

_LOG = logging.getLogger(__name__)
_DIGITS = 8
"""Of a digest, in the names of files."""
_ATTRIBUTE = "part"


@dataclass(frozen=True)
class Part:
    """Who made a part of a study's result."""

    name: str
    settings: str
    """Digest of the settings that it was made with."""
    code: str
    """Digest of the code that made it."""
    git_commit: str
    """Commit of the source tree that made it, "unknown" outside one."""
    git_dirty: str
    created: str


def study_folder(folder: Path | None, *, instead: str = "") -> Path:
    """Return the folder of a study's parts, which is made; that of a data set which stands in has its name added.

    Raises
    ------
    ValueError
        If there is none.
    """
    if folder is None:
        raise ValueError("folder = None is not allowed: a folder for what is kept between runs is")
    if instead:
        folder = folder.with_name(f"{folder.name}_{instead}")
    folder.mkdir(exist_ok=True)
    return folder


def kept(folder: Path, name: str, settings: object, measure: Callable[..., xr.Dataset], *arguments: Any) -> xr.Dataset:
    """Return measure(*arguments): from the folder, if it was made there with the same settings by the same code.

    Parameters
    ----------
    folder
        That of the study.
    name
        What the part is called, without a suffix.
    settings
        Its repr says all that the measurement depends on.
    measure
        A function of a module; its code is that module and what it imports.
    *arguments
        What it is called with.

    Raises
    ------
    Unavailable
        If the file is there and cannot be read.
    """
    made = made_here(name, settings, measure.__module__)
    file = _file(folder, made)
    if file.exists():
        try:
            data = load(file)
        except ValueError as error:
            raise Unavailable(f"{error}; remove it to have it made anew") from None
        found = Part(**json.loads(data.attrs.pop(_ATTRIBUTE)))
        if (found.settings, found.code) == (made.settings, made.code):
            record(found)
            return data.drop_encoding()
    _tell_of_other_code(folder, name, f"{name}_{made.settings[:_DIGITS]}_*.nc", f"{name}.nc")
    with recorded():  # what it is made of is not a part of its own
        data = measure(*arguments)
    save(data.assign_attrs({_ATTRIBUTE: json.dumps(asdict(made))}), file)
    record(made)
    return data


def digest_of(*arrays: Any) -> str:
    """Return a digest of arrays or tensors, for settings: what was measured on which data."""
    plain = [np.ascontiguousarray(array.cpu() if hasattr(array, "cpu") else array) for array in arrays]
    return hashlib.sha256(b"".join(repr(array.shape).encode() + array.tobytes() for array in plain)).hexdigest()


def discard(folder: Path, name: str, settings: object, measure: Callable[..., xr.Dataset]) -> None:
    """Remove a part that is contained in another."""
    _file(folder, made_here(name, settings, measure.__module__)).unlink(missing_ok=True)


def _file(folder: Path, part: Part) -> Path:
    return folder / f"{part.name}_{part.settings[:_DIGITS]}_{part.code[:_DIGITS]}.nc"


def made_here(name: str, settings: object, *modules: str, apart: tuple[str, ...] = ()) -> Part:
    """Return what a part is that this code makes now, of which the modules have the functions; see `digest` for `apart`."""
    key = hashlib.sha256(repr(settings).encode()).hexdigest()
    tree = provenance(name)
    return Part(name, key, digest(*modules, apart=apart), tree["git_commit"], tree["git_dirty"], tree["created"])


def own_folder(folder: Path, made: Part) -> Path:
    """Return the folder of a part that is a folder; the files in it are up to who makes it.

    Its `part.json` says who made it: if it is there, that counts.
    """
    # as one number, for the folder's name
    own = hashlib.sha256((made.settings + made.code).encode()).hexdigest()[:_DIGITS]
    place = folder / f"{made.name}_{own}"
    mark = place / "part.json"
    if mark.is_file():
        made = Part(**json.loads(mark.read_text(encoding="utf-8")))
    else:
        _tell_of_other_code(folder, made.name, f"{made.name}_{'[0-9a-f]' * _DIGITS}", made.name)
        place.mkdir(exist_ok=True)
        write_bytes(mark, json.dumps(asdict(made), indent=1).encode())
    record(made)
    return place


def _tell_of_other_code(folder: Path, name: str, *patterns: str) -> None:
    """Say in one line which files of the same name stay, because they are of other code."""
    others = sorted(path.name for pattern in patterns for path in folder.glob(pattern))
    if others:
        _LOG.warning(
            "%s: %s in %s is of other code (or data): it stays there, and is made anew", name, ", ".join(others), folder
        )


# --- which parts a result is made of ---

_USED: ContextVar[list[Part] | None] = ContextVar("used", default=None)


@contextmanager
def recorded() -> Iterator[list[Part]]:
    """Collect the parts that are used inside, also those of `studies.common.parallel.in_processes`."""
    parts: list[Part] = []
    token = _USED.set(parts)
    try:
        yield parts
    finally:
        _USED.reset(token)


def record(*parts: Part) -> None:
    """Count parts among those that are used."""
    used = _USED.get()
    if used is not None:
        used.extend(parts)
