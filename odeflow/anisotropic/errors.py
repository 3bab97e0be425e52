r"""Errors of a linear classifier on two Gaussian classes (exact at any N), and on samples.

The classifier says sign(w.xi - b). The worst perturbation of size :math:`\varepsilon` moves its margin by
:math:`\varepsilon |w|_*`, the dual norm: :math:`|w|_2` for L2, :math:`|w|_1` for L-infinity.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.mixture import LABELS_OF_CLASSES, Mixture, labelled_samples
from odeflow.model import NORMS

__all__ = ["adversarial_error", "checked_epsilons", "checked_norm", "dual_norm", "empirical_adversarial_error"]

Array = npt.NDArray[np.float64]


def checked_norm(norm: str) -> str:
    """Return the name of a norm, or raise if it is not one."""
    if norm not in NORMS:
        raise ValueError(f"norm = {norm!r} is unknown: allowed is one of {', '.join(NORMS)}")
    return norm


def checked_epsilons(name: str, epsilon: npt.ArrayLike) -> Array:
    """Return sizes of perturbations as an array of float64, or raise if one is negative or not finite."""
    try:
        sizes = np.asarray(epsilon, np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {epsilon!r} is not a number or an array of numbers") from None
    bad = ~(np.isfinite(sizes) & (sizes >= 0))
    if bad.any():
        raise ValueError(f"{name} contains {float(sizes[bad].flat[0])!r}: allowed are finite numbers >= 0")
    return sizes


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
        Weights, shape (..., N).
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
    ValueError
        If an epsilon is negative, or a shape does not fit.

    Examples
    --------
    >>> mixture = Mixture(0.5, means=[[1.0, 0.0], [-1.0, 0.0]], covariances=[[1.0, 1.0], [1.0, 1.0]])
    >>> adversarial_error([1.0, 0.0], 0.0, mixture, [0.0, 1.0], "l2").round(6)
    array([0.158655, 0.5     ])
    """
    from scipy.special import ndtr

    w, b, epsilon = np.asarray(w, np.float64), np.asarray(b, np.float64), checked_epsilons("epsilon", epsilon)
    if w.shape[-1:] != (mixture.N,):
        raise ValueError(f"w has shape {w.shape}: allowed is (..., {mixture.N}), the dimension of the mixture")
    reach = np.multiply.outer(dual_norm(w, norm), epsilon)
    spread = np.sqrt(mixture.variances(w))
    S = np.zeros(reach.shape)
    for k, (tau, prior) in enumerate(zip(LABELS_OF_CLASSES, mixture.priors, strict=True)):
        margin = tau * (w @ mixture.means[k] - b)
        per_epsilon = (..., *(None,) * epsilon.ndim)
        room, sigma = margin[per_epsilon] - reach, spread[..., k][per_epsilon]
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = np.where(sigma > 0, room / sigma, np.where(room > 0, np.inf, -np.inf))
        S += prior * ndtr(-scaled)
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
    """
    X, y = labelled_samples(X, y)
    w, b, epsilon = np.asarray(w, np.float64), np.asarray(b, np.float64), checked_epsilons("epsilon", epsilon)
    if w.shape[-1:] != X.shape[1:]:
        raise ValueError(f"w has shape {w.shape}: allowed is (..., {X.shape[1]}), the dimension of X")
    # an epsilon from this size on turns the sample
    with np.errstate(divide="ignore", invalid="ignore"):
        distance: Any = y * (w @ X.T - b[..., None]) / dual_norm(w, norm)[..., None]
    distance = np.sort(np.nan_to_num(distance, nan=0.0), axis=-1)
    flat = distance.reshape(-1, distance.shape[-1])
    turned = np.stack([np.searchsorted(row, epsilon, side="right") for row in flat])
    return turned.reshape(*distance.shape[:-1], *epsilon.shape) / len(y)
