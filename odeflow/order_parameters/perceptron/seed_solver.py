"""The solver of the seed model: DOP853 in lanes as in `odeflow.numerics.runge_kutta`, on windows of the averages.

Method, error estimate, interpolant and statuses are those of `runge_kutta`, whose plainer code says the same. What is its own: the
right-hand side is made of polynomials (`odeflow.order_parameters.perceptron.windows`), and a step that leaves its windows is repeated
with others. Their error is far below the tolerances from `RTOL` and `ATOL` on; below, `runge_kutta` has the exact averages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types
from numba.extending import overload

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES, called, inlined, is_set, kept
from odeflow.numerics.course import CONSTANT, Course
from odeflow.numerics.dop853 import STAGES
from odeflow.numerics.lanes import aligned, prefer_512_bits
from odeflow.numerics.runge_kutta import Solution
from odeflow.numerics.threads import Flag, map_blocks
from odeflow.order_parameters.perceptron import seed_step as at
from odeflow.order_parameters.perceptron.averages import CLASS_ROWS, lane_constants
from odeflow.order_parameters.perceptron.seed import SeedModel
from odeflow.order_parameters.perceptron.windows import FAR, TERMS, half_width, nearest, window

__all__ = ["ATOL", "RTOL", "solve"]

RTOL, ATOL = 1e-8, 1e-10
"""The least tolerances of windows."""

_TINY = 1e-300
_DONE, _MAX_STEPS, _STEP_TOO_SMALL, _NOT_FINITE = range(4)

_SLOTS = 64  # windows of a class that are kept
_AHEAD, _FURTHER = 0.6, 0.65  # of a half-width: how far ahead the centre of the first window is, and that of the next ones


@called
def _place(number, ahead, w, lane, constants, kept_windows, work):
    """Put a class, 0 or 1, of a lane into the window with its centre nearest to where it is, or so many half-widths ahead.

    Return whether it was in another.
    """
    row = at.PLUS + number * at.CLASS + lane
    v = w[at.VARIANCE + row]
    half = half_width(v)
    k = nearest(_argument(number, w[at.OVERLAP + lane], w[at.BIAS + lane], w, lane) + ahead * half, half)
    if k == w[at.WINDOW + row]:
        return False
    keys, tables = kept_windows
    slot = number * _SLOTS + (np.int64(k) & (_SLOTS - 1))
    table = slot * 2 * TERMS
    if keys[2 * slot] != v or keys[2 * slot + 1] != k:
        keys[2 * slot] = v
        keys[2 * slot + 1] = k
        window(k, half, constants, number * CLASS_ROWS, lane, work, tables, table)
    w[at.WINDOW + row] = k
    w[at.BY + row] = 0.0 if k == FAR else 1.0 / half
    w[at.SHIFT + row] = 0.0 if k == FAR else -0.5 * k
    times_mean, times_square = w[at.TIMES_MEAN + row], w[at.TIMES_SQUARE + row]
    for i in range(TERMS // 2):
        w[at.MEAN + 2 * i * LANES + row] = times_mean * tables[table + 4 * i]
        w[at.MEAN + (2 * i + 1) * LANES + row] = times_mean * tables[table + 4 * i + 1]
        w[at.SQUARE + 2 * i * LANES + row] = times_square * tables[table + 4 * i + 2]
        w[at.SQUARE + (2 * i + 1) * LANES + row] = times_square * tables[table + 4 * i + 3]
    return True


@inlined
def _argument(number, R, b, w, lane):
    """Return u of a class."""
    margin = w[at.HALF_RHO + lane] * R - w[at.EPSILON + lane]
    return margin - b if number == 0 else margin + b


def _enter(course, piece, w, lane, end):
    """Bring a lane to the beginning of a piece of the course, and say where its steps must end."""


@overload(_enter)
def _enter_course(course, piece, w, lane, end):
    if isinstance(course, types.NoneType):

        def enter(course, piece, w, lane, end):
            w[at.STOP_AT + lane] = end

    else:

        def enter(course, piece, w, lane, end):
            w[at.BEGIN + lane] = course.edges[piece]
            w[at.STOP_AT + lane] = min(course.edges[piece + 1], end)
            terms = course.coefficients.shape[2]
            for i in range(3):
                if course.changes[i]:
                    for k in range(terms):
                        row = at.POWERS + (i * at.POWERS_OF_ONE + k) * LANES
                        w[row + lane] = course.coefficients[piece, i, terms - 1 - k]
                    w[at.EPSILON + i * LANES + lane] = course.coefficients[piece, i, terms - 1]

    return enter


@called
def _load(point, lane, last, course, end, w, constants, kept_windows, work):
    """Fill a lane with a trajectory; the last one that was filled was `last`."""
    p, rho, v1, v2, eta_w, eta_b, epsilon, second_order, R, b = point
    for number in range(2):
        weight, v = (p, v1) if number == 0 else (1 - p, v2)
        row = at.PLUS + number * at.CLASS
        if w[at.VARIANCE + row + last] == v:
            for k in range(number * CLASS_ROWS, (number + 1) * CLASS_ROWS):
                constants[k * LANES + lane] = constants[k * LANES + last]
        else:
            lane_constants(v, constants, number * CLASS_ROWS, lane)
        w[at.VARIANCE + row + lane] = v
        w[at.TIMES_MEAN + row + lane] = weight
        w[at.TIMES_SQUARE + row + lane] = second_order / 2 * weight * v
        w[at.WINDOW + row + lane] = np.nan  # none
    w[at.HALF_RHO + lane] = rho / 2
    w[at.EPSILON + lane] = epsilon
    w[at.ETA_W + lane] = eta_w
    w[at.ETA_B + lane] = eta_b
    w[at.OVERLAP + lane] = R
    w[at.BIAS + lane] = b
    w[at.STEP + lane] = -1.0  # the first
    w[at.TIME + lane] = 0.0
    w[at.STEPS + lane] = 0.0
    _enter(course, 0, w, lane, end)
    for number in range(2):  # most begin with a margin that grows
        _place(number, _AHEAD, w, lane, constants, kept_windows, work)


@called
def _move(w, lane, constants, kept_windows, work):
    """Put a lane whose step left its windows into others, ahead on its way; if it is there already, halve the step."""
    moved = False
    faster, db = w[at.HALF_RHO + lane] * w[at.SLOPES + lane], w[at.SLOPES + LANES + lane]
    for number in range(2):
        grows = faster > (db if number == 0 else -db)
        moved |= _place(number, _FURTHER if grows else -_FURTHER, w, lane, constants, kept_windows, work)
    if not moved:
        w[at.STEP + lane] *= 0.5


@inlined
def _are_finite(w, lane, stages):
    """Return whether the slopes of the first stages are finite."""
    for k in range(2 * stages):
        if not np.isfinite(w[at.SLOPES + k * LANES + lane]):
            return False
    return True


@called
def _failure(w, lane, constants, kept_windows, work):
    """Return the status of a lane whose step was rejected: whether it may go on, in other windows where it left them."""
    if not _are_finite(w, lane, 1):
        return _NOT_FINITE
    if not w[at.REACH + lane] <= 1.0:
        _move(w, lane, constants, kept_windows, work)
    elif not _are_finite(w, lane, STAGES):
        return _NOT_FINITE
    return _STEP_TOO_SMALL if w[at.STEP + lane] <= 1e-15 * max(w[at.TIME + lane], _TINY) else _DONE


def _advance(
    parameters, course, first, last, times, rtol, atol, max_steps, stop, w, constants, out, status, steps
):
    """Integrate the trajectories from the first to before the last, and fill their rows of out, status and steps."""
    prefer_512_bits()
    n_times = times.size
    end = times[n_times - 1]
    kept_windows = np.zeros(4 * _SLOTS), np.zeros(4 * _SLOTS * TERMS)
    work = np.zeros(6 * TERMS)
    trajectory = np.full(LANES, -1)  # -1: idle
    to_write, piece = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)  # the next output, and where on the course
    for lane in range(LANES):
        w[at.EVENT + lane] = 1.0
    coming = first
    running = 0
    loaded = 0
    while True:
        for lane in range(LANES):
            if w[at.EVENT + lane] == 0.0:
                continue
            index = trajectory[lane]
            if index >= 0:
                code = _DONE
                if at.is_good(w, lane):
                    if w[at.OUTPUT + lane] == w[at.TIME + lane]:
                        out[index, to_write[lane], 0] = w[at.OVERLAP + lane]
                        out[index, to_write[lane], 1] = w[at.BIAS + lane]
                        to_write[lane] += 1
                        w[at.OUTPUT + lane] = times[to_write[lane]] if to_write[lane] < n_times else np.inf
                    if w[at.STOP_AT + lane] == w[at.TIME + lane] and to_write[lane] < n_times:
                        piece[lane] += 1
                        _enter(course, piece[lane], w, lane, end)
                        for number in range(2):
                            _place(number, 0.0, w, lane, constants, kept_windows, work)
                else:
                    code = _failure(w, lane, constants, kept_windows, work)
                if code == _DONE and w[at.STEPS + lane] >= max_steps and to_write[lane] < n_times:
                    code = _MAX_STEPS
                if code != _DONE:
                    out[index, to_write[lane] :, :] = np.nan
                    to_write[lane] = n_times
                if to_write[lane] == n_times:
                    status[index] = code
                    steps[index] = np.int64(w[at.STEPS + lane])
                    trajectory[lane] = -1
                    running -= 1
            while trajectory[lane] < 0 and coming < last:
                _load(parameters[coming], lane, loaded, course, end, w, constants, kept_windows, work)
                loaded = lane
                piece[lane] = 0
                to_write[lane] = 0
                if times[0] == 0.0:
                    out[coming, 0, 0] = w[at.OVERLAP + lane]
                    out[coming, 0, 1] = w[at.BIAS + lane]
                    to_write[lane] = 1
                if to_write[lane] < n_times:
                    w[at.OUTPUT + lane] = times[to_write[lane]]
                    trajectory[lane] = coming
                    running += 1
                coming += 1
            if trajectory[lane] < 0:  # from here on it computes what nobody reads
                w[at.STEP + lane] = 0.0
                w[at.TIME + lane] = 0.0
                w[at.OUTPUT + lane] = np.inf
        if running == 0 or is_set(stop):
            break
        at.try_step(course, w, rtol, atol)
        if n_times > 1:
            for lane in range(LANES):
                if at.has_output(w, lane):
                    at.write_inside(course, w, rtol, atol, times, trajectory, to_write, out)
                    break
        at.end_step(w, max_steps)


_advance = kept(_advance)


def solve(
    system: SeedModel,
    *,
    trajectories: int,
    times: npt.NDArray[np.float64],
    rtol: float,
    atol: float,
    max_steps: int,
    course: Course = CONSTANT,
    **options: Any,
) -> Solution:
    """Integrate a batch of trajectories, as `odeflow.numerics.runge_kutta.solve` does, whose arguments these are."""
    if rtol < RTOL or atol < ATOL or course.coefficients.shape[2] > at.POWERS_OF_ONE:
        tolerances = {"rtol": rtol, "atol": atol, "max_steps": max_steps}
        return runge_kutta.solve(
            system, trajectories=trajectories, times=times, course=course, **tolerances, **options
        )
    solution = Solution(
        np.empty((trajectories, times.size, 2)), np.zeros(trajectories, np.int8), np.zeros(trajectories, np.int64)
    )
    given = course if course.edges.size else None  # compiled by itself, and without what a course needs

    def block(first: int, last: int, stop: Flag) -> None:
        room = aligned(at.SIZE), aligned(2 * CLASS_ROWS * LANES)
        _advance(system.parameters, given, first, last, times, rtol, atol, max_steps, stop, *room, *solution)

    map_blocks(block, trajectories, least=4 * LANES)
    return solution
