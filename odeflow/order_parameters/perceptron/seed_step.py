"""One step of the seed model in all lanes: DOP853 as in `odeflow.numerics.runge_kutta`, on windows of the averages.

Everything of a lane is in one workspace `w` of rows of LANES numbers, and each loop over lanes is SIMD code: one loop a stage, with
its coefficients written out. `odeflow.order_parameters.perceptron.seed_solver` has what a lane does alone.
"""

from __future__ import annotations

import numpy as np
from numba import types
from numba.extending import overload

from odeflow.numerics.compilation import LANES, inlined, once
from odeflow.numerics.dop853 import E3, E5, F5, STAGES, STAGES_DENSE, A, C, D
from odeflow.numerics.elementary import exp, fma, log
from odeflow.numerics.lanes import combination, polynomial
from odeflow.numerics.runge_kutta import _interpolate
from odeflow.order_parameters.perceptron.windows import TERMS

# Where the rows begin. Of the model:
EPSILON, ETA_W, ETA_B, HALF_RHO = range(0, 4 * LANES, LANES)
# From where those of a class begin: half of a window, b and c, the factors of D1 and D2; its window, x = BY u + SHIFT, and the
# coefficients of D1 and of D2.
WIDTH, PLACE_B, PLACE_C, TIMES_MEAN, TIMES_SQUARE, WINDOW, BY, SHIFT, MEAN = range(0, 9 * LANES, LANES)
SQUARE = MEAN + TERMS * LANES
CLASS = SQUARE + TERMS * LANES
PLUS = 4 * LANES
MINUS = PLUS + CLASS
# Of the trajectory: the state, now and after the step; the step (-1: the first), the time, now and after it, and where steps must
# end; the next output time; how many steps; the error, the largest |x|; whether to look at the lane; and the slopes of the stages.
OVERLAP = MINUS + CLASS
(
    BIAS, NEW_OVERLAP, NEW_BIAS, STEP, TIME, NEW_TIME, STOP_AT, OUTPUT, STEPS, ERROR, REACH, EVENT, SLOPES,
) = range(OVERLAP + LANES, OVERLAP + 14 * LANES, LANES)  # fmt: skip
PAIR = 2 * LANES  # R and b
INTERPOLANT = SLOPES + STAGES_DENSE * PAIR
# Of a course: where the lane's piece begins, and the powers of epsilon, eta_w and eta_b from there, lowest first.
POWERS_OF_ONE = 8
BEGIN = INTERPOLANT + 7 * PAIR
POWERS = BEGIN + LANES
SIZE = POWERS + 3 * POWERS_OF_ONE * LANES

_TINY = 1e-300
_SAFETY, _SHRINK, _GROW = 0.9, 0.2, 8.0
_LOCAL, _THETA, _DEFECT = 0.1, 0.7, 0.3

_E3_ROW, _E5_ROW, _F5_ROW, _D0_ROW, _D1_ROW, _D2_ROW, _D3_ROW = range(STAGES_DENSE, STAGES_DENSE + 7)
_sum = combination(np.vstack([A, E3, E5, F5, D]), PAIR)
_polynomial, _piece = polynomial(TERMS, LANES), polynomial(POWERS_OF_ONE, LANES)


def _follow(course, fraction, w):
    """Bring what changes with time to a fraction of each lane's step; nothing if `course` is None."""


@overload(_follow)
def _follow_course(course, fraction, w):
    if isinstance(course, types.NoneType):
        return lambda course, fraction, w: None  # noqa: ARG005

    def follow(course, fraction, w):
        if course.changes[0]:
            _follow_one(0, fraction, w)
        if course.changes[1]:
            _follow_one(1, fraction, w)
        if course.changes[2]:
            _follow_one(2, fraction, w)

    return follow


def epsilon_at(course, fraction, w, lane):
    """Return epsilon at a fraction of a lane's step."""


@overload(epsilon_at)
def _epsilon_at(course, fraction, w, lane):
    if isinstance(course, types.NoneType):
        return lambda course, fraction, w, lane: w[EPSILON + lane]  # noqa: ARG005

    def at(course, fraction, w, lane):
        if not course.changes[0]:
            return w[EPSILON + lane]
        return _piece(fma(fraction, w[STEP + lane], w[TIME + lane] - w[BEGIN + lane]), w, POWERS + lane)

    return at


@once
def _follow_one(number, fraction, w):
    for lane in range(LANES):
        x = fma(fraction, w[STEP + lane], w[TIME + lane] - w[BEGIN + lane])
        w[EPSILON + number * LANES + lane] = _piece(x, w, POWERS + number * POWERS_OF_ONE * LANES + lane)


