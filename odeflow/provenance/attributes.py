"""What made a result: configuration, seed, versions, device and time, as attributes."""

from __future__ import annotations

import json
import platform
import subprocess
from contextlib import suppress
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from odeflow.laws import Law, record
from odeflow.schedule import Schedule
from odeflow.schedule import record as schedule_record

__all__ = ["package_version", "provenance", "version"]

_PARTS = {
    "GaussianMixture": "mixture",
    "GaussianClusters": "mixture",
    "TeacherStudent": "mixture",
    "LearningRule": "rule",
    "Adversary": "adversary",
}


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
        kind = type(part).__name__
        if _PARTS.get(kind) == "mixture" and kind != "GaussianMixture":
            values = {"kind": kind, **values}
        configuration[_PARTS.get(kind, kind)] = values
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
    if isinstance(value, Schedule):
        return schedule_record(value)
    if is_dataclass(value):  # such as a setting of a study
        return repr(value)
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
