"""Where everything lies in the flat array that the kernels of this folder work in: row r of a lane is at ``r * lanes + lane``.

First what `moments` works in, then constants of the closed forms of both classes, the parameters of the lane, sums over the
examples of each class, and what the rates and their derivatives are at the state.
"""

from __future__ import annotations

from odeflow.numerics.compilation import inlined
from odeflow.order_parameters.perceptron.expansion.moments import ERF_ROWS, ROWS

__all__ = ["DERIVED", "PARAMETERS", "STARTS", "TABLE", "some_clean"]

ERF = ROWS
"""Constants of the closed forms of the class +1; those of -1 follow."""

DERIVED = ("p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "fraction")
"""Parameters by which there are derivatives, in the order of their rows."""
STARTS = ("R0", "b0", "Q0")
"""Initial values, by which there are derivatives as well: they come after `DERIVED`."""
TABLE = (*DERIVED, "second_order", *STARTS, *(f"mean_{name}" for name in STARTS))
"""Columns of a system's parameters; the last are the initial values of the mean's correction."""

PARAMETERS = ERF + 2 * ERF_ROWS
P, RHO, V1, V2, ETA_W, ETA_B, EPSILON, FRACTION, SECOND_ORDER = range(PARAMETERS, PARAMETERS + 9)

SUMS = PARAMETERS + 9
"""Sums over the examples of the class +1; those of -1 come SUM_ROWS later."""
SUM_ROWS = 32

RATE = SUMS + 2 * SUM_ROWS
"""Rates of the order parameters."""
JACOBIAN = RATE + 3
"""Their derivatives by the state, row by row."""
DIFFUSION = JACOBIAN + 9
"""Covariance of the increments by one example, times N^2, its upper triangle row by row."""
DRIFT = DIFFUSION + 6
"""Of the mean's correction: the step's own of order 1/N^2, times N^2, and half the curvature of the rates with the covariance."""
SHARE = DRIFT + 3
"""Of all examples of a class, those of a node."""
ALL_ROWS = SHARE + 1


@inlined
def some_clean(x, lanes):
    """Return whether in a lane some examples are not attacked; of an idle lane all is 0."""
    some = False
    for lane in range(lanes):
        some = some or (x[FRACTION * lanes + lane] < 1.0 and x[P * lanes + lane] > 0.0)
    return some
