r"""How far the closure is from what it assumes: three numbers that it takes to be small, section 4 of the theory page.

**A step.** The equations of mean and covariance are those of many small steps. One example changes the output x of another
one by :math:`\Delta x = \eta\,\delta\,\tilde\xi\cdot\tilde\xi'`, over a range :math:`\ell_\tau` in which :math:`\delta`
changes, :math:`\ell_\tau^2 = \tfrac12 + \mathrm{var}\,x` (:math:`\mathrm{var}\,x` alone for a :math:`\delta` that jumps at 0):

.. math:: j_\tau^2 = \eta^2\,\frac{a_\tau^TDa_\tau + \mathrm{tr}\,C_\tau D
          + \langle\delta^2\rangle\,\varepsilon^4\,(|\mathrm{sign}|^2 - |s|^2)^2}{\ell_\tau^2} .

The last term is what the attack does to itself: a weight near zero is carried across it, and the mean s of the sign, whose
square is less than that of the sign, does not see it.

**The place and the width.** The law of u over runs is taken as Gaussian, and so is x with it. That matters where the mean of
x and its variance over examples, :math:`u\cdot a_\tau` and :math:`u^TC_\tau u`, differ from run to run:

.. math:: h_\tau = \frac{a_\tau^T\Sigma a_\tau}{\ell_\tau^2}, \qquad
          g_\tau = \frac{\sqrt{4\,\bar u^TC\Sigma C\bar u + 2\,\mathrm{tr}(C\Sigma C\Sigma)}}{\ell_\tau^2} .
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.mixture import LABELS_OF_CLASSES

if TYPE_CHECKING:
    from odeflow.anisotropic.closure import Closure
    from odeflow.anisotropic.fluctuations import Fluctuations

__all__ = ["LARGE", "ClosureWarning", "Neglected", "neglected"]

Array = npt.NDArray[np.float64]

LARGE = 0.5
"""The size of what is neglected from which on a prediction is not to be trusted."""


class Neglected(NamedTuple):
    """What the closure takes to be small."""

    step: float = 0.0
    """j: change of x by one example."""
    place: float = 0.0
    """h: variance of the mean of x over runs."""
    width: float = 0.0
    """g: standard deviation of the variance of x over runs."""

    def or_more(self, other: Neglected) -> Neglected:
        """Return the larger of both, one by one."""
        return Neglected(*map(max, self, other))


class ClosureWarning(UserWarning):
    """The theory with noise is used where it may be far off: the page "Theory on real data" says where, and why.

    A warning of its own class, so that ``warnings.simplefilter("ignore", ClosureWarning)`` hides no other one.
    """


def neglected(
    closure: Closure, u: Array, c: Array, now: Fluctuations, noise: Fluctuations, mean_square: float
) -> Neglected:
    r"""Return j, h and g, the largest of the two classes each.

    Parameters
    ----------
    closure, u, c
        The equations, the mean of the weights, and C_tau u.
    now, noise
        The covariance, and D as the subspace sees it.
    mean_square
        The average of delta squared.
    """
    V = closure.variances(now)
    s, epsilon = closure.s(u, V), float(closure.epsilon.max())
    directions = np.column_stack([closure.m.T, s])
    of_itself = mean_square * (epsilon**2 * (closure.norm.squared_gradient(len(V)) - s @ s)) ** 2
    range_squared = np.maximum(closure.least_range**2 + c @ u + now.trace_with_covariances(), 1e-300)
    a_D_a, a_Sigma_a = (_along(matrix.form(directions), epsilon) for matrix in (noise, now))
    change_squared = (
        np.maximum(a_D_a + noise.trace_with_covariances(), 0.0) + of_itself
    )  # rounding may leave less than 0
    spread_squared = np.maximum(4 * np.diag(now.form(c.T)) + 2 * now.trace_of_squares(), 0.0)
    step = closure.noise_rate * np.sqrt(change_squared / range_squared)
    width = np.sqrt(spread_squared) / range_squared
    return Neglected(float(step.max()), float((a_Sigma_a / range_squared).max()), float(width.max()))


def _along(gram: Array, epsilon: float) -> Array:
    """Return the quadratic forms of m_tau - tau epsilon s, shape (2,), from the Gram matrix of m_+, m_- and s."""
    tau = np.array(LABELS_OF_CLASSES)
    return np.asarray(np.diag(gram)[:2] - 2 * epsilon * tau * gram[:2, 2] + epsilon**2 * gram[2, 2])
