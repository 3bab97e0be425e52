"""Networks of two layers: a trajectory, a sweep and four units of ReLU, beside plain NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp
from scipy.special import erf, erfinv
from scipy.stats import qmc

from benchmarks.timing import in_turn, seconds, table
from odeflow import (
    Adversary,
    Committee,
    GaussianMixture,
    LearningRule,
    integrate,
    integrate_batch,
    sweep,
    xor,
)
from odeflow.numerics.threads import threads
from odeflow.order_parameters import random_start

Array = npt.NDArray[np.float64]

# check value 7 of section 5: the seed's mixture, two units of erf, everything learns
MIXTURE, RULE, ADVERSARY = GaussianMixture(0.7), LearningRule(1.0, 0.5), Adversary(0.4)
NET = Committee(2, eta_c=0.2, eta_theta=0.3, tolerance=1e-6)
START: dict[str, Any] = {"M": [0.2, 0.05], "Q": [[0.5, 0.1], [0.1, 0.3]]}
KNOWN = np.array([0.918026, 0.662416, 1.350528, 0.367768, 0.367768, 0.930800, 0.492073, 0.440337, -0.183764, -0.164268, 0.207702])  # fmt: skip
ALPHA = 20.0
POINTS = 1_000

# XOR by four units of ReLU
XOR, XOR_RULE, XOR_ADVERSARY = xor(v=0.1), LearningRule(0.5, 0.5), Adversary(0.3)
RELU = Committee(4, "relu", tolerance=1e-4)
SIGNS = np.array([1.0, 1.0, -1.0, -1.0])

NODES = 48  # of a panel in NumPy


def between(ends: list[Array], nodes: int) -> tuple[Array, Array]:
    """Return Gauss-Legendre points and weights between increasing ends, one panel after the other along the last axis.

    A substitution whose slope vanishes at both ends of a panel takes away the roots that an integrand may have there.
    """
    t, w = np.polynomial.legendre.leggauss(nodes)
    t, w = (t + 1) / 2, w / 2
    t, w = t * t * (3 - 2 * t), w * 6 * t * (1 - t)
    low, high = np.stack(ends[:-1], -1)[..., None], np.stack(ends[1:], -1)[..., None]
    lead = low.shape[:-2]
    return (low + (high - low) * t).reshape(*lead, -1), ((high - low) * w).reshape(*lead, -1)


def gauss(y: Array) -> Array:
    return np.exp(-y * y / 2) / np.sqrt(2 * np.pi)


def numpy_averages(M: Array, Q: Array, c: Array, theta: Array, b: float, v: float, tau: float) -> Any:
    """Return V, <s>, <s s>, <e g> and <e> of two units of erf under FGSM, by nested panels split where phi = tau."""
    L, m, scale, far = np.linalg.cholesky(Q), M - theta, np.sqrt(v), 7.0

    def inverse(value: Array) -> Array:  # of g, and far away outside its range
        inside = np.clip(value, -1, 1)
        return np.where(np.abs(value) < 1, np.sqrt(2) * erfinv(inside), np.sign(value) * 1e3)

    ends = np.sort(np.clip((inverse((tau - b + np.array([-c[1], c[1]])) / c[0]) - m[0]) / (scale * L[0, 0]), -far, far))
    y1, w1 = between([np.array(end) for end in (-far, *ends, far)], 2 * NODES)
    x1 = m[0] + scale * L[0, 0] * y1
    cut = (inverse((tau - b - c[0] * erf(x1 / np.sqrt(2))) / c[1]) - m[1] - scale * L[1, 0] * y1) / (scale * L[1, 1])
    full = np.full_like(y1, far)
    y2, w2 = between([-full, np.clip(cut, -far, far), full], NODES)
    y = np.stack(np.broadcast_arrays(y1[:, None], y2))
    weight = w1[:, None] * w2 * gauss(y[0]) * gauss(y[1])
    x = m[:, None, None] + scale * np.einsum("kj,jab->kab", L, y)
    slope = np.sqrt(2 / np.pi)
    u = c[:, None, None] * slope * np.exp(-x * x / 2)
    side = np.sign(b + np.einsum("k,kab->ab", c, erf(x / np.sqrt(2))) - tau)
    length = np.sqrt(np.einsum("kab,kl,lab->ab", u, Q, u))
    d = ADVERSARY.epsilon * side * u / np.maximum(length, 1e-300)
    x = x + np.einsum("kl,lab->kab", Q, d)
    g = erf(x / np.sqrt(2))
    e = b + np.einsum("k,kab->ab", c, g) - tau
    s = -e * c[:, None, None] * slope * np.exp(-x * x / 2)

    def average(f: Array, h: Array) -> Array:
        return np.einsum("kab,lab,ab->kl", f, h, weight)

    one, e = np.ones((1, *e.shape)), e[None]
    V = scale * average(s, y) @ np.linalg.inv(L) + average(s, d)
    return V, average(s, one)[:, 0], average(s, s), average(g, e)[:, 0], average(e, one)[0, 0]


def numpy_rates(state: Array) -> Array:
    """Return the rates of two units of erf on the seed's mixture."""
    M, Q, c, theta, b = state[:2], state[2:6].reshape(2, 2), state[6:8], state[8:10], state[10]
    dM, dQ, dc, dtheta, db = np.zeros(2), np.zeros((2, 2)), np.zeros(2), np.zeros(2), 0.0
    for p, tau, v in ((MIXTURE.p, 1.0, MIXTURE.v1), (1 - MIXTURE.p, -1.0, MIXTURE.v2)):
        V, S, G, eg, e = numpy_averages(tau * M, Q, c, theta, b, v, tau)
        B = np.outer(S, tau * M) + V @ Q
        dM += p * RULE.eta_w * (S * tau * MIXTURE.rho**2 / 4 + V @ M)
        dQ += p * (RULE.eta_w * (B + B.T) + RULE.eta_w**2 * v * G)
        dc -= p * NET.eta_c * eg
        dtheta -= p * NET.eta_theta * S
        db -= p * RULE.eta_b * e
    return np.concatenate([dM, dQ.ravel(), dc, dtheta, [db]])


