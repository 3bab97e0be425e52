"""Studies ccat_mnist and ccat_cifar10: standard, adversarial and confidence-calibrated training, under all attacks."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from deepcheck import checkpoint
from deepcheck.data import DataError, Images, load
from deepcheck.device import choose, describe
from deepcheck.evaluation import (
    THREATS,
    Threats,
    distal,
    evaluate,
    joined,
    robust_error,
    robustness_curve,
    sanity_checks,
    suite,
    summary,
    worst_case,
)
from deepcheck.evaluation.run import split, stream
from deepcheck.models import Network
from deepcheck.training import Recipe, recipe, train
from odeflow import load as load_result
from odeflow import save
from odeflow.provenance import provenance
from studies.ccat_figures import figures
from studies.parallel import one_thread
from studies.registry import Claim, Outcome, Unavailable

_LOG = logging.getLogger(__name__)

TRAININGS = ("standard", "at", "ccat")
SEED = 20260611


@dataclass(frozen=True)
class Setting:
    """What is trained, and how it is attacked."""

    dataset: str
    recipes: dict[str, Recipe]
    threats: Threats
    train_images: int | None = None
    """Number of training images, the first ones; None: all."""
    examples: int = 1000
    """Test images that are attacked."""
    validation: int = 1000
    """Test images kept apart for the confidence threshold."""
    steps: int = 1000
    restarts: int = 5
    queries: int = 5000
    batch_size: int = 500
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    """Row of the table and training to the published number, in %."""


_PUBLISHED = {
    "mnist": {
        "RErr(tau) linf 0.3": {"at": 1.0, "ccat": 7.7},
        "RErr(tau) linf 0.4": {"at": 100.0, "ccat": 40.0},
        "RErr(tau) l2 3": {"at": 81.3, "ccat": 1.4},
        "FPR distal, uniform": {"standard": 100.0, "at": 100.0, "ccat": 0.0},
        "FPR uniform noise": {"standard": 100.0, "at": 44.5, "ccat": 0.0},
    },
    "cifar10": {
        "Err": {"at": 16.6, "ccat": 10.1},
        "RErr(tau) linf 0.03": {"at": 62.3, "ccat": 67.9},
        "RErr(tau) l2 1": {"at": 73.9, "ccat": 46.2},
        "FPR distal, uniform": {"at": 100.0, "ccat": 0.0},
    },
}
"""Stutz, Hein, Schiele, "Confidence-Calibrated Adversarial Training", arXiv:1910.06259 (the preprint), in %."""


def _setting(name: str, dataset: str, *, quick: bool) -> Setting:
    recipes = {training: recipe(dataset, training) for training in TRAININGS}
    threats, published = THREATS[dataset], _PUBLISHED.get(dataset, {})
    if name == "ccat_cifar10":
        attack: dict[str, Any] = {"epsilon": 0.03, "attack_steps": 40, "step_size": 0.005}
        recipes = {
            training: one.changed(
                model="resnet_ccat", epochs=100, **({"test_epsilon": 0.03} if training == "standard" else attack)
            )
            for training, one in recipes.items()
        }
    if not quick:
        effort = {"steps": 200, "restarts": 2, "queries": 1000} if dataset == "mnist" else {}
        return Setting(dataset, recipes, threats, published=published, **effort)
    few: dict[str, Any] = {"steps": 50, "restarts": 2, "queries": 200, "published": published}
    if name == "ccat_cifar10":  # only that everything runs
        changes: dict[str, Any] = {"width": 8, "epochs": 1, "batch_size": 50, "validation": 50}
        recipes = {
            training: one.changed(**changes, **({} if training == "standard" else {"attack_steps": 2}))
            for training, one in recipes.items()
        }
        few |= {"steps": 10, "restarts": 1, "queries": 50}
        return Setting(dataset, recipes, threats, train_images=350, examples=50, validation=50, **few)
    if dataset == "digits":
        return Setting(dataset, recipes, threats, examples=179, validation=180, **few)
    epochs = {"standard": 4, "at": 12, "ccat": 8}
    attacks: dict[str, dict[str, Any]] = {
        "standard": {},
        "at": {"attack_steps": 5, "step_size": 0.12},
        "ccat": {"attack_steps": 10, "step_size": 0.03},
    }
    recipes = {
        training: one.changed(epochs=epochs[training], width=None, **attacks[training])
        for training, one in recipes.items()
    }
    return Setting(dataset, recipes, threats, train_images=10_000, examples=200, **few)


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; what has been trained and attacked is kept in the folder, and not done again."""
    if folder is None:
        raise ValueError("folder = None is not allowed: a folder for checkpoints and records is")
    device = choose("auto")
    if name == "ccat_cifar10" and not quick and device.type != "cuda":
        raise Unavailable("it needs a CUDA GPU, and there is none: run it with --quick")
    images, note = _images(name.removeprefix("ccat_"), download=not quick)
    setting = _setting(name, images.name, quick=quick)
    if setting.train_images is not None:
        count = setting.train_images
        images = replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
    if images.name not in name:
        folder = folder.with_name(f"{folder.name}_{images.name}")
    folder.mkdir(exist_ok=True)
    with one_thread() if quick else nullcontext():
        parts = [_one(training, setting, images, folder, device) for training in TRAININGS]
    data = xr.concat(parts, xr.DataArray(list(TRAININGS), dims="training", name="training"), data_vars="all")
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), device=describe(device), data=repr(images), quick=quick,
        setting=asdict(setting),
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    _describe(data)
    table = _table(data, _rows(data, setting), setting)
    return Outcome(data, figures(data, images.class_names), table, tuple(_claims(data, name, setting, quick=quick)))


