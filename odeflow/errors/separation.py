r"""Separation, rejection and the most confident neighbour of a linear classifier: one shift of epsilon each (exact at any N).

Section 9 of the theory page, after Wu, Jang, Chen, Chen and Jha (ICML 2018, arXiv 1711.08001), whose p is the `level`. The
arguments broadcast as those of `adversarial_error`. The formulas are those of `Margins`, for classifiers that are not the
seed's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from odeflow.errors.linear import prepared, relabelled
from odeflow.errors.margins import Confidence, Margins, checked_radius, confidence_threshold
from odeflow.model import GaussianMixture
from odeflow.parameters import by_dims, label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["most_confident_neighbour", "rejection", "seed_margins", "separation"]


def separation(
    R: Any, b: Any, mixture: GaussianMixture, level: Any, delta: Any, *, Q: Any = None, confidence: Confidence = "erf"
) -> Any:
    r"""Return the share of the examples that an attack brings to a wrong answer of at least a level of confidence (exact).

    The least q with which the classifier is (level, q, delta)-separated.

    Parameters
    ----------
    R, b, mixture, Q
        As for `odeflow.classification_error`.
    level
        Of confidence, in [1/2, 1). At 1/2 the share is the adversarial error.
    delta
        Size of the perturbation, >= 0.
    confidence
        As for `confidence_threshold`, which gives t.

    Returns
    -------
    float, ndarray or DataArray
        :math:`q = S(\delta - t/|w|)`, the adversarial error at another epsilon, which may be negative here.

    Raises
    ------
    TypeError, ValueError
        If a level or a delta is out of range, or as for `odeflow.classification_error`.

    Examples
    --------
    >>> round(float(separation(1.0, 0.0, GaussianMixture(), 0.9, 0.5)), 6)
    0.079833
    """
    given = _checked({"level": level, "delta": delta}, confidence)
    law, given = seed_margins(R, b, mixture, Q, given)
    q = law.separation(given["level"], given["delta"], confidence=confidence)
    return relabelled(_in_order(q, given), "separation") if hasattr(q, "dims") else q


def rejection(
    R: Any, b: Any, mixture: GaussianMixture, level: Any, eta: Any, *, Q: Any = None, xi: Any = 0.0, confidence: Confidence = "erf"
) -> xr.Dataset:  # fmt: skip
    r"""Return what attacks and rejection leave of a classifier that answers from a level of confidence on (exact).

    Parameters
    ----------
    R, b, mixture, Q
        As for `odeflow.classification_error`.
    level
        Of confidence, in [1/2, 1), from which an answer is accepted.
    eta
        Size of the perturbation, >= 0.
    xi
        Radius in which the most confident neighbour answers, >= 0; 0: the point itself.
    confidence
        As for `confidence_threshold`, which gives t.

    Returns
    -------
    Dataset
        With E the classification error, :math:`t_\xi = [t - \xi|w|]_+`, and x the classifier's input to its output:
        `awpr`, of the examples that are right without an attack the share that one makes wrong and accepted,
        :math:`[S(\eta - t_\xi/|w|) - E]_+ / (1 - E)`; `awpr_without_rejection`, :math:`(S(\eta) - E)/(1 - E)`; `recall`, the
        share of all clean examples that are accepted, :math:`P(|x| \ge t_\xi)`; `recall_of_correct`, of those that are right.

    Raises
    ------
    TypeError, ValueError
        If a level or a radius is out of range, or as for `odeflow.classification_error`.

    Examples
    --------
    >>> one = rejection(1.0, 0.0, GaussianMixture(), 0.9, 0.5)
    >>> [round(float(one[name]), 4) for name in ("awpr", "awpr_without_rejection", "recall", "recall_of_correct")]
    [0.0, 0.1781, 0.5657, 0.6387]
    """
    given = _checked({"level": level, "eta": eta, "xi": xi}, confidence)
    law, given = seed_margins(R, b, mixture, Q, given)
    found = law.rejection(given["level"], given["eta"], xi=given["xi"], confidence=confidence)
    return _dataset("rejection", found, given, mixture, confidence)


def most_confident_neighbour(
    R: Any, b: Any, mixture: GaussianMixture, level: Any, eta: Any, xi: Any, *, Q: Any = None, confidence: Confidence = "erf"
) -> xr.Dataset:  # fmt: skip
    r"""Return what a linear classifier gains that answers as the most confident point within xi does (exact).

    That point is :math:`\xi|w|` further from the boundary, on the same side: the answer is the same at every point, and is
    accepted from :math:`t_\xi = [t - \xi|w|]_+` on. The adversary knows it, and replies as without it.

    Parameters
    ----------
    R, b, mixture, Q, level, eta, confidence
        As for `rejection`.
    xi
        Radius in which the most confident neighbour is looked for, >= 0.

    Returns
    -------
    Dataset
        What `rejection` returns, and: `error` and `adversarial_error`, E and :math:`S(\eta)`, which do not depend on xi;
        `separation`, the share that an attack of size eta brings to a wrong answer of at least the level,
        :math:`S(\eta - t_\xi/|w|)`; `doubt`, the share that one brings to a confidence in the right class of no more than the
        level, :math:`S(\eta + t_\xi/|w|)`, the least q with which the composed classifier is (1 - level, q, eta)-separated; and
        `proposition_3`, what the third proposition of the paper says of that q, with delta = xi + eta,
        :math:`S(\eta + |\xi - t/|w||)`. It is never below :math:`S(\eta)`, and that at :math:`\xi = t/|w|`.

    Raises
    ------
    TypeError, ValueError
        If a level or a radius is out of range, or as for `odeflow.classification_error`.

    Examples
    --------
    >>> one = most_confident_neighbour(1.0, 0.0, GaussianMixture(), 0.9, 0.5, 0.3)
    >>> [round(float(one[name]), 4) for name in ("adversarial_error", "separation", "doubt", "proposition_3")]
    [0.3085, 0.1343, 0.5423, 0.5423]
    """
    given = _checked({"level": level, "eta": eta, "xi": xi}, confidence)
    law, given = seed_margins(R, b, mixture, Q, given)
    found = law.most_confident_neighbour(given["level"], given["eta"], given["xi"], confidence=confidence)
    return _dataset("most_confident_neighbour", found, given, mixture, confidence)


def seed_margins(
    R: Any, b: Any, mixture: GaussianMixture, Q: Any, more: dict[str, Any]
) -> tuple[Margins, dict[str, Any]]:
    r"""Return the margins of (R, b), :math:`u \sim N(\rho R/2 - \tau b, v_\tau|w|^2)`, and all arguments such that they broadcast."""
    state, points = prepared({"R": R, "b": b}, mixture, Q)
    given = by_dims_kept({**state, **more, **points})
    R, b, rho = given["R"], given["b"], given["rho"]
    length = np.sqrt(given["Q"]) if Q is not None else 1.0
    law = Margins(
        given["p"],
        (rho * R / 2 - b, rho * R / 2 + b),
        (np.sqrt(given["v1"]) * length, np.sqrt(given["v2"]) * length),
        length,
    )
    return law, given


def by_dims_kept(given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments if they broadcast together, arrays and numbers or DataArrays and numbers, or raise an error."""
    by_dims(given)
    if not any(hasattr(value, "dims") for value in given.values()):
        try:
            np.broadcast_shapes(*(np.shape(value) for value in given.values()))
        except ValueError:
            shapes = {name: np.shape(value) for name, value in given.items()}
            raise ValueError(f"the shapes {shapes} do not broadcast together: allowed are shapes that do") from None
    return given


