"""The solver against scipy's DOP853 at rtol 1e-12, over the whole range of parameters."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from scipy.integrate import solve_ivp

from odeflow.integrate import integrate_batch
from odeflow.order_parameters.perceptron.averages import delta, delta_squared

Point = dict[str, float]
PARAMETERS = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon")


@njit(error_model="numpy")
def _rates(y, p, rho, v1, v2, eta_w, eta_b, epsilon):  # type: ignore[no-untyped-def]
    """The right-hand side as the theory page writes it, from the plain averages."""
    R, b = y
    m_plus = +(rho * R / 2 - epsilon) - b
    m_minus = -(rho * R / 2 - epsilon) - b
    d_plus, d_minus = delta(m_plus, v1, 1.0), delta(m_minus, v2, -1.0)
    squares = p * v1 * delta_squared(m_plus, v1, 1.0) + (1 - p) * v2 * delta_squared(m_minus, v2, -1.0)
    dR = eta_w * rho / 2 * (1 - R * R) * (p * d_plus - (1 - p) * d_minus) - eta_w**2 / 2 * R * squares
    return np.array([dR, -eta_b * (p * d_plus + (1 - p) * d_minus)])


def reference(point: Point, start: tuple[float, float], alpha: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    def rates(_: float, y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        out: npt.NDArray[np.float64] = _rates(y, *(point[name] for name in PARAMETERS))
        return out

    # From output to output: scipy's interpolant is a thousand times less accurate than its steps.
    states = [np.array(start)]
    for begin, end in zip([0.0, *alpha[:-1]], alpha, strict=True):
        solution = solve_ivp(rates, (begin, end), states[-1], method="DOP853", rtol=1e-12, atol=1e-14, t_eval=[end])
        assert solution.success
        states.append(solution.y[:, -1])
    return np.array(states[1:])


def worst_ratio(point: Point, R0: float, b0: float, end: float, rtol: float) -> float:
    """Largest error in units of atol + rtol |y|, times what the flow itself makes of a small change of the start."""
    alpha = np.concatenate([np.linspace(0, end, 6)[1:-1], [end]])
    atol = 1e-2 * rtol
    states = reference(point, (R0, b0), alpha)
    step = 1e-6
    moved = [
        reference(point, (R0 + step * (R0 < 0) - step * (R0 >= 0), b0), alpha),
        reference(point, (R0, b0 + step), alpha),
    ]
    gain = np.maximum(1.0, max(np.abs(other - states).max() / step for other in moved))
    batch = integrate_batch(**point, R0=R0, b0=b0, alpha=alpha, rtol=rtol, atol=atol)  # type: ignore[arg-type]
    assert batch.status[0] == 0
    return float(np.max(np.abs(batch.y[0] - states) / (atol + rtol * np.abs(states))) / gain)


def log_uniform(low: float, high: float) -> st.SearchStrategy[float]:
    to_value: Callable[[float], float] = lambda x: float(np.exp(x))
    return st.floats(float(np.log(low)), float(np.log(high))).map(to_value)


points = st.fixed_dictionaries(
    {
        "p": st.floats(0.02, 0.98),
        "rho": st.floats(0, 10),
        "v1": log_uniform(0.01, 10),
        "v2": log_uniform(0.01, 10),
        "eta_w": log_uniform(0.01, 3),
        "eta_b": log_uniform(0.01, 3),
        "epsilon": st.floats(0, 5),
    }
)


@pytest.mark.slow
@settings(max_examples=60)
@given(
    point=points,
    R0=st.floats(-1, 1),
    b0=st.floats(-3, 3),
    end=log_uniform(1, 1e4),
    rtol=st.sampled_from([1e-5, 1e-6, 1e-8, 1e-10]),
)
def test_agrees_with_dop853_to_ten_times_the_tolerance(
    point: Point, R0: float, b0: float, end: float, rtol: float
) -> None:
    assert worst_ratio(point, R0, b0, end, rtol) <= 10
