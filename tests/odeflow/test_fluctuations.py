"""Around a trajectory: fluctuations at finite N against simulation, derivatives against differences."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import xarray as xr
from numba import njit

from odeflow import (
    Adversary,
    Committee,
    GaussianMixture,
    LearningRule,
    Schedule,
    fixed_points,
    integrate,
    jacobian,
    load,
    rates,
    save,
    simulate,
)
from odeflow.laws import Uniform
from odeflow.order_parameters.perceptron.expansion import moments as kernel
from odeflow.order_parameters.perceptron.expansion.point import WORK, linearise, point_of, prepare
from odeflow.order_parameters.perceptron.reference import _averages
from odeflow.order_parameters.perceptron.variant_averages import update_factor
from odeflow.plot import plot

SCENARIO_2 = GaussianMixture(p=0.7), LearningRule(), Adversary(1.0)
STRONG = GaussianMixture(0.6, 3.0, 0.7, 1.5), LearningRule(eta_w=1.0, eta_b=0.6), Adversary(0.7)
FREE = (
    GaussianMixture(0.6, 2.0, 0.8, 1.3),
    LearningRule(eta_w=0.7, eta_b=0.5, loss="logistic", activation="linear", normalised=False),
    Adversary(0.5, fraction=0.8),
)


def matrix(result: xr.Dataset) -> np.ndarray[Any, Any]:
    return np.asarray(result.covariance[-1].values)


def test_the_covariance_of_scenario_2_is_the_known_one() -> None:
    result = integrate(*SCENARIO_2, alpha=[100.0], fluctuations=True)
    assert result.covariance.dims == ("alpha", "order_parameter", "other")
    assert matrix(result).ravel() == pytest.approx([0.043126, 0.124947, 0.124947, 0.492139], abs=1e-6)
    assert "R_sd" not in result


def test_standard_deviations_belong_to_the_covariance(tmp_path: Any) -> None:
    result = integrate(*SCENARIO_2, alpha=[0.0, 50.0, 100.0], fluctuations=True, N=400)
    assert float(result.R_sd[-1]) == pytest.approx(np.sqrt(0.043126 / 400), rel=1e-4)
    assert float(result.b_mean[-1]) == pytest.approx(float(result.b[-1] + result.mean_correction[-1, 1] / 400))
    assert [float(result[name][0]) for name in ("R_sd", "b_sd", "error_sd")] == [0, 0, 0]
    gradient = [
        float(integrate(*SCENARIO_2, alpha=[0.0], R0=R, b0=b).adversarial_error[0])
        for R, b in near(float(result.R[-1]), float(result.b[-1]))
    ]
    slopes = np.array([gradient[0] - gradient[1], gradient[2] - gradient[3]]) / 2e-5
    assert float(result.adversarial_error_sd[-1]) == pytest.approx(
        np.sqrt(slopes @ matrix(result) @ slopes / 400), rel=1e-6
    )
    kept = load(save(result, tmp_path / "run.nc"))
    assert kept.equals(result)
    assert all(kept[name].attrs["long_name"] for name in kept.data_vars)


def near(R: float, b: float) -> list[tuple[float, float]]:
    return [(R + 1e-5, b), (R - 1e-5, b), (R, b + 1e-5), (R, b - 1e-5)]


def compared(parts: Any, N: int, runs: int, alpha: float, **start: Any) -> tuple[Any, Any, Any, Any]:
    """Return variances over runs in units of theory's, N times the mean's distance, its standard error, and theory's."""
    theory = integrate(*parts, alpha=[alpha], fluctuations=True, N=N, **start)
    run = simulate(*parts, N=N, alpha=[alpha], runs=runs, rng=1, **start)
    names = theory.order_parameter.values.tolist()
    values = np.stack([run[name].values[:, 0] for name in names], axis=1)
    variances = N * values.var(axis=0, ddof=1)
    at = np.array([float(theory[name][0]) for name in names])
    ratios = variances / np.diag(matrix(theory))
    errors = run.adversarial_error.values[:, 0]
    ratios = np.append(ratios, errors.var(ddof=1) / float(theory.adversarial_error_sd[0]) ** 2)
    found = np.append(N * (values.mean(axis=0) - at), N * (errors.mean() - float(theory.adversarial_error[0])))
    expected = np.append(
        theory.mean_correction[-1].values, N * float(theory.adversarial_error_mean[0] - theory.adversarial_error[0])
    )
    return ratios, found, np.sqrt(N * np.append(variances, N * errors.var()) / runs), expected


