"""Samples, moments and arguments that cannot be: one clear error each."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import odeflow
from odeflow import Adversary, GaussianMixture, IntegrationError, LearningRule, anisotropic
from odeflow.anisotropic import Mixture
from tests.odeflow.mixtures import random_mixture

GOOD_X, GOOD_Y = np.random.default_rng(15).standard_normal((20, 3)), np.array([1, -1] * 10)


@pytest.mark.parametrize(
    ("X", "y", "error", "message"),
    [
        (GOOD_X, np.ones(20), ValueError, r"y has the values 1: allowed are \+1 and -1, both"),
        (GOOD_X, [3, 7] * 10, ValueError, r"y has the values 3, 7: .*np.where\(y == a, 1, -1\)"),
        (GOOD_X, range(20), ValueError, r"y has the values 0, 1, 2, 3, 4, ...: allowed"),
        (GOOD_X, [1, -1], ValueError, r"y has shape \(2,\): allowed is \(20,\)"),
        (GOOD_X, ["3", "seven"] * 10, TypeError, "y is not an array of real numbers"),
        (GOOD_X[None], GOOD_Y, ValueError, r"X has shape \(1, 20, 3\): .* flattened"),
        (np.where(GOOD_X[4, 1] == GOOD_X, np.nan, GOOD_X), GOOD_Y, ValueError, r"X\[4, 1\] = nan: allowed are finite"),
        (GOOD_X[:4], GOOD_Y[:4], ValueError, r"class \+1 has 2 samples in 3 dimensions.*at least 4.*shrinkage"),
    ],
)
def test_bad_samples(X: Any, y: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Mixture.from_samples(X, y)


@pytest.mark.parametrize(
    ("means", "covariances", "message"),
    [
        ([1.0, 2.0], [[1.0], [1.0]], r"means have shape \(2,\): allowed is \(2, N\)"),
        ([[1.0], [2.0]], [[1.0, 0.0], [1.0, 0.0]], r"covariances have shape \(2, 2\): allowed is \(2, 1, 1\)"),
        ([[1.0], [math.inf]], [[1.0], [1.0]], r"means\[1, 0\] = inf"),
        ([[1.0], [2.0]], [[1.0], [-1.0]], r"covariance of the class -1 has the variance -1.0: allowed are variances"),
        ([[0.0, 1.0]] * 2, [np.eye(2), [[1.0, 2.0], [2.0, 1.0]]], "class -1 has the eigenvalue -1.0: allowed"),
        ([[0.0, 1.0]] * 2, [[[1.0, 0.3], [0.2, 1.0]], np.eye(2)], r"class \+1 differs from its transpose by 0.09"),
    ],
)
def test_bad_moments(means: Any, covariances: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Mixture(0.5, means, covariances)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, TypeError, "neither of alpha and examples given"),
        ({"alpha": [1.0], "examples": [1.0]}, TypeError, "both of alpha and examples given"),
        ({"examples": [2.0, 1.0]}, ValueError, "examples goes from 2.0 to 1.0"),
        ({"examples": [2.0], "w0": np.ones(4)}, ValueError, r"w0 has shape \(4,\): .* shape \(10,\)"),
        ({"examples": [2.0], "w0": -1.0}, ValueError, "w0 = -1.0 is out of range"),
        ({"examples": [2.0], "test_epsilon": [0.1, -0.1]}, ValueError, "test_epsilon contains -0.1"),
        ({"examples": [2.0], "test_epsilon": [0.2, 0.1]}, ValueError, r"test_epsilon = \[0.2, 0.1\] is not a grid"),
        ({"examples": [2.0], "rank": -1}, ValueError, "rank = -1 is out of range"),
        ({"examples": [2.0], "rule": "erf"}, TypeError, "rule = 'erf' is of the wrong type"),
        ({"examples": [2.0], "mixture": GaussianMixture()}, TypeError, "allowed is an anisotropic.Mixture"),
        ({"examples": [2.0], "rule": LearningRule(), "w0": 2.0}, ValueError, "allowed is 1, because"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    parts: dict[str, Any] = {
        "mixture": random_mixture(10),
        "rule": LearningRule.per_example(0.1, 10),
        "adversary": Adversary(0.1),
    }
    parts |= {name: arguments.pop(name) for name in list(arguments) if name in parts}
    with pytest.raises(error, match=message):
        anisotropic.integrate(*parts.values(), **arguments)


def test_too_few_steps_are_an_integration_error_with_advice() -> None:
    with pytest.raises(IntegrationError, match=r"max_steps = 3 led only to t = .* a larger rtol or max_steps may help"):
        anisotropic.integrate(
            random_mixture(10), LearningRule.per_example(0.1, 10), Adversary(0.1), examples=[1000], max_steps=3
        )


def test_epsilon_in_units_of_grey_levels_is_noticed() -> None:
    rule, adversary = LearningRule.per_example(0.1, 10), Adversary(8.0, norm="linf")
    with pytest.warns(UserWarning, match=r"epsilon = 8 in L-infinity .* pixel values in \[0, 1\]; .* 8/255"):
        anisotropic.simulate(random_mixture(10), rule, adversary, examples=[1], runs=1)


def test_the_seed_model_points_to_its_generalisation() -> None:
    with pytest.raises(TypeError, match=r"odeflow\.anisotropic"):
        odeflow.integrate(random_mixture(3), LearningRule(), Adversary(), alpha=[1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="norm = 'linf': allowed is 'l2'"):
        odeflow.integrate(GaussianMixture(), LearningRule(), Adversary(0.1, norm="linf"), alpha=[1.0])
    with pytest.raises(ValueError, match="norm = 'max' is unknown: allowed is one of l2, linf"):
        Adversary(0.1, norm="max")  # type: ignore[arg-type]


def test_bad_simulations() -> None:
    mixture, rule, adversary = random_mixture(3), LearningRule.per_example(0.1, 3), Adversary()
    with pytest.raises(TypeError, match="data = 3 is of the wrong type: allowed is a Mixture or Samples"):
        anisotropic.simulate(3, rule, adversary, examples=[1], runs=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="test has 4 dimensions: allowed are 3"):
        anisotropic.simulate(mixture, rule, adversary, examples=[1], runs=1, test=random_mixture(4))
    with pytest.raises(ValueError, match="runs = 0 is out of range"):
        anisotropic.simulate(mixture, rule, adversary, examples=[1], runs=0)
