r"""Rates of the seed model with their derivatives by the state and by what is controlled, compiled, at one point.

With the margins :math:`s = \rho R/2 - \varepsilon - b` and :math:`t = \rho R/2 - \varepsilon + b` of the two attacked
centres, the forces :math:`D = p D_1(s, v_1)`, :math:`D = (1-p) D_1(t, v_2)` and the noises :math:`p v_1 D_2(s, v_1)`,
:math:`(1-p) v_2 D_2(t, v_2)` of `odeflow.order_parameters.perceptron.forces`,

.. math::
    dR/d\alpha &= \eta_w \frac\rho2 (1-R^2)(D_s + D_t) - \frac{\eta_w^2}{2} R (N_s + N_t), \\
    db/d\alpha &= -\eta_b (D_s - D_t).

Exact as N grows. Tests hold them to `odeflow.rates` and `odeflow.integrate`.
"""

from __future__ import annotations

import math

import numpy as np

from odeflow.numerics.compilation import called, once

__all__ = ["error", "point"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)
_X = 2 / math.sqrt(math.pi)


@called
def pull(u, v):
    """Return D1, D1', D2 and D2' of a class of variance v at the margin u."""
    k2 = 1 / ((1 + 2 * v) * (1 + 4 * v))
    E = math.exp(-u * u / (1 + 2 * v))
    A0 = _X / math.sqrt(1 + 2 * v)
    D1 = A0 * E * math.erfc(math.sqrt(k2) * u)
    dD1 = -2 * u / (1 + 2 * v) * D1 - A0 * math.sqrt(k2) * _X * E * math.exp(-k2 * u * u)
    c = 1 / math.sqrt((1 + 4 * v) * (1 + 6 * v))
    g, a = c * u, math.sqrt((1 + 4 * v) / (1 + 8 * v))
    W = math.erfc(g) ** 2
    for i in range(_NODES.size):
        x = (1 + a) / 2 + (1 - a) / 2 * _NODES[i]
        W += 2 / math.pi * (1 - a) * _WEIGHTS[i] * math.exp(-g * g * (1 + x * x)) / (1 + x * x)
    C = 4 / math.pi / math.sqrt(1 + 4 * v) * math.exp(-2 * u * u / (1 + 4 * v))
    dD2 = -4 * u / (1 + 4 * v) * C * W - C * c * 2 * _X * math.exp(-g * g) * math.erfc(a * g)
    return D1, dD1, C * W, dD2


@once
def point(model, y, control, f, J, F):
    """Set the rates f, their derivatives J by the state (R, b), and F by the control (epsilon, eta_w, eta_b)."""
    p, half_rho, v1, v2, second_order = model[0], model[1] / 2, model[2], model[3], model[4]
    R, b = y[0], y[1]
    epsilon, eta_w, eta_b = control[0], control[1], control[2]
    D_s, dD_s, N_s, dN_s = pull(half_rho * R - epsilon - b, v1)
    D_t, dD_t, N_t, dN_t = pull(half_rho * R - epsilon + b, v2)
    plus, minus = p, 1 - p
    drive, drive_up, drive_b = plus * D_s + minus * D_t, plus * dD_s + minus * dD_t, minus * dD_t - plus * dD_s
    noise = second_order * (plus * v1 * N_s + minus * v2 * N_t)
    noise_up = second_order * (plus * v1 * dN_s + minus * v2 * dN_t)
    noise_b = second_order * (minus * v2 * dN_t - plus * v1 * dN_s)
    imbalance = minus * D_t - plus * D_s
    across = half_rho * (1 - R * R)
    f[0] = eta_w * across * drive - eta_w * eta_w / 2 * R * noise
    f[1] = eta_b * imbalance
    J[0, 0] = eta_w * half_rho * (across * drive_up - 2 * R * drive) - eta_w * eta_w / 2 * (
        noise + R * half_rho * noise_up
    )
    J[0, 1] = eta_w * across * drive_b - eta_w * eta_w / 2 * R * noise_b
    J[1, 0] = eta_b * half_rho * drive_b
    J[1, 1] = eta_b * drive_up
    F[0, 0] = -eta_w * across * drive_up + eta_w * eta_w / 2 * R * noise_up
    F[0, 1] = across * drive - eta_w * R * noise
    F[0, 2] = 0.0
    F[1, 0] = -eta_b * drive_b
    F[1, 1] = 0.0
    F[1, 2] = imbalance


@once
def error(model, y, test_epsilon, gradient):
    """Return the adversarial error S at the test epsilon, and set its gradient by the state."""
    p, half_rho, s1, s2 = model[0], model[1] / 2, math.sqrt(model[2]), math.sqrt(model[3])
    x, z = (half_rho * y[0] - test_epsilon - y[1]) / s1, (half_rho * y[0] - test_epsilon + y[1]) / s2
    at_x = p / s1 * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    at_z = (1 - p) / s2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    gradient[0] = -half_rho * (at_x + at_z)
    gradient[1] = at_x - at_z
    return (p * math.erfc(x / math.sqrt(2)) + (1 - p) * math.erfc(z / math.sqrt(2))) / 2
