"""Standard training: the cross-entropy of clean images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from deepcheck.training.methods.base import Method, Name

if TYPE_CHECKING:
    from torch import Tensor

    from deepcheck.attacks.base import Model

__all__ = ["Standard"]


@dataclass(frozen=True, kw_only=True)
class Standard(Method):
    """Standard training."""

    name: Name = field(init=False, default="standard", repr=False)

    def loss(self, model: Model, images: Tensor, labels: Tensor, **_: Any) -> Tensor:
        """Return the mean cross-entropy."""
        from torch.nn import functional as F

        return F.cross_entropy(model(images).float(), labels)
