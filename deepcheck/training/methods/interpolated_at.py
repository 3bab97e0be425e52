"""Interpolated adversarial training: mixup of clean images, and of attacked ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.base import Name, RampedMethod

if TYPE_CHECKING:
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.draws import Draws

__all__ = ["InterpolatedAT", "mixing", "mixup_loss"]


def mixing(images: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Return the weight of a batch's own images, shape (), from Beta(1, 1), which is uniform, and their partners, (n,)."""
    return draws.uniform(images)[0], draws.uniform(images).argsort()


def mixup_loss(logits: Tensor, labels: Tensor, weight: Tensor, partner: Tensor) -> Tensor:
    """Return w CE(z, y) + (1 - w) CE(z, y of the partner), means over the batch, of the logits of mixed images."""
    from torch.nn import functional as F

    return weight * F.cross_entropy(logits, labels) + (1 - weight) * F.cross_entropy(logits, labels[partner])


@dataclass(frozen=True, kw_only=True)
class InterpolatedAT(RampedMethod):
    """Interpolated adversarial training (Lamb et al., AISec 2019): the mean of the mixup loss on clean and attacked images.

    Each of the two has a weight, from Beta(1, 1), and a permutation of its own for the batch; the attack is on the images as
    they are. Both go through the net in one batch in train mode.
    """

    name: Name = field(init=False, default="interpolated_at", repr=False)
    recipes: ClassVar = {
        "mnist": {**AdversarialTraining.recipes["mnist"], "epochs": 16},
        "cifar10": {"attack_steps": 7},
        "digits": AdversarialTraining.recipes["digits"],
    }

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean of the mixup loss of images and that of attacked images."""
        import torch

        from deepcheck.attacks.draws import Draws, mixed

        key, *_ = drawn
        attacked = self.attacked(model, images, labels, *drawn)
        draws = Draws(mixed(key, 1))  # the attack has the stream 0
        ways = [mixing(images, draws) for _ in range(2)]
        inputs = [w * x + (1 - w) * x[partner] for x, (w, partner) in zip((images, attacked), ways, strict=True)]
        logits = model(torch.cat(inputs)).float().chunk(2)
        clean, under_attack = (mixup_loss(z, labels, *way) for z, way in zip(logits, ways, strict=True))
        return (clean + under_attack) / 2
