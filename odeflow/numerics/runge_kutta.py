"""An adaptive Runge-Kutta solver for many small systems at once.

The pair is DOP853 (`odeflow.numerics.dop853`). `LANES` trajectories advance together, each with its own time, step and error
control, so that the arithmetic becomes SIMD code; a lane whose trajectory is done takes the next one. A trajectory's
result does not depend on its neighbours, on the lane, or on the number of threads.

The solver is generic in the right-hand side. A system is a `typing.NamedTuple` of numpy arrays, for which two
functions are given with `numba.extending.overload`: `load` fills one lane with the constants and initial state of one
trajectory, `derivative` evaluates dy/dt in all lanes. `odeflow.order_parameters.perceptron.seed` has an example.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit
from numba.extending import overload

from odeflow.numerics.compilation import LANES, inlined, is_set, kept
from odeflow.numerics.course import CONSTANT, Course, course_in_lanes, enter_piece, leave_piece
from odeflow.numerics.dop853 import E3, E5, F5, STAGES, STAGES_DENSE, A, B, C, D
from odeflow.numerics.elementary import exp, fma, log
from odeflow.numerics.threads import Flag, map_blocks

__all__ = ["FOLLOWERS", "STATUS", "Solution", "derivative", "follow", "load", "solve"]

STATUS = {
    0: "done",
    1: "more than max_steps steps: raise max_steps, or loosen rtol and atol",
    2: "the step became too small for the precision of float64: the solution may be singular, or rtol is too small",
    3: "the right-hand side is not finite: check the parameters",
}
"""What the status codes say, with advice."""

FOLLOWERS: set[type] = set()
"""Systems that have a `follow` of their own."""

_TINY = 1e-300
_DONE, _MAX_STEPS, _STEP_TOO_SMALL, _NOT_FINITE = range(4)
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 8.0
_LOCAL = 0.1  # of rtol and atol are for the local error, so that the accumulated error stays near rtol and atol
_LOOSER = 10.0  # times that for variables that follow others: more than their errors are smaller
_THETA = 0.7  # where in a step the interpolant is checked
_DEFECT = 0.3  # times its defect there is the estimate of its error


def load(system, index, lane, constants, y):
    """Fill ``constants[k * LANES + lane]`` and ``y[i * LANES + lane]`` for trajectory `index` of `system`."""
    raise NotImplementedError(
        f"no odeflow.numerics.runge_kutta.load for {type(system)}: give one with numba's overload"
    )


def derivative(system, constants, y, dydt):
    """Evaluate dy/dt in all lanes: y and dydt have variable i of a lane at ``i * LANES + lane``."""
    raise NotImplementedError(
        f"no odeflow.numerics.runge_kutta.derivative for {type(system)}: give one with numba's overload"
    )


def follow(system, changes, values, constants):
    """Put what changes with time into the constants of all lanes, where a course is given to `solve`.

    `values` has epsilon, eta_w and eta_b of a lane at ``i * LANES + lane``, those of them that `changes`; 0 in idle lanes.
    """
    raise NotImplementedError(
        f"no odeflow.numerics.runge_kutta.follow for {type(system)}: give one with numba's overload"
    )


@overload(follow)
def _follow_nothing(system, changes, values, constants):  # noqa: ARG001 -- what it declines with
    if getattr(system, "instance_class", None) in FOLLOWERS:
        return None  # it has its own
    return lambda system, changes, values, constants: None  # noqa: ARG005


@njit(nogil=True, error_model="numpy")
def _follow(system, course, rows, t, h, fraction, values, constants):
    """Bring the constants of every lane to a fraction of its step."""
    course_in_lanes(course, rows, t, h, fraction, values)
    follow(system, course.changes, values, constants)


class Solution(NamedTuple):
    """Plain arrays of a batch of trajectories."""

    y: npt.NDArray[np.float64]
    """States, shape (trajectories, output times, variables); nan after a trajectory failed."""
    status: npt.NDArray[np.int8]
    """A key of `STATUS` per trajectory."""
    steps: npt.NDArray[np.int64]
    """Accepted and rejected steps per trajectory."""


@inlined
def _add_stages(row, stages, width, k, total):
    """Set total = sum_j row[j] k_j, over the first `stages` stages."""
    total[:] = 0.0
    for j in range(stages):
        weight = row[j]
        if weight != 0.0:
            for i in range(width):
                total[i] = fma(weight, k[j * width + i], total[i])


@inlined
def _stage_state(row, stages, n, y, h, k, total, state):
    """Set state = y + h sum_j row[j] k_j in every lane."""
    _add_stages(row, stages, n * LANES, k, total)
    for i in range(n):
        for lane in range(LANES):
            state[i * LANES + lane] = fma(h[lane], total[i * LANES + lane], y[i * LANES + lane])


@inlined
def _first_step(lane, n, y, k, end):
    """Return a guess of the first step, for variables of order one: they change by a tenth. Error control mends it."""
    size, speed = 1.0, 0.0
    for i in range(n):
        size = max(size, abs(y[i * LANES + lane]))
        speed = max(speed, abs(k[i * LANES + lane]))
    return end if speed * end < 0.1 * size else 0.1 * size / speed


@inlined
def _estimate_error(n, strict, y, y_new, h, k, rtol, atol, total_3, total_5, other_5, error):
    """Set each lane's error in units of the local tolerance, as a root mean square over the variables.

    Hairer, Norsett, Wanner, II.10: h err5^2 / sqrt(err5^2 + 0.01 err3^2). Here err5^2 is the sum over two estimates of
    order 5, which do not vanish together.
    """
    width = n * LANES
    _add_stages(E3, STAGES, width, k, total_3)
    _add_stages(E5, STAGES, width, k, total_5)
    _add_stages(F5, STAGES, width, k, other_5)
    for lane in range(LANES):
        err_3 = 0.0
        err_5 = 0.0
        for i in range(n):
            at = i * LANES + lane
            local = _LOCAL if i < strict else _LOCAL * _LOOSER
            scale = local * (atol + rtol * max(abs(y[at]), abs(y_new[at]))) + _TINY
            err_3 += (total_3[at] / scale) ** 2
            err_5 += (total_5[at] / scale) ** 2 + (other_5[at] / scale) ** 2
        denominator = (err_5 + 0.01 * err_3) * n
        error[lane] = h[lane] * err_5 / np.sqrt(denominator) if denominator > 0.0 else err_5


@inlined
def _interpolant(n, y, y_new, h, k, total, q):
    """Set the coefficients q of the interpolant of order 7 (Hairer, Norsett, Wanner, II.6), from all 16 stages."""
    width = n * LANES
    for i in range(n):
        for lane in range(LANES):
            at = i * LANES + lane
            change = y_new[at] - y[at]
            q[at] = change
            q[width + at] = h[lane] * k[at] - change
            q[2 * width + at] = 2.0 * change - h[lane] * (k[STAGES * width + at] + k[at])
    for m in range(4):
        _add_stages(D[m], STAGES_DENSE, width, k, total)
        for i in range(n):
            for lane in range(LANES):
                q[(3 + m) * width + i * LANES + lane] = h[lane] * total[i * LANES + lane]


@inlined
def _interpolate(x, y, width, at, q):
    """Return the interpolant and its derivative at the fraction x of the step.

    It is y + x (q0 + (1-x) (q1 + x (q2 + (1-x) (q3 + x (q4 + (1-x) (q5 + x q6)))))).
    """
    value = q[6 * width + at]
    slope = 0.0
    for m in range(5, -1, -1):
        if m % 2 == 1:
            slope = value + x * slope
            value = q[m * width + at] + x * value
        else:
            slope = (1.0 - x) * slope - value
            value = q[m * width + at] + (1.0 - x) * value
    return y[at] + x * value, value + x * slope


@inlined
def _add_defect(n, state, slope, rate, h, rtol, atol, has_output, error):
    """Raise the error of lanes with output to that of their interpolant, estimated by its defect h |u' - f(u)|."""
    for lane in range(LANES):
        defect = 0.0
        for i in range(n):
            at = i * LANES + lane
            scale = atol + rtol * abs(state[at]) + _TINY
            defect = max(defect, abs(slope[at] - h[lane] * rate[at]) / scale)
        if has_output[lane]:
            error[lane] = max(error[lane], _DEFECT * defect)


