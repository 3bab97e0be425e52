"""Standard training: the cross-entropy of clean images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.base import Name, RecordableMethod

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from deepcheck.attacks.base import Model

__all__ = ["Standard"]


@dataclass(frozen=True, kw_only=True)
class Standard(RecordableMethod):
    """Standard training: the cross-entropy of clean images."""

    name: Name = field(init=False, default="standard", repr=False)
    recipes: ClassVar = {"mnist": {"epochs": 12}}

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Any, ...]:
        """Return nothing."""
        del images, progress, generator
        return ()

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean cross-entropy."""
        from torch.nn import functional as F

        del drawn
        return F.cross_entropy(model(images).float(), labels)
