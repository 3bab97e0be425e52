"""Which commit the code is of, on a machine that has no git too."""

from __future__ import annotations

import hashlib
import json
import subprocess
from functools import cache
from pathlib import Path

from odeflow.provenance import provenance

__all__ = ["MANIFEST", "behind", "commit", "digest"]

ROOT = Path(__file__).parents[2]
MANIFEST = ROOT / ".cuda-bundle" / "manifest.json"
"""What a bundle holds, and of which commit it is."""
PACKAGES = ("benchmarks", "deepcheck", "odeflow", "studies", "tests")


@cache
def commit() -> dict[str, str]:
    """Return the commit of the code, and "true" or "false" for changes; without git, what the bundle says of it.

    A tree that has travelled without its history is the one of the bundle's commit if the code has the same digest.
    """
    made = provenance("benchmarks.cuda")
    found = {name: made[name] for name in ("git_commit", "git_dirty")}
    if found["git_commit"] != "unknown" or not MANIFEST.exists():
        return found
    carried = json.loads(MANIFEST.read_bytes())["code"]
    same = carried["digest"] == digest()
    return {"git_commit": carried["git_commit"], "git_dirty": carried["git_dirty"] if same else "true"}


def digest() -> str:
    """Return a digest of all code."""
    sha = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            sha.update(f"{path.relative_to(ROOT).as_posix()} {path.stat().st_size}\n".encode() + path.read_bytes())
    return sha.hexdigest()


def behind(of: str) -> str:
    """Return how a commit stands to the one of the code, in words; empty if it is the same."""
    now = commit()["git_commit"]
    if of == now:
        return ""
    command = ["git", "-C", str(ROOT), "rev-list", "--count", f"{of}..{now}"]
    try:
        count = int(subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return f"of commit {of[:7]}"
    return f"of commit {of[:7]}, {count} behind"
