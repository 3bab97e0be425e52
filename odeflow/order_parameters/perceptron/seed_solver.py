"""The solver of the seed model: DOP853 in lanes as in `odeflow.numerics.runge_kutta`, on windows of the averages.

Method, error estimate, interpolant and statuses are those of `runge_kutta`, on whose plainer code this is modelled. What is its
own: the right-hand side is made of polynomials (`odeflow.order_parameters.perceptron.windows`), a step that leaves its window is
repeated with another one, each stage is one loop with its coefficients written out, and what lanes do alone is looked at only
after an event. The windows' error is far below the tolerances from `RTOL` and `ATOL` on; below, `runge_kutta` has the exact averages.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES, called, inlined, is_set, kept, once
from odeflow.numerics.dop853 import E3, E5, F5, STAGES, STAGES_DENSE, A, D
from odeflow.numerics.elementary import exp, fma, log
from odeflow.numerics.lanes import aligned, combination, polynomial, prefer_512_bits
from odeflow.numerics.runge_kutta import Solution, _interpolate
from odeflow.numerics.threads import Flag, map_blocks
from odeflow.order_parameters.perceptron.averages import CLASS_ROWS, lane_constants
from odeflow.order_parameters.perceptron.seed import SeedModel
from odeflow.order_parameters.perceptron.windows import FAR, TERMS, half_width, nearest, window

__all__ = ["ATOL", "RTOL", "solve"]

RTOL, ATOL = 1e-8, 1e-10
"""The least tolerances of windows."""

_TINY = 1e-300
_DONE, _MAX_STEPS, _STEP_TOO_SMALL, _NOT_FINITE = range(4)
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 8.0
_LOCAL, _THETA, _DEFECT = 0.1, 0.7, 0.3

# Where in the workspace rows of LANES numbers begin. Of the model:
_HALF_RHO, _EPSILON, _ETA_W_HALF_RHO, _ETA_B = range(0, 4 * LANES, LANES)
# from where those of a class begin: its variance, what D1 and D2 are multiplied by, its window, x = BY u + SHIFT, coefficients
_V, _OF_D1, _OF_D2, _WINDOW, _BY, _SHIFT, _D1 = range(0, 7 * LANES, LANES)
_D2 = _D1 + TERMS * LANES
_CLASS = _D2 + TERMS * LANES
_PLUS = 4 * LANES
_MINUS = _PLUS + _CLASS
# of the trajectory: state, and after the step; the step, the time, and after it; the next output time, steps, error, |x|, a flag
_R = _MINUS + _CLASS
_B, _R_NEW, _B_NEW, _H, _T, _T_NEW, _OUTPUT, _STEPS, _ERROR, _REACH, _EVENT, _K = range(_R + LANES, _R + 13 * LANES, LANES)
_PAIR = 2 * LANES
_Q = _K + STAGES_DENSE * _PAIR  # after the slopes of the stages, the interpolant's coefficients
_SIZE = _Q + 7 * _PAIR

_E3_ROW, _E5_ROW, _F5_ROW, _D0_ROW, _D1_ROW, _D2_ROW, _D3_ROW = range(STAGES_DENSE, STAGES_DENSE + 7)
_sum = combination(np.vstack([A, E3, E5, F5, D]), _PAIR)
_polynomial = polynomial(TERMS, LANES)

_SLOTS = 64  # windows of a class that are kept
_AHEAD, _FURTHER = 0.6, 0.65  # of a half-width: how far ahead the centre of the first window is, and that of the next ones


@inlined
def _rates(R, b, w, lane):
    """Return dR/dalpha and db/dalpha, and how far in the windows they are: valid up to 1."""
    margin = fma(w[_HALF_RHO + lane], R, -w[_EPSILON + lane])
    plus, minus = _PLUS + lane, _MINUS + lane
    x_plus = fma(margin - b, w[_BY + plus], w[_SHIFT + plus])
    x_minus = fma(margin + b, w[_BY + minus], w[_SHIFT + minus])
    D1_plus = _polynomial(x_plus, w, _D1 + plus)
    D1_minus = _polynomial(x_minus, w, _D1 + minus)
    D2 = _polynomial(x_plus, w, _D2 + plus) + _polynomial(x_minus, w, _D2 + minus)
    grows = w[_ETA_W_HALF_RHO + lane] * (D1_plus + D1_minus)
    dR = fma(-R * R, grows, grows) - R * D2
    db = w[_ETA_B + lane] * (D1_minus - D1_plus)
    far_plus, far_minus = abs(x_plus), abs(x_minus)
    return dR, db, far_plus if far_plus > far_minus else far_minus


@inlined
def _evaluate(sum_R, sum_b, w, lane, k):
    """Evaluate the slopes of a lane at y + h sum, and store them at k."""
    h = w[_H + lane]
    dR, db, far = _rates(fma(h, sum_R, w[_R + lane]), fma(h, sum_b, w[_B + lane]), w, lane)
    w[k] = dR
    w[LANES + k] = db
    reach = w[_REACH + lane]
    w[_REACH + lane] = far if far > reach else reach


@once
def _stage(stage, w):
    """Evaluate one stage in all lanes."""
    for lane in range(LANES):
        k = _K + lane
        _evaluate(_sum(stage, w, k), _sum(stage, w, LANES + k), w, lane, stage * _PAIR + k)


@once
def _try_step(w, end, rtol, atol):
    """Make one step in all lanes: the new state, and its error in units of the local tolerance.

    Hairer, Norsett, Wanner, II.10: h err5^2 / sqrt(err5^2 + 0.01 err3^2), with err5^2 the sum over two estimates.
    """
    for lane in range(LANES):
        R, b, h, t = w[_R + lane], w[_B + lane], w[_H + lane], w[_T + lane]
        dR, db, far = _rates(R, b, w, lane)
        w[_K + lane] = dR
        w[_K + LANES + lane] = db
        w[_REACH + lane] = far
        # a first step, of which the length is still negative: variables of order one change by a tenth
        size = abs(b) if abs(b) > 1.0 else 1.0
        speed = abs(dR) if abs(dR) > abs(db) else abs(db)
        first = end if speed * end < 0.1 * size else 0.1 * size / speed
        h = first if h < 0.0 else h
        left = end - t
        whole = h > 0.99 * left
        h = 0.5 * left if h > 0.5 * left else h  # two steps of one size, not a large and a tiny one
        h = left if whole else h
        w[_H + lane] = h
        w[_T_NEW + lane] = end if whole else t + h
    _stage(1, w)
    _stage(2, w)
    _stage(3, w)
    _stage(4, w)
    _stage(5, w)
    _stage(6, w)
    _stage(7, w)
    _stage(8, w)
    _stage(9, w)
    _stage(10, w)
    _stage(11, w)
    for lane in range(LANES):
        h = w[_H + lane]
        w[_R_NEW + lane] = fma(h, _sum(STAGES, w, _K + lane), w[_R + lane])
        w[_B_NEW + lane] = fma(h, _sum(STAGES, w, _K + LANES + lane), w[_B + lane])
    for lane in range(LANES):
        k = _K + lane
        scale = _scale(w, _R + lane, rtol, atol)
        err_3 = (_sum(_E3_ROW, w, k) * scale) ** 2
        err_5 = (_sum(_E5_ROW, w, k) * scale) ** 2 + (_sum(_F5_ROW, w, k) * scale) ** 2
        k += LANES
        scale = _scale(w, _B + lane, rtol, atol)
        err_3 += (_sum(_E3_ROW, w, k) * scale) ** 2
        err_5 += (_sum(_E5_ROW, w, k) * scale) ** 2 + (_sum(_F5_ROW, w, k) * scale) ** 2
        w[_ERROR + lane] = w[_H + lane] * err_5 / np.sqrt(2.0 * (err_5 + 0.01 * err_3) + _TINY)


@inlined
def _scale(w, at, rtol, atol):
    """Return one over the local tolerance of a variable."""
    y, new = abs(w[at]), abs(w[_PAIR + at])
    size = y if y > new else new
    return 1.0 / (_LOCAL * (atol + rtol * size) + _TINY)


@once
def _interpolant(variable, w):
    """Set a variable's coefficients of the interpolant of order 7 (Hairer, Norsett, Wanner, II.6)."""
    for lane in range(LANES):
        h = w[_H + lane]
        y, k, q = _R + variable * LANES + lane, _K + variable * LANES + lane, _Q + variable * LANES + lane
        change = w[y + _PAIR] - w[y]
        w[q] = change
        w[q + _PAIR] = h * w[k] - change
        w[q + 2 * _PAIR] = 2.0 * change - h * (w[k + STAGES * _PAIR] + w[k])
        w[q + 3 * _PAIR] = h * _sum(_D0_ROW, w, k)
        w[q + 4 * _PAIR] = h * _sum(_D1_ROW, w, k)
        w[q + 5 * _PAIR] = h * _sum(_D2_ROW, w, k)
        w[q + 6 * _PAIR] = h * _sum(_D3_ROW, w, k)


