"""What was found of each defence: accuracies under the claimed, the standard and the adaptive evaluation, and their differences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepcheck.evaluation.thresholds import standard_error
from studies.common import tables
from studies.common.tables import noted
from studies.defences.plan import COLUMNS

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Found", "described", "summarised", "table"]

Flags = npt.NDArray[np.bool_]


class Found:
    """What was found of one subject.

    Parameters
    ----------
    data
        Of the study.
    name
        Of the subject.
    """

    def __init__(self, data: xr.Dataset, name: str) -> None:
        self.name = name
        self.about = data.sel(subject=name)
        self.rows = data.isel(row=np.flatnonzero(data.against.values == name))
        self.title = str(self.about.title.item())
        self.images = int(self.about.images)
        self.random = bool(self.about.random)

    @property
    def correct(self) -> Flags:
        """Which images are classified correctly as they are."""
        return np.asarray(self.about.correct.values[: self.images] == 1)

    def right_after(self, place: int) -> Flags:
        """Return which images are classified correctly as they are, and after the attack of a row too, or were not given to it."""
        row = self.rows.isel(row=place)
        return np.asarray(self.correct & (row.broken.values[: self.images] != 1))

    def places(self, *columns: str) -> list[int]:
        """Return the rows of some evaluations."""
        return [place for place, column in enumerate(self.rows.evaluation.values) if column in columns]

    def right(self, column: str) -> Flags:
        """Return which images are right after an evaluation and those before it.

        The worst case of each image; of a random defence the images that are right after the one attack that leaves fewest, of
        those that were run on all images.
        """
        names = list(COLUMNS)
        places = self.places(*names[: names.index(column) + 1])
        each = {place: self.right_after(place) for place in places}
        if not self.random:
            return np.asarray(np.logical_and.reduce([self.correct, *each.values()]))
        whole = [place for place in places if int(self.rows.attacked[place]) == self.images]
        return each[min(whole, key=lambda place: each[place].mean())]

    def lost(self, before: str, after: str) -> tuple[float, float]:
        """Return which share of the images one evaluation leaves and the next does not, and its standard error."""
        difference = self.right(before).astype(float) - self.right(after)
        return float(difference.mean()), float(difference.std(ddof=1) / self.images**0.5)

    def worst(self) -> str:
        """Return the name of the attack that leaves fewest images of all."""
        places = self.places(*COLUMNS)
        return str(self.rows.attack.values[min(places, key=lambda place: self.right_after(place).mean())])


def summarised(data: xr.Dataset) -> xr.Dataset:
    """Return the data with accuracies, gaps, their standard errors, and the accuracy after each attack."""
    names = [str(name) for name in data.subject.values]
    every = [Found(data, name) for name in names]
    numbers: dict[str, list[Any]] = {"accuracy": [float(one.correct.mean()) for one in every]}
    for column in COLUMNS:
        numbers[column] = [float(one.right(column).mean()) for one in every]
    for name in ("accuracy", *COLUMNS):
        numbers[f"{name}_se"] = [standard_error(p, one.images) for p, one in zip(numbers[name], every, strict=True)]
    gaps = [one.lost("claimed", "adaptive") for one in every]
    numbers |= {"gap": [gap for gap, _ in gaps], "gap_se": [error for _, error in gaps]}
    numbers["worst_attack"] = [one.worst() for one in every]
    if "corrupted" in data:
        of_image = data.corrupted.mean("corruption")
        numbers["mean_corruption_error"] = of_image.mean("example").values
        numbers["mean_corruption_error_se"] = (of_image.std("example", ddof=1) / np.sqrt(data.images)).values
    left = np.full(data.sizes["row"], np.nan)
    for one in every:
        own = np.flatnonzero(data.against.values == one.name)
        for place, row in enumerate(own):
            left[row] = one.right_after(place)[: int(one.rows.attacked[place])].mean()
    return data.assign({name: ("subject", values) for name, values in numbers.items()} | {"left": ("row", left)})


def described(data: xr.Dataset) -> xr.Dataset:
    """Return the data with the names and units of the variables."""
    names = {
        "subject": "net or defence",
        "title": "what figures call it",
        "source": "where it was attacked as in the claimed evaluation",
        "images": "number of test images, the first ones",
        "random": "whether it is random: the same image has other logits in the next call",
        "example": "test image",
        "correct": "whether the test image is classified correctly without an attack, 0 or 1",
        "against": "subject that is attacked",
        "evaluation": "kind of evaluation: claimed, standard or adaptive",
        "attack": "attack",
        "attack_effort": "how hard the attack tries",
        "meets": "what the attack follows: the net or defence itself, the bare net, one draw, or a surrogate",
        "attacked": "number of images that the attack was run on, the first ones",
        "broken": "whether the attacked image is misclassified, 0 or 1",
        "queries": "evaluations of what the attack follows",
        "left": "share of the attacked images that are classified correctly after the attack",
        "accuracy": "share of the images that are classified correctly without an attack",
        "accuracy_se": "its standard error",
        "claimed": "accuracy under the claimed evaluation",
        "claimed_se": "its standard error",
        "standard": "accuracy after the standard suite too",
        "standard_se": "its standard error",
        "adaptive": "accuracy after the attacks that know the defence too",
        "adaptive_se": "its standard error",
        "gap": "accuracy that was claimed and is not there: claimed less adaptive",
        "gap_se": "its standard error, paired over images",
        "worst_attack": "attack that leaves fewest images",
        "shown": "test image that is shown",
        "clean_image": "pixels of the test image",
        "clean_prediction": "predicted class of the test image",
        "clean_confidence": "confidence in that class",
        "image": "pixels of the image after the attack",
        "image_prediction": "predicted class of the attacked image",
        "image_confidence": "confidence in that class",
        "corruption": "natural corruption",
        "corrupted": "share of the five severities in which the corrupted test image is misclassified",
        "mean_corruption_error": "mean error over corruptions and severities",
        "mean_corruption_error_se": "its standard error over images",
    }
    tables.describe(data, {name: text for name, text in names.items() if name in data.variables})
    data["seconds"].attrs = {"long_name": "time of the attack, an image", "units": "s"}
    return data


# --- the table ---

_HEAD = (
    f"{'':22}{'images':>7}{'clean':>8}{'claimed':>9}{'standard':>10}{'adaptive':>10}{'gap':>16}{'corrupted':>11}"
    f"  {'worst attack':24}"
)


def table(data: xr.Dataset) -> str:
    """Return the accuracies of each subject, and below them what each attack has left."""
    lines = noted(data)
    lines += [
        (
            f"accuracies in %, L-infinity, epsilon = {data.attrs['epsilon']:g}; gap: claimed less adaptive, +- its standard error; "
            "corrupted: mean error under natural corruptions"
        ),
        _HEAD,
    ]
    for one in (data.sel(subject=name) for name in data.subject.values):
        shares = (
            f"{100 * float(one[name]):{width}.1f}"
            for name, width in (("accuracy", 8), ("claimed", 9), ("standard", 10), ("adaptive", 10))
        )
        gap = f"{100 * float(one.gap):.1f} +- {100 * float(one.gap_se):.1f}"
        mean = f"{100 * float(one.mean_corruption_error):.1f}" if "mean_corruption_error" in one else "-"
        lines.append(
            f"{one.title.item():22}{int(one.images):7d}{''.join(shares)}{gap:>16}{mean:>11}  {one.worst_attack.item():24}"
        )
    lines += [
        "",
        f"{'':22}{'attack':40}{'follows':11}{'images':>7}{'left':>8}{'queries':>9}{'s/image':>9}  effort",
    ]
    for name in data.subject.values:
        found = Found(data, str(name))
        for place in range(found.rows.sizes["row"]):
            row = found.rows.isel(row=place)
            count = int(row.attacked)
            title = f"{row.evaluation.item()}: {row.attack.item()}"
            lines.append(
                f"{found.title if not place else '':22}{title:40}{row.meets.item():11}{count:7d}"
                f"{100 * float(row.left):7.1f} {float(np.nanmean(row.queries.values)):9.0f}{float(row.seconds):9.2g}"
                f"  {row.attack_effort.item()}"
            )
    lines += ["", "claimed evaluations:"]
    for name in data.subject.values:
        one = data.sel(subject=name)
        lines.append(f"{one.title.item():22}{one.source.item()}")
    return "\n".join(lines)
