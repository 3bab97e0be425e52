"""The seed model's own solver: its windows hold the averages, and its results are those of the plain solver."""

from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import pytest
from numba import njit

from odeflow import Schedule, integrate_batch
from odeflow.numerics import runge_kutta
from odeflow.numerics.lanes import aligned, combination, polynomial
from odeflow.order_parameters.perceptron import seed, seed_solver, windows
from odeflow.order_parameters.perceptron.averages import delta, delta_squared

Array = npt.NDArray[np.float64]
TIMES = np.linspace(0.0, 100.0, 51)


def wide_points(count: int, seed: int = 0) -> dict[str, Any]:
    """Return the parameter sets of the solver page's table of errors."""
    rng = np.random.default_rng(seed)

    def log_uniform(low: float, high: float) -> Array:
        return np.exp(rng.uniform(np.log(low), np.log(high), count))

    return {
        "p": rng.uniform(0.1, 0.9, count),
        "rho": rng.uniform(0, 5, count),
        "epsilon": rng.uniform(0, 2, count),
        "v1": log_uniform(0.1, 10),
        "v2": log_uniform(0.1, 10),
        "eta_w": log_uniform(0.01, 3.2),
        "eta_b": log_uniform(0.01, 3.2),
    }


@njit(error_model="numpy")
def _in_windows(u: Array, v: Array, shift: float, tables: Array, D1: Array, D2: Array) -> None:
    """Evaluate the averages in the window whose centre is nearest to u + shift half-widths."""
    coefficients = np.zeros(2 * windows.TERMS)
    for i in range(u.size):
        w = windows.half_width(v[i])
        k = windows.nearest(u[i] + shift * w, w)
        b, c, A0, C0 = windows.window_constants(v[i])
        windows.window(k, b, c, tables, coefficients)
        x = u[i] / w - 0.5 * k
        D1[i], D2[i] = 0.0, 0.0
        for term in range(windows.TERMS - 1, -1, -1):
            D1[i] = D1[i] * x + A0 * coefficients[term]
            D2[i] = D2[i] * x + C0 * coefficients[windows.TERMS + term]


@pytest.mark.parametrize("shift", [0.0, 0.75, -0.75])
def test_windows_hold_the_averages_at_any_variance(shift: float) -> None:
    rng = np.random.default_rng(1)
    v = np.exp(rng.uniform(np.log(1e-8), np.log(1e8), 4000))
    u = rng.uniform(-13, 10, v.size) * np.sqrt(1 + 4 * v) / 2
    D1, D2 = np.empty_like(u), np.empty_like(u)
    _in_windows(u, v, shift, windows.tables().ravel(), D1, D2)
    assert np.max(np.abs(D1 - delta(u, v, 1.0)) / delta(0.0, v, 1.0)) < 1.2e-11
    assert np.max(np.abs(D2 - delta_squared(u, v, 1.0)) / delta_squared(0.0, v, 1.0)) < 1.2e-11


def test_beyond_the_windows_nothing_is_left() -> None:
    v = np.geomspace(1e-8, 1e8, 33)
    for edge in windows.BEYOND:
        u = edge * windows._WIDTH / 2 * np.sqrt(1 + 4 * v)
        assert np.all(delta(u, v, 1.0) < 1e-17 * delta(0.0, v, 1.0))
        assert np.all(delta_squared(u, v, 1.0) < 1e-17 * delta_squared(0.0, v, 1.0))


@pytest.mark.parametrize("rtol", [1e-4, 1e-6, 1e-8])
def test_errors_stay_below_the_tolerance(rtol: float) -> None:
    model = wide_points(200)
    exact = integrate_batch(alpha=TIMES, **model, rtol=1e-13, atol=1e-15).y
    found = integrate_batch(alpha=TIMES, **model, rtol=rtol, atol=rtol / 100)
    assert np.all(found.status == 0)
    error = np.abs(found.y - exact) / (rtol / 100 + rtol * np.abs(exact))
    assert np.percentile(np.max(error, axis=(1, 2)), 99) < 0.4  # as the solver page says
    assert np.max(error) < 3
    assert np.max(error) > 0.01  # it is not the plain solver at a smaller tolerance


def test_a_result_depends_on_its_own_parameters_alone() -> None:
    model = wide_points(150) | {"v1": np.repeat([0.5, 2.0, 0.5], 50)}
    together = integrate_batch(alpha=TIMES, **model)
    back = integrate_batch(alpha=TIMES, **{name: values[::-1].copy() for name, values in model.items()})
    assert np.array_equal(back.y[::-1], together.y)
    assert np.array_equal(back.steps[::-1], together.steps)
    for i in (0, 77, 149):
        alone = integrate_batch(alpha=TIMES, **{name: values[i] for name, values in model.items()})
        assert np.array_equal(alone.y[0], together.y[i])


def test_threads_do_not_change_a_bit() -> None:
    model = wide_points(600)
    before = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        one = integrate_batch(alpha=TIMES[1:], **model)
    finally:
        numba.set_num_threads(before)
    parts = [
        integrate_batch(alpha=TIMES[1:], **{name: values[i::3] for name, values in model.items()}) for i in range(3)
    ]
    for i, part in enumerate(parts):
        assert np.array_equal(part.y, one.y[i::3])


