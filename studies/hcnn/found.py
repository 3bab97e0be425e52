"""What was found, as one Dataset: shares with their bounds, counts, errors, and the theory beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from deepcheck.evaluation.rejection import rejection
from deepcheck.evaluation.separation import loss_bounds, separation
from deepcheck.evaluation.thresholds import standard_error
from studies.common import tables
from studies.common.tables import noted
from studies.hcnn import linear
from studies.hcnn.measure import ATTACKS, PLACES, STATIC
from studies.hcnn.plan import LEVELS, NETS, Setting

__all__ = ["described", "errors_of", "of_images", "of_mixture", "of_small", "table"]

Parts = Mapping[tuple[str, ...], xr.Dataset]
CURVE = np.unique([*np.linspace(0.5, 0.995, 34), 0.999, *LEVELS])
"""Levels of the curves."""
OUTCOMES = ("label change", "confidence reduction")


def of_images(parts: Parts, setting: Setting) -> xr.Dataset:
    """Return what was found of the nets on images: of those nets and rows of which the parts are there."""
    nets = [net for net in NETS if {("separated", net), ("few", net)} <= set(parts)]
    data = xr.concat([_of_net(parts, net, setting) for net in nets], _along("net", nets))
    data = data.merge(_ranks(parts, setting)).merge(_behind(parts, setting))
    if ("shown", "at") in parts:
        pictures = parts["shown", "at"]
        data = data.merge(pictures.assign(shown_net=("shown", ["at"] * pictures.sizes["shown"])))
    return data


def _along(name: str, values: Any) -> xr.DataArray:
    return xr.DataArray(list(values), dims=name, name=name)


def _of_net(parts: Parts, net: str, setting: Setting) -> xr.Dataset:
    """Return tables 1 to 3 of one net, and its confidence over the radius."""
    found, few = (parts[kind, net] for kind in ("separated", "few"))
    of_level = rejection(found, level=CURVE.tolist(), eta=list(setting.etas)).rename(level="level_curve")
    share = separation(found, level=CURVE.tolist()).rename(level="level_curve", delta="radius")
    bound = loss_bounds(found, level=CURVE.tolist()).rename(level="level_curve", delta="radius")
    bound = bound.sel(loss="cross_entropy", worst_of="loss attack", drop=True)
    table = separation(few, level=list(LEVELS)).isel(delta=0, drop=True)
    largest = found.wrong_confidence.max("target").rename(delta="radius")
    carlini = parts.get(("carlini", net), few.isel(example=slice(0)))
    n = carlini.sizes["example"]
    alone = [(one.wrong_confidence.max("target").isel(delta=0).values[:n] >= LEVELS[0]) for one in (carlini, few)]
    return xr.Dataset(
        {
            **{name: of_level[name] for name in of_level.data_vars},
            "share": share.share,
            "share_lower": share.lower,
            "share_upper": share.upper,
            "bound": bound.separation_bound,
            "largest": (largest.dims, largest.values.astype(np.float32)),
            "right": ("example", (found.clean_prediction == found.label).values),
            **{f"few_{name}": table[name] for name in ("share", "bad", "lower", "upper", "chebyshev_lower", "chebyshev_upper")},
            "few_points": few.sizes["example"],
            "carlini_share": float(alone[0].mean()) if n else np.nan,
            "carlini_pgd_share": float(alone[1].mean()) if n else np.nan,
            "carlini_points": n,
        }
    ).drop_vars(["loss", "worst_of"], errors="ignore")  # fmt: skip


def _ranks(parts: Parts, setting: Setting) -> xr.Dataset:
    """Return table 4: how many attacks change the class or reduce the confidence, and the place of the true class."""
    nets = list(NETS)
    shape = len(nets), len(setting.ranked), len(OUTCOMES)
    places, attacks = np.zeros((*shape, len(PLACES)), int), np.zeros(shape, int)
    for i, net in enumerate(nets):
        for j, radius in enumerate(setting.ranked):
            if (f"ranks_{radius:g}", net) not in parts:
                continue
            one = parts[f"ranks_{radius:g}", net]
            attacks[i, j] = int(one.changes), int(one.reductions)
            for k, changed in enumerate((1, 0)):
                places[i, j, k] = np.bincount(one.place.values[one.changed.values == changed], minlength=len(PLACES))
    dims = "ranked_net", "ranked", "outcome"
    return xr.Dataset(
        {"places": ((*dims, "place"), places), "attacks": (dims, attacks)},
        {"ranked_net": nets, "ranked": list(setting.ranked), "outcome": list(OUTCOMES), "place": list(PLACES)},
    )


def _behind(parts: Parts, setting: Setting) -> xr.Dataset:
    """Return the errors of nets behind embeddings under each attack, and whether each image is wrong."""
    rows = {row: parts[row.key] for row in setting.rows if row.key in parts}
    most = max((row.images for row in rows), default=0)
    wrong = np.full((len(rows), len(ATTACKS), most), -1, np.int8)
    confidence = np.full(wrong.shape, np.nan, np.float32)
    clean_wrong, clean_confidence = np.full((len(rows), most), -1, np.int8), np.full((len(rows), most), np.nan)
    for i, (row, one) in enumerate(rows.items()):
        n = row.images
        wrong[i, :, :n], confidence[i, :, :n] = one.wrong, one.confidence
        clean_wrong[i, :n], clean_confidence[i, :n] = one.clean_wrong, one.clean_confidence
    images = np.array([row.images for row in rows], int)
    error = np.where(wrong >= 0, wrong, 0).sum(-1) / images[:, None]
    error[(wrong < 0).all(-1)] = np.nan
    clean = np.where(clean_wrong >= 0, clean_wrong, 0).sum(-1) / images
    dims = "row", "attack"
    return xr.Dataset(
        {
            "composed_error": (dims, error),
            "composed_error_se": (dims, _errors(error, images[:, None])),
            "composed_clean_error": ("row", clean),
            "composed_wrong": ((*dims, "image_number"), wrong),
            "composed_confidence": ((*dims, "image_number"), confidence),
            "composed_clean_wrong": (("row", "image_number"), clean_wrong),
            "composed_clean_confidence": (("row", "image_number"), clean_confidence.astype(np.float32)),
        },
        {
            "row_title": ("row", [row.title for row in rows]),
            **{f"row_{name}": ("row", [getattr(row, name) for row in rows]) for name in ("net", "embedding", "xi", "eta", "images")},
            "attack": list(ATTACKS),
        },
    )  # fmt: skip


def _errors(share: Any, n: Any) -> Any:
    return np.vectorize(lambda p, m: np.nan if np.isnan(p) else standard_error(float(p), float(m)))(share, n)


def errors_of(row: xr.Dataset, attacks: tuple[str, ...], *, level: float = 0.0) -> Any:
    """Return which images of a row an attack out of some gets wrong and accepted, or that are so as they are, shape (n,)."""
    n = int(row.row_images)
    some = row.sel(attack=list(attacks))
    wrong, p = some.composed_wrong.values[:, :n], some.composed_confidence.values[:, :n]
    clean = (row.composed_clean_wrong.values[:n] == 1) & (row.composed_clean_confidence.values[:n] >= level)
    return ((wrong == 1) & (p >= level)).any(0) | clean


def _recall(row: xr.Dataset) -> float:
    """Return the share of the images of a row that are accepted as they are, of those that are right."""
    n = int(row.row_images)
    right = row.composed_clean_wrong.values[:n] == 0
    accepted = row.composed_clean_confidence.values[:n][right] >= LEVELS[0]
    return float(accepted.mean()) if len(accepted) else np.nan


# --- small nets, and those of the mixture ---


def of_small(parts: Parts) -> xr.Dataset:
    """Return shares and bounds of the small nets."""
    some = [one for key, one in parts.items() if key[0] == "small"]
    return xr.concat(some, "small").rename(delta="small_radius", level="small_level")


def of_mixture(parts: Parts, setting: Setting) -> xr.Dataset:
    """Return what nets on the mixture have, and the theory of it."""
    nets = parts["linear",].rename(
        eta="linear_eta", level="linear_level", awpr="linear_net_awpr", recall="linear_net_recall"
    )
    size = linear.QUICK if setting.quick else linear.FULL
    levels = np.unique([*np.linspace(0.5, 0.995, 100), *linear.LEVELS])
    theory = linear.theory(size, levels).rename(eta="linear_eta", level="linear_curve")
    theory = theory.rename(awpr="linear_awpr", recall_of_correct="linear_recall")[["linear_awpr", "linear_recall"]]
    return nets.merge(theory).merge(parts["two_layers",])


# --- names, and the table ---

_NAMES = {
    "net": "net", "eta": "radius of the attack", "radius": "radius of the attack", "level": "level of confidence",
    "level_curve": "level of confidence", "example": "test image",
    "awpr": "share of the correct points for which an accepted wrong answer was found",
    "awpr_without_rejection": "share of the correct points for which a wrong answer was found",
    "recall": "share of the correct points that are accepted", "recall_of_all": "share of the natural points that are accepted",
    "share": "share of the points with a confidence of the level in a wrong class", "share_lower": "its exact lower bound",
    "share_upper": "its exact upper bound", "bound": "bound on the share by the mean of the worst cross-entropy",
    "largest": "largest confidence in a wrong class", "right": "whether the test image is classified correctly without an attack",
    "few_share": "share of the points with a confidence of the level in a wrong class, within delta, longer attack",
    "few_bad": "number of these points", "few_points": "number of points that they are of", "few_lower": "exact lower bound on the share",
    "few_upper": "exact upper bound on the share", "few_chebyshev_lower": "Chebyshev's lower bound on the share",
    "few_chebyshev_upper": "Chebyshev's upper bound on the share",
    "carlini_share": "the same share by the attack of Carlini and Wagner alone", "carlini_points": "number of points that it is of",
    "carlini_pgd_share": "the same share on these points by ascent alone",
    "ranked_net": "net", "ranked": "radius of attack and embedding", "outcome": "what the attack did", "place": "place of the true class",
    "places": "number of embedded images with the true class at this place", "attacks": "number of attacks with this outcome",
    "row": "net behind an embedding", "row_title": "what figures call it", "row_net": "net", "row_embedding": "embedding",
    "row_xi": "radius of the embedding, 0 for none", "row_eta": "radius of the attack", "row_images": "number of images",
    "attack": "attack", "image_number": "test image", "composed_error": "error under the attack", "composed_error_se": "its standard error",
    "composed_clean_error": "error without an attack", "composed_wrong": "whether the attacked image is wrong, -1 where there is none",
    "composed_confidence": "confidence at the attacked image", "composed_clean_wrong": "whether the image is wrong, -1 where there is none",
    "composed_clean_confidence": "confidence at the image",
    "shown": "attacked image that is shown", "shown_net": "net", "image": "pixels of the test image", "label": "its class",
    "image_prediction": "predicted class of the test image", "image_confidence": "confidence in it", "attacked": "pixels of the attacked image",
    "attacked_prediction": "predicted class of the attacked image", "attacked_confidence": "confidence in it",
    "point": "pixels of the most confident point of a class", "point_class": "class", "point_prediction": "predicted class of that point",
    "point_confidence": "confidence in the class there",
    "small": "small net: method and seed", "small_level": "level of confidence", "small_radius": "radius of the attack", "loss": "loss",
    "small_share": "share of the points with a confidence of the level in a wrong class", "small_error": "share of the points with a wrong answer",
    "small_bound": "bound on the share by the mean of the worst loss", "small_error_bound": "bound on the error by it",
    "small_clean_bound": "bound on the share by the mean of the loss without an attack",
    "linear_eta": "radius of the attack, L2", "linear_level": "level of confidence", "linear_curve": "level of confidence", "xi": "radius of the embedding, L2",
    "run": "net that learned from the mixture", "linear_net_awpr": "share of the correct points with an accepted wrong answer, nets",
    "linear_net_recall": "share of the correct points that are accepted, nets", "linear_awpr": "share of the correct points with an accepted wrong answer, theory",
    "case": "two-layer nets", "unit_point": "number of the radius", "unit_run": "net that learned from the mixture",
    "unit_xi": "radius of the embedding, L2", "unit_curve": "radius of the embedding, L2", "unit_eta": "radius of the attack, L2", "unit_N": "dimension of the input",
    "unit_runs": "error behind MCN under the attack, nets",
    "unit_clean_runs": "error behind MCN without an attack, nets", "unit_theory": "error behind MCN under the attack, theory",
    "unit_clean_theory": "error behind MCN without an attack, theory", "unit_line": "error behind MCN under the attack, theory",
    "unit_clean_line": "error behind MCN without an attack, theory", "linear_N": "dimension of the input",
    "linear_recall": "share of the correct points that are accepted, theory",
}  # fmt: skip


def described(data: xr.Dataset) -> xr.Dataset:
    """Return the data with the names and units of the variables."""
    names = dict(_NAMES)
    for name in ("awpr", "awpr_without_rejection", "recall", "recall_of_all"):
        names |= {f"{name}_{side}": f"exact {side} bound on it" for side in ("lower", "upper")}
    tables.describe(data, {name: text for name, text in names.items() if name in data.variables})
    return data


def table(data: xr.Dataset) -> str:
    """Return the numbers as lines of text."""
    n, named = int(data.few_points.isel(net=0)), {str(net): NETS[str(net)] for net in data.net.values}
    lines = [
        *noted(data),
        f"table 1: points of {n} with a confidence of {LEVELS[0]:g} in a wrong class within {float(data.radius[-1]):.3g}",
    ]
    for net, title in named.items():
        one = data.sel(net=net, level=LEVELS[0])
        low, high = (f"{float(one[f'few_{name}']):.3f}" for name in ("lower", "upper"))
        wide = f"{float(one.few_chebyshev_lower):.3f} to {float(one.few_chebyshev_upper):.3f}"
        few = f"; of {int(one.carlini_points)} Carlini and Wagner {float(one.carlini_share):.2f}, ascent {float(one.carlini_pgd_share):.2f}"
        lines.append(f"{title:12}{int(one.few_bad):5d}   exact {low} to {high}, Chebyshev {wide}{few}")
    lines += ["", f"tables 2 and 3: {data.sizes['example']} test images; exact bounds at confidence 0.9",
              f"{'net':10}{'eta':>6}{'p':>7}{'AWPR':>9}{'with rejection':>24}{'recall':>9}{'of all':>8}"]  # fmt: skip
    for net, title in named.items():
        for eta in data.eta.values:
            for level in LEVELS:
                one = data.sel(net=net, eta=eta, level_curve=level)
                lines.append(
                    f"{title:10}{eta:6.3g}{level:7g}{float(one.awpr_without_rejection):9.3f}{float(one.awpr):10.3f} "
                    f"({float(one.awpr_lower):.3f}, {float(one.awpr_upper):.3f}){float(one.recall):9.3f}{float(one.recall_of_all):8.3f}"
                )
    lines += ["", "table 4: place of the true class among the embedded points; attacks of the radius of the embedding",
              f"{'net':10}{'radius':>7}  {'outcome':22}{'attacks':>8}{'looked at':>11}" + "".join(f"{name:>9}" for name in PLACES)]  # fmt: skip
    for net, title in NETS.items():
        for radius in data.ranked.values:
            for outcome in OUTCOMES:
                one = data.sel(ranked_net=net, ranked=radius, outcome=outcome)
                counts = one.places.values
                lines.append(
                    f"{title:10}{radius:7.3g}  {outcome:22}{int(one.attacks):8d}{counts.sum():11d}"
                    + "".join(f"{count:9d}" for count in counts)
                )
    head = (
        "behind an embedding: radius of the embedding, then of the attack; error under each attack, and under all of a kind; share with an "
        f"accepted wrong answer, and of the right natural images those accepted, at {LEVELS[0]:g}"
    )
    columns = "".join(f"{name:>24}" for name in ATTACKS)
    lines += [
        "",
        head,
        f"{'':34}{'images':>7}{'clean':>8}{columns}{'static':>9}{'all':>8}{'accepted':>10}{'recall':>8}",
    ]
    for place in range(data.sizes["row"]):
        row = data.isel(row=place)
        static, every = (float(errors_of(row, some).mean()) for some in (STATIC, ATTACKS))
        lines.append(
            f"{row.row_title.item():34}{int(row.row_images):7d}{float(row.composed_clean_error):8.3f}"
            + "".join(f"{float(row.composed_error.sel(attack=name)):24.3f}" for name in ATTACKS)
            + f"{static:9.3f}{every:8.3f}{float(errors_of(row, ATTACKS, level=LEVELS[0]).mean()):10.3f}{_recall(row):8.3f}"
        )
    return "\n".join(lines)
