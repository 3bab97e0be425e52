r"""The asymptotics of adversarial empirical risk minimisation: the saddle point, by Newton's method at many points at once.

As N grows, with alpha N examples, the least objective per N of given m = w.B, :math:`s^2 = |w|^2 - m^2` and b is

.. math::
    \max_\beta\ \Bigl[-\tfrac12 \beta s + \tfrac12\lambda(m^2 + s^2)
    + \alpha \Bigl\langle \min_t \ell(t) + \tfrac{\beta}{2 s v}(t - x)^2 \Bigr\rangle\Bigr], \qquad
    x = u - \varepsilon\sqrt{m^2 + s^2},

convex in (m, s, b) and concave in beta, by Gordon's comparison of Gaussian processes; u is the margin of an example
(`odeflow.erm.data`). With V = s/beta the four conditions are those of the theory page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.erm.data import Kinds, Points, breaks, kinds, moments
from odeflow.erm.losses import Averages, Loss

__all__ = ["Solution", "derivatives_at", "saddle"]

Array = npt.NDArray[np.float64]


class Solution(NamedTuple):
    """Overlaps at each point."""

    theta: Array
    """m, s, b, beta; shape (points, 4)."""
    status: npt.NDArray[np.int8]
    """0: converged."""
    training_loss: Array
    """Mean loss of an attacked example of the training."""


class _Sum(NamedTuple):
    gradient: Array
    hessian: Array
    loss: Array


def saddle(
    points: Points,
    loss: Loss,
    alpha: Array,
    epsilon: Array,
    ridge: Array,
    *,
    bias: bool,
    start: Array | None = None,
    tolerance: float = 1e-10,
    steps: int = 100,
) -> Solution:
    """Return the saddle point at each point, from the overlaps `start`, shape (points, 4)."""
    of = kinds(points)
    free = np.array([True, True, bias, True])
    signs = np.array([1.0, 1.0, 1.0, -1.0])[free]  # the operator (Psi_m, Psi_s, Psi_b, -Psi_beta) is monotone
    theta = begin(of, loss, alpha, epsilon, ridge, bias) if start is None else start.copy()
    now = derivatives(of, loss, alpha, epsilon, ridge, theta)
    status = np.ones(alpha.size, np.int8)
    damping = np.zeros(alpha.size)
    todo = np.arange(alpha.size)
    size_0 = np.hypot(theta[:, 0], theta[:, 1])
    for _ in range(steps):
        F, J = now.gradient[:, free] * signs, now.hessian[:, free][:, :, free] * signs[:, None]
        old = theta[todo]
        size = np.hypot(old[:, 0], old[:, 1])
        scale = np.stack([size, size, size + np.abs(old[:, 2]), old[:, 3]], axis=1)
        # relative to what each variable does to the potential, so that it has no unit
        J = J + (damping[todo, None] * np.abs(old[:, 3] * old[:, 1])[:, None] / scale[:, free] ** 2)[
            :, :, None
        ] * np.eye(free.sum())
        step = np.zeros_like(now.gradient)
        step[:, free] = -_solved(J, F)
        length = _longest(old, step)
        done = np.all(np.abs(step) <= tolerance * scale, axis=1) & (length == 1) & (damping[todo] < 1e-6)
        weights = scale[:, free]
        merit = np.sum((F * weights) ** 2, axis=1)
        trial = old + length[:, None] * step
        parts = [column[todo] for column in (alpha, epsilon, ridge)]
        some = Kinds(*(column[todo] for column in of))
        new = derivatives(some, loss, parts[0], parts[1], parts[2], trial)
        damping[todo] *= 0.1
        for tries in range(12):
            worse = ~(np.sum((new.gradient[:, free] * weights) ** 2, axis=1) <= (1 - 1e-4 * length) * merit) & ~done
            if not np.any(worse):
                break
            if tries == 1:
                damping[todo[worse]] = np.maximum(100 * damping[todo[worse]], 1e-3)
            length[worse] /= 4
            trial[worse] = old[worse] + length[worse, None] * step[worse]
            fewer = [column[worse] for column in parts]
            again = derivatives(Kinds(*(c[worse] for c in some)), loss, fewer[0], fewer[1], fewer[2], trial[worse])
            for whole, part in zip(new, again, strict=True):
                whole[worse] = part
        theta[todo] = trial
        status[todo[done]] = 0
        gone = np.hypot(trial[:, 0], trial[:, 1]) < 1e-7 * size_0[todo]
        status[todo[gone]] = 2
        left = ~done & ~gone
        now = _Sum(*(part[left] for part in new))
        todo = todo[left]
        if not todo.size:
            break
    return Solution(theta, status, derivatives(of, loss, alpha, epsilon, ridge, theta).loss)


def _longest(theta: Array, step: Array) -> Array:
    """Return how much of a step may be taken, at most 1: s, beta and the weights stay > 0, and b does not run away."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        falls = np.max(-step[:, [1, 3]] / theta[:, [1, 3]], axis=1)
        m, s = theta[:, 0], theta[:, 1]
        shrinks = np.where(m * step[:, 0] + s * step[:, 1] < 0, np.hypot(step[:, 0], step[:, 1]) / np.hypot(m, s), 0.0)
        runs = np.abs(step[:, 2]) / (1 + np.abs(theta[:, 2]))
        bounds = np.stack([falls / 0.9, shrinks / 0.7, runs / 2])
    return np.asarray(1 / np.maximum(np.max(np.where(np.isfinite(bounds), bounds, np.inf), axis=0), 1.0))


