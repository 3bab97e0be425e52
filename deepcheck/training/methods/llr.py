"""Local linearity regularisation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.base import AttackingMethod, Name, RecordableMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.pgd import PGD

__all__ = ["LLR", "least_linear"]


@dataclass(frozen=True, kw_only=True)
class LLR(AttackingMethod, RecordableMethod):
    """Local linearity regularisation: a loss that is nearly linear in the ball (Qin et al., NeurIPS 2019).

    The cross-entropy, and lambda g(d) + mu |<d, grad l(x)>|, g(d) = |l(x + d) - l(x) - <d, grad l(x)>|, at the d in the ball
    that PGD on g finds. d is found in eval mode; images and moved images then go
    through the net together in train mode. There a net with batch norm has gradients by an image to which the losses of the
    whole batch add: a share 1/n of them, about.
    """

    name: Name = field(init=False, default="llr", repr=False)
    recipes: ClassVar = {
        "mnist": {
            "epochs": 12,
            "augmentation": "crop",
            "padding": 1,
            "attack_steps": 4,
            "step_size": 0.15,
            "ramp": 0.4,
        },
        "digits": {"ramp": 0.4},
    }
    violation_weight: float = 4.0
    """Weight lambda of the largest violation of linearity, >= 0."""
    slope_weight: float = 3.0
    """Weight mu of the linear term at the same place, >= 0."""
    ramp: float = 0.0
    """Share of the training over which the radius grows linearly from 0 to epsilon, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("violation_weight", self.violation_weight, least=0)
        checked_number("slope_weight", self.slope_weight, least=0)
        checked_number("ramp", self.ramp, least=0, most=1)

    @cached_property
    def attack(self) -> PGD:
        """The attack on the linearity of the loss, with all its steps; it starts at random: at the image there is no slope."""
        from deepcheck.attacks.pgd import PGD
        from deepcheck.training.second_order import Itself

        steps, size = self.attack_steps, self.step_size
        return PGD(self.norm, Itself(), steps=steps, step_size=size, keep="last", stop_when_reached=False)

    def epsilon_at(self, progress: float) -> float:
        """Return the radius of the attack at this progress of the training, in [0, 1)."""
        return self.epsilon * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Tensor, PGD, float]:
        """Return keys of random numbers for the examples, the attack, and its radius."""
        import torch

        from deepcheck.attacks.draws import keys

        steps = self.steps_at(progress)
        attack = self.attack if steps == self.attack_steps else replace(self.attack, steps=steps)
        return keys(generator, torch.arange(len(images), device=images.device)), attack, self.epsilon_at(progress)

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean cross-entropy, and the means of violation and slope with their weights."""
        import torch

        from deepcheck.training.second_order import losses_and_gradients, losses_of, uncompiled

        net, n = uncompiled(model), len(images)
        moved = least_linear(net, images, labels, *drawn)
        x = torch.cat([images, moved])
        loss, gradient = losses_and_gradients(losses_of(net, torch.cat([labels, labels])), x, count=n)
        slope = ((moved - images) * gradient).flatten(1).sum(1)
        g = (loss[n:] - loss[:n] - slope).abs()
        return (loss[:n] + self.violation_weight * g + self.slope_weight * slope.abs()).mean()


def least_linear(model: Model, images: Tensor, labels: Tensor, key: Tensor, attack: PGD, epsilon: float) -> Tensor:
    """Return the points in the ball where the cross-entropy in eval mode is farthest from linear, as the attack finds them."""
    from deepcheck.attacks.base import evaluating, frozen
    from deepcheck.training.second_order import Itself, losses_of, slopes, violation

    with evaluating(model), frozen(model):
        losses = losses_of(model, labels)
        g = violation(losses, images, *slopes(losses, images))
        return attack.perturb_with(Itself.of(g), images, labels, epsilon, key)