@pytest.mark.slow
@pytest.mark.parametrize("parts", [STRONG, FREE], ids=["normalised", "free"])
def test_runs_fluctuate_as_theory_says(parts: Any) -> None:
    ratios, found, error, expected = compared(parts, 100, 40_000, 3.0, R0=0.2, b0=0.3)
    assert ratios == pytest.approx(1, abs=0.06)
    assert np.all(np.abs(found - expected) < 4 * error + 0.05 * np.abs(expected))
    assert np.any(np.abs(found) > 4.5 * error)  # the mean's correction is seen: without it the line above fails


@pytest.mark.whole
@pytest.mark.parametrize("N", [100, 1000])
@pytest.mark.parametrize("parts", [STRONG, FREE], ids=["normalised", "free"])
def test_variances_agree_within_three_percent(parts: Any, N: int) -> None:
    ratios, found, error, expected = compared(parts, N, 100_000, 5.0, R0=0.2, b0=0.3)
    assert ratios == pytest.approx(1, abs=0.03)
    assert np.all(np.abs(found - expected) < 4 * error + 0.05 * np.abs(expected))


def derivative_by(name: str, parts: Any, start: dict[str, Any], alpha: float) -> dict[str, float]:
    """Return derivatives by central differences of integrations."""
    step = 1e-4

    def at(by: float) -> xr.Dataset:
        moved: Any = [
            replace(part, **{name: getattr(part, name) + by}) if hasattr(part, name) else part for part in parts
        ]
        begin: dict[str, Any] = {key: value + by if key == name else value for key, value in start.items()}
        return integrate(*moved, alpha=[alpha], rtol=1e-12, atol=1e-14, **begin)

    high, low = at(step), at(-step)
    return {str(key): float(high[key][-1] - low[key][-1]) / (2 * step) for key in high.data_vars if key != "status"}


@pytest.mark.parametrize(
    ("parts", "start"),
    [
        ((GaussianMixture(0.6, 2.0, 0.8, 1.3), LearningRule(0.2), Adversary(0.5)), {"R0": 0.1, "b0": 0.2}),
        (
            (GaussianMixture(0.6, 2.0, 0.8, 1.3), LearningRule(0.4, loss="hinge", activation="linear"), Adversary(0.5, 0.6, Uniform(0.5, 1.5))),
            {"R0": 0.1, "b0": 0.2},
        ),
        (FREE, {"R0": 0.1, "b0": 0.2, "Q0": 0.7}),
    ],
    ids=["seed", "hinge", "free"],
)  # fmt: skip
def test_sensitivities_are_derivatives(parts: Any, start: dict[str, Any]) -> None:
    names = ["p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", *start]
    names += ["fraction"] if parts[2].fraction < 1 else []
    result = integrate(*parts, alpha=[0.0, 12.0], sensitivities=names, **start)
    for name in names:
        expected = derivative_by(name, parts, start, 12.0)
        found = {key: float(result[f"{key}_derivative"].sel(parameter=name)[-1]) for key in expected}
        assert found == pytest.approx(expected, rel=2e-6, abs=2e-7), name


def test_the_clean_examples_count_at_a_fraction_of_one() -> None:
    parts = (GaussianMixture(0.7), LearningRule(), Adversary(1.0))
    alone = integrate(*parts, alpha=[20.0], sensitivities=["fraction"])
    low, lower = (integrate(*parts[:2], Adversary(1.0, fraction=1 - h), alpha=[20.0]) for h in (1e-4, 2e-4))
    expected = float(3 * alone.R[0] - 4 * low.R[0] + lower.R[0]) / 2e-4
    assert float(alone.R_derivative[0, 0]) == pytest.approx(expected, rel=1e-5)


