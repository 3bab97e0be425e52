"""The numbers that are published of a net, computed from its records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from deepcheck.evaluation.detection import false_positive_rate, negative_scores, positive_scores, roc_auc
from deepcheck.evaluation.robustness import robust_error
from deepcheck.evaluation.schema import checked, labelled, origin, texts
from deepcheck.evaluation.scores import CONFIDENCE
from deepcheck.evaluation.thresholds import test_error, threshold_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["format_summary", "summary"]


def summary(
    records: xr.Dataset, distal: xr.Dataset | None = None, *, tpr: float = 0.99, score: str = CONFIDENCE
) -> xr.Dataset:
    """Return errors with and without rejection, for every norm and size of the perturbation (exact, given the records).

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`; with validation images.
    distal
        Records from `deepcheck.evaluation.distal`, with the same score.
    tpr
        True positive rate at which the threshold is set, in (0, 1].
    score
        By what is rejected: "confidence", or the name of a detector.

    Returns
    -------
    Dataset
        tau, test_error, thresholded_test_error and examples (their number) without a dim; along threat, with the
        coordinates norm and epsilon: robust_error, thresholded_robust_error (per example), preprint_robust_error
        (thresholded), auc of telling the adversarial examples from the clean ones; along noise, with `distal`:
        noise_fpr and distal_fpr, the shares of noise and of distal images that are accepted.

    Raises
    ------
    ValueError, TypeError
        If there are no validation images, there is no such score, or `records` are none.
    """
    import xarray as xr

    records = checked(records)
    tau = threshold_of(records, tpr=tpr, score=score)
    threats = _threats(records)
    plus = positive_scores(records, score=score)
    rows = []
    for norm, epsilon in threats:
        minus = negative_scores(records, norm=norm, epsilon=epsilon, score=score)
        rows.append(
            (
                robust_error(records, norm=norm, epsilon=epsilon),
                robust_error(records, norm=norm, epsilon=epsilon, tau=tau, score=score),
                robust_error(records, norm=norm, epsilon=epsilon, tau=tau, definition="preprint", score=score),
                roc_auc(plus, minus),
            )
        )
    names = ("robust_error", "thresholded_robust_error", "preprint_robust_error", "auc")
    columns = np.array(rows, np.float64).reshape(-1, len(names)).T
    result = xr.Dataset(
        {
            "tau": tau,
            "test_error": test_error(records),
            "thresholded_test_error": test_error(records, tau=tau, score=score),
            **{name: ("threat", column) for name, column in zip(names, columns, strict=True)},
        },
        coords={
            "norm": ("threat", np.array([norm for norm, _ in threats], object)),
            "epsilon": ("threat", [epsilon for _, epsilon in threats]),
        },
        attrs=origin(records, "summary", tpr=tpr, score=score),
    )
    result["examples"] = records.sizes["example"]
    if distal is not None:
        kinds = list(dict.fromkeys(texts(distal, "noise")))
        (epsilon,) = distal["epsilon"].values
        parts = [distal.isel(example=np.flatnonzero(distal["noise"] == kind)) for kind in kinds]
        rates = {
            name: [false_positive_rate(part, tau, epsilon=float(size), score=score) for part in parts]
            for name, size in (("noise_fpr", 0.0), ("distal_fpr", epsilon))
        }
        result = result.assign({name: ("noise", values) for name, values in rates.items()})
        result = result.assign_coords(noise=np.array(kinds, object))
    return _described(labelled(result))


def format_summary(result: xr.Dataset) -> str:
    """Return a summary as lines of text, in %."""
    lines = [
        f"test error {100 * result.test_error.item():.2f} %, at tau = {result.tau.item():.4f} "
        + f"{100 * result.thresholded_test_error.item():.2f} %, of {result.examples.item()} examples",
        f"{'norm':>6}{'epsilon':>9}{'RErr':>9}{'RErr(tau)':>11}{'preprint':>10}{'ROC AUC':>9}",
    ]
    for threat in range(result.sizes["threat"]):
        one = result.isel(threat=threat)
        cells = [one.robust_error, one.thresholded_robust_error, one.preprint_robust_error]
        first, second, third = (100 * cell.item() for cell in cells)
        lines.append(
            f"{one.norm.item():>6}{one.epsilon.item():9.4g}{first:9.2f}{second:11.2f}{third:10.2f}{one.auc.item():9.3f}"
        )
    for kind in range(result.sizes.get("noise", 0)):
        one = result.isel(noise=kind)
        lines.append(
            f"{one.noise.item()} noise: accepted {100 * one.noise_fpr.item():.2f} %; distal adversarial examples: "
            f"{100 * one.distal_fpr.item():.2f} %"
        )
    return "\n".join(lines)


def _threats(records: xr.Dataset) -> list[tuple[str, float]]:
    """Return norms and sizes of what was run, the norms in the order of the records."""
    run: npt.NDArray[np.bool_] = np.any(records["prediction"].values >= 0, axis=(2, 3))
    norms, epsilons = texts(records, "norm"), records["epsilon"].values
    return [
        (norm, float(epsilon))
        for norm in dict.fromkeys(norms)
        for index, epsilon in enumerate(epsilons)
        if any(run[attack, index] for attack, one in enumerate(norms) if one == norm)
    ]


def _described(result: xr.Dataset) -> xr.Dataset:
    names = {
        "tau": "threshold of the score",
        "test_error": "test error",
        "thresholded_test_error": "test error of what is accepted",
        "thresholded_robust_error": "robust error of what is accepted, per example",
        "preprint_robust_error": "robust error of what is accepted, as in the preprint",
        "noise_fpr": "share of the noise images that are accepted",
        "distal_fpr": "share of the distal adversarial examples that are accepted",
        "examples": "number of test examples",
        "noise": "kind of the noise",
    }
    for name, text in names.items():
        if name in result.variables:
            result[name].attrs.update(long_name=text, units="1")
    return result