def _images(name: str, *, download: bool) -> tuple[Images, str]:
    """Return the data set, or the digits where it cannot be had, and then a note that says so."""
    try:
        return load(name, download=download), ""
    except DataError as error:
        if not download:
            return load("digits"), f"Not {name}, but scikit-learn's digits of 8 x 8 pixels, because {error}"
        raise


# --- training and measuring ---


def _one(training: str, setting: Setting, images: Images, folder: Path, device: torch.device) -> xr.Dataset:
    """Train and attack one net, and return everything that is shown of it."""
    options: dict[str, Any] = {"device": str(device), "resume": True, "progress": True}
    try:
        trained = train(setting.recipes[training], images, out=folder / training, **options)
    except checkpoint.CheckpointError as error:
        raise Unavailable(f"{error}; remove {str(folder)!r} to start afresh") from None
    records, noise = _records(training, setting, images, trained.network, trained.checkpoint, folder, device)
    result = summary(records, noise)
    tau = result.tau.item()
    curves = [robustness_curve(records, norm="linf", tau=value) for value in (0.0, tau)]
    result["curve"] = xr.concat(curves, xr.DataArray(["all", "accepted"], dims="rule", name="rule")).rename(
        epsilon="size"
    )
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
    result["seconds"] = sum(row["seconds"] for row in trained.history)
    result["epochs"] = len(trained.history)
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
    weights = b"".join(tensor.cpu().numpy().tobytes() for tensor in network.state_dict().values())
    what = (SEED, images.name, setting.examples, setting.validation, setting.steps, repr(planned))
    key = hashlib.sha256(weights + repr(what).encode()).hexdigest()
    files = [folder / f"{training}_records.nc", folder / f"{training}_distal.nc"]
    if all(file.exists() for file in files):
        records, noise = (load_result(file) for file in files)
        if records.attrs.get("key") == key == noise.attrs.get("key"):
            return records, noise
    common: dict[str, Any] = {
        "seed": SEED,
        "device": device,
        "batch_size": setting.batch_size,
        "configuration": {"checkpoint": checkpoint.read(path)[1]["recipe"]},
        "progress": True,
    }
    _LOG.info("%s: attacks", training)
    epsilon = setting.threats.linf[0]
    (x, y), _ = split(images, min(setting.examples, 200), 0, device)
    checks = sanity_checks(
        network, x, y, epsilon=epsilon, generator=stream(SEED, "sanity", device), queries=setting.queries
    )
    parts = {}
    for name, one in planned.items():  # each is kept: an evaluation that is stopped goes on with the next attack
        file = folder / f"{training}_{name}.nc"
        if not file.exists() or load_result(file).attrs.get("key") != key:
            part = evaluate(
                network, images, {name: one}, examples=setting.examples, validation=setting.validation, **common
            )
            part.attrs["key"] = key
            save(part, file)
        parts[name] = load_result(file)
    records = joined(parts.values())
    noise = distal(network, images.shape, epsilon=epsilon, count=setting.examples, steps=setting.steps, **common)
    records.attrs["checks"] = json.dumps([{"passed": check.passed, "text": str(check)} for check in checks])
    for result, file in zip((records, noise), files, strict=True):
        result.attrs["key"] = key
        save(result, file)
    for name in planned:
        (folder / f"{training}_{name}.nc").unlink(missing_ok=True)
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
    for name, text in names.items():
        data[name].attrs = {"long_name": text, "units": "1"}
    data["seconds"].attrs = {"long_name": "time of the training", "units": "s"}


# --- what is said ---


def _rows(data: xr.Dataset, setting: Setting) -> dict[str, xr.DataArray]:
    """Return the rows of the table, shares along training."""
    rows = {"Err": data.test_error, "Err(tau)": data.thresholded_test_error}
    threats = [(t, f"{data.norm.values[t]} {data.epsilon.values[t]:g}") for t in _shown_threats(data, setting)]
    for name, variable in (("RErr", data.robust_error), ("RErr(tau)", data.thresholded_robust_error)):
        rows |= {f"{name} {text}": variable.isel(threat=threat) for threat, text in threats}
    for kind in data.noise.values:
        rows[f"FPR {kind} noise"] = data.noise_fpr.sel(noise=kind)
        rows[f"FPR distal, {kind}"] = data.distal_fpr.sel(noise=kind)
    return rows


