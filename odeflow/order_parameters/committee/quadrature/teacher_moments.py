r"""Moments of a teacher's output over the part of its fields where that output is below a threshold, many at a time.

Given a student's fields, those of the teacher are :math:`\nu = m + L z`, :math:`z \sim N(0, I_M)`, and its output is
:math:`\tau = \sum_n c_n g(\nu_n)` with :math:`g(x) = \mathrm{erf}(x/\sqrt2)`. Of FGSM only :math:`\mathrm{sgn}(\phi - \tau)`
matters, so that all that is needed of z are the 3 + 2 M averages, given the student's output :math:`\phi`,

.. math:: \langle 1\rangle, \quad \langle\tau\rangle, \quad \langle\tau^2\rangle, \quad \langle z_j\rangle, \quad
   \langle\tau z_j\rangle \qquad\text{over}\quad \tau < \phi .

One coordinate after the other, by Gauss-Legendre between the points where something beyond it begins or ends: the last is cut
where :math:`c_M g(\nu_M) = \phi - \sum_{n<M} c_n g(\nu_n)`, and one before it, n, where :math:`c_n g(\nu_n) = \phi -
\sum_{i<n} c_i g(\nu_i) - \sum_{i>n} \pm c_i`. There the deeper cut comes from infinity, and the integrand is like a power of
the distance that is not whole: the panels are graded towards their ends.

Arrays have a last axis of `WIDTH` lanes, which the compiler turns into vector instructions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from odeflow.numerics.compilation import called, inlined
from odeflow.numerics.elementary import erfcx, exp, log

__all__ = ["WIDTH", "add_scaled", "bell", "below", "erf_lane", "extremes", "inverse_lane", "whole"]

WIDTH = 64
"""Points of the student's fields that are done together."""

_ROOT_HALF = math.sqrt(0.5)
_ROOT_TWO = math.sqrt(2.0)
_BELL = 1.0 / math.sqrt(2.0 * math.pi)
_SLOPE = math.sqrt(2.0 / math.pi)
_WINITZKI = 0.147
_SMALL = 1e-150
_ANGLES, _ANGLE_WEIGHTS = (np.polynomial.legendre.leggauss(12)[0] + 1) / 2, np.polynomial.legendre.leggauss(12)[1] / 2


@inlined
def bell(x):
    """Return the density of N(0, 1)."""
    return _BELL * exp(-0.5 * x * x)


@inlined
def erf_lane(x):
    """Return erf(x / sqrt 2), without branches."""
    z = _ROOT_HALF * abs(x)
    return math.copysign(1.0 - erfcx(z) * exp(-z * z), x)


@inlined
def inverse_lane(z):
    """Return x with erf(x / sqrt 2) = z, |z| cut at 1 - 1e-11: a start good to 2e-3 (S. Winitzki), two steps of Halley."""
    z = min(max(z, -1.0 + 1e-11), 1.0 - 1e-11)
    logarithm = log((1.0 - z) * (1.0 + z))
    half = 2.0 / (math.pi * _WINITZKI) + 0.5 * logarithm
    x = math.copysign(_ROOT_TWO * math.sqrt(max(math.sqrt(half * half - logarithm / _WINITZKI) - half, 0.0)), z)
    for _ in range(2):
        step = (erf_lane(x) - z) / (_SLOPE * exp(-0.5 * x * x))
        x -= step / (1.0 + 0.5 * x * step)
    return x


@inlined
def _cut(ratio, mean, scale, reach):
    """Return the z, from -reach to reach, up to which erf((mean + scale z) / sqrt 2) is below the ratio."""
    z = min(max((inverse_lane(ratio) - mean) / scale, -reach), reach)
    z = reach if ratio >= 1.0 else z
    return -reach if ratio <= -1.0 else z


@called
def add_scaled(factor, values, out):
    """Add ``factor`` times the values to ``out``."""
    for lane in range(WIDTH):
        out[lane] += factor * values[lane]


@called
def extremes(c, first, values):
    """Fill ``values`` with the sums of +-c_n over n >= first, ascending; return how many there are."""
    values[0] = 0.0
    size = 1
    for n in range(first, c.size):
        for i in range(size):
            values[size + i] = values[i] + c[n]
            values[i] -= c[n]
        size *= 2
    values[:size].sort()
    return size


