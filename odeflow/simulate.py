"""Monte Carlo simulation of one-pass SGD under attack, at finite N."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.integrate import check_until, checked_alpha, labelled, over_time, seen_at, start_coordinates
from odeflow.model import Adversary, Data, LearningRule, numeric_parameters
from odeflow.numerics.memory import check_memory
from odeflow.order_parameters import Network, Perceptron
from odeflow.order_parameters.base import (
    check_one_start,
    checked_network,
    flat,
    recorded,
    start_of,
    start_record,
    width,
)
from odeflow.parameters import checked_count, checked_number, label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["checked_method", "seed_sequence", "simulate"]


def simulate(
    mixture: Data,
    rule: LearningRule,
    adversary: Adversary,
    *,
    N: int,
    alpha: npt.ArrayLike,
    runs: int,
    network: Network = Perceptron(),
    method: Literal["reduced", "direct"] = "reduced",
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    start: Mapping[str, npt.ArrayLike] | None = None,
    test_epsilon: float | None = None,
    progress: bool = False,
    **initial: npt.ArrayLike,
) -> xr.Dataset:
    """Simulate one-pass SGD on attacked examples (exact at any N; section 2 of the theory page).

    Parameters
    ----------
    mixture, rule, adversary
        The model. `rule.second_order` has no meaning here: a simulation has its full learning rate.
    N
        Dimension of the input: >= 3 for the reduced method, >= 2 for the direct one; for K units and n centres or teachers
        in general position >= n + K + 1 and >= n + K.
    alpha
        Increasing output times >= 0 in examples per dimension, shape (alpha,). The state is taken after round(alpha N)
        steps, of one example each unless the rule has a `batch`.
    runs
        Number of independent repetitions, >= 1.
    network
        What learns: `Perceptron()` or `Committee(...)`.
    method
        "reduced" draws only what the order parameters need, which has the same law at any N, at a cost that does not
        depend on N; "direct" draws each example and updates w in R^N, at a cost proportional to N.
    rng
        Seed. Each run has a stream of its own, so the result depends neither on the number of threads nor on `runs`.
        A Generator gives its next spawned SeedSequence. None: fresh entropy, which is recorded.
    start, **initial
        Initial values, as for `integrate`, of all runs, or of each run, with a first axis of length `runs`: such as
        `odeflow.order_parameters.random_start` draws, or the last states of a simulation that goes on. The direct method draws w(0) at random with
        these overlaps and lengths.
    test_epsilon
        Perturbation at which `adversarial_error` is evaluated, >= 0; default: the adversary's.
    progress
        Show a progress bar, if stderr is a terminal and it takes long.

    Returns
    -------
    Dataset
        The order parameters, error and adversarial_error with dims run, alpha: R and b, and Q if the weights are not
        normalised. The errors are the exact ones of each run's state.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> from odeflow import GaussianMixture
    >>> runs = simulate(GaussianMixture(), LearningRule(), Adversary(1.0), N=100, alpha=[1.0, 10.0], runs=5, rng=1)
    >>> dict(runs.sizes)
    {'run': 5, 'alpha': 2}
    """
    import xarray as xr

    checked_network(network).check(mixture, rule, adversary)
    N = checked_count("N", N, checked_method(network, mixture, method), f" with the {method} method")
    runs = checked_count("runs", runs, 1)
    alpha = checked_alpha(alpha)
    values = start_of(network, mixture, rule, start, initial)
    tested = adversary.epsilon if test_epsilon is None else checked_number("test_epsilon", test_epsilon, least=0)
    check_until(alpha[-1], rule, adversary)
    seed = seed_sequence(rng)
    variables = network.variables(rule, mixture)
    check_one_start(variables, values, runs)
    _check_size(N, alpha, runs, method, width(variables))

    y = network.simulate(
        mixture,
        rule,
        adversary,
        N=N,
        examples=np.rint(alpha * N).astype(np.int64),
        runs=runs,
        method=method,
        seed=seed,
        start=flat({variable.name: values[variable.start_name] for variable in variables}, variables),
        progress=progress,
    )
    numbers = numeric_parameters(mixture, rule, adversary, network)
    data = labelled(network, mixture, rule, y, ("run", "alpha"), numbers, seen_at(tested, alpha))
    coords = {
        "run": np.arange(runs), "alpha": alpha, **over_time(numbers, alpha), "N": N,
        **start_coordinates(network, mixture, rule, values), **over_time({"test_epsilon": tested}, alpha),
    }  # fmt: skip
    attrs = provenance(
        "simulate", mixture, rule, adversary, **recorded(network),
        seed=f"entropy={seed.entropy}, spawn_key={tuple(seed.spawn_key)}",
        N=N, runs=runs, method=method, **start_record(variables, values), test_epsilon=tested,
    )  # fmt: skip
    return label(xr.Dataset(data, coords, attrs))


_MOST_EXAMPLES = 2**53  # that float64 counts
_RUN_BYTES = 1200  # of the streams of random numbers of a run


def _check_size(N: int, alpha: npt.NDArray[np.float64], runs: int, method: str, variables: int) -> None:
    """Raise a ValueError if the results do not fit into memory, or the examples cannot be counted."""
    last = float(alpha[-1])
    if last * N > _MOST_EXAMPLES:
        raise ValueError(
            f"N = {N} with alpha = {last:g} is out of range: allowed are at most 2^53 = {_MOST_EXAMPLES:.3g} examples, "
            "alpha N"
        )
    # the states, copies of them by name, and what the errors are computed from
    results = 8 * runs * alpha.size * (2 * variables + 10) + _RUN_BYTES * runs
    vectors = 0 if method == "reduced" else 4 * 8 * N * min(runs, os.cpu_count() or 1)
    check_memory(
        results + vectors,
        f"{runs:,} runs of {alpha.size:,} output times" + (f" by vectors of N = {N:,}" if vectors else "") + " need",
        "fewer runs or times are allowed" + (", or a smaller N, or the reduced method" if vectors else ""),
    )


def checked_method(network: Network, mixture: Data, method: str) -> int:
    """Return the least N of a method of simulation, or raise a ValueError if there is no such method."""
    least = network.least_N(mixture)
    if method not in least:
        raise ValueError(f"method = {method!r}: allowed is {' or '.join(map(repr, least))}")
    return least[method]


def seed_sequence(rng: Any) -> np.random.SeedSequence:
    """Return the SeedSequence that stands for `rng`."""
    if isinstance(rng, np.random.SeedSequence):
        return rng
    if isinstance(rng, np.random.Generator):
        parent: Any = rng.bit_generator.seed_seq
        child: np.random.SeedSequence = parent.spawn(1)[0]
        return child
    allowed = "allowed is an integer >= 0, a SeedSequence, a Generator or None"
    if rng is not None and not isinstance(rng, int | np.integer):
        raise TypeError(f"rng = {rng!r} is of the wrong type: {allowed}")
    if rng is not None and rng < 0:
        raise ValueError(f"rng = {rng!r} is out of range: {allowed}")
    return np.random.SeedSequence(rng)
