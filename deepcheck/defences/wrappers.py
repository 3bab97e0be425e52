"""What makes a defence differentiable, for an attack on it: EOT for random ones, BPDA for those without a gradient."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Model
from deepcheck.attacks.calls import logits_of
from deepcheck.checks import checked_choice
from odeflow.model import checked_count

__all__ = ["BPDA", "EOT", "Behind", "mean_of_draws"]


class EOT(nn.Module):
    r"""Expectation over transformation (Athalye et al., ICML 2018): the mean of a random model over several draws.

    Its logits are :math:`\log \frac1T \sum_t p^{(t)}_k(x)` with the class probabilities :math:`p^{(t)}` of the t-th call, so
    that their softmax is the mean probability, and their gradient the gradient of it; or the mean of the logits, to whose gradient
    calls that are sure contribute as much as others. Approximate: T draws stand for all.

    Parameters
    ----------
    model
        A random function from images to logits.
    draws
        Calls T that are averaged, >= 1.
    mean
        What is averaged: probabilities or logits.
    """

    def __init__(
        self, model: Model, draws: int = 30, *, mean: Literal["probabilities", "logits"] = "probabilities"
    ) -> None:
        super().__init__()
        self.model = model
        self.draws = checked_count("draws", draws, 1)
        self.mean = checked_choice("mean", mean, ("probabilities", "logits"))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        if self.mean == "logits":
            return torch.stack([logits_of(self.model, images) for _ in range(self.draws)]).mean(0)
        return mean_of_draws(lambda: logits_of(self.model, images), self.draws)


class BPDA(nn.Module):
    """Backward pass differentiable approximation (Athalye et al., ICML 2018): one function forward, another backward.

    Parameters
    ----------
    forward
        From images to images, with no gradient or a useless one.
    backward
        From images to images of the same shape, differentiable and close to `forward`; its gradient is taken. Default: the
        image itself, so that the gradient passes unchanged.
    """

    def __init__(self, forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self._forward = forward
        self._backward = backward

    def forward(self, images: Tensor) -> Tensor:
        """Return what the first function makes of the images, with the gradient of the second."""
        with torch.no_grad():
            exact = self._forward(images.clone())
        smooth = images if self._backward is None else self._backward(images)
        if exact.shape != smooth.shape:
            raise ValueError(
                f"backward returned the shape {tuple(smooth.shape)} and forward {tuple(exact.shape)}: allowed is the same"
            )
        return smooth + (exact - smooth).detach()


class Behind(nn.Module):
    """A model behind a function of the images: x -> model(transform(x)). A module, so that eval mode reaches the model.

    Parameters
    ----------
    transform
        From images to images, such as a BPDA.
    model
        From images to logits.
    """

    def __init__(self, transform: Callable[[Tensor], Tensor], model: Model) -> None:
        super().__init__()
        self.transform = transform
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        return self.model(self.transform(images))


def mean_of_draws(draw: Callable[[], Tensor], count: int) -> Tensor:
    """Return the logarithm of the mean class probabilities over several calls that return logits, shape (n, K)."""
    log_p = torch.stack([draw().float().log_softmax(1) for _ in range(count)])
    return log_p.logsumexp(0) - math.log(count)