def numpy_trajectory() -> Array:
    """Return the state at the end, by SciPy's RK45."""
    y0 = np.concatenate([START["M"], np.ravel(START["Q"]), [1, 1, 0, 0, 0]])
    found = solve_ivp(lambda _, y: numpy_rates(y), (0, ALPHA), y0, rtol=1e-7, atol=1e-8)
    end: Array = found.y[:, -1]
    return end


def numpy_relu(M: Array, Q: Array, points: int = 2**13, nodes: int = 12) -> Array:
    """Return <s> of one cluster of XOR and four units of ReLU: Sobol' points, and panels along the last coordinate.

    Of the other averages the cost is the same but for their sums.
    """
    L, scale, far, tau, c = np.linalg.cholesky(Q), np.sqrt(XOR.spread), 7.0, 1.0, SIGNS
    uniform = qmc.Sobol(3, seed=1).random(points)
    y = np.sqrt(2) * erfinv(2 * np.clip(uniform, 1e-12, 1 - 1e-12) - 1)
    before = M + scale * y @ L[:, :3].T  # without the last coordinate
    known = np.maximum(before[:, :3], 0) @ c[:3]
    cuts = [np.zeros(points), np.maximum((tau - known) / c[3], 0)]
    for on in (0.0, 1.0):
        u = c * np.column_stack([before[:, :3] > 0, np.full(points, on)])
        move = (u @ Q)[:, 3] * XOR_ADVERSARY.epsilon / np.maximum(np.sqrt(np.einsum("ak,kl,al->a", u, Q, u)), 1e-300)
        cuts += [move, -move]
    ends = np.sort(np.clip((np.stack(cuts) - before[:, 3]) / (scale * L[3, 3]), -far, far), axis=0)
    full = np.full(points, far)
    last, weight = between([-full, *ends, full], nodes)
    x = np.repeat(before[:, :, None], last.shape[1], axis=2)
    x[:, 3] += scale * L[3, 3] * last
    u = c[:, None] * (x > 0)
    side = np.sign(np.einsum("k,akn->an", c, np.maximum(x, 0)) - tau)
    length = np.sqrt(np.einsum("akn,kl,aln->an", u, Q, u))
    x += np.einsum("kl,aln->akn", Q, u) * (XOR_ADVERSARY.epsilon * side / np.maximum(length, 1e-300))[:, None]
    e = np.einsum("k,akn->an", c, np.maximum(x, 0)) - tau
    s: Array = np.einsum("an,akn,an->k", -e, c[:, None] * (x > 0), weight * gauss(last)) / points
    return s


