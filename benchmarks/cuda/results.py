"""What a card has found, in a file: with the device, the versions, the commit and the time."""

from __future__ import annotations

import json
import math
import os
import platform
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.cuda import origin
from deepcheck.device import describe
from odeflow.provenance import provenance, write_bytes

if TYPE_CHECKING:
    from benchmarks.cuda.card import Work

__all__ = [
    "MOST_BYTES",
    "MOST_FILES",
    "RECORDED",
    "Result",
    "check_size",
    "files",
    "forget",
    "gather",
    "read",
    "spread",
    "write",
]

RECORDED = Path(__file__).parents[2] / "docs" / "cuda"
"""Results that are committed."""
MOST_FILES, MOST_BYTES = 8, 16 << 20
"""Files of a folder of results, and bytes of each: what comes back from a machine at most."""


# One result.


@dataclass(frozen=True)
class Result:
    """A file of results, as it was read."""

    path: Path
    content: dict[str, Any]

    @property
    def complete(self) -> bool:
        """Whether the card has found all, and not in its quick form."""
        return self.content["complete"] is True and not self.content["quick"]

    @property
    def made(self) -> dict[str, Any]:
        """What made it."""
        return {name: self.content.get(name) for name in ("git_commit", "device", "created", "seconds")}

    @property
    def before(self) -> tuple[dict[str, Any], ...]:
        """What made it, and what it was made of, the oldest first."""
        return (*self.content.get("before", ()), self.made)


def read(folder: Path, name: str) -> Result | None:
    """Return the result of a card in a folder, or None where there is none.

    Raises
    ------
    ValueError
        If there is a file that is no result of this card.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        content = json.loads(path.read_bytes())
        if content["card"] != name or not {"complete", "quick", "found"} <= content.keys():
            raise KeyError("card")
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{str(path)!r} is no result of the card {name}: move it away") from None
    return Result(path, content)


def write(work: Work, failure: BaseException | None = None, traceback: str = "") -> None:
    """Write what a card has found so far to NAME.json; a killed run leaves either the old file or the new one."""
    report: dict[str, Any] = {
        "card": work.card.name,
        "complete": work.complete,
        "quick": work.quick,
        **made(work.device),
        "seeds": list(work.card.seeds),
        "seconds": round(work.elapsed(), 1),
        "notes": work.notes,
        **({"before": list(work.before)} if work.before else {}),
        **({"failure": one_line(failure), "traceback": traceback} if failure is not None else {}),
        "found": work.found,
    }
    text = json.dumps(_numbers(report), indent=1, allow_nan=False)
    # where the checkout stood is nobody's matter, and the failures of tests and tracebacks are full of it
    text = text.replace(json.dumps(f"{origin.ROOT}{os.sep}")[1:-1], "")
    write_bytes(work.out / f"{work.card.name}.json", text.encode())


def one_line(failure: BaseException) -> str:
    """Return what an exception says, in one line."""
    return " ".join(f"{type(failure).__name__}: {failure}".split())


def made(device: torch.device) -> dict[str, Any]:
    """Return what makes a result on a device: its name, the versions, the commit, the settings of TF32, the time."""
    by = {**provenance("benchmarks.cuda", device=describe(device)), **origin.commit()}
    del by["configuration"]
    cuda = {"cuda_version": torch.version.cuda, "cudnn_version": torch.backends.cudnn.version(), "driver": driver()}
    memory = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else None
    return {**by, "python_version": platform.python_version(), **cuda, "memory_bytes": memory, "tf32": tf32()}


@cache
def driver() -> str | None:
    """Return the version of the GPU's driver, or None without one."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return said.splitlines()[0].strip() if said.strip() else None


def tf32() -> dict[str, str]:
    """Return the precision of float32 products on a GPU, as it is set outside of attacks and trainings."""
    parts = {"matmul": torch.backends.cuda.matmul, "convolution": getattr(torch.backends.cudnn, "conv", None)}
    if all(hasattr(part, "fp32_precision") for part in parts.values()):  # torch 2.9 and later
        return {name: str(part.fp32_precision) for name, part in parts.items()}  # type: ignore[union-attr]
    allowed = {"matmul": torch.backends.cuda.matmul.allow_tf32, "convolution": torch.backends.cudnn.allow_tf32}
    return {name: "tf32" if value else "ieee" for name, value in allowed.items()}


def _numbers(value: Any) -> Any:
    """Return what JSON can hold: arrays as lists, and None for what is no finite number."""
    if isinstance(value, dict):
        return {str(key): _numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(item) for item in value]
    if hasattr(value, "tolist"):
        return _numbers(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


# A folder of them.


def files(folder: Path) -> list[Path]:
    """Return the files of results below a folder, but for those of the quick form."""
    return sorted(path for path in _below(folder) if path.relative_to(folder).parts[0] != "quick")


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def forget(folder: Path, name: str) -> None:
    """Remove the files and folders of a card: NAME, NAME.json, NAME_errors.png and so on. What else is there stays."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.stem == name or path.name.startswith(f"{name}_"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def gather(folder: Path) -> None:
    """Put what is no result itself, such as pictures and weights, into archives, where there are too many files.

    An archive rest1.zip, rest2.zip, ... holds no more bytes than a file may; `spread` undoes it.
    """
    there = files(folder)
    loose = [path for path in there if path.parent != folder or path.suffix != ".json"]
    if len(there) <= MOST_FILES:
        return
    archives: list[list[Path]] = []
    for path in loose:
        if path.stat().st_size > MOST_BYTES - 4096:
            continue  # an archive would be larger still
        for archive in archives:
            if sum(other.stat().st_size + 512 for other in [*archive, path]) <= MOST_BYTES:
                archive.append(path)
                break
        else:
            archives.append([path])
    for number, archive in enumerate((one for one in archives if len(one) > 1), 1):
        target = folder / f"rest{number}.zip"
        with zipfile.ZipFile(target.with_name(f".{target.name}"), "w") as file:  # stored: nothing in it gets smaller
            for path in archive:
                file.write(path, path.relative_to(folder).as_posix())
        target.with_name(f".{target.name}").replace(target)
        for path in archive:
            path.unlink()


def spread(folder: Path) -> None:
    """Take out of archives what `gather` has put into them."""
    for path in sorted(folder.glob("rest*.zip")):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
        path.unlink()


def check_size(folder: Path) -> None:
    """Raise ValueError if there are too many files of results in a folder, or too large ones."""
    there = files(folder)
    names = {path.relative_to(folder).as_posix(): path.stat().st_size for path in there}
    if large := [f"{name} ({size / 2**20:.1f} MiB)" for name, size in names.items() if size > MOST_BYTES]:
        raise ValueError(f"{str(folder)!r} has files of more than {MOST_BYTES >> 20} MiB: {', '.join(large)}")
    if len(there) > MOST_FILES:
        raise ValueError(f"{str(folder)!r} has {len(there)} files, more than {MOST_FILES}: {', '.join(names)}")
