"""The study more_data: what learns from ever more examples, and the gap between its adversarial and its clean error."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from deepcheck.data import DataError, Images, load, two_classes
from deepcheck.device import describe as device_of
from odeflow.provenance import provenance
from studies.common.bounds import TOO_LARGE, bounds
from studies.common.images import load_or_digits, place
from studies.common.kept import study_folder
from studies.common.parallel import in_processes
from studies.common.tables import describe
from studies.more_data import learn
from studies.more_data.attacked import ATTACK
from studies.more_data.claims import claims, table, with_gaps
from studies.more_data.figures import figures
from studies.more_data.plan import SEED, Deep, Linear, plan_of
from studies.more_data.theory import MIXTURE, RIDGE, RULE, theory_of
from studies.registry import Outcome

Array = npt.NDArray[np.float64]


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets, and what was measured of them and of linear classifiers, are kept in the folder."""
    sets, note = _sets(quick=quick)
    folder = study_folder(folder, instead="" if quick or sets[0].name == "mnist" else sets[0].name)
    plans = plan_of([images.name for images in sets])
    tasks: list[tuple[Any, ...]] = []
    for world, plan in plans.items():
        if isinstance(plan, Deep):
            tasks += [
                (world, plan, epsilon, size, run, folder)
                for size, runs in zip(plan.sizes, plan.runs, strict=True)
                for epsilon in plan.epsilons
                for run in range(runs)
            ]
        else:
            tasks += [(world, plan, run, folder) for run in range(plan.runs)]
    tasks.sort(key=lambda task: -task[3] if isinstance(task[1], Deep) else 0)  # the slow ones first
    found = in_processes(_errors, tasks)
    by_world = {
        world: [(task, one) for task, one in zip(tasks, found, strict=True) if task[0] == world] for world in plans
    }
    images_of = {images.name: images for images in sets}
    rows = []
    for world, plan in plans.items():
        images = images_of[plan.images]
        own = by_world[world]
        rows += _deep(world, plan, own, images) if isinstance(plan, Deep) else _linear(world, plan, own, images)
    data = xr.concat(rows, "row", join="outer", coords="all", data_vars="all").merge(theory_of())
    data = _described(with_gaps(data))
    data.attrs = provenance(
        f"studies.{name}", MIXTURE, RULE, seed=str(SEED), device=device_of(place()), data=repr(sets), attack=ATTACK, ridge=RIDGE,
        plans={world: asdict(plan) for world, plan in plans.items()},
    ) | {"data_set": sets[0].name, "note": note}  # fmt: skip
    return Outcome(data, figures(data), table(data), tuple(claims(data, plans)))


def _sets(*, quick: bool) -> tuple[list[Images], str]:
    """Return the data sets, and a note on what stands in for them or is left out."""
    if quick:
        return [load("digits")], "Not MNIST, but scikit-learn's digits of 8 x 8 pixels: this is the quick form"
    first, note = load_or_digits()
    try:
        return [first, load("cifar10")], note
    except DataError as error:
        return [first], "; ".join([*([note] if note else []), f"CIFAR-10 is left out, because {error}"])


def _errors(world: str, plan: Linear | Deep, *rest: Any) -> xr.Dataset:
    """Return the errors of linear classifiers of one run, or of one net."""
    del world
    return learn.of_net(plan, *rest) if isinstance(plan, Deep) else learn.of_linear(plan, *rest)


def _linear(world: str, plan: Linear, found: list[Any], images: Images) -> list[xr.Dataset]:
    """Return a row for each epsilon of linear classifiers."""
    pair = two_classes(images, *plan.classes)
    every = xr.concat([one for _, one in found], "run")
    X, y = pair.X_test, pair.y_test
    below = bounds(X, y > 0, plan.epsilons, "l2")
    return [
        _row(world, plan, epsilon, len(y), below[:, k], errors=(one.error, one.adversarial_error, one.standard))
        for k, epsilon in enumerate(plan.epsilons)
        for one in [every.isel(epsilon=k).transpose("size", "run")]
    ]


