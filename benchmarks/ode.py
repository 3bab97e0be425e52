"""20,000 random trajectories of the seed model: `integrate_batch` against scipy and diffrax, same tolerances."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.integrate import solve_ivp
from scipy.special import erf

from benchmarks.timing import in_turn, seconds, table
from odeflow import integrate_batch

Array = npt.NDArray[np.float64]

POINTS = 20_000
ONE_BY_ONE = 500  # of them are solved one by one by scipy, and the time is scaled
ALPHA = 100.0
NAMES = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)


def random_points(count: int, seed: int = 1) -> dict[str, Array]:
    """Return parameters drawn uniformly from the ranges of a typical sweep."""
    rng = np.random.default_rng(seed)
    ranges = ((0.3, 0.7), (1, 4), (0.5, 2), (0.5, 2), (0.02, 0.5), (0.05, 0.5), (0, 1.5))
    return {name: rng.uniform(low, high, count) for name, (low, high) in zip(NAMES, ranges, strict=True)}


def side(xp: Any, erf: Callable[[Any], Any], u: Any, v: Any) -> tuple[Any, Any]:
    """Return tau <delta> and <delta^2> of one class at u = tau m, with `xp` and `erf` of NumPy or JAX.

    As lean as library functions allow: two exponentials, two error functions, six more exponentials for the quadrature.
    """
    q = 1 + 4 * v
    first = 2 / xp.sqrt(np.pi * (1 + 2 * v)) * xp.exp(-u * u / (1 + 2 * v)) * (1 - erf(u / xp.sqrt((1 + 2 * v) * q)))
    g2 = u * u / (q * (1 + 6 * v))
    a = xp.sqrt(q / (1 + 8 * v))
    integral = 0.0
    for node, weight in zip(NODES, WEIGHTS, strict=True):
        x2 = ((1 + a) / 2 + (1 - a) / 2 * node) ** 2
        integral = integral + weight * xp.exp(-g2 * (1 + x2)) / (1 + x2)
    tail = 1 - erf(u / xp.sqrt(q * (1 + 6 * v)))
    second = 4 / np.pi / xp.sqrt(q) * xp.exp(-2 * u * u / q) * (tail * tail + 2 / np.pi * (1 - a) * integral)
    return first, second


def rates(xp: Any, erf: Callable[[Any], Any], R: Any, b: Any, point: Any) -> tuple[Any, Any]:
    """Return dR/dalpha and db/dalpha."""
    p, rho, v1, v2, eta_w, eta_b, epsilon = point
    margin = rho * R / 2 - epsilon
    plus, plus_2 = side(xp, erf, margin - b, v1)
    minus, minus_2 = side(xp, erf, margin + b, v2)
    dR = eta_w * rho / 2 * (1 - R * R) * (p * plus + (1 - p) * minus)
    dR = dR - eta_w**2 / 2 * R * (p * v1 * plus_2 + (1 - p) * v2 * minus_2)
    return dR, -eta_b * (p * plus - (1 - p) * minus)


def compiled_rates() -> Callable[..., Array]:
    """Return the right-hand side of one point compiled by numba, from the package's plain averages."""
    from odeflow.order_parameters.perceptron.averages import delta, delta_squared

    @njit(error_model="numpy")  # type: ignore[untyped-decorator]
    def one(y: Array, p: float, rho: float, v1: float, v2: float, eta_w: float, eta_b: float, epsilon: float) -> Array:
        R, b = y
        m_plus, m_minus = rho * R / 2 - epsilon - b, -(rho * R / 2 - epsilon) - b
        plus, minus = delta(m_plus, v1, 1.0), delta(m_minus, v2, -1.0)
        squares = p * v1 * delta_squared(m_plus, v1, 1.0) + (1 - p) * v2 * delta_squared(m_minus, v2, -1.0)
        dR = eta_w * rho / 2 * (1 - R * R) * (p * plus - (1 - p) * minus) - eta_w**2 / 2 * R * squares
        return np.array([dR, -eta_b * (p * plus + (1 - p) * minus)])

    return one  # type: ignore[no-any-return]


def scipy_one_by_one(points: dict[str, Array], rtol: float, one: Callable[..., Any]) -> Array:
    """Solve every point with `solve_ivp`."""
    final = []
    for point in zip(*points.values(), strict=True):
        final.append(
            solve_ivp(lambda _, y, point=point: one(y, *point), (0, ALPHA), [0, 0], rtol=rtol, atol=1e-2 * rtol).y[
                :, -1
            ]
        )
    return np.array(final)


