"""Adversarial training: the cross-entropy of attacked images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.base import Name, RampedMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.pgd import PGD

__all__ = ["AdversarialTraining"]


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(RampedMethod):
    """Adversarial training (Madry et al., ICLR 2018): min over w of E max over |delta| <= epsilon of the loss.

    The inner maximum is approximated by an attack in eval mode; one forward pass in train mode follows.
    """

    name: Name = field(init=False, default="at", repr=False)
    recipes: ClassVar = {
        "mnist": {
            "width": 2,
            "epochs": 20,
            "augmentation": "crop",
            "padding": 1,
            "epsilon": 0.33,
            "attack_steps": 8,
            "step_size": 0.08,
            "ramp": 0.4,
        },
        "digits": {"ramp": 0.4},
    }
    attacked_share: float = 1.0
    """Share of each batch that is attacked, in (0, 1]: 1, or 1/2 as in Szegedy et al. The first examples stay clean;
    at least one is attacked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("attacked_share", self.attacked_share, above=0, most=1)

    def _clean(self, images: Tensor) -> int:
        """Return how many of a batch stay clean."""
        return min(round((1 - self.attacked_share) * len(images)), len(images) - 1)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Any, ...]:
        """Return keys of random numbers for what is attacked, the attack, and its radius."""
        return super().drawn(images[self._clean(images) :], progress=progress, generator=generator)

    def inputs(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        key: Tensor,
        attack: PGD,
        epsilon: float,
        factors: Tensor | None = None,
    ) -> Tensor:
        """Return the batch, attacked in part or whole, for what was drawn: keys, attack, radius, and factors of it."""
        import torch

        clean = self._clean(images)
        attacked = self.attacked(model, images[clean:], labels[clean:], key, attack, epsilon, factors=factors)
        return torch.cat([images[:clean], attacked]) if clean else attacked

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean cross-entropy of the batch, attacked in part or whole."""
        from torch.nn import functional as F

        return F.cross_entropy(model(self.inputs(model, images, labels, *drawn)).float(), labels)