def _shown_threats(data: xr.Dataset, setting: Setting) -> list[int]:
    """Return the indices of the norms' main sizes: in L-infinity all from the training's size on."""
    least = setting.threats.linf[0] - 1e-9
    pairs = zip(data.norm.values, data.epsilon.values, strict=True)
    return [index for index, (norm, epsilon) in enumerate(pairs) if norm != "linf" or epsilon >= least]


def _table(data: xr.Dataset, rows: dict[str, xr.DataArray], setting: Setting) -> str:
    lines = [data.attrs["note"]] if data.attrs["note"] else []
    lines.append(
        f"{data.attrs['data_set']}, first {setting.examples} test images, tau at 99 % TPR on the last "
        f"{setting.validation}; in %, in brackets the published number"
    )
    lines.append(f"{'':22}" + "".join(f"{training:>18}" for training in TRAININGS))
    lines.append(f"{'tau':22}" + "".join(f"{value:18.4f}" for value in data.tau.values))
    for name, values in rows.items():
        published = setting.published.get(name, {})
        cells = [
            f"{100 * value:9.2f}" + (f"{f'({published[training]:g})':>9}" if training in published else " " * 9)
            for training, value in zip(TRAININGS, values.values, strict=True)
        ]
        lines.append(f"{name:22}" + "".join(cells))
    lines.append(f"{'training time, s':22}" + "".join(f"{value:9.0f}         " for value in data.seconds.values))
    lines += [
        f"sign of false robustness, {training}: {text}"
        for training, text in zip(TRAININGS, data.failed_checks.values, strict=True)
        if text
    ]
    return "\n".join(lines)


def _claims(data: xr.Dataset, name: str, setting: Setting, *, quick: bool) -> Iterator[Claim]:
    at, ccat = (data.sel(training=training) for training in ("at", "ccat"))
    small, large = (_threat(data, "linf", epsilon) for epsilon in setting.threats.linf)

    def rates(values: xr.DataArray) -> str:
        return ", ".join(f"{one} {100 * float(values.sel(training=one)):.2f} %" for one in TRAININGS)

    curve = data.curve.sel(rule="all")
    falls = float(curve.diff("size").min())
    yield Claim(
        "the robust error does not fall with the size of the perturbation, and is never below the test error",
        f"least step {falls:.4f}",
        falls >= 0 and bool((data.robust_error >= data.test_error).all()),
    )
    if name == "ccat_cifar10" and quick:
        return  # a few steps on a few images: nothing more can be said
    robust = data.robust_error.isel(threat=small)
    yield Claim(
        f"adversarial training lowers the robust error at epsilon = {setting.threats.linf[0]:g} below standard training's",
        rates(robust),
        float(robust.sel(training="at")) < float(robust.sel(training="standard")),
    )
    fpr = data.distal_fpr.max("noise")
    most, least = (0.2, 0.5) if quick else (0.01, 0.95)
    yield Claim(
        f"CCAT accepts at most {most:.0%} of the distal adversarial examples, standard and adversarial training at least "
        f"{least:.0%}",
        rates(fpr),
        float(fpr.sel(training="ccat")) <= most and float(fpr.sel(training=["standard", "at"]).min()) >= least,
    )
    other = data.thresholded_robust_error.isel(threat=large)
    yield Claim(
        "with rejection, CCAT errs less than adversarial training beyond the training epsilon, at "
        f"{setting.threats.linf[1]:g}",
        rates(other),
        float(ccat.thresholded_robust_error[large]) < float(at.thresholded_robust_error[large]),
    )
    if quick:
        return
    yield Claim(
        "CCAT's test error is at most that of adversarial training",
        rates(data.test_error),
        float(ccat.test_error) <= float(at.test_error),
    )
    if setting.dataset == "mnist":
        bounds = {small: 0.10, large: 0.15}
        errors = {threat: float(ccat.thresholded_robust_error[threat]) for threat in bounds}
        yield Claim(
            "CCAT's robust error with rejection is at most 10 % at epsilon = 0.3 and 15 % at 0.4",
            ", ".join(f"{100 * error:.2f} %" for error in errors.values()),
            all(errors[threat] <= bound for threat, bound in bounds.items()),
        )
        found = float(at.test_error), float(at.pgd_error), float(at.robust_error[small])
        yield Claim(
            "adversarial training errs on at most 1.7 % of the images, 6 % under PGD on cross-entropy and 9 % under all "
            "attacks at epsilon = 0.3",
            ", ".join(f"{100 * error:.2f} %" for error in found),
            found[0] <= 0.017 and found[1] <= 0.06 and found[2] <= 0.09,
        )
    passed = data.failed_checks.values
    yield Claim(
        "no sign of false robustness",
        "; ".join(text for text in passed if text) or "all checks passed",
        not any(passed),
    )


def _threat(data: xr.Dataset, norm: str, epsilon: float) -> int:
    return int(np.flatnonzero((data.norm == norm) & np.isclose(data.epsilon, epsilon))[0])
