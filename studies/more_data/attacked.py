"""What PGD turns of the images that a net is attacked on."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from deepcheck.attacks.gradient.pgd import PGD
from deepcheck.models import Network

__all__ = ["ATTACK", "measured"]

ATTACK: dict[str, Any] = {"steps": 20, "relative_step_size": 0.15, "restarts": 2}
"""PGD in the test, on cross-entropy and on the margin of the logits each: the worst case counts."""
_SEED = 20261129
_BATCH = 100


def measured(network: Network, x: Tensor, y: Tensor, epsilons: tuple[float, ...]) -> xr.Dataset:
    """Return which images are wrong without an attack, and which PGD turns at each epsilon.

    S from it is a lower bound of the adversarial error, on these images. What an attack of a smaller epsilon turns, it turns at a
    larger one.
    """
    network.eval()
    with torch.no_grad():
        clean = torch.cat([network(part).argmax(1) for part in torch.split(x, _BATCH)]) != y
    wrong = clean.expand(len(epsilons), -1).cpu().numpy().copy()
    for k, objective in enumerate(("cross_entropy", "margin")):
        attack = PGD("linf", objective, **ATTACK)
        generator = torch.Generator().manual_seed(_SEED + k)
        found = attack(network, x, y, epsilon=list(epsilons), generator=generator, batch_size=_BATCH)
        wrong |= (found.prediction != y).any(-2).cpu().numpy()
    wrong = np.logical_or.accumulate(wrong, axis=0)
    return xr.Dataset(
        {
            "wrong": ("example", clean.cpu().numpy().astype(np.int8)),
            "turned": (("epsilon", "example"), wrong.astype(np.int8)),
        },
        {"epsilon": list(epsilons)},
    )