@called
def _cuts(phi, size, mean, scale, reach, low, length):
    """Fill ``length`` with how far up to the cut it is from ``low``, and return the longest."""
    for lane in range(WIDTH):
        length[lane] = max(_cut(phi[lane] / size, mean[lane], scale, reach) - low[lane], 0.0)
    longest = 0.0
    for lane in range(WIDTH):
        longest = max(longest, length[lane])
    return longest


@called
def below_1(phi, mean, L, c, later, rule, work, out):
    """Fill ``out`` with the moments over the last field. Arguments as those of `below_2`."""
    M = c.size
    n = M - 1
    reach = rule.reach
    scale = max(L[n, n], _SMALL)
    size = max(c[n], _SMALL)
    low, length, m = work[n, 0], work[n, 1], mean[n]
    one, g_1, g_2, z_1, g_z = out[0], out[1], out[2], out[3 + n], out[3 + M + n]
    low[:] = -reach
    _cuts(phi, size, m, scale, reach, low, length)
    one[:] = 0.0
    g_1[:] = 0.0
    g_2[:] = 0.0
    z_1[:] = 0.0
    g_z[:] = 0.0
    for node in range(rule.last_nodes.size):
        t, part = rule.last_nodes[node], rule.last_weights[node]
        for lane in range(WIDTH):
            z = length[lane] * t - reach
            weight = length[lane] * part * bell(z)
            g = size * erf_lane(m[lane] + scale * z)
            one[lane] += weight
            g_1[lane] += weight * g
            g_2[lane] += weight * g * g
            z_1[lane] += weight * z
            g_z[lane] += weight * g * z


@called
def _nodes(low, length, t, part, phi, size, mean, scale, z, weight, next_phi):
    """Fill ``z``, ``weight`` and ``next_phi`` at one node of a panel."""
    for lane in range(WIDTH):
        at = low[lane] + length[lane] * t
        z[lane] = at
        weight[lane] = length[lane] * part * bell(at)
        next_phi[lane] = phi[lane] - size * erf_lane(mean[lane] + scale * at)


@called
def _moved(mean, factor, z, moved):
    for lane in range(WIDTH):
        moved[lane] = mean[lane] + factor * z[lane]


@called
def _collect(weight, z, a, one, first, second, sums):
    """Add to <1>, <tau>, <tau^2>, <z>, <tau z>, with tau = a + what the later units give."""
    sum_1, sum_tau, sum_tau_tau, sum_z, sum_tau_z = sums
    for lane in range(WIDTH):
        w = weight[lane]
        tau = a[lane] * one[lane] + first[lane]
        sum_1[lane] += w * one[lane]
        sum_tau[lane] += w * tau
        sum_tau_tau[lane] += w * (a[lane] * (tau + first[lane]) + second[lane])
        sum_z[lane] += w * z[lane] * one[lane]
        sum_tau_z[lane] += w * z[lane] * tau


@called
def _collect_later(weight, a, z, tau_z, sum_z, sum_tau_z):
    for lane in range(WIDTH):
        sum_z[lane] += weight[lane] * z[lane]
        sum_tau_z[lane] += weight[lane] * (a[lane] * z[lane] + tau_z[lane])


def _before(deeper: Any, n_from_last: int) -> Any:
    """Return the moments over one field more than `deeper` does."""

    @called
    def below(phi, mean, L, c, later, rule, work, out):
        """Fill ``out`` (3 + 2 M, WIDTH) with the moments over the last fields, those of earlier ones left as they are.

        Parameters
        ----------
        phi
            What is left of the threshold, (WIDTH,).
        mean
            Means of the fields given all before them, (M, WIDTH).
        L, c
            Cholesky factor (M, M) and output weights (M,), all positive.
        later
            ``later[n]``: the sums of +-c_i over i > n, ascending.
        """
        M = c.size
        n = M - n_from_last
        scale = max(L[n, n], _SMALL)
        size = max(c[n], _SMALL)
        low, length, weight, z, a, next_phi = work[n, 0], work[n, 1], work[n, 2], work[n, 3], work[n, 4], work[n, 5]
        next_mean = work[n, 6 : 6 + M]
        inner = work[n, 6 + M : 9 + 3 * M]
        for row in range(3 + 2 * M):
            if row < 3 or 3 + n <= row < 3 + M or row >= 3 + M + n:
                out[row] = 0.0
        low[:] = -rule.reach
        count = 1 << (n_from_last - 1)
        # beyond the last cut nothing is below phi
        for segment in range(count):
            edge = later[n, count - 1 - segment]
            for lane in range(WIDTH):
                next_phi[lane] = phi[lane] - edge
            longest = _cuts(next_phi, size, mean[n], scale, rule.reach, low, length)
            for node in range(rule.graded_nodes.size if longest > 0.0 else 0):
                t, part = rule.graded_nodes[node], rule.graded_weights[node]
                _nodes(low, length, t, part, phi, size, mean[n], scale, z, weight, next_phi)
                for i in range(n + 1, M):
                    _moved(mean[i], L[i, n], z, next_mean[i])
                deeper(next_phi, next_mean, L, c, later, rule, work, inner)
                for lane in range(WIDTH):
                    a[lane] = phi[lane] - next_phi[lane]
                _collect(
                    weight, z, a, inner[0], inner[1], inner[2], (out[0], out[1], out[2], out[3 + n], out[3 + M + n])
                )
                for i in range(n + 1, M):
                    _collect_later(weight, a, inner[3 + i], inner[3 + M + i], out[3 + i], out[3 + M + i])
            for lane in range(WIDTH):
                low[lane] += length[lane]

    return below


