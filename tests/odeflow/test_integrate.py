"""The seed model's dynamics: reference values, limits, symmetries, labels, bad input."""

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from odeflow import Adversary, GaussianMixture, IntegrationError, LearningRule, integrate, integrate_batch
from odeflow.order_parameters.perceptron.seed import rates

ALPHA = np.linspace(0, 100, 11)


@pytest.mark.parametrize(
    ("p", "R", "b", "E", "S"),
    [
        (0.5, 0.98022303, 0.0, 0.16348802, 0.50788935),
        (0.7, 0.77746940, -2.18974334, 0.27737140, 0.31482754),
    ],
)
def test_reference_values_of_the_scenarios(p: float, R: float, b: float, E: float, S: float) -> None:
    final = integrate(GaussianMixture(p=p), LearningRule(), Adversary(1.0), alpha=[100.0]).isel(alpha=0)
    assert float(final.R) == pytest.approx(R, abs=1e-8)
    assert float(final.b) == pytest.approx(b, abs=1e-8)
    assert float(final.error) == pytest.approx(E, abs=1e-8)
    assert float(final.adversarial_error) == pytest.approx(S, abs=1e-8)


@given(
    p=st.floats(0.05, 0.95),
    rho=st.floats(0, 6),
    v1=st.floats(0.05, 4),
    v2=st.floats(0.05, 4),
    epsilon=st.floats(0, 3),
    R=st.floats(-1, 1),
    b=st.floats(-3, 3),
    second_order=st.booleans(),
)
def test_the_solver_moves_along_the_rates(
    p: float, rho: float, v1: float, v2: float, epsilon: float, R: float, b: float, second_order: bool
) -> None:
    mixture, adversary = GaussianMixture(p, rho, v1, v2), Adversary(epsilon)
    rule = LearningRule(0.7, 0.9, second_order)
    h = 1e-3  # mixed derivative formula: error of order h^2 times the third derivative
    y = integrate(mixture, rule, adversary, alpha=[h, 2 * h], R0=R, b0=b, rtol=1e-12, atol=1e-14)
    for values, start, rate in zip((y.R, y.b), (R, b), rates(R, b, mixture, rule, adversary), strict=True):
        slope = (-3 * start + 4 * float(values[0]) - float(values[1])) / (2 * h)
        assert slope == pytest.approx(float(rate), abs=2e-4)


