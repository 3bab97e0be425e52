"""Compiled kernels of the simulation: `direct` in R^N, and `reduced` to (R, b). Section 2 of the theory page.

A step has the mean update of a batch of examples. Orthogonal to w and B their sum is Gaussian whatever the factors of the update
are, with the squared length chi^2 times the sum of the delta^2 v: one chi^2 is drawn for a step.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from odeflow.numerics.compilation import LANES, inlined, is_set, kept
from odeflow.numerics.course import course_at, piece_at
from odeflow.numerics.elementary import log
from odeflow.numerics.random_streams import box_muller, from_table, uniform
from odeflow.order_parameters.perceptron.mixed_averages import lane_learned, learned
from odeflow.order_parameters.perceptron.variants import CONSTANTS, Kind, lane_search, load_search

__all__ = ["Example", "Step", "direct", "reduced"]

_DRAWS = 6  # uniform numbers that a reduced step needs
_ONCE = 3  # the first of those that are drawn once for a batch
_ATTACK_DRAWS = 2  # and these, where the attack is random
_LABEL = _DRAWS + _ATTACK_DRAWS  # and one where labels are flipped


class Example(NamedTuple):
    """How an example is drawn and changed, and what is learned from it."""

    p: float
    half_rho: float
    v1: float
    """Variance of the class +1, with input noise."""
    v2: float
    epsilon: float
    """Where there is no schedule, as the learning rates."""
    epsilon_ratio: float
    fraction: float
    levels: npt.NDArray[np.float64]
    """Of the table of the law of epsilon's factor, empty if there is none."""
    factors: npt.NDArray[np.float64]
    label_noise: float
    smoothed: float
    """k of the factor f - k g'."""
    clean_weight: float
    beta: float
    kind: Kind


class Step(NamedTuple):
    """How the weights and the bias learn."""

    eta_w: float
    eta_b: float
    decay_w: float
    decay_b: float
    batch: int


@inlined
def _chi_squared(normal, u, d, c):
    """Return a candidate of twice a gamma variate of shape d + 1/3 >= 1, and whether it is accepted.

    G. Marsaglia and W. W. Tsang, A simple method for generating gamma variables, ACM TOMS 26 (2000) 363.
    """
    root = 1.0 + c * normal
    cube = root * root * root
    accepted = (root > 0.0) & (log(u) < 0.5 * normal * normal + d * (1.0 - cube + log(max(cube, 1e-300))))
    return 2.0 * d * cube, accepted


