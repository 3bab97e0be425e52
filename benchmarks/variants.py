"""What the variants cost: 5,000 random trajectories, each variant against the seed model."""

from __future__ import annotations

from typing import Any

from benchmarks.ode import ALPHA, random_points
from benchmarks.timing import in_turn, table
from odeflow import integrate_batch
from odeflow.laws import Discrete, Uniform

POINTS = 5_000
VARIANTS: dict[str, dict[str, Any]] = {
    "seed model": {},
    "perceptron, sign (closed form)": {"loss": "perceptron", "activation": "sign"},
    "hinge, linear (closed form)": {"loss": "hinge", "activation": "linear"},
    "half of the examples attacked (closed form, 2 attacks)": {"fraction": 0.5},
    "epsilon of two values (closed form, 2 attacks)": {"law": Discrete((0.5, 1.5), (0.5, 0.5))},
    "free weights (closed form)": {"normalised": False},
    "non-robust updates (quadrature)": {"update": "non_robust"},
    "logistic, linear (quadrature)": {"loss": "logistic", "activation": "linear"},
    "squared, tanh (quadrature)": {"activation": "tanh"},
    "clean and attacked (quadrature, 2 margins)": {"clean_weight": 0.5},
    "TRADES (quadrature, 2 margins)": {"surrogate": "trades", "beta": 2.0},
    "pairing, clean and attacked (quadrature, 2 margins)": {"surrogate": "pairing", "beta": 0.5, "clean_weight": 0.5},
    "epsilon uniform (closed form, 32 attacks)": {"law": Uniform(0.5, 1.5)},
}


def run() -> str:
    """Measure, and return a section of Markdown."""
    points = random_points(POINTS)
    solve = {
        name: lambda variant=variant: integrate_batch(**points, **variant, alpha=[ALPHA], rtol=1e-6, atol=1e-8)
        for name, variant in VARIANTS.items()
    }
    times = in_turn(solve, repeats=3)
    seed = next(iter(VARIANTS))
    rows = [
        [name, f"{time * 1e3:.3g} ms", f"{time / times[seed]:.3g}", f"{solve[name]().steps.mean():.1f}"]
        for name, time in times.items()
    ]
    return (
        "## Variants: cost relative to the seed model\n\n"
        f"{POINTS:,} of the random points above, rtol 1e-6, medians of 3 runs in turn.\n\n"
        + table(["variant", "time", "ratio to the seed model", "steps"], rows)
    )