def _solved(J: Array, F: Array) -> Array:
    """Return J^-1 F, by least squares where J has no inverse."""
    try:
        return np.asarray(np.linalg.solve(J, F[..., None])[..., 0])
    except np.linalg.LinAlgError:
        return np.stack([np.linalg.lstsq(one, other, rcond=None)[0] for one, other in zip(J, F, strict=True)])


def begin(of: Kinds, loss: Loss, alpha: Array, epsilon: Array, ridge: Array, bias: bool) -> Array:
    """Return a start: weights along the mean of y xi, of a length at which margins are of order one."""
    mean = np.where(np.isinf(of.tau), of.o, np.sqrt(2 / np.pi / (1 + of.tau**2)))
    c, v = (np.sum(of.share * part, axis=1) for part in (mean, of.v))
    noise = np.sqrt(v / alpha)
    size = np.hypot(c, noise)
    r = 1 / (1 / np.hypot(c, np.sqrt(v)) + np.hypot(c, np.sqrt(v)) + ridge / (alpha * size))
    m, s = r * c / size, r * noise / size
    theta = np.stack([m, s, np.zeros_like(m), np.sqrt(alpha)], axis=1)
    if bias:
        theta[:, 2] = loss.constant(of.share[:, 0])
    for _ in range(10):
        at = _nodes(of, loss, epsilon, theta)
        zero = moments(of, m, s, at.xi)[0]
        theta[:, 3] = np.sqrt(alpha * np.sum(of.v[..., None] * zero * at.weight * at.f**2, axis=(1, 2)))
    return theta


def _nodes(of: Kinds, loss: Loss, epsilon: Array, theta: Array) -> Averages:
    m, s, b, beta = theta.T
    r = np.hypot(m, s)[:, None]
    centre = of.o * m[:, None] - of.y * b[:, None] - epsilon[:, None] * r
    return loss.averages(centre, np.sqrt(of.v) * r, of.v * (s / beta)[:, None], breaks(of, m, s))


def derivatives_at(points: Points, loss: Loss, columns: Mapping[str, Array], theta: Array) -> _Sum:
    """Return gradient and Hessian of the potential at points whose alpha, epsilon and ridge are columns."""
    return derivatives(kinds(points), loss, columns["alpha"], columns["epsilon"], columns["ridge"], theta)


def derivatives(of: Kinds, loss: Loss, alpha: Array, epsilon: Array, ridge: Array, theta: Array) -> _Sum:
    r"""Return the gradient and the Hessian of the potential by (m, s, b, beta), and the mean loss at the proximal points.

    Moreau's envelope M(x, V) has the derivatives f and -f^2/2 by x and V, and d^2 M = h (dx - f dV)^2 + f d^2 x - f^2 d^2 V / 2.
    """
    at = _nodes(of, loss, epsilon, theta)
    m, s, _, beta = (column[:, None, None] for column in theta.T)
    r, e, v, y = np.hypot(m, s), epsilon[:, None, None], of.v[..., None], of.y[..., None]
    zero, first, second = moments(of, theta[:, 0], theta[:, 1], at.xi)
    w, f, h, xi = at.weight, at.f, at.h, at.xi
    # x_m and x_s are linear in zeta: x_m = m0 + m1 zeta; so are the y_ = x_ - f V_ of the Hessian
    m0 = of.o[..., None] + (np.sqrt(v) * xi - e) * m / r
    m1 = np.sqrt(v) * s / r
    s0 = (np.sqrt(v) * xi - e) * s / r
    s1 = -np.sqrt(v) * m / r
    V_s, V_beta = v / beta, -s * v / beta**2

    def total(values: Array) -> Array:
        return np.asarray(np.sum(w * values, axis=(1, 2)))

    ff = total(zero * v * f**2)
    mean_f = total(zero * f)
    g = np.empty((len(theta), 4))
    g[:, 0] = alpha * total(f * (m0 * zero + m1 * first))
    g[:, 1] = alpha * total(f * (s0 * zero + s1 * first)) - alpha * ff / (2 * theta[:, 3])
    g[:, 2] = -alpha * total(zero * y * f)
    g[:, 3] = alpha * ff * theta[:, 1] / (2 * theta[:, 3] ** 2)
    a = [m0, s0 - f * V_s, -y, -f * V_beta]
    c = [m1, s1, 0.0, 0.0]
    H = np.empty((len(theta), 4, 4))
    for i in range(4):
        for j in range(i + 1):
            product = zero * a[i] * a[j] + first * (a[i] * c[j] + c[i] * a[j]) + second * c[i] * c[j]
            H[:, i, j] = H[:, j, i] = alpha * total(h * product)
    m, s, _, beta = theta.T
    r = np.hypot(m, s)
    pull = alpha * epsilon * mean_f / r**3
    H[:, 0, 0] += ridge - pull * s**2
    H[:, 1, 1] += ridge - pull * m**2
    H[:, 0, 1] += pull * m * s
    H[:, 1, 0] += pull * m * s
    cross = alpha * ff / (2 * beta**2) - 0.5
    H[:, 1, 3] += cross
    H[:, 3, 1] += cross
    H[:, 3, 3] -= alpha * ff * s / beta**3
    g[:, 0] += ridge * m
    g[:, 1] += ridge * s - beta / 2
    g[:, 3] -= s / 2
    return _Sum(g, H, total(zero * at.loss))
