"""What one attack finds on one net.

Nothing here imports an attack: what is kept of one does not depend on the code of the others.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.attacks.judged import best_restart
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.plot_attacks import pictures_of

if TYPE_CHECKING:
    from deepcheck.attacks.base import Model

__all__ = ["BATCH", "SEED", "SHOWN", "Scaled", "measured"]

SEED = 20261127
SHOWN = 4
"""Images that are kept as pictures, the first ones."""
BATCH = 100
"""Images that a net sees at once."""
Tensors = tuple[Tensor, Tensor]


def measured(
    network: Model, attack: Any, epsilons: tuple[float, ...], examples: Tensors, others: Tensors, seed: int
) -> xr.Dataset:
    """Attack a net once, and return what was found for each image at each epsilon.

    Parameters
    ----------
    network
        On the device of the images.
    attack
        Out of the registry; one that has to be prepared is, on the others.
    epsilons
        Sizes of the perturbation. An attack that looks for the nearest example is run once for all.
    examples
        Images and labels.
    others
        Training images and labels.
    seed
        Of the attack.
    """
    x, y = examples
    options: dict[str, Any] = {"generator": torch.Generator().manual_seed(seed), "batch_size": BATCH}
    start = _now(x.device)
    if hasattr(attack, "prepare"):
        some = (one[: attack.prepare_on] for one in others)
        attack = attack.prepare(network, *some, epsilon=list(epsilons), **options)
    ready = _now(x.device)
    if isinstance(attack, MinimalAttack):
        found = attack(network, x, y, **options)
        end = _now(x.device)
        images = found.images.expand(len(epsilons), *found.images.shape)
        length = found.length.amin(0).expand(len(epsilons), -1)
    else:
        found = attack(network, x, y, epsilon=list(epsilons), **options)
        end = _now(x.device)
        images = found.images
        length = found.length.gather(-2, best_restart(found).unsqueeze(-2)).squeeze(-2)
    says = pictures_of(network, images.flatten(0, 1), batch_size=BATCH)
    shape = len(epsilons), len(x)
    prediction, confidence = says.prediction.reshape(shape), says.confidence.reshape(shape)
    wrong = prediction != y.cpu().numpy()
    distance = np.where(wrong, length.double().cpu().numpy(), np.inf)
    inside = distance <= np.array(epsilons)[:, None] if isinstance(attack, MinimalAttack) else wrong
    queries = found.queries.sum(-2).double().cpu().numpy()
    dims = "epsilon", "example"
    pixels = "shown", "channel", "row", "column"
    return xr.Dataset(
        {
            "broken": (dims, inside.astype(np.int8)),
            "distance": (dims, distance),
            "confidence": (dims, confidence),
            "queries": (dims, np.broadcast_to(queries, shape).copy()),
            "seconds": ((), (end - ready) / (len(x) * (1 if isinstance(attack, MinimalAttack) else len(epsilons)))),
            "preparing_seconds": ((), ready - start),
            "image": (pixels, images[0, :SHOWN].float().cpu().numpy()),
            "image_prediction": ("shown", prediction[0, :SHOWN]),
            "image_confidence": ("shown", confidence[0, :SHOWN]),
        },
        {"epsilon": list(epsilons)},
    )


class Scaled(nn.Module):
    """A net with its logits times a factor: the same classes, and where the factor is large no gradient of cross-entropy.

    Parameters
    ----------
    network
        From images to logits.
    factor
        Of the logits, > 0.
    """

    def __init__(self, network: nn.Module, factor: float) -> None:
        super().__init__()
        self.network = network
        self.factor = factor

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        return self.factor * torch.as_tensor(self.network(images))


def _now(device: torch.device) -> float:
    """Return seconds: of the processor, whatever else runs on it, or on a GPU of the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()
