"""The two-layer network with one unit in plain NumPy: averages by panels of their own, and the rates that follow."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from odeflow import Adversary, Committee, GaussianMixture, LearningRule

Array = npt.NDArray[np.float64]

_FINE_NODES, _FINE_WEIGHTS = np.polynomial.legendre.leggauss(80)


def rates(
    state: dict[str, Any], net: Committee, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
) -> dict[str, float]:
    """Return the derivatives of M, Q, c, theta and b by alpha: section 5.2 of the theory for K = 1, without a law."""
    M, Q, c, theta, b = (float(np.ravel(state[name])[0]) for name in ("M", "Q", "c", "theta", "b"))
    dM, dQ, dc, dtheta, db = 0.0, 0.0, 0.0, 0.0, 0.0
    for prior, tau, v in ((mixture.p, 1.0, mixture.v1), (1 - mixture.p, -1.0, mixture.v2)):
        for part, epsilon in ((adversary.fraction, adversary.epsilon), (1 - adversary.fraction, 0.0)):
            share = prior * part
            found = averages(np.array(tau * M), v, np.array(Q), np.array(c), np.array(theta), np.array(b), tau, epsilon)
            s, s_y, s_d, s_s, e_g, e = (float(x) for x in found)
            V = math.sqrt(v / Q) * s_y + s_d
            dM += share * rule.eta_w * (s * tau * mixture.rho**2 / 4 + V * M)
            dQ += share * (2 * rule.eta_w * (s * tau * M + V * Q) + rule.second_order * rule.eta_w**2 * v * s_s)
            dc -= share * net.eta_c * e_g
            dtheta -= share * net.eta_theta * s
            db -= share * rule.eta_b * e
    return {"M": dM, "Q": dQ, "c": dc, "theta": dtheta, "b": db}


def averages(
    M: Array, v: float, Q: Array, c: Array, theta: Array, b: Array, tau: float, epsilon: float
) -> tuple[Array, Array, Array, Array, Array, Array]:
    """Return the six averages: the plain formula, with other panels than the kernel's.

    All arrays have one shape; the averages are in the order of the module's docstring.
    """
    from scipy.special import erf, erfinv

    scale = np.sqrt(v * Q)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(np.abs(tau - b) < np.abs(c), (tau - b) / c, 1.0)
        split = (math.sqrt(2) * erfinv(ratio) + theta - M) / scale
    centre = (theta - M) / scale  # where x = 0
    widths = np.array([-12.0, -6.0, -3.0, 0.0, 3.0, 6.0, 12.0])
    edges = np.concatenate(
        [
            np.broadcast_to(np.linspace(-9, 9, 7), (*M.shape, 7)),
            centre[..., None] + widths / scale[..., None],
            np.where(np.isfinite(split), split, 9.0)[..., None],
        ],
        axis=-1,
    )
    edges = np.sort(np.clip(edges, -9, 9), axis=-1)
    low, half = edges[..., :-1, None], np.diff(edges, axis=-1)[..., None] / 2
    y = low + half * (1 + _FINE_NODES)
    weight = half * _FINE_WEIGHTS * np.exp(-y * y / 2) / math.sqrt(2 * math.pi)

    def every(values: Array) -> Array:
        return values[..., None, None]

    x = every(M - theta) + every(scale) * y
    e = every(b) + every(c) * erf(x / math.sqrt(2)) - tau
    d = epsilon * np.sign(e) * np.sign(every(c)) / np.sqrt(every(Q))
    x = x + every(Q) * d
    g = erf(x / math.sqrt(2))
    e = every(b) + every(c) * g - tau
    s = -e * every(c) * math.sqrt(2 / math.pi) * np.exp(-x * x / 2)
    return tuple(np.sum(weight * f, axis=(-2, -1)) for f in (s, s * y, s * d, s * s, e * g, e))
