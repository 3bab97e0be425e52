"""How often one net or defence is wrong on images that are corrupted naturally."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from torch import Tensor

from deepcheck.evaluation.corrupted import corruption_errors
from studies.defences.measure import BATCH, SEED

if TYPE_CHECKING:
    from deepcheck.attacks.base import Model

__all__ = ["corrupted"]


def corrupted(model: Model, benchmark: str, x: Tensor, y: Tensor) -> xr.Dataset:
    """Return in which share of the severities each image is misclassified, by corruption.

    Parameters
    ----------
    model
        On the device of the images.
    benchmark
        "mnist_c" or "cifar10_c".
    x, y
        Images and labels.
    """
    found = corruption_errors(model, (x, y), [benchmark], seed=SEED, device=x.device, batch_size=BATCH)
    wrong = (found.prediction != found.label).mean("severity").transpose("corruption", "example")
    return xr.Dataset(
        {"corrupted": (("corruption", "example"), wrong.values.astype(np.float64))},
        {"corruption": [str(name) for name in found.corruption.values]},
    )
