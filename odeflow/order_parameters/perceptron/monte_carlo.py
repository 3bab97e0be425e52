"""Compiled kernels of the simulation: `direct` in R^N, and `reduced` to (R, b). Section 2 of the theory page."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from odeflow.numerics.compilation import LANES, inlined, is_set, kept
from odeflow.numerics.course import course_at, piece_at
from odeflow.numerics.elementary import log
from odeflow.numerics.random_streams import box_muller, from_table, uniform
from odeflow.order_parameters.perceptron.variant_averages import factor, lane_factors

__all__ = ["direct", "reduced"]

_DRAWS = 6  # uniform numbers that a reduced step needs
_ATTACK_DRAWS = 2  # and these, where the attack is random


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
def reduced(states, first, last, N, model, course, attack, how, normalised, start, examples, stop, out):
    """Fill the rows first <= run < last of out, in two coordinates."""
    p, rho, v1, v2, eta_w, eta_b, epsilon, fraction = model
    levels, factors = attack
    is_random = levels.size > 0 or fraction < 1.0
    draws = _DRAWS + _ATTACK_DRAWS if is_random else _DRAWS
    state = np.ones((4, LANES), np.uint64)
    u = np.zeros((_DRAWS + _ATTACK_DRAWS, LANES))
    z_w, z_perp, chi2 = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    accepted = np.zeros(LANES, np.bool_)
    R, b, Q = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    tau, size = np.zeros(LANES), np.full(LANES, epsilon)
    tilde_w, tilde_B, tilde_2 = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
    margin, f = np.zeros(LANES), np.zeros(LANES)
    sqrt_v1, sqrt_v2 = math.sqrt(v1), math.sqrt(v2)
    d = (N - 2) / 2 - 1 / 3
    c = 1 / math.sqrt(9 * max(d, 1e-3))

    for begin in range(first, last, LANES):
        runs = min(LANES, last - begin)
        for lane in range(runs):
            state[:, lane] = states[begin + lane, :, 0]
            R[lane], b[lane], Q[lane] = start[begin + lane]
        done, piece = 0, 0
        for output in range(examples.size):
            for example in range(done, examples[output]):
                if is_set(stop):
                    return
                if course.edges.size > 0:
                    piece = piece_at(course, piece, example / N)
                    epsilon, eta_w, eta_b = course_at(course, piece, example / N)
                    size[:] = epsilon
                for draw in range(draws):
                    for lane in range(LANES):
                        u[draw, lane], state[0, lane], state[1, lane], state[2, lane], state[3, lane] = uniform(
                            state[0, lane], state[1, lane], state[2, lane], state[3, lane]
                        )
                for lane in range(LANES):
                    z_w[lane], z_perp[lane] = box_muller(u[1, lane], u[2, lane])
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
                if is_random:
                    for lane in range(LANES):
                        by = from_table(u[_DRAWS + 1, lane], levels, factors) if levels.size > 0 else 1.0
                        size[lane] = epsilon * by if u[_DRAWS, lane] <= fraction else 0.0

                # projections on w/|w| and B, and the squared length, of the attacked example
                for lane in range(LANES):
                    is_plus = u[0, lane] <= p
                    tau[lane] = 1.0 if is_plus else -1.0
                    v = v1 if is_plus else v2
                    sqrt_v = sqrt_v1 if is_plus else sqrt_v2
                    length = math.sqrt(Q[lane])
                    cos = R[lane] / length
                    z_B = cos * z_w[lane] + math.sqrt(max(1.0 - cos * cos, 0.0)) * z_perp[lane]
                    xi_w = tau[lane] * (rho / 2) * cos + sqrt_v * z_w[lane]
                    xi_B = tau[lane] * (rho / 2) + sqrt_v * z_B
                    xi_xi = (
                        (rho / 2) ** 2
                        + tau[lane] * rho * sqrt_v * z_B
                        + v * (z_w[lane] * z_w[lane] + z_perp[lane] * z_perp[lane] + chi2[lane])
                    )
                    tilde_w[lane] = xi_w - tau[lane] * size[lane]
                    tilde_B[lane] = xi_B - tau[lane] * size[lane] * cos
                    tilde_2[lane] = xi_xi - 2.0 * tau[lane] * size[lane] * xi_w + size[lane] * size[lane]
                    margin[lane] = tau[lane] * (length * tilde_w[lane] - b[lane])
                lane_factors(how, margin, f)
                # the update
                for lane in range(LANES):
                    delta = tau[lane] * f[lane]
                    step = eta_w / N * delta
                    Q_new = Q[lane] + 2.0 * step * math.sqrt(Q[lane]) * tilde_w[lane] + step * step * tilde_2[lane]
                    R_new = R[lane] + step * tilde_B[lane]
                    length = math.sqrt(Q_new)
                    bound = 1.0 if normalised else length
                    R[lane] = min(max(R_new / length if normalised else R_new, -bound), bound)
                    Q[lane] = 1.0 if normalised else Q_new
                    b[lane] -= eta_b / N * delta
            done = examples[output]
            for lane in range(runs):
                out[begin + lane, output, 0] = R[lane]
                out[begin + lane, output, 1] = b[lane]
                if not normalised:
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
def direct(states, first, last, N, model, course, attack, how, normalised, start, examples, stop, out):
    """Fill the rows first <= run < last of out, with weights in R^N."""
    p, rho, v1, v2, eta_w, eta_b, epsilon, fraction = model
    levels, factors = attack
    is_random = levels.size > 0 or fraction < 1.0
    padded = -(-N // (2 * LANES)) * 2 * LANES
    z = np.zeros(padded)
    u = np.zeros((2, LANES))
    chance = np.zeros(1 + _ATTACK_DRAWS)
    state = np.zeros((4, LANES), np.uint64)
    B = np.full(N, 1 / math.sqrt(N))
    xi = np.zeros(N)
    w = np.zeros(N)

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
        for output in range(examples.size):
            for example in range(done, examples[output]):
                if is_set(stop):
                    return
                if course.edges.size > 0:
                    piece = piece_at(course, piece, example / N)
                    epsilon, eta_w, eta_b = course_at(course, piece, example / N)
                for i in range(1 + _ATTACK_DRAWS if is_random else 1):
                    chance[i], state[0, 0], state[1, 0], state[2, 0], state[3, 0] = uniform(
                        state[0, 0], state[1, 0], state[2, 0], state[3, 0]
                    )
                tau = 1.0 if chance[0] <= p else -1.0
                sqrt_v = math.sqrt(v1 if chance[0] <= p else v2)
                size = epsilon
                if is_random:
                    size *= from_table(chance[2], levels, factors) if levels.size > 0 else 1.0
                    size = size if chance[1] <= fraction else 0.0
                fill_normal(z, state, u)
                for i in range(N):
                    xi[i] = tau * (rho / 2) * B[i] + sqrt_v * z[i]
                # The attack moves xi by -tau epsilon w/|w|, and so x by -tau epsilon |w|.
                x = dot(w, xi) - tau * size * length - b
                delta = tau * factor(how, tau * x)
                step = eta_w / N * delta
                for i in range(N):
                    w[i] += step * (xi[i] - tau * size / length * w[i])
                length = math.sqrt(dot(w, w))
                if normalised:
                    w *= 1.0 / length
                    length = 1.0
                b -= eta_b / N * delta
            done = examples[output]
            out[run, output, 0] = dot(w, B)
            out[run, output, 1] = b
            if not normalised:
                out[run, output, 2] = dot(w, w)
