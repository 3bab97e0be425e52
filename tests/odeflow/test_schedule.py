"""Schedules: parameters that change with learning time, in the theory, both simulations and sweeps."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from odeflow import (
    Adversary,
    Committee,
    GaussianMixture,
    LearningRule,
    Schedule,
    anisotropic,
    fixed_points,
    integrate,
    integrate_batch,
    latex,
    learning_time,
    load,
    rates,
    save,
    simulate,
    sweep,
)
from odeflow.numerics.course import course_of
from odeflow.plot import plot
from odeflow.schedule import at_time, from_record, record

MIXTURE = GaussianMixture(p=0.7)
SMOOTH = Schedule.smooth(lambda alpha: 1 + 0.5 * np.sin(alpha / 5), until=60.0)
FALLING = Schedule.smooth(lambda alpha: 0.04 * np.exp(-alpha / 50), until=60.0)


@pytest.mark.parametrize(
    ("schedule", "text", "values"),
    [
        (Schedule.steps({0: 0.5, 20: 1.0}), "Schedule.steps({0: 0.5, 20: 1})", [0.5, 0.5, 1.0, 1.0]),
        (Schedule.linear({0: 0.0, 40: 2.0}), "Schedule.linear({0: 0, 40: 2})", [0.0, 0.5, 1.0, 2.0]),
        (Schedule.warm_up(1.0, over=20.0), "Schedule.linear({0: 0, 20: 1}, hold=True)", [0.0, 0.5, 1.0, 1.0]),
        (Schedule.stopped(0.1, at=20.0), "Schedule.steps({0: 0.1, 20: 0})", [0.1, 0.1, 0.0, 0.0]),
        (Schedule.steps([1.0, 3.0], [0.0, 10.0], end=40.0), "Schedule.steps({0: 1, 10: 3}, end=40)", [1, 3, 3, 3]),
    ],
)
def test_a_schedule_says_what_it_is(schedule: Schedule, text: str, values: list[float]) -> None:
    assert repr(schedule) == text
    assert schedule([0.0, 10.0, 20.0, 40.0]).tolist() == values
    assert from_record(json.loads(json.dumps(record(schedule)))) == schedule
    assert schedule.bounds == (min(values), max(values))


def test_a_ramp_that_stops_keeps_the_ramp() -> None:
    schedule = Schedule.stopped(Schedule.warm_up(1.0, over=20.0), at=10.0)
    assert schedule([5.0, 9.999, 10.0]).tolist() == pytest.approx([0.25, 0.49995, 0.0])


@pytest.mark.parametrize("tolerance", [1e-5, 1e-9])
def test_a_smooth_function_is_sampled_to_the_tolerance(tolerance: float) -> None:
    schedule = Schedule.smooth(lambda x: np.cos(x) * np.exp(-x / 20), until=100.0, tolerance=tolerance)
    x = np.linspace(0, 100, 9173)
    error = np.abs(schedule(x) - np.cos(x) * np.exp(-x / 20))
    assert error.max() < 3 * tolerance  # between the points that were looked at
    assert error.max() > 1e-3 * tolerance  # and not for nothing


@pytest.mark.parametrize(("place", "width"), [(333.3, 5.0), (33.3, 5.0), (871.2, 2.0)])
def test_a_narrow_feature_of_a_smooth_function_is_seen(place: float, width: float) -> None:
    schedule = Schedule.smooth(lambda x: 1 + 5 * np.exp(-(((x - place) / width) ** 2)), until=1000.0)
    x = np.linspace(0, 1000, 99_991)
    assert np.max(np.abs(schedule(x) - 1 - 5 * np.exp(-(((x - place) / width) ** 2)))) < 2e-8


def test_the_end_of_a_trajectory_is_a_start_even_beyond_one_by_its_tolerance() -> None:
    for R0 in (1 + 3e-9, -1 - 3e-9):
        found = integrate(MIXTURE, LearningRule(), Adversary(0.5), alpha=[0.0, 1.0], R0=R0)
        assert float(found.R[0]) == np.sign(R0)
        assert np.all(np.abs(simulate(MIXTURE, LearningRule(), Adversary(), alpha=[0.0], N=9, runs=2, R0=R0).R) == 1)
    with pytest.raises(ValueError, match=r"R0 = 1\.001 is out of range"):
        integrate(MIXTURE, LearningRule(), Adversary(0.5), alpha=[1.0], R0=1.001)


@given(at=st.floats(0, 59), x=st.floats(0, 1))
def test_what_is_left_of_a_schedule_is_the_schedule(at: float, x: float) -> None:
    assert SMOOTH.later(at)(x * (60 - at)) == pytest.approx(SMOOTH(min(at + x * (60 - at), 60.0)), abs=1e-12)


@given(
    first=st.lists(st.floats(0.1, 50), min_size=1, max_size=4, unique=True).map(sorted),
    x=st.floats(0, 60),
)
def test_the_course_is_all_schedules_on_common_pieces(first: list[float], x: float) -> None:
    steps = Schedule.steps(list(range(len(first) + 1)), [0.0, *first])
    course = course_of(steps, 0.3, SMOOTH)
    piece = min(int(np.searchsorted(course.edges, x, side="right")) - 1, len(course.coefficients) - 1)
    epsilon, eta_w, eta_b = (np.polyval(row, x - course.edges[piece]) for row in course.coefficients[piece])
    assert epsilon == steps(x)
    assert eta_w == 0.3
    assert eta_b == pytest.approx(SMOOTH(x), abs=1e-12)


def test_the_theory_follows_a_schedule_as_an_independent_solver_does() -> None:
    def slopes(t: float, y: Any) -> Any:
        return rates(y[0], y[1], MIXTURE, LearningRule(0.04 * math.exp(-t / 50)), Adversary(1 + 0.5 * math.sin(t / 5)))

    exact = solve_ivp(slopes, (0, 60), [0, 0], t_eval=[7.0, 60.0], rtol=1e-11, atol=1e-12).y
    for rule in (LearningRule(FALLING), LearningRule(FALLING, normalised=False)):
        found = integrate(MIXTURE, rule, Adversary(SMOOTH), alpha=[7.0, 60.0], rtol=1e-10, atol=1e-12)
        if rule.normalised:
            np.testing.assert_allclose([found.R, found.b], exact, atol=1e-9)
        else:
            assert np.max(np.abs(found.R - exact[0])) > 1e-3
    # by the kernel of the variants
    almost = Adversary(SMOOTH, fraction=1 - 1e-14)
    found = integrate(MIXTURE, LearningRule(FALLING), almost, alpha=[7.0, 60.0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose([found.R, found.b], exact, atol=1e-9)


@pytest.mark.parametrize("rule", [LearningRule(), LearningRule(activation="linear", loss="logistic", normalised=False)])
def test_a_step_is_two_runs_one_after_the_other(rule: LearningRule) -> None:
    jump = Adversary(Schedule.steps({0: 0.5, 30.0: 1.0}))
    whole = integrate(MIXTURE, rule, jump, alpha=np.linspace(0, 100, 11))
    first = integrate(MIXTURE, rule, Adversary(0.5), alpha=[30.0])
    state = {name: float(first[name][-1]) for name in ("R", "b", "Q") if name in first}
    second = integrate(MIXTURE, rule, Adversary(1.0), alpha=[70.0], start=state)
    for name, middle in state.items():
        assert float(whole[name][-1]) == pytest.approx(float(second[name][-1]), abs=1e-8)
        assert float(whole[name].sel(alpha=30.0)) == pytest.approx(middle, abs=1e-8)
    assert whole.epsilon.values.tolist() == [0.5] * 3 + [1.0] * 8
    assert float(whole.adversarial_error[3]) == pytest.approx(  # at the epsilon of that time
        float(integrate(MIXTURE, rule, Adversary(0.5), alpha=[30.0], test_epsilon=1.0).adversarial_error[0]), abs=1e-9
    )


def test_learning_that_stopped_stays() -> None:
    stopped = LearningRule(Schedule.stopped(0.1, at=12.5), Schedule.stopped(0.2, at=12.5))
    found = integrate(MIXTURE, stopped, Adversary(1.0), alpha=[12.5, 13.0, 500.0])
    assert float(found.R[0]) == float(found.R[1]) == float(found.R[2]) != 0
    runs = simulate(MIXTURE, stopped, Adversary(1.0), alpha=[12.5, 50.0], N=100, runs=3, rng=1)
    np.testing.assert_array_equal(runs.R[:, 0], runs.R[:, 1])


@pytest.mark.parametrize(("method", "N", "runs"), [("reduced", 2000, 200), ("direct", 400, 40)])
@pytest.mark.parametrize("rule", [LearningRule(), LearningRule(activation="linear", loss="logistic", normalised=False)])
def test_simulations_follow_a_schedule(rule: LearningRule, method: Any, N: int, runs: int) -> None:
    rule = LearningRule(**{**vars(rule), "eta_w": Schedule.steps({0: 0.3, 10: 0.1})})
    adversary, alpha = Adversary(Schedule.warm_up(2.0, over=20.0)), np.array([5.0, 15.0, 30.0])
    options: dict[str, Any] = {"alpha": alpha, "test_epsilon": 1.0}
    theory = integrate(MIXTURE, rule, adversary, **options)
    found = simulate(MIXTURE, rule, adversary, N=N, runs=runs, rng=3, method=method, **options)
    for name in ("R", "b", "adversarial_error"):
        deviation = found[name].mean("run") - theory[name]
        bias = 2 / N  # of order 1/N
        assert np.all(np.abs(deviation) < 4 * found[name].std("run") / math.sqrt(runs) + bias)
    constant = integrate(MIXTURE, at_time(rule, 0.0), Adversary(2.0), **options)  # the rival
    assert np.any(np.abs(found.R.mean("run") - constant.R) > 10 * found.R.std("run") / math.sqrt(runs))


@pytest.mark.parametrize("method", ["reduced", "direct"])
def test_a_simulation_goes_on_from_the_states_of_its_runs(method: Any) -> None:
    schedule = Schedule.linear({0: 0.0, 20: 2.0})
    first = simulate(MIXTURE, LearningRule(0.3), Adversary(schedule), alpha=[0.0, 8.0], N=50, runs=300, rng=1)
    states = {name: first[name].values[:, -1] for name in ("R", "b")}
    rest = simulate(
        MIXTURE, LearningRule(0.3), Adversary(schedule.later(8.0)), alpha=[0.0, 12.0], N=50, runs=300, rng=2,
        start=states, method=method,
    )  # fmt: skip
    np.testing.assert_allclose(rest.R[:, 0], states["R"], atol=1e-12)
    assert rest.R0.dims == ("run",)
    whole = simulate(MIXTURE, LearningRule(0.3), Adversary(schedule), alpha=[20.0], N=50, runs=300, rng=3)
    for name in ("R", "b"):
        a, b = rest[name][:, -1], whole[name][:, -1]
        assert abs(float(a.mean() - b.mean())) < 4 * float(a.std()) * math.sqrt(2 / 300)
        assert 0.75 < float(a.std() / b.std()) < 1.33
    # what the runs remember: those that were ahead still are
    assert np.corrcoef(states["b"], rest.b[:, -1])[0, 1] > 0.1


def test_a_batch_and_a_sweep_share_a_schedule(tmp_path: Path) -> None:
    alpha, adversary = [5.0, 50.0], Adversary(Schedule.warm_up(1.0, over=20.0))
    result = sweep(MIXTURE, LearningRule(FALLING), adversary, over={"rho": [1.0, 2.0, 3.0]}, alpha=alpha)
    assert result.epsilon.dims == result.eta_w.dims == result.test_epsilon.dims == ("alpha",)
    one = integrate(GaussianMixture(0.7, 3.0), LearningRule(FALLING), adversary, alpha=alpha)
    for name in ("R", "b", "error", "adversarial_error"):
        np.testing.assert_array_equal(result[name].sel(rho=3.0), one[name])
    batch = integrate_batch(rho=[1.0, 2.0, 3.0], p=0.7, eta_w=FALLING, epsilon=adversary.epsilon, alpha=alpha)
    np.testing.assert_array_equal(batch.y[..., 0], result.R)
    rates_of_points = integrate_batch(eta_w=[0.04, 0.1], eta_b=[0.2, 0.5], epsilon=adversary.epsilon, alpha=alpha)
    other = integrate(GaussianMixture(), LearningRule(0.1, 0.5), adversary, alpha=alpha)
    np.testing.assert_array_equal(rates_of_points.y[1, :, 0], other.R)
    read = load(save(result, tmp_path / "sweep.nc"))
    configuration = json.loads(read.attrs["configuration"])
    assert Adversary(**configuration["adversary"]) == adversary
    assert LearningRule(**configuration["rule"]).eta_w == FALLING
    runs = sweep(
        MIXTURE, LearningRule(), adversary, over={"rho": [3.0]}, alpha=alpha, compute="simulate", N=300, runs=5, rng=1
    )
    assert abs(float(runs.R.mean("run")[0, -1] - 0.95)) < 0.1
    assert sweep(MIXTURE, LearningRule(), adversary, over={"epsilon": [0.5]}, alpha=alpha).epsilon.dims == ("epsilon",)


@pytest.mark.slow
def test_a_network_of_two_layers_follows_a_schedule() -> None:
    rule = LearningRule(Schedule.steps({0: 0.3, 10: 0.1}), Schedule.steps({0: 0.3, 10: 0.1}))
    adversary, alpha = Adversary(Schedule.warm_up(1.0, over=20.0)), [5.0, 15.0, 30.0]
    network = Committee(hidden=1, activation="erf-x", errors=("error",))
    options: dict[str, Any] = {"network": network, "alpha": alpha, "start": {"M": 0.2, "Q": 0.5}}
    theory = integrate(MIXTURE, rule, adversary, **options)
    found = simulate(MIXTURE, rule, adversary, N=1000, runs=100, rng=1, **options)
    for name in ("M", "b"):
        deviation = np.abs(found[name].mean("run") - theory[name])
        assert np.all(deviation < 4 * found[name].std("run") / 10 + 2e-3)
    same = integrate(
        MIXTURE, LearningRule(**{**vars(rule), "normalised": False}), adversary, alpha=alpha, start={"R": 0.2, "Q": 0.5}
    )
    assert np.all(np.isfinite(same.R))
    frozen = integrate(
        MIXTURE, LearningRule(Schedule.stopped(0.3, at=2.0)), adversary, **{**options, "alpha": [2.0, 9.0]}
    )
    np.testing.assert_array_equal(frozen.M[0], frozen.M[1])
    assert float(frozen.b[0]) != float(frozen.b[1])


LATE = Schedule.linear({0: 0, 5: 1})


REFUSED: list[tuple[Any, str]] = [
    (lambda: Schedule.steps({1: 0.5}), "begins at alpha = 1: allowed is 0"),
    (lambda: Schedule.steps({0: 1, 5: 2, 3: 1}), "increasing"),
    (lambda: Schedule.linear({0: 1.0}), "at least two"),
    (lambda: Schedule.steps({0: math.nan}), "nan"),
    (lambda: Schedule((0.0, 1.0, 2.0), ((1.0,),)), "allowed is one piece less"),
    (lambda: Schedule((0.0, math.inf), ((1.0, 2.0),)), "for ever"),
    (lambda: Schedule.smooth(lambda x: np.where(x < 1, 0.0, 1.0), until=3.0), "near alpha = 1"),
    (lambda: Schedule.smooth(lambda x: 1 / (x - 1), until=3.0, tolerance=1e-3), "alpha = 1"),
    (lambda: LATE(6.0), "alpha = 6.0 is out of range"),
    (lambda: Schedule.smooth(lambda x: 1.0 if x < 1 else 2.0, until=3.0), "fails for an array of alpha"),
    (lambda: Schedule.smooth(3.0, until=3.0), "allowed is a function of alpha"),  # type: ignore[arg-type]
    (lambda: Schedule.warm_up(1.0, over=0.0), "over = 0.0 is out of range"),
    (lambda: Schedule.steps({0: 1, 5: 2}, end=5.0), "end = 5.0 is out of range"),
    (lambda: LearningRule(eta_w={0: 0.1, 10: 0.2}), "Schedule.steps and Schedule.linear make one"),
    (lambda: integrate(MIXTURE, LearningRule(), Adversary(LATE), alpha=[10.0]), "ends at alpha = 5"),
    (lambda: integrate_batch(epsilon=LATE, alpha=[10.0]), "ends at alpha = 5"),
    (lambda: simulate(MIXTURE, LearningRule(), Adversary(LATE), alpha=[10.0], N=10, runs=1), "ends at alpha = 5"),
    (lambda: sweep(MIXTURE, LearningRule(), Adversary(LATE), over={"p": [0.5]}, alpha=[9.0]), "ends at alpha = 5"),
    (lambda: LearningRule(Schedule.linear({0: 0.1, 9: -0.1})), "eta_w = Schedule.* takes the value -0.1"),
    (lambda: GaussianMixture(rho=LATE), "rho = .* does not change with learning time"),  # type: ignore[arg-type]
    (lambda: integrate_batch(rho=LATE, alpha=[1.0]), "rho = .* does not change with learning time"),
    (lambda: fixed_points(MIXTURE, LearningRule(), Adversary(LATE)), "allowed here is a number"),
    (lambda: rates(0.1, 0.1, MIXTURE, LearningRule(), Adversary(LATE)), "allowed here is a number"),
    (lambda: learning_time(MIXTURE, LearningRule(), Adversary(LATE), error=0.2), "allowed here is a number"),
    (
        lambda: sweep(MIXTURE, LearningRule(), Adversary(LATE), over={"rho": [1.0]}, compute="equilibria"),
        "allowed here is a number",
    ),
    (
        lambda: anisotropic.integrate(
            anisotropic.Mixture(0.5, 1 - 2 * np.eye(2), np.ones((2, 2))),
            LearningRule(),
            Adversary(LATE),
            alpha=[1.0],
        ),
        "allowed here is a number",
    ),
]


@pytest.mark.parametrize(("call", "words"), REFUSED, ids=range(len(REFUSED)))
def test_bad_schedules_are_refused_in_one_sentence(call: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        call()


def test_figures_and_tables_have_the_schedules() -> None:
    alpha = np.linspace(0, 100, 11)
    results = [
        integrate(MIXTURE, LearningRule(), Adversary(epsilon), alpha=alpha, test_epsilon=1.0)
        for epsilon in (Schedule.warm_up(1.0, over=20.0), Schedule.linear({0: 0.0, 100: 2.0}), 1.0)
    ]
    figure = plot(*results)
    panel = next(ax for ax in figure.axes if ax.get_ylabel() == r"$\varepsilon$")
    assert [np.asarray(line.get_ydata())[-1] for line in panel.lines] == [1.0, 2.0]
    texts = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert texts == [
        r"$\varepsilon$: linear({0: 0, 20: 1})",
        r"$\varepsilon$: linear({0: 0, 100: 2})",
        r"$\varepsilon=1$",
    ]
    assert r"linear(\{0: 0, 20: 1\}, hold=True)" in latex(results[0])
    single = plot(results[0])
    assert any(ax.get_ylabel() == r"$\varepsilon$" for ax in single.axes)