def test_a_given_test_epsilon_does_not_move_with_the_training_s() -> None:
    moving = integrate(*SCENARIO_2, alpha=[20.0], sensitivities="epsilon")
    fixed = integrate(*SCENARIO_2, alpha=[20.0], sensitivities="epsilon", test_epsilon=1.0)
    margin = derivative_by("epsilon", SCENARIO_2, {}, 20.0)["adversarial_error"]
    assert float(moving.adversarial_error_derivative[0, 0]) == pytest.approx(margin, rel=1e-6)
    assert float(fixed.adversarial_error_derivative[0, 0]) < 0 < float(moving.adversarial_error_derivative[0, 0]) + 1


def test_a_schedule_that_hardly_changes_is_a_constant() -> None:
    mixture, rule, _ = STRONG
    start: dict[str, Any] = {"R0": 0.2, "b0": 0.3}
    constant = integrate(mixture, rule, Adversary(0.7), alpha=[0.0, 6.0], fluctuations=True, **start)
    for schedule in (Schedule.linear({0: 0.7, 6: 0.7 + 1e-9}), Schedule.steps({0: 0.7, 3: 0.7})):
        result = integrate(mixture, rule, Adversary(schedule), alpha=[0.0, 6.0], fluctuations=True, **start)
        for name in ("covariance", "mean_correction"):
            assert result[name].values == pytest.approx(constant[name].values, abs=1e-7)


@pytest.mark.slow
def test_fixed_points_move_as_the_implicit_function_says() -> None:
    names = ["p", "rho", "v2", "epsilon", "eta_w", "eta_b"]
    parts = (GaussianMixture(0.6, 2.0, 1.0, 1.2), LearningRule(), Adversary(0.8))
    points = fixed_points(*parts, sensitivities=names)
    assert points.sizes["fixed_point"] >= 1
    for name in names:
        step = 1e-5

        def at(by: float, name: str = name) -> xr.Dataset:
            moved: Any = [replace(x, **{name: getattr(x, name) + by}) if hasattr(x, name) else x for x in parts]
            return fixed_points(*moved)

        high, low = at(step), at(-step)
        for key in ("R", "b", "error", "adversarial_error"):
            expected = (high[key] - low[key]).values / (2 * step)
            assert points[f"{key}_derivative"].sel(parameter=name).values == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_what_is_not_derived_is_refused_in_one_sentence() -> None:
    mixture, rule, adversary = SCENARIO_2
    with pytest.raises(ValueError, match="not derived for the committee: allowed is network=Perceptron"):
        integrate(mixture, LearningRule(), adversary, alpha=[1.0], network=Committee(hidden=2), fluctuations=True)
    with pytest.raises(ValueError, match=r"sensitivities has 'Rho': allowed are p, rho, .*R0, b0$"):
        integrate(*SCENARIO_2, alpha=[1.0], sensitivities=["Rho"])
    with pytest.raises(ValueError, match=r"sensitivities has 'Q0'"):
        integrate(*SCENARIO_2, alpha=[1.0], sensitivities=["Q0"])
    with pytest.raises(ValueError, match="N = 100 has no meaning without fluctuations=True"):
        integrate(*SCENARIO_2, alpha=[1.0], N=100)
    with pytest.raises(TypeError, match="fluctuations = 1 is not a bool"):
        integrate(*SCENARIO_2, alpha=[1.0], fluctuations=1)  # type: ignore[arg-type]
    ramp = Adversary(Schedule((0.0, 1.0, 2.0), ((0.0, 1.0), (0.5, 0.0))))
    with pytest.raises(ValueError, match="a schedule jumps where one changes continuously"):
        integrate(mixture, rule, ramp, alpha=[1.0], fluctuations=True)
    with pytest.raises(ValueError, match="sensitivities has 'R0': allowed are p, rho"):
        fixed_points(*SCENARIO_2, sensitivities=["R0"])


