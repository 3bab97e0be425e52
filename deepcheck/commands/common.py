"""What the commands of ``deepcheck`` have in common."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from odeflow.model import checked_count
from odeflow.provenance import check_target, save

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from deepcheck.data import Images
    from deepcheck.models import Network

__all__ = ["OnImages", "OnNet", "at_most", "load_images"]


@dataclass(frozen=True)
class OnNet:
    """What the other commands have in common."""

    checkpoint: tyro.conf.Positional[Path]
    """A checkpoint, as `deepcheck train` leaves it, or the folder where it is."""
    out: Path | None = None
    """Save the records to this file (.nc or .zarr)."""
    seed: int = 0
    """Seed of the attacks, >= 0."""
    batch_size: int = 500
    """Images that the net sees at once, >= 1. The result does not depend on it."""
    device: str = "auto"
    """auto (CUDA where there is a GPU, else the CPU), cpu, cuda or cuda:N."""

    def network(self) -> tuple[Network, str, torch.device, dict[str, Any]]:
        """Return the net, the name of its data set, the device, and what is known of the net."""
        from deepcheck import checkpoint
        from deepcheck.device import choose
        from deepcheck.training.loop import BEST, LAST

        if self.out is not None:
            check_target(self.out)
        checked_count("batch_size", self.batch_size, 1)
        device = choose(self.device)
        path = self.checkpoint
        if path.is_dir():
            path = path / BEST if (path / BEST).exists() else path / LAST
        network = checkpoint.load_model(path, device=device)
        information = checkpoint.read(path)[1]
        about = {"checkpoint": str(path), **{name: information.get(name) for name in ("model", "recipe", "epoch")}}
        return network, str(information.get("dataset", "")), device, about

    def finish(self, records: xr.Dataset, text: str) -> None:
        """Print what was found, and save it if asked for."""
        print(text, *([] if self.out is None else [save(records, self.out)]), sep="\n")


@dataclass(frozen=True)
class OnImages(OnNet):
    """What the commands that need test images have in common."""

    examples: int = 1000
    """Test images to attack, the first ones, >= 1."""
    data_dir: Path | None = None
    """Folder of the data set; default: $DEEPCHECK_DATA, then the cache, then a download."""


def load_images(dataset: str, data_dir: Path | None) -> Images:
    """Return the images that a net was trained for."""
    from deepcheck.data import load

    if not dataset:
        raise ValueError("the checkpoint does not say which data set it is for: allowed is one that `train` has left")
    return load(dataset, data_dir=data_dir)


def at_most(examples: int, most: int, name: str) -> int:
    """Return the number of test images to attack: fewer than asked for where the data set is small, which is said."""
    checked_count("examples", examples, 1)
    if examples > most:
        logging.getLogger(__name__).warning("examples = %d: %s has %d to attack", examples, name, most)
    return min(examples, most)
