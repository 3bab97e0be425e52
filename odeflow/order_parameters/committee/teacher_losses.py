r"""Losses of a student: :math:`\langle(\phi - \tau)^2\rangle/2` on clean and on attacked inputs, by the quadrature of its rates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from odeflow.model import TeacherStudent
from odeflow.numerics.compilation import sources_digest
from odeflow.numerics.threads import Flag, map_blocks
from odeflow.order_parameters.base import Array
from odeflow.order_parameters.committee.batch import factor
from odeflow.order_parameters.committee.quadrature.sums import FGSM, Attack, width
from odeflow.order_parameters.committee.quadrature.teacher import add_averages_teacher, rule, scratch
from odeflow.order_parameters.committee.states import TwoLayers
from odeflow.order_parameters.committee.units import ACTIVATIONS, GAINS

__all__ = ["losses"]

_PLAIN = Attack(FGSM, 1, 1.0)


def losses(
    network: TwoLayers, parts: tuple[Array, ...], mixture: TeacherStudent, scale: Any, epsilon: Any
) -> tuple[Array, Array]:
    """Return the mean losses of states, clean and under FGSM on the loss with epsilon, each of shape (...); nan where no weights
    have these overlaps.

    Exact at any N for given weights, but for the quadrature, whose accuracy is the network's tolerance.

    Parameters
    ----------
    network
        The student.
    parts
        R (..., K, M), Q (..., K, K), c (..., K), theta (..., K), b (...).
    mixture
        The teacher, without its scale.
    scale, epsilon
        Of the teacher's weights, squared, and of the attack: they broadcast with the states.
    """  # noqa: D205 -- one sentence
    R, Q, c, theta, b = parts
    gain, other = GAINS[network.activation], GAINS[mixture.activation]
    shape = np.broadcast_shapes(b.shape, np.shape(scale), np.shape(epsilon))
    K, M = network.hidden, mixture.units

    def rows(values: Any, *entries: int) -> Array:
        whole = np.broadcast_to(np.asarray(values, np.float64), (*shape, *entries))
        return np.ascontiguousarray(whole.reshape(-1, *entries))

    T = other**2 * np.asarray(scale, np.float64)[..., None, None] * mixture.products(scaled=False)
    states = (
        rows(gain * other * R, K, M),
        rows(T, M, M),
        rows(gain**2 * Q, K, K),
        rows(c, K),
        rows(gain * theta, K),
        rows(b),
    )
    kinds = ACTIVATIONS[network.activation], ACTIVATIONS[mixture.activation]
    plan, output = rule(K, M, network.tolerance), np.array(mixture.weights)
    found = []
    for size in (rows(0.0), rows(epsilon)):
        out = np.empty(len(size))

        def block(first: int, last: int, stop: Flag, size: Array = size, out: Array = out) -> None:
            _losses(first, last, *states, *kinds, output, size, _PLAIN, plan, out)

        map_blocks(block, len(size), least=4)
        found.append(out.reshape(shape))
    return found[0], found[1]


def _compile(sources: str) -> Any:
    """Return the compiled function. `sources` stands in its closure to make it part of the key of numba's cache."""

    @njit(cache=True, nogil=True, error_model="numpy")
    def losses(first, last, R, T, Q, c, theta, b, kind, teacher_kind, output, epsilon, how, rule, out):
        sources  # noqa: B018
        K, m = R.shape[1], R.shape[2]
        n = K + m
        C, L, sums = np.empty((n, n)), np.empty((n, n)), np.empty(width(K, n))
        work = np.empty(scratch(K, m, rule))
        for i in range(first, last):
            C[:K, :K], C[:K, K:], C[K:, :K], C[K:, K:] = Q[i], R[i], R[i].T, T[i]
            out[i] = np.nan
            if factor(C, L):
                sums[:] = 0.0
                add_averages_teacher(
                    kind, R[i], T[i], L, Q[i], theta[i], c[i], b[i], teacher_kind, output, epsilon[i], how, 1.0, rule,
                    work, sums,
                )  # fmt: skip
                out[i] = 0.5 * sums[sums.size - 1]

    return losses


_losses = _compile(sources_digest())