def test_a_picture_has_the_band(tmp_path: Any) -> None:
    result = integrate(*SCENARIO_2, alpha=np.linspace(0, 20, 21), fluctuations=True, N=100)
    figure = plot(result)
    panel = figure.axes[0]
    [band] = panel.collections
    heights = np.asarray(band.get_paths()[0].vertices)[:, 1]
    assert heights.max() == pytest.approx(float((result.R_mean + result.R_sd).max()))
    assert any("N=100" in text.get_text() for legend in figure.legends for text in legend.get_texts())


@njit
def _at(point: Any, state: Any, epsilon: Any, eta_w: Any, eta_b: Any, work: Any, f: Any, J: Any, by: Any) -> None:
    prepare(point, work)
    linearise(point, state, epsilon, eta_w, eta_b, work, f, J, by)


@pytest.mark.slow
@pytest.mark.parametrize("normalised", [True, False])
def test_a_point_for_compiled_callers(normalised: bool) -> None:
    rule = LearningRule(0.3, 0.4, normalised=normalised)
    mixture, state = GaussianMixture(0.7, 2.0, 0.8, 1.4), np.array([0.5, 0.3, 1.7])[: 2 if normalised else 3]
    point = point_of(mixture, rule, Adversary(0.2))
    n = len(state)

    def found(epsilon: float, eta_w: float, eta_b: float) -> tuple[Any, Any, Any]:
        out = np.zeros(n), np.zeros((n, n)), np.zeros((n, 3))
        _at(point, state, epsilon, eta_w, eta_b, np.zeros(WORK), *out)
        return out

    now = np.array([0.6, 0.25, 0.35])
    f, J, by = found(*now)
    Q = {} if normalised else {"Q": state[2]}
    parts = mixture, replace(rule, eta_w=0.25, eta_b=0.35), Adversary(0.6)
    assert f == pytest.approx(np.array(rates(state[0], state[1], *parts, **Q)), abs=1e-14)
    assert pytest.approx(jacobian(state[0], state[1], *parts, **Q), abs=1e-13) == J
    for k, step in enumerate(np.eye(3) * 1e-5):
        expected = (found(*(now + step))[0] - found(*(now - step))[0]) / 2e-5
        assert by[:, k] == pytest.approx(expected, abs=1e-9)


@njit
def _moments(how: Any, x: Any) -> None:
    kernel.erf_constants(x, kernel.VARIANCE, kernel.ROWS, 0, 1, 1)
    kernel.moments(how, x, kernel.ROWS, 5, 4, True, 1)


@pytest.mark.slow
@pytest.mark.parametrize("update", ["all", "non_robust"])
@pytest.mark.parametrize(
    "kind",
    [("erf", "squared"), ("erf", "hinge"), ("erf", "logistic"), ("tanh", "squared"), ("linear", "squared"), ("linear", "hinge"), ("linear", "logistic"), ("sign", "squared")],
)  # fmt: skip
def test_moments_are_averages_of_powers(kind: tuple[Any, Any], update: Any) -> None:
    rule = LearningRule(activation=kind[0], loss=kind[1], update=update)
    for v in (0.1, 1.0, 6.0):
        m = np.linspace(-2.5, 2.5, 9) * np.sqrt(1 + v)
        expected = [_averages(rule, m, np.full(9, v), power=power) for power in (1, 2, 3, 4)]
        found = np.empty((9, 14))
        for i in range(9):
            x = np.zeros(kernel.ROWS + kernel.ERF_ROWS)
            x[kernel.MEAN], x[kernel.VARIANCE] = m[i], v
            _moments(update_factor(rule), x)
            found[i] = x[kernel.D1 : kernel.D1 + 14]
        for k, (row, orders, tolerance) in enumerate(((0, 4, 1e-9), (6, 4, 1e-9), (11, 2, 1e-6), (13, 1, 1e-5))):
            for order in range(orders):
                reference = expected[k][order]
                # a straight line has derivatives that are 0: relative to its own size
                scale = max(np.max(np.abs(reference)), np.max(np.abs(expected[k][0])) / (1 + v) ** (order / 2))
                assert np.max(np.abs(found[:, row + order] - reference)) < tolerance * scale
