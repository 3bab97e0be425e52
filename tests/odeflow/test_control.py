"""Optimal schedules: exact gradients, exact solutions, brute force, and what certifies an optimum."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.optimize import minimize_scalar

from odeflow import (
    Adversary,
    GaussianMixture,
    LearningRule,
    Schedule,
    adversarial_error,
    integrate,
    integrate_batch,
    load,
    rates,
    save,
)
from odeflow.control import best_model, optimal_constant, optimal_schedule
from odeflow.control.problem import CONTROLS, Problem
from odeflow.order_parameters.perceptron.forces import peak

Array = npt.NDArray[np.float64]

MIXTURE = GaussianMixture(p=0.7, rho=3.0)
RULE = LearningRule()
MODEL = MIXTURE, RULE, Adversary(1.0)
EVEN = GaussianMixture(p=0.5, rho=3.0), RULE, Adversary(1.0)


@pytest.fixture(scope="module")
def best() -> xr.Dataset:
    return optimal_schedule(*MODEL, alpha_max=20, starts=4, rng=1)


def problem(**changes: Any) -> Problem:
    default: dict[str, Any] = {
        "mixture": GaussianMixture(p=0.7, rho=3.0, v1=0.8, v2=1.3), "rule": RULE, "adversary": Adversary(1.0),
        "controls": ("epsilon",), "constant": (), "knots": (0.0, 2.0, 5.0, 12.0), "form": "steps",
        "bounds": {"epsilon": (0.0, 4.0), "eta_w": (0.0, 0.4), "eta_b": (0.0, 1.0)},
        "test_epsilon": 0.7, "objective": "final", "start": (0.1, -0.2),
    }  # fmt: skip
    return Problem(**(default | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"form": "linear", "objective": "integral"},
        {"controls": CONTROLS},
        {"controls": CONTROLS, "constant": ("eta_w",), "form": "linear"},
        {
            "controls": ("eta_w", "eta_b"),
            "adversary": Adversary(Schedule.warm_up(1.0, over=3.0)),
            "objective": "integral",
        },
        {"rule": LearningRule(second_order=False), "controls": ("epsilon", "eta_w")},
    ],
)
def test_the_gradient_is_that_of_the_objective(changes: dict[str, Any]) -> None:
    one = problem(**changes)
    low, high = one.box
    numbers = low + (high - low) * np.random.default_rng(1).uniform(0.1, 0.6, low.size)
    gradient, step = one.solve(numbers).gradient, 1e-4
    for i in range(low.size):
        ahead, behind = numbers.copy(), numbers.copy()
        ahead[i] += step
        behind[i] -= step
        difference = (one.solve(ahead).objective - one.solve(behind).objective) / (2 * step)
        assert gradient[i] == pytest.approx(difference, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("form", ["steps", "linear"])
def test_the_trajectory_is_that_of_integrate(form: Any) -> None:
    one = problem(controls=CONTROLS, form=form, refinement=4)
    low, high = one.box
    numbers = low + (high - low) * np.random.default_rng(2).uniform(0.1, 0.5, low.size)
    solved = one.solve(numbers)
    exact = integrate(one.mixture, *one.model(numbers), alpha=solved.times, R0=0.1, b0=-0.2, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(solved.states[:, 0], exact.R, rtol=0, atol=1e-10)
    np.testing.assert_allclose(solved.states[:, 1], exact.b, rtol=0, atol=1e-10)


def test_derivatives_by_the_controls_are_those_of_the_rates() -> None:
    from odeflow.control.kernel import by_control

    one, state = problem(), np.array([0.6, -0.4])
    control = {"epsilon": 0.9, "eta_w": 0.3, "eta_b": 0.2}
    for row in range(2):
        found = np.empty((1, 3))
        by_control(one.numbers_of_model(), state[None], np.eye(2)[[row]], np.array([[*control.values()]]), found)
        for i, name in enumerate(control):
            both = []
            for sign in (1, -1):
                now = control | {name: control[name] + sign * 1e-5}
                rule = LearningRule(eta_w=now["eta_w"], eta_b=now["eta_b"])
                both.append(float(rates(state[0], state[1], one.mixture, rule, Adversary(now["epsilon"]))[row]))
            assert found[0, i] == pytest.approx((both[0] - both[1]) / 2e-5, abs=1e-9)


def test_the_values_of_a_prototype(best: xr.Dataset) -> None:
    """It was written apart, with differences for a gradient: constant 0.3765 at 1.49, schedule 0.3394."""
    assert float(best.constant_objective) == pytest.approx(0.3765, abs=5e-5)
    assert float(best.constant_schedule[0]) == pytest.approx(1.49, abs=0.01)
    assert float(best.objective) == pytest.approx(0.3394, abs=5e-5)
    expected = [0.53, 0.80, 1.07, 1.32, 1.55, 1.78, 2.00, 2.23, 2.45, 2.69]
    np.testing.assert_allclose(best.schedule.values[0], expected, atol=0.01)
    assert float(best.classifier_error) == pytest.approx(0.2530, abs=5e-5)


def test_the_certificate_of_an_optimum_inside_the_bounds(best: xr.Dataset) -> None:
    assert float(best.gap) < 1e-12
    assert float(best.curvature) > 0
    np.testing.assert_allclose(best.switching, 0, atol=1e-12)
    assert float(best.integrated) == pytest.approx(float(best.objective), abs=1e-9)
    assert float(best.classifier_error) < float(best.objective) < float(best.constant_objective)
    # at each jump upwards the switching function goes from < 0 to > 0: more was wanted, and then it is too much
    knots = np.searchsorted(best.alpha.values, best.knot.values[1:] - 1e-9)
    switching = best.switching_function.values[0]
    assert np.all(switching[knots - 1] < 0)
    assert np.all(switching[knots] > 0)


def test_other_starts_find_nothing_better(best: xr.Dataset) -> None:
    again = optimal_schedule(*MODEL, alpha_max=20, starts=4, rng=2)
    np.testing.assert_allclose(again.schedule, best.schedule, atol=1e-6)
    assert float(again.objective) == pytest.approx(float(best.objective), abs=1e-12)


def test_at_a_bound_the_switching_function_has_its_sign() -> None:
    one = optimal_schedule(*MODEL, alpha_max=20, bounds={"epsilon": (0.7, 1.8)}, starts=2, rng=1)
    values, switching = one.schedule.values[0], one.switching.values[0]
    low, high = values == 0.7, values == 1.8
    assert low.any()
    assert high.any()
    assert np.all(switching[low] > 0)
    assert np.all(switching[high] < 0)
    assert np.all(np.abs(switching[~low & ~high]) < 1e-12)
    assert float(one.gap) < 1e-12


def test_brute_force_over_two_pieces_finds_nothing_better() -> None:
    best = optimal_schedule(*MODEL, alpha_max=20, pieces=2, starts=4, rng=1)
    grid = np.linspace(0.0, 4.0, 81)
    half: dict[str, Any] = {"p": 0.7, "rho": 3.0, "alpha": [10.0], "rtol": 1e-10, "atol": 1e-12}
    R, b = integrate_batch(**half, epsilon=grid).y[:, 0].T
    first, second = np.meshgrid(np.arange(81), grid, indexing="ij")
    ends = integrate_batch(**half, epsilon=second.ravel(), R0=R[first.ravel()], b0=b[first.ravel()]).y[:, 0].T
    S = adversarial_error(ends[0], ends[1], MIXTURE, 1.0).reshape(81, 81)
    assert float(best.objective) <= S.min()
    at = np.unravel_index(np.argmin(S), S.shape)
    np.testing.assert_allclose(grid[list(at)], best.schedule.values[0], atol=0.05)
    assert S.min() - float(best.objective) < 1e-3


def greedy(rule: LearningRule) -> tuple[Any, float]:
    """Return the path of R and S at alpha = 20 where p = 1/2: b = 0, S falls with R, so the fastest way up is the best."""
    mixture, bound = EVEN[0], (0.0, 5.0)

    def fastest(R: float) -> float:
        found = minimize_scalar(
            lambda epsilon: -float(rates(R, 0.0, mixture, rule, Adversary(epsilon))[0]),
            bounds=bound, method="bounded", options={"xatol": 1e-10},
        )  # fmt: skip
        return float(-found.fun)

    path = solve_ivp(lambda _, R: [fastest(R[0])], (0, 20), [0.0], rtol=1e-9, atol=1e-11, dense_output=True)
    return path.sol, float(adversarial_error(path.y[0, -1], 0.0, mixture, 1.0))


def test_equal_priors_have_an_exact_optimum() -> None:
    _, least = greedy(RULE)
    excess = []
    for pieces in (5, 10):
        found = optimal_schedule(*EVEN, alpha_max=20, pieces=pieces, starts=2, rng=1)
        assert np.all(np.abs(found.b) < 1e-12)
        excess.append(float(found.objective) - least)
    assert 0 < excess[1] < excess[0]
    assert excess[0] / excess[1] == pytest.approx(4, rel=0.1)  # steps are of second order in their length


def test_equal_priors_to_first_order_keep_the_centres_where_the_force_is_largest() -> None:
    rule = replace(RULE, second_order=False)
    path, _ = greedy(rule)
    found = optimal_schedule(EVEN[0], rule, EVEN[2], alpha_max=20, starts=2, rng=1)
    ends = 1.5 * path(np.linspace(0, 20, 11))[0] - peak(
        1.0
    )  # epsilon = rho R / 2 - u, u the margin of the largest force
    values = found.schedule.values[0]
    assert np.all((ends[:-1] < values) & (values < ends[1:]))


def test_a_finer_or_a_linear_schedule_is_no_worse(best: xr.Dataset) -> None:
    few = optimal_schedule(*MODEL, alpha_max=20, pieces=5, starts=2, rng=1)
    assert float(best.objective) < float(few.objective) < float(best.constant_objective)
    linear = optimal_schedule(*MODEL, alpha_max=20, form="linear", starts=2, rng=1)
    assert linear.sizes["knot"] == 11
    assert float(linear.objective) < float(best.objective)


def test_a_constant_control_is_one_number() -> None:
    one = optimal_schedule(
        *MODEL, alpha_max=20, control=("eta_w", "epsilon"), constant="eta_w", pieces=4, starts=2, rng=1
    )
    assert list(one.control.values) == ["epsilon", "eta_w"]
    eta_w = one.schedule.sel(control="eta_w").values
    assert np.all(eta_w == eta_w[0])
    _, rule, adversary = best_model(one)
    assert rule.eta_w == eta_w[0]
    assert isinstance(adversary.epsilon, Schedule)
    both = optimal_constant(*MODEL, alpha_max=20, control=("epsilon", "eta_w"), starts=1, rng=1)
    assert float(both.objective) == pytest.approx(float(one.constant_objective), abs=1e-12)
    assert float(one.objective) < float(both.objective)


def test_the_best_model_comes_back_from_a_file(best: xr.Dataset, tmp_path: Path) -> None:
    model = best_model(load(save(best, tmp_path / "best.nc")))
    assert model[:2] == MODEL[:2]
    end = integrate(*model, alpha=[20.0], test_epsilon=1.0)
    assert float(end.adversarial_error[-1]) == pytest.approx(float(best.objective), abs=1e-8)
    with pytest.raises(ValueError, match="allowed is one of optimal_schedule"):
        best_model(end)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": "eta"}, "control has 'eta': allowed are epsilon, eta_w, eta_b"),
        ({"control": ()}, "control = (): allowed is at least one"),
        ({"constant": "eta_w"}, "constant has 'eta_w': allowed are epsilon"),
        ({"pieces": 0}, "pieces = 0 is out of range"),
        ({"alpha_max": 0}, "alpha_max = 0.0 is out of range"),
        ({"form": "smooth"}, "form = 'smooth': allowed is 'steps' or 'linear'"),
        ({"objective": "best"}, "objective = 'best': allowed is 'final' or 'integral'"),
        (
            {"bounds": {"epsilon": (2.0, 1.0)}},
            "bounds['epsilon'] = (2.0, 1.0): allowed are two numbers, the second larger",
        ),
        ({"bounds": {"epsilon": (-1.0, 1.0)}}, "bounds['epsilon'] = -1.0 is out of range"),
        ({"bounds": {"eta_w": (0.0, 1.0)}}, "bounds of 'eta_w': allowed are those of what is controlled, epsilon"),
        ({"starts": 0}, "starts = 0 is out of range"),
        ({"test_epsilon": -1.0}, "test_epsilon = -1.0 is out of range"),
        ({"R0": 2.0}, "R0 = 2.0 is out of range"),
    ],
)
def test_bad_input(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        optimal_schedule(*MODEL, **({"alpha_max": 20.0} | changes))


def test_models_that_are_not_the_seeds() -> None:
    with pytest.raises(ValueError, match="allowed is the seed's rule"):
        optimal_schedule(MIXTURE, LearningRule(loss="logistic"), MODEL[2], alpha_max=20)
    with pytest.raises(ValueError, match="allowed is the seed's rule"):
        optimal_schedule(MIXTURE, RULE, Adversary(1.0, fraction=0.5), alpha_max=20)
    with pytest.raises(ValueError, match="test_epsilon = None: allowed is a number"):
        optimal_schedule(MIXTURE, RULE, Adversary(Schedule.warm_up(1.0, over=5.0)), alpha_max=20)
    with pytest.raises(ValueError, match="ends before alpha_max = 20"):
        optimal_schedule(MIXTURE, LearningRule(Schedule.linear({0: 0.04, 10: 0.02})), MODEL[2], alpha_max=20)
    with pytest.raises(TypeError, match="pieces = 3: allowed is optimal_schedule"):
        optimal_constant(*MODEL, alpha_max=20, pieces=3)
