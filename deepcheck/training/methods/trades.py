"""TRADES: accuracy, and predictions that do not change under attack."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from deepcheck.checks import checked_choice
from deepcheck.training.methods.base import Name, RampedMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.pgd import PGD

__all__ = ["Trades", "divergence"]

Ascent = Literal["published", "ball", "cross_entropy"]


def divergence(logits: Tensor, attacked: Tensor) -> Tensor:
    """Return the mean over a batch of KL(p || p') = sum over k of p_k log(p_k / p'_k), of logits of p and p', (n, K)."""
    from torch.nn import functional as F

    return F.kl_div(attacked.log_softmax(1), logits.log_softmax(1), reduction="batchmean", log_target=True)


@dataclass(frozen=True, kw_only=True)
class Trades(RampedMethod):
    """TRADES (Zhang et al., ICML 2019): cross-entropy of images + beta KL(p(x) || p(x')), x' as far in KL as an attack finds.

    The attack ascends on the divergence, in eval mode, from 0.001 N(0, 1) next to the image. Images and attacked images go
    through the net in one batch in train mode, and the gradient through both.
    """

    name: Name = field(init=False, default="trades", repr=False)
    recipes: ClassVar = {
        "mnist": {
            "model": "conv_small",
            "width": 2,
            "epochs": 16,
            "learning_rate": 0.02,
            "precision": "bfloat16",
            "augmentation": "crop",
            "padding": 1,
            "test_epsilon": 0.3,
            "beta": 3.0,
            "ascent": "cross_entropy",
            "epsilon": 0.35,
            "attack_steps": 6,
            "step_size": 0.12,
            "first_steps": 3,
            "growth": 0.4,
            "ramp": 0.4,
        },
        "cifar10": {"epsilon": 0.031, "attack_steps": 10, "step_size": 0.007},
        "digits": {"ramp": 0.4},
    }
    beta: float = 6.0
    """Weight of the divergence, >= 0."""
    ascent: Ascent = "published"
    """How x' is found. published: by ascent on the divergence from 0.001 N(0, 1); ball: from a uniform point in the ball;
    cross_entropy: by ascent on the cross-entropy from there, which does not end where the net is only surer of its class."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("beta", self.beta, least=0)
        checked_choice("ascent", self.ascent, get_args(Ascent))

    @cached_property
    def attack(self) -> PGD:
        """The attack, with all its steps."""
        from deepcheck.attacks.starts import Nearby

        if self.ascent == "cross_entropy":
            return super().attack
        on_divergence = replace(super().attack, objective="divergence")
        return on_divergence if self.ascent == "ball" else replace(on_divergence, start=Nearby(0.001))

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean of the cross-entropy of x + beta KL(p(x) || p(x'))."""
        import torch
        from torch.nn import functional as F

        from deepcheck.attacks.base import evaluating

        key, attack, epsilon = drawn
        p = None
        if attack.objective.compares:
            with evaluating(model), torch.no_grad():
                p = model(images).float().log_softmax(1)
        attacked = self.attacked(model, images, labels, key, attack, epsilon, p)
        z, z_attacked = model(torch.cat([images, attacked])).float().chunk(2)
        return F.cross_entropy(z, labels) + self.beta * divergence(z, z_attacked)