def test_below_its_tolerances_the_averages_are_exact() -> None:
    model = wide_points(40)
    found = integrate_batch(alpha=TIMES, **model, rtol=0.99e-8)
    table = np.stack(
        [
            {**model, "second_order": np.ones(40), "R0": np.zeros(40), "b0": np.zeros(40)}[name]
            for name in seed.PARAMETERS
        ],
        axis=1,
    )
    plain = runge_kutta.solve(
        seed.SeedModel(table), trajectories=40, variables=2, constants=seed.CONSTANTS,
        times=TIMES, rtol=0.99e-8, atol=1e-10, max_steps=10**6,
    )  # fmt: skip
    assert np.array_equal(found.y, plain.y)
    assert not np.array_equal(found.y, integrate_batch(alpha=TIMES, **model, rtol=1e-8).y)


def _solve(**changed: float) -> runge_kutta.Solution:
    values = {
        "p": 0.5,
        "rho": 2.0,
        "v1": 1.0,
        "v2": 1.0,
        "eta_w": 1.0,
        "eta_b": 1.0,
        "epsilon": 0.5,
        "second_order": 1.0,
    }
    values |= {"R0": 0.0, "b0": 0.0} | changed
    point = np.array([[values[name] for name in seed.PARAMETERS]])
    times = np.array([0.0, 1.0, 50.0])
    return seed_solver.solve(
        seed.SeedModel(np.repeat(point, 3, axis=0)), trajectories=3, times=times, rtol=1e-6, atol=1e-8, max_steps=500
    )


@pytest.mark.parametrize(
    ("changed", "status"),
    [
        ({"eta_b": np.nan}, 3),
        ({"rho": np.inf}, 3),
        ({"v1": np.nan}, 3),
        ({"b0": np.nan}, 3),
        ({"epsilon": np.inf}, 3),
        ({"eta_w": 1e200}, 2),
        ({"eta_w": 1e6}, 1),
    ],
)
def test_a_trajectory_that_fails_ends_and_says_why(changed: dict[str, float], status: int) -> None:
    failed = _solve(**changed)
    assert failed.status.tolist() == [status] * 3
    assert np.all(np.isfinite(failed.y[:, 0])) or "b0" in changed  # the start is an output
    assert np.all(np.isnan(failed.y[:, -1]))
    assert np.all(failed.steps <= 500)


def test_failures_leave_their_neighbours_alone() -> None:
    model = wide_points(70)
    good = integrate_batch(alpha=TIMES, **model)
    limited = integrate_batch(alpha=TIMES, **model, max_steps=25)
    done = limited.status == 0
    assert 0 < np.sum(done) < 70
    assert np.array_equal(limited.y[done], good.y[done])
    assert np.all(limited.status[~done] == 1)
    assert np.all(limited.steps[~done] == 25)
    assert np.all(np.isnan(limited.y[~done, -1]))


@pytest.mark.parametrize("b0", [30.0, -30.0, 1e9, -1e13, 1e300])
def test_far_out_nothing_moves(b0: float) -> None:
    found = integrate_batch(alpha=[0.0, 1.0, 1e6], b0=b0, p=0.7)
    assert found.status[0] == 0
    assert np.all(found.y[0, :, 1] == b0)


def test_a_schedule_leads_back_from_far_out() -> None:
    # b and epsilon are far from all windows at first; the ramp brings one class back after two thirds of the time
    there: dict[str, Any] = {"epsilon": Schedule.linear({0.0: 0.0, 30.0: 60.0}), "b0": -40.0, "R0": 0.3, "p": 0.6}
    found = integrate_batch(alpha=[5.0, 15.0, 25.0, 30.0], **there, rtol=1e-8, atol=1e-10)
    exact = integrate_batch(alpha=[5.0, 15.0, 25.0, 30.0], **there, rtol=1e-11, atol=1e-13)
    assert found.status[0] == 0
    assert np.abs(exact.y[0, -1, 1] - exact.y[0, 0, 1]) > 0.1
    np.testing.assert_allclose(found.y, exact.y, rtol=3e-8, atol=3e-10)


def test_a_constant_schedule_has_the_bits_of_the_number() -> None:
    model = {name: values for name, values in wide_points(50).items() if name not in ("epsilon", "eta_w")}
    number = integrate_batch(alpha=TIMES, **model, epsilon=0.7, eta_w=0.5)
    scheduled = integrate_batch(alpha=TIMES, **model, epsilon=Schedule.steps({0: 0.7}), eta_w=Schedule.steps({0: 0.5}))
    assert np.array_equal(number.y, scheduled.y)


@njit(error_model="numpy")
def _sums(values: Array) -> tuple[float, float, float]:
    return _combine(0, values, 1), _combine(1, values, 1), _evaluate(0.5, values, 2)


_ROWS = np.array([[0.0, 2.0, -1.0], [0.25, 0.0, 4.0]])
_combine, _evaluate = combination(_ROWS, 3), polynomial(4, 2)


def test_sums_that_are_written_out() -> None:
    values = np.random.default_rng(2).standard_normal(9)
    first, second, third = _sums(values)
    assert (first, second) == pytest.approx(tuple(_ROWS @ values[1::3][:3]), rel=1e-14)
    assert third == pytest.approx(sum(values[2 + 2 * k] * 0.5**k for k in range(4)), rel=1e-14)


def test_room_begins_with_a_line_of_the_cache() -> None:
    for size in range(1, 40):
        room = aligned(size)
        assert room.size == size
        assert room.ctypes.data % 64 == 0
