r"""The data of empirical risk minimisation, as the equations see them: the laws of an example's margin.

In the direction that matters (the teacher's, or that of the centres), with m the weights' part along it and s the length of
the rest, the margin of an example of one kind is

.. math:: u = o\,m - y\,b + \sqrt v\,(m\,z + s\,g),

with z and g standard normal; where a teacher decides on the label, z has the weight :math:`2\Phi(z/\tau)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from odeflow.model import MOST, GaussianMixture
from odeflow.parameters import checked, described, number

__all__ = ["Data", "Kinds", "Points", "ProbitTeacher", "breaks", "kinds", "moments"]

Array = npt.NDArray[np.float64]


@described
@dataclass(frozen=True)
class ProbitTeacher:
    r"""Standard Gaussian inputs, which a noisy linear teacher labels.

    The label of xi ~ N(0, I_N) is y = sign(B.xi + tau z) with |B| = 1 and z standard normal:
    :math:`P(y = 1) = \Phi(B\cdot\xi/\tau)`.

    Raises
    ------
    TypeError, ValueError
        If tau is not a number in [0, 1e6].

    Examples
    --------
    >>> ProbitTeacher(0.05)
    ProbitTeacher(tau=0.05)
    """

    tau: float = number(0.0, "noise of the teacher", r"\tau", least=0, most=MOST)

    def __post_init__(self) -> None:
        checked(self)


Data = GaussianMixture | ProbitTeacher
"""What the equations are known for."""

Points = dict[str, Array]
"""Parameters of the data by name, each of shape (points,)."""


class Kinds(NamedTuple):
    """The kinds of examples of which data are a mixture, each of shape (points, kinds)."""

    share: Array
    y: Array
    """Label, which the bias sees."""
    o: Array
    """Mean of y B.xi before any teacher."""
    v: Array
    """Variance of a component of xi."""
    tau: Array
    """Noise of the teacher that weighs z; inf: none."""


def kinds(points: Points) -> Kinds:
    """Return the kinds of examples of the data at some points."""
    if "tau" in points:  # by symmetry, y times the input has one law
        tau = points["tau"][:, None]
        one = np.ones_like(tau)
        return Kinds(one, one, 0 * one, one, tau)
    p, o = points["p"], points["rho"] / 2
    share, v = np.stack([p, 1 - p], axis=1), np.stack([points["v1"], points["v2"]], axis=1)
    y = np.broadcast_to([1.0, -1.0], share.shape)
    return Kinds(share, y, np.stack([o, o], axis=1), v, np.full_like(v, np.inf))


def _noise(of: Kinds, m: Array, s: Array) -> tuple[Array, Array]:
    """Return m / r and the deviation of tau z' + (s/r) zeta, where a teacher's sign turns over xi."""
    r = np.hypot(m, s)[:, None]
    return m[:, None] / r, np.sqrt(of.tau**2 + (s[:, None] / r) ** 2)


def breaks(of: Kinds, m: Array, s: Array) -> Array:
    r"""Return where the weight of xi turns, shape (points, kinds, any): at a teacher's :math:`\Phi(a \xi)`, near 0."""
    if np.all(np.isinf(of.tau)):
        return np.empty((*of.v.shape, 0))
    cosine, deviation = _noise(of, m, s)
    width = deviation / np.maximum(np.abs(cosine), 1e-3)
    return np.asarray(width[..., None] * np.array([-6.0, -2.0, 2.0, 6.0]))


def moments(of: Kinds, m: Array, s: Array, xi: Array) -> tuple[Array, Array, Array]:
    r"""Return :math:`\langle \zeta^k \rangle` with the weights of the examples, k = 0, 1, 2, at xi of shape (points, kinds, nodes).

    xi = (m z + s g)/r and zeta = (s z - m g)/r, r^2 = m^2 + s^2. Where there is no teacher the weight is the kind's share.
    """
    share = of.share[..., None]
    if np.all(np.isinf(of.tau)):
        return share, np.zeros_like(share), share
    cosine, deviation = (part[..., None] for part in _noise(of, m, s))
    sine = (s / np.hypot(m, s))[:, None, None]
    z = cosine * xi
    zero = 2 * share * ndtr(z / deviation)
    first = 2 * share * sine * np.exp(-((z / deviation) ** 2) / 2) / (np.sqrt(2 * np.pi) * deviation)
    return zero, first, zero - first * sine * z / deviation**2
