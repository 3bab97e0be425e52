r"""One trajectory under a given control, and its adjoint, by DOP853 with fixed steps.

With the stages :math:`k_i = f(Y_i, u_i)`, :math:`Y_i = y_n + h \sum_{j<i} a_{ij} k_j` and :math:`y_{n+1} = y_n + h \sum_i b_i
k_i`, the derivative :math:`\lambda` of the objective by the state goes back through a step as

.. math:: l_i = J_i^T \kappa_i + h b_i q \nabla S(Y_i), \qquad
    \kappa_i = h b_i \lambda_{n+1} + h \sum_{j>i} a_{ji} l_j, \qquad
    \lambda_n = \lambda_{n+1} + \sum_i l_i,

and :math:`F_i^T \kappa_i` is the derivative by the control of the stage: that of the discretised objective, up to rounding.
q is 1 over the whole time if the objective is the mean of S over time, and 0 if it is S at the end.
"""

from __future__ import annotations

import numpy as np

from odeflow.control.seed import error, point
from odeflow.numerics.compilation import kept
from odeflow.numerics.dop853 import STAGES, A, B, C

__all__ = ["STAGES", "C", "adjoint", "by_control"]

_A = np.ascontiguousarray(A[:STAGES, :STAGES])
_B = np.ascontiguousarray(B[:STAGES])


@kept
def adjoint(model, start, lengths, controls, test_epsilon, final, running, states, costates, gradient):
    """Return the objective: final S(end) + running times the integral of S; set its derivatives and the trajectory.

    Parameters
    ----------
    model
        p, rho, v1, v2 and whether the term of second order is there, shape (5,).
    start
        R and b at alpha = 0, shape (2,).
    lengths
        Of the steps, shape (steps,).
    controls
        epsilon, eta_w and eta_b at the stages, shape (steps, STAGES, 3).
    test_epsilon, final, running
        Of S; weights of its last value and of its integral.
    states, costates
        Set to R and b at the steps' ends, and the derivative of the objective by them, shape (steps + 1, 2).
    gradient
        Set to the derivative by `controls`.
    """
    steps = lengths.size
    f, slope = np.empty((STAGES, 2)), np.empty(2)
    J, F = np.empty((steps, STAGES, 2, 2)), np.empty((steps, STAGES, 2, 3))
    slopes = np.empty((steps, STAGES, 2))
    y = start.copy()
    Y = np.empty(2)
    value = 0.0
    states[0] = start
    for n in range(steps):
        h = lengths[n]
        for i in range(STAGES):
            for k in range(2):
                total = 0.0
                for j in range(i):
                    total += _A[i, j] * f[j, k]
                Y[k] = y[k] + h * total
            point(model, Y, controls[n, i], f[i], J[n, i], F[n, i])
            if running != 0.0:
                value += running * h * _B[i] * error(model, Y, test_epsilon, slopes[n, i])
            else:
                slopes[n, i] = 0.0
        for k in range(2):
            total = 0.0
            for i in range(STAGES):
                total += _B[i] * f[i, k]
            y[k] += h * total
        states[n + 1] = y
    value += final * error(model, y, test_epsilon, slope)
    costate = final * slope
    costates[steps] = costate
    back, kappa = np.empty((STAGES, 2)), np.empty(2)
    for n in range(steps - 1, -1, -1):
        h = lengths[n]
        for i in range(STAGES - 1, -1, -1):
            for k in range(2):
                total = _B[i] * costate[k]
                for j in range(i + 1, STAGES):
                    total += _A[j, i] * back[j, k]
                kappa[k] = h * total
            for k in range(2):
                through = J[n, i, 0, k] * kappa[0] + J[n, i, 1, k] * kappa[1]
                back[i, k] = through + running * h * _B[i] * slopes[n, i, k]
            for k in range(3):
                gradient[n, i, k] = F[n, i, 0, k] * kappa[0] + F[n, i, 1, k] * kappa[1]
        for i in range(STAGES):
            costate = costate + back[i]
        costates[n] = costate
    return value


@kept
def by_control(model, states, costates, controls, out):
    """Set costates times the derivatives of the rates by epsilon, eta_w and eta_b, shape (times, 3); as for `adjoint`."""
    f, J, F = np.empty(2), np.empty((2, 2)), np.empty((2, 3))
    for n in range(states.shape[0]):
        point(model, states[n], controls[n], f, J, F)
        for k in range(3):
            out[n, k] = costates[n, 0] * F[0, k] + costates[n, 1] * F[1, k]
