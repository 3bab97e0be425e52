"""Estimated means and covariances: the plug-in prediction is too good, the held-out one is right within what it states."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from odeflow import Adversary, GaussianMixture, LearningRule, anisotropic
from odeflow.anisotropic import Mixture, Samples, adversarial_error, cross_validate, cross_validate_optimum
from odeflow.anisotropic.held_out import _margins, _Parts
from tests.odeflow.mixtures import Array, drawn, random_mixture

N, PER_CLASS, EPSILON = 50, 100, 0.1


def truth() -> Mixture:
    spectrum = np.arange(1, N + 1) ** -0.7
    mean = 0.275 * np.sqrt(spectrum) * np.random.default_rng(0).standard_normal(N)
    return Mixture(0.5, np.stack([mean, -mean]), np.stack([spectrum, 1.3 * spectrum]))


def few_samples(seed: int) -> Samples:
    mixture, rng = truth(), np.random.default_rng(seed)
    parts = [
        m + np.sqrt(C) * rng.standard_normal((PER_CLASS, N))
        for m, C in zip(mixture.means, mixture.covariances, strict=True)
    ]
    return Samples(np.concatenate(parts), np.repeat([1, -1], PER_CLASS))


def test_the_optimum_of_few_samples_is_not_as_good_as_it_says_and_held_out_says_so() -> None:
    misses: dict[str, list[float]] = {"held out": [], "plug-in": []}
    for seed in range(8):
        best = cross_validate_optimum(few_samples(seed), EPSILON, rtol=1e-3)
        exact = float(adversarial_error(best.w, best.b, truth(), EPSILON, "l2"))
        se = float(best.adversarial_error_se)
        misses["held out"].append((float(best.adversarial_error) - exact) / se)
        misses["plug-in"].append((float(best.plug_in_adversarial_error) - exact) / se)
    # the law of eight standard normal numbers: a sum of squares above 22 has a chance of 0.5 %
    assert np.square(misses["held out"]).sum() < 22
    assert abs(np.mean(misses["held out"])) < 1
    assert np.square(misses["plug-in"]).sum() > 44
    assert np.mean(misses["plug-in"]) < -2


@pytest.mark.slow
def test_what_sgd_learns_from_few_samples_does_on_new_ones_what_held_out_says() -> None:
    adversary, rule = Adversary(0.02, norm="linf"), LearningRule.per_example(0.05, N)
    options: dict[str, Any] = {"examples": [4000], "test_epsilon": [0.0, 0.02]}
    misses: dict[str, list[float]] = {"held out": [], "plug-in": []}
    for seed in range(4, 10):
        samples = few_samples(seed)
        theory = cross_validate(samples, rule, adversary, **options)
        sample = anisotropic.simulate(samples, rule, adversary, runs=10, rng=1, test=truth(), **options)
        exact = sample.adversarial_error.mean("run")[0, 1]
        se = float(theory.adversarial_error_se[0, 1])
        assert se < 0.05
        misses["held out"].append(float(theory.adversarial_error[0, 1] - exact) / se)
        misses["plug-in"].append(float(theory.plug_in_adversarial_error[0, 1] - exact) / se)
    # theirs is a prediction of learning on the samples, as integrate gives it
    plain = anisotropic.integrate(Mixture.from_samples(samples.X, samples.y), rule, adversary, **options)
    np.testing.assert_array_equal(theory.plug_in_adversarial_error, plain.adversarial_error)
    np.testing.assert_array_equal(theory.l1_norm, plain.l1_norm)
    assert float(theory.samples_per_dimension) == 4
    # the law of six standard normal numbers: a sum of squares above 18.5 has a chance of 0.5 %
    assert np.square(misses["held out"]).sum() < 18.5
    assert np.square(misses["plug-in"]).sum() > 18.5
    assert np.mean(misses["plug-in"]) < np.mean(misses["held out"])


def test_with_many_samples_all_predictions_agree() -> None:
    exact = random_mixture(6)
    X, y = drawn(exact, 6000)
    rule, adversary = LearningRule.per_example(0.02, 6), Adversary(0.1)
    options: dict[str, Any] = {"examples": [1000], "test_epsilon": [0.0, 0.2], "w0": np.full(6, 0.1)}
    theory = cross_validate(Samples(X, y), rule, adversary, folds=5, **options)
    plain = anisotropic.integrate(exact, rule, adversary, **options)
    assert np.all(theory.adversarial_error_se < 0.02)
    assert np.all(abs(theory.adversarial_error - plain.adversarial_error) < 3 * theory.adversarial_error_se)
    assert np.all(abs(theory.adversarial_error - theory.plug_in_adversarial_error) < theory.adversarial_error_se)


def test_margins_by_parts_are_the_margins_of_the_whole() -> None:
    samples = few_samples(1)
    parts = _Parts(samples, 7, 0.0, 3)
    w, b, epsilon = np.random.default_rng(2).standard_normal(N), 0.3, np.array([0.0, 0.05, 0.4])
    held = [_margins(w, b, part.own, "linf") for part in parts.parts]
    exact = adversarial_error(w, b, Mixture.of(samples.X, samples.y), epsilon, "linf")
    S, se = parts.error(held, [_margins(w, b, parts.whole, "linf")] * 7, exact, epsilon)
    np.testing.assert_allclose(S, exact, rtol=1e-12)
    # for given weights, the jackknife is the standard error of the error's estimate: phi(z) sqrt((1 + z^2 / 2) / n)
    z = (np.array([1, -1])[:, None] * ((parts.whole.means @ w)[:, None] - b) - epsilon * np.abs(w).sum()) / np.sqrt(
        parts.whole.variances(w)
    )[:, None]
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    expected = np.sqrt((0.25 * density**2 * (1 + z * z / 2) / PER_CLASS).sum(axis=0))
    np.testing.assert_allclose(se / np.sqrt(1 + 7 / 6), expected, rtol=0.7)
    assert np.concatenate([part.counts for part in parts.parts]).reshape(-1, 2).sum(axis=0).tolist() == [100, 100]


def test_where_no_classifier_pays_the_constant_one_is_held_out_too() -> None:
    mixture = Mixture.isotropic(GaussianMixture(p=0.7, rho=0.5), N=4)
    X, y = drawn(mixture, 300)
    best = cross_validate_optimum(Samples(X, y), 2.0, folds=4)
    assert not best.w.values.any()
    assert float(best.adversarial_error) == pytest.approx(min(np.mean(y == 1), np.mean(y == -1)))
    assert np.isfinite(float(best.adversarial_error_se))


def test_the_same_seed_gives_the_same_parts_and_the_result_says_what_made_it() -> None:
    samples = few_samples(0)
    one, two, other = (cross_validate_optimum(samples, folds=3, rng=seed, rtol=1e-2) for seed in (1, 1, 2))
    assert float(one.error) == float(two.error) != float(other.error)
    configuration = json.loads(one.attrs["configuration"])
    assert configuration["function"] == "anisotropic.cross_validate_optimum"
    assert configuration["options"]["folds"] == 3
    assert "entropy=1" in one.attrs["seed"]
    assert all(one[name].attrs["long_name"] for name in one.variables)


def samples_of(n_plus: int, n_minus: int, dimensions: int = 3) -> Samples:
    rng = np.random.default_rng(0)
    return Samples(rng.standard_normal((n_plus + n_minus, dimensions)), np.repeat([1, -1], [n_plus, n_minus]))


@pytest.mark.parametrize(
    ("samples", "options", "error", "message"),
    [
        (
            random_mixture(3),
            {},
            TypeError,
            r"samples = Mixture\(.* is of the wrong type: allowed is anisotropic.Samples",
        ),
        (samples_of(9, 5), {"folds": 1}, ValueError, "folds = 1 is out of range"),
        (samples_of(9, 5), {"folds": 6}, ValueError, "folds = 6 is out of range: allowed are 2 to 5, the samples of a"),
        (samples_of(9, 4), {"folds": 2}, ValueError, "class -1 has 2 samples in 3 dimensions, .* with shrinkage > 0"),
        (samples_of(9, 1), {}, ValueError, "folds = 2 is out of range: allowed is no number, for a class has 1 sample"),
        (samples_of(9, 5), {"shrinkage": 2}, ValueError, "shrinkage = 2.0 is out of range"),
        (samples_of(9, 5), {"rng": "a"}, TypeError, "rng"),
    ],
)
def test_bad_arguments(samples: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    options = {"folds": 2} | options
    with pytest.raises(error, match=message):
        cross_validate_optimum(samples, **options)
    with pytest.raises(error, match=message):
        cross_validate(samples, LearningRule.per_example(0.1, 3), Adversary(), examples=[1], **options)


def test_the_number_of_samples_is_said() -> None:
    samples = few_samples(0)
    mixture = Mixture.from_samples(samples.X, samples.y)
    assert mixture.samples == (100, 100)
    assert repr(mixture) == "Mixture(N=50, p=0.5, full covariances, of 200 samples: n/N=4)"
    assert truth().samples is None
    array: Array = mixture.covariances
    with pytest.raises(ValueError, match=r"samples = 3: allowed are two whole numbers >= 1, or None"):
        Mixture(0.5, mixture.means, array, 3)  # type: ignore[arg-type]
