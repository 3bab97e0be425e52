"""Bounds on a probability from a count: exact ones, and Chebyshev's, which are wider and need no table."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from odeflow.model import checked_number

__all__ = ["binomial_bounds", "chebyshev_bounds"]

Array = npt.NDArray[np.float64]


def binomial_bounds(bad: npt.ArrayLike, n: npt.ArrayLike, confidence: float = 0.9) -> tuple[Array, Array]:
    r"""Return a lower and an upper bound on a probability of which `bad` of `n` independent trials came true (exact).

    Each is one-sided: with a chance of at least `confidence` the probability is not below the lower bound, and with such a
    chance not above the upper one; both hold together with a chance of 2 `confidence` - 1 at least.

    Parameters
    ----------
    bad
        Number of trials that came true, integers in 0..n.
    n
        Number of trials, >= 1; broadcasts against `bad`.
    confidence
        Of each bound, in (0, 1).

    Returns
    -------
    tuple
        Lower and upper bounds in [0, 1]: the probabilities q at which as many or more trials, :math:`P_q(X \ge k)`, or as many
        or fewer, :math:`P_q(X \le k)`, have a chance of 1 - confidence. The lower is 0 where none came true, the upper 1
        where all did.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range.

    Notes
    -----
    Clopper and Pearson, Biometrika 26, 404 (1934). No bounds that hold at every probability are tighter but for the steps of a
    whole number.

    Examples
    --------
    >>> lower, upper = binomial_bounds(26, 300)
    >>> round(float(lower), 4), round(float(upper), 4)
    (0.0663, 0.1113)
    """
    k, n = _checked(bad, n, confidence)
    alpha = 1 - confidence
    # at the ends the beta law has no such parameters, and its quantile is replaced
    lower = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, alpha), 0.0)
    upper = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), confidence), 1.0)
    return lower, upper


def chebyshev_bounds(
    bad: npt.ArrayLike, n: npt.ArrayLike, confidence: float = 0.9, deviation: float | None = None
) -> tuple[Array, Array]:
    r"""Return Chebyshev's bounds on a probability of which `bad` of `n` independent trials came true.

    With a chance of at least `confidence` the probability is between them, whatever it is. Wider than `binomial_bounds`.

    Parameters
    ----------
    bad, n, confidence
        As of `binomial_bounds`.
    deviation
        How far the bounds are from the share, t: such that :math:`1 / (4 n t^2) \le 1 - \mathrm{confidence}`. Default: the
        least such, :math:`1 / (2 \sqrt{n (1 - \mathrm{confidence})})`.

    Returns
    -------
    tuple
        The share less, and plus, the deviation, within [0, 1].

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or the deviation too small for so many trials and this confidence.

    Notes
    -----
    By Chebyshev's inequality, :math:`P(|k/n - q| \ge t) \le q (1 - q) / (n t^2) \le 1 / (4 n t^2)`: Proposition 4 of Wu, Jang,
    Chen, Chen, Jha, ICML 2018, with t = 0.1 and 300 trials at the confidence 0.9.

    Examples
    --------
    >>> upper = chebyshev_bounds(26, 300, 0.9, 0.1)[1]
    >>> round(75 * float(upper), 9)
    14.0
    """
    k, n = _checked(bad, n, confidence)
    least = 0.5 / np.sqrt(n * (1 - confidence))
    if deviation is None:
        t = least
    else:
        t = np.full(np.shape(n), checked_number("deviation", deviation, above=0))
        if np.any(t < least * (1 - 1e-12)):
            raise ValueError(
                f"deviation = {deviation!r} is too small for n = {int(n.min())} and confidence = {confidence:g}: allowed is "
                f"{float(least.max()):.4g} or more"
            )
    return np.maximum(k / n - t, 0.0), np.minimum(k / n + t, 1.0)


def _checked(bad: npt.ArrayLike, n: npt.ArrayLike, confidence: float) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return counts and numbers of trials of one shape."""
    checked_number("confidence", confidence, above=0, below=1)
    try:
        k, whole = np.broadcast_arrays(np.asarray(bad), np.asarray(n))
    except ValueError:
        raise ValueError(
            f"bad and n have the shapes {np.shape(bad)} and {np.shape(n)}: allowed are shapes that broadcast together"
        ) from None
    for name, values in (("bad", k), ("n", whole)):
        if values.dtype.kind not in "iu":
            raise TypeError(f"{name} has the type {values.dtype}: allowed are integers")
    if np.any(whole < 1):
        raise ValueError(f"n = {int(whole.min())} is out of range: allowed is 1 or more")
    if np.any((k < 0) | (k > whole)):
        raise ValueError(f"bad = {np.asarray(bad).tolist()} is out of range: allowed is 0..n")
    return k.astype(np.int64), whole.astype(np.int64)