def _deep(world: str, plan: Deep, found: list[Any], images: Images) -> list[xr.Dataset]:
    """Return a row for each epsilon of deep nets."""
    x, y = (one.cpu().numpy() for one in learn.attacked_images(images, plan.attacked))
    # of ten classes: a classifier of all tells each from the rest
    below = np.max([bounds(x, y == label, plan.epsilons, "linf") for label in range(len(images.class_names))], axis=0)
    shape = len(plan.epsilons), len(plan.sizes), max(plan.runs)
    E, S, standard = (np.full(shape, np.nan) for _ in range(3))
    for (_, _, epsilon, size, run, _), one in found:
        k, i = plan.epsilons.index(epsilon), plan.sizes.index(size)
        E[k, i, run] = one.wrong.mean()
        turned = one.turned.mean("example").values
        if epsilon:
            S[k, i, run] = turned[0]
        else:
            S[k, i, run] = E[k, i, run]
            standard[:, i, run] = [E[k, i, run], *turned]
    dims = "size", "run"
    return [
        _row(world, plan, epsilon, len(y), below[:, k], errors=[(dims, one[k]) for one in (E, S, standard)])
        for k, epsilon in enumerate(plan.epsilons)
    ]


def _row(world: str, plan: Linear | Deep, epsilon: float, images: int, below: Array, *, errors: Any) -> xr.Dataset:
    """Return what was measured at one epsilon, along size and run."""
    names = "error", "adversarial_error", "standard_adversarial_error"
    plain = [one if isinstance(one, tuple) else (one.dims, one.values) for one in errors]
    return xr.Dataset(
        {
            **dict(zip(names, plain, strict=True)),
            "examples": ("size", np.array(plan.sizes, float)),
            "bound": below[0],
            "bound_at_larger": below[1],
        },
        {
            "world": world, "title": plan.title, "kind": type(plan).__name__.lower(), "epsilon": epsilon,
            "norm": "l2" if isinstance(plan, Linear) else "linf", "images": images,
            "size": np.arange(len(plan.sizes)), "run": np.arange(plain[0][1].shape[1]),
        },
    )  # fmt: skip


def _described(data: xr.Dataset) -> xr.Dataset:
    """Give each variable its long name and unit."""
    names = {
        "error": "classification error on the test images",
        "adversarial_error": "adversarial error at the epsilon of the training; of deep nets what PGD finds",
        "standard_adversarial_error": "adversarial error at this epsilon after standard training",
        "standard_error": "classification error after standard training",
        "gap": "adversarial less clean error, mean over runs",
        "gap_se": "its standard error, over runs and test images",
        "standard_gap": "the same after standard training",
        "standard_gap_se": "its standard error",
        "cost": "clean error less that after standard training, mean over runs",
        "cost_se": "its standard error",
        "examples": "number of labelled examples",
        "bound": "adversarial error below which no classifier of these test images is",
        "bound_at_larger": f"the same at {TOO_LARGE} times the epsilon",
        "world": "what learns from which images",
        "title": "data set and classes",
        "kind": "linear classifiers or deep nets",
        "norm": "norm of the attack",
        "epsilon": "size of the perturbation, in training and test",
        "images": "number of test images",
        "size": "index of the number of examples",
        "run": "order of the images, and first weights",
        "theory_error": "classification error in theory",
        "theory_adversarial_error": "adversarial error in theory at the epsilon of the training",
        "theory_epsilon": "size of the perturbation in theory",
        "theory": "the least attacked loss on n examples (batch), or one pass of SGD (online)",
        "alpha": "examples for each dimension",
        "gap_without_data": "adversarial less clean error of random weights on the mixture",
        "gap_with_all_data": "adversarial less clean error of the best classifier of the mixture",
        "line_epsilon": "size of the perturbation",
    }
    describe(data, names)
    return data
