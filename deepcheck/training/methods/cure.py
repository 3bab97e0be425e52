"""Curvature regularisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.base import Name, RecordableMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model

__all__ = ["CURE", "direction"]


@dataclass(frozen=True, kw_only=True)
class CURE(RecordableMethod):
    """Curvature regularisation: gradients that stay the same along their sign (Moosavi-Dezfooli et al., CVPR 2019).

    The cross-entropy, and gamma |grad l(x + h z) - grad l(x)|^2, with z the sign of the gradient, of length 1. The cross-entropy
    is of a pass in train mode; both gradients are taken in eval mode, where that of an example depends on it alone.
    """

    name: Name = field(init=False, default="cure", repr=False)
    recipes: ClassVar = {
        "mnist": {"epochs": 12, "augmentation": "crop", "padding": 1, "h": 8.0, "ramp": 0.5},
        "cifar10": {"ramp": 0.5},
        "digits": {"ramp": 0.5},
    }
    gamma: float = 4.0
    """Weight of the curvature, >= 0."""
    h: float = 1.5
    """Length of the step over which the gradient is compared, in L2, > 0. About epsilon sqrt(D) reaches as far as L-infinity
    attacks do."""
    ramp: float = 0.0
    """Share of the training over which h grows linearly from 0, in [0, 1]."""

    def __post_init__(self) -> None:
        checked_number("gamma", self.gamma, least=0)
        checked_number("h", self.h, above=0)
        checked_number("ramp", self.ramp, least=0, most=1)

    def h_at(self, progress: float) -> float:
        """Return the length of the step at this progress of the training, in [0, 1)."""
        return self.h * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Tensor]:
        """Return h, as a tensor, because it changes from step to step; nothing is drawn."""
        del generator
        return (images.new_full((), self.h_at(progress)),)

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean cross-entropy, and gamma times the mean square of how the gradient changes."""
        import torch

        from deepcheck.training.second_order import losses_and_gradients, losses_of, uncompiled

        (h,) = drawn
        net, n = uncompiled(model), len(images)
        x = torch.cat([images, images + h * direction(net, images, labels)])
        loss, gradient = losses_and_gradients(losses_of(net, torch.cat([labels, labels])), x)
        change = (gradient[n:] - gradient[:n]).square().flatten(1).sum(1)
        return loss[:n].mean() + self.gamma * change.mean()


def direction(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Return sign(grad l(x)) / |sign(grad l(x))|, in L2, of the cross-entropy in eval mode, and 0 where the gradient is."""
    from deepcheck.attacks.base import evaluating, frozen
    from deepcheck.attacks.norms import norm
    from deepcheck.training.second_order import losses_of, slopes

    with evaluating(model), frozen(model):
        return norm("l2").steepest(slopes(losses_of(model, labels), images)[1].sign())
