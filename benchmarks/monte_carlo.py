"""One step of the simulation: both methods against plain NumPy, and the direct one against its random numbers alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.special import erf

from benchmarks.timing import in_turn, table
from odeflow import Adversary, GaussianMixture, LearningRule, simulate
from odeflow.numerics.compilation import LANES
from odeflow.numerics.random_streams import box_muller, rng_states, uniform
from odeflow.numerics.threads import threads

Array = npt.NDArray[np.float64]

MODEL = (GaussianMixture(p=0.7), LearningRule(), Adversary(1.0))
N = 1000


def numpy_reduced(rng: np.random.Generator, runs: int, steps: int) -> Array:
    """Advance all runs together with NumPy arrays, one step after the other."""
    mixture, rule, adversary = MODEL
    half, epsilon = mixture.rho / 2, adversary.epsilon
    R, b = np.zeros(runs), np.zeros(runs)
    for _ in range(steps):
        tau = np.where(rng.random(runs) < mixture.p, 1.0, -1.0)
        z_w, z_perp = rng.standard_normal((2, runs))
        z_B = R * z_w + np.sqrt(1 - R * R) * z_perp
        xi_w, xi_B = tau * half * R + z_w, tau * half + z_B
        squared = half**2 + 2 * tau * half * z_B + z_w**2 + z_perp**2 + rng.chisquare(N - 2, runs)
        x = xi_w - tau * epsilon - b
        step = rule.eta_w / N * (tau - erf(x)) * 2 / np.sqrt(np.pi) * np.exp(-x * x)
        attacked = xi_w - tau * epsilon
        norm = np.sqrt(1 + 2 * step * attacked + step**2 * (squared - 2 * tau * epsilon * xi_w + epsilon**2))
        R = (R + step * (xi_B - tau * epsilon * R)) / norm
        b = b - rule.eta_b / rule.eta_w * step
    return R


def numpy_direct(rng: np.random.Generator, steps: int) -> Array:
    """Advance one run with NumPy vectors of N components."""
    mixture, rule, adversary = MODEL
    B = np.full(N, 1 / np.sqrt(N))
    w = rng.standard_normal(N)
    w /= np.sqrt(w @ w)
    b = 0.0
    for _ in range(steps):
        tau = 1.0 if rng.random() < mixture.p else -1.0
        attacked = tau * mixture.rho / 2 * B + rng.standard_normal(N) - tau * adversary.epsilon * w
        x = w @ attacked - b
        delta = (tau - erf(x)) * 2 / np.sqrt(np.pi) * np.exp(-x * x)
        w = w + rule.eta_w / N * delta * attacked
        w /= np.sqrt(w @ w)
        b -= rule.eta_b / N * delta
    return w


@njit(nogil=True, error_model="numpy")  # type: ignore[untyped-decorator]
def normals_alone(state: npt.NDArray[np.uint64], z: Array, u: Array, times: int) -> None:
    """Fill z with normal numbers `times` times, as the direct kernel does."""
    for _ in range(times):
        for start in range(0, z.size, 2 * LANES):
            for draw in range(2):
                for lane in range(LANES):
                    u[draw, lane], state[0, lane], state[1, lane], state[2, lane], state[3, lane] = uniform(
                        state[0, lane], state[1, lane], state[2, lane], state[3, lane]
                    )
            for lane in range(LANES):
                z[start + lane], z[start + LANES + lane] = box_muller(u[0, lane], u[1, lane])


def run() -> str:
    """Measure, and return a section of Markdown."""
    rng = np.random.default_rng(1)
    state = rng_states(np.random.SeedSequence(1), 1, LANES)[0]
    z, u = np.zeros(-(-N // (2 * LANES)) * 2 * LANES), np.zeros((2, LANES))
    cores = threads()
    runs, steps, direct_steps = 64 * cores, 20_000, 4_000
    times = in_turn(
        {
            "reduced": lambda: simulate(*MODEL, N=N, alpha=[steps / N], runs=runs, rng=1),
            "reduced, NumPy": lambda: numpy_reduced(rng, runs, 500),
            "direct": lambda: simulate(*MODEL, N=N, alpha=[direct_steps / N], runs=cores, rng=1, method="direct"),
            "direct, NumPy": lambda: numpy_direct(rng, 2_000),
            "normals": lambda: normals_alone(state, z, u, direct_steps),
            "normals, NumPy": lambda: [rng.standard_normal(N) for _ in range(direct_steps)],
        }
    )
    step = {
        "reduced": times["reduced"] * cores / runs / steps,
        "reduced, NumPy": times["reduced, NumPy"] / runs / 500,
        "direct": times["direct"] / direct_steps,
        "direct, NumPy": times["direct, NumPy"] / 2_000,
        "normals": times["normals"] / direct_steps,
        "normals, NumPy": times["normals, NumPy"] / direct_steps,
    }
    rows = [
        ["`reduced`, any N", f"{step['reduced'] * 1e9:.1f} ns", "1"],
        [
            f"the same in NumPy, {runs} runs together",
            f"{step['reduced, NumPy'] * 1e9:.0f} ns",
            f"{step['reduced, NumPy'] / step['reduced']:.1f}",
        ],
        [f"`direct`, N = {N}", f"{step['direct'] * 1e6:.2f} us", "1"],
        ["the same in NumPy", f"{step['direct, NumPy'] * 1e6:.1f} us", f"{step['direct, NumPy'] / step['direct']:.1f}"],
        [
            f"its {N} normal numbers alone",
            f"{step['normals'] * 1e6:.2f} us",
            f"{step['normals'] / step['direct']:.2f}",
        ],
        [
            f"{N} normal numbers by NumPy's Generator",
            f"{step['normals, NumPy'] * 1e6:.1f} us",
            f"{step['normals, NumPy'] / step['direct']:.2f}",
        ],
    ]
    return (
        "## Monte Carlo: one step on one core\n\n"
        f"Scenario 2 with adversarial training; {cores} cores at work for ours, NumPy on one. The random numbers are the limit\n"
        "of the direct method; the row of its normal numbers alone says how far from it the method is.\n\n"
        + table(["what", "time a step a core", "ratio"], rows)
    )