@kept
def reduced(states, first, last, N, example, step, search, course, start, steps, stop, out):
    """Fill the rows first <= run < last of out, in two coordinates."""
    kind = example.kind
    half_rho = example.half_rho
    epsilon, eta_w, eta_b = example.epsilon, step.eta_w, step.eta_b
    is_random = example.levels.size > 0 or example.fraction < 1.0
    state = np.ones((4, LANES), np.uint64)
    u = np.zeros((_LABEL + 1, LANES))
    rows = np.zeros((26, LANES))  # of one array, so that the compiler knows that they do not overlap
    z_w, z_perp, chi2, R, b, Q = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5]
    sign, tau, size, sqrt_v, shift = rows[6], rows[7], rows[8], rows[9], rows[10]
    length, cos, sin = rows[11], rows[12], rows[13]
    # projections of an example on w/|w| and on what of B is orthogonal to it; where the attack goes, and how far it moves x
    xi_1, xi_2, toward_1, toward_2, reach = rows[14], rows[15], rows[16], rows[17], rows[18]
    sum_1, sum_2, spread, pull = rows[19], rows[20], rows[21], rows[22]
    margin, attacked, total = rows[23], rows[24], rows[25]
    numbers, work = np.empty((3, LANES)), np.zeros((10, LANES))
    numbers[0], numbers[1], numbers[2] = example.smoothed, example.clean_weight, example.beta
    accepted = np.zeros(LANES, np.bool_)
    scale, constants, searched = np.ones(LANES), np.zeros(CONSTANTS * LANES), np.zeros(6 * LANES)
    load_search(search, constants, searched)
    sqrt_v1, sqrt_v2 = math.sqrt(example.v1), math.sqrt(example.v2)
    d = (N - 2) / 2 - 1 / 3
    c = 1 / math.sqrt(9 * max(d, 1e-3))

    for begin in range(first, last, LANES):
        runs = min(LANES, last - begin)
        for lane in range(runs):
            state[:, lane] = states[begin + lane, :, 0]
            R[lane], b[lane], Q[lane] = start[begin + lane]
        done, piece = 0, 0
        for output in range(steps.size):
            for number in range(done, steps[output]):
                if is_set(stop):
                    return
                if course.edges.size > 0:
                    piece = piece_at(course, piece, number / N)
                    epsilon, eta_w, eta_b = course_at(course, piece, number / N)
                lane_search(search, constants, searched, R, b, Q, epsilon, eta_w, eta_b, scale)
                for lane in range(LANES):
                    length[lane] = math.sqrt(Q[lane])
                    cos[lane] = R[lane] / length[lane]
                    sin[lane] = math.sqrt(max(1.0 - cos[lane] * cos[lane], 0.0))
                    toward_1[lane], toward_2[lane], reach[lane] = 1.0, 0.0, length[lane]
                    sum_1[lane], sum_2[lane], spread[lane], pull[lane] = 0.0, 0.0, 0.0, 0.0
                if kind.blind:
                    for lane in range(LANES):
                        toward_1[lane], toward_2[lane], reach[lane] = cos[lane], sin[lane], R[lane]
                for item in range(step.batch):
                    for draw in range(_LABEL + 1 if kind.noisy else (_LABEL if is_random else _DRAWS)):
                        if item > 0 and _ONCE <= draw < _DRAWS:
                            continue
                        for lane in range(LANES):
                            u[draw, lane], state[0, lane], state[1, lane], state[2, lane], state[3, lane] = uniform(
                                state[0, lane], state[1, lane], state[2, lane], state[3, lane]
                            )
                    for lane in range(LANES):
                        z_w[lane], z_perp[lane] = box_muller(u[1, lane], u[2, lane])
                    for lane in range(LANES):
                        is_plus = u[0, lane] <= example.p
                        sign[lane] = 1.0 if is_plus else -1.0
                        tau[lane] = sign[lane]
                        sqrt_v[lane] = sqrt_v1 if is_plus else sqrt_v2
                    if kind.noisy:
                        for lane in range(LANES):
                            tau[lane] *= -1.0 if u[_LABEL, lane] <= example.label_noise else 1.0
                    for lane in range(LANES):
                        size[lane] = epsilon * (example.epsilon_ratio if tau[lane] < 0.0 else 1.0)
                    if example.levels.size > 0:
                        for lane in range(LANES):
                            size[lane] *= from_table(u[_DRAWS + 1, lane], example.levels, example.factors)
                    if is_random:
                        for lane in range(LANES):
                            size[lane] *= 1.0 if u[_DRAWS, lane] <= example.fraction else 0.0

                    for lane in range(LANES):
                        xi_1[lane] = sign[lane] * half_rho * cos[lane] + sqrt_v[lane] * z_w[lane]
                        xi_2[lane] = sign[lane] * half_rho * sin[lane] + sqrt_v[lane] * z_perp[lane]
                        shift[lane] = size[lane] * reach[lane]
                        margin[lane] = tau[lane] * (length[lane] * xi_1[lane] - b[lane]) - shift[lane]
                    lane_learned(kind.factors, numbers, shift, margin, attacked, total, work)
                    for lane in range(LANES):
                        delta = tau[lane] * total[lane]
                        sum_1[lane] += delta * xi_1[lane] - attacked[lane] * size[lane] * toward_1[lane]
                        sum_2[lane] += delta * xi_2[lane] - attacked[lane] * size[lane] * toward_2[lane]
                        spread[lane] += (delta * sqrt_v[lane]) ** 2
                        pull[lane] += delta
                # c ~ chi^2 with N - 2 degrees of freedom
                if N == 3:
                    for lane in range(LANES):
                        normal = box_muller(u[3, lane], u[4, lane])[0]
                        chi2[lane] = normal * normal
                else:
                    for lane in range(LANES):
                        normal = box_muller(u[3, lane], u[4, lane])[0]
                        chi2[lane], accepted[lane] = _chi_squared(normal, u[5, lane], d, c)
                    for lane in range(runs):
                        while not accepted[lane]:
                            s0, s1, s2, s3 = state[0, lane], state[1, lane], state[2, lane], state[3, lane]
                            u1, s0, s1, s2, s3 = uniform(s0, s1, s2, s3)
                            u2, s0, s1, s2, s3 = uniform(s0, s1, s2, s3)
                            u3, s0, s1, s2, s3 = uniform(s0, s1, s2, s3)
                            state[0, lane], state[1, lane], state[2, lane], state[3, lane] = s0, s1, s2, s3
                            normal = box_muller(u1, u2)[0]
                            chi2[lane], accepted[lane] = _chi_squared(normal, u3, d, c)
                # the update
                for lane in range(LANES):
                    rate = scale[lane] * (eta_w / (N * step.batch))
                    keep = 1.0 - scale[lane] * (eta_w * step.decay_w / N)
                    moved = sum_1[lane] * sum_1[lane] + sum_2[lane] * sum_2[lane] + spread[lane] * chi2[lane]
                    Q_new = keep * keep * Q[lane] + 2.0 * keep * rate * length[lane] * sum_1[lane] + rate * rate * moved
                    R_new = keep * R[lane] + rate * (cos[lane] * sum_1[lane] + sin[lane] * sum_2[lane])
                    new_length = math.sqrt(Q_new)
                    bound = 1.0 if kind.normalised else new_length
                    R[lane] = min(max(R_new / new_length if kind.normalised else R_new, -bound), bound)
                    Q[lane] = 1.0 if kind.normalised else Q_new
                    b[lane] -= scale[lane] * (eta_b / N) * (pull[lane] / step.batch + step.decay_b * b[lane])
            done = steps[output]
            for lane in range(runs):
                out[begin + lane, output, 0] = R[lane]
                out[begin + lane, output, 1] = b[lane]
                if not kind.normalised:
                    out[begin + lane, output, 2] = Q[lane]


