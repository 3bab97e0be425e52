r"""Adversarial empirical risk minimisation on given data: the minimiser itself, by SciPy's L-BFGS-B."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize as lbfgs
from scipy.special import entr

from odeflow.erm.losses import LOSSES
from odeflow.parameters import checked_array, checked_number

__all__ = ["MinimisationError", "Minimiser", "minimise"]

Array = npt.NDArray[np.float64]

_WIDTHS = (0.3, 0.03, 3e-3, 3e-4, 3e-5)  # of the hinge's rounded kink, each minimised from the one before


class MinimisationError(RuntimeError):
    """The minimiser was not reached; the message says how near it came."""


class Minimiser(NamedTuple):
    """The linear classifier sign(w.x - b) with the least attacked loss."""

    w: Array
    b: float
    objective: float
    """Per input dimension: the sum of the losses over N, and ridge |w|^2 / 2."""
    gap: float
    """Bound on how far the objective is above its least value, relative to it."""


def minimise(
    X: npt.ArrayLike,
    y: npt.ArrayLike,
    *,
    loss: str = "logistic",
    epsilon: float = 0.0,
    ridge: float,
    bias: bool = True,
    tolerance: float = 1e-5,
) -> Minimiser:
    r"""Return the minimiser of the attacked loss on given examples.

    .. math::
        \sum_i \ell\bigl(y_i (w\cdot x_i - b) - \varepsilon |w|\bigr) + \tfrac12 \lambda N |w|^2

    Parameters
    ----------
    X
        Examples, shape (examples, N).
    y
        Their labels, +1 or -1, shape (examples,).
    loss
        "logistic", "hinge" or "squared", of the margin after the attack.
    epsilon
        Size of the attack (L2), >= 0.
    ridge
        lambda, > 0. The objective then has one minimum, for the squared loss, too, which is not convex here.
    bias
        Whether b is learned; otherwise it is 0.
    tolerance
        Largest bound on the distance from the minimum, relative to it, that is no error, > 0.

    Returns
    -------
    Minimiser
        w of shape (N,), b, the objective, and a bound on its distance from the minimum by duality. Under an attack that is too
        strong w is exactly 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.
    MinimisationError
        If the bound is above the tolerance.

    Notes
    -----
    The solver is L-BFGS-B. The kink of the hinge is rounded on a width that falls to 3e-5 of a margin, so that its objective is
    smooth. The bound does not rely on it: with :math:`a_i \in [0, 1]` (hinge) the dual
    :math:`\sum_i a_i - (|\sum_i a_i y_i x_i| - \varepsilon \sum_i a_i)_+^2/(2 \lambda N)`, and likewise with the conjugates of
    the other losses, is below the minimum for every a with :math:`\sum_i a_i y_i = 0`.

    Examples
    --------
    >>> found = minimise([[1.0], [-1.0]], [1, -1], loss="squared", ridge=1.0)
    >>> round(float(found.w[0]), 6)
    0.666667
    """
    X, y = checked_examples(X, y)
    if loss not in LOSSES:
        raise ValueError(f"loss = {loss!r} is unknown: allowed is one of {', '.join(LOSSES)}")
    epsilon = checked_number("epsilon", epsilon, least=0)
    ridge = checked_number("ridge", ridge, above=0)
    tolerance = checked_number("tolerance", tolerance, above=0)
    if bias and abs(y.sum()) == y.size:
        raise ValueError(
            f"y has the label {y[0]:+g} alone, of {y.size} examples, and the bias no least value: allowed are both labels, or bias=False"
        )
    N = X.shape[1]
    yX = y[:, None] * X
    nothing = _at_zero(loss, yX, y, epsilon, bias)
    if nothing is not None:
        return Minimiser(np.zeros(N), nothing, float(LOSSES[loss].value(-y * nothing).sum() / N), 0.0)
    w = yX.mean(axis=0)
    theta = np.append(w / max(np.linalg.norm(w), 1e-300) / max(1.0, float(np.mean(yX @ w))), 0.0)
    value, slope = _smooth(loss)

    def objective(theta: Array, width: float) -> tuple[float, Array]:
        w, b = theta[:-1], theta[-1]
        r = np.linalg.norm(w)
        t = yX @ w - y * b - epsilon * r
        f = slope(t, width)
        gradient = np.empty_like(theta)
        gradient[:-1] = f @ yX + (ridge * N - epsilon * f.sum() / max(r, 1e-300)) * w
        gradient[-1] = -(f @ y) if bias else 0.0
        return float(value(t, width).sum() + ridge * N * r**2 / 2) / N, gradient / N

    for width in _WIDTHS if loss == "hinge" else (0.0,):
        options = {"maxiter": 20_000, "maxfun": 40_000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-9}
        theta = lbfgs(objective, theta, args=(width,), jac=True, method="L-BFGS-B", options=options).x
    w, b = theta[:-1], float(theta[-1]) if bias else 0.0
    t = yX @ w - y * b - epsilon * np.linalg.norm(w)
    primal = float(LOSSES[loss].value(t).sum() / N + ridge * np.dot(w, w) / 2)
    a = -slope(t, width)
    gap = (primal - _dual(loss, a, yX, y if bias else None, epsilon, ridge)) / primal
    if not gap <= tolerance:
        raise MinimisationError(
            f"the objective {primal:.6g} is above its least value by up to {gap:.1g} of it, more than {tolerance:g}: a larger ridge "
            f"than {ridge:g} is easier, and a larger tolerance lets it pass"
        )
    return Minimiser(w, b, primal, gap)


def _at_zero(loss: str, yX: Array, y: Array, epsilon: float, bias: bool) -> float | None:
    """Return the best bias of w = 0 where no weights do better, which an attack of this size decides; else None.

    At w = 0 example i pulls with a_i, and all of them by less than what the attack holds against it. (The hinge's a_i are not unique
    where the labels have unequal shares; then this is not known.)
    """
    shares = np.array([np.mean(y > 0), np.mean(y < 0)])
    if loss == "hinge" and bias and shares[0] != shares[1]:
        return None
    a = np.where(y > 0, shares[1], shares[0]) if bias else np.ones_like(y)
    if float(np.linalg.norm(a @ yX)) > epsilon * float(a.sum()):
        return None
    if not bias or loss == "hinge":
        return 0.0
    return float(-np.log(shares[0] / shares[1]) if loss == "logistic" else shares[1] - shares[0])


def checked_examples(X: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
    """Return examples and labels as arrays, or raise an error that names what is wrong with them."""
    X, y = checked_array("X", X), checked_array("y", y)
    if X.ndim != 2 or 0 in X.shape or y.shape != X.shape[:1]:
        raise ValueError(
            f"X has shape {X.shape} and y {y.shape}: allowed are (examples, N) and (examples,), none of them 0"
        )
    if not np.all(np.abs(y) == 1):
        raise ValueError(f"y contains {float(y[np.abs(y) != 1][0])!r}: allowed are the labels +1 and -1")
    return X, y


def _smooth(loss: str) -> tuple[Callable[[Array, float], Array], Callable[[Array, float], Array]]:
    """Return a loss and its derivative by the margin; of the hinge, with its kink rounded on a width."""
    if loss != "hinge":
        return lambda t, _: LOSSES[loss].value(t), lambda t, _: LOSSES[loss].slope(t)

    def value(t: Array, width: float) -> Array:
        rounded = np.clip(1 - t, 0, width)
        return np.asarray(rounded**2 / (2 * width) + np.maximum(1 - t - width, 0))

    return value, lambda t, width: np.clip((t - 1) / width, -1.0, 0.0)


def _dual(loss: str, a: Array, yX: Array, y: Array | None, epsilon: float, ridge: float) -> float:
    """Return a lower bound of the objective per dimension, from multipliers a of the margins."""
    if y is not None:  # sum_i a_i y_i = 0 exactly, by less weight on the class that has more
        more, less = a[y > 0].sum(), a[y < 0].sum()
        a = a * np.where(y > 0, min(1.0, less / max(more, 1e-300)), min(1.0, more / max(less, 1e-300)))
    if loss == "logistic":
        conjugate = entr(a).sum() + entr(1 - a).sum()
    else:
        conjugate = a.sum() if loss == "hinge" else (a - a**2 / 2).sum()
    N = yX.shape[1]
    pull = max(float(np.linalg.norm(a @ yX)) - epsilon * float(a.sum()), 0.0)
    return float(conjugate / N - (pull / N) ** 2 / (2 * ridge))