@inlined
def _is_good(w, lane):
    """Return whether the step of a lane is accepted."""
    return (w[_ERROR + lane] <= 1.0) & (w[_REACH + lane] <= 1.0)


@inlined
def _has_output(w, lane):
    """Return whether there is an output time inside the step of a lane, which is accepted."""
    return _is_good(w, lane) & (w[_OUTPUT + lane] < w[_T_NEW + lane])


@once
def _write_inside(w, rtol, atol, times, trajectory, to_write, out):
    """Write the outputs inside steps, from an interpolant whose error, by its defect h |u' - f(u)|, is checked too."""
    _stage(12, w)
    _stage(13, w)
    _stage(14, w)
    _stage(15, w)
    _interpolant(0, w)
    _interpolant(1, w)
    y, q = w[_R:], w[_Q:]
    for lane in range(LANES):
        R, R_slope = _interpolate(_THETA, y, _PAIR, lane, q)
        b, b_slope = _interpolate(_THETA, y, _PAIR, LANES + lane, q)
        dR, db, far = _rates(R, b, w, lane)
        h, error, reach = w[_H + lane], w[_ERROR + lane], w[_REACH + lane]
        defect_R = _DEFECT * abs(R_slope - h * dR) / (atol + rtol * abs(R))
        defect_b = _DEFECT * abs(b_slope - h * db) / (atol + rtol * abs(b))
        defect = defect_R if defect_R > defect_b else defect_b
        if _has_output(w, lane):
            w[_ERROR + lane] = defect if defect > error else error
            w[_REACH + lane] = far if far > reach else reach
    for lane in range(LANES):
        if _has_output(w, lane):
            write = to_write[lane]
            while times[write] < w[_T_NEW + lane]:
                x = (times[write] - w[_T + lane]) / w[_H + lane]
                out[trajectory[lane], write, 0] = _interpolate(x, y, _PAIR, lane, q)[0]
                out[trajectory[lane], write, 1] = _interpolate(x, y, _PAIR, LANES + lane, q)[0]
                write += 1
            to_write[lane] = write
            w[_OUTPUT + lane] = times[write]


