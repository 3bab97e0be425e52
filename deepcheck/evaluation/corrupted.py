"""How often a net is wrong on images that are corrupted naturally, by corruption and severity."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.draws import Draws, keys
from deepcheck.corruptions.base import SEVERITIES, checked_severities
from deepcheck.corruptions.registry import CORRUPTIONS, chosen
from deepcheck.data import Images
from deepcheck.defences.base import Defence
from deepcheck.device import describe, exact_float32, memory_advice
from deepcheck.evaluation.predicted import predictions
from deepcheck.evaluation.run import Tensors, images_in, named_data, split, stream
from deepcheck.evaluation.schema import origin, text_array, texts
from deepcheck.evaluation.thresholds import standard_error
from odeflow.model import checked_count
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "checked_baseline",
    "corrupted_images",
    "corruption_errors",
    "format_corruption_table",
    "mean_corruption_error",
]

_LOG = logging.getLogger(__name__)
SCHEMA = "1"
LONG_NAMES = {
    "error": "share of the examples that are wrong after the corruption",
    "standard_error": "standard error of the error",
    "clean_error": "share of the examples that are wrong without a corruption",
    "clean_standard_error": "standard error of the error without a corruption",
    "prediction": "predicted class after the corruption",
    "clean_prediction": "predicted class of the image itself",
    "label": "class",
    "corruption": "corruption",
    "severity": "severity of the corruption",
    "group": "kind of the corruption",
    "corruption_error": "mean error over the severities",
    "mean_error": "mean error over corruptions and severities",
    "mean_error_standard_error": "standard error of the mean error",
    "normalised_error": "error summed over the severities, over the baseline's (CE)",
    "mce": "mean of the normalised errors (mCE)",
    "mce_standard_error": "standard error of the mCE, with the baseline's errors fixed",
    "relative_error": "error beyond that on clean images, summed over the severities, over the baseline's (relative CE)",
    "relative_mce": "mean of the relative errors (relative mCE)",
    "relative_mce_standard_error": "standard error of the relative mCE, with the baseline's errors fixed",
}


def corrupted_images(
    name: str, images: Tensor, severity: int, *, seed: int = 0, batch_size: int = 500, first: int = 0
) -> Tensor:
    """Return images after a corruption, with the random numbers that `corruption_errors` takes.

    Parameters
    ----------
    name
        Out of `deepcheck.corruptions.CORRUPTIONS`.
    images
        Shape (n, 1 or 3, height, width), pixels in [0, 1].
    severity
        1 to 5. The random numbers are the same in each.
    seed
        >= 0.
    batch_size
        Images that are corrupted at once, >= 1. The result does not depend on it.
    first
        Index of the first image in the data set, >= 0.
    """
    checked_count("batch_size", batch_size, 1)
    indices = torch.arange(checked_count("first", first, 0), first + len(images), device=images.device)
    key = keys(stream(checked_count("seed", seed, 0), f"corruption {name}"), indices)
    parts = zip(images.split(batch_size), key.split(batch_size), strict=True)
    return torch.cat([CORRUPTIONS[name](part, severity, Draws(one)) for part, one in parts])


@exact_float32()
def corruption_errors(
    model: Model,
    images: Images | Tensors,
    corruptions: Iterable[str] | None = None,
    severities: Sequence[int] = SEVERITIES,
    *,
    examples: int | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    configuration: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    r"""Corrupt the first test images in many ways, and say how often a net is wrong.

    Parameters
    ----------
    model
        A function from images to logits, on `device`. A module is put into eval mode, and back afterwards. A random `Defence`
        is given a seed of its own for each corruption and severity.
    images
        The data set, of which test images alone are used. Or a pair of tensors (x, y): pixels in [0, 1], shape (n, 1 or 3,
        height, width), and labels, shape (n,), int64.
    corruptions
        Names out of `deepcheck.corruptions.CORRUPTIONS`, or "mnist_c", "cifar10_c", "all". Default: the fifteen of MNIST-C for
        grey images, those of CIFAR-10-C for coloured ones.
    severities
        Out of 1 to 5, each once.
    examples
        Number of test images, the first ones, >= 1; default: all.
    seed
        Of the corruptions, >= 0. Each has a stream of its own, whose numbers are the same in every severity.
    device, batch_size, configuration
        See `evaluate`.

    Returns
    -------
    Dataset
        error and standard_error, :math:`\sqrt{p (1 - p) / n}`, by corruption and severity; clean_error and
        clean_standard_error; prediction (corruption, severity, example), clean_prediction and label (example); the coordinate
        group says of which kind a corruption is. The attribute schema is the text "1".

    Raises
    ------
    ValueError, TypeError
        If a name is unknown, a number out of range, or there are too few images; before any work.
    MemoryError
        If a batch does not fit into the memory of the GPU.
    """
    import xarray as xr

    checked_count("seed", seed, 0)
    checked_count("batch_size", batch_size, 1)
    severities = checked_severities(severities)
    count = images_in(images) if examples is None else examples
    device = torch.device(device)
    (x, y), _ = split(images, count, 0, device)
    if x.ndim != 4:
        raise ValueError(f"images of shape {tuple(x.shape)} are not allowed: (n, channels, height, width) is")
    names = chosen(corruptions, x.shape[1])
    label = y.cpu().numpy()
    found = np.empty((len(names), len(severities), len(label)), np.int16)
    with memory_advice(batch_size):
        clean = _predicted(model, x, batch_size, seed, "clean")
        for row, name in enumerate(names):
            _LOG.info("corrupting: %s", name)
            for column, severity in enumerate(severities):
                z = corrupted_images(name, x, severity, seed=seed, batch_size=batch_size)
                found[row, column] = _predicted(model, z, batch_size, seed, f"{name} {severity}")
    by = ("corruption", "severity")
    error = (found != label).mean(axis=2)
    clean_error = float((clean != label).mean())
    result = xr.Dataset(
        {
            "error": (by, error),
            "standard_error": (by, np.sqrt(error * (1 - error) / len(label))),
            "clean_error": clean_error,
            "clean_standard_error": standard_error(clean_error, len(label)),
            "prediction": ((*by, "example"), found),
            "clean_prediction": ("example", clean.astype(np.int16)),
            "label": ("example", label),
        },
        coords={
            "corruption": text_array(names),
            "severity": list(severities),
            "group": ("corruption", text_array(CORRUPTIONS[name].group for name in names)),
        },
        attrs={
            **provenance(
                "corruption_errors",
                seed=str(seed),
                device=describe(device),
                data={**named_data(images, x, y), "examples": count},
                corruptions={name: list(CORRUPTIONS[name].parameters(x.shape[1])) for name in names},
                **(configuration or {}),
            ),
            "schema": SCHEMA,
        },
    )
    return _labelled(result)


def mean_corruption_error(errors: xr.Dataset, baseline: xr.Dataset | None = None) -> xr.Dataset:
    r"""Return the mean over corruptions and severities, and with a baseline the mCE (exact, given the errors).

    Parameters
    ----------
    errors
        From `corruption_errors`.
    baseline
        The same of the net that is the measure: of the same images, with all these corruptions and severities.

    Returns
    -------
    Dataset
        corruption_error (corruption), mean over the severities; mean_error, over the corruptions too. With a baseline, as
        Hendrycks and Dietterich (ICLR 2019), with the errors E of the net, B of the baseline:

        - normalised_error :math:`\mathrm{CE}_c = \sum_s E_{sc} / \sum_s B_{sc}`, and mce, its mean;
        - relative_error :math:`\sum_s (E_{sc} - E_\mathrm{clean}) / \sum_s (B_{sc} - B_\mathrm{clean})`, and relative_mce, its
          mean. NaN where the baseline loses nothing by a corruption.

        They are shares: 1 where the net is as bad as the baseline. Standard errors are those of means over the examples, each
        with all its corrupted versions; the baseline's errors count as fixed.

    Raises
    ------
    ValueError, TypeError
        If there are no errors, or the baseline lacks some, is of other images, or is never wrong under a corruption.
    """
    import xarray as xr

    errors = _checked(errors, "errors", ("error", "clean_error", "prediction", "clean_prediction", "label"))
    wrong = (errors["prediction"] != errors["label"]).mean("severity").transpose("corruption", "example")
    before = errors["clean_prediction"] != errors["label"]
    by_corruption = errors["error"].mean("severity")
    found: dict[str, Any] = {
        "corruption_error": by_corruption,
        **_mean("mean_error", by_corruption, wrong),
    }
    if baseline is not None:
        base = checked_baseline(baseline, texts(errors, "corruption"), errors["severity"].values.tolist())
        if "label" in base and not np.array_equal(base["label"].values, errors["label"].values):
            raise ValueError("baseline is of other images: allowed is one of the same, in the same order")
        measure = base["error"].mean("severity")
        perfect = [str(name) for name in measure["corruption"].values[measure.values == 0]]
        if perfect:
            raise ValueError(
                f"baseline is never wrong under {', '.join(perfect)}: allowed is one that is, or other corruptions"
            )
        found["normalised_error"] = by_corruption / measure
        found |= _mean("mce", found["normalised_error"], wrong / measure)
        lost = measure - base["clean_error"]
        lost = lost.where(lost > 0)
        found["relative_error"] = (by_corruption - errors["clean_error"]) / lost
        found |= _mean("relative_mce", found["relative_error"], (wrong - before) / lost)
    options: dict[str, Any] = {} if baseline is None else {"baseline": {k: str(v) for k, v in baseline.attrs.items()}}
    result = xr.Dataset(found, attrs=origin(errors, "mean_corruption_error", **options))
    return _labelled(result)


def format_corruption_table(errors: xr.Dataset, baseline: xr.Dataset | None = None) -> str:
    """Return the errors by corruption and severity, and their means, as lines of text, in %; with a baseline the CE too."""
    means = mean_corruption_error(errors, baseline)
    names = texts(errors, "corruption")
    wide = max(map(len, (*names, "corruption")))
    severities = errors["severity"].values.tolist()
    clean = _percent(errors.clean_error, errors.clean_standard_error)
    head = f"{'corruption':<{wide}}" + "".join(f"{severity:>8}" for severity in severities) + f"{'mean':>8}"
    lines = [
        f"error without a corruption {clean} %, of {errors.sizes['example']} examples; by severity, in %:",
        head if baseline is None else f"{head}{'CE':>8}",
    ]
    for name in names:
        row = errors["error"].sel(corruption=name).values.tolist()
        line = f"{name:<{wide}}" + "".join(f"{100 * value:8.2f}" for value in row)
        line += f"{100 * means.corruption_error.sel(corruption=name).item():8.2f}"
        if baseline is not None:
            line += f"{100 * means.normalised_error.sel(corruption=name).item():8.1f}"
        lines.append(line)
    lines.append(f"mean corruption error {_percent(means.mean_error, means.mean_error_standard_error)} %")
    if baseline is not None:
        lines.append(f"mCE {_percent(means.mce, means.mce_standard_error)} % of the baseline's")
        none = [name for name in names if not np.isfinite(means.relative_error.sel(corruption=name).item())]
        if none:
            lines.append(f"relative mCE: none, as the baseline loses nothing by {', '.join(none)}")
        else:
            relative = _percent(means.relative_mce, means.relative_mce_standard_error)
            lines.append(f"relative mCE {relative} % of the baseline's")
    return "\n".join(lines)


def _predicted(model: Model, x: Tensor, batch_size: int, seed: int, name: str) -> np.ndarray:
    """Return the predicted classes; a random defence has a stream of its own under each name."""
    if isinstance(model, Defence):
        model.reseed(stream(seed, f"defence {name}").initial_seed())
    return predictions(model, x, batch_size)[0]


def _checked(errors: object, name: str, variables: Iterable[str]) -> xr.Dataset:
    """Return errors by corruption and severity, if they are such."""
    import xarray as xr

    if not isinstance(errors, xr.Dataset):
        raise TypeError(
            f"{name} is of the wrong type {type(errors).__name__}: allowed is what corruption_errors returns"
        )
    lacking = [one for one in variables if one not in errors]
    if lacking or not {"corruption", "severity"} <= set(errors["error"].dims):
        what = f"lacks {', '.join(lacking)}" if lacking else "has no errors by corruption and severity"
        raise ValueError(f"{name} {what}: allowed is what corruption_errors returns")
    return errors


def checked_baseline(baseline: object, corruptions: Sequence[str], severities: Sequence[int]) -> xr.Dataset:
    """Return a baseline at some corruptions and severities; raises as `mean_corruption_error` if it lacks one."""
    base = _checked(baseline, "baseline", ("error", "clean_error"))
    for name, wanted in (("corruption", corruptions), ("severity", severities)):
        lacking = [str(one) for one in wanted if one not in base[name].values]
        if lacking:
            raise ValueError(f"baseline lacks the {name} {', '.join(lacking)}: allowed is one that has all of them")
    return base.sel(corruption=list(corruptions), severity=list(severities))


def _mean(name: str, values: xr.DataArray, each: xr.DataArray) -> dict[str, Any]:
    """Return the mean over the corruptions, and its standard error from the values of each example."""
    of_example = each.mean("corruption", skipna=False)
    n = of_example.sizes["example"]
    return {
        name: values.mean("corruption", skipna=False),
        f"{name}_standard_error": of_example.std("example") / np.sqrt(n),
    }


def _labelled(result: xr.Dataset) -> xr.Dataset:
    """Give every variable its long name and unit, in place."""
    for name in result.variables:
        if name in LONG_NAMES:
            result[name].attrs = {"long_name": LONG_NAMES[str(name)], "units": "1"}
    return result


def _percent(share: xr.DataArray, error: xr.DataArray) -> str:
    return f"{100 * share.item():.2f} +- {100 * error.item():.2f}"
