"""Errors against their meaning, limits and monotony."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from odeflow import (
    Adversary,
    Committee,
    GaussianMixture,
    LearningRule,
    adversarial_error,
    classification_error,
    integrate,
    robustness,
    robustness_curve,
    sweep,
)

mixtures = st.builds(
    GaussianMixture, p=st.floats(0.01, 0.99), rho=st.floats(0, 10), v1=st.floats(0.01, 10), v2=st.floats(0.01, 10)
)
overlaps, biases = st.floats(-1, 1), st.floats(-5, 5)


@given(mixture=mixtures, R=overlaps, b=biases, epsilon=st.floats(0, 5))
def test_adversarial_error_is_the_chance_that_the_moved_example_is_on_the_wrong_side(
    mixture: GaussianMixture, R: float, b: float, epsilon: float
) -> None:
    plus = norm(mixture.rho * R / 2 - b - epsilon, np.sqrt(mixture.v1)).cdf(0)
    minus = norm(-mixture.rho * R / 2 - b + epsilon, np.sqrt(mixture.v2)).sf(0)
    expected = mixture.p * plus + (1 - mixture.p) * minus
    assert adversarial_error(R, b, mixture, epsilon) == pytest.approx(expected, rel=1e-12, abs=1e-15)


@given(mixture=mixtures, R=overlaps, b=biases)
def test_without_attack_it_is_the_classification_error(mixture: GaussianMixture, R: float, b: float) -> None:
    assert adversarial_error(R, b, mixture, 0.0) == classification_error(R, b, mixture)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
def test_errors_are_shares_of_drawn_examples(epsilon: float) -> None:
    """By counting, with no formula: examples of both classes, each moved against its label along w, and classified."""
    mixture, R, b, count = GaussianMixture(p=0.7, rho=1.5, v1=0.5, v2=2.0), 0.6, -0.4, 400_000
    rng = np.random.default_rng(1)
    tau = np.where(rng.random(count) < 0.7, 1.0, -1.0)
    xi = np.where(tau > 0, 0.5, 2.0)[:, None] ** 0.5 * rng.standard_normal((count, 3))
    xi[:, 0] += tau * 0.75
    w = np.array([0.6, 0.0, 0.8])
    found = np.mean(np.sign((xi - epsilon * np.outer(tau, w)) @ w - b) != tau)
    expected = float(adversarial_error(R, b, mixture, epsilon))
    assert found == pytest.approx(expected, abs=4 * (expected * (1 - expected) / count) ** 0.5)
    if epsilon == 0:
        assert float(classification_error(R, b, mixture)) == expected


@given(mixture=mixtures, R=overlaps, b=biases)
def test_robustness_curve_does_not_fall(mixture: GaussianMixture, R: float, b: float) -> None:
    curve = robustness_curve(R, b, mixture)
    assert curve.dims == ("epsilon",)
    assert np.all(curve.diff("epsilon") >= 0)
    assert float(curve[0]) == classification_error(R, b, mixture)


def test_a_random_classifier_guesses_and_a_constant_one_errs_on_the_other_class() -> None:
    mixture = GaussianMixture(p=0.7)
    assert classification_error(0.0, 0.0, mixture) == pytest.approx(0.5)
    assert classification_error(1.0, -np.inf, mixture) == pytest.approx(0.3)
    assert classification_error(1.0, np.inf, mixture) == pytest.approx(0.7)


def test_broadcasts_over_arrays_and_labelled_arrays() -> None:
    mixture = GaussianMixture()
    R = xr.DataArray([0.1, 0.5], dims="training", coords={"training": [1.0, 2.0]}, name="R")
    b = xr.DataArray([0.0, 0.2, 0.3], dims="run")
    labelled = adversarial_error(R, b, mixture, 0.5)
    assert labelled.dims == ("training", "run")
    assert labelled.name == "adversarial_error"
    assert labelled.attrs == {"long_name": "adversarial error", "units": "1"}
    plain = adversarial_error(R.values[:, None], b.values, mixture, 0.5)
    np.testing.assert_array_equal(labelled.values, plain)
    curve = robustness_curve(R, b, mixture, [0.0, 0.5])
    assert curve.dims == ("training", "run", "epsilon")
    np.testing.assert_array_equal(curve.sel(epsilon=0.5), labelled)


def test_the_curve_keeps_the_training_epsilon_apart_and_says_what_made_it() -> None:
    R = xr.DataArray([0.1, 0.5], dims="epsilon", coords={"epsilon": [0.0, 1.0]})
    curve = robustness_curve(R, 0.0, GaussianMixture(), [0.0, 0.3, 0.6])
    assert curve.dims == ("training_epsilon", "epsilon")
    assert curve.sizes == {"training_epsilon": 2, "epsilon": 3}
    assert "robustness_curve" in curve.attrs["configuration"]


@pytest.mark.parametrize("epsilon", [[1.0, 0.5], [[0.0, 1.0]], [0.0, np.nan], [-1.0, 0.0]])
def test_bad_grids_of_epsilon(epsilon: object) -> None:
    with pytest.raises(ValueError, match="epsilon"):
        robustness_curve(0.5, 0.0, GaussianMixture(), epsilon)


def test_bad_overlap_and_epsilon() -> None:
    with pytest.raises(ValueError, match=r"R = 1\.5"):
        classification_error([0.0, -1.5], 0.0, GaussianMixture())
    with pytest.raises(ValueError, match=r"epsilon = -0\.5"):
        adversarial_error(0.5, 0.0, GaussianMixture(), [0.0, -0.5])


def test_swept_parameters_are_those_of_each_point() -> None:
    over = {"rho": [1.0, 2.0, 4.0], "p": [0.5, 0.7]}
    swept = sweep(GaussianMixture(), LearningRule(), Adversary(1.0), over=over, alpha=[100.0]).isel(alpha=0)
    curve = robustness_curve(swept.R, swept.b, GaussianMixture(), [0.0, 1.0])
    np.testing.assert_allclose(curve.sel(epsilon=1.0), swept.adversarial_error.transpose(*curve.dims[:-1]), rtol=1e-14)
    np.testing.assert_allclose(classification_error(swept.R, swept.b, GaussianMixture()), swept.error, rtol=1e-14)
    one = swept.sel(rho=4.0, p=0.5)
    right = float(one.adversarial_error)
    assert float(adversarial_error(one.R, one.b, GaussianMixture(), 1.0)) == pytest.approx(right, rel=1e-14)
    assert adversarial_error(float(one.R), float(one.b), GaussianMixture(), 1.0) > 2 * right  # the mixture's rho = 2
    assert float(robustness_curve(one.R, one.b, GaussianMixture()).epsilon[-1]) == 4.0


def test_free_weights_need_their_length() -> None:
    mixture, rule = GaussianMixture(), LearningRule(normalised=False)
    final = integrate(mixture, rule, Adversary(1.0), alpha=[50.0]).isel(alpha=0)
    right = adversarial_error(final.R, final.b, mixture, 1.0, Q=final.Q)
    assert float(right) == pytest.approx(float(final.adversarial_error), rel=1e-14)
    assert float(classification_error(final.R, final.b, mixture, Q=final.Q)) == pytest.approx(float(final.error))
    assert float(robustness_curve(final.R, final.b, mixture, [1.0], Q=final.Q)[0]) == pytest.approx(float(right))
    numbers = float(final.R), float(final.b)
    assert adversarial_error(*numbers, mixture, 1.0, Q=float(final.Q)) == pytest.approx(float(right))
    assert adversarial_error(*numbers, mixture, 1.0) > float(right) + 0.2  # what R and b alone would say
    with pytest.raises(ValueError, match="Q = None: R is of weights that are not normalised"):
        adversarial_error(final.R, final.b, mixture, 1.0)
    with pytest.raises(ValueError, match=r"R / sqrt\(Q\) = 2\.0"):
        classification_error(1.0, 0.0, mixture, Q=0.25)
    with pytest.raises(ValueError, match=r"Q = 0\.0 is out of range: allowed is a finite number > 0"):
        classification_error(0.0, 0.0, mixture, Q=0.0)


def test_every_argument_brings_its_parameters() -> None:
    # b alone may carry what its classifiers are of; a result must not be evaluated with other parameters than its own
    over = {"rho": [1.0, 4.0], "p": [0.3, 0.5]}
    swept = sweep(GaussianMixture(), LearningRule(), Adversary(1.0), over=over, alpha=[100.0]).isel(alpha=0)
    own = classification_error(swept.R, swept.b, GaussianMixture())
    bare = xr.DataArray(swept.R.values, dims=swept.R.dims)
    np.testing.assert_array_equal(classification_error(bare, swept.b, GaussianMixture()), own)
    one = swept.isel(rho=0, p=0)
    assert float(classification_error(float(one.R), one.b, GaussianMixture())) == float(own[0, 0])
    assert float(robustness_curve(1.0, swept.b, GaussianMixture()).epsilon[-1]) == 4.0
    with pytest.raises(ValueError, match="different coordinates 'rho'"):
        classification_error(swept.R, swept.b.assign_coords(rho=[1.0, 3.0]), GaussianMixture())
    with pytest.raises(ValueError, match="different coordinates"):
        classification_error(swept.R, one.b, GaussianMixture())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("0", 0.0), "R = '0' is not a number"),
        ((0.5, None), "b = None is not a number"),
        ((0.5, [0.0, 1.0, 2.0], [0.5, 0.5]), "do not broadcast together"),
        ((0.5, 0.0, np.inf), r"Q = inf is out of range"),
        ((1.5, 0.0), r"R = 1\.5 is out of range"),
    ],
)
def test_bad_states(arguments: tuple[object, ...], message: str) -> None:
    R, b, *Q = arguments
    options = {"Q": Q[0]} if Q else {}
    with pytest.raises((TypeError, ValueError), match=message):
        classification_error(R, b, GaussianMixture(), **options)


def test_the_robustness_of_a_result_has_its_points_and_a_perceptron_s_is_its_curve() -> None:
    mixture, over = GaussianMixture(0.7), {"rho": [1.0, 2.0], "epsilon": [0.0, 0.5]}
    result = sweep(mixture, LearningRule(), Adversary(), over=over, alpha=[1.0, 10.0])
    found = robustness(result, mixture, [0.0, 0.3, 0.6])
    curve = robustness_curve(result.R, result.b, mixture, [0.0, 0.3, 0.6])
    assert found.adversarial_error.dims == curve.dims
    np.testing.assert_array_equal(found.adversarial_error, curve)
    np.testing.assert_array_equal(found.error.values, result.error.values)


@pytest.mark.slow
def test_the_robustness_of_two_layers_is_that_of_its_result_and_rises() -> None:
    network, mixture = Committee(hidden=2), GaussianMixture(0.7, 2.0, 1.0, 0.8)
    start = {"M": [0.5, 0.1], "Q": [[1.2, 0.3], [0.3, 0.8]], "c": [1.0, 0.8], "theta": [0.1, -0.2], "b": 0.05}
    found = robustness(start, mixture, [0.0, 0.3, 0.6], network=network)
    # check values of section 5.5 of the theory
    assert float(found.error) == pytest.approx(0.329642, abs=1e-6)
    assert float(found.fgsm_error[1]) == pytest.approx(0.447663, abs=1e-6)
    assert float(found.adversarial_error[1]) == pytest.approx(0.448088, abs=1e-6)
    assert found.adversarial_error[0] == pytest.approx(float(found.error), abs=1e-6)
    assert np.all(np.diff(found.adversarial_error) > 0)


def test_bad_input_of_robustness_is_named() -> None:
    with pytest.raises(TypeError, match="state has no b: allowed for the perceptron are R, b"):
        robustness({"R": 0.5}, GaussianMixture())
    with pytest.raises(ValueError, match=r"M has shape \(3,\): allowed is an array of shape \(2,\), of unit"):
        robustness(
            {"M": [1, 2, 3], "Q": np.eye(2), "c": [1, 1], "theta": [0, 0], "b": 0},
            GaussianMixture(),
            network=Committee(2),
        )
    with pytest.raises(ValueError, match="is not a grid: allowed are increasing finite numbers >= 0"):
        robustness({"R": 0.5, "b": 0.0}, GaussianMixture(), [0.3, 0.1])
