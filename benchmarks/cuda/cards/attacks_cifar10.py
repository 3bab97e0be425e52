"""Every attack of the registry against an adversarially trained net on CIFAR-10: what each finds, and its seconds an image."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from benchmarks.cuda.card import Card, Work
from benchmarks.cuda.cards import at_cifar10
from benchmarks.cuda.cards._common import aim, trained
from deepcheck import checkpoint
from deepcheck.data import Images
from deepcheck.evaluation import split, standard_error
from odeflow.provenance import save
from studies.attacks.claims import STANDARD
from studies.attacks.figures import over_time
from studies.attacks.found import Net, described, summarised, table
from studies.attacks.plan import KINDS, Case, Setting, cases, setting_of
from studies.attacks.study import Subject, joined, of_net, tensors

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CARD"]

NET = "cifar10_at"
"""What the study calls it."""
TIMES = 5
"""Images here for one of the study's."""
MINUTES = 5.0
"""Of the training, where no net is there."""
ENOUGH = 0.99
"""Share of the images of which a suite is to leave none that another attack breaks."""
_ORDER = (*(kind for kind in KINDS.values() if kind != KINDS["black_box"]), "other", KINDS["black_box"])
_QUICK_IMAGES = 4


def run(work: Work) -> None:
    """Take the net of the card at_cifar10, or train one; then run each attack, those by queries last, as the time allows."""
    images = work.images("cifar10")
    network = net_of(work, images)
    if network is None:
        return work.save(state="in training")
    setting = setting_of(images.name, quick=work.quick)
    every = planned(setting, quick=work.quick)
    most = max(case.images for case in every)
    apart = min(setting.validation, len(images.test_images) - most)
    few = replace(images, train_images=images.train_images[: setting.train_images],
                  train_labels=images.train_labels[: setting.train_images])  # fmt: skip
    subject = Subject(
        setting, split(images, most, apart, work.device), tensors(few, work.device), work.folder, images.name
    )
    rows: list[xr.Dataset] = []
    known: xr.Dataset | None = None
    missing: list[str] = []
    longest = 0.0
    for case in every:
        if work.left() < longest:
            missing.append(case.name)
            continue
        start = work.elapsed()
        try:
            found, known, _ = of_net(NET, network, [case], subject)
        except torch.OutOfMemoryError as error:
            work.note(f"{case.name}: {str(error).splitlines()[0]}")
            missing.append(case.name)
            continue
        rows += found
        longest = max(longest, work.elapsed() - start)
    if known is None:
        return work.save(state="to be attacked", missing=missing)
    return report(work, described(summarised(joined(rows, [known], []))), missing)


def net_of(work: Work, images: Images) -> nn.Module | None:
    """Return the net of the card at_cifar10, where its weights are in the folder of results, or one that is trained here."""
    there = work.out / "at_cifar10_net"
    if there.is_dir() and checkpoint.shards_in(there) and checkpoint.read(there)[1].get("finished"):
        work.note("the net is that of the card at_cifar10")
        return checkpoint.load_model(there, device=work.device)
    seconds = min(60 * MINUTES, 0.5 * work.left())
    recipe = at_cifar10.plan(images, quick=work.quick)
    net = trained(work, "net", recipe, images, seconds=seconds, most=2 if work.quick else 40)
    return None if net is None else net.network


def planned(setting: Setting, *, quick: bool) -> list[Case]:
    """Return what is run, the dearest kinds last; in the quick form each attack in one norm."""
    every = cases(setting)
    if quick:
        every = list({case.attack: replace(case, images=_QUICK_IMAGES) for case in reversed(every)}.values())
    else:
        every = [replace(case, images=TIMES * case.images) for case in every]
    return sorted(every, key=lambda case: _ORDER.index(case.kind))


def report(work: Work, data: xr.Dataset, missing: list[str]) -> None:
    """Save what was found: a row for each attack, its seconds an image, and whether the aims hold."""
    data.attrs |= {"note": ""}
    save(data, work.out / f"{work.card.name}.nc")
    net = Net(data, NET)
    rows: list[dict[str, Any]] = []
    for place in range(data.sizes["row"]):
        row = data.isel(row=place)
        robust, count = row.robust_accuracy.item(), int(row.images)
        numbers = (
            "epsilon",
            "accepted_error",
            "mean_distance",
            "median_distance",
            "mean_queries",
            "seconds",
            "preparing_seconds",
        )
        rows.append(
            {name: row[name].item() for name in ("attack", "norm", "kind")}
            | {name: float(row[name]) for name in numbers}
            | {"images": count, "robust_accuracy": robust, "standard_error": standard_error(robust, count)}
        )
    every = net.attacks("linf")
    parts = [name for name in STANDARD if name in every]
    white = net.attacks("linf", [KINDS["gradient"], KINDS["minimal"]])
    black = net.attacks("linf", [KINDS["black_box"]])
    aims = []
    for what, chosen, others in (
        (f"{', '.join(parts)} together leave none that another attack breaks in L-infinity", parts, every),
        ("attacks that see gradients leave none that one by queries breaks in L-infinity", white, black),
    ):
        if chosen and others:
            missed, count = net.missed(chosen, others, "linf")
            aims.append(aim(what, 1 - missed, least=ENOUGH, error=standard_error(missed, count)))
    slowest = max(rows, key=lambda row: row["seconds"])
    work.picture(over_time(net))
    count = net.most_images(every, "linf")
    work.save(
        complete=not missing,
        state=f"{len(missing)} attacks are missing" if missing else "complete",
        missing=missing,
        headline={
            "clean": float(np.mean(net.correct(count))),
            "all attacks in L-infinity": net.robust(every, "linf", count),
            "seconds an image of the slowest": slowest["seconds"],
        },
        slowest=f"{slowest['attack']} {slowest['norm']}",
        attacks=rows,
        aims=aims,
        table=table(data),
    )


CARD = Card(
    name="attacks_cifar10",
    what="Every attack of the registry against AT of PreAct-ResNet-18 on CIFAR-10, in every norm, and the seconds an image of each",
    run=run,
    least=4,
    most=15,
    data=("cifar10",),
)