@inlined
def _rejected(lane, n, k, t, h):
    """Return the status of a lane whose step was rejected: whether it may go on with a smaller one."""
    for i in range(n):
        if not np.isfinite(k[i * LANES + lane]):
            return _NOT_FINITE
    return _STEP_TOO_SMALL if h[lane] * _SHRINK <= 1e-15 * max(t[lane], _TINY) else _DONE


def _advance(system, course, n_constants, strict, first, last, times, rtol, atol, max_steps, stop, out, status, steps):
    """Integrate the trajectories from the first to before the last, and fill their rows of out, status and steps."""
    n = out.shape[2]
    width = n * LANES
    n_times = times.size
    end = times[n_times - 1]
    changes = course.edges.size > 0
    pieces = course.edges.size - 1 if changes else 1

    constants = np.zeros(n_constants * LANES)
    y, y_new, state, slope = np.zeros(width), np.zeros(width), np.zeros(width), np.zeros(width)
    total, total_5, other_5 = np.zeros(width), np.zeros(width), np.zeros(width)
    k = np.zeros(STAGES_DENSE * width)
    q = np.zeros(7 * width)
    t, t_new, h = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    error, factor = np.zeros(LANES), np.zeros(LANES)
    trajectory = np.full(LANES, -1)  # -1: idle
    piece, stop_at = np.zeros(LANES, np.int64), np.zeros(LANES)  # of the course, and its end: no step crosses it
    rows = np.zeros((1 + 3 * course.coefficients.shape[2]) * LANES if changes else 0)
    values = np.zeros(3 * LANES)
    to_write = np.zeros(LANES, np.int64)  # the next output
    is_new, has_output = np.zeros(LANES, np.bool_), np.zeros(LANES, np.bool_)

    coming = first
    running = 0
    while True:
        # Fill idle lanes.
        for lane in range(LANES):
            while trajectory[lane] < 0 and coming < last:
                load(system, coming, lane, constants, y)
                status[coming] = _DONE
                steps[coming] = 0
                t[lane] = 0.0
                piece[lane] = 0
                stop_at[lane] = min(course.edges[1], end) if changes else end
                to_write[lane] = 0
                if times[0] == 0.0:
                    for i in range(n):
                        out[coming, 0, i] = y[i * LANES + lane]
                    to_write[lane] = 1
                if to_write[lane] < n_times:
                    if changes:
                        enter_piece(course, 0, lane, rows)
                    trajectory[lane] = coming
                    is_new[lane] = True
                    running += 1
                coming += 1
        if running == 0 or is_set(stop):
            break

        # One step in all lanes. Idle lanes have h = 0 and constants 0, and compute what nobody reads.
        if changes:
            _follow(system, course, rows, t, h, 0.0, values, constants)
        derivative(system, constants, y, k[:width])
        for lane in range(LANES):
            if trajectory[lane] < 0:
                h[lane] = 0.0
                continue
            if is_new[lane]:
                h[lane] = _first_step(lane, n, y, k, stop_at[lane])
                is_new[lane] = False
            left = stop_at[lane] - t[lane]
            if h[lane] > 0.99 * left:
                h[lane] = left
            elif h[lane] > 0.5 * left:
                h[lane] = 0.5 * left  # two steps of one size, not a large and a tiny one
            t_new[lane] = stop_at[lane] if h[lane] == left else t[lane] + h[lane]
        for stage in range(1, STAGES):
            _stage_state(A[stage], stage, n, y, h, k, total, state)
            if changes:
                _follow(system, course, rows, t, h, C[stage], values, constants)
            derivative(system, constants, state, k[stage * width : (stage + 1) * width])
        _stage_state(B, STAGES, n, y, h, k, total, y_new)
        _estimate_error(n, strict, y, y_new, h, k, rtol, atol, total, total_5, other_5, error)

        # The interpolant, if a lane has an output time inside its step.
        dense = False
        for lane in range(LANES):
            inside = trajectory[lane] >= 0 and error[lane] <= 1.0 and times[to_write[lane]] < t_new[lane]
            has_output[lane] = inside
            dense = dense or inside
        if dense:
            if changes:
                _follow(system, course, rows, t, h, 1.0, values, constants)
            derivative(system, constants, y_new, k[STAGES * width : (STAGES + 1) * width])
            for stage in range(STAGES + 1, STAGES_DENSE):
                _stage_state(A[stage], stage, n, y, h, k, total, state)
                if changes:
                    _follow(system, course, rows, t, h, C[stage], values, constants)
                derivative(system, constants, state, k[stage * width : (stage + 1) * width])
            _interpolant(n, y, y_new, h, k, total, q)
            for at in range(width):
                state[at], slope[at] = _interpolate(_THETA, y, width, at, q)
            if changes:
                _follow(system, course, rows, t, h, _THETA, values, constants)
            derivative(system, constants, state, total)
            _add_defect(n, state, slope, total, h, rtol, atol, has_output, error)
        for lane in range(LANES):
            # safety * error^(-1/8), between the limits; the smallest for nan
            wanted = _SAFETY * exp(-0.125 * log(max(error[lane], 1e-30)))
            factor[lane] = _SHRINK if np.isnan(error[lane]) else min(max(wanted, _SHRINK), _GROW)

        # Accept or reject, lane by lane.
        for lane in range(LANES):
            index = trajectory[lane]
            if index < 0:
                continue
            steps[index] += 1
            if error[lane] <= 1.0:
                write = to_write[lane]
                while write < n_times and times[write] < t_new[lane]:
                    x = (times[write] - t[lane]) / h[lane]
                    for i in range(n):
                        out[index, write, i] = _interpolate(x, y, width, i * LANES + lane, q)[0]
                    write += 1
                t[lane] = t_new[lane]
                if changes and t[lane] == stop_at[lane] and piece[lane] + 1 < pieces:
                    piece[lane] += 1
                    enter_piece(course, piece[lane], lane, rows)
                    stop_at[lane] = min(course.edges[piece[lane] + 1], end)
                for i in range(n):
                    y[i * LANES + lane] = y_new[i * LANES + lane]
                if write < n_times and times[write] == t[lane]:
                    for i in range(n):
                        out[index, write, i] = y[i * LANES + lane]
                    write += 1
                to_write[lane] = write
                h[lane] *= factor[lane]
            else:  # too large, or nan
                status[index] = _rejected(lane, n, k, t, h)
                h[lane] *= min(factor[lane], 1.0)
            if steps[index] >= max_steps and to_write[lane] < n_times and status[index] == _DONE:
                status[index] = _MAX_STEPS
            if status[index] != _DONE:
                out[index, to_write[lane] :, :] = np.nan
                to_write[lane] = n_times
            if to_write[lane] == n_times:
                trajectory[lane] = -1
                running -= 1
                leave_piece(lane, rows)
                for c in range(
                    n_constants
                ):  # as in a lane that was never used, so that an expensive system can leave it out
                    constants[c * LANES + lane] = 0.0