def _checked(given: dict[str, Any], confidence: Confidence) -> dict[str, Any]:
    """Return a level and radii, checked."""
    confidence_threshold(given["level"], confidence)
    level = given["level"] if hasattr(given["level"], "dims") else np.asarray(given["level"], np.float64)
    radii = {name: checked_radius(name, value) for name, value in given.items() if name != "level"}
    return {"level": level, **radii}


def _in_order(values: Any, given: dict[str, Any]) -> Any:
    """Return a DataArray with the dims in the order of the arguments."""
    order = dict.fromkeys(dim for value in given.values() for dim in getattr(value, "dims", ()))
    return values.transpose(*(dim for dim in order if dim in values.dims))


def _dataset(
    function: str, found: dict[str, Any], given: dict[str, Any], mixture: GaussianMixture, confidence: Confidence
) -> xr.Dataset:
    """Return numbers, arrays or DataArrays by name as a Dataset; the axes of arrays are called axis1, the last, axis2, ..."""
    import xarray as xr

    shape = np.broadcast_shapes(*(np.shape(values) for values in found.values() if not hasattr(values, "dims")))
    data = {}
    for name, values in found.items():
        if hasattr(values, "dims"):
            data[name] = _in_order(values.drop_attrs(), given)
        else:
            axes = range(np.ndim(values), 0, -1)
            same = tuple(n for n in axes if np.shape(values)[-n] < shape[-n])  # does not depend on these
            kept = [f"axis{n}" for n in axes if n not in same]
            data[name] = xr.DataArray(np.squeeze(values, tuple(-n for n in same)), dims=kept)
    named = confidence if isinstance(confidence, str) else getattr(confidence, "__name__", "a function")
    return label(xr.Dataset(data, attrs=provenance(function, mixture, confidence=named)))
