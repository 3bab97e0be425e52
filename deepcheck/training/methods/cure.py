"""Curvature regularisation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.base import Name, RecordableMethod
from odeflow.model import checked_count, checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model

__all__ = ["CURE", "direction"]


@dataclass(frozen=True, kw_only=True)
class CURE(RecordableMethod):
    """Curvature regularisation: gradients that stay the same along their sign (Moosavi-Dezfooli et al., CVPR 2019).

    The cross-entropy, and gamma |grad l(x + h z) - grad l(x)|, with z the sign of the gradient, of length 1. z is found in eval mode; images and moved images, which are not clipped, then go
    through the net together in train mode. There a net with batch norm has gradients by an image to which the losses of the
    whole batch add: a share 1/n of them, about.
    """

    name: Name = field(init=False, default="cure", repr=False)
    recipes: ClassVar = {
        "mnist": {"epochs": 12, "augmentation": "crop", "padding": 1, "h": 8.0, "ramp": 0.5},
        "cifar10": {"ramp": 0.5},
        "digits": {"gamma": 0.5, "ramp": 0.5},
    }
    gamma: float = 4.0
    """Weight of the change of the gradient, >= 0."""
    power: int = 1
    """Power of its length, 1 or 2. The paper has the square; the length, as in its authors' code, bounds what a single image
    with a large gradient does to a step, so that nets can be trained from the beginning."""
    h: float = 1.5
    """Length of the step over which the gradient is compared, in L2, > 0. About epsilon sqrt(D) reaches as far as L-infinity
    attacks do."""
    ramp: float = 0.0
    """Share of the training over which h grows linearly from 0, in [0, 1]."""

    def __post_init__(self) -> None:
        checked_number("gamma", self.gamma, least=0)
        checked_count("power", self.power, 1, most=2)
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
        """Return the mean cross-entropy, and gamma times the mean change of the gradient, to its power."""
        import torch

        from deepcheck.training.second_order import losses_and_gradients, losses_of, uncompiled

        (h,) = drawn
        net, n = uncompiled(model), len(images)
        x = torch.cat([images, images + h * direction(net, images, labels)])
        loss, gradient = losses_and_gradients(losses_of(net, torch.cat([labels, labels])), x)
        change = torch.linalg.vector_norm((gradient[n:] - gradient[:n]).flatten(1), dim=1)  # its slope at 0 is 0
        regulariser: Tensor = (change**self.power).mean()
        return loss[:n].mean() + self.gamma * regulariser


def direction(model: Model, images: Tensor, labels: Tensor) -> Tensor:
    """Return sign(grad l(x)) / |sign(grad l(x))|, in L2, of the cross-entropy in eval mode, and 0 where the gradient is."""
    from deepcheck.attacks.base import evaluating, frozen
    from deepcheck.attacks.norms import norm
    from deepcheck.training.second_order import losses_of, slopes

    with evaluating(model), frozen(model):
        return norm("l2").steepest(slopes(losses_of(model, labels), images)[1].sign())
