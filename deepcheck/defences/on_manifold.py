"""An attack in the latent space of a generator."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from deepcheck.attacks.base import BudgetAttack, Examples
from deepcheck.attacks.objectives import Margin, TargetedMargin
from deepcheck.attacks.points import Points
from deepcheck.defences.onto_manifold import OntoManifold
from odeflow.model import checked_count, checked_number

__all__ = ["OnManifold"]


@dataclass(frozen=True)
class OnManifold(BudgetAttack):
    r"""Adversarial examples that a generator makes itself: a latent vector z near the ball, whose image is misclassified.

    Athalye, Carlini and Wagner (ICML 2018, section 5.3) show that these exist, so that not even a perfect projection helps.
    Adam descends from the latent vector of the clean image, and from others around it, on

    .. math:: \max(\kappa - m(G(z)), 0) + c\, |G(z) - \Pi(G(z))|^2

    where m is the objective (the margin of the net), and :math:`\Pi` the projection to ball and box. The attacked image is
    :math:`\Pi(G(z))`: of all images within the budget the one that the defence will most likely bring back to G(z). Of all
    points with m > 0 the one nearest to the ball is kept; the objective in the result is
    :math:`\min(m, 0) - |G(z) - \Pi(G(z))|`.

    It is an attack on the surrogate of a `DefenseGAN`: `Adaptive(OnManifold(...))` lets the defence judge.
    """

    _: KW_ONLY
    steps: int = 500
    """Steps of Adam per restart, >= 1."""
    rate: float = 0.05
    """Its learning rate, > 0."""
    kappa: float = 5.0
    """Objective to aim at, >= 0: so far beyond 0 that it outlives a projection that is not perfect."""
    weight: float = 1.0
    """Factor c of the squared distance from ball and box, > 0."""
    spread: float = 0.5
    """Standard deviation of the starts of the second restart and of later ones around the first, >= 0."""
    stop_when_reached: bool = False
    """Drop an example once G(z) is misclassified, however far it is from the ball."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self._objective.name not in (Margin.name, TargetedMargin.name):
            raise ValueError(f"objective = {self._objective.name} is not allowed: margin or targeted_margin is")
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        for name in ("rate", "weight"):
            checked_number(name, getattr(self, name), above=0)
        for name in ("kappa", "spread"):
            checked_number(name, getattr(self, name), least=0)

    def _attack(self, examples: Examples, epsilon: float) -> Points:
        surrogate = examples.model
        if not isinstance(surrogate, OntoManifold):
            raise TypeError(
                f"model is of the wrong type {type(surrogate).__name__}: allowed is the surrogate of a DefenseGAN, as Adaptive "
                "takes it"
            )
        G, net = surrogate.defence.G, replace(examples, model=surrogate.model)
        confine = self._norm.confinement(examples.images, epsilon, self.bounds)
        z = surrogate.defence.nearest(examples.images)
        if examples.turn:
            z = z + self.spread * examples.draws().normal(z)
        adam = torch.optim.Adam([z], self.rate)
        kept: Points | None = None
        for _ in range(self.steps):
            with torch.enable_grad():
                made = G(z.requires_grad_()).to(examples.images.dtype)
                points = net.points(made, self._objective)
                inside = confine(made.detach().clone())
                outside = (made - inside).flatten(1).square().sum(1)
                loss = (self.kappa - points.value).clamp_min(0) + self.weight * outside
                (gradient,) = torch.autograd.grad(loss.sum(), z)
            now = _judged_by_distance(points, inside, outside.detach())
            if kept is None:
                kept = now
            else:
                kept.put_better(None, now)
            z.grad = gradient.nan_to_num(nan=0.0)
            adam.step()
        assert kept is not None
        return kept


def _judged_by_distance(points: Points, inside: Tensor, outside: Tensor) -> Points:
    """Return the points within the budget, whose objective is that they reach the goal, and then the distance."""
    m = points.value.detach()
    return Points(inside, points.logits.detach(), m.clamp_max(0) - outside.sqrt(), points.reached)
