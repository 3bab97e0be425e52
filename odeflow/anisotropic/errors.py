r"""Errors of a linear classifier on two Gaussian classes (exact at any N), and on samples.

The classifier says sign(w.xi - b). The worst perturbation of size :math:`\varepsilon` moves its margin by
:math:`\varepsilon |w|_*`, the dual norm: :math:`|w|_2` for L2, :math:`|w|_1` for L-infinity.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.mixture import LABELS_OF_CLASSES, Mixture, checked_weights, labelled_samples, real_array
from odeflow.model import NORMS

__all__ = [
    "adversarial_error",
    "checked_epsilons",
    "checked_norm",
    "dual_norm",
    "empirical_adversarial_error",
    "share_in_error",
]

Array = npt.NDArray[np.float64]

_LARGEST = 1e75  # as of means: a square is finite


def checked_norm(norm: str) -> str:
    """Return the name of a norm, or raise if it is not one."""
    if str(norm) not in NORMS:
        raise ValueError(f"norm = {norm!r} is unknown: allowed is one of {', '.join(NORMS)}")
    return norm


def checked_epsilons(name: str, epsilon: npt.ArrayLike) -> Array:
    """Return sizes of perturbations as an array of float64, or raise if one is negative or not finite."""
    try:
        if np.asarray(epsilon).dtype.kind not in "fiu":
            raise TypeError
        sizes = np.asarray(epsilon, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {epsilon!r} is not a number or an array of numbers") from None
    bad = ~((sizes >= 0) & (sizes <= _LARGEST))
    if bad.any():
        raise ValueError(
            f"{name} contains {float(sizes[bad].flat[0])!r}: allowed are finite numbers >= 0, at most {_LARGEST:g}"
        )
    return sizes


def _checked_classifiers(w: npt.ArrayLike, b: npt.ArrayLike, N: int, of: str) -> tuple[Array, Array]:
    """Return weights (..., N) and biases (...), each pair multiplied by a power of 2 that brings |w| to the order of 1.

    What the classifier says does not change, and no square overflows.
    """
    w, b = checked_weights(w, N, of), real_array("b", b)
    if np.isnan(b).any():
        raise ValueError("b contains nan: allowed are finite numbers, or inf and -inf for constant classifiers")
    try:
        np.broadcast_shapes(w.shape[:-1], b.shape)
    except ValueError:
        raise ValueError(f"b has shape {b.shape}: allowed is {w.shape[:-1]}, that of w without its last axis") from None
    _, exponent = np.frexp(np.abs(w).max(axis=-1))
    with np.errstate(over="ignore"):
        return np.ldexp(w, -exponent[..., None]), np.ldexp(b, -exponent)


def share_in_error(room: Array, spread: Array) -> Array:
    """Return the probability that a Gaussian margin is below 0, for its mean `room` and standard deviation `spread`.

    A class in which the margin does not vary is right or wrong as a whole, and wrong on the boundary.
    """
    from scipy.special import ndtr

    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        scaled = np.where(spread > 0, room / spread, np.where(room > 0, np.inf, -np.inf))
    return np.asarray(ndtr(-scaled))


def dual_norm(w: Array, norm: str) -> Array:
    """Return |w|_* over the last axis: |w|_2 for L2, |w|_1 for L-infinity."""
    if checked_norm(norm) == "linf":
        return np.asarray(np.abs(w).sum(axis=-1))
    return np.asarray(np.sqrt(np.einsum("...i,...i->...", w, w)))


def adversarial_error(w: npt.ArrayLike, b: npt.ArrayLike, mixture: Mixture, epsilon: npt.ArrayLike, norm: str) -> Array:
    r"""Return the probability that (w, b) errs on an example moved by epsilon in the worst direction (exact).

    .. math:: S = \sum_\tau p_\tau\,
       \Phi\!\left(-\frac{\tau (w\cdot m_\tau - b) - \varepsilon |w|_*}{\sqrt{w^T C_\tau w}}\right)

    Parameters
    ----------
    w
        Weights, finite, shape (..., N). Without weights (w = 0) a classifier is constant: it says sign(-b), and errs
        everywhere at b = 0.
    b
        Biases, shape (...); or infinite (a constant classifier).
    mixture
        The data.
    epsilon
        Sizes of the perturbation, >= 0, a number or shape (epsilon,), in the units of the data.
    norm
        Norm in which epsilon is the size: "l2" or "linf".

    Returns
    -------
    ndarray
        Shape (...) for a number epsilon, otherwise (..., epsilon). A class in which w.xi does not vary is right or
        wrong as a whole (wrong on the boundary).

    Raises
    ------
    TypeError, ValueError
        If an argument is not of numbers, a weight is not finite, an epsilon is negative, or a shape does not fit.

    Examples
    --------
    >>> mixture = Mixture(0.5, means=[[1.0, 0.0], [-1.0, 0.0]], covariances=[[1.0, 1.0], [1.0, 1.0]])
    >>> adversarial_error([1.0, 0.0], 0.0, mixture, [0.0, 1.0], "l2").round(6)
    array([0.158655, 0.5     ])
    """
    if not isinstance(mixture, Mixture):
        raise TypeError(f"mixture = {mixture!r} is of the wrong type: allowed is an anisotropic.Mixture")
    w, b = _checked_classifiers(w, b, mixture.N, "the mixture")
    epsilon = checked_epsilons("epsilon", epsilon)
    reach = np.multiply.outer(dual_norm(w, norm), epsilon)
    spread = np.sqrt(mixture.variances(w))
    per_epsilon = (..., *(None,) * epsilon.ndim)
    S = np.zeros(())
    for k, (tau, prior) in enumerate(zip(LABELS_OF_CLASSES, mixture.priors, strict=True)):
        margin = tau * (w @ mixture.means[k] - b)
        S = S + prior * share_in_error(margin[per_epsilon] - reach, spread[..., k][per_epsilon])
    return S


def empirical_adversarial_error(
    w: npt.ArrayLike, b: npt.ArrayLike, X: npt.ArrayLike, y: npt.ArrayLike, epsilon: npt.ArrayLike, norm: str
) -> Array:
    """Return the share of samples on which (w, b) errs after the worst perturbation of size epsilon (exact).

    Parameters
    ----------
    w, b, epsilon, norm
        As for `adversarial_error`. Perturbed samples are not clipped to any range.
    X, y
        Samples, shape (samples, N), and their labels +1 and -1, shape (samples,).

    Returns
    -------
    ndarray
        Shape (...) for a number epsilon, otherwise (..., epsilon).

    Raises
    ------
    TypeError, ValueError
        If an argument is not of numbers, a weight is not finite, an epsilon is negative, or a shape does not fit.
    """
    X, y = labelled_samples(X, y)
    w, b = _checked_classifiers(w, b, X.shape[1], "X")
    epsilon = checked_epsilons("epsilon", epsilon)
    # an epsilon from this size on turns the sample
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        distance = y * (w @ X.T - b[..., None]) / dual_norm(w, norm)[..., None]
    distance = np.sort(np.where(np.isnan(distance), 0.0, distance), axis=-1)
    flat = distance.reshape(-1, distance.shape[-1])
    turned = np.stack([np.searchsorted(row, epsilon, side="right") for row in flat])
    return np.asarray(turned.reshape((*distance.shape[:-1], *epsilon.shape)) / len(y))
