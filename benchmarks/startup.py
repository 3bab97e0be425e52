"""How long a newcomer waits: help, import, and the first trajectory of a fresh process."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.timing import in_turn, table

INTEGRATE = (
    "from odeflow import *; integrate(GaussianMixture(), LearningRule(), Adversary(1.0), alpha=[0.0, 50.0, 100.0])"
)


def run() -> str:
    """Measure, and return a section of Markdown."""

    def process(*arguments: str) -> None:
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)

    times = in_turn(
        {
            "`python -c pass`": lambda: process("-c", "pass"),
            "`odeflow --help`": lambda: process("-m", "odeflow.cli", "--help"),
            "`import odeflow`": lambda: process("-c", "import odeflow"),
            "first `integrate`, compiled code cached": lambda: process("-c", INTEGRATE),
        }
    )
    rows = [[name, f"{value:.2f} s"] for name, value in times.items()]
    return "## Start of a fresh process\n\n" + table(["what", "time"], rows)
