"""The study hcnn on CIFAR-10 with the published radii: separation, rejection and embedded points, beside tables 1 to 4 of Wu et al."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards._common import aim, trained
from benchmarks.cuda.cards.attacks_cifar10 import net_of
from deepcheck.evaluation import standard_error
from odeflow.provenance import save
from studies.common.images import placed
from studies.common.parallel import one_thread
from studies.hcnn.claims import AT_MOST, NOTHING, SECOND
from studies.hcnn.figures import rejection
from studies.hcnn.found import described, of_images, table
from studies.hcnn.plan import LEVELS, NETS, setting_of
from studies.hcnn.study import Task, tasks_of

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CARD", "PUBLISHED"]

MINUTES = 2.0
"""Of the training of the natural net; that of AT is the one of the card at_cifar10, or has its time."""
PUBLISHED = {
    "at": {
        0.010: (0.110, (0.022, 0.011, 0.000), (0.867, 0.825, 0.726)), 0.015: (0.140, (0.054, 0.029, 0.003), (0.896, 0.856, 0.759)),
        0.020: (0.217, (0.147, 0.090, 0.038), (0.900, 0.857, 0.754)), 0.030: (0.347, (0.297, 0.268, 0.160), (0.900, 0.860, 0.765)),
    },
    "natural": {0.010: (0.993, (0.991, 0.991, 0.989), (0.972, 0.962, 0.926))},
}  # fmt: skip
"""Tables 2 and 3, by net and eta: AWPR, with rejection at 0.9, 0.95 and 0.99, and the recall there."""
FIRST = ("separated", "few", "ranks")
"""Parts that are made first; behind an embedding, and the attack of Carlini and Wagner, come last."""


def run(work: Work) -> None:
    """Take the net of the card at_cifar10, or train one, train a natural one, and make one part after the other, as the time allows."""
    images = work.images("cifar10")
    setting = setting_of(images.name, quick=work.quick)
    at = net_of(work, images)
    nets: dict[str, nn.Module] = {} if at is None else {"at": at.eval()}
    if at is not None:
        count = setting.train_images
        few = replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
        seconds = min(60 * MINUTES, 0.3 * work.left())
        most = 2 if work.quick else setting.natural_epochs
        natural = trained(work, "natural", setting.recipe_of("natural"), few, seconds=seconds, most=most)
        if natural is not None:
            nets["natural"] = natural.network.eval()
    parts: dict[tuple[str, ...], xr.Dataset] = {}
    missing, longest = [], 0.0
    with placed(work.device), one_thread():
        for key, function, arguments in sorted(tasks_of(setting, work.folder, nets.__getitem__), key=_order):
            name = " ".join(key)
            if not any(net in key for net in nets) or work.left() < longest:
                missing.append(name)
                continue
            start = work.elapsed()
            try:
                parts[key] = function(*arguments)
            except torch.OutOfMemoryError as error:
                work.note(f"{name}: {str(error).splitlines()[0]}")
                missing.append(name)
            longest = max(longest, work.elapsed() - start)
    if not {("separated", "at"), ("few", "at")} <= set(parts):
        return work.save(state="to be attacked" if nets else "in training", missing=missing)
    data = of_images(parts, setting).assign_attrs(note="", data_set=images.name, setting=repr(asdict(setting)))
    return report(work, described(data), missing)


def _order(task: Task) -> tuple[int, int]:
    """Return the place of a task: tables first, those of the AT net before the others."""
    kind = task[0][0].partition("_")[0]
    return FIRST.index(kind) if kind in FIRST else len(FIRST), "at" not in task[0]


def report(work: Work, data: xr.Dataset, missing: list[str]) -> None:
    """Save what was found, each number beside the published one, and whether the aims hold."""
    save(data, work.out / f"{work.card.name}.nc")
    rows = [row for net in data.net.values for row in rejection_rows(data.sel(net=net), str(net))]
    if data.sizes["net"] == len(NETS):
        work.picture(rejection(data))
    at = data.sel(net="at")
    work.save(
        complete=not missing,
        state=f"{len(missing)} parts are missing" if missing else "complete",
        missing=missing,
        headline={
            "AWPR of the AT net": float(at.awpr_without_rejection[0]),
            "with rejection at 0.9": float(at.awpr.sel(level_curve=LEVELS[0])[0]),
        },
        separation=[
            {"net": str(net), "points": int(one.few_points), "bad": int(one.few_bad[0]), "upper": float(one.few_upper[0]), "lower": float(one.few_lower[0])}
            for net in data.net.values
            for one in [data.sel(net=net)]
        ],
        rejection=rows,
        places=data[["places", "attacks"]].to_dict(data="list"),
        aims=aims(data),
        table=table(data),
    )  # fmt: skip


def rejection_rows(one: xr.Dataset, net: str) -> list[dict[str, Any]]:
    """Return tables 2 or 3 of a net: for each eta and level what was found, its exact bounds, and what was published."""
    rows = []
    for eta in one.eta.values.tolist():
        published = PUBLISHED[net].get(eta)
        for i, level in enumerate(LEVELS):
            row = one.sel(eta=eta, level_curve=level)
            numbers = (
                "awpr_without_rejection",
                "awpr",
                "awpr_lower",
                "awpr_upper",
                "recall",
                "recall_lower",
                "recall_upper",
            )
            rows.append({"net": net, "eta": eta, "level": level} | {name: float(row[name]) for name in numbers})
            if published is not None:
                rows[-1] |= {
                    "published_awpr_without_rejection": published[0],
                    "published_awpr": published[1][i],
                    "published_recall": published[2][i],
                }
    return rows  # fmt: skip


def aims(data: xr.Dataset) -> list[dict[str, Any]]:
    """Return what was set before the run, and whether it holds."""
    at = data.sel(net="at")
    few = at.sel(level=LEVELS[0])
    count = int(few.few_points)
    found = [
        aim(
            "AT net: share of points without a confident wrong answer within 8/255, by the exact bound", 1 - float(few.few_upper),
            least=1 - AT_MOST, error=standard_error(float(few.few_share), count),
        )
    ]  # fmt: skip
    for net, what, least in (
        ("at", "rejected at 0.9, of the AT net's AWPR at 0.010", 0.5),
        ("natural", "left at 0.9, of the natural net's", NOTHING),
    ):
        if net not in data.net.values:
            continue
        one = data.sel(net=net, level_curve=LEVELS[0]).isel(eta=0)
        before, after = float(one.awpr_without_rejection), float(one.awpr)
        left = after / before if before else np.nan
        n = float(one.right.sum()) * before
        share = 1 - left if net == "at" else left
        found.append(aim(what, share, least=least, error=standard_error(min(share, 1.0), n) if before else np.nan))
    changed = data.places.sel(ranked_net="at", outcome="label change").sum("ranked").values
    if changed.sum():
        share = float(changed[:2].sum() / changed.sum())
        found.append(
            aim(
                "the true class at the first or second point after a label change",
                share,
                least=SECOND,
                error=standard_error(share, float(changed.sum())),
            )
        )
    return found


CARD = Card(
    name="hcnn_cifar10",
    what="Separation, rejection by confidence and embedded points on CIFAR-10, beside tables 1 to 4 of Wu et al. (ICML 2018)",
    run=run,
    least=5,
    most=40,
    data=("cifar10",),
)
