r"""What is averaged over the fields, and where each average stands in the array that the kernels fill.

Of K units and n Gaussian coordinates y (n = K for clusters, K + M with a teacher of M units), with :math:`s_k = -\tilde e\,c_k
g'(\tilde x_k)` and the attack :math:`d`, in this order, arrays in C order:

.. math:: \langle s_k\rangle, \quad \langle s_k y_j\rangle, \quad \langle s_k d_l\rangle, \quad \langle s_k s_l\rangle, \quad
   \langle\tilde e\,g(\tilde x_k)\rangle, \quad \langle\tilde e\rangle, \quad \langle\tilde e^2\rangle .
"""

from __future__ import annotations

from typing import NamedTuple

from odeflow.numerics.compilation import inlined

__all__ = ["FGSM", "MARGIN", "PGD", "WORST", "Attack", "layout", "width"]

FGSM, MARGIN, PGD, WORST = range(4)


class Attack(NamedTuple):
    """What the adversary does with an example, for the kernels."""

    kind: int
    """FGSM: along the sign of the error; MARGIN: against the label; PGD: that many steps; WORST: the largest loss."""
    steps: int
    """Steps of PGD."""
    step: float
    """Length of a step of PGD, in units of epsilon."""


@inlined
def width(K, n):
    """Return the number of averages."""
    return K + K * n + 2 * K * K + K + 2


@inlined
def layout(K, n):
    """Return where <s y>, <s d>, <s s>, <e g>, <e> and <e e> begin; <s> begins at 0."""
    s_y = K
    s_d = s_y + K * n
    s_s = s_d + K * K
    e_g = s_s + K * K
    e = e_g + K
    return s_y, s_d, s_s, e_g, e, e + 1
