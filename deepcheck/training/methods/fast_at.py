"""Fast adversarial training, and what says that it has overfitted its one step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from deepcheck.checks import checked_choice
from deepcheck.training.methods.base import Name, RecordableMethod
from deepcheck.training.methods.overfitting import overfitted, seen_overfitting
from odeflow.model import checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.pgd import PGD
    from deepcheck.models import Network

__all__ = ["FastAT"]


@dataclass(frozen=True, kw_only=True)
class FastAT(RecordableMethod):
    """Fast adversarial training: one long step from a random start (Wong, Rice and Kolter, ICLR 2020).

    The cross-entropy of x' = confine(x + d + s epsilon steepest(grad of the cross-entropy at x + d)), with d uniform in the
    ball and s = 1.25: two passes. The net can learn to be flat where the one step looks, and nowhere else (catastrophic
    overfitting).
    """

    name: Name = field(init=False, default="fast_at", repr=False)
    recipes: ClassVar = {
        "mnist": {
            "epochs": 20,
            "augmentation": "crop",
            "padding": 1,
            "epsilon": 0.33,
            "ramp": 0.4,
            "when_overfitted": "stop",
            "test_epsilon": 0.3,
        },
        "cifar10": {"epochs": 15},
        "digits": {"ramp": 0.4},
    }
    norm: Literal["linf", "l2"] = "linf"
    """Norm of the training attack."""
    epsilon: float = 0.3
    """Radius of the training attack, >= 0."""
    relative_step: float = 1.25
    """Length of the one step, in units of epsilon, > 0."""
    starts: Literal["random", "image"] = "random"
    """Where the step starts: at a point that is uniform in the ball, or at the image (the fast gradient method)."""
    ramp: float = 0.0
    """Share of the training over which the radius grows linearly from 0 to epsilon, in [0, 1]."""
    collapse: float = 0.5
    """Catastrophic overfitting is reported after an epoch in which, on the images kept apart, the accuracy under PGD is below
    this share of that under the training's one step, in [0, 1]; 0: never."""
    when_overfitted: Literal["warn", "stop"] = "warn"
    """What follows then. warn: a warning in the log, and overfitted = 1 in training.json; stop: the training ends as well,
    with the weights of its best epoch."""

    def __post_init__(self) -> None:
        checked_choice("norm", self.norm, ("linf", "l2"))
        checked_number("epsilon", self.epsilon, least=0)
        checked_number("relative_step", self.relative_step, above=0)
        checked_choice("starts", self.starts, ("random", "image"))
        checked_number("ramp", self.ramp, least=0, most=1)
        checked_number("collapse", self.collapse, least=0, most=1)
        checked_choice("when_overfitted", self.when_overfitted, ("warn", "stop"))

    @cached_property
    def attack(self) -> PGD:
        """The attack on the batch."""
        from deepcheck.attacks.pgd import PGD
        from deepcheck.attacks.starts import UniformBall, Zero

        start = UniformBall() if self.starts == "random" else Zero()
        return PGD(
            self.norm,
            steps=1,
            relative_step_size=self.relative_step,
            start=start,
            keep="last",
            stop_when_reached=False,
        )

    def epsilon_at(self, progress: float) -> float:
        """Return the radius of the attack at this progress of the training, in [0, 1]."""
        return self.epsilon * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Tensor, float]:
        """Return keys of random numbers for the examples, and the radius of the attack."""
        import torch

        from deepcheck.attacks.draws import keys

        return keys(generator, torch.arange(len(images), device=images.device)), self.epsilon_at(progress)

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean cross-entropy of the attacked batch."""
        from torch.nn import functional as F

        from deepcheck.attacks.base import evaluating, frozen

        key, epsilon = drawn
        with evaluating(model), frozen(model):
            attacked = self.attack.perturb_with(model, images, labels, epsilon, key)
        return F.cross_entropy(model(attacked).float(), labels)

    def after_epoch(
        self, *, network: Network, images: Tensor, labels: Tensor, progress: float, generator: torch.Generator
    ) -> dict[str, float]:
        """Return the accuracies under the one step and under PGD, and whether the net has overfitted the one step."""
        return seen_overfitting(
            network,
            images,
            labels,
            self.attack,
            epsilon=self.epsilon_at(progress),
            share=self.collapse,
            generator=generator,
        )

    def ends(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Return whether the net has overfitted, and that is to end the training."""
        return self.when_overfitted == "stop" and overfitted(history)

    @property
    def keeps_best(self) -> bool:
        """Whether the result is the best network: where overfitting is to end the training."""
        return self.when_overfitted == "stop"
