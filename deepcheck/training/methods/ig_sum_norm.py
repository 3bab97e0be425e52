"""Training for robust predictions and attributions: adversarial training with the size of attributions beside the loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.base import Name
from deepcheck.training.methods.ig_norm import AttributionMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    from torch import Tensor

    from deepcheck.attacks.base import Model

__all__ = ["IGSumNorm"]


@dataclass(frozen=True, kw_only=True)
class IGSumNorm(AttributionMethod):
    """IG-SUM-NORM (Chen et al., NeurIPS 2019): max over x' of the cross-entropy of x' + beta |IG(x, x')|_1.

    With beta = 0 it is adversarial training: there the size of the attributions is their sum, and CE(x) + sum IG = CE(x').
    """

    name: Name = field(init=False, default="ig_sum_norm", repr=False)
    recipes: ClassVar = {
        "mnist": {
            "width": 2,
            "epochs": 6,
            "path_steps": 3,
            "attack_path_steps": 1,
            "attack_steps": 4,
            "step_size": 0.1,
            "first_steps": 2,
            "ramp": 0.4,
        },
        "digits": {"path_steps": 10, "attack_path_steps": 2, "attack_steps": 5, "step_size": 0.08, "ramp": 0.4},
    }
    beta: float = 0.1
    """Factor of the attributions, >= 0."""

    _loss_weight: ClassVar[float] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("beta", self.beta, least=0)

    def path_weight(self) -> float:
        """Return the factor of the attributions in the loss."""
        return self.beta

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean of the cross-entropy of the attacked images, and beta times the mean of |IG(x, x')|_1."""
        from torch.nn import functional as F

        attacked = self.attacked(model, images, labels, *drawn)
        loss = F.cross_entropy(model(attacked).float(), labels)
        if not self.beta:
            return loss
        return loss + self.beta * self.mean_path_size(model, images, attacked, labels)