@once
def _end_step(w, max_steps):
    """Accept or reject in all lanes, and say in which ones something has happened."""
    for lane in range(LANES):
        h, t, error = w[_H + lane], w[_T + lane], w[_ERROR + lane]
        good = _is_good(w, lane)
        inside = w[_REACH + lane] <= 1.0
        # safety * error^(-1/8), between the limits; the smallest for nan
        wanted = _SAFETY * exp(-0.125 * log(error if error > 1e-30 else 1e-30))
        wanted = wanted if wanted < _GROW else _GROW
        wanted = wanted if wanted > _SHRINK else _SHRINK
        wanted = wanted if error < np.inf else _SHRINK
        rejected = wanted if wanted < 1.0 else 1.0
        t = w[_T_NEW + lane] if good else t
        steps = w[_STEPS + lane] + 1.0
        w[_STEPS + lane] = steps
        w[_T + lane] = t
        w[_R + lane] = w[_R_NEW + lane] if good else w[_R + lane]
        w[_B + lane] = w[_B_NEW + lane] if good else w[_B + lane]
        h = h if not inside else (h * wanted if good else h * rejected)
        w[_H + lane] = h
        small = h <= 1e-15 * t
        event = (w[_OUTPUT + lane] <= t) | (not inside) | (steps >= max_steps) | (error != error) | small
        w[_EVENT + lane] = 1.0 if event else 0.0