@njit(fastmath={"reassoc"}, error_model="numpy")
def dot(x, y):
    total = 0.0
    for i in range(x.size):
        total += x[i] * y[i]
    return total


@njit(error_model="numpy")
def fill_normal(z, state, u):
    """Fill z, whose size is a multiple of 2 LANES, with standard normal numbers."""
    for start in range(0, z.size, 2 * LANES):
        for draw in range(2):
            for lane in range(LANES):
                u[draw, lane], state[0, lane], state[1, lane], state[2, lane], state[3, lane] = uniform(
                    state[0, lane], state[1, lane], state[2, lane], state[3, lane]
                )
        for lane in range(LANES):
            z[start + lane], z[start + LANES + lane] = box_muller(u[0, lane], u[1, lane])


@kept
def direct(states, first, last, N, example, step, search, course, start, steps, stop, out):
    """Fill the rows first <= run < last of out, with weights in R^N."""
    kind = example.kind
    half_rho, kappa = example.half_rho, example.clean_weight
    epsilon, eta_w, eta_b = example.epsilon, step.eta_w, step.eta_b
    is_random = example.levels.size > 0 or example.fraction < 1.0
    padded = -(-N // (2 * LANES)) * 2 * LANES
    z = np.zeros(padded)
    u = np.zeros((2, LANES))
    chance = np.zeros(2 + _ATTACK_DRAWS)
    state = np.zeros((4, LANES), np.uint64)
    B = np.full(N, 1 / math.sqrt(N))
    xi = np.zeros(N)
    total = np.zeros(N)  # of the delta xi of a batch; what the attack adds is along w or B
    w = np.zeros(N)
    scale, constants, searched = np.ones(LANES), np.zeros(CONSTANTS * LANES), np.zeros(6 * LANES)
    at_R, at_b, at_Q = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    load_search(search, constants, searched)

    for run in range(first, last):
        state[:] = states[run]
        R0, b0, Q0 = start[run]
        # w(0) = R0 B + sqrt(Q0 - R0^2) times a random unit vector orthogonal to B
        fill_normal(z, state, u)
        w[:] = z[:N]
        w -= dot(w, B) * B
        w *= math.sqrt(max(Q0 - R0 * R0, 0.0)) / math.sqrt(dot(w, w))
        w += R0 * B
        length = math.sqrt(Q0)
        b = b0
        done, piece = 0, 0
        for output in range(steps.size):
            for number in range(done, steps[output]):
                if is_set(stop):
                    return
                if course.edges.size > 0:
                    piece = piece_at(course, piece, number / N)
                    epsilon, eta_w, eta_b = course_at(course, piece, number / N)
                pull, along_B, along_w = 0.0, 0.0, 0.0
                R = dot(w, B) if kind.blind or kind.searches else 0.0
                if kind.searches:
                    at_R[:], at_b[:], at_Q[:] = R, b, length * length
                    lane_search(search, constants, searched, at_R, at_b, at_Q, epsilon, eta_w, eta_b, scale)
                for item in range(step.batch):
                    for i in range(1 + _ATTACK_DRAWS if is_random else 1):
                        chance[i], state[0, 0], state[1, 0], state[2, 0], state[3, 0] = uniform(
                            state[0, 0], state[1, 0], state[2, 0], state[3, 0]
                        )
                    sign = 1.0 if chance[0] <= example.p else -1.0
                    sqrt_v = math.sqrt(example.v1 if chance[0] <= example.p else example.v2)
                    tau = sign
                    if kind.noisy:
                        chance[3], state[0, 0], state[1, 0], state[2, 0], state[3, 0] = uniform(
                            state[0, 0], state[1, 0], state[2, 0], state[3, 0]
                        )
                        tau = -sign if chance[3] <= example.label_noise else sign
                    size = epsilon * (example.epsilon_ratio if tau < 0.0 else 1.0)
                    if is_random:
                        if example.levels.size > 0:
                            size *= from_table(chance[2], example.levels, example.factors)
                        size = size if chance[1] <= example.fraction else 0.0
                    fill_normal(z, state, u)
                    for i in range(N):
                        xi[i] = sign * half_rho * B[i] + sqrt_v * z[i]
                    # The attack moves xi by -tau epsilon w/|w|, and so x by -tau epsilon |w|; if blind, by -tau epsilon B.
                    shift = size * (R if kind.blind else length)
                    margin = tau * (dot(w, xi) - b) - shift
                    attacked, whole = learned(kind.factors, example.smoothed, kappa, example.beta, shift, margin)
                    delta = tau * whole
                    if item == 0:
                        for i in range(N):
                            total[i] = delta * xi[i]
                    else:
                        for i in range(N):
                            total[i] += delta * xi[i]
                    if kind.blind:
                        along_B -= attacked * size
                    else:
                        along_w -= attacked * size / length
                    pull += delta
                rate = scale[0] * eta_w / (N * step.batch)
                keep = 1.0 - scale[0] * eta_w * step.decay_w / N + rate * along_w
                for i in range(N):
                    w[i] = keep * w[i] + rate * (along_B * B[i] + total[i])
                length = math.sqrt(dot(w, w))
                if kind.normalised:
                    w *= 1.0 / length
                    length = 1.0
                b -= scale[0] * eta_b / N * (pull / step.batch + step.decay_b * b)
            done = steps[output]
            out[run, output, 0] = dot(w, B)
            out[run, output, 1] = b
            if not kind.normalised:
                out[run, output, 2] = dot(w, w)
