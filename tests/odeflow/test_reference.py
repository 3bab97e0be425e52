"""The perceptron's reference: rates and Jacobian of every variant, against the kernels and by differences."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from odeflow import Adversary, GaussianMixture, LearningRule, fixed_points, integrate, jacobian, rates
from odeflow.laws import Uniform
from odeflow.model import ACTIVATIONS, LOSSES, UPDATES
from odeflow.order_parameters.perceptron.reference import _averages
from odeflow.order_parameters.perceptron.variant_averages import averages

MIXTURE = GaussianMixture(0.7, 2.0, 1.0, 0.8)
VARIANTS = [
    LearningRule(0.5, 0.3, loss=loss, activation=activation, update=update, normalised=normalised)
    for loss, activation, update, normalised in product(LOSSES, ACTIVATIONS, UPDATES, (True, False))
    if activation != "sign" or loss in ("squared", "perceptron")
]
every_variant = pytest.mark.parametrize(
    "rule", VARIANTS, ids=lambda rule: f"{rule.loss}-{rule.activation}-{rule.update}-{rule.normalised}"
)


@every_variant
def test_the_kernels_averages_are_the_plain_ones(rule: LearningRule) -> None:
    rng = np.random.default_rng(0)
    m, v = rng.uniform(-6, 6, 100), 10 ** rng.uniform(-2, 2, 100)
    D1, D2, slope = averages(m, v, rule)
    plain, plain_slope, _, _ = _averages(rule, m, v)
    np.testing.assert_allclose(D1, plain, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(slope, plain_slope, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(D2, _averages(rule, m, v, power=2)[0], rtol=1e-10, atol=1e-10)


@every_variant
@pytest.mark.slow
def test_rates_are_the_slope_of_the_trajectory_and_the_jacobian_theirs(rule: LearningRule) -> None:
    adversary = Adversary(0.7, fraction=0.6, law=Uniform(0.5, 1.5))
    y = np.array([0.4, 0.3, 1.3])[: 2 if rule.normalised else 3]
    free: dict[str, Any] = {} if rule.normalised else {"Q0": y[2]}
    h = 1e-3
    seen = integrate(MIXTURE, rule, adversary, alpha=[h, 2 * h], R0=y[0], b0=y[1], **free, rtol=1e-13, atol=1e-14)
    states = np.stack([seen[name].values for name in ("R", "b", "Q")[: y.size]], axis=1)

    def at(z: Any) -> Any:
        return np.array(rates(z[0], z[1], MIXTURE, rule, adversary, Q=None if rule.normalised else z[2]))

    np.testing.assert_allclose((4 * (states[0] - y) - (states[1] - y)) / (2 * h), at(y), atol=3e-6)
    J = jacobian(y[0], y[1], MIXTURE, rule, adversary, Q=None if rule.normalised else y[2])
    for column, step in enumerate(1e-4 * np.eye(y.size)):
        difference = (8 * (at(y + step) - at(y - step)) - (at(y + 2 * step) - at(y - 2 * step))) / 12e-4
        np.testing.assert_allclose(J[:, column], difference, atol=1e-9)


def test_a_variant_that_is_nearly_the_seed_has_nearly_its_rates_and_fixed_points() -> None:
    """By another way: the variants' formulas with a fraction just below 1 against the seed's closed forms."""
    rule, seed, other = LearningRule(), Adversary(1.2), Adversary(1.2, fraction=1 - 1e-12)
    np.testing.assert_allclose(
        rates(0.3, -0.5, MIXTURE, rule, other), rates(0.3, -0.5, MIXTURE, rule, seed), atol=1e-11
    )
    np.testing.assert_allclose(
        jacobian(0.3, -0.5, MIXTURE, rule, other), jacobian(0.3, -0.5, MIXTURE, rule, seed), atol=1e-11
    )
    mixture = GaussianMixture(0.5)
    found, exact = (
        fixed_points(mixture, rule, adversary) for adversary in (Adversary(1.5, fraction=1 - 1e-12), Adversary(1.5))
    )
    assert exact.sizes["fixed_point"] == 3
    np.testing.assert_allclose(found.b, exact.b, atol=1e-7)
    np.testing.assert_allclose(found.R, exact.R, atol=1e-7)
    assert found.stable.values.tolist() == exact.stable.values.tolist() == [True, False, True]
    np.testing.assert_allclose(found.eigenvalues.real, exact.eigenvalues.real, atol=1e-7)


def test_a_missing_or_superfluous_length_is_named() -> None:
    with pytest.raises(ValueError, match="Q = None: allowed is a number > 0"):
        rates(0.1, 0.0, MIXTURE, LearningRule(normalised=False), Adversary())
    with pytest.raises(ValueError, match=r"Q = 2\.0 is not allowed: the rule keeps"):
        jacobian(0.1, 0.0, MIXTURE, LearningRule(), Adversary(), Q=2.0)
    with pytest.raises(ValueError, match=r"Q = -1\.0 \(smallest\) is out of range"):
        rates(0.1, 0.0, MIXTURE, LearningRule(normalised=False), Adversary(), Q=-1.0)
