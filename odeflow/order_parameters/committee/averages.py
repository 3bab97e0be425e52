r"""Averages over one hidden unit's field, by quadrature, in plain NumPy and for the lanes of a kernel.

Given w, the field of cluster a is :math:`\lambda = M_a + \sqrt{v_a Q}\,y`, :math:`y \sim N(0, 1)`, and with :math:`x =
\lambda - \theta`, :math:`\phi = b + c\,g(x)`, :math:`g(x) = \mathrm{erf}(x/\sqrt2)`, FGSM moves it to :math:`\tilde x = x +
Q d`, :math:`d = \varepsilon\,\mathrm{sgn}(\phi - \tau)\,\mathrm{sgn}(c)/\sqrt Q` (equations of section 5 of the theory, for
K = 1). With :math:`\tilde e = b + c\,g(\tilde x) - \tau` and :math:`s = -\tilde e\,c\,g'(\tilde x)` the dynamics need

.. math:: \langle s\rangle, \quad \langle s y\rangle, \quad \langle s d\rangle, \quad \langle s^2\rangle, \quad
   \langle\tilde e\,g(\tilde x)\rangle, \quad \langle\tilde e\rangle .

The integrand jumps where :math:`\phi = \tau`, if that happens: there the panels are split. Gauss-Legendre panels over |y| <=
8, not longer than the scale of what is there; the error is below 1e-11.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import inlined

__all__ = ["add_averages", "averages"]

Array = npt.NDArray[np.float64]

_REACH = 8.0
_BEND = 9.0
_LONGEST = 4.0  # panel, in y and in x
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_WEIGHTS_GAUSS = _WEIGHTS / math.sqrt(2 * math.pi)
_FINE_NODES, _FINE_WEIGHTS = np.polynomial.legendre.leggauss(80)


@inlined
def _inverse_erf(z):
    """Return x with erf(x) = z for |z| < 1: a start that is good to 2e-3 (S. Winitzki), then three Newton steps."""
    logarithm = math.log((1.0 - z) * (1.0 + z))
    half = 2.0 / (math.pi * 0.147) + 0.5 * logarithm
    x = math.copysign(math.sqrt(math.sqrt(half * half - logarithm / 0.147) - half), z)
    for _ in range(3):
        slope = 2.0 / math.sqrt(math.pi) * math.exp(-x * x)
        if slope < 1e-300:
            break
        x -= (math.erf(x) - z) / slope
    return x


@inlined
def add_averages(M, v, Q, c, theta, b, tau, epsilon, share, sums):
    """Add `share` times the six averages of the cluster with mean M, variance v and label tau to ``sums[:6]``."""
    scale = math.sqrt(v * Q)
    root = math.sqrt(Q)
    turn = 1.0 if c > 0.0 else (-1.0 if c < 0.0 else 0.0)
    split = _REACH
    if abs(tau - b) < abs(c) * (1.0 - 1e-14):
        split = (math.sqrt(2.0) * _inverse_erf((tau - b) / c) + theta - M) / scale
        split = min(max(split, -_REACH), _REACH)
    for side in range(2):
        low = -_REACH if side == 0 else split
        high = split if side == 0 else _REACH
        if high <= low:
            continue
        # the sign of phi - tau, which is the same on the whole side
        x = M + scale * 0.5 * (low + high) - theta
        sign = 1.0 if b + c * math.erf(x * math.sqrt(0.5)) > tau else -1.0
        d = epsilon * sign * turn / root
        # within |x| < _BEND at the attacked x the unit bends, elsewhere it is +-1
        centre = (theta - M - Q * d) / scale
        first = min(max(centre - _BEND / scale, low), high)
        last = min(max(centre + _BEND / scale, low), high)
        for part in range(3):
            start = low if part == 0 else (first if part == 1 else last)
            stop = first if part == 0 else (last if part == 1 else high)
            if stop <= start:
                continue
            panels = math.ceil((stop - start) * (max(scale, 1.0) if part == 1 else 1.0) / _LONGEST)
            half = 0.5 * (stop - start) / panels
            for panel in range(panels):
                middle = start + half * (2 * panel + 1)
                for node in range(_NODES.size):
                    y = middle + half * _NODES[node]
                    weight = share * half * _WEIGHTS_GAUSS[node] * math.exp(-0.5 * y * y)
                    x = M + scale * y - theta + Q * d
                    g = math.erf(x * math.sqrt(0.5))
                    e = b + c * g - tau
                    s = -e * c * math.sqrt(2.0 / math.pi) * math.exp(-0.5 * x * x)
                    sums[0] += weight * s
                    sums[1] += weight * s * y
                    sums[2] += weight * s * d
                    sums[3] += weight * s * s
                    sums[4] += weight * e * g
                    sums[5] += weight * e


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
