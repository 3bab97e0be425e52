"""The attack inside training for robust attributions: ascent on the size of integrated gradients between two images."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.calls import logits_of
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.points import Points
from deepcheck.attributions.maps import explained, integrated
from odeflow.model import checked_count, checked_number

__all__ = ["PathAscent", "path_size"]


def path_size(attributions: Tensor) -> Tensor:
    """Return |IG|_1, the sum of absolute values, shape (n,)."""
    return attributions.abs().flatten(1).sum(1)


@dataclass(frozen=True)
class PathAscent(PGD):
    """Projected gradient ascent on loss_weight * loss(z) + path_weight * |IG(x, z)|_1, IG of the loss from the image x to z.

    For training: `perturb` and `perturb_with` alone, with the last iterate. Its gradient goes through the gradients along the
    path, so that it needs second derivatives of the loss. Those of ReLUs are 0 almost everywhere; what is left are those of
    the softmax, and the factor z - x.
    """

    _: KW_ONLY
    path_steps: int = 10
    """Midpoints of the path, >= 1."""
    path_weight: float = 1.0
    """Factor of the attributions, >= 0; with 0 it is the attack of adversarial training."""
    loss_weight: float = 0.0
    """Factor of the loss, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_count("path_steps", self.path_steps, 1)
        checked_number("path_weight", self.path_weight, least=0)
        checked_number("loss_weight", self.loss_weight, least=0)

    def _evaluate(self, examples: Examples, z: Tensor, *, with_gradient: bool = True) -> tuple[Points, Tensor]:
        if not self.path_weight:
            return super()._evaluate(examples, z, with_gradient=with_gradient)
        x, y, model = examples.images, examples.labels, examples.model
        with torch.enable_grad():
            z.requires_grad_()
            paths = integrated(model, x, z, y, steps=self.path_steps, of="loss", create_graph=True)
            value = self.path_weight * path_size(paths)
            if self.loss_weight:
                value = value + self.loss_weight * explained(logits_of(model, z), y, "loss")
            (gradient,) = torch.autograd.grad(value.sum(), z)
        z.requires_grad_(False)
        nothing = value.new_zeros(len(x), 2)  # of the logits nobody asks
        return Points(z, nothing, value.detach(), None), gradient.nan_to_num(nan=0.0)
