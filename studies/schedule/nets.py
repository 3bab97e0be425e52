"""AT of nets on images with a radius that changes during training: constant, the usual warm-up, or the theory's ramp."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from deepcheck.attacks.gradient.apgd import APGD
from deepcheck.data import Images
from deepcheck.training import recipe
from studies.common.images import batch_at, place
from studies.common.kept import kept
from studies.common.nets import kept_training

__all__ = ["SHAPES", "Nets", "measured", "net_on_images"]

SEED = 20261127
SHAPES: dict[str, tuple[float, ...]] = {
    "constant": (1.0, 1.0),
    "warm-up": (0.0, 0.5, 1.0, 1.0, 1.0, 1.0),
    "growing": (1 / 3, 5 / 3),
}
"""The radius at equal distances over the training, in units of the strength, and linear in between. The theory's schedules grow
about linearly over the whole training, from a third of the best constant radius to 1.7 times that; their mean is nearly the same."""


@dataclass(frozen=True)
class Nets:
    """Nets of one kind that learn in one way."""

    model: str
    learning_rate: float
    epochs: int
    images: int
    """Training images, the first ones."""
    seeds: int
    epsilon: float
    """Radius of the test's attack, in L-infinity."""
    strengths: tuple[float, ...]
    """Of the training attack, in units of that."""
    batch_size: int = 64
    validation: int = 100
    tested: int = 1000
    """Test images that are attacked."""

    @property
    def kind(self) -> str:
        """What tells these from the others."""
        passes = "one pass" if self.epochs == 1 else f"{self.epochs} epochs"
        return f"{self.model}, rate {self.learning_rate:g}, {passes}"


def net_on_images(nets: Nets, shape: str, strength: float, seed: int, images: Images, folder: Path) -> xr.Dataset:
    """Train a net, or take it as it was trained, and return its errors on test images, clean and attacked."""
    count = nets.images + nets.validation
    images = replace(images, train_images=images.train_images[:count], train_labels=images.train_labels[:count])
    name = f"{nets.model}_{nets.learning_rate:g}_{nets.epochs}_{shape}_{strength:g}_{seed}"
    settings = SEED, nets, SHAPES[shape], strength, seed, images.name
    return kept(folder, name, settings, measured, nets, shape, strength, seed, images, folder, name)


def measured(nets: Nets, shape: str, strength: float, seed: int, images: Images, folder: Path, name: str) -> xr.Dataset:
    """Return E and S of one net (S by APGD on the margin: approximate, from below)."""
    radii = [nets.epsilon * strength * share for share in SHAPES[shape]]
    changes: dict[str, Any] = {
        "model": nets.model, "width": None, "epochs": nets.epochs, "batch_size": nets.batch_size, "seed": seed,
        "learning_rate": nets.learning_rate, "schedule": "constant", "average": 0.0, "augmentation": "none",
        "validation": nets.validation, "epsilon": nets.epsilon, "epsilon_schedule": radii, "attack_steps": 5,
        "step_size": max(radii) / 2, "ramp": 0.0,
    }  # fmt: skip
    network = kept_training(recipe(images.name, "at", **changes), images, folder, name, device=str(place())).network
    x = torch.tensor(images.test_images[: nets.tested]).to(place()).float() / 255
    y = torch.tensor(images.test_labels[: nets.tested]).to(place())
    attack = APGD("linf", "margin", steps=20)
    generator = torch.Generator(x.device).manual_seed(SEED)
    found = attack(network, x, y, epsilon=nets.epsilon, generator=generator, batch_size=batch_at(x.device))
    with torch.no_grad():
        clean, attacked = (network(part).argmax(1) != y for part in (x, found.images))
    errors = [float(wrong.double().mean()) for wrong in (clean, attacked)]
    return xr.Dataset({"net_errors": ("measure", np.array(errors))}, {"measure": ["error", "adversarial_error"]})
