"""The error that no classifier of some test images can avoid, beside what was measured on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from odeflow.optimal import lower_bound
from studies.registry import Claim, contest

__all__ = ["TOO_LARGE", "bounds", "none_below"]

Array = npt.NDArray[np.float64]

TOO_LARGE = 4
"""Factor of epsilon, with which the rival counts pairs that need not be in conflict."""
_ROUNDING = 1e-12


def bounds(X: npt.ArrayLike, positive: npt.ArrayLike, epsilon: npt.ArrayLike, norm: str) -> Array:
    """Return below which adversarial error no classifier of images is, and the same at `TOO_LARGE` times each epsilon.

    Parameters
    ----------
    X
        Images, shape (n, ...).
    positive
        Which of them are of the first class, shape (n,).
    epsilon
        Sizes of the perturbation, shape (epsilon,).
    norm
        "l2" or "linf".

    Returns
    -------
    ndarray
        Shape (2, epsilon).
    """
    images, first = np.asarray(X, np.float64), np.asarray(positive, bool)
    sizes = np.asarray(epsilon, np.float64)
    found = lower_bound(images[first], images[~first], np.concatenate([sizes, TOO_LARGE * sizes]), norm)
    return np.asarray(found.values.reshape(2, -1))


def none_below(measured: Array, bound: Array, too_large: Array, where: Sequence[str]) -> Claim:
    """Return the claim that no measured adversarial error is below the bound on the same images.

    Parameters
    ----------
    measured, bound, too_large
        The least error that was measured, the bound, and that at `TOO_LARGE` times the epsilon; shape (cases,).
    where
        What each case is called.
    """

    def above(bound: Array) -> tuple[str, bool]:
        room = measured - bound
        nearest = int(np.argmin(room))
        return f"nearest: {room[nearest]:+.3f}, {where[nearest]}", bool((room >= -_ROUNDING).all())

    return contest(
        "no adversarial error that was measured is below the one that no classifier of the same test images can avoid (the largest "
        "matching of pairs that are at most 2 epsilon apart)",
        above,
        bound,
        rival=f"the same with pairs that are at most {2 * TOO_LARGE} epsilon apart",
        against=too_large,
    )
