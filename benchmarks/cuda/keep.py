"""Bring results from a folder to docs/cuda: ``python -m benchmarks.cuda.keep DIR``."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from benchmarks.cuda import results
from benchmarks.cuda.cards import NAMES

__all__ = ["keep", "main"]


def keep(folder: Path, recorded: Path) -> list[str]:
    """Copy results and figures, and return what is said of each card.

    What is whole is not replaced by what is not. Weights stay where they are: they are for the next call.

    Raises
    ------
    ValueError
        If the folder has no results, or a file that is none.
    """
    results.spread(folder)
    found = [one for name in NAMES if (one := results.read(folder, name)) is not None]
    if not found:
        raise ValueError(f"{str(folder)!r} has no results: allowed is the folder that was given as --out")
    said = []
    for one in found:
        name = one.content["card"]
        there = results.read(recorded, name)
        if one.content["quick"]:
            said.append(f"{name}: in its quick form, left out")
        elif there is not None and there.complete and not one.complete:
            said.append(f"{name}: not whole, and {there.path} is: left out")
        else:
            figures = [path for suffix in ("png", "pdf") for path in sorted(folder.glob(f"{name}*.{suffix}"))]
            for path in (one.path, *figures):
                shutil.copy2(path, recorded)
            said.append(f"{name}: {'whole' if one.complete else 'in part'}, {1 + len(figures)} files")
    return said


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda.keep", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of results that came back")
    options = parser.parse_args(arguments)
    try:
        print("\n".join(keep(options.folder, results.RECORDED)))
    except ValueError as error:
        print(f"benchmarks.cuda.keep: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
