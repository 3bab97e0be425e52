"""The study online_or_batch: its optima are not beaten by other settings, and its limits are known ones."""

import numpy as np
import pytest

from odeflow import GaussianMixture, adversarial_error, integrate_batch
from studies.online_or_batch.measure import best_batch, best_constant, falling


def test_no_random_settings_beat_the_best_constant_ones() -> None:
    mixture, alpha, test = GaussianMixture(0.7, 3.0), 2.0, 0.5
    best = best_constant(mixture, alpha, test)
    rng = np.random.default_rng(1)
    size = 2000
    y = integrate_batch(
        alpha=[alpha], p=0.7, rho=3.0, epsilon=rng.uniform(0, 2, size),
        eta_w=best["eta_w"] * np.exp(rng.normal(0, 0.5, size)), eta_b=best["eta_b"] * np.exp(rng.normal(0, 0.5, size)),
    ).y[:, 0]  # fmt: skip
    S = adversarial_error(np.clip(y[:, 0], -1, 1), y[:, 1], mixture, test)
    least = adversarial_error(best["R"], best["b"], mixture, test)
    assert least <= np.min(S)
    assert least < np.median(S) - 1e-3


def test_the_batch_of_equal_classes_is_bayes_optimal() -> None:
    best = best_batch(GaussianMixture(0.5, 2.0), np.array([1.0, 4.0]), 0.0)
    assert best.R.values == pytest.approx([0.5**0.5, 0.8**0.5], rel=1e-4)


def test_falling_rates_have_half_their_value_at_their_turn() -> None:
    rate = falling(0.8, 5.0, 40.0)
    assert rate(0.0) == pytest.approx(0.8, rel=0.12)
    assert rate([5.0, 39.0]) == pytest.approx([0.4, 0.8 / 8.8], rel=0.12)
