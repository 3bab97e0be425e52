"""The study attacks: nets are trained, each meets every attack, and all numbers are computed from what these found."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.attacks import registry
from deepcheck.data import DataError, Images, load
from deepcheck.device import describe
from deepcheck.evaluation import confidence_threshold, split
from deepcheck.evaluation.run import stream
from deepcheck.plot_attacks import pictures_of
from odeflow.provenance import provenance
from studies.attacks.claims import claims
from studies.attacks.figures import figures
from studies.attacks.found import described, summarised, table
from studies.attacks.measure import SEED, SHOWN, Scaled, measured
from studies.attacks.plan import AGAINST_MASKED, MASKED, Case, Setting, cases, setting_of
from studies.common.images import load_or_digits, place
from studies.common.kept import digest_of, kept, study_folder
from studies.common.nets import fingerprint, kept_training
from studies.common.parallel import one_thread
from studies.common.sources import digest
from studies.registry import Outcome

__all__ = ["Subject", "joined", "measured_nets", "of_net", "outcome_of", "run", "tensors"]

_LOG = logging.getLogger(__name__)
Tensors = tuple[Tensor, Tensor]
EXAMPLES = ("broken", "distance", "confidence", "queries")
"""What is known of each image."""


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets, and what each attack found, are kept in the folder, and not made again."""
    sets, note = _sets(quick=quick)
    folder = study_folder(folder, instead="" if quick or sets[0].name == "mnist" else sets[0].name)
    settings = {images.name: setting_of(images.name, quick=quick) for images in sets}
    with one_thread():
        data = measured_nets(sets, settings, folder)
    return outcome_of(data, name, sets, settings, note, quick=quick)


def _sets(*, quick: bool) -> tuple[list[Images], str]:
    """Return the data sets, and a note on what stands in for them or is left out."""
    if quick:
        return [load("digits")], "Not MNIST, but scikit-learn's digits of 8 x 8 pixels: this is the quick form"
    first, note = load_or_digits()
    try:
        return [first, load("cifar10")], note
    except DataError as error:
        return [first], "; ".join([*([note] if note else []), f"CIFAR-10 is left out, because {error}"])


def outcome_of(
    data: xr.Dataset, name: str, sets: list[Images], settings: dict[str, Setting], note: str, *, quick: bool
) -> Outcome:
    """Return what the study says of nets that were measured."""
    data = described(summarised(data))
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), device=describe(place()), data=repr(sets), quick=quick,
        settings={key: asdict(one) for key, one in settings.items()},
        efforts={key: {case.name: asdict(case) for case in cases(one)} for key, one in settings.items()},
    ) | {"data_set": sets[0].name, "note": note}  # fmt: skip
    names = {images.name: images.class_names for images in sets}
    return Outcome(data, figures(data, names), table(data), tuple(claims(data, quick=quick)))


# --- training and attacking ---


def measured_nets(sets: list[Images], settings: dict[str, Setting], folder: Path) -> xr.Dataset:
    """Train all nets and attack each in all ways: what was found, along the dims net and row.

    A row is an attack in a norm at an epsilon against a net. Pictures of a data set are of its first net.
    """
    rows, nets, pictures = [], [], []
    device = place()
    for images in sets:
        setting = settings[images.name]
        count = setting.train_images
        few = replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
        every = cases(setting)
        most = min(max(case.images for case in every), len(images.test_images) - setting.validation)
        subject = Subject(
            setting, split(images, most, setting.validation, device), tensors(few, device), folder, images.name
        )
        for net, recipe in setting.recipes.items():
            network = kept_training(recipe, few, folder, net, device=str(device), progress=True).network
            meets: list[tuple[str, nn.Module, list[Case]]] = [(net, network, every)]
            if net == "standard":
                some = [case for case in every if (case.attack, case.norm) in AGAINST_MASKED]
                meets.append(("masked", Scaled(network, MASKED), some))
            for name, model, cases_of_net in meets:
                found, about, pictured = of_net(name, model, cases_of_net, subject)
                rows += found
                nets.append(about)
                if name == next(iter(setting.recipes)):
                    pictures.append(pictured)
    return joined(rows, nets, pictures)


