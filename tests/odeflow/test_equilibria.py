"""Fixed points: all of them, where the flow rests, with the stability that the flow has."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, integrate_batch, load, save
from odeflow.fixed_points.equilibria import FixedPoints, fixed_points, fixed_points_batch, jacobian
from odeflow.fixed_points.relaxation import end_states_batch, learning_time, relaxation_time
from odeflow.order_parameters.perceptron import forces
from odeflow.order_parameters.perceptron.averages import delta, delta_derivative, delta_squared
from odeflow.order_parameters.perceptron.reference import rates

RULE = LearningRule()
LIMIT = LearningRule(second_order=False)


def random_model(count: int, seed: int, **fixed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    model: dict[str, Any] = {
        "p": rng.uniform(0.1, 0.9, count),
        "rho": rng.uniform(0.1, 5, count),
        "v1": rng.uniform(0.1, 3, count),
        "v2": rng.uniform(0.1, 3, count),
        "eta_w": 10 ** rng.uniform(-2, 0.5, count),
        "eta_b": 10 ** rng.uniform(-2, 0, count),
        "epsilon": rng.uniform(0, 4, count),
    }
    return model | fixed


def parts(model: dict[str, Any], i: int) -> tuple[GaussianMixture, LearningRule, Adversary]:
    at = {name: float(np.broadcast_to(value, len(model["p"]))[i]) for name, value in model.items()}
    return (
        GaussianMixture(at["p"], at["rho"], at["v1"], at["v2"]),
        LearningRule(at["eta_w"], at["eta_b"]),
        Adversary(at["epsilon"]),
    )


# The forces in logarithms


@pytest.mark.parametrize("v", [0.05, 1.0, 8.0])
def test_the_forces_are_the_averages(v: float) -> None:
    u = np.linspace(-12, 12, 97)
    np.testing.assert_allclose(np.exp(forces.log_force(u, v)), delta(u, v, 1.0), rtol=1e-12)
    np.testing.assert_allclose(
        forces.slope(u, v) * delta(u, v, 1.0), delta_derivative(u, v, 1.0), rtol=1e-11, atol=1e-300
    )
    ratio = v * delta_squared(u, v, 1.0) / delta(u, v, 1.0)
    np.testing.assert_allclose(forces.noise_ratio(u, v), ratio, rtol=1e-11, atol=1e-300)
    assert np.max(forces.noise_ratio(u, v)) < 1.3776 * v


def test_the_log_force_where_the_force_is_no_float() -> None:
    """Values of ln D1 and its two derivatives computed with 50 digits."""
    expected = {
        (-1e3, 1.0): (-333333.06871005945, 666.6666666666666, -0.6666666666666666),
        (-3.0, 0.2): (-5.786648384761662, 4.275684065373144, -1.4525535108942371),
        (0.7, 2.0): (-0.9067294921725497, -0.46850229020333584, -0.42966859771668775),
        (25.0, 1.0): (-252.8773992353194, -20.039093000621364, -0.798504931435456),
        (1e3, 0.5): (-666673.4767015065, -1333.3343333273335, -1.333332333351333),
    }
    for (u, v), values in expected.items():
        found = [float(function(u, v)) for function in (forces.log_force, forces.slope, forces.curvature)]
        np.testing.assert_allclose(found, values, rtol=1e-9)


def test_the_slope_of_the_noise_is_its_derivative() -> None:
    u, h = np.linspace(-5, 5, 41), 1e-5
    for v in (0.1, 1.0, 4.0):
        numeric = (delta_squared(u + h, v, 1.0) - delta_squared(u - h, v, 1.0)) / (2 * h)
        np.testing.assert_allclose(forces.noise_slope(u, v) * delta_squared(u, v, 1.0), numeric, rtol=1e-7, atol=1e-10)


def test_what_the_proof_uses_holds() -> None:
    """The log-force is concave and its curvature falls: then at most three biases balance at a fixed margin."""
    u = np.linspace(-40, 40, 2001)
    for v in (0.05, 1.0, 10.0):
        bend = forces.curvature(u, v)
        inside = np.abs(u) < 15 * math.sqrt(1 + v)  # beyond, the fall is below rounding
        assert np.all(np.diff(bend[inside]) <= 1e-13)
        assert np.all((bend >= -4 / (1 + 4 * v) - 1e-9) & (bend <= -2 / (1 + 2 * v) + 1e-9))


def test_the_peak_hardly_depends_on_the_variance() -> None:
    assert float(forces.peak(1e-9)) == pytest.approx(-0.357834, abs=1e-5)
    assert float(forces.peak(1e9)) == pytest.approx(-1 / math.sqrt(2 * math.pi), abs=1e-8)
    v = np.geomspace(1e-3, 1e3, 50)
    np.testing.assert_allclose(forces.slope(forces.peak(v), v), 0, atol=1e-14)


def test_the_compiled_formulas_are_the_plain_ones() -> None:
    from odeflow.fixed_points import balance

    for v in (0.05, 0.5, 1.0, 4.0):
        constants = balance.class_constants(v)
        for u in np.linspace(-12, 12, 49):
            expected = [float(f(u, v)) for f in (forces.log_force, forces.slope, forces.curvature)]
            np.testing.assert_allclose(balance.force(u, constants), expected, rtol=1e-12, atol=1e-12)
            ratio, slope = balance.noise(u, constants)
            assert ratio == pytest.approx(float(forces.noise_ratio(u, v)), rel=1e-9, abs=1e-13)
            assert slope * ratio == pytest.approx(float(forces.noise_slope(u, v)) * ratio, rel=1e-9, abs=1e-12)


# Fixed points


def test_the_flow_rests_at_every_fixed_point() -> None:
    model = random_model(300, 1)
    points = fixed_points_batch(**model)
    checked = 0
    for i, j in np.argwhere(np.isfinite(points.R)):
        mixture, rule, adversary = parts(model, i)
        J = jacobian(points.R[i, j], points.b[i, j], mixture, rule, adversary)
        if not abs(np.linalg.det(J)) > 1e-200:
            continue  # so far out that the forces are no floats
        step = np.linalg.solve(J, np.array(rates(points.R[i, j], points.b[i, j], mixture, rule, adversary)))
        assert np.max(np.abs(step)) < 1e-11 * (1 + abs(points.b[i, j]))
        checked += 1
    assert checked > 300


def test_the_jacobian_is_the_derivative_of_the_rates() -> None:
    model = random_model(50, 2)
    rng = np.random.default_rng(3)
    for i in range(50):
        mixture, rule, adversary = parts(model, i)
        R, b, h = rng.uniform(-0.9, 0.9), rng.normal(), 1e-5
        for one in (rule, LearningRule(rule.eta_w, rule.eta_b, second_order=False)):
            J = jacobian(R, b, mixture, one, adversary)
            by_R = np.subtract(rates(R + h, b, mixture, one, adversary), rates(R - h, b, mixture, one, adversary)) / (
                2 * h
            )
            by_b = np.subtract(rates(R, b + h, mixture, one, adversary), rates(R, b - h, mixture, one, adversary)) / (
                2 * h
            )
            np.testing.assert_allclose(J, np.stack([by_R, by_b], axis=1), rtol=1e-6, atol=1e-8)


def test_eigenvalues_are_those_of_the_jacobian() -> None:
    model = random_model(100, 4)
    points = fixed_points_batch(**model)
    for i, j in np.argwhere(np.isfinite(points.R)):
        expected = np.linalg.eigvals(jacobian(points.R[i, j], points.b[i, j], *parts(model, i))).astype(complex)
        scale = np.max(np.abs(expected))
        if scale < 1e-250:
            continue
        found = points.eigenvalues[i, j]
        np.testing.assert_allclose(np.sort_complex(found), np.sort_complex(expected), rtol=1e-8, atol=1e-9 * scale)
        assert found[0].real >= found[1].real


def test_a_long_integration_ends_at_a_stable_fixed_point() -> None:
    model = random_model(400, 5, eta_w=0.1, epsilon=np.random.default_rng(6).uniform(0, 1.5, 400))
    points = fixed_points_batch(**model)
    before, after = np.moveaxis(integrate_batch(**model, alpha=[9e4, 1e5], rtol=1e-10, atol=1e-12).y, 1, 0)
    rested = np.max(np.abs(after - before), axis=1) < 1e-9
    gap = np.maximum(np.abs(points.R - after[:, :1]), np.abs(points.b - after[:, 1:]))
    nearest = np.min(np.where(points.stable, gap, np.inf), axis=1)
    assert rested.sum() > 150
    assert np.max(nearest[rested]) < 1e-7


def test_trajectories_near_a_fixed_point_move_as_its_eigenvalues_say() -> None:
    mixture, adversary = GaussianMixture(p=0.7), Adversary(0.8)
    point = fixed_points(mixture, RULE, adversary)
    values, vectors = np.linalg.eig(jacobian(float(point.R[0]), float(point.b[0]), mixture, RULE, adversary))
    slowest = int(np.argmax(values.real))
    start = np.array([float(point.R[0]), float(point.b[0])]) + 1e-5 * vectors[:, slowest]
    end = integrate(mixture, RULE, adversary, alpha=[20.0], R0=start[0], b0=start[1], rtol=1e-13, atol=1e-15)
    moved = (float(end.R[0]) - float(point.R[0])) / (start[0] - float(point.R[0]))
    assert moved == pytest.approx(math.exp(20 * values[slowest]), rel=1e-4)


def test_the_index_of_the_flow() -> None:
    """On a large circle the far bias comes back (index 1), or leaves on one side (index 0): Poincare and Hopf."""
    for gap, index in ((0.0, 1), (0.2, 1), (0.3, 0), (-0.3, 0)):
        model = random_model(3000, 7)
        model["v1"] = np.maximum(model["v1"], 0.5)
        model["v2"] = model["v1"] + gap
        points = fixed_points_batch(**model)
        sign = np.sign(np.prod(points.eigenvalues, axis=2).real)
        floats = np.all(~np.isfinite(points.R) | (np.abs(points.eigenvalues).min(axis=2) > 1e-140), axis=1)
        assert floats.sum() > 300
        np.testing.assert_array_equal(np.nansum(sign, axis=1)[floats], index)


def test_swapping_the_classes_mirrors_the_bias() -> None:
    model = random_model(500, 8)
    points = fixed_points_batch(**model)
    mirrored = fixed_points_batch(**{**model, "p": 1 - model["p"], "v1": model["v2"], "v2": model["v1"]})
    np.testing.assert_array_equal(points.count, mirrored.count)
    for i, n in enumerate(points.count):
        np.testing.assert_allclose(points.b[i, :n], -mirrored.b[i, :n][::-1], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(points.R[i, :n], mirrored.R[i, :n][::-1], rtol=1e-9)


def test_equal_classes_always_have_the_unbiased_state() -> None:
    points = fixed_points_batch(epsilon=np.linspace(0, 3, 61), eta_w=np.array([0.04, 1.0])[:, None])
    assert np.all(np.any(points.b == 0, axis=1))
    assert set(points.count) == {1, 3}


def test_the_limit_of_small_learning_rates() -> None:
    model = random_model(200, 9, eta_w=1e-7)
    small, limit = fixed_points_batch(**model), fixed_points_batch(**model, second_order=False)
    for i in range(200):
        upper = limit.R[i] == 1
        assert small.count[i] == upper.sum()
        np.testing.assert_allclose(small.b[i, : small.count[i]], limit.b[i, upper], rtol=1e-4, atol=1e-4)
    assert not np.any(limit.stable[limit.R == -1])


def test_without_separation_nothing_is_learnt() -> None:
    points = fixed_points(GaussianMixture(p=0.6, rho=0.0), RULE, Adversary(0.1))
    assert np.all(points.R == 0)
    assert points.sizes["fixed_point"] == 1


@pytest.mark.parametrize(
    ("p", "v"),
    [(0.7, 1.0), (0.6, 0.3)],
)
def test_vanishing_margin_has_a_closed_form(p: float, v: float) -> None:
    from scipy.special import erfinv

    points = fixed_points(GaussianMixture(p=p, v1=v, v2=v), LIMIT, Adversary(1.0))
    expected = -math.sqrt((1 + 2 * v) * (1 + 4 * v)) * erfinv(2 * p - 1)
    assert float(points.b[0]) == pytest.approx(expected, rel=1e-12)


def test_far_fixed_points_keep_the_ratio_of_the_asymptotic_forces() -> None:
    """Far out, 2 t^2/(1+4v) = s^2/(1+2v), so b/|M| = (1 + k)/(1 - k) with k^2 = (1+4v)/(2+4v)."""
    v = 1.0
    k = math.sqrt((1 + 4 * v) / (2 + 4 * v))
    points = fixed_points(GaussianMixture(), LIMIT, Adversary(101.0))
    assert float(points.b.where(points.R == 1).max()) / 100 == pytest.approx((1 + k) / (1 - k), rel=1e-3)


def test_a_result_is_labelled_and_kept_by_files(tmp_path: Path) -> None:
    points = fixed_points(GaussianMixture(p=0.7), RULE, Adversary(2.0), test_epsilon=0.5)
    assert points.eigenvalues.dims == ("fixed_point", "eigenvalue")
    assert points.stable.dtype == bool
    assert float(points.test_epsilon) == 0.5
    for variable in points.variables.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"] == "1"
    assert json.loads(points.attrs["configuration"])["function"] == "fixed_points"
    for suffix in (".nc", ".zarr"):
        again = load(save(points, tmp_path / f"points{suffix}"))
        np.testing.assert_array_equal(again.eigenvalues, points.eigenvalues)
        np.testing.assert_array_equal(again.stable, points.stable)


def test_batches_broadcast_in_c_order_and_do_not_depend_on_company() -> None:
    p, epsilon = np.array([0.5, 0.7])[:, None], np.linspace(0, 2, 40)
    points = fixed_points_batch(p=p, epsilon=epsilon)
    assert isinstance(points, FixedPoints)
    alone = fixed_points_batch(p=0.7, epsilon=epsilon[33])
    np.testing.assert_array_equal(points.b[40 + 33], alone.b[0])


@pytest.mark.parametrize(
    ("kind", "message", "model"),
    [
        (ValueError, r"p = 1\.0 .*\(0, 1\)", {"p": [0.5, 1.0]}),
        (ValueError, r"v2 = -1\.0 .*1e\+06", {"v2": -1.0}),
        (ValueError, r"epsilon = nan", {"epsilon": math.nan}),
        (ValueError, r"rho = 0\.0 .*at rest", {"rho": 0.0, "second_order": False}),
        (TypeError, "'sigma' is not a parameter", {"sigma": 1.0}),
        (TypeError, "rho = 'far' is not a number", {"rho": "far"}),
        (ValueError, "do not broadcast", {"p": [0.5, 0.6], "rho": [1.0, 2.0, 3.0]}),
    ],
)
def test_bad_batches_name_the_first_bad_value(kind: type[Exception], message: str, model: dict[str, Any]) -> None:
    with pytest.raises(kind, match=message):
        fixed_points_batch(**model)


def test_bad_parts() -> None:
    with pytest.raises(TypeError, match="mixture = LearningRule"):
        fixed_points(RULE, RULE, Adversary())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"normalised = False: allowed is True"):
        fixed_points_batch(normalised=False)
    with pytest.raises(ValueError, match="test_epsilon = -1"):
        fixed_points(GaussianMixture(), RULE, Adversary(), test_epsilon=-1.0)


def test_importing_is_light() -> None:
    code = "import sys, odeflow.fixed_points.phases, odeflow.fixed_points.relaxation; print([m for m in ('numba', 'xarray', 'scipy.optimize') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Times and end states


def test_relaxation_times() -> None:
    time = relaxation_time(GaussianMixture(), RULE, Adversary(1.5))
    assert time.dims == ("fixed_point",)
    assert np.isnan(time[1])
    assert float(time[0]) == pytest.approx(float(time[2]))
    assert float(time[0]) > 1e9


def test_the_learning_time_is_where_the_error_is() -> None:
    for p, epsilon, error, kind in (
        (0.5, 0.0, 0.2, "error"),
        (0.7, 1.0, 0.28, "error"),
        (0.7, 1.0, 0.32, "adversarial_error"),
    ):
        model = GaussianMixture(p=p), RULE, Adversary(epsilon)
        time = learning_time(*model, error=error, kind=kind)  # type: ignore[arg-type]
        around = integrate(*model, alpha=time * np.array([1 - 1e-6, 1.0, 1 + 1e-6]), rtol=1e-12, atol=1e-14)[kind]
        assert float(around[1]) == pytest.approx(error, abs=1e-10)
        assert float(around[0]) > error > float(around[2])


def test_the_learning_time_finds_a_dip() -> None:
    """Scenario 2 has a minimum of the classification error, to which it comes back much later."""
    model = GaussianMixture(p=0.7), RULE, Adversary(1.0)
    fine = integrate(*model, alpha=np.linspace(20, 35, 3001), rtol=1e-11, atol=1e-13)
    lowest = float(fine.error.min())
    time = learning_time(*model, error=lowest + 1e-8)
    assert time == pytest.approx(float(fine.alpha[fine.error.argmin("alpha")]), abs=0.5)


def test_an_error_that_is_never_reached() -> None:
    model = GaussianMixture(), RULE, Adversary()
    assert learning_time(*model, error=0.1) == math.inf
    assert learning_time(*model, error=0.6) == 0.0
    with pytest.raises(ValueError, match=r"error = 1\.5"):
        learning_time(*model, error=1.5)
    with pytest.raises(ValueError, match="kind = 'loss'"):
        learning_time(*model, error=0.2, kind="loss")  # type: ignore[arg-type]


def test_end_states_agree_with_long_integrations() -> None:
    model = random_model(300, 10, eta_w=0.05, epsilon=np.random.default_rng(11).uniform(0, 1.2, 300))
    start: dict[str, Any] = {"R0": np.linspace(-0.5, 0.9, 300), "b0": np.linspace(-3, 3, 300)}
    end = end_states_batch(**model, **start)
    before, after = np.moveaxis(integrate_batch(**model, **start, alpha=[9e4, 1e5], rtol=1e-10, atol=1e-12).y, 1, 0)
    rested = np.max(np.abs(after - before), axis=1) < 1e-9
    assert rested.sum() > 100
    assert np.max(np.abs(np.stack([end.R, end.b], axis=1) - after)[rested]) < 1e-6
    away = np.isinf(end.b)
    assert np.all(np.sign(end.b[away]) * (after - before)[away, 1] >= 0)


def test_a_symmetric_start_stays_symmetric_and_a_small_bias_decides() -> None:
    end = end_states_batch(epsilon=2.0, b0=[-1e-9, 0.0, 1e-9])
    assert end.b[1] == 0
    assert end.b[0] == -end.b[2] < -10
    with pytest.raises(ValueError, match=r"R0 = 2"):
        end_states_batch(R0=2.0)
