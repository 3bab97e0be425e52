"""Losses with their gradients by the images, whose own gradient by the weights can be followed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.base import Model
from deepcheck.attacks.objectives import Objective

__all__ = ["Itself", "losses_and_gradients", "losses_of", "slopes", "uncompiled", "violation"]

Losses = Callable[[Tensor], Tensor]
"""A function from images, shape (n, ...), to the loss of each, shape (n,)."""


def uncompiled(model: Model) -> Model:
    """Return the net of a compiled one, which has no second derivatives; any other model as it is."""
    net = getattr(model, "_orig_mod", model)
    assert isinstance(net, nn.Module) or net is model
    return net


def losses_of(model: Model, labels: Tensor) -> Losses:
    """Return the cross-entropy of each image as a function of the images."""
    return lambda x: F.cross_entropy(model(x).float(), labels, reduction="none")


def losses_and_gradients(losses: Losses, images: Tensor, *, count: int | None = None) -> tuple[Tensor, Tensor]:
    """Return l(x), shape (n,), and grad l(x) of the first `count` images, of their shape, both with their graph by the weights.

    The gradient is that of the sum of the first `count` losses; None: of all.
    """
    x = images[:count].detach().requires_grad_()
    loss = losses(x if count is None else torch.cat([x, images[count:]]))
    (gradient,) = torch.autograd.grad(loss[:count].sum(), x, create_graph=True)
    return loss, gradient


def slopes(losses: Losses, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return l(x), shape (n,), and grad l(x), of the shape of the images, without a graph."""
    x = images.detach().requires_grad_()
    loss = losses(x)
    (gradient,) = torch.autograd.grad(loss.sum(), x)
    return loss.detach(), gradient


def violation(losses: Losses, images: Tensor, loss: Tensor, gradient: Tensor) -> Losses:
    """Return how far the losses at points z are from linear around the images: |l(z) - l(x) - <z - x, grad l(x)>|."""
    return lambda z: (losses(z) - loss - ((z - images) * gradient).flatten(1).sum(1)).abs()


class Itself(Objective):
    """What the model says in the place of logits: a function of points, to be maximised by an attack."""

    name = "itself"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the first column."""
        del labels, targets
        return logits[:, 0]

    def reached(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return None: there is always more."""

    @staticmethod
    def of(function: Losses) -> Model:
        """Return a function of points as a model: its values in the first of two columns."""

        def model(z: Tensor) -> Tensor:
            values = function(z)
            return torch.stack([values, torch.zeros_like(values)], 1)

        return model