@called
def _place(number, u, w, lane, constants, kept_windows, work):
    """Put class number 0 or 1 of a lane into the window with its centre nearest to u; return whether it was in another."""
    row = _PLUS + number * _CLASS + lane
    v = w[_V + row]
    half = half_width(v)
    k = nearest(u, half)
    if k == w[_WINDOW + row]:
        return False
    keys, tables = kept_windows
    slot = number * _SLOTS + (np.int64(k) & (_SLOTS - 1))
    at = slot * 2 * TERMS
    if keys[2 * slot] != v or keys[2 * slot + 1] != k:
        keys[2 * slot] = v
        keys[2 * slot + 1] = k
        window(k, half, constants, number * CLASS_ROWS, lane, work, tables, at)
    w[_WINDOW + row] = k
    w[_BY + row] = 0.0 if k == FAR else 1.0 / half
    w[_SHIFT + row] = 0.0 if k == FAR else -0.5 * k
    of_D1, of_D2 = w[_OF_D1 + row], w[_OF_D2 + row]
    for i in range(TERMS // 2):
        w[_D1 + 2 * i * LANES + row] = of_D1 * tables[at + 4 * i]
        w[_D1 + (2 * i + 1) * LANES + row] = of_D1 * tables[at + 4 * i + 1]
        w[_D2 + 2 * i * LANES + row] = of_D2 * tables[at + 4 * i + 2]
        w[_D2 + (2 * i + 1) * LANES + row] = of_D2 * tables[at + 4 * i + 3]
    return True


@called
def _class(number, v, of_D1, of_D2, lane, last, w, constants):
    """Store the constants of a class, which are those of lane `last` if that has the same variance."""
    row = _PLUS + number * _CLASS
    if w[_V + row + last] == v:
        for k in range(number * CLASS_ROWS, (number + 1) * CLASS_ROWS):
            constants[k * LANES + lane] = constants[k * LANES + last]
    else:
        lane_constants(v, constants, number * CLASS_ROWS, lane)
    w[_V + row + lane] = v
    w[_OF_D1 + row + lane] = of_D1
    w[_OF_D2 + row + lane] = of_D2
    w[_WINDOW + row + lane] = np.nan


@called
def _load(point, lane, last, w, constants, kept_windows, work):
    """Fill a lane with a trajectory."""
    p, rho, v1, v2, eta_w, eta_b, epsilon, second_order, R, b = point
    squares = second_order * eta_w**2 / 2
    _class(0, v1, p, squares * p * v1, lane, last, w, constants)
    _class(1, v2, 1 - p, squares * (1 - p) * v2, lane, last, w, constants)
    w[_HALF_RHO + lane] = rho / 2
    w[_EPSILON + lane] = epsilon
    w[_ETA_W_HALF_RHO + lane] = eta_w * rho / 2
    w[_ETA_B + lane] = eta_b
    margin = rho / 2 * R - epsilon
    # most begin with a margin that grows
    _place(0, margin - b + _AHEAD * half_width(v1), w, lane, constants, kept_windows, work)
    _place(1, margin + b + _AHEAD * half_width(v2), w, lane, constants, kept_windows, work)
    w[_R + lane] = R
    w[_B + lane] = b
    w[_T + lane] = 0.0
    w[_H + lane] = -1.0  # as the first step says
    w[_STEPS + lane] = 0.0


@called
def _move(w, lane, constants, kept_windows, work):
    """Put a lane whose step left its windows into others, ahead on its way; if it is there already, halve the step."""
    half_rho, b = w[_HALF_RHO + lane], w[_B + lane]
    margin = half_rho * w[_R + lane] - w[_EPSILON + lane]
    faster, db = half_rho * w[_K + lane], w[_K + LANES + lane]
    ahead = _FURTHER * half_width(w[_PLUS + _V + lane])
    u = margin - b + (ahead if faster > db else -ahead)
    moved = _place(0, u, w, lane, constants, kept_windows, work)
    ahead = _FURTHER * half_width(w[_MINUS + _V + lane])
    u = margin + b + (ahead if faster > -db else -ahead)
    moved = _place(1, u, w, lane, constants, kept_windows, work) or moved
    if not moved:
        w[_H + lane] *= 0.5


@inlined
def _are_finite(w, lane, stages):
    """Return whether the slopes of the first stages are finite."""
    for k in range(2 * stages):
        if not np.isfinite(w[_K + k * LANES + lane]):
            return False
    return True


def _advance(parameters, first, last, times, rtol, atol, max_steps, stop, w, constants, out, status, steps):
    """Integrate the trajectories from the first to before the last, and fill their rows of out, status and steps."""
    prefer_512_bits()
    n_times = times.size
    end = times[n_times - 1]
    kept_windows = np.zeros(4 * _SLOTS), np.zeros(4 * _SLOTS * TERMS)
    work = np.zeros(6 * TERMS)
    trajectory = np.full(LANES, -1)  # -1: idle
    to_write = np.zeros(LANES, np.int64)  # the next output
    w[:] = 0.0
    for lane in range(LANES):
        w[_EVENT + lane] = 1.0
        w[_OUTPUT + lane] = np.inf
    coming = first
    running = 0
    loaded = 0
    while True:
        for lane in range(LANES):
            if w[_EVENT + lane] == 0.0:
                continue
            index = trajectory[lane]
            if index >= 0:
                code = _DONE
                if _is_good(w, lane):
                    if w[_OUTPUT + lane] == w[_T + lane]:
                        out[index, to_write[lane], 0] = w[_R + lane]
                        out[index, to_write[lane], 1] = w[_B + lane]
                        to_write[lane] += 1
                        if to_write[lane] < n_times:
                            w[_OUTPUT + lane] = times[to_write[lane]]
                elif not _are_finite(w, lane, 1):
                    code = _NOT_FINITE
                else:
                    if not w[_REACH + lane] <= 1.0:
                        _move(w, lane, constants, kept_windows, work)
                    elif not _are_finite(w, lane, STAGES):
                        code = _NOT_FINITE
                    if code == _DONE and w[_H + lane] <= 1e-15 * max(w[_T + lane], _TINY):
                        code = _STEP_TOO_SMALL
                if w[_STEPS + lane] >= max_steps and to_write[lane] < n_times and code == _DONE:
                    code = _MAX_STEPS
                if code != _DONE:
                    out[index, to_write[lane] :, :] = np.nan
                    to_write[lane] = n_times
                if to_write[lane] == n_times:
                    status[index] = code
                    steps[index] = np.int64(w[_STEPS + lane])
                    trajectory[lane] = -1
                    running -= 1
            while trajectory[lane] < 0 and coming < last:
                _load(parameters[coming], lane, loaded, w, constants, kept_windows, work)
                loaded = lane
                to_write[lane] = 0
                if times[0] == 0.0:
                    out[coming, 0, 0] = w[_R + lane]
                    out[coming, 0, 1] = w[_B + lane]
                    to_write[lane] = 1
                if to_write[lane] < n_times:
                    w[_OUTPUT + lane] = times[to_write[lane]]
                    trajectory[lane] = coming
                    running += 1
                coming += 1
            if trajectory[lane] < 0:  # computes what nobody reads
                w[_H + lane] = 0.0
                w[_T + lane] = 0.0
                w[_OUTPUT + lane] = np.inf
        if running == 0 or is_set(stop):
            break
        _try_step(w, end, rtol, atol)
        if n_times > 1:
            for lane in range(LANES):
                if _has_output(w, lane):
                    _write_inside(w, rtol, atol, times, trajectory, to_write, out)
                    break
        _end_step(w, max_steps)


_advance = kept(_advance)


def solve(
    system: SeedModel,
    *,
    trajectories: int,
    times: npt.NDArray[np.float64],
    rtol: float,
    atol: float,
    max_steps: int,
    **options: Any,
) -> Solution:
    """Integrate a batch of trajectories, as `odeflow.numerics.runge_kutta.solve` does, whose arguments these are."""
    if rtol < RTOL or atol < ATOL:
        return runge_kutta.solve(
            system, trajectories=trajectories, times=times, rtol=rtol, atol=atol, max_steps=max_steps, **options
        )
    solution = Solution(
        np.empty((trajectories, times.size, 2)), np.zeros(trajectories, np.int8), np.zeros(trajectories, np.int64)
    )

    def block(first: int, last: int, stop: Flag) -> None:
        room = aligned(_SIZE), aligned(2 * CLASS_ROWS * LANES)
        _advance(system.parameters, first, last, times, rtol, atol, max_steps, stop, *room, *solution)

    map_blocks(block, trajectories, least=4 * LANES)
    return solution
