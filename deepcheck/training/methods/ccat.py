"""Confidence-calibrated adversarial training."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from deepcheck.checks import checked_choice
from deepcheck.training.methods.base import AttackingMethod, Name, RecordableMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.pgd import PGD

__all__ = ["CCAT", "ccat_attack", "soft_targets", "true_class_weight"]


def ccat_attack(*, steps: int, step_size: float) -> PGD:
    """Return the attack that CCAT trains with: ascent on the confidence in a wrong class, with smoothed signs.

    Momentum 0.9, backtracking by 1.5, the best iterate; starts are Gaussian, of uniform length, or zero.
    """
    from deepcheck.attacks.pgd import PGD
    from deepcheck.attacks.starts import Gaussian, OneOf, UniformLength, Zero

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
    import torch

    weight = weight[:, None]
    # onehot(y), without looking at the largest label as torch's one_hot does
    onehot = labels[:, None] == torch.arange(num_classes, device=labels.device)
    return weight * onehot + (1 - weight) / num_classes


@dataclass(frozen=True, kw_only=True)
class CCAT(AttackingMethod, RecordableMethod):
    """Confidence-calibrated adversarial training (Stutz, Hein and Schiele, ICML 2020).

    One half of the batch is clean, with its labels. The other half is attacked in L-infinity, and its targets go over
    to the uniform distribution with the distance |delta| from the image. Both halves have the weight 1/2, in one
    forward pass.
    """

    name: Name = field(init=False, default="ccat", repr=False)
    norm: Literal["linf"] = "linf"
    """Norm of the training attack."""
    epsilon: float = 0.3
    """Radius of the training attack, > 0."""
    rho: float = 10.0
    """Power of the transition to the uniform distribution, > 0."""

    def __post_init__(self) -> None:
        checked_choice("norm", self.norm, ("linf",))
        checked_number("epsilon", self.epsilon, above=0)
        super().__post_init__()
        checked_number("rho", self.rho, above=0)

    @cached_property
    def attack(self) -> PGD:
        """The attack on the second half of the batch."""
        return ccat_attack(steps=self.attack_steps, step_size=self.step_size)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Tensor]:
        """Return keys of random numbers for the second half."""
        import torch

        from deepcheck.attacks.draws import keys

        del progress
        return (keys(generator, torch.arange(len(images) - len(images) // 2, device=images.device)),)

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return 1/2 cross-entropy of the clean half + 1/2 cross-entropy of the attacked half with soft targets."""
        import torch
        from torch.nn import functional as F

        from deepcheck.attacks.base import evaluating, frozen
        from deepcheck.attacks.norms import norm

        (key,) = drawn
        half = len(images) // 2
        x, y = images[half:], labels[half:]
        with evaluating(model), frozen(model):
            attacked = self.attack.perturb_with(model, x, y, self.epsilon, key)
        logits = model(torch.cat([images[:half], attacked])).float()
        weight = true_class_weight(norm(self.norm).length(attacked - x), self.epsilon, self.rho)
        targets = soft_targets(y, weight, logits.shape[1])
        return F.cross_entropy(logits[:half], labels[:half]) / 2 + F.cross_entropy(logits[half:], targets) / 2