# The package's own systems are compiled once and kept on disk. Those of others are compiled in each process: a cache
# that others share could neither notice a change of their sources nor be read where their module is not.
_advance_own = kept(_advance)
_advance_other = njit(nogil=True, error_model="numpy")(_advance)


def solve(
    system: Any,
    *,
    trajectories: int,
    variables: int,
    constants: int,
    times: npt.NDArray[np.float64],
    rtol: float,
    atol: float,
    max_steps: int,
    least: int | None = None,
    course: Course = CONSTANT,
    strict: int | None = None,
) -> Solution:
    """Integrate a batch of trajectories from time 0 and return their states at `times`.

    Parameters
    ----------
    system
        A NamedTuple with its own `load` and `derivative`.
    trajectories, variables, constants
        How many trajectories the system has, variables a trajectory, and constants a lane.
    times
        Increasing output times >= 0, shape (times,), float64.
    rtol, atol
        Tolerances: each step's error estimate is at most a tenth of ``atol + rtol |y|``, as a root mean square over the
        variables, so that the accumulated error stays of the order of ``atol + rtol |y|``.
    max_steps
        Most steps, accepted and rejected, that a trajectory may take.
    least
        Trajectories that a thread takes at least; default: what is enough for all lanes.
    course
        What changes with time, the same for all trajectories; it reaches the last of `times` at least. The system puts it
        into its constants by its own `follow`, and is one of `FOLLOWERS`. Steps end at the edges.
    strict
        Variables, the first, for which the tolerances are these; those after them follow from them, such as derivatives by
        parameters, and a step may have ten times the error there. Default: all.

    Returns
    -------
    Solution
        States, status and number of steps. No failure raises here.
    """
    solution = Solution(
        np.empty((trajectories, times.size, variables)),
        np.zeros(trajectories, np.int8),
        np.zeros(trajectories, np.int64),
    )

    advance = _advance_own if type(system).__module__.startswith("odeflow.") else _advance_other

    def block(first: int, last: int, stop: Flag) -> None:
        advance(
            system,
            course,
            constants,
            variables if strict is None else strict,
            first,
            last,
            times,
            rtol,
            atol,
            max_steps,
            stop,
            *solution,
        )

    map_blocks(block, trajectories, least=4 * LANES if least is None else least)
    return solution
