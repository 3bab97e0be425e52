"""Defences that ask a net several times, each time with other random numbers."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Model
from deepcheck.attacks.draws import Draws, keys
from deepcheck.defences.base import Defence
from deepcheck.defences.wrappers import EOT, mean_of_draws
from odeflow.model import checked_count

__all__ = ["RandomPasses"]

_DRAWS = 30
"""Passes that the attack on such a defence averages over (Athalye, Carlini and Wagner, ICML 2018)."""


class RandomPasses(Defence):
    r"""The mean over several random passes: class probabilities :math:`\frac1T \sum_t p^{(t)}(x)`, logits their logarithms.

    A subclass has the method `one_pass`.

    Parameters
    ----------
    net, seed
        See `Defence`.
    passes
        Passes T through the net, >= 1.
    """

    random = True
    averaged: Literal["probabilities", "logits"] = "probabilities"
    """What the attack averages. The gradient of the mean probability is that of the passes that are undecided: those that are
    sure of the true class have none, and an attack leaves them as they are. To that of the mean logits all passes contribute."""

    def __init__(self, net: Model, *, passes: int, seed: int = 0) -> None:
        super().__init__(net, seed=seed)
        self.passes = checked_count("passes", passes, 1)

    @abstractmethod
    def one_pass(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the logits of one pass, shape (n, K), for streams of random numbers of the images."""

    def drawn(self, images: Tensor) -> Tensor:
        """Return the logits of one pass with new random numbers."""
        source = self.generator(torch.device("cpu"))  # whose seeds are the same on every device
        key = keys(source, torch.arange(len(images), device=images.device))
        return self.one_pass(images, Draws(key))

    def _logits(self, images: Tensor) -> Tensor:
        return mean_of_draws(lambda: self.drawn(images), self.passes)

    def surrogate(self) -> Model:
        """Return the mean over 30 passes (EOT): of what `averaged` says."""
        return EOT(_Pass(self), _DRAWS, mean=self.averaged) if self.random else self


class _Pass(nn.Module):
    """One pass of a defence. A module, so that eval mode reaches the net."""

    def __init__(self, defence: RandomPasses) -> None:
        super().__init__()
        self.defence = defence

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        return self.defence.drawn(images)
