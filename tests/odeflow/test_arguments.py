"""What the public functions make of arguments that are labelled, signed zeros, or out of range: right, or one clear error."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import solve_ivp

from odeflow import (
    Adversary,
    GaussianMixture,
    LearningRule,
    classification_error,
    end_states_batch,
    fixed_points_batch,
    integrate,
    integrate_batch,
    jacobian,
    learning_time,
    rates,
    simulate,
    sweep,
)
from odeflow.sweeps.computations import point_seed

MODEL = GaussianMixture(p=0.7), LearningRule(), Adversary(1.0)
FREE = GaussianMixture(p=0.7), LearningRule(normalised=False), Adversary(1.0)


@pytest.mark.parametrize("Q0", [1.0, 0.3])
def test_learning_time_of_free_weights(Q0: float) -> None:
    # the crossing, by scipy's solver on the plain formulas and bisection on the error of w/|w|
    mixture, rule, adversary = FREE

    def slope(_: float, y: Any) -> Any:
        R, b, Q = y
        return rates(float(np.clip(R, -math.sqrt(Q), math.sqrt(Q))), b, mixture, rule, adversary, Q=Q)

    def excess(_: float, y: Any) -> float:
        return float(classification_error(y[0], y[1], mixture, Q=y[2])) - 0.28

    excess.terminal = True  # type: ignore[attr-defined]
    solved = solve_ivp(slope, (0, 40), [0.0, 0.0, Q0], "DOP853", events=excess, rtol=1e-10, atol=1e-12)
    time = learning_time(*FREE, error=0.28, Q0=Q0)
    assert time == pytest.approx(float(solved.t_events[0][0]), rel=1e-7)
    assert learning_time(*FREE, error=0.28, start={"Q": Q0}) == time


X = xr.DataArray([0.0, 1.0], dims="x")
Y = xr.DataArray([0.5, 0.6, 0.7], dims="y")


def test_dataarrays_broadcast_by_name() -> None:
    grid = integrate_batch(alpha=[5.0], epsilon=X.values[:, None], p=Y.values[None, :]).y
    np.testing.assert_array_equal(integrate_batch(alpha=[5.0], epsilon=X, p=Y).y, grid)
    turned = integrate_batch(alpha=[5.0], p=Y, epsilon=X).y.reshape(3, 2, 1, 2)  # dims in the order given
    np.testing.assert_array_equal(turned.swapaxes(0, 1).reshape(6, 1, 2), grid)
    start = xr.DataArray(np.zeros((3, 2)), dims=("y", "x"))
    np.testing.assert_array_equal(integrate_batch(alpha=[5.0], start={"b": start}, epsilon=X, p=Y).y, grid)
    points = fixed_points_batch(epsilon=X.values[:, None], p=Y.values[None, :])
    np.testing.assert_array_equal(fixed_points_batch(p=Y, epsilon=X).count.reshape(3, 2).T, points.count.reshape(2, 3))
    ends = end_states_batch(epsilon=X, p=Y)
    np.testing.assert_array_equal(ends.R, end_states_batch(epsilon=X.values[:, None], p=Y.values).R)
    assert rates(0.1 * X, 0.1 * Y, *MODEL)[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: integrate_batch(alpha=[1.0], epsilon=X, p=[0.5, 0.6]), "beside DataArrays"),
        (lambda: fixed_points_batch(epsilon=X, p=[0.5, 0.6]), "beside DataArrays"),
        (lambda: integrate_batch(alpha=[1.0], epsilon=X, rho=Y.rename(y="x")), "different coordinates"),
        (
            lambda: integrate_batch(alpha=[1.0], epsilon=X.assign_coords(x=[0, 1]), rho=X.assign_coords(x=[1, 2])),
            "different coordinates",
        ),
        (lambda: end_states_batch(epsilon=[0.0, 1.0], b0=[0.1, 0.2, 0.3]), "do not broadcast together"),
        (lambda: end_states_batch(R0=[0.0, 2.0]), r"R0 = 2\.0"),
        (lambda: end_states_batch(b0=np.nan), "b0 = nan"),
        (lambda: sweep(*MODEL, over={"epsilon": X, "rho": X}, alpha=[1.0]), r"over\['epsilon'\] is a DataArray"),
        (lambda: sweep(*MODEL, over={"epsilon": X}, alpha=[1.0]), r"allowed is the dim 'epsilon' alone"),
        (lambda: rates(5.0, 0.0, *MODEL), r"R = 5\.0 is out of range: allowed is in \[-1, 1\]"),
        (lambda: jacobian(-1.1, 0.0, *MODEL), r"R = -1\.1"),
        (lambda: rates(1.5, 0.0, *FREE, Q=2.0), r"R = 1\.5 .* \[-sqrt\(Q\), sqrt\(Q\)\]"),
        (lambda: rates(0.5, np.nan, *MODEL), "b = nan"),
        (lambda: rates(0.5, 0.0, *FREE, Q=np.inf), "Q = inf"),
        (lambda: rates("0.5x", 0.0, *MODEL), "R = '0.5x' is not a number"),
    ],
    ids=[str(i) for i in range(15)],
)  # fmt: skip
def test_what_is_refused(call: Callable[[], Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_a_dataarray_of_its_own_dim_is_a_grid() -> None:
    values = xr.DataArray([0.0, 1.0], dims="epsilon")
    assert sweep(*MODEL, over={"epsilon": values}, alpha=[1.0]).sizes["epsilon"] == 2


def test_minus_zero_is_zero() -> None:
    # also in what is kept: the numbers of a run hang on the text of its parameters
    assert math.copysign(1.0, Adversary(-0.0).epsilon) == 1
    assert point_seed(1, b0=-0.0).spawn_key == point_seed(1, b0=0.0).spawn_key
    settings: dict[str, Any] = {"compute": "simulate", "N": 20, "runs": 2, "rng": 3, "alpha": [1.0]}
    plus = sweep(*MODEL, over={"b0": [0.0, 1.0]}, **settings)
    minus = sweep(*MODEL, over={"b0": [-0.0, 1.0]}, **settings)
    np.testing.assert_array_equal(plus.b, minus.b)
    assert not np.any(np.signbit(minus.b0))
    one = simulate(*MODEL, N=20, alpha=[1.0], runs=2, rng=3, b0=-0.0)
    assert not np.signbit(one.b0)
    assert not np.signbit(integrate(*MODEL, alpha=[1.0], b0=-0.0).b0)
