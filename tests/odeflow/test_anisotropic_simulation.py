"""Simulations on samples and mixtures, the errors of their classifiers, and what comes back."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

import odeflow
from odeflow import Adversary, GaussianMixture, LearningRule, anisotropic
from odeflow.anisotropic import Mixture, Samples
from odeflow.anisotropic.simulate import _Shuffled
from tests.odeflow.mixtures import drawn, random_mixture

# --- simulation ---


@pytest.mark.slow
def test_a_simulation_is_reproducible_and_its_runs_are_independent_of_their_number() -> None:
    mixture, rule, adversary = random_mixture(20), LearningRule.per_example(0.02, 20), Adversary(0.1, 0.5, norm="linf")
    for data in (mixture, Samples(*drawn(mixture, 50))):
        few, again, many = (
            anisotropic.simulate(data, rule, adversary, examples=[70, 130], runs=runs, rng=7, weights=True)
            for runs in (3, 3, 6)
        )
        np.testing.assert_array_equal(few.w, again.w)
        np.testing.assert_allclose(few.w, many.w[:3], rtol=1e-9)
        assert len(np.unique(many.b[:, 1])) == 6


def test_examples_have_the_moments_of_the_mixture() -> None:
    mixture, n = random_mixture(6), 100_000
    X, tau = drawn(mixture, n)
    assert (tau == 1).mean() == pytest.approx(mixture.p, abs=5 * math.sqrt(0.25 / n))
    for k, sign in enumerate((1.0, -1.0)):
        own, C = X[tau == sign], mixture.covariances[k]
        scale = np.sqrt(np.diag(C))
        assert np.all(abs(own.mean(axis=0) - mixture.means[k]) <= 5 * scale / math.sqrt(len(own)) + 1e-12)
        error = np.sqrt((np.outer(scale**2, scale**2) + C**2) / len(own))
        assert np.all(abs(np.cov(own.T) - C) <= 5 * error + 1e-12)
        assert np.all(own[:, -1] == mixture.means[k, -1])  # the input that never varies


def test_an_epoch_takes_each_sample_once_in_another_order_each_time() -> None:
    samples = Samples(np.arange(10.0)[:, None], np.array([1.0, -1.0] * 5))
    source = _Shuffled(samples, np.random.SeedSequence(12), 2)
    chosen = np.concatenate([part for count in (4, 13, 13) for _, part, _ in source.draw(count)], axis=1)
    epochs = chosen.reshape(2, 3, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=2), np.broadcast_to(np.arange(10), (2, 3, 10)))
    assert len({tuple(order) for order in epochs.reshape(6, 10)}) == 6


def test_one_step_is_the_update_rule() -> None:
    X, y = np.array([[0.5, -1.0, 2.0], [0.1, 0.2, -0.3]]), np.array([1.0, -1.0])
    w0, b0, eta, eta_b, epsilon = np.array([0.3, -0.2, 0.1]), 0.05, 0.1, 0.3, 0.2
    rule = LearningRule.per_example(eta, 3, eta_b=eta_b)
    for norm in ("l2", "linf"):
        result = anisotropic.simulate(
            Samples(X, y), rule, Adversary(epsilon, norm=norm), examples=[1], runs=5, rng=1, w0=w0, b0=b0, weights=True
        )
        s = np.sign(w0) if norm == "linf" else w0 / np.linalg.norm(w0)
        candidates = []
        for xi, tau in zip(X, y, strict=True):
            attacked = xi - tau * epsilon * s
            x = w0 @ attacked - b0
            delta = (tau - math.erf(x)) * 2 / math.sqrt(math.pi) * math.exp(-x * x)
            candidates.append([*(w0 + eta * delta * attacked), b0 - eta_b * delta])
        for run in range(5):
            found = [*result.w[run, 0].values, float(result.b[run, 0])]
            assert min(np.abs(np.subtract(found, candidate)).max() for candidate in candidates) < 1e-12


# --- errors of a classifier ---


def test_errors_of_the_isotropic_mixture_are_the_seed_models() -> None:
    mixture = GaussianMixture(p=0.3, v1=0.5)
    R, b = 0.6, 0.4
    w = np.array([R, math.sqrt(1 - R * R), 0.0])
    epsilon = np.array([0.0, 0.5, 2.0])
    expected = odeflow.adversarial_error(R, b, mixture, epsilon)
    general = anisotropic.adversarial_error(w, b, Mixture.isotropic(mixture, N=3), epsilon, "l2")
    np.testing.assert_allclose(general, expected, rtol=1e-14)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_error_formula_counts_samples(norm: str) -> None:
    mixture, n = random_mixture(10), 100_000
    X, y = drawn(mixture, n)
    rng = np.random.default_rng(13)
    w, b, epsilon = rng.standard_normal((2, 3, 10)), rng.standard_normal((2, 3)), np.array([0.0, 0.1, 0.5])
    exact = anisotropic.adversarial_error(w, b, mixture, epsilon, norm)
    counted = anisotropic.empirical_adversarial_error(w, b, X, y, epsilon, norm)
    assert exact.shape == counted.shape == (2, 3, 3)
    assert np.all(abs(exact - counted) <= 5 * np.sqrt(exact * (1 - exact) / n))
    assert np.all(np.diff(exact) > 0)
    # by the definition, for one classifier
    s = np.sign(w[0, 0]) if norm == "linf" else w[0, 0] / np.linalg.norm(w[0, 0])
    attacked = X - 0.1 * y[:, None] * s
    assert counted[0, 0, 1] == np.mean(y * (attacked @ w[0, 0] - b[0, 0]) < 0)
    assert anisotropic.adversarial_error(w[0, 0], b[0, 0], mixture, 0.1, norm) == pytest.approx(exact[0, 0, 1])


# --- the mixture of samples ---


def test_moments_of_samples() -> None:
    rng = np.random.default_rng(14)
    X = np.hstack([rng.standard_normal((200, 4)), np.zeros((200, 1))])  # a dead pixel
    y = np.where(rng.random(200) < 0.3, 1.0, -1.0)
    mixture = Mixture.from_samples(X, y)
    assert mixture.p == (y == 1).mean()
    for k, sign in enumerate((1.0, -1.0)):
        np.testing.assert_allclose(mixture.means[k], X[y == sign].mean(axis=0), atol=1e-15)
        np.testing.assert_allclose(mixture.covariances[k], np.cov(X[y == sign].T, bias=True), atol=1e-15)
    half = Mixture.from_samples(X, y, shrinkage=0.5)
    trace = np.trace(mixture.covariances[0])
    np.testing.assert_allclose(half.covariances[0], mixture.covariances[0] / 2 + trace / 10 * np.eye(5), atol=1e-15)
    few = Mixture.from_samples(X[:8], [1, -1] * 4, shrinkage="ledoit-wolf")
    assert np.linalg.eigvalsh(few.covariances[1])[0] > 0


def test_a_singular_mixture_of_images_can_be_learned() -> None:
    mixture = random_mixture(20)
    for adversary in (Adversary(0.2), Adversary(0.05, norm="linf")):
        result = anisotropic.integrate(
            mixture, LearningRule.per_example(0.02, 20), adversary, examples=[500], weights=True
        )
        assert np.isfinite(result.w).all()
        # nothing but the attack acts on the input that never varies: it pulls its weight to zero
        assert abs(float(result.w[0, -1])) < 1e-3


# --- what comes back ---


def test_the_result_is_labelled() -> None:
    mixture, rule, adversary = random_mixture(10), LearningRule.per_example(0.02, 10), Adversary(0.1, norm="linf")
    arguments: dict[str, Any] = {"alpha": [0.0, 5.0, 20.0], "test_epsilon": [0.0, 0.2], "weights": True}
    theory = anisotropic.integrate(mixture, rule, adversary, **arguments)
    sample = anisotropic.simulate(mixture, rule, adversary, runs=2, rng=1, **arguments)
    assert theory.sizes == {"alpha": 3, "test_epsilon": 2, "feature": 10}
    assert sample.sizes == {"run": 2, **theory.sizes}
    np.testing.assert_array_equal(theory.examples, [0, 50, 200])
    np.testing.assert_allclose(theory.adversarial_error.sel(test_epsilon=0), theory.error)
    for result in (theory, sample):
        assert float(result.epsilon) == 0.1
        assert str(result.norm.values) == "linf"
        assert json.loads(result.attrs["configuration"])["adversary"]["norm"] == "linf"
        for variable in result.variables.values():
            assert variable.attrs["long_name"]
            assert variable.attrs["units"] == "1"
    by_examples = anisotropic.integrate(mixture, rule, adversary, examples=[50, 200])
    assert by_examples.adversarial_error.dims == ("examples",)
    np.testing.assert_allclose(by_examples.l1_norm, theory.l1_norm[1:], rtol=1e-2)
