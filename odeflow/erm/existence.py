r"""Where the minimiser exists, and is a classifier."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from odeflow.erm.data import Data, Points, breaks, kinds, moments
from odeflow.erm.losses import LOSSES, Loss, normal_nodes
from odeflow.model import MOST, numeric_parameters
from odeflow.parameters import checked_number

__all__ = ["largest_epsilon", "separability_threshold", "threshold_at"]

Array = npt.NDArray[np.float64]


def separability_threshold(data: Data, *, epsilon: float = 0.0, loss: str = "logistic", bias: bool = True) -> float:
    r"""Return the examples per dimension up to which the attacked examples can be fitted without loss (exact as N grows).

    For the logistic and the hinge loss they are separable with the margin epsilon, :math:`y_i(w\cdot x_i - b) \ge
    \varepsilon|w|`; for the squared loss all margins are equal, and that large. Below it the loss has no least value that is
    taken on (logistic), or many minimisers (hinge, squared), unless there is a ridge.

    .. math::
        \alpha_c = \max_{R, b} \frac{1 - R^2}{\langle (\varepsilon - u)_+^2/v \rangle},

    u the margin for |w| = 1 with w.B = R; without the positive part for the squared loss.

    Parameters
    ----------
    data
        `GaussianMixture` or `ProbitTeacher`.
    epsilon
        Size of the attack in training, >= 0.
    loss
        "logistic", "hinge" or "squared".
    bias
        Whether there is a bias (of a mixture).

    Returns
    -------
    float
        alpha_c; inf if examples are separable whatever their number.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    Labels that have nothing to do with the inputs: Cover's 2.

    >>> from odeflow.erm import ProbitTeacher
    >>> round(separability_threshold(ProbitTeacher(1e6)), 5)
    2.0
    """
    checked_data(data)
    points = {name: np.array([value]) for name, value in numeric_parameters(data).items()}
    epsilon = checked_number("epsilon", epsilon, least=0, most=MOST)
    return threshold_at(points, checked_loss(loss), epsilon, bias and "p" in points)


def threshold_at(points: Points, loss: Loss, epsilon: float, bias: bool) -> float:
    """Return the threshold at one point, whose arrays have shape (1,)."""
    of = kinds(points)

    def cost(place: Array) -> float:
        # convex in m and b at s = 1: the share of 1 / alpha that the examples cost
        m, s = place[:1], np.ones(1)
        b = place[1] if bias else 0.0
        r = np.hypot(m, s)[:, None]
        centre = of.o * m[:, None] - of.y * b - epsilon * r
        kink = (-centre / (np.sqrt(of.v) * r))[..., None]
        xi, weight = normal_nodes(centre, kink, breaks(of, m, s))
        short = -(centre[..., None] + np.sqrt(of.v)[..., None] * r[..., None] * xi)
        if loss.positive_part:
            short = np.maximum(short, 0)
        return float(np.sum(weight * moments(of, m, s, xi)[0] * short**2 / of.v[..., None]))

    best = min(
        (
            minimize(cost, [m, 0.0][: 1 + bias], method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-14})
            for m in (0.1, 3.0)
        ),
        key=lambda found: found.fun,
    )
    return float(1 / best.fun) if best.fun > 1e-14 else float("inf")


def largest_epsilon(points: Points, alpha: Array, *, bias: bool) -> Array:
    r"""Return the attack from which on the weights are 0, shape (points,): there the pull of all examples is outdone.

    At w = 0 example i pulls with a_i, the same for all losses up to a factor: with a bias, a is inverse to the share of the
    label. w = 0 is the minimum if :math:`|\sum_i a_i y_i x_i| \le \varepsilon \sum_i a_i`. (The hinge has a kink there, and its
    weights vanish earlier if the labels have unequal shares.)
    """
    of = kinds(points)
    if "tau" in points:
        return np.asarray(np.sqrt(2 / np.pi / (1 + points["tau"] ** 2) + 1 / alpha))
    a = 1 / of.share if bias else np.ones_like(of.share)
    pull, spread = np.sum(of.share * a, axis=1), np.sum(of.share * a**2 * of.v, axis=1)
    return np.asarray(np.sqrt(of.o[:, 0] ** 2 + spread / (alpha * pull**2)))


def checked_loss(loss: str) -> Loss:
    """Return the loss of a name, or raise an error that names those there are."""
    if loss not in LOSSES:
        raise ValueError(f"loss = {loss!r} is unknown: allowed is one of {', '.join(LOSSES)}")
    return LOSSES[loss]


def checked_data(data: object) -> None:
    """Raise a TypeError if the equations are not known for these data."""
    if not isinstance(data, Data):
        raise TypeError(f"data = {data!r} are of the wrong type: allowed is a GaussianMixture or a ProbitTeacher")