def joined(rows: list[xr.Dataset], nets: list[xr.Dataset], pictures: list[xr.Dataset]) -> xr.Dataset:
    """Return what `of_net` gave of several nets as one."""
    every: dict[str, Any] = {
        "join": "outer",
        "coords": "all",
    }  # of one net, too, against whom has one value for each row
    return xr.merge([xr.concat(rows, "row", **every), xr.concat(nets, "net", **every), *pictures])


@dataclass(frozen=True)
class Subject:
    """What all nets of a data set are attacked on."""

    setting: Setting
    images: tuple[Tensors, Tensors]
    """Test images that are attacked, and those kept apart."""
    others: Tensors
    """Training images."""
    folder: Path
    name: str
    """Of the data set."""


def of_net(
    net: str, network: nn.Module, every: list[Case], subject: Subject
) -> tuple[list[xr.Dataset], xr.Dataset, xr.Dataset]:
    """Attack a net in all ways; return the rows, what is known of the net, and pictures."""
    (x, y), (x_apart, y_apart) = subject.images
    rows, pictures = [], []
    for case in every:
        count = min(case.images, len(x))
        attack = registry.make(case.maker, case.norm, **case.options)
        _LOG.info("%s: %s, %d images", net, case.name, count)
        found = _measured(net, network, attack, case, (x[:count], y[:count]), subject)
        about: dict[str, Any] = {"against": net, "attack": case.attack, "norm": case.norm, "kind": case.kind}
        for epsilon in case.epsilons:
            one = found[[*EXAMPLES, "seconds", "preparing_seconds"]].sel(epsilon=epsilon)
            one = one.assign_coords(example=np.arange(count), images=count, **about)
            rows.append(one.assign(broken=one.broken.astype(np.float64)))
        pictures.append(found[["image", "image_prediction", "image_confidence"]].assign_coords(case=case.name))
    says, apart = pictures_of(network, x), pictures_of(network, x_apart)
    correct, right = says.prediction == y.cpu().numpy(), apart.prediction == y_apart.cpu().numpy()
    dataset = subject.name
    known = xr.Dataset(
        {
            "tau": confidence_threshold(apart.confidence, right),
            "accuracy": float(right.mean()),
            "correct": ("example", correct.astype(np.float64)),
            "clean_confidence": ("example", says.confidence),
        },
        {"net": net, "dataset": dataset, "example": np.arange(len(x))},
    )
    shown = xr.concat(pictures, "case").drop_vars("epsilon", errors="ignore")
    shown["clean_image"] = ("shown", "channel", "row", "column"), says.images[:SHOWN]
    shown["clean_prediction"] = "shown", says.prediction[:SHOWN]
    shown["clean_confidence"] = "shown", says.confidence[:SHOWN]
    own = {str(name): f"{dataset}_{name}" for name in (*shown.variables, *shown.dims) if name != "shown"}
    return rows, known, shown.rename(own)


def _measured(net: str, network: nn.Module, attack: Any, case: Case, examples: Tensors, subject: Subject) -> xr.Dataset:
    """Return what an attack finds: from the folder, if this net met it before, made by the same code."""
    others, folder = subject.others, subject.folder
    prepared = digest_of(*others) if hasattr(attack, "prepare") else ""
    settings = (
        SEED, repr(attack), case.epsilons, digest_of(*examples), prepared, fingerprint(network), net == "masked",
        digest(type(attack).__module__),
    )  # fmt: skip
    seed = stream(SEED, case.name).initial_seed()
    return kept(
        folder, f"{net}_{case.name}", settings, measured, network, attack, case.epsilons, examples, others, seed
    )


def tensors(images: Images, device: torch.device) -> Tensors:
    """Return the training images, pixels in [0, 1], and their labels."""
    x = torch.tensor(images.train_images, device=device).float().div_(255)
    return x, torch.tensor(images.train_labels, device=device)