def run() -> str:
    """Measure, and return a section of Markdown."""
    model = (MIXTURE, RULE, ADVERSARY)
    one: dict[str, Callable[[], Any]] = {
        "ours": lambda: integrate(*model, network=NET, alpha=[ALPHA], start=START),
        "batch": lambda: integrate_batch(
            **vars(MIXTURE), **vars(RULE), **vars(ADVERSARY), network=NET, alpha=[ALPHA], start=START
        ),
    }
    times = in_turn(one, repeats=3)
    ends: list[Array] = []
    times["NumPy"] = seconds(lambda: ends.append(numpy_trajectory()))
    ours = np.concatenate([np.ravel(one["ours"]()[name]) for name in ("M", "Q", "c", "theta", "b")])
    errors = [np.abs(end - KNOWN).max() for end in (ours, *ends)]

    grid = {"epsilon": np.linspace(0, 0.8, 25), "rho": np.linspace(1.5, 3, POINTS // 25)}
    swept = seconds(lambda: sweep(*model, network=NET, over=grid, alpha=[ALPHA], start={"M": [0.15, 0.05], "Q": 0.4}))
    alone = POINTS * times["NumPy"]

    start = {**random_start(RELU, XOR, size=0.5, N=500, rng=4), "c": SIGNS}
    relu: dict[str, Any] = {"network": RELU, "alpha": [ALPHA], "start": start}
    integrate(XOR, XOR_RULE, XOR_ADVERSARY, **relu | {"alpha": [0.01]})
    xor_time = seconds(lambda: integrate(XOR, XOR_RULE, XOR_ADVERSARY, **relu))
    state = {name: np.asarray(value) for name, value in start.items()} | {"theta": np.zeros(4), "b": np.array(0.0)}
    side = in_turn(
        {
            "ours": lambda: RELU.rates(state, XOR, XOR_RULE, XOR_ADVERSARY),
            "NumPy": lambda: [numpy_relu(state["M"][:, a], state["Q"]) for a in range(4)],
        },
        repeats=3,
    )

    rows = [
        ["one trajectory, erf, K = 2, tolerance 1e-6: `integrate`", f"{times['ours']:.3g} s", "1"],
        ["its kernel alone, `integrate_batch`", f"{times['batch']:.3g} s", f"{times['batch'] / times['ours']:.2g}"],
        ["the same in NumPy, SciPy's RK45", f"{times['NumPy']:.3g} s", f"{times['NumPy'] / times['ours']:.3g}"],
        [f"`sweep` of {POINTS:,} such points", f"{swept:.3g} s", "1"],
        [f"NumPy, one trajectory {POINTS:,} times", f"{alone:.3g} s", f"{alone / swept:.3g}"],
        ["XOR, ReLU, K = 4, tolerance 1e-4, to alpha = 20: `integrate`", f"{xor_time:.3g} s", ""],
        ["one right-hand side of it", f"{side['ours'] * 1e3:.3g} ms", "1"],
        [
            "NumPy, 2^13 Sobol' points and panels",
            f"{side['NumPy'] * 1e3:.3g} ms",
            f"{side['NumPy'] / side['ours']:.3g}",
        ],
    ]
    return (
        "## Networks of two layers\n\n"
        f"The trajectory is that of section 5's check: the seed's mixture, p = 0.7, epsilon = 0.4, to alpha = {ALPHA:g}. Its largest\n"
        f"distance from the known end is {errors[0]:.1e}, NumPy's {errors[1]:.1e} (nested Gauss-Legendre panels split in the same\n"
        f"places). The sweep is over epsilon and rho on {threads()} cores.\n\n" + table(["what", "time", "ratio"], rows)
    )
