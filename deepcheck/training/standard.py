"""Standard training: the cross-entropy of clean images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck.attacks.base import Model
from deepcheck.training.methods import Method

__all__ = ["Standard"]


@dataclass(frozen=True)
class Standard(Method):
    """Standard training."""

    def loss(
        self, model: Model, images: Tensor, labels: Tensor, *, progress: float, generator: torch.Generator
    ) -> Tensor:
        """Return the mean cross-entropy."""
        del progress, generator
        return F.cross_entropy(model(images).float(), labels)