below_2 = _before(below_1, 2)
below_3 = _before(below_2, 3)


@called
def below(phi, mean, L, c, later, rule, work, out):
    """Fill ``out`` with the moments over tau < phi, for M = 1, 2 or 3."""
    if c.size == 1:
        below_1(phi, mean, L, c, later, rule, work, out)
    elif c.size == 2:
        below_2(phi, mean, L, c, later, rule, work, out)
    else:
        below_3(phi, mean, L, c, later, rule, work, out)


@called
def _pair(first, second, angle, factor, out):
    """Add to ``out`` the covariance of two units with means ``first``, ``second``, and sin(angle) = their correlation."""
    for node in range(_ANGLES.size):
        sin, cos = math.sin(angle * _ANGLES[node]), math.cos(angle * _ANGLES[node])
        part = factor * angle * _ANGLE_WEIGHTS[node] * 2.0 / math.pi
        narrow = 0.5 / (cos * cos)
        for lane in range(WIDTH):
            h, k = first[lane], second[lane]
            out[lane] += part * exp(-narrow * (h * h + k * k - 2.0 * sin * h * k))


@called
def _single(mean, scale, h, unit, bend):
    for lane in range(WIDTH):
        h[lane] = mean[lane] * scale
        unit[lane] = erf_lane(h[lane])
        bend[lane] = scale * _SLOPE * exp(-0.5 * h[lane] * h[lane])


@called
def whole(mean, L, c, work, out):
    r"""Fill ``out`` with the moments over all z.

    With :math:`h_n = m_n/\sqrt{1 + (L L^T)_{nn}}` and :math:`\rho_{nm} = (L L^T)_{nm}/\sqrt{(1 + (L L^T)_{nn})(1 + (L
    L^T)_{mm})}`, :math:`\langle g_n\rangle = g(h_n)` and :math:`\langle g_n g_m\rangle = g(h_n)\,g(h_m) + (2/\pi)
    \int_0^{\arcsin\rho} \exp(-(h_n^2 + h_m^2 - 2 h_n h_m \sin t)/(2 \cos^2 t))\,dt` (R. L. Plackett).
    """
    M = c.size
    out[:] = 0.0
    out[0] = 1.0
    tau, square = out[1], out[2]
    h, unit, bend = work[0], work[0, M], work[0, M + 1]
    for n in range(M):
        variance = 0.0
        for j in range(n + 1):
            variance += L[n, j] * L[n, j]
        _single(mean[n], 1.0 / math.sqrt(1.0 + variance), h[n], unit, bend)
        for lane in range(WIDTH):
            tau[lane] += c[n] * unit[lane]
        for j in range(n + 1):
            add_scaled(c[n] * L[n, j], bend, out[3 + M + j])
        for m in range(n + 1):
            other, covariance = 0.0, 0.0
            for j in range(m + 1):
                other += L[m, j] * L[m, j]
                covariance += L[n, j] * L[m, j]
            angle = math.asin(covariance / math.sqrt((1.0 + variance) * (1.0 + other)))
            _pair(h[n], h[m], angle, c[n] * c[m] * (1.0 if n == m else 2.0), square)
    for lane in range(WIDTH):
        square[lane] += tau[lane] * tau[lane]
