"""Adversarial training on the examples that are not robust yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.base import Name

if TYPE_CHECKING:
    from torch import Tensor

    from deepcheck.attacks.base import Model

__all__ = ["NonRobustAT"]


@dataclass(frozen=True, kw_only=True)
class NonRobustAT(AdversarialTraining):
    """Adversarial training on the attacked examples that are misclassified, alone (after Madry et al., ICLR 2018).

    The counterpart of `odeflow.LearningRule(update="non_robust")`: the sum of the cross-entropy over the misclassified examples
    of the attacked batch, divided by the size of the batch; the others contribute nothing. What is misclassified is seen in
    the pass that is learned from.
    """

    name: Name = field(init=False, default="non_robust_at", repr=False)
    recipes: ClassVar = AdversarialTraining.recipes

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return 1/n times the cross-entropy of the misclassified examples, 0 with gradients 0 where there are none."""
        from torch.nn import functional as F

        logits = model(self.inputs(model, images, labels, *drawn)).float()
        turned = logits.argmax(1) != labels
        return (turned * F.cross_entropy(logits, labels, reduction="none")).mean()
