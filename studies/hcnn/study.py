"""The study hcnn: nets are trained, attacked and embedded, and the theory is put beside them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.data import Images, load
from deepcheck.device import describe
from odeflow.provenance import provenance
from studies.common.images import load_or_digits, place
from studies.common.kept import digest_of, kept, study_folder
from studies.common.nets import fingerprint, kept_training
from studies.common.parallel import in_processes, one_thread
from studies.hcnn import linear, two_layers
from studies.hcnn.claims import claims
from studies.hcnn.figures import figures
from studies.hcnn.found import described, of_images, of_mixture, of_small, table
from studies.hcnn.measure import SEED, carlini, composed, ranks, separated, shown
from studies.hcnn.plan import EMBEDDINGS, LEVELS, NETS, Behind, Setting, setting_of
from studies.hcnn.propositions import of_net
from studies.registry import Outcome

__all__ = ["outcome_of", "parts_of", "run", "tasks_of"]

_LOG = logging.getLogger(__name__)
SHOWN = 3
"""Attacked images whose embedded points are drawn."""
NetOf = Callable[[str], nn.Module]
Task = tuple[tuple[str, ...], Callable[..., xr.Dataset], tuple[Any, ...]]


def run(name: str, *, quick: bool = False, folder: Path | None = None) -> Outcome:
    """Run the study; nets, and what was found of them, are kept in the folder, and not made again."""
    images, note = _images(quick=quick)
    folder = study_folder(folder, instead="" if quick or images.name == "mnist" else images.name)
    setting = setting_of(images.name, quick=quick)
    with one_thread():
        for net in NETS:
            trained(net, setting, folder)
        net_of = partial(trained, setting=setting, folder=folder)
        parts = parts_of([*tasks_of(setting, folder, net_of), *_more(setting, folder)], quick=quick)
    return outcome_of(parts, name, images, setting, note)


def _images(*, quick: bool) -> tuple[Images, str]:
    """Return the data set, and a note on what stands in for it."""
    if quick:
        return load("digits"), "Not MNIST, but scikit-learn's digits of 8 x 8 pixels: this is the quick form"
    return load_or_digits()


@cache
def _loaded(dataset: str) -> Images:
    return load(dataset, download=False)


_NETS: dict[tuple[str, str, Path], nn.Module] = {}
"""Nets that this process has loaded."""


def trained(net: str, setting: Setting, folder: Path) -> nn.Module:
    """Return a net out of `NETS`, which is kept in the folder."""
    key = net, repr(setting.recipe_of(net)), folder
    if key not in _NETS:
        _NETS[key] = _trained(net, setting, folder)
    return _NETS[key]


def _trained(net: str, setting: Setting, folder: Path) -> nn.Module:
    images, count = _loaded(setting.dataset), setting.train_images
    few = replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
    _LOG.info("%s: training", net)
    return kept_training(setting.recipe_of(net), few, folder, f"net_{net}", device=str(place())).network.eval()


def test_images(setting: Setting, count: int) -> tuple[Tensor, Tensor]:
    """Return the first test images, in [0, 1], and their classes."""
    images = _loaded(setting.dataset)
    x = torch.tensor(images.test_images[:count]).to(place()).float() / 255
    return x, torch.tensor(images.test_labels[:count]).to(place())


# --- the parts ---


def tasks_of(setting: Setting, folder: Path, net_of: NetOf) -> list[Task]:
    """Return what is measured of the nets on images: names, function and arguments; those that take longest first.

    Parameters
    ----------
    setting, folder
        What is done, and where it is kept.
    net_of
        From a name out of `NETS` to the net; where tasks go to processes, a function of a module.
    """
    effort = setting.effort
    where = setting, folder, net_of
    tasks: list[Task] = []
    for one in sorted(setting.rows, key=lambda one: -one.images * (one.xi > 0)):
        steps = {"inner": effort.inner, "outer": effort.outer, "surrogate": effort.surrogate}
        tasks.append((one.key, _behind, (one, EMBEDDINGS[one.embedding][1], steps, *where)))
    for net in NETS:
        few = {"steps": effort.few_steps, "starts": effort.few_starts}
        many = {"steps": effort.steps, "starts": effort.starts}
        embedded = {"steps": effort.steps, "inner": effort.inner, "reduced": effort.reduced}
        nearest = {"steps": effort.carlini_steps, "searches": effort.carlini_searches}
        some: list[tuple[str, Callable[..., xr.Dataset], int, tuple[Any, ...], dict[str, Any]]] = [
            ("few", separated, effort.few, ((setting.delta,),), few),
            ("separated", separated, effort.images, (setting.radii,), many),
            *((f"ranks_{radius:g}", ranks, effort.ranked, (radius,), embedded) for radius in setting.ranked),
            ("carlini", carlini, effort.carlini, (setting.delta, LEVELS[0]), nearest),
        ]
        tasks += [((name, net), _of_net, (net, name, measure, *more, *where)) for name, measure, *more in some]
    pictures = {"steps": effort.steps, "inner": effort.inner, "count": SHOWN}
    drawn = ("at", "shown", shown, min(effort.images, 200), (setting.delta,), pictures)
    return [*tasks, (("shown", "at"), _of_net, (*drawn, *where))]


def _more(setting: Setting, folder: Path) -> list[Task]:
    """Return what is measured of other nets: small ones, and those of the mixture."""
    effort = setting.effort
    small = [
        (("small", method, str(seed)), of_net, (method, seed, effort.many, effort.steps, max(effort.starts, 1), folder))
        for method in setting.methods
        for seed in range(setting.seeds)
    ]
    return [
        *small,
        (("linear",), _of_linear, (linear.QUICK if setting.quick else linear.FULL, folder)),
        (("two_layers",), _of_two_layers, (two_layers.QUICK if setting.quick else two_layers.FULL, folder)),
    ]


def parts_of(tasks: list[Task], *, quick: bool) -> dict[tuple[str, ...], xr.Dataset]:
    """Return what each task gives, by its names: on all processors, or here where that is sooner than to start processes."""
    if quick:
        return {key: function(*arguments) for key, function, arguments in tasks}
    found = in_processes(_call, [(function, arguments) for _, function, arguments in tasks])
    return {key: one for (key, _, _), one in zip(tasks, found, strict=True)}


def _call(function: Callable[..., xr.Dataset], arguments: tuple[Any, ...]) -> xr.Dataset:
    return function(*arguments)


def _of_net(
    net: str, name: str, measure: Callable[..., xr.Dataset], count: int, more: tuple[Any, ...], options: dict[str, Any],
    setting: Setting, folder: Path, net_of: NetOf,
) -> xr.Dataset:  # fmt: skip
    """Return measure(net, images, labels, *more, **options), which is kept."""
    network = net_of(net)
    x, y = test_images(setting, count)
    _LOG.info("%s: %s", net, name)
    settings = fingerprint(network), digest_of(x, y), more, options
    return kept(folder, f"{net}_{name}", settings, _with_options(measure, options), network, x, y, *more)


def _behind(
    one: Behind, options: dict[str, Any], steps: dict[str, int], setting: Setting, folder: Path, net_of: NetOf
) -> xr.Dataset:
    network = net_of(one.net)
    x, y = test_images(setting, one.images)
    _LOG.info("%s", one.title)
    settings = fingerprint(network), digest_of(x, y), one, options, steps
    name = f"{one.net}_{one.embedding}_{one.xi:g}_{one.eta:g}"
    return kept(folder, name, settings, _with_options(composed, steps), network, one, options, x, y)


def _with_options(measure: Callable[..., xr.Dataset], options: dict[str, Any]) -> Callable[..., xr.Dataset]:
    """Return a function that has some keywords; it is one of the module of the other, whose code counts."""

    def call(*arguments: Any) -> xr.Dataset:
        return measure(*arguments, **options)

    call.__module__ = measure.__module__
    return call


def _of_linear(size: linear.Size, folder: Path) -> xr.Dataset:
    return kept(folder, "linear", (size, SEED), linear.nets, size)


def _of_two_layers(size: two_layers.Size, folder: Path) -> xr.Dataset:
    return kept(folder, "two_layers", (size, SEED), two_layers.measured, size)


# --- the result ---


def outcome_of(
    parts: dict[tuple[str, ...], xr.Dataset], name: str, images: Images, setting: Setting, note: str
) -> Outcome:
    """Return what the study says of what was found."""
    data = of_images(parts, setting)
    if ("linear",) in parts:
        data = data.merge(of_small(parts)).merge(of_mixture(parts, setting))
    data = described(data)
    data.attrs = provenance(
        f"studies.{name}", seed=str(SEED), device=describe(place()), data=repr(images), quick=setting.quick,
        setting=asdict(setting), recipes={net: asdict(setting.recipe_of(net)) for net in NETS},
    ) | {"data_set": images.name, "note": note}  # fmt: skip
    return Outcome(data, figures(data), table(data), tuple(claims(data)))
