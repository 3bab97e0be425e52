"""The threshold of a score, and the test error of a net that may reject.

A net with a threshold tau accepts an example where its score is tau or more, and rejects it otherwise. The score is its
confidence, or that of a detector. The threshold is set on validation images, before anything is attacked.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepcheck.evaluation.schema import checked
from deepcheck.evaluation.scores import CONFIDENCE, read_scores

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["confidence_threshold", "standard_error", "test_error", "threshold_of"]


def confidence_threshold(confidence: npt.ArrayLike, correct: npt.ArrayLike, *, tpr: float = 0.99) -> float:
    r"""Return the largest threshold that accepts a given share of the correctly classified examples (exact).

    Parameters
    ----------
    confidence
        Confidences of the validation examples, or another score that is large where they are to be accepted, shape (n,).
    correct
        Whether each was classified correctly, shape (n,).
    tpr
        True positive rate in (0, 1]: the share to accept.

    Returns
    -------
    float
        :math:`\tau = c_{(k)}`, where :math:`c_{(0)} \le c_{(1)} \le \dots` are the confidences of the m correctly
        classified examples and :math:`k = \lfloor m (1 - \mathrm{tpr}) \rfloor`; m (1 - tpr) counts as an integer if it
        is one up to rounding. At least the share tpr has :math:`c \ge \tau`: more where confidences are equal.

    Raises
    ------
    ValueError
        If tpr is out of range, shapes differ, a confidence is NaN, or no example was classified correctly.

    Notes
    -----
    Stutz, Hein, Schiele, "Confidence-Calibrated Adversarial Training", ICML 2020.

    Examples
    --------
    >>> confidence_threshold([0.5, 0.75, 0.25, 1.0], [True, True, False, True], tpr=0.6)
    0.75
    """
    if not 0 < tpr <= 1:
        raise ValueError(f"tpr = {tpr!r} is out of range: allowed is (0, 1]")
    confidence, correct = np.asarray(confidence), np.asarray(correct)
    if confidence.ndim != 1 or confidence.shape != correct.shape:
        raise ValueError(
            f"confidence and correct have the shapes {confidence.shape} and {correct.shape}: allowed is (n,) for both"
        )
    if correct.dtype.kind != "b":
        raise TypeError(f"correct has the type {correct.dtype}: allowed are bools")
    if np.any(np.isnan(confidence)):
        raise ValueError("confidence has the value nan: allowed are numbers")
    ordered = np.sort(confidence[correct])
    if not ordered.size:
        raise ValueError(
            f"of {len(correct)} validation examples none is classified correctly: allowed is one or more; keep images "
            "apart for the threshold, and give them to deepcheck.evaluation.assemble"
        )
    # 1000 * (1 - 0.99) is 10.000000000000009, and 10 * (1 - 0.9) is 0.9999999999999998: both are meant to be integers
    k = math.floor(round(len(ordered) * (1 - tpr), 6))
    return float(ordered[min(k, len(ordered) - 1)])


def threshold_of(records: xr.Dataset, *, tpr: float = 0.99, score: str = CONFIDENCE) -> float:
    """Return the threshold that the records' validation images set (exact).

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    tpr
        True positive rate in (0, 1].
    score
        "confidence", or the name of a detector.

    Returns
    -------
    float
        See `confidence_threshold`.

    Raises
    ------
    ValueError, TypeError
        If there are no validation images, tpr is out of range, there is no such score, or `records` are none.
    """
    records = checked(records)
    correct = records["validation_prediction"].values == records["validation_label"].values
    return confidence_threshold(read_scores(records, score).validation, correct, tpr=tpr)


def test_error(records: xr.Dataset, *, tau: float = -math.inf, score: str = CONFIDENCE) -> float:  # noqa: PT028
    r"""Return the share of wrong predictions among the accepted test examples, without an attack (exact).

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    tau
        Threshold: accept where the score c >= tau; minus infinity accepts everything, as 0 does for confidences. It is
        rounded to the single precision of the scores.
    score
        "confidence", or the name of a detector.

    Returns
    -------
    float
        :math:`\sum_n 1[f(x_n) \ne y_n]\,1[c(x_n) \ge \tau] / \sum_n 1[c(x_n) \ge \tau]`, or NaN where nothing is
        accepted.

    Raises
    ------
    ValueError, TypeError
        If tau is NaN, there is no such score, or `records` are none.

    Notes
    -----
    Stutz, Hein, Schiele, "Confidence-Calibrated Adversarial Training", ICML 2020.
    """
    records = checked(records)
    passed = accepted(read_scores(records, score).clean, tau)
    wrong = records["clean_prediction"].values != records["label"].values
    return ratio(np.count_nonzero(wrong & passed), np.count_nonzero(passed))


test_error.__test__ = False  # type: ignore[attr-defined]  # the field's term: pytest is not to collect it


def standard_error(share: float, count: float) -> float:
    r"""Return the standard error of a share of independent examples.

    Parameters
    ----------
    share
        The share p, in [0, 1].
    count
        Of how many examples n.

    Returns
    -------
    float
        :math:`\sqrt{p (1 - p) / n}`, the binomial law's at the share found; NaN where n is 0.

    Raises
    ------
    ValueError
        If the share is out of range, or the count negative.

    Examples
    --------
    >>> standard_error(0.1, 900)
    0.01
    """
    if share < 0 or share > 1:
        raise ValueError(f"share = {share!r} is out of range: allowed is [0, 1]")
    if not count >= 0:
        raise ValueError(f"count = {count!r} is out of range: allowed is >= 0")
    return math.sqrt(share * (1 - share) / count) if count else math.nan


def accepted(scores: npt.NDArray[Any], tau: object) -> npt.NDArray[np.bool_]:
    """Return where the score is at least `tau`, compared in the precision of the scores."""
    if isinstance(tau, bool) or not isinstance(tau, int | float | np.integer | np.floating):
        raise TypeError(f"tau = {tau!r} is of the wrong type: allowed is a number")
    if math.isnan(tau):
        raise ValueError("tau = nan is not allowed: a number is, of which -inf accepts everything")
    with np.errstate(over="ignore"):
        return np.asarray(scores >= np.asarray(tau, scores.dtype))


def ratio(part: int | np.integer, whole: int | np.integer) -> float:
    """Return part / whole, or NaN for nothing of nothing."""
    return int(part) / int(whole) if whole else math.nan
