"""The study defences: nets are trained, defended and attacked, and all numbers are computed from what was found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import xarray as xr

from deepcheck.data import Images, load
from deepcheck.device import describe
from odeflow.provenance import provenance
from studies.common.images import load_or_digits, place
from studies.common.kept import study_folder
from studies.common.parallel import in_processes, one_thread
from studies.defences.attempts import net_name, of_subject, trained
from studies.defences.claims import claims
from studies.defences.figures import figures
from studies.defences.found import described, summarised, table
from studies.defences.measure import SEED
from studies.defences.plan import Setting, Subject, cases, setting_of, subjects
from studies.registry import Outcome

__all__ = ["joined", "outcome_of", "run"]

T = TypeVar("T")
_DEAR = {"dear": 0, "draws": 1, "net": 2}


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets, and what each attack found, are kept in the folder, and not made again."""
    images, note = _images(quick=quick)
    folder = study_folder(folder, instead="" if quick or images.name == "mnist" else images.name)
    setting = setting_of(images.name, quick=quick)
    some = [subject for subject in subjects() if subject.is_here]
    with one_thread():
        by_net = {net_name(subject, setting.recipe_of(subject)): subject for subject in some}
        _each(_trained, [(subject, setting, folder) for subject in by_net.values()])
        order = sorted(some, key=lambda subject: _DEAR[subject.effort])  # those that take longest first
        found = _each(_met, [(subject, setting, folder) for subject in order])
    by_name = {subject.name: one for subject, one in zip(order, found, strict=True)}
    data = joined([by_name[subject.name] for subject in some])
    return outcome_of(data, name, images, setting, note)


def _images(*, quick: bool) -> tuple[Images, str]:
    """Return the data set, and a note on what stands in for it."""
    if quick:
        return load("digits"), "Not MNIST, but scikit-learn's digits of 8 x 8 pixels: this is the quick form"
    return load_or_digits()


def _each(function: Callable[..., T], tasks: list[tuple[Any, ...]]) -> list[T]:
    """Return what a function gives for each task: on all processors, or here where that is sooner than to start processes."""
    quick = tasks[0][1].quick
    return [function(*task) for task in tasks] if quick else in_processes(function, tasks)


def _trained(subject: Subject, setting: Setting, folder: Path) -> None:
    trained(subject, setting, folder)


def _met(subject: Subject, setting: Setting, folder: Path) -> tuple[xr.Dataset, list[xr.Dataset]]:
    return of_subject(subject, trained(subject, setting, folder), setting, folder)


def joined(found: list[tuple[xr.Dataset, list[xr.Dataset]]]) -> xr.Dataset:
    """Return what was found of all subjects, along the dims subject and row."""
    known = [one.assign_coords(example=range(one.sizes["example"])) for one, _ in found]
    rows = [row for _, some in found for row in some]
    options: dict[str, Any] = {"join": "outer", "coords": "all", "data_vars": "all", "compat": "equals"}
    return xr.merge([xr.concat(known, "subject", **options), xr.concat(rows, "row", **options)], join="outer")


def outcome_of(data: xr.Dataset, name: str, images: Images, setting: Setting, note: str) -> Outcome:
    """Return what the study says of what was found."""
    data = described(summarised(data))
    some = [subject for subject in subjects() if subject.name in data.subject.values]
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), device=describe(place()), data=repr(images), quick=setting.quick,
        setting=asdict(setting),
        recipes={subject.name: asdict(setting.recipe_of(subject)) for subject in some},
        efforts={subject.name: [asdict(case) for case in cases(subject, setting)] for subject in some},
    ) | {"data_set": images.name, "note": note, "epsilon": setting.epsilon}  # fmt: skip
    drawn = figures(data, images.class_names)
    return Outcome(data, drawn, table(data), tuple(claims(data, quick=setting.quick)))