@given(
    p=st.floats(0.05, 0.95), v1=st.floats(0.1, 3), v2=st.floats(0.1, 3), epsilon=st.floats(0, 1), b0=st.floats(-2, 2)
)
def test_swapping_the_classes_turns_the_bias_round(p: float, v1: float, v2: float, epsilon: float, b0: float) -> None:
    one = integrate_batch(alpha=ALPHA, p=p, v1=v1, v2=v2, epsilon=epsilon, b0=b0).y[0]
    other = integrate_batch(alpha=ALPHA, p=1 - p, v1=v2, v2=v1, epsilon=epsilon, b0=-b0).y[0]
    np.testing.assert_allclose(other[:, 0], one[:, 0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(other[:, 1], -one[:, 1], rtol=1e-6, atol=1e-8)


@given(rho=st.floats(0, 5), epsilon=st.floats(0, 3), eta_b=st.floats(0.01, 3))
def test_equal_classes_keep_the_bias_at_zero(rho: float, epsilon: float, eta_b: float) -> None:
    y = integrate_batch(alpha=ALPHA, rho=rho, epsilon=epsilon, eta_b=eta_b).y
    assert np.all(y[..., 1] == 0)


@given(p=st.floats(0.1, 0.9), rho=st.floats(0.1, 4), epsilon=st.floats(0, 2), R0=st.floats(-0.9, 0.9))
def test_without_the_second_order_term_the_overlap_only_grows(p: float, rho: float, epsilon: float, R0: float) -> None:
    R = integrate_batch(alpha=ALPHA, p=p, rho=rho, epsilon=epsilon, R0=R0, second_order=False).y[0, :, 0]
    assert np.all(np.diff(R) >= -1e-8)
    assert np.all(R <= 1 + 1e-8)


def test_without_separation_there_is_nothing_to_learn() -> None:
    y = integrate_batch(alpha=ALPHA, rho=0.0, R0=0.5, second_order=[False, True]).y[..., 0]
    np.testing.assert_allclose(y[0], 0.5)  # the small-rate limit keeps R
    assert np.all(np.diff(y[1]) < 0)  # noise makes it forget


def test_small_learning_rates_approach_the_limit_linearly() -> None:
    # at fixed eta * alpha, the second-order term is a correction of relative size eta_w
    gaps = []
    for eta in (0.04, 0.02, 0.01):
        full, limit = (
            integrate_batch(alpha=[4 / eta], eta_w=eta, eta_b=eta, p=0.7, epsilon=0.5, second_order=second).y[0, 0, 0]
            for second in (True, False)
        )
        gaps.append(limit - full)
    assert gaps[0] / gaps[1] == pytest.approx(2, abs=0.1)
    assert gaps[1] / gaps[2] == pytest.approx(2, abs=0.1)


def test_a_bias_that_runs_away_is_a_result() -> None:
    final = integrate(GaussianMixture(p=0.9), LearningRule(), Adversary(3.0), alpha=[1e4, 2e4])
    assert int(final.status) == 0
    assert float(final.b[1]) < float(final.b[0]) < -4
    assert float(final.error[1]) == pytest.approx(0.1, abs=1e-3)  # the constant majority label


def test_the_result_is_labelled() -> None:
    alpha = np.array([0.0, 0.1, 7.0])
    result = integrate(
        GaussianMixture(p=0.6), LearningRule(), Adversary(0.3), alpha=alpha, R0=0.2, b0=-0.1, test_epsilon=0.8
    )
    assert result.sizes == {"alpha": 3}
    np.testing.assert_array_equal(result.alpha, alpha)
    assert (float(result.R[0]), float(result.b[0])) == (0.2, -0.1)
    assert float(result.p) == 0.6
    assert float(result.epsilon) == 0.3
    assert float(result.test_epsilon) == 0.8
    for variable in result.variables.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"] == "1"
    configuration = json.loads(result.attrs["configuration"])
    assert configuration["mixture"] == {"p": 0.6, "rho": 2.0, "v1": 1.0, "v2": 1.0}
    attack = {"attack": "fgsm", "attack_steps": 10, "attack_step": 0.25, "epsilon_ratio": 1.0, "clean_weight": 0.0}
    assert configuration["adversary"] == {"epsilon": 0.3, "fraction": 1.0, "law": None, "norm": "l2", **attack}
    assert configuration["options"]["rtol"] == 1e-8


def test_a_batch_broadcasts_in_c_order() -> None:
    epsilon, p = np.array([0.0, 0.5]), np.array([[0.3], [0.5], [0.7]])
    y = integrate_batch(alpha=[10.0], epsilon=epsilon, p=p).y
    assert y.shape == (6, 1, 2)
    single = integrate_batch(alpha=[10.0], epsilon=0.5, p=0.5).y
    np.testing.assert_array_equal(y[3], single[0])


def test_a_failure_raises_with_advice_or_is_returned() -> None:
    arguments = (GaussianMixture(), LearningRule(), Adversary())
    with pytest.raises(IntegrationError, match="raise max_steps"):
        integrate(*arguments, alpha=[1.0, 100.0], max_steps=3)
    result = integrate(*arguments, alpha=[0.0, 100.0], max_steps=3, on_failure="return")
    assert int(result.status) == 1
    assert "max_steps" in result.status.attrs["meaning"]
    assert np.isnan(result.R.values).tolist() == [False, True]


BAD: list[tuple[type[Exception], str, dict[str, Any]]] = [
    (ValueError, "alpha goes from 2.0 to 1.0", {"alpha": [0.0, 2.0, 1.0]}),
    (ValueError, "alpha goes from 1.0 to 1.0", {"alpha": [1.0, 1.0]}),
    (ValueError, "alpha contains .*-1.0", {"alpha": [-1.0, 1.0]}),
    (ValueError, "alpha contains .*nan", {"alpha": [0.0, math.nan]}),
    (ValueError, "at least one", {"alpha": []}),
    (ValueError, "shape", {"alpha": [[1.0, 2.0]]}),
    (TypeError, "alpha", {"alpha": "soon"}),
    (ValueError, "R0 = 1.5", {"alpha": [1.0], "R0": 1.5}),
    (ValueError, "b0 = inf", {"alpha": [1.0], "b0": math.inf}),
    (ValueError, "rtol = 0.0", {"alpha": [1.0], "rtol": 0.0}),
    (ValueError, "atol = -1.0", {"alpha": [1.0], "atol": -1.0}),
    (ValueError, "test_epsilon = -0.1", {"alpha": [1.0], "test_epsilon": -0.1}),
    (ValueError, "max_steps = 0", {"alpha": [1.0], "max_steps": 0}),
    (ValueError, "on_failure = 'ignore'", {"alpha": [1.0], "on_failure": "ignore"}),
]


@pytest.mark.parametrize(("kind", "message", "options"), BAD)
def test_bad_input_names_itself(kind: type[Exception], message: str, options: dict[str, Any]) -> None:
    with pytest.raises(kind, match=message):
        integrate(GaussianMixture(), LearningRule(), Adversary(), **options)


@pytest.mark.parametrize(
    ("kind", "message", "model"),
    [
        (ValueError, r"p = .*1\.2.*\(0, 1\)", {"p": [0.5, 1.2]}),
        (ValueError, "v1 = ", {"v1": 0.0}),
        (ValueError, "epsilon = .*nan", {"epsilon": [0.0, math.nan]}),
        (ValueError, "R0 = ", {"R0": [-2.0]}),
        (ValueError, "R0 = .*sqrt", {"R0": [-2.0], "Q0": 3.0, "normalised": False}),
        (ValueError, "Q0 = 2.0", {"Q0": 2.0}),
        (ValueError, "fraction = 1.5", {"fraction": 1.5}),
        (ValueError, "loss = 'cubic' is unknown: allowed is one of squared", {"loss": "cubic"}),
        (TypeError, "'sigma' is not a parameter", {"sigma": 1.0}),
        (TypeError, "rho = 'far' is not a number", {"rho": "far"}),
        (ValueError, r"shapes \{'p': \(2,\), 'rho': \(3,\)\} do not broadcast", {"p": [0.3, 0.5], "rho": [1, 2, 3]}),
    ],
)
def test_bad_batches_name_the_first_bad_value(kind: type[Exception], message: str, model: dict[str, Any]) -> None:
    with pytest.raises(kind, match=message):
        integrate_batch(alpha=[1.0], **model)


def test_parts_in_the_wrong_order() -> None:
    with pytest.raises(TypeError, match=r"mixture = Adversary.* allowed is a GaussianMixture"):
        integrate(Adversary(), LearningRule(), GaussianMixture(), alpha=[1.0])  # type: ignore[arg-type]
