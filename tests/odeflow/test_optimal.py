"""The optimal classifier: closed forms where they are known, and no other linear classifier is better."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odeflow import GaussianMixture, adversarial_error, classification_error, optimal_classifier

mixtures = st.builds(
    GaussianMixture, p=st.floats(0.02, 0.98), rho=st.floats(0, 6), v1=st.floats(0.05, 5), v2=st.floats(0.05, 5)
)


@given(p=st.floats(0.05, 0.95), rho=st.floats(0.5, 6), v=st.floats(0.1, 4), fraction=st.floats(0, 0.95))
def test_equal_variances_have_the_closed_form(p: float, rho: float, v: float, fraction: float) -> None:
    epsilon = fraction * rho / 2
    best = optimal_classifier(GaussianMixture(p, rho, v, v), epsilon)
    b = v * math.log((1 - p) / p) / (rho - 2 * epsilon)
    assert float(best.R) == 1
    # by its error: where the closed form's is within rounding of the constant label's, either may be returned
    expected = adversarial_error(1.0, b, GaussianMixture(p, rho, v, v), epsilon)
    assert float(best.adversarial_error) == pytest.approx(expected, rel=1e-12)
    if expected < min(p, 1 - p) - 1e-9:
        assert float(best.b) == pytest.approx(b, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("p", "b"), [(0.7, -math.inf), (0.3, math.inf), (0.5, -math.inf)])
@pytest.mark.parametrize("epsilon", [1.0, 1.5])
def test_beyond_half_the_separation_it_is_the_constant_majority_label(p: float, b: float, epsilon: float) -> None:
    best = optimal_classifier(GaussianMixture(p=p), epsilon)
    assert float(best.b) == b
    assert float(best.adversarial_error) == pytest.approx(min(p, 1 - p))


@example(mixture=GaussianMixture(0.5, 2.0, 0.01, 4.0), epsilon=2.0)  # a finite bias wins beyond rho/2
@given(mixture=mixtures, epsilon=st.floats(0, 4))
def test_no_other_linear_classifier_is_better(mixture: GaussianMixture, epsilon: float) -> None:
    best = optimal_classifier(mixture, epsilon)
    reach = 10 * math.sqrt(max(mixture.v1, mixture.v2)) + mixture.rho + epsilon
    R, b = np.linspace(-1, 1, 41)[:, None], np.linspace(-reach, reach, 4001)
    assert float(best.adversarial_error) <= adversarial_error(R, b, mixture, epsilon).min() + 1e-12


def test_a_finite_bias_can_be_best_beyond_half_the_separation() -> None:
    mixture = GaussianMixture(0.5, 2.0, 0.01, 4.0)
    best = optimal_classifier(mixture, 2.0)
    assert math.isfinite(float(best.b))
    assert float(best.adversarial_error) < 0.45


@given(mixture=mixtures, epsilon=st.floats(0, 3))
def test_swapping_the_classes_turns_the_bias_round(mixture: GaussianMixture, epsilon: float) -> None:
    swapped = GaussianMixture(1 - mixture.p, mixture.rho, mixture.v2, mixture.v1)
    one, other = optimal_classifier(mixture, epsilon), optimal_classifier(swapped, epsilon)
    assert float(other.adversarial_error) == pytest.approx(float(one.adversarial_error), rel=1e-12)


def test_the_result_is_consistent_and_labelled() -> None:
    mixture = GaussianMixture(p=0.6, v1=2.0)
    best = optimal_classifier(mixture, 0.4)
    assert float(best.error) == classification_error(float(best.R), float(best.b), mixture)
    assert best.sizes == {}
    assert best.R.attrs["units"] == "1"
    assert float(best.epsilon) == 0.4


def test_bad_epsilon() -> None:
    with pytest.raises(ValueError, match=r"epsilon = -1\.0"):
        optimal_classifier(GaussianMixture(), -1.0)
