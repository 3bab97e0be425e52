r"""Hidden units at one point, inlined into the kernels: g, its derivative, and what changes for erf(x).

The kernels know two units: ``ERF``, :math:`g(x) = \mathrm{erf}(x/\sqrt2)`, and ``RELU``, :math:`g(x) = \max(x, 0)`. A unit
:math:`\mathrm{erf}(x)` is the first with all weights and thresholds :math:`\sqrt2` times as large, see `GAINS`.
"""

from __future__ import annotations

import math

from odeflow.numerics.compilation import inlined

__all__ = ["ACTIVATIONS", "ERF", "GAINS", "KINK", "RELU", "slope", "unit"]

ERF, RELU = 0, 1

ACTIVATIONS: dict[str, int] = {"erf": ERF, "erf-x": ERF, "relu": RELU}
"""Name of an activation to the unit of the kernels: erf is erf(x / sqrt(2)), erf-x is erf(x)."""

GAINS: dict[str, float] = {"erf": 1.0, "erf-x": math.sqrt(2.0), "relu": 1.0}
r"""Name of an activation to the gain a, with which :math:`g(x)` is the kernels' unit at :math:`a x`.

With M' = a M, Q' = a^2 Q, theta' = a theta and the learning rates a^2 eta_w, a^2 eta_theta, the primed weights learn by the
kernels' unit; c, b0, the examples and epsilon stay as they are.
"""

KINK = 1e-12
"""Up to where a ReLU counts as at its kink."""

_SLOPE = math.sqrt(2.0 / math.pi)


@inlined
def unit(kind, x):
    """Return g(x)."""
    if kind == ERF:
        return math.erf(x * math.sqrt(0.5))
    return max(x, 0.0)


@inlined
def slope(kind, x):
    """Return g'(x); that of a ReLU at 0, up to rounding, is 0: the worst case can move an example onto a kink."""
    if kind == ERF:
        return _SLOPE * math.exp(-0.5 * x * x)
    return 1.0 if x > KINK else 0.0
