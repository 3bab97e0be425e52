"""Empirical risk minimisation as N grows: a curve with the optimal ridge, against the damped iteration that is usual."""

from __future__ import annotations

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import ndtr

from benchmarks.timing import in_turn, table
from odeflow.erm import ProbitTeacher, optimal_ridge, solve

TAU, EPSILON = 0.05, 0.2
ALPHA = np.geomspace(0.5, 12, 50)
SOME = 3  # of the curve's points in the slower ones, their time scaled
TOLERANCE = 1e-9
NODES = 201


def damped(alpha: float, ridge: float, *, nodes: int = NODES, damping: float = 0.5) -> float:
    """Return the error from the fixed-point equations by damped iteration, all in NumPy: Gauss-Hermite quadrature, Newton's method."""
    xi, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    m, q, V = 0.5, 1.0, 1.0
    for _ in range(100_000):
        r, V0 = math.sqrt(q), 1 - m**2 / q + TAU**2
        x = r * xi - EPSILON * r
        t = np.maximum(x, 0)
        for _ in range(60):
            e = 1 / (1 + np.exp(np.clip(t, -500, 500)))
            step = (x - t + V * e) / (1 + V * e * (1 - e))
            t = t + step
            if np.max(np.abs(step)) < 1e-12:
                break
        f = 1 / (1 + np.exp(np.clip(t, -500, 500)))
        second = f * (1 - f)
        z = m * xi / r / math.sqrt(V0)
        Z, slope = 2 * ndtr(z), 2 * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi * V0)
        terms = np.stack([slope * f, Z * f**2, Z * second / (1 + V * second), EPSILON / r * Z * f])
        m_hat, q_hat, V_hat, P_hat = alpha * (terms @ weights)
        L = ridge + V_hat + P_hat
        new = m_hat / L, (q_hat + m_hat**2) / L**2, 1 / L
        moved = max(abs(a - b) / abs(b) for a, b in zip(new, (m, q, V), strict=True))
        m, q, V = (damping * a + (1 - damping) * b for a, b in zip(new, (m, q, V), strict=True))
        if moved < TOLERANCE:
            break
    return math.acos(m / math.sqrt(q * (1 + TAU**2))) / math.pi


def optimum(alpha: float) -> float:
    """Return the ridge of the least error by SciPy's bounded search."""
    found = minimize_scalar(
        lambda x: damped(alpha, math.exp(x)), bounds=(math.log(1e-5), 0), method="bounded", options={"xatol": 1e-5}
    )
    return math.exp(found.x)


def run() -> str:
    """Measure, and return a section of Markdown."""
    some = ALPHA[:: len(ALPHA) // SOME][:SOME]
    times = in_turn(
        {
            "ours": lambda: optimal_ridge(ProbitTeacher(TAU), alpha=ALPHA, epsilon=EPSILON, bounds=(1e-5, 1.0)),
            "numpy": lambda: [optimum(alpha) for alpha in some],
            "point": lambda: solve(ProbitTeacher(TAU), alpha=4.0, ridge=0.004, epsilon=EPSILON),
            "point, numpy": lambda: damped(4.0, 0.004),
        },
        repeats=3,
    )
    ours = optimal_ridge(ProbitTeacher(TAU), alpha=some, epsilon=EPSILON, bounds=(1e-5, 1.0)).ridge.values
    theirs = np.array([optimum(alpha) for alpha in some])
    error = float(solve(ProbitTeacher(TAU), alpha=4.0, ridge=0.004, epsilon=EPSILON).error)
    scaled = times["numpy"] * ALPHA.size / SOME
    rows = [
        [f"`optimal_ridge`, {ALPHA.size} points", f"{times['ours']:.3g} s", "1", "0"],
        [
            f"the same, damped iteration in NumPy, {NODES} Gauss-Hermite nodes, SciPy's bounded search", f"{scaled:.3g} s",
            f"{scaled / times['ours']:.3g}", f"{float(np.max(np.abs(theirs / ours - 1))):.1g} of the ridge",
        ],
        ["`solve`, one point", f"{times['point'] * 1e3:.3g} ms", "1", "0"],
        [
            "damped iteration in NumPy", f"{times['point, numpy'] * 1e3:.3g} ms",
            f"{times['point, numpy'] / times['point']:.3g}", f"{abs(damped(4.0, 0.004) - error):.1g} of the error",
        ],
    ]  # fmt: skip
    return (
        "## Adversarial empirical risk minimisation as N grows\n\n"
        f"Teacher with noise {TAU:g}, logistic loss, training attack {EPSILON:g}, alpha from {ALPHA[0]:g} to {ALPHA[-1]:g}. The damped iteration (factor\n"
        f"0.5, until nothing moves by more than {TOLERANCE:g}) is what is usual for such equations; its time for the curve is that of {SOME} points, scaled.\n\n"
        + table(["method", "time", "ratio", "difference"], rows)
    )
