"""What attacks on an embedding follow."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Bounds, Model
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.defences.wrappers import BPDA

__all__ = ["AtEmbedded", "BestOverBall", "slope_of_best"]

_AT_EDGE = 1e-3
"""Share of the way from the image, next to an edge, that is counted as the edge."""


class ByLabel(Protocol):
    """An embedding that looks for a point of every label, as far as its surrogate needs it."""

    net: Model

    def best_over_ball(self, images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        """Return the value of the best point of every label, shape (n, K), and its gradient, (n, K, ...)."""


class Embedding(Protocol):
    """An embedding as far as its surrogate needs it."""

    net: Model
    attack_steps: int

    def embedded(self, images: Tensor, *, steps: int | None = None) -> Tensor:
        """Return the embedded points."""


class BestOverBall(nn.Module):
    r"""The surrogate of `MCN`, `HCNN` and `NCN`: for every label the best that the ball around the image has.

    Of `MCN` the logit of label l is the log-odds of :math:`\max_{|d| \le \xi} F(x + d)_l`; of `HCNN` the logit of
    :math:`\max_d F(x + d)_l - \lambda |d|`; of `NCN` less the distance of the nearest point that has the level, in units of
    :math:`\xi`. The largest belongs to the label that the defence takes, so that the argmax is its answer, and the others say
    how far they are from it.

    By Danskin's theorem the gradient of a maximum is that of the function at the place of the maximum, held fixed:
    :math:`\nabla_x F(x + d^*)_l`. Exact where the maximum has one place, and is found; see `slope_of_best` for the edge of the
    box. How the place moves does not enter. First derivatives alone; the searches have the defence's `attack_steps`.
    """

    def __init__(self, defence: ByLabel) -> None:
        super().__init__()
        self.defence = defence

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        if not len(images):
            logits: Tensor = self.defence.net(images)
            return logits
        followed = torch.is_grad_enabled() and images.requires_grad
        value, slope = self.defence.best_over_ball(images, with_gradient=followed)
        if not followed:
            return value
        change = (images - images.detach()).flatten(1).to(slope.dtype)  # 0, with the gradient of the images
        return value + torch.einsum("nkd,nd->nk", slope.flatten(2), change)


class AtEmbedded(nn.Module):
    """The surrogate of the entropy forms: the mean of the net's logits at the embedded point and at the image.

    Their one search is for no label, so that its maximum says nothing of the classes. What does is the net at its end, through
    which gradients pass as by the identity (BPDA), and the net at its beginning: the search climbs towards what is likeliest
    there, so that a point which the net has wrong mostly stays so. BPDA alone has only the gradient at the end, where the net is sure:
    on 359 digits at 0.1 an attack by it turned 0.43, this one 0.47, and one on the net alone 0.49. The search has the defence's
    `attack_steps`.
    """

    def __init__(self, defence: Embedding) -> None:
        super().__init__()
        self.defence = defence
        self.embed = BPDA(lambda x: defence.embedded(x, steps=defence.attack_steps))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        net = self.defence.net
        logits: Tensor = (net(self.embed(images)) + net(images.clone())) / 2
        return logits


def slope_of_best(norm: Norm, gradient: Tensor, z: Tensor, x: Tensor, bounds: Bounds) -> Tensor:
    """Return the gradient by x of the maximum over a ball around x and the box, from that of the function at its place z.

    It is the same, but for entries at the edge of the box whose gradient points out of it: they do not move with x. There it is
    what the ball alone holds back, as the conditions of Kuhn and Tucker say: in L-infinity 0, unless the entry is on the edge of
    the ball, too; in L2 (z - x)_i times the factor of the other entries; in L1 that of the others at most, and 0 where the entry has
    not moved.
    """
    delta = z - x
    near = _AT_EDGE * per_example(norm.length(delta), delta)  # for the search ends, and rounds, next to the edge
    low, high = bounds[0] + near, bounds[1] - near
    held = ((z <= low) & (gradient < 0)) | ((z >= high) & (gradient > 0))
    free = gradient.masked_fill(held, 0)
    if norm.name == "linf":
        inside = delta.abs() < (1 - _AT_EDGE) * per_example(norm.length(delta), delta)
        return torch.where(held & inside, free, gradient)
    if norm.name == "l2":
        moved = delta.masked_fill(held, 0).flatten(1)
        factor = (free.flatten(1) * moved).sum(1) / moved.square().sum(1).clamp_min(torch.finfo(x.dtype).tiny)
        return torch.where(held, per_example(factor.clamp_min(0), delta) * delta, gradient)
    most = per_example(free.flatten(1).abs().amax(1), delta)
    return torch.where(held, torch.minimum(gradient.abs(), most) * delta.sign(), gradient)
