"""Theory with the noise of SGD for any covariances: cost over N and rank, against the simulation that it replaces."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.timing import in_turn, seconds, table
from odeflow import Adversary, LearningRule
from odeflow.anisotropic import Mixture, integrate, simulate

ETA, EXAMPLES, RUNS = 0.01, 6000, 10
DIMENSIONS = (100, 300, 784, 3072)
SIMULATED = 784
RANKS = (10, 50)
ATTACKS = {"L-infinity 0.1": Adversary(0.1, norm="linf"), "L2 1": Adversary(1.0)}


def images(N: int) -> Mixture:
    """Return a mixture like one of two digits: trace 40, eigenvalues falling as k^-1.5, centres 5 apart."""
    rng = np.random.default_rng(N)
    spectrum = np.arange(1, N + 1) ** -1.5
    covariances = np.empty((2, N, N))
    basis = np.linalg.qr(rng.standard_normal((N, N)))[0]
    for k, tilt in enumerate((1.0, 1.3)):
        eigenvalues = spectrum**tilt
        covariances[k] = (basis * (40 * eigenvalues / eigenvalues.sum())) @ basis.T
        covariances[k] = (covariances[k] + covariances[k].T) / 2
    direction = basis[:, :30] @ rng.standard_normal(30)
    direction *= 2.5 / np.linalg.norm(direction)
    return Mixture(0.5, np.stack([direction, -direction]), covariances)


def run() -> str:
    """Measure, and return a section of Markdown."""
    about = (
        f"SGD with eta = {ETA} on {EXAMPLES:,} examples, {RUNS} runs simulated: fresh Gaussian examples by blocks, as "
        "one matrix product each. Mixtures with the spectrum of images. Medians of 3 runs in turn (of 1 for N > 1000).\n"
    )
    components = [f"{rank} components" for rank in RANKS]
    cost = table(["N", "attack", *components, "limit eta -> 0"], _dimensions())
    gain = table([f"N = {SIMULATED}", f"simulation of {RUNS} runs", *components], _ratios())
    return (
        f"## Theory on data: any means and covariances\n\n{about}\nTime of the theory:\n\n{cost}\n\n"
        f"Time of the simulation over that of the theory:\n\n{gain}"
    )


def _theories(mixture: Mixture, adversary: Adversary, eta: float = ETA) -> dict[str, Callable[[], object]]:
    rule = LearningRule.per_example(eta, mixture.N)
    limit = LearningRule.per_example(eta, mixture.N, second_order=False)
    end = [EXAMPLES * ETA / eta]
    solve: dict[str, Callable[[], object]] = {
        str(rank): lambda rank=rank: integrate(mixture, rule, adversary, examples=end, rank=rank) for rank in RANKS
    }
    return solve | {"limit": lambda: integrate(mixture, limit, adversary, examples=end)}


def _dimensions() -> list[list[str]]:
    rows = []
    for N in DIMENSIONS:
        mixture = images(N)
        for name, adversary in ATTACKS.items():
            times = in_turn(_theories(mixture, adversary), repeats=1 if N > 1000 else 3)
            rows.append([str(N), name, *(f"{time:.2g} s" for time in times.values())])
    return rows


def _ratios() -> list[list[str]]:
    mixture = images(SIMULATED)
    rows = []
    for eta in (ETA, ETA / 5):
        for name, adversary in ATTACKS.items():
            rule = LearningRule.per_example(eta, SIMULATED)
            simulate(mixture, rule, adversary, examples=[10], runs=RUNS, rng=1)
            times = in_turn(_theories(mixture, adversary, eta), repeats=3)
            simulation = seconds(
                lambda: simulate(mixture, rule, adversary, examples=[EXAMPLES * ETA / eta], runs=RUNS, rng=1)  # noqa: B023
            )
            ratios = [f"{simulation / times[str(rank)]:.3g}" for rank in RANKS]
            rows.append([f"{name}, eta = {eta:g}", f"{simulation:.2g} s", *ratios])
    return rows
