"""One step of the two-layer network's simulation, against the same step in plain NumPy, many runs together."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from benchmarks.timing import in_turn, table
from odeflow import Adversary, Committee, GaussianMixture, LearningRule
from odeflow.model import xor
from odeflow.numerics.threads import threads

Array = npt.NDArray[np.float64]

RULE = LearningRule(0.5, 0.3)
N = 2000
EPSILON = 0.4


def numpy_reduced(rng: np.random.Generator, K: int, runs: int, steps: int, relu: bool = False) -> Array:
    """Advance all runs together: FGSM on the seed's mixture; the frame is turned by the Cholesky factor of Q - P P^T."""
    P, X = np.full((runs, K, 1), 0.1), np.tile(0.5 * np.eye(K), (runs, 1, 1))
    c, theta, b = np.ones((runs, K)), np.zeros((runs, K)), np.zeros(runs)

    def unit(x: Array) -> tuple[Array, Array]:
        if relu:
            return np.maximum(x, 0.0), (x > 0).astype(float)
        return np.asarray(erf(x / math.sqrt(2))), math.sqrt(2 / math.pi) * np.exp(-x * x / 2)

    for _ in range(steps):
        tau = np.where(rng.random(runs) < 0.5, 1.0, -1.0)
        xi = rng.standard_normal((runs, 1 + K))
        xi[:, 0] += tau
        rest = np.sqrt(rng.chisquare(N - 1 - K, runs))
        w = np.concatenate([P, X], axis=2)
        Q = w @ w.swapaxes(1, 2)
        x = np.einsum("rki,ri->rk", w, xi) - theta
        g, slope = unit(x)
        u = c * slope
        length = np.sqrt(np.einsum("rk,rkl,rl->r", u, Q, u))
        push = EPSILON * np.sign(b + np.sum(c * g, axis=1) - tau) / np.where(length > 0, length, np.inf)
        d = push[:, None] * u
        x += np.einsum("rkl,rl->rk", Q, d)
        g, slope = unit(x)
        e = b + np.sum(c * g, axis=1) - tau
        s = -e[:, None] * c * slope
        step = RULE.eta_w / N * s
        w += step[:, :, None] * (xi + np.einsum("rl,rli->ri", d, w))[:, None]
        last = step * rest[:, None]
        P = w[:, :, :1]
        across = w[:, :, 1:] @ w[:, :, 1:].swapaxes(1, 2) + last[:, :, None] * last[:, None]
        X = np.linalg.cholesky(across)
        c = c - 0.2 / N * e[:, None] * g
        theta = theta - 0.3 / N * s
        b = b - RULE.eta_b / N * e
    return b


def ours(
    K: int,
    activation: Literal["erf", "relu"],
    attack: dict[str, Any],
    *,
    steps: int,
    runs: int,
    method: str = "reduced",
) -> Any:
    """Return a call that simulates K units from a start in which they differ."""
    network = Committee(K, activation, eta_c=0.2, eta_theta=0.3)
    data = GaussianMixture() if K < 4 else xor(2.0, 0.2)
    M = np.linspace(0.2, 0.1, K) if isinstance(data, GaussianMixture) else 0.3 * data.products()
    c = np.ones(K) if K < 4 else np.array([1.0, 1.0, -1.0, -1.0])
    start = np.concatenate([M.ravel(), (0.5 * np.eye(K) + 0.1).ravel(), c, np.zeros(K + 1)])
    adversary, seed = Adversary(EPSILON, **attack), np.random.SeedSequence(1)
    options: dict[str, Any] = {"examples": np.array([steps]), "runs": runs, "method": method, "seed": seed}
    # the simulation alone, without the errors of its states
    return lambda: network.simulate(data, RULE, adversary, N=N, start=start, progress=False, **options)


def run() -> str:
    """Measure, and return a section of Markdown."""
    rng, cores = np.random.default_rng(1), threads()
    steps, direct_steps, numpy_steps, runs = 200_000, 4000, 100, 500
    size: dict[str, Any] = {"steps": steps, "runs": 8 * cores}
    pgd = {"attack": "pgd", "attack_steps": 5, "attack_step": 0.4}
    calls: dict[str, Any] = {
        "K = 1, erf": ours(1, "erf", {}, **size),
        "K = 2, erf": ours(2, "erf", {}, **size),
        "K = 3, erf": ours(3, "erf", {}, **size),
        "K = 4, erf, XOR": ours(4, "erf", {}, **size),
        "K = 2, ReLU": ours(2, "relu", {}, **size),
        "K = 4, ReLU, XOR": ours(4, "relu", {}, **size),
        "K = 2, erf, 5 steps of PGD": ours(2, "erf", pgd, **size),
        "K = 2, erf, worst case": ours(2, "erf", {"attack": "worst"}, **size),
    }
    numpy_calls: dict[str, Any] = {
        "K = 1, erf": lambda: numpy_reduced(rng, 1, runs, numpy_steps),
        "K = 2, erf": lambda: numpy_reduced(rng, 2, runs, numpy_steps),
        "K = 3, erf": lambda: numpy_reduced(rng, 3, runs, numpy_steps),
        "K = 2, ReLU": lambda: numpy_reduced(rng, 2, runs, numpy_steps, relu=True),
    }
    direct = ours(2, "erf", {}, steps=direct_steps, runs=cores, method="direct")
    together = calls | {f"{name}, NumPy": call for name, call in numpy_calls.items()} | {"direct": direct}
    times = in_turn(together, repeats=3)
    rows = []
    for name in calls:
        step = times[name] / (8 * steps)
        plain = times[f"{name}, NumPy"] / (runs * numpy_steps) if name in numpy_calls else None
        rows.append([
            name, f"{step * 1e6:.2f} us", f"{plain * 1e6:.2f} us" if plain else "", f"{plain / step:.1f}" if plain else ""
        ])  # fmt: skip
    rows.append([f"K = 2, erf, `direct` at N = {N}", f"{times['direct'] / direct_steps * 1e6:.0f} us", "", ""])
    return (
        "## Simulation of two layers: one step on one core\n\n"
        f"FGSM at epsilon = {EPSILON} unless said; `reduced`, whose cost does not depend on N; {cores} cores at work for ours, "
        f"NumPy on one\nwith {runs} runs together.\n\n" + table(["what", "time a step a core", "NumPy", "ratio"], rows)
    )
