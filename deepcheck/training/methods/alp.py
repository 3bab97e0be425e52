"""Adversarial logit pairing: logits that an attack does not change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.base import Name, RampedMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    from torch import Tensor

    from deepcheck.attacks.base import Model

__all__ = ["LogitPairing"]


@dataclass(frozen=True, kw_only=True)
class LogitPairing(RampedMethod):
    """Adversarial logit pairing (Kannan, Kurakin and Goodfellow, 2018): AT on a mixed batch + lambda |z(x) - z(x')|^2.

    The mixed batch has each image twice, clean and attacked, in one forward pass; the gradient goes through both logits.
    """

    name: Name = field(init=False, default="alp", repr=False)
    recipes: ClassVar = {
        "mnist": {**AdversarialTraining.recipes["mnist"], "epochs": 16},
        "digits": AdversarialTraining.recipes["digits"],
    }
    pairing: float = 0.5
    """Weight lambda of the squared distance of the logits, summed over the classes, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("pairing", self.pairing, least=0)

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean cross-entropy of images and attacked images + lambda times the mean of |z(x) - z(x')|^2."""
        import torch
        from torch.nn import functional as F

        attacked = self.attacked(model, images, labels, *drawn)
        logits = model(torch.cat([images, attacked])).float()
        z, z_attacked = logits.chunk(2)
        distance = (z - z_attacked).square().sum(1)
        return F.cross_entropy(logits, labels.repeat(2)) + self.pairing * distance.mean()
