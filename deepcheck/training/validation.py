"""How well a network does on the images kept apart."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor

from deepcheck.attacks.base import evaluating
from deepcheck.attacks.pgd import PGD
from deepcheck.models import Network

__all__ = ["accuracies"]


def accuracies(
    network: Network,
    images: Tensor,
    labels: Tensor,
    threat: tuple[str, float],
    *,
    generator: torch.Generator,
    precision: AbstractContextManager[object],
) -> tuple[float, float]:
    """Return the clean accuracy, and that under PGD with 10 steps of a quarter of the radius.

    Parameters
    ----------
    network
        It is put into eval mode, and back afterwards.
    images, labels
        Shape (n, C, H, W) in [0, 1], and (n,).
    threat
        Norm and radius of the attack.
    generator
        Source of the attack's random numbers.
    precision
        The context in which the network is used.
    """
    norm, epsilon = threat
    attack = PGD(norm, steps=10, relative_step_size=0.25)
    with evaluating(network), precision:
        with torch.no_grad():
            clean = torch.cat([network(part).argmax(1) for part in torch.split(images, 500)])
        attacked = attack(network, images, labels, epsilon=epsilon, generator=generator)
    return float((clean == labels).double().mean()), float((attacked.prediction[0] == labels).double().mean())
