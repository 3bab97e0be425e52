"""Compiled kernels of the simulation: `direct` in R^N, and `reduced` to (R, b). Section 2 of the theory page."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from odeflow.compilation import LANES, inlined, sources_digest
from odeflow.elementary import erfcx, exp, log
from odeflow.random_streams import box_muller, uniform

__all__ = ["direct", "reduced"]

_SLOPE = 2 / math.sqrt(math.pi)
_DRAWS = 6  # uniform numbers that a reduced step needs


@inlined
def _delta(x, tau):
    """Return delta = (tau - erf(x)) g'(x), at the perturbed x, without cancellation."""
    y = tau * x
    gauss = exp(-y * y)
    tail = gauss * erfcx(abs(y))
    return tau * (tail if y >= 0 else 2.0 - tail) * _SLOPE * gauss


@inlined
def _chi_squared(normal, u, d, c):
    """Return a candidate of twice a gamma variate of shape d + 1/3 >= 1, and whether it is accepted.

    G. Marsaglia and W. W. Tsang, A simple method for generating gamma variables, ACM TOMS 26 (2000) 363.
    """
    root = 1.0 + c * normal
    cube = root * root * root
    accepted = (root > 0.0) & (log(u) < 0.5 * normal * normal + d * (1.0 - cube + log(max(cube, 1e-300))))
    return 2.0 * d * cube, accepted


def _compile(sources: str) -> tuple[Any, Any]:
    """Return the compiled kernels. `sources` stands in their closure to make it part of the key of numba's cache."""

    @njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
    def reduced(states, first, last, N, p, rho, v1, v2, eta_w, eta_b, epsilon, R0, b0, examples, out):
        sources  # noqa: B018
        state = np.ones((4, LANES), np.uint64)
        u = np.zeros((_DRAWS, LANES))
        z_w, z_perp, chi2 = np.zeros(LANES), np.zeros(LANES), np.zeros(LANES)
        accepted = np.zeros(LANES, np.bool_)
        R, b = np.zeros(LANES), np.zeros(LANES)
        sqrt_v1, sqrt_v2 = math.sqrt(v1), math.sqrt(v2)
        d = (N - 2) / 2 - 1 / 3
        c = 1 / math.sqrt(9 * max(d, 1e-3))
        rate_w, rate_b = eta_w / N, eta_b / N

        for begin in range(first, last, LANES):
            runs = min(LANES, last - begin)
            for lane in range(runs):
                state[:, lane] = states[begin + lane, :, 0]
            R[:] = R0
            b[:] = b0
            done = 0
            for output in range(examples.size):
                for _ in range(examples[output] - done):
                    for draw in range(_DRAWS):
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

                    for lane in range(LANES):
                        tau = 1.0 if u[0, lane] <= p else -1.0
                        v = v1 if u[0, lane] <= p else v2
                        sqrt_v = sqrt_v1 if u[0, lane] <= p else sqrt_v2
                        z_B = R[lane] * z_w[lane] + math.sqrt(max(1.0 - R[lane] * R[lane], 0.0)) * z_perp[lane]
                        xi_w = tau * (rho / 2) * R[lane] + sqrt_v * z_w[lane]
                        xi_B = tau * (rho / 2) + sqrt_v * z_B
                        xi_xi = (
                            (rho / 2) ** 2
                            + tau * rho * sqrt_v * z_B
                            + v * (z_w[lane] * z_w[lane] + z_perp[lane] * z_perp[lane] + chi2[lane])
                        )
                        # the attack
                        perturbed_w = xi_w - tau * epsilon
                        perturbed_B = xi_B - tau * epsilon * R[lane]
                        perturbed_2 = xi_xi - 2.0 * tau * epsilon * xi_w + epsilon * epsilon
                        # the update
                        delta = _delta(perturbed_w - b[lane], tau)
                        step = rate_w * delta
                        n2 = 1.0 + 2.0 * step * perturbed_w + step * step * perturbed_2
                        R_new = (R[lane] + step * perturbed_B) / math.sqrt(n2)
                        R[lane] = min(max(R_new, -1.0), 1.0)
                        b[lane] -= rate_b * delta
                done = examples[output]
                for lane in range(runs):
                    out[begin + lane, output, 0] = R[lane]
                    out[begin + lane, output, 1] = b[lane]

    @njit(fastmath={"contract", "reassoc"}, error_model="numpy")
    def dot(x, y):
        total = 0.0
        for i in range(x.size):
            total += x[i] * y[i]
        return total

    @njit(fastmath={"contract"}, error_model="numpy")
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

    @njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
    def direct(states, first, last, N, p, rho, v1, v2, eta_w, eta_b, epsilon, R0, b0, examples, out):
        sources  # noqa: B018
        padded = -(-N // (2 * LANES)) * 2 * LANES
        z = np.zeros(padded)
        u = np.zeros((2, LANES))
        state = np.zeros((4, LANES), np.uint64)
        B = np.full(N, 1 / math.sqrt(N))
        xi = np.zeros(N)
        w = np.zeros(N)
        rate_w, rate_b = eta_w / N, eta_b / N

        for run in range(first, last):
            state[:] = states[run]
            # w(0) = R0 B + sqrt(1 - R0^2) times a random unit vector orthogonal to B
            fill_normal(z, state, u)
            w[:] = z[:N]
            w -= dot(w, B) * B
            w *= math.sqrt(1.0 - R0 * R0) / math.sqrt(dot(w, w))
            w += R0 * B
            b = b0
            done = 0
            for output in range(examples.size):
                for _ in range(examples[output] - done):
                    label, state[0, 0], state[1, 0], state[2, 0], state[3, 0] = uniform(
                        state[0, 0], state[1, 0], state[2, 0], state[3, 0]
                    )
                    tau = 1.0 if label <= p else -1.0
                    sqrt_v = math.sqrt(v1 if label <= p else v2)
                    fill_normal(z, state, u)
                    for i in range(N):
                        xi[i] = tau * (rho / 2) * B[i] + sqrt_v * z[i]
                    # The attack moves xi by -tau epsilon w, and so x by -tau epsilon (|w| = 1).
                    x = dot(w, xi) - tau * epsilon - b
                    delta = _delta(x, tau)
                    step = rate_w * delta
                    for i in range(N):
                        w[i] += step * (xi[i] - tau * epsilon * w[i])
                    w *= 1.0 / math.sqrt(dot(w, w))
                    b -= rate_b * delta
                done = examples[output]
                out[run, output, 0] = dot(w, B)
                out[run, output, 1] = b

    return reduced, direct


reduced, direct = _compile(sources_digest())
