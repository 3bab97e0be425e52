"""Confidence-calibrated adversarial training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck.attacks.base import Model, evaluating, frozen
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import Gaussian, OneOf, UniformLength, Zero
from deepcheck.training.methods import Method

__all__ = ["CCAT", "ccat_attack", "soft_targets", "true_class_weight"]


def ccat_attack(*, steps: int, step_size: float) -> PGD:
    """Return the attack that CCAT trains with: ascent on the confidence in a wrong class, with smoothed signs.

    Momentum 0.9, backtracking by 1.5, the best iterate; starts are Gaussian, of uniform length, or zero.
    """
    return PGD(
        "linf",
        "wrong_confidence",
        steps=steps,
        step_size=step_size,
        momentum=0.9,
        backtracking=1.5,
        start=OneOf((Gaussian(), UniformLength(), Zero())),
        stop_when_reached=False,
    )


def true_class_weight(length: Tensor, epsilon: float, rho: float) -> Tensor:
    """Return lambda = (1 - min(1, |delta| / epsilon))^rho, shape (n,): 1 at the image, 0 at the edge of the ball."""
    return (1 - (length / epsilon).clamp(max=1.0)) ** rho


def soft_targets(labels: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """Return lambda onehot(y) + (1 - lambda) / K, shape (n, K): from the label to the uniform distribution."""
    weight = weight[:, None]
    return weight * F.one_hot(labels, num_classes) + (1 - weight) / num_classes


@dataclass(frozen=True)
class CCAT(Method):
    """Confidence-calibrated adversarial training (Stutz, Hein and Schiele, ICML 2020).

    One half of the batch is clean, with its labels. The other half is attacked, and its targets go over to the uniform
    distribution with the distance |delta| from the image. Both halves have the weight 1/2, in one forward pass.
    """

    attack: PGD
    """The attack on the second half of the batch."""
    epsilon: float
    """Its radius, > 0."""
    rho: float = 10.0
    """Power of the transition to the uniform distribution, > 0."""

    def loss(
        self, model: Model, images: Tensor, labels: Tensor, *, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return 1/2 cross-entropy of the clean half + 1/2 cross-entropy of the attacked half with soft targets."""
        del progress
        half = len(images) // 2
        x, y = images[half:], labels[half:]
        with evaluating(model), frozen(model):
            attacked = self.attack.perturb(model, x, y, self.epsilon, generator)
        logits = model(torch.cat([images[:half], attacked])).float()
        assert isinstance(self.attack.norm, Norm)
        weight = true_class_weight(self.attack.norm.length(attacked - x), self.epsilon, self.rho)
        targets = soft_targets(y, weight, logits.shape[1])
        return F.cross_entropy(logits[:half], labels[:half]) / 2 + F.cross_entropy(logits[half:], targets) / 2
