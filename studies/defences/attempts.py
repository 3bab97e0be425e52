"""From the plan to nets, defences and attacks, and what is kept of each of their meetings."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from deepcheck.attacks import registry
from deepcheck.attacks.in_order import InOrder
from deepcheck.attacks.minimal.base import WithinBudget
from deepcheck.data import Images, load
from deepcheck.defences.on_manifold import OnManifold
from deepcheck.defences.registry import DEFENCES
from deepcheck.evaluation.run import stream
from deepcheck.evaluation.standard import standard_attack
from deepcheck.evaluation.suites import effort
from deepcheck.training import Recipe
from studies.common.images import place
from studies.common.kept import digest_of, kept, made_here, own_folder
from studies.common.nets import fingerprint, kept_training
from studies.common.sources import digest
from studies.defences.corrupted import corrupted
from studies.defences.measure import SEED, Probability, attacked, clean
from studies.defences.plan import Case, Setting, Subject, cases

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    "attack_of",
    "defended",
    "effort_of",
    "few",
    "modules_of",
    "net_name",
    "of_subject",
    "test_images",
    "trained",
]

_LOG = logging.getLogger(__name__)
_OWN = {"on_manifold": OnManifold}
"""Attacks that belong to one defence, and are in no registry."""
_OBJECTIVES = {"probability": Probability()}
"""Objectives that the plan names, and that are of this study alone."""


@cache
def _loaded(dataset: str) -> Images:
    return load(dataset, download=False)


def few(setting: Setting) -> Images:
    """Return the images of a setting with the training images that are used, the first ones."""
    images, count = _loaded(setting.dataset), setting.train_images
    return replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])


def test_images(setting: Setting, count: int) -> tuple[Tensor, Tensor]:
    """Return the first test images, in [0, 1], and their classes."""
    images, device = _loaded(setting.dataset), place()
    x = torch.tensor(images.test_images[:count]).to(device).float() / 255
    return x, torch.tensor(images.test_labels[:count]).to(device)


def net_name(subject: Subject, recipe: Recipe) -> str:
    """Return what the net of a subject is called in files: the method, and a digest of the recipe."""
    return f"net_{subject.method}_{hashlib.sha256(repr(recipe).encode()).hexdigest()[:8]}"


def trained(subject: Subject, setting: Setting, folder: Path) -> nn.Module:
    """Return the net of a subject, which is kept in the folder."""
    recipe = setting.recipe_of(subject)
    name = net_name(subject, recipe)
    _LOG.info("%s: training", name)
    return kept_training(recipe, few(setting), folder, name, device=str(place())).network


def defended(subject: Subject, network: nn.Module, setting: Setting, folder: Path) -> nn.Module:
    """Return what is attacked: the net of a subject, or its defence around it. A generator is kept in the folder."""
    if subject.defence is None:
        return network
    options = dict(subject.options)
    if subject.defence == "defense_gan":
        options["generator"] = generator_of(setting, folder)
    return DEFENCES[subject.defence](network, **options)


def generator_of(setting: Setting, folder: Path) -> nn.Module:
    """Return the generator of a data set, which is trained once and kept in the folder."""
    from deepcheck.generators import RECIPES, train_generator

    recipe, images = replace(RECIPES[setting.dataset], **setting.generator), _loaded(setting.dataset)
    settings = repr(recipe), digest_of(images.train_images)
    own = own_folder(folder, made_here("generator", settings, train_generator.__module__))
    return train_generator(recipe, images, out=own, resume=True, device=str(place())).generator


def attack_of(case: Case) -> Any:
    """Return an attack within a budget in L-infinity."""
    if case.maker == "standard":
        return standard_attack("linf", **case.options)
    options = {key: _OBJECTIVES.get(one, one) if key == "objective" else one for key, one in case.options.items()}
    if case.maker in _OWN:
        return _OWN[case.maker]("linf", **options)
    return registry.within_budget(registry.make(case.maker, "linf", **options))


def modules_of(attack: Any) -> Iterator[str]:
    """Give the modules of an attack and of those that it is made of."""
    yield type(attack).__module__
    if isinstance(attack, WithinBudget):
        yield from modules_of(attack.attack)
    if isinstance(attack, InOrder):
        for _, one in attack.attacks:
            yield from modules_of(one)


def effort_of(case: Case) -> str:
    """Return how hard an attack tries, in words."""
    if case.maker == "standard":
        return f"{case.options['steps']} steps, {case.options['queries']} queries"
    return effort(attack_of(case))


def of_subject(
    subject: Subject, network: nn.Module, setting: Setting, folder: Path, some: Sequence[Case] | None = None
) -> tuple[xr.Dataset, list[xr.Dataset]]:
    """Return what is known of a subject without an attack, and what each attack finds; all is kept in the folder.

    Parameters
    ----------
    subject
        What is attacked.
    network
        Its trained net.
    setting
        Images and epsilon.
    folder
        Where parts are kept.
    some
        Attacks; None: all.
    """
    model = defended(subject, network, setting, folder).eval()
    x, y = test_images(setting, setting.efforts[subject.effort].images)
    code = () if subject.defence is None else digest(type(model).__module__)
    who = fingerprint(model), subject.defence, dict(subject.options), code
    known = kept(folder, f"{subject.name}_clean", (who, digest_of(x, y)), clean, model, x, y)
    settings = who, digest_of(x, y), setting.corruptions
    known = known.merge(
        kept(folder, f"{subject.name}_corrupted", settings, corrupted, model, setting.corruptions, x, y)
    )
    known = known.assign_coords(
        subject=subject.name, title=subject.title, source=subject.source, images=len(x), random=is_random(model)
    )
    found = []
    for case in cases(subject, setting) if some is None else some:
        attack = attack_of(case)
        count = min(case.images or len(x), len(x))
        seed = stream(SEED, f"{subject.name} {case.name}").initial_seed()
        met = case.meets, setting.epsilon, digest_of(x[:count], y[:count]), seed
        meant = who, repr(attack), met, digest(*modules_of(attack))
        _LOG.info("%s: %s, %d images", subject.name, case.title, count)
        arguments = model, attack, case.meets, setting.epsilon, x[:count], y[:count], seed
        one = kept(folder, f"{subject.name}_{case.name}", meant, attacked, *arguments)
        about: dict[str, Any] = {
            "against": subject.name,
            "evaluation": case.column,
            "attack": case.title,
            "meets": case.meets,
        }
        one = one.assign_coords(example=np.arange(count), attacked=count, attack_effort=effort_of(case), **about)
        one["broken"] = one.broken.astype(np.float64)
        found.append(one)
    return known, found


def is_random(model: nn.Module) -> bool:
    """Return whether the same images give other logits in the next call."""
    return bool(getattr(model, "random", False))
