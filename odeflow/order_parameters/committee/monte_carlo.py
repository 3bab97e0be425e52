"""Compiled kernels of the two-layer network's simulation, one run at a time: `direct` in R^N, `reduced` to the state."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from odeflow.numerics.compilation import inlined, is_set, sources_digest
from odeflow.numerics.random_streams import from_table

__all__ = ["direct", "reduced"]


@inlined
def _attack(x, Q, c, b, tau, epsilon):
    """Return d of FGSM: the example moves by d w."""
    e = b + c * math.erf(x * math.sqrt(0.5)) - tau
    return epsilon * np.sign(e) * np.sign(c) / math.sqrt(Q)


@inlined
def _gradients(x, c, b, tau):
    """Return s = -e c g'(x), and e g(x) and e, at the attacked x."""
    g = math.erf(x * math.sqrt(0.5))
    e = b + c * g - tau
    return -e * c * math.sqrt(2.0 / math.pi) * math.exp(-0.5 * x * x), e * g, e


@inlined
def _drawn(rng, p, v1, v2, epsilon, fraction, levels, factors):
    """Return the label, the standard deviation and the size of the perturbation of an example."""
    is_plus = rng.random() < p
    size = epsilon
    if levels.size > 0:
        size *= from_table(1.0 - rng.random(), levels, factors)
    if fraction < 1.0 and rng.random() >= fraction:
        size = 0.0
    return (1.0 if is_plus else -1.0), math.sqrt(v1 if is_plus else v2), size


def _compile(sources: str) -> tuple[Any, Any]:
    """Return the compiled kernels. `sources` stands in their closure to make it part of the key of numba's cache."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def reduced(rng, N, model, attack, start, examples, stop, out):
        sources  # noqa: B018
        p, rho, v1, v2, eta_w, eta_b, epsilon, fraction, eta_c, eta_theta = model
        levels, factors = attack
        M, Q, c, theta, b = start
        P = 2.0 * M / rho if rho > 0.0 else 0.0  # along B
        X = math.sqrt(max(Q - P * P, 0.0))  # across
        done = 0
        for output in range(examples.size):
            for _ in range(examples[output] - done):
                if is_set(stop):
                    return
                tau, sd, size = _drawn(rng, p, v1, v2, epsilon, fraction, levels, factors)
                xi_B = tau * rho / 2 + sd * rng.standard_normal()
                xi_X = sd * rng.standard_normal()
                rest = sd * math.sqrt(rng.chisquare(N - 2.0))
                Q = P * P + X * X
                x = P * xi_B + X * xi_X - theta
                d = _attack(x, Q, c, b, tau, size)
                s, e_g, e = _gradients(x + Q * d, c, b, tau)
                step = eta_w / N * s
                P, X = P + step * (xi_B + d * P), math.hypot(X + step * (xi_X + d * X), step * rest)
                c -= eta_c / N * e_g
                theta -= eta_theta / N * s
                b -= eta_b / N * e
            done = examples[output]
            out[output, 0] = rho / 2 * P
            out[output, 1] = P * P + X * X
            out[output, 2] = c
            out[output, 3] = theta
            out[output, 4] = b

    @njit(cache=True, nogil=True, error_model="numpy")
    def direct(rng, N, model, attack, start, examples, stop, out):
        sources  # noqa: B018
        p, rho, v1, v2, eta_w, eta_b, epsilon, fraction, eta_c, eta_theta = model
        levels, factors = attack
        M, Q, c, theta, b = start
        # B is the first axis: isotropic data do not tell; w(0) has the given overlap, and a random rest
        w = rng.standard_normal(N)
        P = 2.0 * M / rho if rho > 0.0 else 0.0
        w[0] = 0.0
        w *= math.sqrt(max(Q - P * P, 0.0) / np.sum(w * w))
        w[0] = P
        done = 0
        for output in range(examples.size):
            for _ in range(examples[output] - done):
                if is_set(stop):
                    return
                tau, sd, size = _drawn(rng, p, v1, v2, epsilon, fraction, levels, factors)
                xi = sd * rng.standard_normal(N)
                xi[0] += tau * rho / 2
                Q = np.sum(w * w)
                x = np.sum(w * xi) - theta
                d = _attack(x, Q, c, b, tau, size)
                s, e_g, e = _gradients(x + Q * d, c, b, tau)
                w += eta_w / N * s * (xi + d * w)
                c -= eta_c / N * e_g
                theta -= eta_theta / N * s
                b -= eta_b / N * e
            done = examples[output]
            out[output, 0] = rho / 2 * w[0]
            out[output, 1] = np.sum(w * w)
            out[output, 2] = c
            out[output, 3] = theta
            out[output, 4] = b

    return reduced, direct


reduced, direct = _compile(sources_digest())
