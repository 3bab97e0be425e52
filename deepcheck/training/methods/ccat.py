"""Confidence-calibrated adversarial training."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from deepcheck.checks import checked_choice
from deepcheck.training.methods.base import AttackingMethod, Name, RecordableMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.pgd import PGD

__all__ = ["CCAT", "ccat_attack", "soft_targets", "true_class_weight"]


Starts = Literal["published", "tiles", "image"]


def ccat_attack(
    *,
    steps: int,
    step_size: float,
    starts: Starts = "published",
    backtracking: float | None = 1.5,
    norm: Literal["linf", "l2"] = "linf",
) -> PGD:
    """Return the attack that CCAT trains with: ascent on the confidence in a wrong class, with smoothed signs.

    Momentum 0.9, backtracking (by 1.5 as published; None: every step is taken), the best iterate. Starts are Gaussian,
    of uniform length, or zero, as published; with "tiles" there are these too (`deepcheck.attacks.starts.Tiles`); with
    "image" also, and half of all starts are zero.
    """
    from deepcheck.attacks.pgd import PGD
    from deepcheck.attacks.starts import Gaussian, OneOf, Start, Tiles, UniformLength, Zero

    published: tuple[Start, ...] = (Gaussian(), UniformLength(), Zero())
    laws = {"published": published, "tiles": (*published, Tiles()), "image": (*published, Tiles(), Zero(), Zero())}
    return PGD(
        norm,
        "wrong_confidence",
        steps=steps,
        step_size=step_size,
        momentum=0.9,
        backtracking=backtracking,
        start=OneOf(laws[starts]),
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

    One half of the batch is clean, with its labels. The other half is attacked, in the paper in L-infinity, and its targets
    go over to the uniform distribution with the distance |delta| from the image in that norm. Both halves have the weight
    1/2, in one forward pass.
    """

    name: Name = field(init=False, default="ccat", repr=False)
    recipes: ClassVar = {
        "mnist": {
            "epochs": 24,
            "batch_size": 100,
            "attack_steps": 30,
            "step_size": 0.05,
            "starts": "image",
            "first_steps": 8,
            "growth": 0.8,
        },
        "cifar10": {
            "model": "resnet_ccat",
            "epochs": 100,
            "epsilon": 0.03,
            "attack_steps": 40,
            "step_size": 0.005,
        },
        "digits": {"attack_steps": 20, "step_size": 0.01},
    }
    epsilon: float = 0.3
    """Radius of the training attack, > 0."""
    rho: float = 10.0
    """Power of the transition to the uniform distribution, > 0."""
    starts: Starts = "published"
    """Where the training attack starts. published: at Gaussian noise, at noise of uniform length, or at the image, with equal
    probabilities; tiles: or at tiles of +-epsilon; image: half of them at the image, the others at one of the three."""
    backtracking: float | None = 1.5
    """A factor > 1 by which the attack's step is divided where it would lose; None: every step is taken."""

    def __post_init__(self) -> None:
        checked_number("epsilon", self.epsilon, above=0)
        super().__post_init__()
        checked_number("rho", self.rho, above=0)
        checked_choice("starts", self.starts, get_args(Starts))
        if self.backtracking is not None:
            checked_number("backtracking", self.backtracking, above=1)

    @cached_property
    def attack(self) -> PGD:
        """The attack on the second half of the batch, with all its steps."""
        return ccat_attack(
            steps=self.attack_steps,
            step_size=self.step_size,
            starts=self.starts,
            backtracking=self.backtracking,
            norm=self.norm,
        )

    def attack_at(self, progress: float) -> PGD:
        """Return the attack at this progress of the training, in [0, 1)."""
        steps = self.steps_at(progress)
        return self.attack if steps == self.attack_steps else replace(self.attack, steps=steps)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Tensor, PGD]:
        """Return keys of random numbers for the second half, and the attack on it."""
        import torch

        from deepcheck.attacks.draws import keys

        attacked = torch.arange(len(images) - len(images) // 2, device=images.device)
        return keys(generator, attacked), self.attack_at(progress)

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return 1/2 cross-entropy of the clean half + 1/2 cross-entropy of the attacked half with soft targets."""
        import torch
        from torch.nn import functional as F

        from deepcheck.attacks.base import evaluating, frozen
        from deepcheck.attacks.norms import norm

        key, attack = drawn
        half = len(images) // 2
        x, y = images[half:], labels[half:]
        with evaluating(model), frozen(model):
            attacked = attack.perturb_with(model, x, y, self.epsilon, key)
        logits = model(torch.cat([images[:half], attacked])).float()
        weight = true_class_weight(norm(self.norm).length(attacked - x), self.epsilon, self.rho)
        targets = soft_targets(y, weight, logits.shape[1])
        return F.cross_entropy(logits[:half], labels[:half]) / 2 + F.cross_entropy(logits[half:], targets) / 2