def scipy_stacked(points: dict[str, Array], rtol: float) -> Array:
    """Solve all points as one system with `solve_ivp`."""
    columns = tuple(points.values())

    def right_hand_side(_: float, y: Array) -> Array:
        R, b = y.reshape(2, -1)
        return np.concatenate(rates(np, erf, R, b, columns))

    start = np.zeros(2 * columns[0].size)
    return (
        np.asarray(solve_ivp(right_hand_side, (0, ALPHA), start, rtol=rtol, atol=1e-2 * rtol).y[:, -1]).reshape(2, -1).T
    )


def diffrax_solver(points: dict[str, Array]) -> Callable[[float], Array]:
    """Return a solver of all points with diffrax: Dopri5, vmap, jit, float64, all cores."""
    import diffrax
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def one(point: Any, rtol: Any) -> Any:
        term = diffrax.ODETerm(lambda _, y, args: jnp.stack(rates(jnp, jax.scipy.special.erf, y[0], y[1], args)))
        control = diffrax.PIDController(rtol=rtol, atol=1e-2 * rtol)
        solution = diffrax.diffeqsolve(
            term,
            diffrax.Dopri5(),
            0.0,
            ALPHA,
            None,
            jnp.zeros(2),
            point,
            stepsize_controller=control,
            max_steps=100_000,
        )
        return solution.ys[0]

    columns = tuple(jnp.asarray(column) for column in points.values())
    batch = jax.jit(jax.vmap(one, in_axes=(0, None)))
    return lambda rtol: np.asarray(batch(columns, rtol).block_until_ready())


def run() -> str:
    """Measure, and return a section of Markdown."""
    points = random_points(POINTS)
    few = {name: column[:ONE_BY_ONE] for name, column in points.items()}
    compiled = compiled_rates()

    def plain(y: Array, *point: float) -> Array:
        return np.array(rates(np, erf, y[0], y[1], point))

    with_diffrax = diffrax_solver(points)
    exact = integrate_batch(**points, alpha=[ALPHA], rtol=1e-13, atol=1e-15).y[:, 0]
    rows = []
    for rtol in (1e-6, 1e-8):
        scale = 1e-2 * rtol + rtol * np.abs(exact)
        answers = {
            "odeflow": lambda rtol=rtol: integrate_batch(**points, alpha=[ALPHA], rtol=rtol, atol=1e-2 * rtol).y[:, 0],
            "stacked": lambda rtol=rtol: scipy_stacked(points, rtol),
            "diffrax": lambda rtol=rtol: with_diffrax(rtol),
        }
        times = in_turn(answers)
        error = {name: np.max(np.abs(answer() - exact) / scale) for name, answer in answers.items()}
        scipy_one_by_one(few, rtol, compiled)
        for name, one, count in (("one by one, compiled", compiled, ONE_BY_ONE), ("one by one, NumPy", plain, 100)):
            some = {key: column[:count] for key, column in points.items()}
            times[name] = (
                seconds(lambda some=some, one=one, rtol=rtol: scipy_one_by_one(some, rtol, one)) * POINTS / count
            )
            error[name] = np.max(np.abs(scipy_one_by_one(some, rtol, one) - exact[:count]) / scale[:count])
        texts = {
            "odeflow": "odeflow `integrate_batch`",
            "one by one, NumPy": "scipy `solve_ivp` RK45, point by point, right-hand side in NumPy",
            "one by one, compiled": "scipy `solve_ivp` RK45, point by point, right-hand side compiled by numba",
            "stacked": "scipy `solve_ivp` RK45, all points stacked",
            "diffrax": "diffrax Dopri5, vmap and jit, float64",
        }
        for name, text in texts.items():
            ratio = times[name] / times["odeflow"]
            rows.append([f"{rtol:g}", text, f"{times[name]:.3g} s", f"{ratio:.3g}", f"{error[name]:.2g}"])
    return (
        "## Theory: 20,000 trajectories\n\n"
        f"{POINTS:,} random points (p 0.3 to 0.7, rho 1 to 4, v 0.5 to 2, epsilon 0 to 1.5, eta_w 0.02 to 0.5, eta_b 0.05 to\n"
        "0.5), R and b at alpha = 100, atol = rtol / 100, compiled code warm, medians of 5 runs in turn. Point by point,\n"
        f"{ONE_BY_ONE} points (compiled) and 100 (NumPy) were solved and their time scaled. The last column is the largest\n"
        "error in units of atol + rtol |y|.\n\n"
        + table(["rtol", "solver", "time", "ratio to odeflow", "error / tolerance"], rows)
    )
