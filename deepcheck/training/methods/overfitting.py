"""Catastrophic overfitting: a net that withstands the few steps it is trained with, and no others."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.pgd import PGD

__all__ = ["overfitted", "seen_overfitting"]

_LOG = logging.getLogger(__name__)


def seen_overfitting(
    model: Model,
    images: Tensor,
    labels: Tensor,
    attack: PGD,
    *,
    epsilon: float,
    share: float,
    generator: torch.Generator,
) -> dict[str, float]:
    """Return, for the history, what a net withstands of its training attack and of PGD; a collapse is logged as a warning.

    In catastrophic overfitting (Wong, Rice and Kolter, ICLR 2020) the accuracy under PGD falls, often to 0 within an epoch,
    while that under the attack of the training stays where it was, or rises.

    Parameters
    ----------
    model
        In eval mode.
    images, labels
        Shape (n, C, H, W) in [0, 1], and (n,): images that it was not trained on.
    attack
        That of the training.
    epsilon
        Radius of both attacks, >= 0: that of the training at this time.
    share
        The net has overfitted where its accuracy under PGD is below this share of that under the training's attack.
    generator
        Source of all random numbers.

    Returns
    -------
    dict
        trained_attack_accuracy; pgd_accuracy, under 10 steps of a quarter of the radius; and overfitted, 1 or 0.
    """
    from deepcheck.attacks.pgd import PGD

    def accuracy(one: PGD) -> float:
        prediction = one(model, images, labels, epsilon=epsilon, generator=generator).prediction[0]
        return float((prediction == labels).double().mean())

    own, other = accuracy(attack), accuracy(PGD(attack.norm, steps=10, relative_step_size=0.25))
    collapsed = other < share * own
    if collapsed:
        _LOG.warning(
            "catastrophic overfitting: at epsilon = %.4g the accuracy is %.4f under the attack of the training, and %.4f "
            "under PGD with 10 steps",
            *(epsilon, own, other),
        )
    return {"trained_attack_accuracy": own, "pgd_accuracy": other, "overfitted": float(collapsed)}


def overfitted(history: Sequence[Mapping[str, float]]) -> bool:
    """Return whether the last epoch of a history has overfitted so."""
    return bool(history[-1].get("overfitted", 0.0))
