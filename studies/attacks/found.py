"""What was found of each attack, and of several together: robust accuracies, distances, queries and times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.parameters import label
from studies.attacks.plan import SIZES
from studies.common import tables
from studies.common.tables import noted

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LABELS", "NORM_TITLES", "Net", "described", "main_rows", "summarised", "table"]

Array = npt.NDArray[np.float64]
LABELS = {
    "standard": "standard",
    "masked": "standard, logits times a million",
    "at": "AT",
    "ccat": "CCAT",
    "cifar10_at": "CIFAR-10, AT",
}
"""Net to what texts and figures call it."""
NORM_TITLES = {"linf": r"$L_\infty$", "l2": r"$L_2$", "l1": r"$L_1$", "l0": r"$L_0$"}


class Net:
    """What the attacks found on one net.

    Parameters
    ----------
    data
        Of the study.
    name
        Of the net.
    """

    def __init__(self, data: xr.Dataset, name: str) -> None:
        self.name = name
        self.about = data.sel(net=name)
        self._rows: dict[tuple[str, str, float], xr.Dataset] = {}
        self.rows = data.isel(row=np.flatnonzero(data.against.values == name))

    def epsilon(self, norm: str) -> float:
        """Return the main size in a norm: that of most rows."""
        sizes, counts = np.unique(self.rows.epsilon.values[self.rows.norm.values == norm], return_counts=True)
        return float(sizes[counts.argmax()])

    def attacks(self, norm: str, kinds: Iterable[str] = ()) -> list[str]:
        """Return the names of the attacks that were run in a norm, of some kinds or of all."""
        chosen = self.rows.norm.values == norm
        if kinds:
            chosen &= np.isin(self.rows.kind.values, list(kinds))
        return list(dict.fromkeys(self.rows.attack.values[chosen].tolist()))

    def row(self, attack: str, norm: str, epsilon: float | None = None) -> xr.Dataset:
        """Return what one attack found at an epsilon; default: the main one."""
        epsilon = self.epsilon(norm) if epsilon is None else epsilon
        if (attack, norm, epsilon) not in self._rows:
            rows = self.rows
            same = (
                (rows.attack.values == attack) & (rows.norm.values == norm) & np.isclose(rows.epsilon.values, epsilon)
            )
            (place,) = np.flatnonzero(same)
            self._rows[attack, norm, epsilon] = rows.isel(row=place)
        return self._rows[attack, norm, epsilon]

    def images(self, attacks: Sequence[str], norm: str) -> int:
        """Return how many images all of these attacks were run on."""
        return min(int(self.row(attack, norm).images) for attack in attacks)

    def most_images(self, attacks: Sequence[str], norm: str) -> int:
        """Return how many images one of these attacks was run on, at most."""
        return max(int(self.row(attack, norm).images) for attack in attacks)

    def broken(self, attacks: Sequence[str], norm: str, count: int, epsilon: float | None = None) -> npt.NDArray[Any]:
        """Return which of the first images some attacks break, each of those that it was run on.

        Images that are misclassified as they are count as broken.
        """
        found = ~self.correct(count)
        for attack in attacks:
            found |= self.row(attack, norm, epsilon).broken.values[:count] == 1
        return found

    def missed(self, chosen: Sequence[str], others: Sequence[str], norm: str) -> tuple[float, int]:
        """Return which share of the images that the chosen attacks were run on are broken by others alone, and of how many."""
        count = self.most_images(chosen, norm)
        alone = self.broken(others, norm, count) & ~self.broken(chosen, norm, count)
        return float(alone.mean()), count

    def robust(self, attacks: Sequence[str], norm: str, count: int, epsilon: float | None = None) -> float:
        """Return the robust accuracy under the worst case of some attacks, on the first images."""
        return float(1 - self.broken(attacks, norm, count, epsilon).mean())

    def correct(self, count: int) -> npt.NDArray[np.bool_]:
        """Return which of the first images are classified correctly as they are."""
        return np.asarray(self.about.correct.values[:count] == 1)

    def distance(self, attacks: Sequence[str], norm: str, count: int) -> Array:
        """Return the least distance that some attacks found, of the first images that are classified correctly."""
        found = np.min([self.row(attack, norm).distance.values[:count] for attack in attacks], axis=0)
        return np.asarray(found[self.correct(count)])

    def accepted_error(self, attacks: Sequence[str], norm: str, count: int) -> float:
        """Return the share of the first images that an attack turns with a confidence that is accepted."""
        found = np.zeros(count, bool)
        for attack in attacks:
            row = self.row(attack, norm)
            found |= (row.broken.values[:count] == 1) & (row.confidence.values[:count] >= self.about.tau.item())
        return float(found.mean())


# --- the numbers of each row ---


def summarised(data: xr.Dataset) -> xr.Dataset:
    """Return the data with shares, distances and queries of each row."""
    numbers: dict[str, list[float]] = {
        name: []
        for name in ("robust_accuracy", "success", "accepted_error", "mean_distance", "median_distance", "mean_queries")
    }
    for place in range(data.sizes["row"]):
        one = data.isel(row=place)
        count, net = int(one.images), one.sel(net=one.against.item())
        correct = net.correct.values[:count] == 1
        broken = one.broken.values[:count] == 1
        distance = one.distance.values[:count][correct]
        found = distance[np.isfinite(distance)]
        numbers["robust_accuracy"].append(float((correct & ~broken).mean()))
        numbers["success"].append(float(broken[correct].mean()) if correct.any() else np.nan)
        sure = one.confidence.values[:count] >= net.tau.item()
        numbers["accepted_error"].append(float((broken & sure).mean()))
        numbers["mean_distance"].append(float(found.mean()) if found.size else np.nan)
        numbers["median_distance"].append(float(np.median(distance)) if distance.size else np.nan)
        numbers["mean_queries"].append(float(one.queries.values[:count].mean()))
    return data.assign({name: ("row", values) for name, values in numbers.items()})


def main_rows(net: Net, norm: str) -> list[xr.Dataset]:
    """Return the rows of a norm at its main size, the quickest attack first."""
    rows = [net.row(attack, norm) for attack in net.attacks(norm)]
    return sorted(rows, key=lambda row: float(row.seconds))


def described(data: xr.Dataset) -> xr.Dataset:
    """Return the data with the names and units of the variables."""
    label(data)
    names = {
        "against": "net that is attacked",
        "attack": "attack",
        "norm": "norm, or what else measures the perturbation",
        "kind": "kind of attack",
        "epsilon": "size of the perturbation",
        "images": "number of images, the first ones",
        "example": "test image",
        "net": "net",
        "dataset": "data set of the net",
        "broken": "whether the image is misclassified within epsilon, 0 or 1",
        "distance": "size of the perturbation that was found, infinite where none misleads the net",
        "confidence": "confidence in the predicted class of the attacked image",
        "queries": "evaluations of the model",
        "robust_accuracy": "share of the images that are classified correctly after the attack",
        "success": "share of the correctly classified images that the attack breaks",
        "accepted_error": "share of the images that are broken and accepted, with a confidence of tau or more",
        "mean_distance": "mean size of the perturbations that mislead the net, of correctly classified images",
        "median_distance": "median size of the least perturbations found, of correctly classified images",
        "mean_queries": "mean number of evaluations of the model",
        "tau": "threshold of confidence that 99 % of the correctly classified clean images reach",
        "accuracy": "share of the test images kept apart that are classified correctly",
        "correct": "whether the test image is classified correctly without an attack, 0 or 1",
        "clean_confidence": "confidence in the test image",
        "shown": "test image that is shown",
    }
    pictures = {
        "case": "attack and norm", "image": "pixels of the attacked image", "clean_image": "pixels of the test image",
        "image_prediction": "predicted class of the attacked image", "image_confidence": "confidence in that class",
        "clean_prediction": "predicted class of the test image", "clean_confidence": "confidence in that class",
    }  # fmt: skip
    for dataset in np.unique(data.dataset.values):
        names |= {f"{dataset}_{name}": text for name, text in pictures.items()}
    tables.describe(data, {name: text for name, text in names.items() if name in data.variables})
    for name, text in {
        "seconds": "time of the attack, an image",
        "preparing_seconds": "time of its preparation, where there is one",
    }.items():
        data[name].attrs = {"long_name": text, "units": "s"}
    return data


# --- the table ---

_HEAD = (
    f"{'norm':9}{'epsilon':>8} {'attack':17}{'kind':12}{'images':>7}{'found':>8}{'robust':>8}{'accepted':>9}"
    f"{'mean norm':>10}{'median':>8}{'queries':>9}{'s/image':>9}"
)


def table(data: xr.Dataset) -> str:
    """Return what each attack found on each net in each norm."""
    lines = noted(data)
    lines.append(
        "found: of the correctly classified images those broken within epsilon; robust: accuracy under the attack; "
        "accepted: broken with a confidence of tau or more"
    )
    for name in data.net.values:
        net = Net(data, str(name))
        about = net.about
        lines += [
            "",
            f"{LABELS[net.name]} ({about.dataset.item()}): accuracy {about.accuracy.item():.3f}, tau {about.tau.item():.3f}",
            _HEAD,
        ]
        for norm in dict.fromkeys(net.rows.norm.values.tolist()):
            rows = net.rows.isel(row=np.flatnonzero(net.rows.norm.values == norm))
            for place in np.argsort(-rows.epsilon.values, kind="stable"):
                row = rows.isel(row=place)
                lines.append(
                    f"{norm:9}{row.epsilon.item():8.3g} {row.attack.item():17}{row.kind.item():12}{int(row.images):7d}"
                    f"{100 * row.success.item():6.0f} %{100 * row.robust_accuracy.item():6.0f} %"
                    f"{100 * row.accepted_error.item():7.0f} %{_number(row.mean_distance.item(), 10)}"
                    f"{_number(row.median_distance.item(), 8)}{_number(row.mean_queries.item(), 9, 0)}"
                    f"{row.seconds.item():9.2g}"
                )
            attacks = net.attacks(norm)
            if norm not in SIZES and attacks:
                count = net.most_images(attacks, norm)
                lines.append(
                    f"{norm:9}{net.epsilon(norm):8.3g} {'all of these':17}{'':12}{count:7d}{'':8}"
                    f"{100 * net.robust(attacks, norm, count):6.0f} %"
                    f"{100 * net.accepted_error(attacks, norm, count):7.0f} %"
                )
    return "\n".join(lines)


def _number(value: float, width: int, digits: int = 3) -> str:
    if not np.isfinite(value):
        return f"{'-':>{width}}"
    return f"{value:{width}.{digits}g}" if digits else f"{value:{width}.0f}"
