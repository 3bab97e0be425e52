"""The solver on systems with exact solutions: order, interpolant, status, independence of lanes and threads."""

from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
import pytest
from numba.extending import overload

from odeflow.integrate import integrate_batch
from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES
from odeflow.numerics.dop853 import E5, F5, STAGES, A, B

pytestmark = pytest.mark.slow

Array = npt.NDArray[np.float64]


class Oscillator(NamedTuple):
    """y1' = y2, y2' = -y1: the same steps along the whole trajectory."""

    phase: Array


class Power(NamedTuple):
    """y' = y^2: y = 1 / (1/y0 - t), singular at t = 1/y0."""

    start: Array
    seen: Array = np.zeros(1)
    """How many lanes that are not idle were evaluated."""


class Root(NamedTuple):
    """y' = -sqrt(y): reaches 0 at t = 2 and is not a number beyond."""

    start: Array


def _is(system: Any, kind: type) -> bool:
    return getattr(system, "instance_class", None) is kind


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):  # type: ignore[no-untyped-def]
    if _is(system, Oscillator):

        def load(system, index, lane, constants, y):  # type: ignore[no-untyped-def]
            y[lane] = np.cos(system.phase[index])
            y[LANES + lane] = -np.sin(system.phase[index])

        return load
    if _is(system, Power) or _is(system, Root):

        def load(system, index, lane, constants, y):  # type: ignore[no-untyped-def]
            y[lane] = system.start[index]
            constants[lane] = 1.0

        return load
    return None


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):  # type: ignore[no-untyped-def]
    if _is(system, Oscillator):

        def derivative(system, constants, y, dydt):  # type: ignore[no-untyped-def]
            for lane in range(LANES):
                dydt[lane] = y[LANES + lane]
                dydt[LANES + lane] = -y[lane]

        return derivative
    if _is(system, Power):

        def derivative(system, constants, y, dydt):  # type: ignore[no-untyped-def]
            for lane in range(LANES):
                dydt[lane] = y[lane] * y[lane]
                system.seen[0] += constants[lane]

        return derivative
    if _is(system, Root):

        def derivative(system, constants, y, dydt):  # type: ignore[no-untyped-def]
            for lane in range(LANES):
                dydt[lane] = -np.sqrt(y[lane])

        return derivative
    return None


def solve(system: Any, times: Array, rtol: float = 1e-8, max_steps: int = 100_000) -> runge_kutta.Solution:
    return runge_kutta.solve(
        system,
        trajectories=system[0].size,
        variables=2 if isinstance(system, Oscillator) else 1,
        constants=1,
        times=times,
        rtol=rtol,
        atol=rtol,
        max_steps=max_steps,
    )


def exponent(x: list[float], y: list[float]) -> float:
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


TOLERANCES = np.logspace(-4, -9, 11)


@pytest.mark.slow
def test_the_error_at_the_end_falls_as_the_eighth_power_of_the_step() -> None:
    end = 50.0
    steps, errors = [], []
    for rtol in TOLERANCES:
        solution = solve(Oscillator(np.zeros(1)), np.array([end]), rtol)
        steps.append(float(solution.steps[0]))
        errors.append(float(np.abs(solution.y[0, 0] - [np.cos(end), -np.sin(end)]).max()))
    assert exponent(steps, errors) == pytest.approx(-8, abs=0.5)


@pytest.mark.slow
def test_the_error_of_the_interpolant_falls_as_the_eighth_power_of_the_step() -> None:
    # order 7 means that the error inside a step is of order 8 in its length
    times = np.linspace(0, 50, 2001)
    steps, errors = [], []
    for rtol in TOLERANCES:
        solution = solve(Oscillator(np.zeros(1)), times, rtol)
        steps.append(float(solution.steps[0]))
        errors.append(float(np.abs(solution.y[0, :, 0] - np.cos(times)).max()))
    assert exponent(steps, errors) == pytest.approx(-8, abs=0.5)


@pytest.mark.parametrize("rtol", [1e-5, 1e-8, 1e-11])
@pytest.mark.slow
def test_output_inside_the_steps_is_within_the_tolerance(rtol: float) -> None:
    times = np.linspace(0, 10, 501)
    solution = solve(Oscillator(np.array([0.3])), times, rtol)
    exact = np.stack([np.cos(times + 0.3), -np.sin(times + 0.3)], axis=1)
    assert np.max(np.abs(solution.y[0] - exact) / (rtol + rtol * np.abs(exact))) < 10


