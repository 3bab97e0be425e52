r"""The worst case over attacks, restarts and smaller balls, and the robust error with and without rejection.

Everything is per example: over all attacked versions :math:`x'_n` of an example, and itself, the worst case is the
version that is classified wrongly with the highest score (the confidence, or that of a detector),

.. math:: \tilde x_n = \mathrm{argmax}\,\{c(x'_n) : f(x'_n) \ne y_n\}.

This version does not depend on the threshold: if any wrong version is accepted, it is. Where no version is wrong, the
attacks have failed, and :math:`\tilde x_n = x_n`. (An attacked version that is still classified correctly is never
taken, however confident: it would only make the denominators below larger, and so the robust error smaller. As it is,
an attack, a restart or a larger ball more never makes a robust error smaller, at any threshold.)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from deepcheck.checks import checked_choice
from deepcheck.evaluation.schema import checked, labelled, origin, text_array, texts
from deepcheck.evaluation.scores import CONFIDENCE, read_scores
from deepcheck.evaluation.thresholds import accepted, ratio

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["curve_area", "robust_error", "robustness_curve", "sizes_run", "worst_case"]

Definition = Literal["per_example", "preprint"]
DEFINITIONS = ("per_example", "preprint")
_RELATIVE = 1e-9  # epsilons that differ by less are the same


def worst_case(
    records: xr.Dataset,
    *,
    epsilon: float | Mapping[str, float],
    attacks: str | Iterable[str] | None = None,
    norm: str | None = None,
    smaller: bool = True,
    score: str = CONFIDENCE,
) -> xr.Dataset:
    r"""Return for every example the version that is classified wrongly with the highest score (exact).

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    epsilon
        Size of the perturbation, in one norm: a value at which one of the attacks was run, or 0, for the examples
        themselves. Or a dict of norms to such values, for the union of several balls.
    attacks
        Names of the attacks that may be used; default: all.
    norm
        Only attacks in this norm. Attacks in several norms need a dict as `epsilon`.
    smaller
        Whether attacks at smaller epsilons in the same norm count as well. They should: the ball contains the smaller
        balls, but an attack may have done better there. False leaves out all that was run at other epsilons.
    score
        "confidence", or the name of a detector. Only versions that have this score count: of a detector, one for each
        attack and epsilon.

    Returns
    -------
    Dataset
        Dim example: prediction, confidence, score, length; wrong (False: no attack succeeded, and the example is the
        clean one); and where the version is from: attack, "clean" where it is the example itself, epsilon (0 there) and
        restart (-1 there). Of versions with equal scores: the example itself, then the smallest epsilon, then the
        first attack and restart.

    Raises
    ------
    ValueError, TypeError
        If an attack, norm or score is unknown, if epsilon is not one of those that were run, if the norms are mixed, or
        if `records` are none.
    """
    import xarray as xr

    records, attacks = checked(records), _names(attacks)
    worst = _Worst(records, score)
    for attack, index in _cells(records, attacks, norm, epsilon, smaller=smaller):
        worst.add(attack, index)
    names = text_array([*texts(records, "attack"), "clean"])
    epsilons = np.append(records["epsilon"].values, 0.0)
    result = xr.Dataset(
        {
            "prediction": ("example", worst.prediction),
            "confidence": ("example", worst.confidence),
            "score": ("example", worst.score),
            "length": ("example", worst.length),
            "wrong": ("example", worst.wrong),
            "attack": ("example", names[worst.attack]),
            "epsilon": ("example", epsilons[worst.epsilon]),
            "restart": ("example", worst.restart),
        },
        coords={"example": records["example"]} if "example" in records.coords else None,
        attrs=origin(records, "worst_case", **_options(epsilon, attacks, norm), smaller=smaller, score=score),
    )
    return labelled(result)


def robust_error(
    records: xr.Dataset,
    *,
    epsilon: float | Mapping[str, float],
    attacks: str | Iterable[str] | None = None,
    norm: str | None = None,
    tau: float = -math.inf,
    smaller: bool = True,
    definition: Definition = "per_example",
    score: str = CONFIDENCE,
) -> float:
    r"""Return the robust error at a threshold: the errors among what is accepted, in the worst case (exact).

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    epsilon, attacks, norm, smaller
        Which attacks count; see `worst_case`.
    tau
        Threshold of the score; minus infinity accepts everything, as 0 does for confidences, and both definitions are
        the plain robust error: the share of examples of which some version is wrong. It is rounded to the single
        precision of the scores.
    definition
        How to count, with the worst case :math:`\tilde x_n` of `worst_case`, which is :math:`x_n` where all attacks
        failed.

        "per_example": every example counts once, as an error if it or its worst case is one that is accepted,

        .. math:: \frac{\sum_n \max\{1[f(x_n) \ne y_n]\,1[c(x_n) \ge \tau],
            \;1[f(\tilde x_n) \ne y_n]\,1[c(\tilde x_n) \ge \tau]\}}
            {\sum_n \max\{1[c(x_n) \ge \tau],\;1[c(\tilde x_n) \ge \tau]\}}

        "preprint": examples that are wrong without an attack are not attacked,

        .. math:: \frac{\sum_n 1[f(x_n) \ne y_n]\,1[c(x_n) \ge \tau]
            + \sum_{f(x_n) = y_n} 1[f(\tilde x_n) \ne y_n]\,1[c(\tilde x_n) \ge \tau]}
            {\sum_n 1[c(x_n) \ge \tau]
            + \sum_{f(x_n) = y_n} 1[c(x_n) < \tau]\,1[f(\tilde x_n) \ne y_n]\,1[c(\tilde x_n) \ge \tau]}

        The two differ by the examples that are wrong and rejected without an attack, and wrong and accepted with one:
        they count as errors in the first, and not at all in the second.
    score
        The score c: "confidence", or the name of a detector; see `worst_case`.

    Returns
    -------
    float
        In [0, 1], or NaN where nothing is accepted. It does not decrease with attacks, restarts or epsilon.

    Raises
    ------
    ValueError, TypeError
        See `worst_case`; and if tau is NaN or the definition unknown.

    Notes
    -----
    "per_example" is the definition of Stutz, Hein, Schiele, "Confidence-Calibrated Adversarial Training", ICML 2020.
    There, :math:`\tilde x_n` is the version that is best in the attack's objective, so that a failed attack may count
    in the denominator with a version that is classified correctly; here it cannot.

    "preprint" is what the authors' code computed before that, as released with Rao, Stutz, Schiele, "Adversarial
    Training against Location-Optimized Adversarial Patches" (2020), and still has under the name "alternative". That
    it is the formula in the first versions of arXiv:1910.06259 is likely, but was not checked against their text.

    Examples
    --------
    Four examples of class 0; an attack fails on the first, succeeds on the second, and is rejected on the third; the
    fourth is wrong without an attack, less confidently than with one.

    >>> from deepcheck.evaluation.records import AttackRecord, assemble
    >>> pgd = AttackRecord("linf", (0.3,), prediction=[[[0, 1, 1, 1]]], confidence=[[[0.9, 0.9, 0.5, 0.9]]],
    ...                    length=[[[0.3, 0.3, 0.3, 0.3]]])
    >>> records = assemble({"pgd": pgd}, label=[0, 0, 0, 0], clean_prediction=[0, 0, 0, 1],
    ...                    clean_confidence=[0.9, 0.9, 0.9, 0.6])
    >>> robust_error(records, epsilon=0.3), robust_error(records, epsilon=0.3, tau=0.8)
    (0.75, 0.5)
    >>> round(robust_error(records, epsilon=0.3, tau=0.8, definition="preprint"), 4)
    0.3333
    """
    checked_choice("definition", definition, DEFINITIONS)
    records, attacks = checked(records), _names(attacks)
    worst = _Worst(records, score)
    for attack, index in _cells(records, attacks, norm, epsilon, smaller=smaller):
        worst.add(attack, index)
    return ratio(*worst.errors(tau, definition))


def robustness_curve(
    records: xr.Dataset,
    *,
    norm: str,
    attacks: str | Iterable[str] | None = None,
    tau: float = -math.inf,
    definition: Definition = "per_example",
    score: str = CONFIDENCE,
) -> xr.DataArray:
    """Return the robust error against the size of the perturbation (exact).

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    norm
        The norm of the perturbation.
    attacks
        Names of the attacks that may be used; default: all in this norm.
    tau, definition, score
        See `robust_error`.

    Returns
    -------
    DataArray
        Dim epsilon: 0, where it is the test error, and every epsilon at which one of the attacks was run. It does not
        decrease, as every ball contains the smaller ones; NaN where nothing is accepted. Its coordinate accepted is
        the number of examples in the denominator (for `standard_error`).

    Raises
    ------
    ValueError, TypeError
        If an attack or the norm is unknown, if tau is NaN or the definition unknown, or if `records` are none.
    """
    import xarray as xr

    checked_choice("definition", definition, DEFINITIONS)
    records, attacks = checked(records), _names(attacks)
    chosen = _attacks(records, attacks, norm)
    run = _run(records)[chosen]
    worst = _Worst(records, score)
    counts: dict[float, tuple[int, int]] = {0.0: worst.errors(tau, definition)}
    for index in np.flatnonzero(run.any(axis=0)):
        for attack in chosen[run[:, index]]:
            worst.add(attack, index)
        counts[float(records["epsilon"][index])] = worst.errors(tau, definition)
    curve = xr.Dataset(
        {"robust_error": ("epsilon", [ratio(*count) for count in counts.values()])},
        coords={"epsilon": list(counts), "accepted": ("epsilon", [whole for _, whole in counts.values()])},
    )
    options = {
        **_options(None, attacks, norm),
        "tau": float(tau) if math.isfinite(tau) else str(tau),
        "definition": definition,
        "score": score,
    }
    return labelled(curve)["robust_error"].assign_attrs(origin(records, "robustness_curve", **options))


def curve_area(curve: xr.DataArray) -> float:
    """Return the area under a robustness curve: the mean robust error over the range of epsilon (trapezoidal rule).

    Parameters
    ----------
    curve
        Dim epsilon, as from `robustness_curve`: two values at least.

    Returns
    -------
    float
        Area over the length of the range, in [0, 1] for a robust error; NaN where the curve is NaN somewhere.

    Raises
    ------
    ValueError
        If the curve has other dims, or epsilon does not increase.

    Examples
    --------
    >>> import xarray as xr
    >>> curve_area(xr.DataArray([0.0, 0.5, 1.0], dims="epsilon", coords={"epsilon": [0.0, 0.25, 1.0]}))
    0.625
    """
    if curve.dims != ("epsilon",) or "epsilon" not in curve.coords:
        raise ValueError(f"curve has the dims {curve.dims}: allowed is one dim epsilon, with its coordinate")
    epsilon = curve["epsilon"].values.astype(np.float64)
    if len(epsilon) < 2 or not np.all(np.diff(epsilon) > 0):
        raise ValueError(f"curve's epsilon = {epsilon.tolist()}: allowed are two or more increasing numbers")
    return float(np.trapezoid(curve.values, epsilon) / (epsilon[-1] - epsilon[0]))


def sizes_run(
    records: xr.Dataset, *, attacks: str | Iterable[str] | None = None, norm: str | None = None
) -> npt.NDArray[np.float64]:
    """Return the epsilons, increasing, at which one of these attacks was run.

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    attacks, norm
        Names and norm of the attacks; see `worst_case`.

    Raises
    ------
    ValueError, TypeError
        If an attack or the norm is unknown, or `records` are none.
    """
    records = checked(records)
    run = _run(records)[_attacks(records, _names(attacks), norm)]
    sizes: npt.NDArray[np.float64] = records["epsilon"].values[run.any(axis=0)].astype(np.float64)
    return sizes


class _Worst:
    """The worst case per example over what was added so far; at first, the examples themselves."""

    def __init__(self, records: xr.Dataset, score: str) -> None:
        self.records = records
        self.scores = read_scores(records, score)
        self.label = records["label"].values
        self.clean_wrong = records["clean_prediction"].values != self.label
        self.prediction = records["clean_prediction"].values.copy()
        self.confidence = records["clean_confidence"].values.copy()
        self.score = self.scores.clean.copy()
        self.wrong = self.clean_wrong.copy()
        self.length = np.zeros_like(self.confidence)
        self.attack = np.full(len(self.label), -1)
        self.epsilon = np.full(len(self.label), -1)
        self.restart = np.full(len(self.label), -1)

    def add(self, attack: int | np.integer, epsilon: int | np.integer) -> None:
        """Add all restarts of an attack at an epsilon: a block of shape (restart, example) at a time, for the memory."""
        block = {name: self.records[name].values[attack, epsilon] for name in ("prediction", "confidence", "length")}
        block["score"] = self.scores.attacked[attack, epsilon]
        wrong = (block["prediction"] >= 0) & (block["prediction"] != self.label) & ~np.isnan(block["score"])
        score = np.where(wrong, block["score"], -np.inf)
        restart = score.argmax(axis=0)
        every = np.arange(len(self.label))
        better = score[restart, every] > np.where(self.wrong, self.score, -np.inf)
        found = restart[better], every[better]
        for name, values in block.items():
            getattr(self, name)[better] = values[found]
        self.wrong[better] = True
        self.attack[better] = attack
        self.epsilon[better] = epsilon
        self.restart[better] = self.records["restart"].values[found[0]]

    def errors(self, tau: float, definition: Definition) -> tuple[int, int]:
        """Return numerator and denominator of the robust error."""
        clean = accepted(self.scores.clean, tau)
        worst = accepted(self.score, tau)
        if definition == "per_example":
            return _count((self.clean_wrong & clean) | (self.wrong & worst)), _count(clean | worst)
        succeeded = ~self.clean_wrong & self.wrong & worst
        return _count(self.clean_wrong & clean) + _count(succeeded), _count(clean) + _count(succeeded & ~clean)


def _count(mask: npt.NDArray[np.bool_]) -> int:
    return int(np.count_nonzero(mask))


def _names(attacks: str | Iterable[str] | None) -> list[str] | None:
    if attacks is None or isinstance(attacks, str):
        return attacks if attacks is None else [attacks]
    return list(attacks)


def _attacks(records: xr.Dataset, attacks: list[str] | None, norm: str | None) -> npt.NDArray[np.intp]:
    """Return the indices of the attacks with these names and this norm, in the order of the records."""
    names, norms = texts(records, "attack"), texts(records, "norm")
    wanted = names if attacks is None else attacks
    for name in wanted:
        checked_choice("attacks", name, names)
    if norm is not None:
        checked_choice("norm", norm, sorted(set(norms)))
    chosen = [i for i, name in enumerate(names) if name in wanted and norm in (None, norms[i])]
    if not chosen:
        found = ", ".join(f"{name} ({norms[i]})" for i, name in enumerate(names))
        raise ValueError(f"attacks = {wanted} with norm = {norm!r} are none: allowed are some of {found}")
    return np.array(chosen)


def _cells(
    records: xr.Dataset,
    attacks: list[str] | None,
    norm: str | None,
    epsilon: float | Mapping[str, float],
    *,
    smaller: bool,
) -> list[tuple[int, int]]:
    """Return (attack, epsilon) of all that counts, by index, in rising order of epsilon."""
    if isinstance(epsilon, Mapping):
        if norm is not None or not epsilon:
            raise ValueError(
                f"epsilon = {dict(epsilon)} with norm = {norm!r}: allowed is a dict of norms, without norm"
            )
        cells = [cell for one, size in epsilon.items() for cell in _cells(records, attacks, one, size, smaller=smaller)]
        return sorted(cells, key=lambda cell: cell[::-1])
    if isinstance(epsilon, bool) or not isinstance(epsilon, int | float | np.integer | np.floating):
        raise TypeError(
            f"epsilon = {epsilon!r} is of the wrong type: allowed is a number, or a dict of norms to numbers"
        )
    chosen = _attacks(records, attacks, norm)
    norms = sorted({texts(records, "norm")[attack] for attack in chosen})
    if len(norms) > 1:
        raise ValueError(
            f"epsilon = {epsilon!r} for attacks in the norms {', '.join(norms)}: allowed is one norm (give norm=), or a "
            "dict of norms to epsilons"
        )
    run = _run(records)[chosen]
    grid = records["epsilon"].values
    here = np.abs(grid - epsilon) <= _RELATIVE * np.abs(epsilon)
    if not (epsilon == 0 or np.any(run[:, here])):
        allowed = ", ".join(f"{value:g}" for value in grid[run.any(axis=0)])
        raise ValueError(f"epsilon = {epsilon!r} was not run in the norm {norms[0]}: allowed is 0, or one of {allowed}")
    below = here | (grid < epsilon) if smaller else here
    attack, index = np.nonzero(run & below)
    return sorted(zip(chosen[attack].tolist(), index.tolist(), strict=True), key=lambda cell: cell[::-1])


def _run(records: xr.Dataset) -> npt.NDArray[np.bool_]:
    """Return which attack was run at which epsilon."""
    return np.array([(prediction >= 0).any(axis=(1, 2)) for prediction in records["prediction"].values])


def _options(epsilon: Any, attacks: list[str] | None, norm: str | None) -> dict[str, Any]:
    """Return these arguments as JSON takes them."""
    size = dict(epsilon) if isinstance(epsilon, Mapping) else epsilon
    return {"epsilon": size, "attacks": attacks, "norm": norm}
