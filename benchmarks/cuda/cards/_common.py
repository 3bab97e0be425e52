"""What cards share: trainings that fit into a time, weights that travel, and attacks one after the other."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.cuda.card import Work
from deepcheck import checkpoint
from deepcheck.attacks import PGD
from deepcheck.attacks.judged import Precision
from deepcheck.data import Images
from deepcheck.evaluation import Planned, attack_table, evaluate, joined, split
from deepcheck.models import Network
from deepcheck.training import Recipe, train
from deepcheck.training.checkpointing import LAST
from deepcheck.training.methods import AttackingMethod
from odeflow.provenance import load, save
from studies.common.nets import fingerprint

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "EFFORTS",
    "WAYS",
    "Net",
    "Way",
    "aim",
    "attack_rows",
    "attacked",
    "effort_that_fits",
    "fitted",
    "pass_seconds",
    "passes",
    "trained",
]

EFFORTS = ((1000, 5, 5000), (500, 3, 5000), (200, 2, 1000), (100, 1, 1000), (50, 1, 500))
"""Steps, restarts and queries of a suite, the hardest first."""
LEAST_EFFORT = ((10, 1, 50),)
"""The same in the quick form."""
KEEP = 5.0
"""Seconds of attacks that may be lost."""
Way = dict[str, bool]
WAYS: tuple[Way, ...] = (
    {"channels_last": True, "compiled": True, "graphs": True},
    {"channels_last": True, "compiled": True},
    {"channels_last": True},
)
"""Options of `train` on a GPU for residual nets, the fastest first: those that fail, as in a compiler, are left out."""


@dataclass(frozen=True, eq=False)
class Net:
    """A net that has been trained, with the weights that travel: rounded to bfloat16."""

    network: Network
    recipe: Recipe
    history: list[dict[str, float]]


# --- trainings that fit into a time ---


def trained(
    work: Work,
    name: str,
    recipe: Recipe,
    images: Images,
    *,
    seconds: float,
    most: int,
    shorter: tuple[int, ...] = (),
    enough: int = 1,
    ways: tuple[Way, ...] = WAYS,
) -> Net | None:
    """Return a net after a training of about so many seconds, or None where the card's time was over before.

    The training is begun with as many epochs as fit; it goes on where an earlier call has left it, in the card's folder
    or, with a new optimiser, from weights that have travelled. Weights are in the folder CARD_NAME of the results.

    Parameters
    ----------
    work
        The card's.
    name
        What the net is called.
    recipe, images
        What to do with which data; the epochs are set here.
    seconds
        Time of the whole training, measurement and compilation included.
    most
        Epochs at most.
    shorter, enough
        Numbers of attack steps to take instead, the largest first, until so many epochs fit; steps become longer.
    ways
        Options of `train` on a GPU: the first with which a few steps work.
    """
    weights, folder = work.out / f"{work.card.name}_{name}", work.folder / name
    begun, known = _information(weights), work.found.get("nets", {}).get(name, {})
    if not begun.get("finished"):
        begun = _information(folder / LAST) or begun
        if work.left() <= 0:
            return None
        if work.device.type == "cuda":
            torch.compiler.reset()  # of what earlier nets have left, which counts towards a limit
        if not begun:
            if known:
                work.note(f"weights of {name} are not here: it is trained anew, and what was found is left")
                work.found.clear()
            recipe, way = fitted(work, recipe, images, seconds, most=most, shorter=shorter, enough=enough, ways=ways)
        else:
            recipe, way = Recipe.from_json(begun["recipe"]), known.get("how", _ways(work, ways)[0])
            if not (folder / LAST).exists():
                shutil.copytree(weights, folder, dirs_exist_ok=True)
        left = max(work.left(), 1e-3)
        found = train(recipe, images, out=folder, resume=True, seconds=left, device=str(work.device), **way)
        known = {"how": way, "given_seconds": seconds}
        begun = checkpoint.read(folder / LAST)[1] | {"finished": found.finished}
        network = found.network if found.finished else checkpoint.load_model(folder / LAST)
        checkpoint.write_shards(weights, network, begun, overwrite=True)
    said = {key: begun[key] for key in ("recipe", "history", "finished")}
    work.save(nets={**work.found.get("nets", {}), name: known | said})
    if not begun["finished"]:
        return None
    network = checkpoint.load_model(weights, device=work.device)
    return Net(network, Recipe.from_json(begun["recipe"]), begun["history"])


def fitted(
    work: Work,
    recipe: Recipe,
    images: Images,
    seconds: float,
    *,
    most: int,
    shorter: tuple[int, ...] = (),
    enough: int = 1,
    ways: tuple[Way, ...] = WAYS,
) -> tuple[Recipe, Way]:
    """Return a recipe with as many epochs as fit into so many seconds, of which the measurement is a part, and the way."""
    start = work.elapsed()

    def trial(batch_size: int, way: Way) -> tuple[int, float]:
        return batch_size, epoch_seconds(work, recipe.changed(batch_size=batch_size), images, way)

    here = _ways(work, ways)
    for way in here:
        try:
            batch_size, cost = work.halving(recipe.batch_size, partial(trial, way=way))
            break
        except RuntimeError as error:  # of a compiler, or of the recording of a graph
            if way == here[-1]:
                raise
            work.note(f"train does not work with {way}: {' '.join(str(error).split())[:200]}")
    left = seconds - (work.elapsed() - start)
    method = recipe.method
    full = method.attack_steps if isinstance(method, AttackingMethod) else 0
    for steps in (full, *shorter):
        share = passes_of_training(steps) / passes_of_training(full)
        epochs = int(left / (share * cost))
        if epochs >= enough:
            break
    if isinstance(method, AttackingMethod) and steps != full:
        recipe = recipe.changed(attack_steps=steps, step_size=method.step_size * full / steps)
        work.note(f"{method.name}: {steps} steps of the attack and not {full}, for {enough} epochs to fit")
    return recipe.changed(epochs=max(1, min(most, epochs)), batch_size=batch_size), way


def _ways(work: Work, ways: tuple[Way, ...]) -> tuple[Way, ...]:
    """Return the ways; those of a CPU are without compilation, which takes longer than all the rest there."""
    if work.device.type == "cuda":
        return ways
    return tuple({name: value for name, value in way.items() if name != "compiled"} for way in ways)


def passes_of_training(steps: int) -> int:
    """Return the passes of a step of training: forward and backward in each step of the attack, and three of the weights."""
    return 2 * steps + 3


def growth_share(recipe: Recipe) -> float:
    """Return the passes of a training over those that it had if its attack had all its steps from the beginning."""
    method, times = recipe.method, 200
    if not isinstance(method, AttackingMethod):
        return 1.0
    passes = [passes_of_training(method.steps_at((time + 0.5) / times)) for time in range(times)]
    return float(np.mean(passes)) / passes_of_training(method.attack_steps)


def epoch_seconds(work: Work, recipe: Recipe, images: Images, way: Way) -> float:
    """Return how long an epoch takes when nothing is left to compile: of a few steps in each part of the schedule.

    In these the attack does not grow: every number of its steps is recorded once as a CUDA graph, which is little in a
    training and would be most of so few steps. What the growth saves follows from the passes.
    """
    batches, parts = (2, 2) if work.quick else (25, 5)
    steps = (len(images.train_images) - recipe.validation) // recipe.batch_size
    batches = min(batches, steps)
    count = batches * recipe.batch_size + 2
    few = replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
    with TemporaryDirectory(dir=work.folder) as folder:
        short = recipe.changed(epochs=parts, validation=2, patience=None)
        if isinstance(recipe.method, AttackingMethod):
            short = short.changed(first_steps=None)
        trial = train(short, few, out=folder, device=str(work.device), **way)
        tensors, information = checkpoint.read(trial.checkpoint)
        start = work.elapsed()
        checkpoint.write(trial.checkpoint, tensors, information)  # as after every epoch
        aside = work.elapsed() - start
    rows = [row["seconds"] for row in trial.history]
    return growth_share(recipe) * steps / batches * float(np.mean(rows[1:])) + aside


def _information(path: Path) -> dict[str, Any]:
    """Return what a checkpoint, or a folder of shards, says of its training; nothing where there is none."""
    there = bool(checkpoint.shards_in(path)) if path.is_dir() else path.exists()
    return checkpoint.read(path)[1] if there else {}


# --- attacks while there is time ---


def passes(one: Planned) -> float:
    """Return the gradient steps of an attack for each image; a query, without a gradient, is a third of one."""
    attack = one.attack
    alone = getattr(attack, "steps", 0) or max(getattr(attack, name, 0) for name in ("queries", "draws")) / 3
    return float(len(one.epsilons) * alone * getattr(attack, "restarts", 1))


def pass_seconds(work: Work, network: Network, images: Images, examples: int, batch_size: int) -> float:
    """Return how long a gradient step of an attack on so many test images takes."""
    (x, y), _ = split(images, examples, 0, work.device)

    def seconds(steps: int) -> float:
        attack = PGD("linf", steps=steps, relative_step_size=0.1, stop_when_reached=False)
        start = work.elapsed()
        found = attack(network, x, y, epsilon=0.01, generator=torch.Generator().manual_seed(0), batch_size=batch_size)
        found.prediction.cpu()  # the device has come to the end
        return work.elapsed() - start

    seconds(2)  # what is done once
    few, many = seconds(2), seconds(8)
    return max((many - few) / 6, 1e-6)


def effort_that_fits(
    work: Work, plan: Callable[[int, int, int], Mapping[str, Planned]], rate: float, seconds: float
) -> tuple[int, int, int]:
    """Return the hardest effort, of EFFORTS, with which all attacks fit into a time; the least where none does.

    Parameters
    ----------
    work
        The card's.
    plan
        From steps, restarts and queries to attacks.
    rate
        Seconds that `passes` take for each unit; see `pass_seconds`.
    seconds
        Time for all.
    """
    efforts = LEAST_EFFORT if work.quick else EFFORTS
    for effort in efforts:
        if rate * sum(map(passes, plan(*effort).values())) <= seconds:
            return effort
    return efforts[-1]


def attacked(
    work: Work,
    network: Network,
    images: Images,
    planned: Mapping[str, Planned],
    file: Path,
    *,
    examples: int,
    validation: int = 0,
    batch_size: int = 1000,
    rate: float,
    seed: int = 0,
    precision: Precision = "float32",
) -> tuple[xr.Dataset | None, list[str]]:
    """Return the records of the attacks for which there is time, with those of earlier calls, and the names of the others.

    Parameters
    ----------
    work, network, images, planned
        What is attacked, and how; the first of the attacks are the most important.
    file
        Where the records are kept, every `KEEP` seconds and in the end; of another net or other images, they are made anew.
    examples, validation, batch_size, seed
        As for `evaluate`.
    rate
        Seconds of a gradient step, see `pass_seconds`. What an attack has taken is the measure of the next.
    precision
        Of the search, as for `evaluate`; in bfloat16 images have their channels last.
    """
    about = {"weights": fingerprint(network), "images": [images.name, examples, validation]}
    records = _earlier(work, file, about, str(seed))
    options = {
        "examples": examples, "validation": validation, "seed": seed, "device": work.device, "configuration": about,
        "precision": precision, "channels_last": precision == "bfloat16",
    }  # fmt: skip
    missing, kept = [], time.monotonic()
    try:
        for name, one in planned.items():
            if records is not None and name in records.attack.values:
                continue
            if rate * passes(one) > work.left():
                missing.append(name)
                continue
            start = work.elapsed()
            part = work.halving(batch_size, partial(_record, network, images, {name: one}, options))
            rate = (work.elapsed() - start) / passes(one)
            records = part if records is None else _with(records, part)
            if time.monotonic() - kept > KEEP:
                _keep(records, file)
                kept = time.monotonic()
    finally:
        if records is not None:
            _keep(records, file)
    return records, missing


def _keep(records: xr.Dataset, file: Path) -> None:
    for variable in records.data_vars.values():
        variable.encoding = {"zlib": True}  # most is what was not run
    save(records, file)


def _record(
    network: Network, images: Images, planned: Mapping[str, Planned], options: dict[str, Any], batch_size: int
) -> xr.Dataset:
    return evaluate(network, images, planned, batch_size=batch_size, **options)


def _earlier(work: Work, file: Path, about: dict[str, Any], seed: str) -> xr.Dataset | None:
    """Return the records in a file, if they are of this net and these images."""
    if not file.exists():
        return None
    records = load(file).drop_encoding()
    options = json.loads(records.attrs["configuration"])["options"]
    if records.attrs["seed"] == seed and about.items() <= options.items():
        return records
    work.note(f"{file.name} is of another net, or of other images: made anew")
    return None


def _with(records: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """Return records with one attack more; the attribute `parts` is a list of what made each."""
    own = {str(name): str(value) for name, value in part.attrs.items()}
    before = records.attrs.pop("parts", None)
    parts = json.loads(before) if before else [dict(records.attrs)]
    return joined([records, part]).assign_attrs(parts=json.dumps([*parts, own]))


# --- what is said ---


def attack_rows(records: xr.Dataset) -> list[dict[str, Any]]:
    """Return the rows of `attack_table`: robust accuracy with its standard error, and the effort in words."""
    table = attack_table(records)
    names = ("attack", "norm", "epsilon", "effort", "robust_accuracy", "standard_error")
    columns = [table[name].values.tolist() for name in names]
    return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]


def aim(what: str, found: float, *, least: float, error: float) -> dict[str, Any]:
    """Return what was set before the run, what was found, and whether it held."""
    return {"what": what, "at_least": least, "found": found, "standard_error": error, "held": bool(found >= least)}
