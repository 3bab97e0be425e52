"""Proposition 1 for many nets: small ones that learn the digits by several methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import xarray as xr

from deepcheck.data import load
from deepcheck.evaluation.separation import loss_bounds
from deepcheck.training import recipe
from studies.common.kept import digest_of, kept
from studies.common.nets import fingerprint, kept_training
from studies.hcnn.measure import separated

__all__ = ["DELTAS", "LEVELS", "of_net"]

DELTAS = (0.05, 0.1, 0.2)
LEVELS = (0.5, 0.7, 0.9, 0.99)
EPOCHS = 10


def bounded(net: Any, x: torch.Tensor, y: torch.Tensor, steps: int, starts: int) -> xr.Dataset:
    """Return shares and bounds of one net: of the worst loss that its own attack finds, and of the loss without an attack."""
    found = separated(net, x, y, (0.0, *DELTAS), steps=steps, starts=starts)
    table = loss_bounds(found, level=list(LEVELS)).sel(worst_of="loss attack")
    bound = table.separation_bound
    return xr.Dataset(
        {
            "small_share": table.share.isel(delta=slice(1, None)),
            "small_error": table.error.isel(delta=slice(1, None)),
            "small_bound": bound.isel(delta=slice(1, None)),
            "small_error_bound": table.error_bound.isel(delta=slice(1, None)),
            "small_clean_bound": bound.isel(delta=0, drop=True),
        }
    ).drop_vars("worst_of")


def of_net(method: str, seed: int, count: int, steps: int, starts: int, folder: Path) -> xr.Dataset:
    """Return the same of a net that is trained and kept in the folder."""
    images = load("digits")
    own: dict[str, Any] = {} if method == "standard" else {"epsilon": 0.2, "attack_steps": 4, "step_size": 0.1}
    one = recipe("digits", method, epochs=EPOCHS, batch_size=32, validation=100, seed=seed, **own)
    net = kept_training(one, images, folder, f"small_{method}_{seed}").network
    x = torch.tensor(images.test_images[:count]).float() / 255
    y = torch.tensor(images.test_labels[:count])
    settings = fingerprint(net), digest_of(x, y), steps, starts, DELTAS, LEVELS
    part = kept(folder, f"small_{method}_{seed}_bounds", settings, bounded, net, x, y, steps, starts)
    return part.assign_coords(small=f"{method} {seed}")
