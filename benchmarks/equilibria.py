"""All fixed points of many parameter points, against integrating until the end state is reached."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.timing import in_turn, table
from odeflow import integrate_batch
from odeflow.fixed_points.equilibria import FixedPoints, fixed_points_batch

POINTS = 100_000
SOME = 2_000  # integrated, and their time scaled
TIMES = (1e3, 1e4, 1e5)
TOLERANCE = 1e-8

Array = npt.NDArray[np.float64]


def random_points(count: int) -> dict[str, Array]:
    """Return parameter points from the ranges that the other benchmarks use, with equal variances in half of them."""
    rng = np.random.default_rng(20260301)
    v1 = rng.uniform(0.5, 2, count)
    return {
        "p": rng.uniform(0.3, 0.7, count),
        "rho": rng.uniform(1, 4, count),
        "v1": v1,
        "v2": np.where(rng.random(count) < 0.5, v1, rng.uniform(0.5, 2, count)),
        "eta_w": rng.uniform(0.02, 0.5, count),
        "eta_b": rng.uniform(0.05, 0.5, count),
        "epsilon": rng.uniform(0, 1.5, count),
    }


def distance(y: Array, points: FixedPoints) -> Array:
    """Return how far R and b are from the nearest stable fixed point."""
    gap = np.maximum(np.abs(points.R - y[:, :1]), np.abs(points.b - y[:, 1:]))
    nearest: Array = np.min(np.where(points.stable, gap, np.inf), axis=1)
    return nearest


def run() -> str:
    """Measure, and return a section of Markdown."""
    model: dict[str, Any] = random_points(POINTS)
    few: dict[str, Any] = {name: column[:SOME] for name, column in model.items()}
    points = fixed_points_batch(**few)

    def integrated(alpha: float) -> Array:
        return integrate_batch(**few, alpha=[alpha], rtol=TOLERANCE, atol=TOLERANCE).y[:, 0]

    alternatives: dict[str, Callable[[], Any]] = {"all": lambda: fixed_points_batch(**model)}
    alternatives |= {f"{alpha:g}": partial(integrated, alpha) for alpha in TIMES}
    times = in_turn(alternatives, repeats=5)
    rows = [["`fixed_points_batch`: all fixed points, eigenvalues, stability", f"{times['all']:.3g} s", "1", "all"]]
    for alpha in TIMES:
        time = times[f"{alpha:g}"] * POINTS / SOME
        arrived = float(np.mean(distance(integrated(alpha), points) < 1e-7))
        rows.append(
            [
                f"`integrate_batch` to alpha = {alpha:,.0f}",
                f"{time:.3g} s",
                f"{time / times['all']:.3g}",
                f"{arrived:.0%}",
            ]
        )
    return (
        f"## Fixed points of {POINTS:,} parameter points\n\n"
        "Random points (p 0.3 to 0.7, rho 1 to 4, v 0.5 to 2, half of them with v1 = v2, epsilon 0 to 1.5, eta_w 0.02 to 0.5,\n"
        f"eta_b 0.05 to 0.5). Integration from R = b = 0 at rtol = atol = {TOLERANCE:g}, {SOME:,} points, their time scaled; it\n"
        "finds one fixed point at most, and the last column says at how many points it has come within 1e-7 of it. The other\n"
        "points have an end state that relaxes more slowly, or none (the bias runs away).\n\n"
        + table(["method", "time", "ratio", "arrived"], rows)
    )
