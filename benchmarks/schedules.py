"""What a schedule costs: 20,000 random trajectories with epsilon or a rate that changes, against constant ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.ode import ALPHA, random_points
from benchmarks.timing import in_turn, table
from odeflow import Schedule, integrate_batch

POINTS = 20_000
SCHEDULES: dict[str, dict[str, Any]] = {
    "constant": {"epsilon": 1.0},
    "constant, but given as a Schedule": {"epsilon": Schedule.steps({0: 1.0})},
    "linear ramp over the whole time": {"epsilon": Schedule.linear({0: 0.0, ALPHA: 2.0})},
    "ten steps": {
        "epsilon": Schedule.steps(np.linspace(0.5, 1.5, 10).tolist(), np.arange(0, ALPHA, ALPHA / 10).tolist())
    },
    "a smooth wave (pieces of degree 7)": {
        "epsilon": Schedule.smooth(lambda alpha: 1 + 0.5 * np.cos(alpha / 20), until=ALPHA)
    },
}


def run() -> str:
    """Measure, and return a section of Markdown."""
    points = {name: values for name, values in random_points(POINTS).items() if name != "epsilon"}
    rows = []
    for kind, variant in (("seed model", {}), ("half of the examples attacked", {"fraction": 0.5})):
        solve = {
            name: lambda given=given, variant=variant: integrate_batch(
                **points, **given, **variant, alpha=[ALPHA], rtol=1e-6, atol=1e-8
            )
            for name, given in SCHEDULES.items()
        }
        times = in_turn(solve, repeats=5)
        for name, time in times.items():
            steps = solve[name]().steps.mean()
            per_step = time / steps / (times["constant"] / solve["constant"]().steps.mean())
            rows.append([kind, name, f"{time / times['constant']:.3g}", f"{steps:.1f}", f"{per_step:.3g}"])
    return (
        "## Schedules: cost relative to constant parameters\n\n"
        f"{POINTS:,} of the random points above to alpha = {ALPHA:g}, rtol 1e-6, medians of 5 runs in turn.\n\n"
        + table(["kernel", "epsilon", "time, ratio to constant", "steps", "ratio a step"], rows)
    )
