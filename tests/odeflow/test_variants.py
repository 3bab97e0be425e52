"""Variants of the rule and the adversary: averages against integrals, limits, and theory against both simulations."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad
from scipy.special import erf, erfc, expit

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, integrate_batch, simulate
from odeflow.laws import Continuous, Discrete, Uniform
from odeflow.model import ACTIVATIONS, LOSSES, UPDATES
from odeflow.order_parameters.perceptron.averages import delta, delta_derivative, delta_squared
from odeflow.order_parameters.perceptron.variant_averages import averages

pytestmark = pytest.mark.slow

KINDS = [
    (loss, activation, update)
    for loss, activation, update in itertools.product(LOSSES, ACTIVATIONS, UPDATES)
    if activation != "sign" or loss in ("squared", "perceptron")
]

OUTPUTS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "erf": (erf, lambda u: 2 / np.sqrt(np.pi) * np.exp(-u * u)),
    "tanh": (np.tanh, lambda u: 4 * np.exp(-2 * abs(u)) / (1 + np.exp(-2 * abs(u))) ** 2),
    "linear": (lambda u: u, lambda _: 1.0),
    "sign": (np.sign, lambda _: 1.0),
}


def update_factor(loss: str, activation: str, update: str) -> Callable[[float], float]:
    """f(u) as the docstring of LearningRule states it."""
    g, slope = OUTPUTS[activation]
    complement = {"erf": erfc, "tanh": lambda u: 2 / (1 + np.exp(min(2 * u, 700)))}.get(activation, lambda u: 1 - g(u))
    f: dict[str, Callable[[float], float]] = {
        "squared": lambda u: complement(u) * slope(u),
        "hinge": lambda u: slope(u) * (g(u) < 1),
        "logistic": lambda u: slope(u) * expit(-g(u)),
        "perceptron": lambda u: slope(u) * (u < 0),
    }
    if update == "non_robust":
        return lambda u: f[loss](u) * (u < 0)
    return f[loss]


def integral(h: Callable[[float], float], m: float, s: float) -> float:
    marks = {m + k * s for k in (-10, -5, -2, -1, 0, 1, 2, 5, 10)} | {
        -20.0,
        -10.0,
        -5.0,
        -2.0,
        -1.0,
        0.0,
        1.0,
        2.0,
        5.0,
        10.0,
    }
    inside = sorted(x for x in marks if abs(x - m) <= 10 * s)
    # open intervals: the cuts of f are at marks
    pieces = [
        quad(h, a, np.nextafter(b, a), epsabs=1e-13, epsrel=1e-12, limit=100)[0] for a, b in itertools.pairwise(inside)
    ]
    return float(np.sum(pieces))


@pytest.mark.parametrize(("loss", "activation", "update"), KINDS)
def test_averages_are_the_integrals(loss: Any, activation: Any, update: Any) -> None:
    rule = LearningRule(loss=loss, activation=activation, update=update)
    f = update_factor(loss, activation, update)
    m = np.array([-7.0, -1.3, 0.0, 0.4, 2.5, 1.0])
    v = np.array([2.0, 0.01, 1.0, 60.0, 0.3, 5.0])
    found = averages(m, v, rule)
    for i in range(m.size):
        s = float(np.sqrt(v[i]))
        expected = (
            integral(lambda u, i=i, s=s: f(u) * stats.norm.pdf(u, m[i], s), m[i], s),  # type: ignore[misc]
            integral(lambda u, i=i, s=s: f(u) ** 2 * stats.norm.pdf(u, m[i], s), m[i], s),  # type: ignore[misc]
            integral(lambda u, i=i, s=s: f(u) * (u - m[i]) / v[i] * stats.norm.pdf(u, m[i], s), m[i], s),  # type: ignore[misc]
        )
        for values, reference in zip(found, expected, strict=True):
            assert values[i] == pytest.approx(reference, rel=1e-10, abs=1e-10)


def test_the_default_rule_has_the_closed_forms_of_the_seed_model() -> None:
    u, v = np.linspace(-5, 5, 41)[:, None], np.array([0.05, 1.0, 20.0])
    D1, D2, slope = averages(u, v, LearningRule())
    np.testing.assert_allclose(D1, delta(u, v, 1.0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(D2, delta_squared(u, v, 1.0), rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(slope, delta_derivative(u, v, 1.0), rtol=1e-12, atol=1e-14)


ALPHA = np.linspace(0, 50, 6)


def test_a_law_with_one_value_and_a_full_fraction_are_the_seed_model() -> None:
    seed = integrate_batch(alpha=ALPHA, p=0.7, epsilon=[0.0, 0.5, 1.5])
    one = integrate_batch(alpha=ALPHA, p=0.7, epsilon=[0.0, 1.0, 3.0], law=Discrete((0.5,)))
    np.testing.assert_allclose(one.y, seed.y, rtol=1e-8, atol=1e-10)


def test_a_fraction_is_a_law_with_a_share_at_zero() -> None:
    part = integrate_batch(alpha=ALPHA, p=0.7, epsilon=1.2, fraction=0.3)
    law = integrate_batch(alpha=ALPHA, p=0.7, epsilon=1.2, law=Discrete((0.0, 1.0), (0.7, 0.3)))
    np.testing.assert_allclose(part.y, law.y, rtol=1e-8, atol=1e-10)
    none = integrate_batch(alpha=ALPHA, p=0.7, epsilon=1.2, fraction=0.0)
    np.testing.assert_allclose(none.y, integrate_batch(alpha=ALPHA, p=0.7).y, rtol=1e-8, atol=1e-10)


def test_a_narrow_law_approaches_its_mean() -> None:
    seed = integrate_batch(alpha=ALPHA, p=0.7, epsilon=0.8).y
    gaps = [
        np.abs(integrate_batch(alpha=ALPHA, p=0.7, epsilon=0.8, law=Uniform(1 - h, 1 + h)).y - seed).max()
        for h in (0.2, 0.1)
    ]
    assert gaps[0] / gaps[1] == pytest.approx(4, abs=0.2)  # the variance of the law


def test_the_scale_of_free_weights_cancels_in_the_linear_perceptron() -> None:
    # f depends on the sign of tau x only: (sqrt Q R, sqrt Q b, Q) with rates times sqrt Q is the same classifier
    rule: dict[str, Any] = {"loss": "perceptron", "activation": "linear", "normalised": False}
    one = integrate_batch(alpha=ALPHA, p=0.7, epsilon=0.5, eta_w=0.2, eta_b=0.2, **rule).y[0]
    two = integrate_batch(alpha=ALPHA, p=0.7, epsilon=0.5, eta_w=0.6, eta_b=0.6, Q0=9.0, **rule).y[0]
    np.testing.assert_allclose(two, one * [3, 3, 9], rtol=1e-7, atol=1e-8)


VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fraction": ({}, {"fraction": 0.5}),
    "uniform": ({}, {"law": Uniform(0, 2)}),
    "discrete": ({}, {"law": Discrete((0.0, 2.0), (0.3, 0.7))}),
    "gamma": ({}, {"law": Continuous(stats.gamma(4, scale=0.25))}),
    "non-robust": ({"update": "non_robust"}, {}),
    "free": ({"normalised": False}, {}),
    "everything": (
        {"activation": "tanh", "normalised": False, "update": "non_robust"},
        {"law": Uniform(0.5, 1.5), "fraction": 0.7},
    ),
    "free hinge": ({"loss": "hinge", "activation": "linear", "normalised": False}, {}),
}
VARIANTS |= {
    f"{loss} {activation}": ({"loss": loss, "activation": activation}, {}) for loss, activation, _ in KINDS[::2]
}


def model(name: str) -> tuple[GaussianMixture, LearningRule, Adversary]:
    rule, adversary = VARIANTS[name]
    return GaussianMixture(0.7, 2.0, 1.0, 0.5), LearningRule(0.6, 0.5, **rule), Adversary(0.7, **adversary)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_theory_is_the_limit_of_the_simulation(name: str) -> None:
    N, runs = 1000, 128
    parts = model(name)
    start = {"R0": 0.2} | ({} if parts[1].normalised else {"Q0": 0.8})
    theory = integrate(*parts, alpha=[2.0, 8.0], **start)  # type: ignore[arg-type]
    sample = simulate(*parts, N=N, alpha=[2.0, 8.0], runs=runs, rng=1, **start)  # type: ignore[arg-type]
    assert set(sample.data_vars) == set(theory.data_vars) - {"status"}
    for variable in sample.data_vars:
        error = sample[variable].std("run", ddof=1) / np.sqrt(runs)
        # terms of order 1/N: with coefficients below 3 at these rates, measured at N = 2000
        assert np.all(abs(sample[variable].mean("run") - theory[variable]) <= 4 * error + 3 / N)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_both_methods_have_the_same_law(name: str) -> None:
    parts = model(name)
    samples = [
        simulate(*parts, N=10, alpha=[3.0], runs=1000, rng=seed, method=method, R0=0.2)  # type: ignore[arg-type]
        for seed, method in ((21, "reduced"), (22, "direct"))
    ]
    for variable in ("R", "b", "Q"):
        if variable in samples[0]:
            # Nothing is tuned. Over all variants there are about sixty such tests.
            assert stats.ks_2samp(*(sample[variable].values[:, 0] for sample in samples)).pvalue > 1e-4


def test_results_record_the_variant() -> None:
    result = integrate(*model("everything"), alpha=[1.0])
    assert '"law": {"kind": "Uniform", "low": 0.5, "high": 1.5}' in result.attrs["configuration"]
    assert '"update": "non_robust"' in result.attrs["configuration"]
    assert float(result.fraction) == 0.7
    assert result.Q.attrs["long_name"] == "squared length of the weights"
    with pytest.raises(ValueError, match=r"Q0 = 2\.0"):
        integrate(*model("fraction"), alpha=[1.0], Q0=2.0)
