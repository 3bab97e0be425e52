"""SGD under attack on samples of a mixture, or on data: many runs at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.errors import adversarial_error, dual_norm, empirical_adversarial_error
from odeflow.anisotropic.integrate import (
    LARGEST,
    check_model,
    checked_start,
    checked_test_epsilon,
    checked_times,
    time_coords,
)
from odeflow.anisotropic.mixture import Mixture, Samples
from odeflow.model import Adversary, LearningRule, checked_count, checked_number, numeric_parameters
from odeflow.numerics.threads import blas_threads
from odeflow.parameters import label
from odeflow.provenance import provenance
from odeflow.simulate import seed_sequence

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["simulate"]

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

_MOST_EXAMPLES = 1e15  # a number of examples that is exact in float64, and takes longer than a life
_MOST_NUMBERS = 10**10  # weights of all runs at all times: 80 GB
_MEMORY = 2**26  # bytes of examples that are drawn at a time


def simulate(
    data: Mixture | Samples,
    rule: LearningRule,
    adversary: Adversary,
    *,
    alpha: npt.ArrayLike | None = None,
    examples: npt.ArrayLike | None = None,
    runs: int,
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    w0: float | npt.ArrayLike | None = None,
    b0: float = 0.0,
    test: Mixture | Samples | None = None,
    test_epsilon: npt.ArrayLike | None = None,
    weights: bool = False,
    progress: bool = False,
) -> xr.Dataset:
    """Train linear classifiers by SGD on attacked examples (exact at any N).

    Parameters
    ----------
    data
        A `Mixture`: each example is drawn anew (one pass). `Samples`: each run takes them in a random order of its own,
        and begins another epoch, in another order, after the last.
    rule, adversary
        As for `integrate`. `rule.second_order` has no meaning here.
    alpha, examples
        Increasing output times, as for `integrate`; the state is taken after round(alpha N) examples.
    runs
        Number of independent repetitions, >= 1.
    rng
        Seed. Each run has a stream of its own, so the result depends neither on the number of threads nor on `runs`
        (up to rounding). None: fresh entropy, which is recorded.
    w0, b0
        Initial weights and bias, as for `integrate`: a number w0 draws Gaussian weights for each run.
    test
        Where the errors are evaluated: by formula on a Mixture, by counting on Samples. Default: `data`.
    test_epsilon
        Perturbations at which `adversarial_error` is evaluated, as for `integrate`.
    weights
        Whether the result has the weights too.
    progress
        Show a progress bar, if stderr is a terminal and it takes long.

    Returns
    -------
    Dataset
        With dims run and alpha or examples: l1_norm, l2_norm, b, error, adversarial_error (with dim test_epsilon, if
        that is an array), and w (dim feature) with weights=True.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> mixture = Mixture(0.5, means=[[1.0, 0.0], [-1.0, 0.0]], covariances=[[1.0, 1.0], [1.0, 1.0]])
    >>> rule, adversary = LearningRule.per_example(0.1, N=2), Adversary(0.5, norm="linf")
    >>> dict(simulate(mixture, rule, adversary, examples=[10, 100], runs=3, rng=1).sizes)
    {'run': 3, 'examples': 2}
    """
    import xarray as xr
    from tqdm import tqdm

    from odeflow.anisotropic.descent import descend
    from odeflow.numerics.threads import map_blocks
    from odeflow.order_parameters.perceptron.variant_averages import update_factor

    check_model(rule, adversary)
    test = data if test is None else test
    for name, value in (("data", data), ("test", test)):
        if not isinstance(value, Mixture | Samples):
            raise TypeError(f"{name} = {value!r} is of the wrong type: allowed is a Mixture or Samples")
    if test.N != data.N:
        raise ValueError(f"test has {test.N} dimensions: allowed are {data.N}, those of data")
    N = data.N
    dim, times = checked_times(alpha, examples)
    runs = checked_count("runs", runs, 1)
    if runs * times.size * N > _MOST_NUMBERS:
        raise ValueError(
            f"runs = {runs:g} is out of range: allowed are at most {max(_MOST_NUMBERS // (times.size * N), 1)}, which have "
            f"{_MOST_NUMBERS:.0e} weights at {times.size} times in {N} dimensions"
        )
    start, spread = checked_start(w0, rule, N)
    b0 = checked_number("b0", b0, least=-LARGEST, most=LARGEST)
    epsilons = checked_test_epsilon(test_epsilon, adversary)
    seed = seed_sequence(rng)

    source = _Drawn(data, seed, runs) if isinstance(data, Mixture) else _Shuffled(data, seed, runs)
    w = np.stack([start + spread / N**0.5 * generator.standard_normal(N) for generator in source.generators])
    if rule.normalised:
        w /= np.linalg.norm(w, axis=1, keepdims=True)
    b = np.full(runs, b0)
    counts = np.rint(times * (N if dim == "alpha" else 1))
    if counts[-1] > _MOST_EXAMPLES:
        raise ValueError(f"{dim} goes to {times[-1]:g}: allowed are at most {_MOST_EXAMPLES:g} examples")
    counts = counts.astype(np.int64)
    settings = (adversary.norm == "linf", update_factor(rule), rule.eta_w / N, rule.eta_b / N, rule.normalised)
    W, B = np.empty((runs, times.size, N)), np.empty((runs, times.size))
    with tqdm(total=int(counts[-1]), unit=" examples", delay=1, disable=None if progress else True) as bar:
        done = 0
        for k, count in enumerate(counts):
            for X, chosen, tau in source.draw(int(count) - done):
                size = _sizes(adversary, source.generators, chosen.shape[1])
                map_blocks(
                    lambda first, last, stop: descend(first, last, stop, X, chosen, tau, size, *settings, w, b),  # noqa: B023
                    runs, least=1,
                )  # fmt: skip
                bar.update(chosen.shape[1])
            done = int(count)
            W[:, k], B[:, k] = w, b

    def error(at: Array) -> Array:
        if isinstance(test, Mixture):
            return adversarial_error(W, B, test, at, adversary.norm)
        return empirical_adversarial_error(W, B, test.X, test.y, at, adversary.norm)

    values: dict[str, tuple[tuple[str, ...], Any]] = {
        "l1_norm": (("run", dim), dual_norm(W, "linf")),
        "l2_norm": (("run", dim), dual_norm(W, "l2")),
        "b": (("run", dim), B),
        "error": (("run", dim), error(np.zeros(()))),
        "adversarial_error": (("run", dim, *("test_epsilon",) * epsilons.ndim), error(epsilons)),
    }
    if weights:
        values["w"] = (("run", dim, "feature"), W)
    coords = time_coords(dim, times, N) | {
        "run": np.arange(runs), **numeric_parameters(rule, adversary), "norm": adversary.norm, "N": N, "b0": b0,
        "test_epsilon": epsilons,
    }  # fmt: skip
    attrs = provenance(
        "anisotropic.simulate", rule, adversary,
        seed=f"entropy={seed.entropy}, spawn_key={tuple(seed.spawn_key)}",
        data=repr(data), test=repr(test), runs=runs, w0="given" if spread == 0 else spread, b0=b0, test_epsilon=epsilons,
    )  # fmt: skip
    return label(xr.Dataset(values, coords, attrs))


class _Drawn:
    """Examples of a mixture, drawn anew for each run: xi = m_tau + L_tau z with C_tau = L_tau L_tau'."""

    def __init__(self, mixture: Mixture, seed: np.random.SeedSequence, runs: int) -> None:
        from odeflow.numerics.compilation import LANES
        from odeflow.numerics.random_streams import rng_states

        self.mixture = mixture
        self.generators = _generators(seed, runs)
        self.states = rng_states(seed, runs, LANES)
        with blas_threads(mixture.N):
            self.factors = [np.sqrt(C) if mixture.diagonal else _root(C) for C in mixture.covariances]
        self.numbers = max(factor.shape[-1] for factor in self.factors)
        self.block = 2 * LANES

    def draw(self, count: int) -> Iterator[tuple[Array, Indices, Array]]:
        from odeflow.anisotropic.descent import fill_normal
        from odeflow.numerics.threads import map_blocks

        runs, N = len(self.generators), self.mixture.N
        padded = -(-self.numbers // self.block) * self.block
        most = max(1, _MEMORY // (8 * runs * (N + padded)))
        while count > 0:
            n = min(count, most)
            z, X = np.empty((runs, n, padded)), np.empty((runs, n, N))
            map_blocks(lambda first, last, stop: fill_normal(self.states, first, last, stop, z), runs, least=1)  # noqa: B023
            tau = np.stack([np.where(generator.random(n) < self.mixture.p, 1.0, -1.0) for generator in self.generators])
            for sign, mean, factor in zip((1.0, -1.0), self.mixture.means, self.factors, strict=True):
                here = tau == sign
                numbers = z[here][:, : factor.shape[-1]]
                X[here] = mean + (numbers * factor if self.mixture.diagonal else numbers @ factor.T)
            yield X, np.broadcast_to(np.arange(n), (runs, n)), tau
            count -= n


class _Shuffled:
    """Given samples, in a random order for each run, and in another one for each epoch."""

    def __init__(self, samples: Samples, seed: np.random.SeedSequence, runs: int) -> None:
        self.samples = samples
        self.generators = _generators(seed, runs)
        self.shuffles = _generators(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, 2**31)), runs)
        self.left = np.empty((runs, 0), np.int64)

    def draw(self, count: int) -> Iterator[tuple[Array, Indices, Array]]:
        X = self.samples.X[None]
        while count > 0:
            if self.left.shape[1] == 0:
                self.left = np.stack([shuffle.permutation(len(self.samples.y)) for shuffle in self.shuffles])
            chosen, self.left = self.left[:, :count], self.left[:, count:]
            yield X, chosen, self.samples.y[chosen]
            count -= chosen.shape[1]


def _generators(seed: np.random.SeedSequence, runs: int) -> list[np.random.Generator]:
    """Return a generator for each run: its own child of the seed."""
    return [
        np.random.default_rng(np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, run, 1)))
        for run in range(runs)
    ]


def _sizes(adversary: Adversary, generators: list[np.random.Generator], n: int) -> Array:
    """Return the size of the perturbation of n examples of each run."""
    size = np.full((len(generators), n), adversary.epsilon)
    if adversary.law is not None:
        levels, factors = adversary.law.table()
        size *= np.interp([generator.random(n) for generator in generators], levels, factors)
    if adversary.fraction < 1:
        size *= np.stack([generator.random(n) < adversary.fraction for generator in generators])
    return size


def _root(C: Array) -> Array:
    """Return L with C = L L' and as many columns as C has rank (Cholesky's method with pivots)."""
    from scipy.linalg.lapack import dpstrf

    L, pivots, rank, _ = dpstrf(C, lower=1)
    root = np.zeros((len(C), rank))
    root[pivots - 1] = np.tril(L)[:, :rank]
    return root
