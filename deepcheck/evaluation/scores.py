"""Scores by which images are accepted or rejected: the confidence, and those of detectors, from one place.

Every metric asks `scores_of` for three arrays, and does not know whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from deepcheck.checks import checked_choice
from deepcheck.evaluation.predicted import predictions
from deepcheck.evaluation.schema import ATTACKED, SCORES, checked, labelled, text_array, texts

if TYPE_CHECKING:
    import xarray as xr

    from deepcheck.attacks.base import Model
    from deepcheck.detectors.base import Detector

__all__ = ["CONFIDENCE", "Scores", "scores_of", "with_score"]

CONFIDENCE = "confidence"
"""Name of the score that is always there: the largest class probability."""
IMAGES = ("attacked_image", "attacked_restart", "clean_image", "validation_image")
_OTHERS = 0.05  # share of the images on which another device may predict another class, and still be of the same net


@dataclass(frozen=True, eq=False)
class Scores:
    """A score of every image of some records, large where it is to be accepted."""

    clean: npt.NDArray[np.float32]
    """Of the test images, shape (n,)."""
    attacked: npt.NDArray[np.float32]
    """Of what attacks made of them, shape (attack, epsilon, restart, n); NaN where there is none."""
    validation: npt.NDArray[np.float32]
    """Of the validation images, shape (m,)."""


def scores_of(records: xr.Dataset, score: str = CONFIDENCE) -> Scores:
    """Return a score of every image.

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    score
        "confidence", or the name of a detector that the records have scores of.

    Returns
    -------
    Scores

    Raises
    ------
    ValueError, TypeError
        If there is no such score, or `records` are none.
    """
    return read_scores(checked(records), score)


def read_scores(records: xr.Dataset, score: str) -> Scores:
    """Return a score of every image of records that were checked already."""
    names = [CONFIDENCE, *(texts(records, "detector") if "score" in records else ())]
    index = names.index(checked_choice("score", score, names))
    if index == 0:
        arrays = [records[name].values for name in ("clean_confidence", "confidence", "validation_confidence")]
    else:
        arrays = [records[name].values[index - 1] for name in ("clean_score", "score", "validation_score")]
    return Scores(*arrays)


def with_score(
    records: xr.Dataset,
    name: str,
    detector: Detector,
    model: Model,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
) -> xr.Dataset:
    """Return records with the score of one detector more, of all images that were kept.

    Parameters
    ----------
    records
        From `evaluate` with ``keep_images=True``.
    name
        What the score is to be called; any text but "confidence", which is always there.
    detector
        A fitted detector.
    model
        The net that was attacked, on `device`.
    device
        Where the model is.
    batch_size
        Images that the net sees at once, >= 1.

    Returns
    -------
    Dataset
        Records with this name under `detector`; see `deepcheck.evaluation.schema`.

    Raises
    ------
    ValueError, TypeError
        If no images were kept, if the name is taken, if the detector was not fitted, or if the net is another: one that
        predicts other classes than the records have on more than 5 % of the test images.
    """
    records = checked(records)
    missing = [variable for variable in IMAGES if variable not in records]
    if missing:
        raise ValueError(
            f"records lack {', '.join(missing)}: allowed are those of evaluate(..., keep_images=True), which has the "
            "images that a detector looks at"
        )
    taken = [CONFIDENCE, *(texts(records, "detector") if "score" in records else ())]
    if name in ("", *taken):
        raise ValueError(f"name = {name!r} is not allowed: a text other than {', '.join(taken)} is")

    def tensor(variable: xr.DataArray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(variable.values), device=device)

    def scored(variable: xr.DataArray) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            return detector.score(model, tensor(variable), batch_size=batch_size).float().cpu().numpy()

    prediction, _ = predictions(model, tensor(records["clean_image"]), batch_size)
    others = np.count_nonzero(prediction != records["clean_prediction"].values)
    if others > _OTHERS * len(prediction):
        raise ValueError(
            f"model predicts other classes than the records on {others} of {len(prediction)} test images: allowed is "
            "the net that was attacked"
        )
    score = np.full([records.sizes[dim] for dim in ATTACKED], np.nan, np.float32)
    attacks, grid = texts(records, "attack"), records["epsilon"].values.tolist()
    every = np.arange(records.sizes["example"])
    for index, (attack, epsilon) in enumerate(zip(*_pairs(records), strict=True)):
        if attack in attacks and epsilon in grid:  # others may have been left out of a selection
            restart = records["attacked_restart"].values[index]
            values = scored(records["attacked_image"][index])
            score[attacks.index(attack), grid.index(epsilon), restart, every] = values
    score[records["prediction"].values < 0] = np.nan
    more = {"score": score, "clean_score": scored(records["clean_image"])}
    more["validation_score"] = scored(records["validation_image"])
    arrays = {
        variable: np.concatenate([records[variable].values, more[variable][None]])
        if variable in records
        else more[variable][None]
        for variable in SCORES
    }
    plain = records.drop_vars([*SCORES, "detector"], errors="ignore")
    plain = plain.assign({variable: (SCORES[variable][0], values) for variable, values in arrays.items()})
    return labelled(plain.assign_coords(detector=text_array([*taken[1:], name])))


def with_images(
    records: xr.Dataset,
    attacked: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.integer]]],
    clean: npt.NDArray[np.float32],
    validation: npt.NDArray[np.float32],
) -> xr.Dataset:
    """Return records with images: by attack those at its epsilons, in rising order, and the restarts that they are from."""
    pixel = ("channel", "row", "column") if clean.ndim == 4 else tuple(f"axis_{i}" for i in range(1, clean.ndim))
    run = np.any(records["prediction"].values >= 0, axis=(2, 3))
    pairs = [
        (name, epsilon)
        for index, name in enumerate(texts(records, "attack"))
        for epsilon in records["epsilon"].values[run[index]].tolist()
    ]
    kept = [np.concatenate(parts) for parts in zip(*(attacked[name] for name in attacked), strict=True)]
    return labelled(
        records.assign(
            attacked_image=(("kept", "example", *pixel), kept[0]),
            attacked_restart=(("kept", "example"), kept[1].astype(np.int16)),
            clean_image=(("example", *pixel), clean),
            validation_image=(("validation", *pixel), validation),
        ).assign_coords(
            kept_attack=("kept", text_array(name for name, _ in pairs)),
            kept_epsilon=("kept", [epsilon for _, epsilon in pairs]),
        )
    )


def with_parts_of(whole: xr.Dataset, parts: Sequence[xr.Dataset]) -> xr.Dataset:
    """Return joined records with the scores and the images of their parts, where these have them."""
    import xarray as xr

    grid = whole["epsilon"].values

    def on_grid(epsilon: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.asarray(grid[np.abs(np.subtract.outer(epsilon, grid)).argmin(axis=1)])

    options: dict[str, Any] = {"coords": "minimal", "compat": "override", "join": "exact"}
    if "score" in parts[0]:
        scores = []
        for part in parts:
            run = np.any(part["prediction"].values >= 0, axis=(0, 2, 3))
            one = part["score"].isel(epsilon=run)
            one = one.assign_coords(epsilon=on_grid(one["epsilon"].values))
            scores.append(one.reindex(epsilon=grid, restart=whole["restart"].values))
        score = xr.concat(scores, "attack", **options).transpose(*SCORES["score"][0])
        whole = whole.assign(
            score=(score.dims, score.values),
            clean_score=parts[0]["clean_score"].variable,
            validation_score=parts[0]["validation_score"].variable,
        ).assign_coords(detector=parts[0]["detector"].variable)
    pictured = [part for part in parts if "attacked_image" in part]
    if pictured:
        kept = [part[list(IMAGES[:2])] for part in pictured]
        kept = [one.assign_coords(kept_epsilon=("kept", on_grid(one["kept_epsilon"].values))) for one in kept]
        kept = [one.drop_vars([name for name in one.coords if one[name].dims != ("kept",)]) for one in kept]
        clean = {name: pictured[0][name].variable for name in IMAGES[2:]}
        whole = whole.assign(clean).merge(xr.concat(kept, "kept", **options), join="exact")
    return labelled(whole)


def _pairs(records: xr.Dataset) -> tuple[list[str], list[float]]:
    """Return attack and epsilon of the images that were kept."""
    return texts(records, "kept_attack"), records["kept_epsilon"].values.tolist()
