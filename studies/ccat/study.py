"""The studies ccat_mnist and ccat_cifar10: nets are trained and attacked, and all numbers computed from the records."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from deepcheck import checkpoint
from deepcheck.data import Images, load
from deepcheck.device import choose, describe
from deepcheck.evaluation import robust_error, robustness_curve, suite, summary, worst_case
from deepcheck.models import Network
from odeflow.provenance import provenance
from studies.ccat.claims import claims, table
from studies.ccat.figures import figures
from studies.ccat.measure import SEED, Setting, discard_attacks, records_of, records_of_noise
from studies.ccat.plan import TRAININGS, setting_of
from studies.common import tables
from studies.common.errors import Unavailable
from studies.common.images import load_or_digits
from studies.common.kept import digest_of, kept, study_folder
from studies.common.nets import fingerprint, kept_training
from studies.common.parallel import one_thread
from studies.registry import Outcome

__all__ = ["measured", "outcome_of", "run"]

_LOG = logging.getLogger(__name__)


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; what has been trained and attacked is kept in the folder, and not done again."""
    device = choose("auto")
    if name == "ccat_cifar10" and not quick and device.type != "cuda":
        raise Unavailable("it needs a CUDA GPU, and there is none: run it with --quick")
    images, note = _images(name.removeprefix("ccat_"), quick=quick)
    setting = setting_of(name, images.name, quick=quick)
    if setting.train_images is not None:
        count = setting.train_images
        images = replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
    folder = study_folder(folder, instead="" if images.name in name else images.name)
    with one_thread() if quick else nullcontext():
        parts = [_one(training, setting, images, folder, device) for training in TRAININGS]
    return outcome_of(parts, name, setting, images, note, device=device, quick=quick)


def outcome_of(
    parts: Sequence[xr.Dataset],
    name: str,
    setting: Setting,
    images: Images,
    note: str = "",
    *,
    device: torch.device,
    quick: bool,
) -> Outcome:
    """Return what the study says of the nets that were measured, one for each of TRAININGS, in this order."""
    data = xr.concat(parts, xr.DataArray(list(TRAININGS), dims="training", name="training"), data_vars="all")
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), device=describe(device), data=repr(images), quick=quick,
        setting=asdict(setting),
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    _describe(data)
    said = tuple(claims(data, name, setting, quick=quick))
    return Outcome(data, figures(data, images.class_names), table(data, setting), said)


def _images(name: str, *, quick: bool) -> tuple[Images, str]:
    """Return the data set; in the quick form the digits where it is not there, and then a note that says so."""
    return load_or_digits(name, download=False) if quick else (load(name), "")


# --- training and measuring ---


def _one(training: str, setting: Setting, images: Images, folder: Path, device: torch.device) -> xr.Dataset:
    """Train and attack one net, and return everything that is shown of it."""
    options: dict[str, Any] = {"device": str(device), "progress": True}
    trained = kept_training(setting.recipes[training], images, folder, training, **options)
    records, noise = _records(training, setting, images, trained.network, trained.checkpoint, folder, device)
    return measured(records, noise, setting, trained.history)