@inlined
def _rates(R, b, w, lane):
    """Return dR/dalpha and db/dalpha, and how far in the windows they are: valid up to 1."""
    margin = fma(w[HALF_RHO + lane], R, -w[EPSILON + lane])
    plus, minus = PLUS + lane, MINUS + lane  # rows of the classes
    x_plus = fma(margin - b, w[BY + plus], w[SHIFT + plus])
    x_minus = fma(margin + b, w[BY + minus], w[SHIFT + minus])
    D1_plus = _polynomial(x_plus, w, MEAN + plus)
    D1_minus = _polynomial(x_minus, w, MEAN + minus)
    D2 = _polynomial(x_plus, w, SQUARE + plus) + _polynomial(x_minus, w, SQUARE + minus)
    grows = D1_plus + D1_minus
    eta_w = w[ETA_W + lane]
    dR = eta_w * fma(w[HALF_RHO + lane], fma(-R * R, grows, grows), -(eta_w * R) * D2)
    db = w[ETA_B + lane] * (D1_minus - D1_plus)
    far_plus, far_minus = abs(x_plus), abs(x_minus)
    return dR, db, max(far_minus, far_plus)


@inlined
def _evaluate(sum_R, sum_b, w, lane, k):
    """Evaluate the slopes of a lane at y + h sum, and store them at k."""
    h = w[STEP + lane]
    dR, db, far = _rates(fma(h, sum_R, w[OVERLAP + lane]), fma(h, sum_b, w[BIAS + lane]), w, lane)
    w[k] = dR
    w[LANES + k] = db
    reach = w[REACH + lane]
    w[REACH + lane] = max(reach, far)


@once
def _stage(stage, course, w):
    """Evaluate one stage in all lanes."""
    _follow(course, C[stage], w)
    for lane in range(LANES):
        k = SLOPES + lane
        _evaluate(_sum(stage, w, k), _sum(stage, w, LANES + k), w, lane, stage * PAIR + k)


@once
def try_step(course, w, rtol, atol):
    """Make one step in all lanes: the new state, and its error in units of the local tolerance.

    Hairer, Norsett, Wanner, II.10: h err5^2 / sqrt(err5^2 + 0.01 err3^2), with err5^2 the sum over two estimates.
    """
    _follow(course, 0.0, w)
    for lane in range(LANES):
        R, b, h, t = w[OVERLAP + lane], w[BIAS + lane], w[STEP + lane], w[TIME + lane]
        dR, db, far = _rates(R, b, w, lane)
        w[SLOPES + lane] = dR
        w[SLOPES + LANES + lane] = db
        w[REACH + lane] = far
        # a first step, of which the length is still negative: variables of order one change by a tenth
        size = max(1.0, abs(b))
        speed = max(abs(db), abs(dR))
        end = w[STOP_AT + lane]
        first = end if speed * end < 0.1 * size else 0.1 * size / speed
        h = first if h < 0.0 else h
        left = end - t
        whole = h > 0.99 * left
        h = min(h, 0.5 * left)  # two steps of one size, not a large and a tiny one
        h = left if whole else h
        w[STEP + lane] = h
        w[NEW_TIME + lane] = end if whole else t + h
    _stage(1, course, w)
    _stage(2, course, w)
    _stage(3, course, w)
    _stage(4, course, w)
    _stage(5, course, w)
    _stage(6, course, w)
    _stage(7, course, w)
    _stage(8, course, w)
    _stage(9, course, w)
    _stage(10, course, w)
    _stage(11, course, w)
    for lane in range(LANES):
        h = w[STEP + lane]
        w[NEW_OVERLAP + lane] = fma(h, _sum(STAGES, w, SLOPES + lane), w[OVERLAP + lane])
        w[NEW_BIAS + lane] = fma(h, _sum(STAGES, w, SLOPES + LANES + lane), w[BIAS + lane])
    for lane in range(LANES):
        k = SLOPES + lane
        scale = _scale(w, OVERLAP + lane, rtol, atol)
        err_3 = (_sum(_E3_ROW, w, k) * scale) ** 2
        err_5 = (_sum(_E5_ROW, w, k) * scale) ** 2 + (_sum(_F5_ROW, w, k) * scale) ** 2
        k += LANES
        scale = _scale(w, BIAS + lane, rtol, atol)
        err_3 += (_sum(_E3_ROW, w, k) * scale) ** 2
        err_5 += (_sum(_E5_ROW, w, k) * scale) ** 2 + (_sum(_F5_ROW, w, k) * scale) ** 2
        w[ERROR + lane] = w[STEP + lane] * err_5 / np.sqrt(2.0 * (err_5 + 0.01 * err_3) + _TINY)


