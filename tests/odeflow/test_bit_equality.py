"""A few hundred results of every kernel are the same bits as when `data/kernel_results.npz` was written.

Whoever changes the numbers on purpose writes it anew, ``python -m tests.odeflow.test_bit_equality``, and says why.
"""

import platform
from collections.abc import Iterator
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import llvmlite.binding
import numpy as np
import numpy.typing as npt
import pytest

from odeflow import (
    Adversary,
    GaussianMixture,
    LearningRule,
    anisotropic,
    branches,
    critical_epsilon,
    end_states_batch,
    fixed_points_batch,
    integrate,
    integrate_batch,
    simulate,
)
from odeflow.laws import Discrete, Uniform

Array = npt.NDArray[Any]

FILE = Path(__file__).parent / "data" / "kernel_results.npz"
METHODS: tuple[Any, ...] = ("reduced", "direct")
NORMS: tuple[tuple[Any, float], ...] = (("l2", 0.3), ("linf", 0.1))
TIMES = [0.0, 0.3, 7.0, 60.0]
VARIANTS: list[dict[str, Any]] = [
    {"loss": loss, "activation": activation, "update": update, "normalised": normalised}
    for loss, activation, update, normalised in product(
        ("squared", "hinge", "logistic", "perceptron"),
        ("erf", "tanh", "linear", "sign"),
        ("all", "non_robust"),
        (True, False),
    )
    if activation != "sign" or loss in ("squared", "perceptron")
]


def models(points: int, seed: int) -> dict[str, Any]:
    """Return parameters and starts drawn over their ranges."""
    rng = np.random.default_rng(seed)
    return {
        "p": rng.uniform(0.02, 0.98, points),
        "rho": rng.uniform(0.0, 5.0, points),
        "v1": rng.uniform(0.05, 3.0, points),
        "v2": rng.uniform(0.05, 3.0, points),
        "eta_w": rng.uniform(0.01, 1.0, points),
        "eta_b": rng.uniform(0.01, 1.0, points),
        "epsilon": rng.uniform(0.0, 2.5, points),
        "R0": rng.uniform(-0.9, 0.9, points),
        "b0": rng.uniform(-2.0, 2.0, points),
    }


def results() -> Iterator[tuple[str, Array]]:
    """Yield the name of each result and its numbers."""
    solution = integrate_batch(alpha=TIMES, **models(200, 0))
    yield "seed", solution.y
    yield "seed steps", solution.steps
    yield "seed, first order", integrate_batch(alpha=TIMES, second_order=False, **models(40, 1)).y
    for seed, variant in enumerate(VARIANTS, 2):
        batch = integrate_batch(alpha=TIMES, **variant, **models(3, seed))
        yield f"integrate {' '.join(map(str, variant.values()))}", batch.y
    yield "part attacked", integrate_batch(alpha=TIMES, fraction=[0.0, 0.3, 0.8], **models(3, 90)).y
    yield "random epsilon", integrate_batch(alpha=TIMES, law=Uniform(0.5, 1.5), **models(3, 91)).y

    mixture, adversary = GaussianMixture(0.7, 2.0, 1.0, 0.8), Adversary(0.7)
    alphas = [0.0, 0.5, 3.0]
    for rule in (LearningRule(), LearningRule(loss="hinge", normalised=False), LearningRule(activation="tanh")):
        for method in METHODS:
            runs = simulate(mixture, rule, adversary, N=40, alpha=alphas, runs=5, method=method, rng=3, b0=0.2)
            yield f"simulate {method} {rule.loss} {rule.activation}", np.stack([runs.R, runs.b])
    random = Adversary(0.7, fraction=0.6, law=Discrete((0.5, 2.0), (0.25, 0.75)))
    yield (
        "simulate random epsilon",
        simulate(mixture, LearningRule(), random, N=3, alpha=alphas, runs=5, rng=4).b.values,
    )

    model = {name: values for name, values in models(60, 92).items() if name not in ("R0", "b0")}
    points = fixed_points_batch(**model)
    yield "fixed points", np.stack([points.R, points.b])
    yield "eigenvalues", points.eigenvalues
    ends = end_states_batch(b0=0.1, **model)
    yield "end states", np.stack([ends.R, ends.b, ends.alpha])
    rule = LearningRule()
    yield "critical epsilon", critical_epsilon(GaussianMixture(0.7), rule).epsilon.values
    along = branches(GaussianMixture(0.7), rule, Adversary(), values=np.linspace(0.5, 1.5, 5))
    yield "branches", along.b.values
    final = integrate(mixture, rule, adversary, alpha=[5.0, 50.0], test_epsilon=0.3)
    yield "errors", np.stack([final.error, final.adversarial_error])

    rng = np.random.default_rng(93)
    x, y = rng.standard_normal((400, 12)) + 0.3, np.where(rng.random(400) < 0.5, 1, -1)
    data = anisotropic.Mixture.from_samples(x, y)
    rates = LearningRule.per_example(0.02, N=12)
    for norm, epsilon in NORMS:
        attack = Adversary(epsilon, norm=norm)
        theory = anisotropic.integrate(data, rates, attack, examples=[50, 400])
        yield f"anisotropic {norm}", theory.adversarial_error.values
        sampled = anisotropic.simulate(data, rates, attack, examples=[50, 400], runs=3, rng=5)
        yield f"anisotropic simulation {norm}", sampled.b.values


CONSTRAINTS = (Path(__file__).parents[2] / "constraints.txt").read_text(encoding="utf-8").splitlines()
# On other processors, and in other versions, the compiler may combine additions into other vectors, and NumPy has other
# exponentials. Numbers of steps may then differ by a few.
PROCESSOR = llvmlite.binding.get_host_cpu_name()
SAME = (
    str(np.load(FILE)["processor"]) == PROCESSOR
    and platform.system() == "Linux"
    and all(f"{name}=={metadata.version(name)}" in CONSTRAINTS for name in ("llvmlite", "numba", "numpy"))
)


@pytest.mark.slow
def test_kernels_give_the_same_bits() -> None:
    recorded = np.load(FILE)
    found = dict(results())
    assert list(found) == list(recorded["names"])
    different = []
    for i, (name, values) in enumerate(found.items()):
        expected = recorded[f"{i}"]
        absolute = 5 if values.dtype.kind == "i" else 1e-9
        same = values.tobytes() == expected.tobytes() if SAME else np.allclose(values, expected, 1e-7, absolute, True)
        if not same:
            different.append(f"{name}: {np.sum(values != expected)} of {values.size}")
    assert not different
    assert sum(values.size for values in found.values()) > 2000


if __name__ == "__main__":
    table = dict(results())
    arrays: dict[str, Any] = {f"{i}": values for i, values in enumerate(table.values())}
    np.savez_compressed(FILE, names=np.array(list(table)), processor=np.array(PROCESSOR), **arrays)
    pytest.main([__file__])
