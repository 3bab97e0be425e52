"""Adversarial training: the cross-entropy of attacked images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck.attacks.base import Model, evaluating, frozen
from deepcheck.attacks.pgd import PGD
from deepcheck.training.methods import Method

__all__ = ["AdversarialTraining"]


@dataclass(frozen=True)
class AdversarialTraining(Method):
    """Adversarial training (Madry et al., ICLR 2018): min over w of E max over |delta| <= epsilon of the loss.

    The inner maximum is approximated by an attack in eval mode; one forward pass in train mode follows.
    """

    attack: PGD
    """The attack on the batch."""
    epsilon: float
    """Its radius, >= 0."""
    share: float = 1.0
    """Share of the batch that is attacked, in (0, 1]: 1, or 1/2 as in Szegedy et al. The first examples stay clean;
    at least one is attacked."""
    ramp: float = 0.0
    """Share of the training over which the radius grows linearly from 0 to epsilon, in [0, 1]. A small convolutional
    net that meets epsilon = 0.3 on MNIST at once may never leave the uniform prediction."""

    def loss(
        self, model: Model, images: Tensor, labels: Tensor, *, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the mean cross-entropy of the batch, attacked in part or whole."""
        clean = min(round((1 - self.share) * len(images)), len(images) - 1)
        epsilon = self.epsilon * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)
        with evaluating(model), frozen(model):
            attacked = self.attack.perturb(model, images[clean:], labels[clean:], epsilon, generator)
        inputs = torch.cat([images[:clean], attacked]) if clean else attacked
        return F.cross_entropy(model(inputs).float(), labels)
