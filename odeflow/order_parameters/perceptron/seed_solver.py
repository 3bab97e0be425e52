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
from odeflow.order_parameters.perceptron.seed import SeedModel
from odeflow.order_parameters.perceptron.windows import (
    BEYOND,
    FIRST,
    LAST,
    TERMS,
    half_width,
    nearest,
    tables,
    window,
    window_constants,
)

__all__ = ["ATOL", "RTOL", "solve"]

RTOL, ATOL = 1e-8, 1e-10
"""The least tolerances of windows."""

_TINY = 1e-300
_DONE, _MAX_STEPS, _STEP_TOO_SMALL, _NOT_FINITE = range(4)

_WIDE = 2.0**20  # half-widths of the windows beyond the first and the last
_AHEAD, _FURTHER = (
    0.6,
    0.65,
)  # of a half-width: how far ahead the centre of the first window is, and that of the next ones


@called
def _place(number, ahead, epsilon, w, lane, windows, work):
    """Put a class, 0 or 1, of a lane into the window with its centre nearest to where it is, or so many half-widths ahead.

    Return whether it was in another.
    """
    prefer_512_bits()
    row = at.PLUS + number * at.CLASS + lane
    half = w[at.WIDTH + row]
    margin = w[at.HALF_RHO + lane] * w[at.OVERLAP + lane] - epsilon
    u = margin - w[at.BIAS + lane] if number == 0 else margin + w[at.BIAS + lane]
    k = nearest(u + ahead * half, half)
    if k == w[at.WINDOW + row]:
        return False
    w[at.WINDOW + row] = k
    if FIRST <= k <= LAST:
        w[at.BY + row] = 1.0 / half
        w[at.SHIFT + row] = -0.5 * k
    else:  # beyond, one window that is so wide that only the way back leads out of it
        half_of_it = _WIDE * half + 2.0 * abs(u)
        near = (BEYOND[1] if k > LAST else BEYOND[0]) * half
        w[at.BY + row] = 1.0 / half_of_it
        w[at.SHIFT + row] = -near / half_of_it - (1.0 if k > LAST else -1.0)
    window(k, w[at.PLACE_B + row], w[at.PLACE_C + row], windows, work)
    times_mean, times_square = w[at.TIMES_MEAN + row], w[at.TIMES_SQUARE + row]
    for i in range(TERMS):
        w[at.MEAN + i * LANES + row] = times_mean * work[i]
        w[at.SQUARE + i * LANES + row] = times_square * work[TERMS + i]
    return True


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
def _load(point, lane, course, end, w, windows, work):
    """Fill a lane with a trajectory."""
    p, rho, v1, v2, eta_w, eta_b, epsilon, second_order, R, b = point
    for number in range(2):
        weight, v = (p, v1) if number == 0 else (1 - p, v2)
        row = at.PLUS + number * at.CLASS + lane
        w[at.PLACE_B + row], w[at.PLACE_C + row], A0, C0 = window_constants(v)
        w[at.WIDTH + row] = half_width(v)
        w[at.TIMES_MEAN + row] = weight * A0
        w[at.TIMES_SQUARE + row] = second_order / 2 * weight * v * C0
        w[at.WINDOW + row] = np.nan  # none
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
        _place(number, _AHEAD, w[at.EPSILON + lane], w, lane, windows, work)


@called
def _move(course, w, lane, windows, work):
    """Put a lane whose step left its windows into others, ahead on its way; if it is there already, halve the step."""
    moved = False
    epsilon, then = at.epsilon_at(course, 0.0, w, lane), at.epsilon_at(course, 1.0, w, lane)
    h = w[at.STEP + lane]
    margin_grows = h * w[at.HALF_RHO + lane] * w[at.SLOPES + lane] - (then - epsilon)
    b_grows = h * w[at.SLOPES + LANES + lane]
    for number in range(2):
        grows = margin_grows > (b_grows if number == 0 else -b_grows)
        moved |= _place(number, _FURTHER if grows else -_FURTHER, epsilon, w, lane, windows, work)
    if not moved:
        w[at.STEP + lane] *= 0.5


@inlined
def _are_finite(w, lane, stages):
    """Return whether the slopes of the first stages are finite."""
    finite = True
    for k in range(2 * stages):
        finite &= np.isfinite(w[at.SLOPES + k * LANES + lane])
    return finite


@called
def _failure(course, w, lane, windows, work):
    """Return the status of a lane whose step was rejected: whether it may go on, in other windows where it left them."""
    if not _are_finite(w, lane, 1):
        return _NOT_FINITE
    if not w[at.REACH + lane] <= 1.0:
        _move(course, w, lane, windows, work)
    elif not _are_finite(w, lane, STAGES):
        return _NOT_FINITE
    return _STEP_TOO_SMALL if w[at.STEP + lane] <= 1e-15 * max(w[at.TIME + lane], _TINY) else _DONE


def _advance(parameters, course, first, last, times, rtol, atol, max_steps, stop, w, windows, out, status, steps):
    """Integrate the trajectories from the first to before the last, and fill their rows of out, status and steps."""
    prefer_512_bits()
    n_times = times.size
    end = times[n_times - 1]
    work = np.zeros(2 * TERMS)
    trajectory = np.full(LANES, -1)  # -1: idle
    to_write, piece = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)  # the next output, and where on the course
    for lane in range(LANES):
        w[at.EVENT + lane] = 1.0
    coming = first
    running = 0
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
                            _place(number, 0.0, w[at.EPSILON + lane], w, lane, windows, work)
                else:
                    code = _failure(course, w, lane, windows, work)
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
                _load(parameters[coming], lane, course, end, w, windows, work)
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
    **other: Any,
) -> Solution:
    """Integrate a batch of trajectories, as `odeflow.numerics.runge_kutta.solve` does, whose arguments these are."""
    if rtol < RTOL or atol < ATOL or course.coefficients.shape[2] > at.POWERS_OF_ONE:
        return runge_kutta.solve(
            system, trajectories=trajectories, times=times, rtol=rtol, atol=atol, max_steps=max_steps, course=course, **other
        )  # fmt: skip
    solution = Solution(
        np.empty((trajectories, times.size, 2)), np.zeros(trajectories, np.int8), np.zeros(trajectories, np.int64)
    )
    given = course if course.edges.size else None  # compiled by itself, and without what a course needs
    windows = tables().ravel()

    def block(first: int, last: int, stop: Flag) -> None:
        room = aligned(at.SIZE)
        _advance(system.parameters, given, first, last, times, rtol, atol, max_steps, stop, room, windows, *solution)

    map_blocks(block, trajectories, least=4 * LANES)
    return solution
