"""Monte Carlo simulation of one-pass SGD under attack, at finite N."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.integrate import checked_alpha, checked_start, with_errors
from odeflow.labels import label
from odeflow.model import (
    Adversary,
    GaussianMixture,
    LearningRule,
    check_parts,
    checked_count,
    checked_number,
    numeric_parameters,
)
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LEAST_N", "seed_sequence", "simulate"]

LEAST_N = {"reduced": 3, "direct": 2}


def simulate(
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    N: int,
    alpha: npt.ArrayLike,
    runs: int,
    method: Literal["reduced", "direct"] = "reduced",
    rng: int | np.random.SeedSequence | np.random.Generator | None = None,
    R0: float = 0.0,
    b0: float = 0.0,
    Q0: float = 1.0,
    test_epsilon: float | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Simulate one-pass SGD on attacked examples (exact at any N; section 2 of the theory page).

    Parameters
    ----------
    mixture, rule, adversary
        The model. `rule.second_order` has no meaning here: a simulation has its full learning rate.
    N
        Dimension of the input: >= 3 for the reduced method, >= 2 for the direct one.
    alpha
        Increasing output times >= 0 in examples per dimension, shape (alpha,). The state is taken after round(alpha N)
        examples.
    runs
        Number of independent repetitions, >= 1.
    method
        "reduced" draws only what (R, b) need, which has the same law at any N, at a cost that does not depend on N;
        "direct" draws each example and updates w in R^N, at a cost proportional to N.
    rng
        Seed. Each run has a stream of its own, so the result depends neither on the number of threads nor on `runs`.
        A Generator gives its next spawned SeedSequence. None: fresh entropy, which is recorded.
    R0, b0, Q0
        Initial overlap in [-sqrt(Q0), sqrt(Q0)], bias, and squared length of the weights, > 0 (1 if they are
        normalised). The direct method draws w(0) at random with this overlap and length.
    test_epsilon
        Perturbation at which `adversarial_error` is evaluated, >= 0; default: the adversary's.
    progress
        Show a progress bar, if stderr is a terminal and it takes long.

    Returns
    -------
    Dataset
        R, b, error and adversarial_error with dims run, alpha, and Q if the weights are not normalised. The errors are the exact ones of each run's (R, b).

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> runs = simulate(GaussianMixture(), LearningRule(), Adversary(1.0), N=100, alpha=[1.0, 10.0], runs=5, rng=1)
    >>> dict(runs.sizes)
    {'run': 5, 'alpha': 2}
    """
    import xarray as xr

    check_parts(mixture=mixture, rule=rule, adversary=adversary)
    if method not in LEAST_N:
        raise ValueError(f"method = {method!r}: allowed is 'reduced' or 'direct'")
    N = checked_count("N", N, LEAST_N[method], f" with the {method} method")
    runs = checked_count("runs", runs, 1)
    alpha = checked_alpha(alpha)
    start = checked_start(rule, R0, b0, Q0)
    test_epsilon = checked_number("test_epsilon", adversary.epsilon if test_epsilon is None else test_epsilon, least=0)
    seed = seed_sequence(rng)

    from odeflow.numerics.compilation import LANES
    from odeflow.numerics.random_streams import rng_states
    from odeflow.numerics.threads import map_blocks
    from odeflow.order_parameters.perceptron import monte_carlo
    from odeflow.order_parameters.perceptron.variant_averages import update_factor

    examples = np.rint(alpha * N).astype(np.int64)
    out = np.empty((runs, alpha.size, 2 if rule.normalised else 3))
    numbers = numeric_parameters(mixture, rule, adversary)
    model = tuple(numbers[name] for name in ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "fraction"))
    attack = (np.empty(0), np.empty(0)) if adversary.law is None else adversary.law.table()
    how = update_factor(rule)
    y0 = (start["R0"], start["b0"], start.get("Q0", 1.0))
    if method == "reduced":
        kernel, states, least = monte_carlo.reduced, rng_states(seed, runs, 1), LANES
    else:
        kernel, states, least = monte_carlo.direct, rng_states(seed, runs, LANES), 1

    def block(first: int, last: int) -> None:
        kernel(states, first, last, N, model, attack, how, rule.normalised, y0, examples, out)

    map_blocks(block, runs, least=least, progress=" runs" if progress else None)

    data = with_errors(out, ("run", "alpha"), mixture, test_epsilon)
    coords = {
        "run": np.arange(runs), "alpha": alpha, **numbers, "N": N, **start,
        "test_epsilon": test_epsilon,
    }  # fmt: skip
    attrs = provenance(
        "simulate", mixture, rule, adversary,
        seed=f"entropy={seed.entropy}, spawn_key={tuple(seed.spawn_key)}",
        N=N, runs=runs, method=method, **start, test_epsilon=test_epsilon,
    )  # fmt: skip
    return label(xr.Dataset(data, coords, attrs))


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
