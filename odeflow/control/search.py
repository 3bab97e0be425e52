"""The search: L-BFGS-B from many starts, the optima that it finds, and what certifies the best of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.control.problem import Problem

__all__ = ["Optimum", "curvature", "gap", "search", "starts"]

Array = npt.NDArray[np.float64]

_SAME = 1e-3  # of the bounds' width: optima that differ less are one
_ACCURATE = 1e-9  # of the objective: error of the discretisation
_FINEST = 64
_STATIONARY = 1e-7  # of the objective: what is left to be gained, to first order, where a descent has arrived
_RESTARTS = 10
_NEWTON = 6  # steps at most, and of them those that lower the gap


class Optimum(NamedTuple):
    """A local optimum."""

    objective: float
    numbers: Array
    """The free numbers of the problem, shape (numbers,)."""
    starts: int
    """Number of starts that ended here."""


def starts(problem: Problem, count: int, rng: np.random.Generator, first: Sequence[Array] = ()) -> Iterator[Array]:
    """Yield where the search starts: what is given, then by turns random ramps and numbers that are all random."""
    low, high = problem.box
    yield from first[:count]
    share = problem.times_of_numbers
    for i in range(count - len(first)):
        if i % 2:
            at = rng.random(low.shape)
        else:
            ends = [problem.one_each(rng.random(len(problem.controls))) for _ in range(2)]
            at = ends[0] + (ends[1] - ends[0]) * share
        yield low + (high - low) * at


def search(problem: Problem, begins: Sequence[Array]) -> tuple[Problem, list[Optimum]]:
    """Return the problem, discretised as finely as it needs, and the optima, the best first."""
    problem = _refined(problem, begins, 1e-6)
    while True:
        found: list[Optimum] = []
        for end in sorted((_descend(problem, begin) for begin in begins), key=lambda one: one.objective):
            _sort_in(problem, found, end)
        finer = _refined(problem, [found[0].numbers], _ACCURATE)
        if finer == problem:
            break
        problem, begins = finer, [one.numbers for one in found]
    merged: list[Optimum] = []
    for one in sorted((_polished(problem, one) for one in found), key=lambda one: one.objective):
        _sort_in(problem, merged, one)
    return problem, merged


def _refined(problem: Problem, where: Sequence[Array], tolerance: float) -> Problem:
    """Return the problem with steps so short that half of them would change no objective by more than a tolerance."""
    while problem.refinement < _FINEST:
        finer = replace(problem, refinement=2 * problem.refinement)
        solve, again = problem.solver(), finer.solver()
        if all(abs(solve(numbers).objective - again(numbers).objective) <= tolerance for numbers in where):
            return problem
        problem = finer
    return problem


def _descend(problem: Problem, begin: Array) -> Optimum:
    from scipy.optimize import minimize

    low, high = problem.box
    width, solve = high - low, problem.solver()

    def scaled(x: Array) -> tuple[float, Array]:
        solved = solve(low + width * x)
        return solved.objective, (solved.gradient * width)

    x = (begin - low) / width
    options = {"maxiter": 3000, "maxfun": 10_000, "ftol": 1e-14, "gtol": 1e-9, "maxcor": 20}
    for _ in range(
        _RESTARTS
    ):  # its line search gives up where the memory of curvatures misleads it: without memory it goes on
        done = minimize(scaled, x, jac=True, method="L-BFGS-B", bounds=[(0.0, 1.0)] * x.size, options=options)
        x = np.clip(done.x, 0.0, 1.0)
        if gap(problem, low + width * x, done.jac / width) <= _STATIONARY:
            break
    return Optimum(float(done.fun), np.clip(low + width * x, low, high), 1)


def _sort_in(problem: Problem, found: list[Optimum], end: Optimum) -> None:
    low, high = problem.box
    for i, one in enumerate(found):
        if np.max(np.abs(one.numbers - end.numbers) / (high - low)) <= _SAME:
            found[i] = one._replace(starts=one.starts + end.starts)
            return
    found.append(end)


def gap(problem: Problem, numbers: Array, gradient: Array) -> float:
    """Return how far the objective falls, to first order, at most within the bounds: 0 at an optimum."""
    low, high = problem.box
    return float(np.sum(np.maximum(gradient * (numbers - low), gradient * (numbers - high))))


def hessian(problem: Problem, numbers: Array, free: npt.NDArray[np.bool_]) -> Array:
    """Return second derivatives by the free numbers, each in units of its bounds' width, from differences of the gradient."""
    low, high = problem.box
    solve, width = problem.solver(), high - low
    rows = []
    for at in np.flatnonzero(free):
        step = np.zeros(numbers.shape)
        step[at] = 1e-5 * width[at]
        change = solve(numbers + step).gradient - solve(numbers - step).gradient
        rows.append((change * width / 2e-5)[free])
    matrix = np.array(rows).reshape(len(rows), len(rows))
    return (matrix + matrix.T) / 2


def curvature(problem: Problem, numbers: Array) -> float:
    """Return the least eigenvalue of the second derivatives by the free numbers inside the bounds, nan without any."""
    low, high = problem.box
    free = (numbers > low) & (numbers < high)
    return float(np.linalg.eigvalsh(hessian(problem, numbers, free))[0]) if free.any() else float("nan")


def _polished(problem: Problem, one: Optimum) -> Optimum:
    """Return an optimum after some steps of Newton's method in the numbers inside the bounds."""
    low, high = problem.box
    width, solve = high - low, problem.solver()
    numbers = one.numbers
    now = solve(numbers)
    best = gap(problem, numbers, now.gradient)
    for _ in range(_NEWTON):
        free = (numbers > low) & (numbers < high)
        if not free.any():
            break
        matrix = hessian(problem, numbers, free)
        step = np.zeros(numbers.shape)
        step[free] = np.linalg.lstsq(matrix, -(now.gradient * width)[free], rcond=1e-12)[0]
        moved = np.clip(numbers + width * step, low, high)
        there = solve(moved)
        left = gap(problem, moved, there.gradient)
        if left >= best or there.objective > now.objective + 1e-13:
            break
        numbers, now, best = moved, there, left
    return Optimum(now.objective, numbers, one.starts)
