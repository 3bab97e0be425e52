"""How a net is attacked: the records of every attacked test image, and of noise."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepcheck.data import Images
from deepcheck.evaluation import Planned, Threats, distal, evaluate, joined, sanity_checks
from deepcheck.evaluation.run import split, stream
from deepcheck.models import Network
from deepcheck.training import Recipe
from studies.common.kept import discard, kept

if TYPE_CHECKING:
    import torch
    import xarray as xr

__all__ = ["SEED", "Setting", "discard_attacks", "records_of", "records_of_noise", "with_checks"]

SEED = 20260611

Parts = tuple[Path, str, object]
"""The study's folder, the training, and the settings of its records."""


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


def records_of(
    network: Network,
    images: Images,
    setting: Setting,
    planned: Mapping[str, Planned],
    parts: Parts,
    options: dict[str, Any],
) -> xr.Dataset:
    """Return the records of the test images under all attacks of a suite, with checks for signs of false robustness.

    Each attack is kept until all are there: an evaluation that is stopped goes on with the next attack.
    """
    folder, training, settings = parts
    found = [
        kept(
            folder, f"{training}_{name}", (settings, name), _records, network, images, {name: attack}, setting, options
        )
        for name, attack in planned.items()
    ]
    return with_checks(joined(found), network, images, setting, planned, options["device"])


def with_checks(
    records: xr.Dataset,
    network: Network,
    images: Images,
    setting: Setting,
    planned: Mapping[str, Planned],
    device: torch.device,
) -> xr.Dataset:
    """Return records with an attribute `checks`: what was found of signs of false robustness."""
    (x, y), _ = split(images, min(setting.examples, 200), 0, device)
    checks = sanity_checks(
        network,
        x,
        y,
        epsilon=setting.threats.linf[0],
        generator=stream(SEED, "sanity"),
        queries=setting.queries,
        planned=planned,
        records=records,
    )
    said = [{"passed": check.passed, "text": str(check)} for check in checks]
    return records.assign_attrs(checks=json.dumps(said))


def _records(
    network: Network, images: Images, planned: Mapping[str, Planned], setting: Setting, options: dict[str, Any]
) -> xr.Dataset:
    options = options | {"examples": setting.examples, "validation": setting.validation}
    return evaluate(network, images, planned, seed=SEED, batch_size=setting.batch_size, **options)


def discard_attacks(planned: Mapping[str, Planned], parts: Parts) -> None:
    """Remove the records of single attacks, which are among those of all."""
    folder, training, settings = parts
    for name in planned:
        discard(folder, f"{training}_{name}", (settings, name), _records)


def records_of_noise(network: Network, images: Images, setting: Setting, options: dict[str, Any]) -> xr.Dataset:
    """Return the records of noise, and of the distal examples that an attack makes of it."""
    options = options | {"epsilon": setting.threats.linf[0], "count": setting.examples, "steps": setting.steps}
    return distal(network, images.shape, seed=SEED, batch_size=setting.batch_size, **options)
