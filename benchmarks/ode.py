"""20,000 random trajectories of the seed model: `integrate_batch` against scipy, diffrax and heyoka, same tolerances."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from math import factorial
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.integrate import solve_ivp
from scipy.special import erf

from benchmarks.timing import in_turn, seconds, table
from odeflow import integrate_batch
from odeflow.numerics.threads import threads

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


HEYOKA_LANES = 8
TERMS = 8  # of the power series of the quadrature in the second average: its error is then below that of the solver


def heyoka_constants(points: dict[str, Array]) -> Array:
    """Return what depends on the parameters alone, computed once a point: rows for `heyoka_rates`, a column a point."""
    p, rho, v1, v2, eta_w, eta_b, epsilon = (points[name] for name in NAMES)
    rows = [rho / 2, epsilon, eta_w * rho / 2, eta_b]
    nodes, weights = np.polynomial.legendre.leggauss(12)
    for weight, v in ((p, v1), (1 - p, v2)):
        q = 1 + 4 * v
        a = np.sqrt(q / (1 + 8 * v))[:, None]
        x = (1 + a) / 2 + (1 - a) / 2 * nodes
        integrand = 2 / np.pi * (1 - a) * weights / (1 + x * x)
        rows += [weight * 2 / np.sqrt(np.pi * (1 + 2 * v)), eta_w**2 / 2 * weight * v * 4 / np.pi / np.sqrt(q)]
        rows += [1 / (1 + 2 * v), 2 / q, 1 / np.sqrt((1 + 2 * v) * q), 1 / np.sqrt(q * (1 + 6 * v))]
        rows += [np.sum(integrand * (1 - x * x) ** k, axis=1) / factorial(k) for k in range(TERMS)]
    return np.array(rows)


def heyoka_rates(hy: Any) -> list[Any]:
    """Return the system for heyoka: closed forms with two exponentials and two error functions an average, and a series."""
    R, b = hy.make_vars("R", "b")

    def side(u: Any, first: int) -> tuple[Any, Any]:
        scale, scale_2, in_A, in_C, in_z, in_g, *series = (hy.par[first + k] for k in range(6 + TERMS))
        one = scale * hy.exp(-in_A * u * u) * (1.0 - hy.erf(in_z * u))
        g = in_g * u
        F = series[-1]
        for coefficient in reversed(series[:-1]):
            F = F * (g * g) + coefficient
        tail = 1.0 - hy.erf(g)
        return one, scale_2 * hy.exp(-in_C * u * u) * (tail * tail + hy.exp(-2.0 * g * g) * F)

    margin = hy.par[0] * R - hy.par[1]
    plus, plus_2 = side(margin - b, 4)
    minus, minus_2 = side(margin + b, 10 + TERMS)
    return [
        (R, hy.par[2] * (1.0 - R * R) * (plus + minus) - R * (plus_2 + minus_2)),
        (b, hy.par[3] * (minus - plus)),
    ]


def heyoka_solver(points: dict[str, Array], rtol: float) -> Callable[[], Array]:
    """Return a solver of all points with heyoka: Taylor's method in batches of 8, a thread a core."""
    import heyoka as hy

    constants = heyoka_constants(points)
    rows, count = constants.shape
    shape = (rows, HEYOKA_LANES)
    first = hy.taylor_adaptive_batch(heyoka_rates(hy), np.zeros((2, HEYOKA_LANES)), tol=rtol, pars=np.zeros(shape))
    integrators = [copy.deepcopy(first) for _ in range(threads())]
    final = np.empty((count, 2))

    def part(worker: int) -> None:
        one = integrators[worker]
        for i in range(worker * HEYOKA_LANES, count, HEYOKA_LANES * len(integrators)):
            one.pars[:], one.state[:] = constants[:, i : i + HEYOKA_LANES], 0.0
            one.set_time(0.0)
            one.propagate_until(ALPHA)
            final[i : i + HEYOKA_LANES] = one.state.T

    def solve() -> Array:
        with ThreadPoolExecutor(len(integrators)) as pool:
            list(pool.map(part, range(len(integrators))))
        return final

    return solve


def nearest_rival() -> str:
    """Measure `integrate_batch` against heyoka, which comes nearest, also at points that share their variances."""
    rows = []
    for kind, given in (("all random", {}), ("v1 = 1, v2 = 1.5", {"v1": 1.0, "v2": 1.5})):
        points = random_points(POINTS)
        points |= {name: np.full(POINTS, value) for name, value in given.items()}
        exact = integrate_batch(**points, alpha=[ALPHA], rtol=1e-13, atol=1e-15).y[:, 0]
        for rtol in (1e-6, 1e-8):

            def own(rtol: float = rtol, points: dict[str, Array] = points) -> Array:
                return integrate_batch(**points, alpha=[ALPHA], rtol=rtol, atol=1e-2 * rtol).y[:, 0]

            answers = {"odeflow `integrate_batch`": own, "heyoka, batches of 8": heyoka_solver(points, rtol)}
            times = in_turn(answers, clock=time.process_time)
            least = min(times.values())
            for name, answer in answers.items():
                error = np.max(np.abs(answer() - exact) / (1e-2 * rtol + rtol * np.abs(exact)))
                cost = times[name] / POINTS * 1e6
                rows.append([kind, f"{rtol:g}", name, f"{cost:.3g} us", f"{times[name] / least:.3g}", f"{error:.2g}"])
    return (
        "The nearest rival is heyoka, which compiles Taylor's method for the system. It has the same closed forms (an error function\n"
        f"and a series of {TERMS} terms), with all that depends on the parameters alone computed beforehand, and a thread a core. The time\n"
        "is that of one core for a point (medians of 5 runs in turn).\n\n"
        + table(["points", "rtol", "solver", "a point", "ratio", "error / tolerance"], rows)
    )


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
        times = in_turn(answers, clock=time.process_time)
        error = {name: np.max(np.abs(answer() - exact) / scale) for name, answer in answers.items()}
        scipy_one_by_one(few, rtol, compiled)
        for name, one, count in (("one by one, compiled", compiled, ONE_BY_ONE), ("one by one, NumPy", plain, 100)):
            some = {key: column[:count] for key, column in points.items()}
            times[name] = (
                seconds(lambda some=some, one=one, rtol=rtol: scipy_one_by_one(some, rtol, one), time.process_time)
                * POINTS
                / count
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
        "0.5), R and b at alpha = 100, atol = rtol / 100, compiled code warm, processor time, medians of 5 runs in turn. Point by point,\n"
        f"{ONE_BY_ONE} points (compiled) and 100 (NumPy) were solved and their time scaled. The last column is the largest\n"
        "error in units of atol + rtol |y|.\n\n"
        + table(["rtol", "solver", "time", "ratio to odeflow", "error / tolerance"], rows)
        + "\n\n"
        + nearest_rival()
    )
