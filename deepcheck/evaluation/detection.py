"""How well a score tells adversarial examples, or images of no class, from clean ones.

Positives are to be accepted: test examples that are classified correctly. Negatives are to be rejected: adversarial
examples that succeeded, or all images of no class. An example is accepted where its score is at least the threshold. The
score is the confidence, or that of a detector.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepcheck.evaluation.robustness import worst_case
from deepcheck.evaluation.schema import checked, labelled, origin
from deepcheck.evaluation.scores import CONFIDENCE, read_scores
from deepcheck.evaluation.thresholds import accepted, ratio

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "detection",
    "false_positive_rate",
    "negative_confidences",
    "negative_scores",
    "positive_confidences",
    "positive_scores",
    "roc",
    "roc_auc",
]


def positive_scores(records: xr.Dataset, *, score: str = CONFIDENCE) -> npt.NDArray[np.float32]:
    """Return the scores of the test examples that are classified correctly without an attack.

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    score
        "confidence", or the name of a detector.

    Returns
    -------
    ndarray
        Shape (positives,), in the order of the examples.

    Raises
    ------
    ValueError, TypeError
        If there is no such score, or `records` are none.
    """
    records = checked(records)
    correct = records["clean_prediction"].values == records["label"].values
    return np.asarray(read_scores(records, score).clean[correct], np.float32)


def negative_scores(
    records: xr.Dataset,
    *,
    epsilon: float | Mapping[str, float],
    attacks: str | Iterable[str] | None = None,
    norm: str | None = None,
    smaller: bool = True,
    score: str = CONFIDENCE,
) -> npt.NDArray[np.float32]:
    """Return the scores of what is to be rejected, each in the worst case of `worst_case`.

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    epsilon, attacks, norm, smaller, score
        Which attacks count, and by which score; see `worst_case`.

    Returns
    -------
    ndarray
        Shape (negatives,): of the test examples that are classified correctly until they are attacked, the adversarial
        examples; of the images of no class (label -1), all, each in its version of the largest score.

    Raises
    ------
    ValueError, TypeError
        See `worst_case`.
    """
    records = checked(records)
    worst = worst_case(records, epsilon=epsilon, attacks=attacks, norm=norm, smaller=smaller, score=score)
    label = records["label"].values
    correct = records["clean_prediction"].values == label
    negative = worst["wrong"].values & (correct | (label == -1))
    return np.asarray(worst["score"].values[negative], np.float32)


def positive_confidences(records: xr.Dataset) -> npt.NDArray[np.float32]:
    """Return `positive_scores` of the confidence."""
    return positive_scores(records)


def negative_confidences(
    records: xr.Dataset,
    *,
    epsilon: float | Mapping[str, float],
    attacks: str | Iterable[str] | None = None,
    norm: str | None = None,
    smaller: bool = True,
) -> npt.NDArray[np.float32]:
    """Return `negative_scores` of the confidence."""
    return negative_scores(records, epsilon=epsilon, attacks=attacks, norm=norm, smaller=smaller)


def false_positive_rate(
    negatives: xr.Dataset | npt.ArrayLike,
    tau: float,
    *,
    epsilon: float | Mapping[str, float] | None = None,
    attacks: str | Iterable[str] | None = None,
    norm: str | None = None,
    score: str = CONFIDENCE,
) -> float:
    """Return the share of the negatives that are accepted (exact).

    Parameters
    ----------
    negatives
        Scores of adversarial or distal examples, shape (n,). Or records, of which `negative_scores` are taken.
    tau
        Threshold.
    epsilon, attacks, norm, score
        For records: which attacks count, and by which score; see `worst_case`.

    Returns
    -------
    float
        Number of negatives with a score of at least tau, over the number of negatives; NaN where there are none.

    Raises
    ------
    ValueError, TypeError
        If a score or tau is NaN; for records, see `worst_case`, and if epsilon is missing.

    Notes
    -----
    Stutz, Hein, Schiele, "Confidence-Calibrated Adversarial Training", ICML 2020: at the threshold of a true positive
    rate of 99 %. Their code divides by the number of all test examples instead, for adversarial ones.

    Examples
    --------
    >>> false_positive_rate([0.3, 0.9, 0.6, 0.7], 0.65)
    0.5
    """
    import xarray as xr

    if isinstance(negatives, xr.Dataset):
        if epsilon is None:
            raise TypeError("epsilon = None with records is not allowed: a number, or a dict of norms to numbers, is")
        negatives = negative_scores(negatives, epsilon=epsilon, attacks=attacks, norm=norm, score=score)
    elif (epsilon, attacks, norm, score) != (None, None, None, CONFIDENCE):
        raise TypeError(
            "epsilon, attacks, norm and score choose from records: with an array of confidences they are not allowed"
        )
    scores = _scores("negatives", negatives)
    return ratio(np.count_nonzero(accepted(scores, tau)), len(scores))


def roc(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> xr.Dataset:
    """Return the receiver operating characteristic (exact): both rates at every threshold that makes a difference.

    Parameters
    ----------
    positives, negatives
        Scores, shapes (P,) and (N,); any finite numbers.

    Returns
    -------
    Dataset
        Dim point: threshold, from infinity down through all different scores; fpr and tpr, the shares of the
        negatives and of the positives with at least this score, from (0, 0) to (1, 1), NaN where there are none.
        And auc, without a dim: see `roc_auc`.

    Raises
    ------
    ValueError
        If a score is not finite, or the shape is another.

    Examples
    --------
    >>> curve = roc([0.9, 0.7], [0.7, 0.2])
    >>> curve.fpr.values.tolist(), curve.tpr.values.tolist(), float(curve.auc)
    ([0.0, 0.0, 0.5, 1.0], [0.0, 0.5, 1.0, 1.0], 0.875)
    """
    import xarray as xr

    plus, minus = np.sort(_scores("positives", positives)), np.sort(_scores("negatives", negatives))
    threshold = np.unique(np.concatenate([plus, minus]))[::-1]
    rates = {
        name: np.concatenate([[0.0], len(values) - np.searchsorted(values, threshold)]) / (len(values) or np.nan)
        for name, values in (("fpr", minus), ("tpr", plus))
    }
    return labelled(
        xr.Dataset(
            {
                **{name: ("point", values) for name, values in rates.items()},
                "threshold": ("point", np.concatenate([[np.inf], threshold])),
                "auc": roc_auc(plus, minus),
            }
        )
    )


def roc_auc(positives: npt.ArrayLike, negatives: npt.ArrayLike) -> float:
    r"""Return the area under the ROC curve (exact): the chance that a positive has the larger score of a pair.

    Parameters
    ----------
    positives, negatives
        Scores, shapes (P,) and (N,); any finite numbers.

    Returns
    -------
    float
        :math:`\frac1{PN} \sum_{p,n} (1[c_p > c_n] + \frac12 1[c_p = c_n])`, which is the Mann-Whitney statistic U over
        P N, and the area under `roc` with straight lines between its points. NaN where there are no positives or no
        negatives.

    Raises
    ------
    ValueError
        If a score is not finite, or the shape is another.

    Examples
    --------
    >>> roc_auc([0.9, 0.7], [0.7, 0.2])
    0.875
    """
    plus, minus = _scores("positives", positives), np.sort(_scores("negatives", negatives))
    below = np.searchsorted(minus, plus, side="left").sum(dtype=np.int64)
    not_above = np.searchsorted(minus, plus, side="right").sum(dtype=np.int64)
    return ratio(below + not_above, 2 * len(plus) * len(minus))


def detection(
    records: xr.Dataset,
    *,
    epsilon: float | Mapping[str, float],
    attacks: str | Iterable[str] | None = None,
    norm: str | None = None,
    negatives: xr.Dataset | None = None,
    score: str = CONFIDENCE,
) -> xr.Dataset:
    """Return the ROC of telling adversarial examples, or images of no class, from clean ones by a score (exact).

    Parameters
    ----------
    records
        Of test examples: see `deepcheck.evaluation.schema`. The positives are those that are classified correctly.
    epsilon, attacks, norm
        Which attacks count for the negatives; see `worst_case`.
    negatives
        Records of the images to detect, such as distal ones; default: `records`, whose successful adversarial examples
        are taken.
    score
        "confidence", or the name of a detector.

    Returns
    -------
    Dataset
        See `roc`.

    Raises
    ------
    ValueError, TypeError
        See `worst_case`.

    Notes
    -----
    Stutz, Hein, Schiele, "Confidence-Calibrated Adversarial Training", ICML 2020. (Their code takes all test examples
    as positives, not only those that are classified correctly, and calls the area 1 where no attack succeeded.)
    """
    names = attacks if attacks is None or isinstance(attacks, str) else list(attacks)
    plus = positive_scores(records, score=score)
    source = records if negatives is None else negatives
    minus = negative_scores(source, epsilon=epsilon, attacks=names, norm=norm, score=score)
    size = dict(epsilon) if isinstance(epsilon, Mapping) else epsilon
    return roc(plus, minus).assign_attrs(
        origin(source, "detection", epsilon=size, attacks=names, norm=norm, score=score)
    )


def _scores(name: str, values: npt.ArrayLike) -> npt.NDArray[Any]:
    scores = np.asarray(values)
    if scores.size == 0 or scores.dtype.kind in "iu":
        scores = scores.astype(np.float64)
    if scores.ndim != 1 or scores.dtype.kind != "f":
        raise ValueError(
            f"{name} have the shape {scores.shape} and type {scores.dtype}: allowed are numbers, shape (n,)"
        )
    if not np.all(np.isfinite(scores)):
        bad = float(scores[~np.isfinite(scores)][0])
        raise ValueError(f"{name} have the value {bad!r}: allowed are finite numbers")
    return scores
