"""Free adversarial training: each gradient moves the weights and the attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from deepcheck.checks import checked_choice
from deepcheck.training.methods.base import Method, Name
from odeflow.model import checked_count, checked_number

if TYPE_CHECKING:
    from torch import Tensor, nn

    from deepcheck.attacks.base import Model
    from deepcheck.models import Network

__all__ = ["FreeAT"]


@dataclass(frozen=True, kw_only=True)
class FreeAT(Method):
    """Free adversarial training: one gradient moves weights and perturbation (Shafahi et al., NeurIPS 2019).

    Each batch is replayed m times. Every time the cross-entropy of clip(x + d) is followed by the weights, and its gradient
    by the images, which is there anyway, moves d <- project(d + s epsilon steepest(gradient)). d is kept from batch to batch,
    one for each place in a batch: one pass a step. The epochs of the recipes are those of usual training divided by m.
    """

    name: Name = field(init=False, default="free_at", repr=False)
    recipes: ClassVar = {
        "mnist": {"width": 2, "epochs": 6, "augmentation": "crop", "padding": 1},
        "cifar10": {"epochs": 25, "learning_rate": 0.1, "schedule": "step", "weight_decay": 2e-4},
        "digits": {"epochs": 10, "repeats": 6},
    }
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the training attack."""
    epsilon: float = 0.3
    """Radius of the training attack, >= 0."""
    relative_step: float = 1.0
    """Step of the perturbation, in units of epsilon, > 0."""
    repeats: int = 8
    """Steps on each batch, m, >= 1."""

    def __post_init__(self) -> None:
        checked_choice("norm", self.norm, ("linf", "l2"))
        checked_number("epsilon", self.epsilon, least=0)
        checked_number("relative_step", self.relative_step, above=0)
        checked_count("repeats", self.repeats, 1)

    def replays(self) -> int:
        """Return m."""
        return self.repeats

    def start(self, network: Network, *, batch_size: int, **_: Any) -> nn.Module:
        """Return the perturbations, one for each place in a batch: none at first."""
        import torch
        from torch import nn

        state = nn.Module()
        state.register_buffer("delta", torch.zeros(batch_size, *network.in_shape))
        return state

    def loss(self, model: Model, images: Tensor, labels: Tensor, *, state: nn.Module, **_: Any) -> Tensor:
        """Return the mean cross-entropy of the images with the perturbations as they are, clipped to [0, 1]."""
        from torch.nn import functional as F

        delta = state.get_buffer("delta").requires_grad_()
        delta.grad = None
        return F.cross_entropy(model((images + delta).clamp(0, 1)).float(), labels)

    def after_step(self, *, state: nn.Module, **_: Any) -> None:
        """Move the perturbations along the gradient that the weights have followed."""
        import torch

        from deepcheck.attacks.norms import norm

        ball, delta = norm(self.norm), state.get_buffer("delta")
        assert delta.grad is not None
        with torch.no_grad():
            step = self.relative_step * self.epsilon * ball.steepest(delta.grad)
            delta.copy_(ball.project(delta + step, self.epsilon))
