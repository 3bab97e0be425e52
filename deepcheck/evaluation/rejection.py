r"""What a net that answers only where it is confident is worth: adversarially wrong points with rejection, and recall.

A net answers where its largest probability is at least p, the `level`, and rejects otherwise. Wu, Jang, Chen, Chen, Jha (ICML
2018) count the points that are classified correctly as they are, and for which within eta a wrong answer was found that is not
rejected, AWPR; and the natural points that are answered, the recall. Both fall with the level, and one is bought with the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deepcheck.evaluation.confidences import checked_found, named
from deepcheck.evaluation.robustness import sizes_run, worst_case
from deepcheck.evaluation.schema import checked, origin
from deepcheck.evaluation.separation import checked_levels
from deepcheck.evaluation.shares import Array, binomial_bounds
from deepcheck.evaluation.thresholds import accepted

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["rejection"]

_RELATIVE = 1e-9  # sizes that differ by less are the same
LONG_NAMES = {
    "level": "confidence from which on an answer is given",
    "eta": "largest norm of the perturbation",
    "awpr": "share of the correct points with a wrong answer that is not rejected",
    "awpr_without_rejection": "share of the correct points with a wrong answer",
    "recall": "share of the correct points that are answered as they are",
    "recall_of_all": "share of all points that are answered as they are",
}


def rejection(
    found: xr.Dataset,
    *,
    level: npt.ArrayLike,
    eta: float | Iterable[float] | None = None,
    norm: str | None = None,
    attacks: str | Iterable[str] | None = None,
    confidence: float = 0.9,
) -> xr.Dataset:
    """Return AWPR with and without rejection, and the recall, over level and eta (exact, given what was found).

    Parameters
    ----------
    found
        What `deepcheck.evaluation.separation.wrong_confidences` returned. Or records, see `deepcheck.evaluation.schema`, such as those of
        a defence under `Adaptive` attacks: then all attacks in the norm at sizes up to eta count, and their restarts.
    level
        One or several: of K classes in (1/K, 1], of records in (0, 1], as they do not know K. An answer is given where the largest
        probability is at least so much.
    eta
        Radius of the adversary, one or several, out of those that were run, or 0: no attack. Default: all that were run.
    norm, attacks
        Of records: which attacks count, see `deepcheck.evaluation.worst_case`. Default: all, which have to be in one norm.
    confidence
        Of each of the bounds, in (0, 1).

    Returns
    -------
    Dataset
        Dims level and eta (not of what was given as one number):

        - `awpr` (level, eta): share of the examples that are classified correctly as they are, for which a point within eta was found
          that is classified wrongly with a confidence of the level or more;
        - `awpr_without_rejection` (eta): the same with any confidence;
        - `recall` (level): share of the examples that are classified correctly as they are, and answered;
        - `recall_of_all` (level): share of all examples that are answered.

        Each has its exact one-sided bounds `..._lower` and `..._upper`, see `binomial_bounds`. The attributes examples and correct are the
        numbers that the shares are of; NaN where there is no correct one.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, eta was not run, or `found` is neither.

    Notes
    -----
    An attack finds too little, if anything: AWPR is a lower bound on what the worst adversary makes of the net. The worst version of an example
    does not depend on the level: if any wrong one is accepted, the most confident wrong one is.

    Examples
    --------
    Four examples of class 0: an attack fails on the first, and turns two, one of them with little confidence.

    >>> from deepcheck.evaluation import AttackRecord, assemble
    >>> pgd = AttackRecord("linf", (0.3,), prediction=[[[0, 1, 1, 1]]], confidence=[[[0.9, 0.95, 0.5, 0.9]]],
    ...                    length=[[[0.3, 0.3, 0.3, 0.3]]])
    >>> records = assemble({"pgd": pgd}, label=[0, 0, 0, 0], clean_prediction=[0, 0, 0, 1],
    ...                    clean_confidence=[0.95, 0.95, 0.6, 0.6])
    >>> both = rejection(records, level=0.9, eta=0.3)
    >>> [round(float(both[name]), 3) for name in ("awpr_without_rejection", "awpr", "recall", "recall_of_all")]
    [0.667, 0.333, 0.667, 0.5]
    """
    import xarray as xr

    if _is_found(found):
        found = checked_found(found)
        if norm is not None or attacks is not None:
            raise ValueError(f"norm = {norm!r} and attacks = {attacks!r} are not allowed here: they go with records")
        least, run = 1 / found.sizes["target"], found["delta"].values
    else:
        found = checked(found)
        attacks = attacks if attacks is None or isinstance(attacks, str) else list(attacks)
        least, run = 0.0, sizes_run(found, attacks=attacks, norm=norm)
    levels, one_level = checked_levels(level, least=least)
    etas, one_eta = _checked_etas(eta, run)
    correct = found["clean_prediction"].values == found["label"].values
    clean = found["clean_confidence"].values
    answered = np.stack([accepted(clean, one) for one in levels])
    wrong, best = _worst(found, etas, norm, attacks)
    wrong, best = wrong[:, correct], best[:, correct]
    past = np.stack([wrong & accepted(best, one) for one in levels])
    counts = {
        "awpr": (("level", "eta"), past.sum(-1), int(correct.sum())),
        "awpr_without_rejection": (("eta",), wrong.sum(-1), int(correct.sum())),
        "recall": (("level",), answered[:, correct].sum(-1), int(correct.sum())),
        "recall_of_all": (("level",), answered.sum(-1), len(correct)),
    }
    variables = {}
    for name, (dims, count, n) in counts.items():
        for suffix, values in zip(("", "_lower", "_upper"), _share(count, n, confidence), strict=True):
            variables[name + suffix] = (dims, values)
    result = xr.Dataset(
        variables,
        coords={"level": levels, "eta": etas},
        attrs=origin(found, "rejection", level=levels, eta=etas, norm=norm, attacks=attacks, confidence=confidence)
        | {"examples": str(len(correct)), "correct": str(int(correct.sum()))},
    )
    bounds = {
        f"{name}_{which}": f"exact {which} bound: {text}"
        for name, text in LONG_NAMES.items()
        for which in ("lower", "upper")
    }
    named(result, LONG_NAMES | bounds)
    result = result.isel(level=0) if one_level else result
    return result.isel(eta=0) if one_eta else result


def _is_found(found: object) -> bool:
    """Return whether it is what `wrong_confidences` returned, and not records."""
    return "wrong_confidence" in getattr(found, "data_vars", ())


def _worst(
    found: xr.Dataset, etas: Array, norm: str | None, attacks: str | list[str] | Iterable[str] | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.floating]]:
    """Return whether a wrong version was found within each eta, and the largest confidence of one, shape (eta, example)."""
    if not _is_found(found):
        cases = [worst_case(found, epsilon=float(one), norm=norm, attacks=attacks) for one in etas]
        return np.stack([one["wrong"].values for one in cases]), np.stack([one["confidence"].values for one in cases])
    clean_wrong = found["clean_prediction"].values != found["label"].values
    deltas = found["delta"].values
    wrong, best = [], []
    for one in etas:
        index = np.flatnonzero(np.abs(deltas - one) <= _RELATIVE * np.maximum(deltas, one))
        if len(index):
            wrong.append(found["wrong"].values[index[0]])
            best.append(found["wrong_prediction_confidence"].values[index[0]])
        else:  # 0, which was not run
            wrong.append(clean_wrong)
            best.append(np.where(clean_wrong, found["clean_confidence"].values, np.nan))
    return np.stack(wrong), np.stack(best)


def _share(count: npt.NDArray[np.int64], n: int, confidence: float) -> tuple[Array, Array, Array]:
    """Return a share and its bounds; NaN of nothing."""
    if not n:
        binomial_bounds(0, 1, confidence)  # for its checks
        nothing = np.full(count.shape, np.nan)
        return nothing, nothing.copy(), nothing.copy()
    return (count / n, *binomial_bounds(count, n, confidence))


def _checked_etas(eta: float | Iterable[float] | None, run: Array) -> tuple[Array, bool]:
    """Return the radii, increasing, and whether one number was given."""
    if eta is None:
        return np.asarray(run, np.float64), False
    single = np.ndim(eta) == 0 if isinstance(eta, np.ndarray) else isinstance(eta, int | float | np.number)
    try:
        given = np.asarray(eta if single else list(eta))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        given = np.asarray(None)
    if given.size and (given.dtype.kind not in "iuf" or given.ndim > 1):
        raise TypeError(f"eta = {eta!r} is of the wrong type: allowed is a number or a list of them")
    etas = np.atleast_1d(given).astype(np.float64)
    for one in etas:
        if one != 0 and not np.any(np.abs(run - one) <= _RELATIVE * np.abs(one)):
            allowed = ", ".join(f"{value:g}" for value in run)
            raise ValueError(f"eta = {float(one)!r} was not run: allowed is 0, or one of {allowed}")
    if not etas.size:
        raise ValueError("eta = [] is not allowed: at least one number is")
    return np.unique(etas), single
