"""Adversarial training: the cross-entropy of attacked images."""

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

__all__ = ["AdversarialTraining"]


@dataclass(frozen=True, kw_only=True)
class AdversarialTraining(AttackingMethod, RecordableMethod):
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
    ramp: float = 0.0
    """Share of the training over which the radius grows linearly from 0 to epsilon, in [0, 1]. A small convolutional
    net that meets epsilon = 0.3 on MNIST at once may never leave the uniform prediction."""
    epsilon_schedule: tuple[float, ...] = ()
    """Radius over the training in the place of the ramp: two values or more, each >= 0, at equal distances from the beginning
    to the end, and linear in between. It may be above `epsilon`, which stays the radius that the net is to withstand. The
    length of a step does not change with it. Empty: that of `ramp`."""
    attacked_share: float = 1.0
    """Share of each batch that is attacked, in (0, 1]: 1, or 1/2 as in Szegedy et al. The first examples stay clean;
    at least one is attacked."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("ramp", self.ramp, least=0, most=1)
        radii = tuple(checked_number("epsilon_schedule", one, least=0) for one in self.epsilon_schedule)
        if len(radii) == 1:
            raise ValueError(f"epsilon_schedule = {radii} is not allowed: two values or more are, or none")
        object.__setattr__(self, "epsilon_schedule", radii)
        checked_number("attacked_share", self.attacked_share, above=0, most=1)

    @cached_property
    def attack(self) -> PGD:
        """The attack on the batch, with all its steps."""
        from deepcheck.attacks.pgd import PGD

        return PGD(self.norm, steps=self.attack_steps, step_size=self.step_size, keep="last", stop_when_reached=False)

    def attack_at(self, progress: float) -> PGD:
        """Return the attack at this progress of the training, in [0, 1).

        Steps so few that they would not lead from the image to the edge of the ball are epsilon / steps long: one is the
        fast gradient method from a random start (Wong, Rice and Kolter, ICLR 2020).
        """
        steps = self.steps_at(progress)
        if steps == self.attack_steps:
            return self.attack
        size = max(self.step_size, self.epsilon_at(progress) / steps)
        return replace(self.attack, steps=steps, step_size=size)

    def epsilon_at(self, progress: float) -> float:
        """Return the radius of the attack at this progress of the training, in [0, 1)."""
        if self.epsilon_schedule:
            place = progress * (len(self.epsilon_schedule) - 1)
            before = min(int(place), len(self.epsilon_schedule) - 2)
            low, high = self.epsilon_schedule[before : before + 2]
            return low + (place - before) * (high - low)
        return self.epsilon * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)

    def _clean(self, images: Tensor) -> int:
        """Return how many of a batch stay clean."""
        return min(round((1 - self.attacked_share) * len(images)), len(images) - 1)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Any, ...]:
        """Return keys of random numbers for what is attacked, the attack, and its radius."""
        import torch

        from deepcheck.attacks.draws import keys

        attacked = torch.arange(len(images) - self._clean(images), device=images.device)
        return keys(generator, attacked), self.attack_at(progress), self.epsilon_at(progress)

    def attacked(
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

        from deepcheck.attacks.base import evaluating, frozen

        clean = self._clean(images)
        with evaluating(model), frozen(model):
            attacked = attack.perturb_with(model, images[clean:], labels[clean:], epsilon, key, factors=factors)
        return torch.cat([images[:clean], attacked]) if clean else attacked

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean cross-entropy of the batch, attacked in part or whole."""
        from torch.nn import functional as F

        return F.cross_entropy(model(self.attacked(model, images, labels, *drawn)).float(), labels)