def test_error_estimates_satisfy_the_conditions_up_to_order_five_and_are_independent() -> None:
    A_, c = A[:STAGES, :STAGES], A[:STAGES].sum(axis=1)
    one = np.ones(STAGES)
    trees = [one, c, c**2, A_ @ c, c**3, c * (A_ @ c), A_ @ c**2, A_ @ A_ @ c]
    trees += [c**4, c**2 * (A_ @ c), (A_ @ c) ** 2, c * (A_ @ c**2), A_ @ c**3, c * (A_ @ A_ @ c)]
    trees += [A_ @ (c * (A_ @ c)), A_ @ A_ @ c**2, A_ @ A_ @ A_ @ c]
    for estimate in (E5, F5):
        np.testing.assert_allclose(np.array(trees) @ estimate[:STAGES], 0, atol=1e-14)
        assert abs(estimate[:STAGES] @ c**5) + abs(estimate[:STAGES] @ (A_ @ c**4)) > 1e-6
    np.testing.assert_allclose(B[:STAGES] @ c**7, 1 / 8, rtol=1e-14)


@pytest.mark.slow
def test_a_singular_solution_says_so_and_keeps_what_it_had() -> None:
    times = np.array([0.0, 0.5, 0.9, 1.5])
    solution = solve(Power(np.array([1.0, 0.1])), times)
    assert solution.status.tolist() == [2, 0]
    np.testing.assert_allclose(solution.y[0, :3, 0], 1 / (1 - times[:3]), rtol=1e-6)
    assert np.isnan(solution.y[0, 3, 0])
    np.testing.assert_allclose(solution.y[1, :, 0], 1 / (10 - times), rtol=1e-6)


@pytest.mark.slow
def test_a_right_hand_side_that_is_not_finite_says_so() -> None:
    solution = solve(Root(np.array([-1.0])), np.array([1.0]))
    assert solution.status.tolist() == [3]


def test_a_lane_whose_trajectory_is_done_is_idle() -> None:
    alone, together = Power(np.array([0.999]), np.zeros(1)), Power(np.append(np.full(31, 1e-3), 0.999), np.zeros(1))
    solve(alone, np.array([1.0]))
    solve(together, np.array([1.0]))
    assert together.seen[0] < 3 * alone.seen[0]


def test_too_few_steps_say_so() -> None:
    solution = solve(Oscillator(np.zeros(3)), np.array([1.0, 1e4]), max_steps=50)
    assert solution.status.tolist() == [1, 1, 1]
    assert solution.steps.tolist() == [50, 50, 50]
    np.testing.assert_allclose(solution.y[:, 0, 0], np.cos(1.0), rtol=1e-7)
    assert np.all(np.isnan(solution.y[:, 1]))
    assert set(runge_kutta.STATUS) == {0, 1, 2, 3}


def test_a_system_without_right_hand_side_is_refused() -> None:
    class Nothing(NamedTuple):
        start: Array

    with pytest.raises(Exception, match="load"):
        solve(Nothing(np.zeros(1)), np.array([1.0]))


def random_batch(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    return {
        "p": rng.uniform(0.1, 0.9, count),
        "rho": rng.uniform(0, 5, count),
        "epsilon": rng.uniform(0, 2, count),
        "eta_w": rng.uniform(0.01, 2, count),
    }


ALPHA = np.array([0.0, 1.0, 20.0, 55.5])


def test_a_trajectory_does_not_depend_on_its_neighbours() -> None:
    batch = random_batch(100)
    together = integrate_batch(**batch, alpha=ALPHA)
    order = np.random.default_rng(1).permutation(100)
    shuffled = integrate_batch(**{name: values[order] for name, values in batch.items()}, alpha=ALPHA)
    np.testing.assert_array_equal(shuffled.y, together.y[order])
    alone = [integrate_batch(**{name: values[i] for name, values in batch.items()}, alpha=ALPHA).y[0] for i in (0, 57)]
    np.testing.assert_array_equal(alone, together.y[[0, 57]])


def test_a_batch_does_not_depend_on_the_number_of_threads() -> None:
    batch = random_batch(1000)
    before = numba.get_num_threads()
    results = []
    try:
        for threads in (1, before):
            numba.set_num_threads(threads)
            results.append(integrate_batch(**batch, alpha=ALPHA))
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(results[0].y, results[1].y)
    np.testing.assert_array_equal(results[0].steps, results[1].steps)