def measured(
    records: xr.Dataset, noise: xr.Dataset, setting: Setting, history: Sequence[Mapping[str, float]]
) -> xr.Dataset:
    """Return everything that is shown of a net, from the records of its attacks and the history of its training."""
    result = summary(records, noise)
    tau = result.tau.item()
    curves = [robustness_curve(records, norm="linf", tau=value) for value in (0.0, tau)]
    result["curve"] = xr.concat(curves, xr.DataArray(["all", "accepted"], dims="rule", name="rule")).rename(
        epsilon="size"
    )
    count_of = {norm: robustness_curve(records, norm=norm, tau=tau).accepted for norm in np.unique(result.norm.values)}
    pairs = zip(result.norm.values, result.epsilon.values, strict=True)
    result["threat_accepted"] = ("threat", [count_of[norm].sel(epsilon=size).item() for norm, size in pairs])
    correct = records.clean_prediction == records.label
    result["clean_confidence"] = records.clean_confidence
    result["clean_correct"] = correct.astype(np.int8)
    worst = [
        worst_case(records, norm=norm, epsilon=epsilon)
        for norm, epsilon in zip(result.norm.values, result.epsilon.values, strict=True)
    ]
    adversarial = [one.confidence.where(one.wrong & correct).values for one in worst]
    result["adversarial_confidence"] = (("threat", "example"), np.array(adversarial))
    pgd = [name for name in records.attack.values if name.startswith("pgd")]
    result["pgd_error"] = robust_error(records, norm="linf", epsilon=setting.threats.linf[0], attacks=pgd)
    count = noise.sizes["example"] // 2
    best = noise.confidence.isel(attack=0, epsilon=0).max("restart").values
    result["noise_confidence"] = (("noise", "image"), noise.clean_confidence.values.reshape(2, count))
    result["distal_confidence"] = (("noise", "image"), best.reshape(2, count))
    result["distal_image"], result["noise_image"] = noise.image, noise.noise_image
    shown = noise.isel(example=noise.shown.values)
    for variable, prediction, confidence in (
        ("distal", noise.image_prediction, noise.image_confidence),
        ("noise", shown.clean_prediction, shown.clean_confidence),
    ):
        result[f"shown_{variable}_prediction"] = ("shown", prediction.values)
        result[f"shown_{variable}_confidence"] = ("shown", confidence.values)
    result = result.drop_vars([name for name in ("shown",) if name in result.coords])
    result["seconds"] = sum(row["seconds"] for row in history)
    result["epochs"] = len(history)
    checks = json.loads(records.attrs["checks"])
    result["checks_passed"] = sum(check["passed"] for check in checks)
    result["failed_checks"] = "; ".join(check["text"] for check in checks if not check["passed"])
    result["attacks"] = records.sizes["attack"]
    return result


def _records(
    training: str,
    setting: Setting,
    images: Images,
    network: Network,
    path: Path,
    folder: Path,
    device: torch.device,
) -> tuple[xr.Dataset, xr.Dataset]:
    """Return the records of the test images and of noise: those in the folder, if they are of this net and setting."""
    planned = suite(setting.threats, steps=setting.steps, restarts=setting.restarts, queries=setting.queries)
    data = digest_of(images.test_images, images.test_labels)
    settings = SEED, data, setting.examples, setting.validation, setting.steps, repr(planned), fingerprint(network)
    recipe = checkpoint.read(path)[1]["recipe"]
    options: dict[str, Any] = {"device": device, "configuration": {"checkpoint": recipe}, "progress": True}
    _LOG.info("%s: attacks", training)
    parts = folder, training, settings
    subject = network, images, setting
    records = kept(folder, f"{training}_records", settings, records_of, *subject, planned, parts, options)
    noise = kept(folder, f"{training}_distal", settings, records_of_noise, *subject, options)
    discard_attacks(planned, parts)
    return records, noise


def _describe(data: xr.Dataset) -> None:
    """Give each variable its long name and unit."""
    names = {
        "training": "training method",
        "norm": "norm of the perturbation",
        "epsilon": "size of the perturbation",
        "curve": "robust error in L-infinity",
        "size": "size of the perturbation in L-infinity",
        "accepted": "number of examples in the denominator",
        "threat_accepted": "number of examples in the denominator of the thresholded robust error",
        "rule": "which examples count: all, or those of a confidence of tau or more",
        "clean_confidence": "confidence in the test image",
        "clean_correct": "whether the test image is classified correctly, 0 or 1",
        "adversarial_confidence": "largest confidence in a wrong class, where an attack turned a correct one",
        "pgd_error": "robust error under PGD on cross-entropy, L-infinity, training epsilon",
        "noise_confidence": "confidence in noise",
        "distal_confidence": "confidence in the distal adversarial example",
        "distal_image": "pixels of the distal adversarial example",
        "shown_distal_prediction": "predicted class of the distal adversarial example that is shown",
        "shown_distal_confidence": "confidence in the distal adversarial example that is shown",
        "shown_noise_prediction": "predicted class of the noise that is shown",
        "shown_noise_confidence": "confidence in the noise that is shown",
        "epochs": "epochs of training",
        "checks_passed": "checks against false robustness that were passed",
        "failed_checks": "checks against false robustness that failed",
        "attacks": "number of attacks",
    }
    tables.describe(data, names)
    data["seconds"].attrs = {"long_name": "time of the training", "units": "s"}
