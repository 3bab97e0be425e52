"""Compiled kernels of the simulation: standard normal numbers in blocks, and steps of SGD on given examples."""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from odeflow.numerics.compilation import LANES, is_set, kept
from odeflow.numerics.random_streams import box_muller, uniform
from odeflow.order_parameters.perceptron.variant_averages import factor

__all__ = ["descend", "fill_normal"]


@kept
def fill_normal(states, first, last, stop, out):
    """Fill the rows first <= run < last of out, (runs, examples, numbers), a multiple of 2 LANES each, from states.

    An example's numbers come one after the other from its run's streams, which are left where they end.
    """
    u = np.zeros((2, LANES))
    state = np.zeros((4, LANES), np.uint64)
    for run in range(first, last):
        state[:] = states[run]
        for example in range(out.shape[1]):
            if is_set(stop):
                return
            for start in range(0, out.shape[2], 2 * LANES):
                for draw in range(2):
                    for lane in range(LANES):
                        u[draw, lane], state[0, lane], state[1, lane], state[2, lane], state[3, lane] = uniform(
                            state[0, lane], state[1, lane], state[2, lane], state[3, lane]
                        )
                for lane in range(LANES):
                    z0, z1 = box_muller(u[0, lane], u[1, lane])
                    out[run, example, start + lane], out[run, example, start + LANES + lane] = z0, z1
        states[run] = state


@njit(fastmath={"reassoc"}, error_model="numpy")
def _products(w, xi, in_linf):
    """Return w.xi and the dual norm of w."""
    x, total = 0.0, 0.0
    if in_linf:
        for i in range(w.size):
            x += w[i] * xi[i]
            total += abs(w[i])
        return x, total
    for i in range(w.size):
        x += w[i] * xi[i]
        total += w[i] * w[i]
    return x, math.sqrt(total)


@njit(fastmath={"reassoc"}, error_model="numpy")
def _length(w):
    total = 0.0
    for i in range(w.size):
        total += w[i] * w[i]
    return math.sqrt(total)


@kept
def descend(first, last, stop, X, chosen, tau, epsilon, in_linf, how, eta, eta_b, normalised, w, b):
    """Move w (runs, N) and b (runs,) by SGD on the examples X[source, chosen[run, k]], k = 0, 1, ...

    X has shape (sources, n, N): a source for each run, or one for all. tau and epsilon have the shape of chosen.
    """
    for run in range(first, last):
        own = X[run if X.shape[0] > 1 else 0]
        weights = w[run]
        for k in range(chosen.shape[1]):
            if is_set(stop):
                return
            xi = own[chosen[run, k]]
            size = epsilon[run, k]
            label = tau[run, k]
            x, dual = _products(weights, xi, in_linf)
            x -= label * size * dual + b[run]
            delta = label * factor(how, label * x)
            step = eta * delta
            attack = label * size
            if in_linf:
                for i in range(weights.size):
                    sign = 1.0 if weights[i] > 0.0 else (-1.0 if weights[i] < 0.0 else 0.0)
                    weights[i] += step * (xi[i] - attack * sign)
            else:
                shrink = 1.0 - step * attack / dual if dual > 0.0 else 1.0
                for i in range(weights.size):
                    weights[i] = shrink * weights[i] + step * xi[i]
            b[run] -= eta_b * delta
            if normalised:
                weights *= 1.0 / _length(weights)
