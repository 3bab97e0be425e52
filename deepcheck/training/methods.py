"""What every training method is."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from deepcheck.attacks.base import Model

__all__ = ["Method"]


class Method(abc.ABC):
    """A training method: from a batch to the loss whose gradient is followed."""

    @abc.abstractmethod
    def loss(
        self, model: Model, images: Tensor, labels: Tensor, *, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the loss of one batch, a scalar.

        Parameters
        ----------
        model
            In train mode; it must be used once in this mode, and otherwise in eval mode.
        images, labels
            Shape (n, C, H, W) in [0, 1], and (n,).
        progress
            Share of the training that is over, in [0, 1).
        generator
            Source of all random numbers.
        """