@inlined
def _scale(w, at, rtol, atol):
    """Return one over the local tolerance of a variable."""
    y, new = abs(w[at]), abs(w[PAIR + at])
    size = max(new, y)
    return 1.0 / (_LOCAL * (atol + rtol * size) + _TINY)


@once
def _interpolant(variable, w):
    """Set a variable's coefficients of the interpolant of order 7 (Hairer, Norsett, Wanner, II.6)."""
    for lane in range(LANES):
        h = w[STEP + lane]
        y, k, q = (
            OVERLAP + variable * LANES + lane,
            SLOPES + variable * LANES + lane,
            INTERPOLANT + variable * LANES + lane,
        )
        change = w[y + PAIR] - w[y]
        w[q] = change
        w[q + PAIR] = h * w[k] - change
        w[q + 2 * PAIR] = 2.0 * change - h * (w[k + STAGES * PAIR] + w[k])
        w[q + 3 * PAIR] = h * _sum(_D0_ROW, w, k)
        w[q + 4 * PAIR] = h * _sum(_D1_ROW, w, k)
        w[q + 5 * PAIR] = h * _sum(_D2_ROW, w, k)
        w[q + 6 * PAIR] = h * _sum(_D3_ROW, w, k)


@inlined
def is_good(w, lane):
    """Return whether the step of a lane is accepted."""
    return (w[ERROR + lane] <= 1.0) & (w[REACH + lane] <= 1.0)


@inlined
def has_output(w, lane):
    """Return whether there is an output time inside the step of a lane, which is accepted."""
    return is_good(w, lane) & (w[OUTPUT + lane] < w[NEW_TIME + lane])


@once
def write_inside(course, w, rtol, atol, times, trajectory, to_write, out):
    """Write the outputs inside steps, from an interpolant whose error, by its defect h |u' - f(u)|, is checked too."""
    _stage(12, course, w)
    _stage(13, course, w)
    _stage(14, course, w)
    _stage(15, course, w)
    _interpolant(0, w)
    _interpolant(1, w)
    y, q = w[OVERLAP:], w[INTERPOLANT:]
    _follow(course, _THETA, w)
    for lane in range(LANES):
        R, R_slope = _interpolate(_THETA, y, PAIR, lane, q)
        b, b_slope = _interpolate(_THETA, y, PAIR, LANES + lane, q)
        dR, db, far = _rates(R, b, w, lane)
        h, error, reach = w[STEP + lane], w[ERROR + lane], w[REACH + lane]
        defect_R = _DEFECT * abs(R_slope - h * dR) / (atol + rtol * abs(R))
        defect_b = _DEFECT * abs(b_slope - h * db) / (atol + rtol * abs(b))
        defect = max(defect_b, defect_R)
        if has_output(w, lane):
            w[ERROR + lane] = max(error, defect)
            w[REACH + lane] = max(reach, far)
    for lane in range(LANES):
        if has_output(w, lane):
            write = to_write[lane]
            while times[write] < w[NEW_TIME + lane]:
                x = (times[write] - w[TIME + lane]) / w[STEP + lane]
                out[trajectory[lane], write, 0] = _interpolate(x, y, PAIR, lane, q)[0]
                out[trajectory[lane], write, 1] = _interpolate(x, y, PAIR, LANES + lane, q)[0]
                write += 1
            to_write[lane] = write
            w[OUTPUT + lane] = times[write]


@once
def end_step(w, max_steps):
    """Accept or reject in all lanes, and say in which ones something has happened."""
    for lane in range(LANES):
        h, t, error = w[STEP + lane], w[TIME + lane], w[ERROR + lane]
        good = is_good(w, lane)
        inside = w[REACH + lane] <= 1.0
        # safety * error^(-1/8), between the limits; the smallest for nan
        wanted = _SAFETY * exp(-0.125 * log(max(1e-30, error)))
        wanted = min(_GROW, wanted)
        wanted = max(_SHRINK, wanted)
        wanted = wanted if error < np.inf else _SHRINK
        rejected = min(1.0, wanted)
        t = w[NEW_TIME + lane] if good else t
        steps = w[STEPS + lane] + 1.0
        w[STEPS + lane] = steps
        w[TIME + lane] = t
        w[OVERLAP + lane] = w[NEW_OVERLAP + lane] if good else w[OVERLAP + lane]
        w[BIAS + lane] = w[NEW_BIAS + lane] if good else w[BIAS + lane]
        h = h if not inside else (h * wanted if good else h * rejected)
        w[STEP + lane] = h
        small = h <= 1e-15 * t
        event = (
            (w[OUTPUT + lane] <= t)
            | (w[STOP_AT + lane] <= t)
            | (not inside)
            | (steps >= max_steps)
            | np.isnan(error)
            | small
        )
        w[EVENT + lane] = 1.0 if event else 0.0
