"""Training for robust attributions: cross-entropy and the largest attributions of its change within the ball."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.base import AttackingMethod, Name, RecordableMethod
from odeflow.model import checked_count, checked_number

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model
    from deepcheck.attributions.ascent import PathAscent

__all__ = ["AttributionMethod", "IGNorm"]


@dataclass(frozen=True, kw_only=True)
class AttributionMethod(AttackingMethod, RecordableMethod):
    """What training methods on integrated gradients of the loss, from an image to the attacked one, have in common.

    These gradients, and those through them, are taken in eval mode: there the loss of an image depends on no other image
    of its batch, as where the net is explained later, and batch norms learn their means from the one pass in train mode.
    """

    path_steps: int = 50
    """Midpoints of the path from the image to the attacked one, m >= 1, in the loss."""
    attack_path_steps: int = 10
    """The same in the attack, >= 1."""
    ramp: float = 0.0
    """Share of the training over which the radius grows linearly from 0 to epsilon, in [0, 1]."""

    _loss_weight: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_count("path_steps", self.path_steps, 1)
        checked_count("attack_path_steps", self.attack_path_steps, 1)
        checked_number("ramp", self.ramp, least=0, most=1)

    def path_weight(self) -> float:
        """Return the factor of the attributions in the loss."""
        raise NotImplementedError

    def epsilon_at(self, progress: float) -> float:
        """Return the radius of the attack at this progress of the training, in [0, 1)."""
        return self.epsilon * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)

    def attack_at(self, progress: float) -> PathAscent:
        """Return the attack at this progress of the training, in [0, 1).

        While its steps grow, they are long enough to lead from the image to the edge of the ball, as those of `at`.
        """
        from deepcheck.attributions.ascent import PathAscent

        steps, size = self.steps_at(progress), self.step_size
        if steps != self.attack_steps:
            size = max(size, self.epsilon_at(progress) / steps)
        return PathAscent(
            self.norm,
            steps=steps,
            step_size=size,
            keep="last",
            stop_when_reached=False,
            path_steps=self.attack_path_steps,
            path_weight=self.path_weight(),
            loss_weight=self._loss_weight,
        )

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Tensor, PathAscent, float]:
        """Return keys of random numbers for the images, the attack, and its radius."""
        import torch

        from deepcheck.attacks.draws import keys

        key = keys(generator, torch.arange(len(images), device=images.device))
        return key, self.attack_at(progress), self.epsilon_at(progress)

    def attacked(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the attacked images."""
        from deepcheck.attacks.base import frozen

        key, attack, epsilon = drawn
        with explaining(model) as net, frozen(net):
            found: Tensor = attack.perturb_with(net, images, labels, epsilon, key)
        return found

    def mean_path_size(self, model: Model, images: Tensor, attacked: Tensor, labels: Tensor) -> Tensor:
        """Return the mean over the batch of |IG(x, x')|_1, with gradients for the weights."""
        from deepcheck.attributions.ascent import path_size
        from deepcheck.attributions.maps import integrated

        with explaining(model) as net:
            paths = integrated(net, images, attacked, labels, steps=self.path_steps, of="loss", create_graph=True)
        return path_size(paths).mean()


@dataclass(frozen=True, kw_only=True)
class IGNorm(AttributionMethod):
    """IG-NORM (Chen, Wu, Rastogi, Liang and Jha, NeurIPS 2019): cross-entropy + lambda max over x' of |IG(x, x')|_1.

    IG are the integrated gradients of the cross-entropy from the image x to x' in the ball. Their sum is the change of the
    cross-entropy, so that it cannot change much where their sum of absolute values is small.
    """

    name: Name = field(init=False, default="ig_norm", repr=False)
    recipes: ClassVar = {
        "mnist": {  # twelve minutes of one core; the published settings take more than a day
            "epochs": 6,
            "path_steps": 3,
            "attack_path_steps": 1,
            "attack_steps": 4,
            "step_size": 0.1,
            "first_steps": 2,
            "ramp": 0.4,
        },
        "digits": {"path_steps": 10, "attack_path_steps": 2, "attack_steps": 5, "step_size": 0.08, "ramp": 0.4},
    }
    attribution: float = 1.0
    """Factor lambda of the attributions, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("attribution", self.attribution, least=0)

    def path_weight(self) -> float:
        """Return the factor of the attributions in the loss."""
        return self.attribution

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean of the cross-entropy of the images, and lambda times the mean of |IG(x, x')|_1."""
        from torch.nn import functional as F

        if not self.attribution:
            return F.cross_entropy(model(images).float(), labels)
        attacked = self.attacked(model, images, labels, *drawn)
        loss = F.cross_entropy(model(images).float(), labels)
        return loss + self.attribution * self.mean_path_size(model, images, attacked, labels)


@contextmanager
def explaining(model: Model) -> Iterator[Model]:
    """Give the net in eval mode; of a compiled one the net itself, as torch.compile has no second derivatives."""
    from deepcheck.attacks.base import evaluating

    net = getattr(model, "_orig_mod", model)
    with evaluating(net):
        yield net
