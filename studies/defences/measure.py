"""What one attack finds on one net or defence.

Nothing here imports an attack or a defence: what is kept of one does not depend on the code of the others.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from deepcheck.attacks.calls import evaluating, logits_of
from deepcheck.attacks.judged import judged
from deepcheck.attacks.objectives import Objective
from deepcheck.defences.base import Adaptive, Defence

if TYPE_CHECKING:
    from deepcheck.attacks.base import Model

__all__ = ["BATCH", "SEED", "SHOWN", "Probability", "attacked", "clean"]

SEED = 20261130
SHOWN = 4
"""Attacked images that are kept as pictures, the first ones."""
BATCH = 100
"""Images that a net sees at once."""


@dataclass(frozen=True)
class Probability(Objective):
    """The probability of all classes but the true one, as the softmax gives it, in single precision: -p_y.

    Its gradient is a product of probabilities, and exactly 0 where they are 0 or 1 to rounding: what attacks of 2016 met on
    distilled nets (Carlini and Wagner, IEEE S&P 2017, section V).
    """

    name = "probability"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return -p_y."""
        del targets
        return -logits.float().softmax(1).gather(1, labels[:, None]).squeeze(1)


def clean(model: Model, x: Tensor, y: Tensor) -> xr.Dataset:
    """Return which images are classified correctly as they are, and the first predictions with their confidence."""
    logits = _logits(model, x)
    confidence, prediction = logits.softmax(1).max(1)
    return xr.Dataset(
        {
            "correct": ("example", (prediction == y).cpu().numpy().astype(np.int8)),
            "clean_image": (("shown", "channel", "pixel_row", "pixel_column"), x[:SHOWN].float().cpu().numpy()),
            "clean_prediction": ("shown", prediction[:SHOWN].cpu().numpy()),
            "clean_confidence": ("shown", confidence[:SHOWN].double().cpu().numpy()),
        }
    )


def attacked(model: Model, attack: Any, meets: str, epsilon: float, x: Tensor, y: Tensor, seed: int) -> xr.Dataset:
    """Attack a net or defence within a ball, and return which images it gets wrong then.

    A defence is the judge whatever the attack follows, and is asked once of each image.

    Parameters
    ----------
    model
        On the device of the images.
    attack
        One within a budget.
    meets
        What the attack follows: the model "itself", the bare "net" of a defence, a "draw" of it as it comes, or its "surrogate".
    epsilon
        Size of the perturbation.
    x, y
        Images and labels.
    seed
        Of the attack, and of what is random in a defence.
    """
    if isinstance(model, Defence):
        model.reseed(seed % 2**31)
    options: dict[str, Any] = {
        "epsilon": epsilon, "generator": torch.Generator().manual_seed(seed), "batch_size": BATCH,
    }  # fmt: skip
    start = _now(x.device)
    if meets == "surrogate":
        found = Adaptive(attack)(model, x, y, **options)
    else:
        # a copy: a net with noise of its own would go on with it
        followed = copy.deepcopy(model.net) if isinstance(model, Defence) and meets == "net" else model
        found = attack(followed, x, y, **options)
        if isinstance(model, Defence):
            found = judged(found, model, y, BATCH)
    seconds = _now(x.device) - start
    wrong = (found.prediction != y).any(-2)
    confidence, prediction = _logits(model, found.images[:SHOWN]).softmax(1).max(1)
    return xr.Dataset(
        {
            "broken": ("example", wrong.cpu().numpy().astype(np.int8)),
            "queries": ("example", found.queries.sum(-2).double().cpu().numpy()),
            "seconds": ((), seconds / len(x)),
            "image": (("shown", "channel", "pixel_row", "pixel_column"), found.images[:SHOWN].float().cpu().numpy()),
            "image_prediction": ("shown", prediction.cpu().numpy()),
            "image_confidence": ("shown", confidence.double().cpu().numpy()),
        }
    )


def _logits(model: Model, x: Tensor) -> Tensor:
    if isinstance(model, Defence):
        model.reseed(SEED % 2**31)
    with evaluating(model), torch.no_grad():
        return torch.cat([logits_of(model, part).float() for part in x.split(BATCH)])


def _now(device: torch.device) -> float:
    """Return seconds: of the processor, whatever else runs on it, or on a GPU of the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()
