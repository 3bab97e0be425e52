r"""The Gaussian margins of a linear classifier, and what an adversary makes of them (exact at any N).

The signed margin of an example of the class :math:`\tau` is :math:`u = \tau x`, :math:`x = w\cdot\xi - b`. An attack of size
:math:`\eta` moves it by at most :math:`\eta|w|_*`, with the dual norm. The confidence in the class +1 grows with x, is 1/2 at
x = 0 and a given level at x = t, so that an answer has at least this confidence where :math:`|x| \ge t`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from odeflow.parameters import as_numbers

__all__ = ["CONFIDENCES", "Confidence", "Margins", "checked_radius", "confidence_threshold"]

Confidence = str | Callable[[Any], Any]
"""Name of a confidence, or a function from levels to thresholds."""


def _erf(level: Any) -> Any:
    from scipy.special import erfinv

    return erfinv(2 * level - 1)


def _logistic(level: Any) -> Any:
    from scipy.special import logit

    return logit(level)


CONFIDENCES: dict[str, Callable[[Any], Any]] = {
    "erf": _erf,
    "tanh": lambda level: _logistic(level) / 2,
    "logistic": _logistic,
    "linear": lambda level: 2 * level - 1,
}
"""Name of a confidence to the x at which it is a level: (1 + erf x)/2, (1 + tanh x)/2, 1/(1 + exp(-x)), (1 + x)/2 cut at 0 and 1."""


def confidence_threshold(level: Any, confidence: Confidence = "erf") -> Any:
    r"""Return the threshold t of \|x\| at which the confidence of an answer is a level (exact).

    Parameters
    ----------
    level
        Of confidence, in [1/2, 1); a number, array or DataArray.
    confidence
        What is read as the confidence in the class +1: "erf", (1 + erf x)/2, with which the seed's output is read; "tanh",
        (1 + tanh x)/2; "logistic", 1/(1 + exp(-x)), of a net whose x is the difference of two logits; "linear", (1 + x)/2
        between 0 and 1, for an output that was fitted to +1 and -1. Or a function that returns t for levels: 0 at 1/2, not
        decreasing.

    Returns
    -------
    float, ndarray or DataArray
        :math:`t \ge 0`.

    Raises
    ------
    TypeError, ValueError
        If a level is out of range, the name of a confidence is unknown, or a function returns negative thresholds.

    Examples
    --------
    >>> round(float(confidence_threshold(0.9)), 6), round(float(confidence_threshold(0.9, "logistic")), 6)
    (0.906194, 2.197225)
    """
    values = _numbers("level", level)
    _refuse("level", values, (values >= 0.5) & (values < 1), ">= 0.5 and < 1, of two classes")
    if not callable(confidence) and confidence not in CONFIDENCES:
        raise ValueError(
            f"confidence = {confidence!r} is unknown: allowed is one of {', '.join(CONFIDENCES)}, or a function of the level"
        )
    t = confidence(values) if callable(confidence) else CONFIDENCES[confidence](values)
    if not np.all(np.asarray(t) >= 0):
        raise ValueError(
            f"confidence = {confidence!r} has the threshold {float(np.min(t))!r}: allowed are thresholds >= 0"
        )
    return t[()] if not hasattr(t, "dims") and hasattr(t, "ndim") else t


def checked_radius(name: str, value: Any) -> Any:
    """Return a radius, or radii as an array or DataArray, or raise an error if one is negative or not finite."""
    values = _numbers(name, value)
    _refuse(name, values, (values >= 0) & np.isfinite(values), "a finite number >= 0")
    return values


def _numbers(name: str, value: Any) -> Any:
    """Return numbers as an array, a DataArray of them as it is, or raise a TypeError."""
    labelled = hasattr(value, "dims")
    array = as_numbers(name, value.values if labelled else value)
    return value if labelled else array


def _refuse(name: str, values: Any, good: Any, allowed: str) -> None:
    bad = np.asarray(values)[~np.asarray(good)]
    if bad.size:
        raise ValueError(f"{name} = {float(bad[0])!r} is out of range: allowed is {allowed}")


@dataclass(frozen=True)
class Margins:
    r"""Gaussian margins u of the classes +1 and -1: all that the errors of a linear classifier depend on (exact).

    Of any linear net: of the seed's (R, b) by `separation` and its like; of weights w and a bias b, and of two classes with
    means :math:`m_\tau` and covariances :math:`C_\tau`, with :math:`\tau(w\cdot m_\tau - b)`, :math:`\sqrt{w^T C_\tau w}` and
    :math:`|w|_*`; of a net's margins on real examples, with their means and deviations, exact if they are Gaussian. Everything
    broadcasts, arrays and DataArrays.

    Examples
    --------
    >>> one = Margins(p=0.5, mean=(1.2, 0.8), sd=(0.7, 0.9), length=3.0)  # |w|_1 = 3, for L-infinity
    >>> round(float(one.error(0.1)), 6), round(float(one.separation(0.9, 0.1, confidence="logistic")), 6)
    (0.194264, 0.000684)
    """

    p: Any
    """Prior of the class +1."""
    mean: tuple[Any, Any]
    """Means of u in the classes +1 and -1."""
    sd: tuple[Any, Any]
    """Standard deviations, > 0."""
    length: Any
    """Dual norm of w, > 0: how far an attack of size 1 moves u."""

    def __post_init__(self) -> None:
        for name, allowed in (("mean", 2), ("sd", 2)):
            given = getattr(self, name)
            if not hasattr(given, "__len__") or len(given) != allowed:
                raise ValueError(f"{name} = {given!r}: allowed are two, of the classes +1 and -1")
        for value in self.mean:
            _numbers("mean", value)
        for name, value in (("sd", self.sd[0]), ("sd", self.sd[1]), ("length", self.length)):
            _refuse(name, value, ~(as_numbers(name, value) <= 0), "> 0")
        p = as_numbers("p", self.p)
        _refuse("p", self.p, ~((p < 0) | (p > 1)), "in [0, 1]")

    def below(self, u: Any) -> Any:
        """Return the probability of a signed margin of at most u."""
        from scipy.special import ndtr

        plus, minus = (ndtr((u - mean) / sd) for mean, sd in zip(self.mean, self.sd, strict=True))
        return self.p * plus + (1 - self.p) * minus

    def error(self, epsilon: Any = 0.0) -> Any:
        r"""Return :math:`S(\varepsilon)`, the probability of a wrong answer under attack: :math:`u \le \varepsilon|w|_*`."""
        return self.below(checked_radius("epsilon", epsilon) * self.length)

    def separation(self, level: Any, delta: Any, *, confidence: Confidence = "erf") -> Any:
        """Return the share that an attack brings to a wrong answer of at least a level; see `odeflow.errors.separation`."""
        return self.below(checked_radius("delta", delta) * self.length - confidence_threshold(level, confidence))

    def rejection(self, level: Any, eta: Any, *, xi: Any = 0.0, confidence: Confidence = "erf") -> dict[str, Any]:
        """Return what attacks and rejection leave, by name; see `odeflow.errors.rejection`."""
        eta, t = checked_radius("eta", eta), self.threshold(level, xi, confidence)
        E, reach = self.below(0.0), eta * self.length
        return {
            "awpr": (np.maximum(self.below(reach - t) - E, 0.0)) / (1 - E),
            "awpr_without_rejection": (self.below(reach) - E) / (1 - E),
            "recall": 1 - self.below(t) + self.below(-t),
            "recall_of_correct": (1 - self.below(t)) / (1 - E),
        }

    def threshold(self, level: Any, xi: Any, confidence: Confidence = "erf") -> Any:
        r"""Return :math:`[t - \xi|w|_*]_+`, from which on the most confident neighbour within xi is accepted."""
        return np.maximum(confidence_threshold(level, confidence) - checked_radius("xi", xi) * self.length, 0.0)

    def most_confident_neighbour(
        self, level: Any, eta: Any, xi: Any, *, confidence: Confidence = "erf"
    ) -> dict[str, Any]:
        """Return what the most confident neighbour changes, by name; see `odeflow.errors.most_confident_neighbour`."""
        eta, reduced = checked_radius("eta", eta), self.threshold(level, xi, confidence)
        t = confidence_threshold(level, confidence)
        S, reach = self.below(eta * self.length), eta * self.length
        missing = np.abs(checked_radius("xi", xi) * self.length - t)
        return {
            "error": self.below(0.0),
            "adversarial_error": S,
            "separation": self.below(reach - reduced),
            "doubt": self.below(reach + reduced),
            "proposition_3": self.below(reach + missing),
            **self.rejection(level, eta, xi=xi, confidence=confidence),
        }
