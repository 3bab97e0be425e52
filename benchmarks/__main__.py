"""Run the benchmarks and write their tables to docs/benchmarks.md: ``python -m benchmarks [ode] [sweep] [monte_carlo] [startup]``."""

from __future__ import annotations

import platform
import sys
from importlib import import_module
from pathlib import Path

from odeflow.numerics.threads import threads
from odeflow.provenance import provenance

SECTIONS = (
    "ode",
    "variants",
    "schedules",
    "sweep",
    "equilibria",
    "anisotropic",
    "erm",
    "monte_carlo",
    "committee",
    "committee_simulation",
    "deep",
    "methods",
    "attacks",
    "neighbours",
    "startup",
)


def main(names: list[str]) -> int:
    unknown = [name for name in names if name not in SECTIONS]
    if unknown:
        print(f"{unknown[0]!r} is no benchmark: allowed are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    made = provenance("benchmarks")
    head = (
        "# Benchmarks\n\n"
        f"Measured side by side in one run of `make bench` on {threads()} cores of {made['device'].removeprefix('cpu: ')}, "
        f"Python {platform.python_version()}, numpy {made['numpy_version']}, scipy {made['scipy_version']}, "
        f"numba {made['numba_version']}. Ratios carry over to other machines better than times do.\n"
    )
    sections = [head]
    for name in names or SECTIONS:
        section = import_module(f"benchmarks.{name}").run()
        print(section, end="\n\n", flush=True)
        sections.append(section)
    if not names:
        target = Path(__file__).parent.parent / "docs" / "benchmarks.md"
        target.write_text("\n\n".join(section.rstrip() for section in sections) + "\n")
        print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
