"""Adversarial vertex mixup: images between the clean one and a vertex beyond the attacked one, with softer labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.base import Name, RampedMethod
from odeflow.model import checked_number

if TYPE_CHECKING:
    from torch import Tensor

    from deepcheck.attacks.base import Model

__all__ = ["VertexMixup", "smoothed"]


def smoothed(labels: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """Return targets with `weight`, shape (n,), at the label and (1 - weight) / (K - 1) at each other class, shape (n, K)."""
    import torch

    # onehot(y), without looking at the largest label as torch's one_hot does
    onehot = labels[:, None] == torch.arange(num_classes, device=labels.device)
    weight = weight[:, None]
    return torch.where(onehot, weight, (1 - weight) / (num_classes - 1))


@dataclass(frozen=True, kw_only=True)
class VertexMixup(RampedMethod):
    """Adversarial vertex mixup (Lee, Lee and Yoon, CVPR 2020): images between x and the vertex x + gamma (x' - x).

    Each image has a weight w of its own, from Beta(1, 1). The target has a probability at the label between that at the image
    and that at the vertex, with the same weight, and the rest equally at the other classes. The vertex is not clipped: it may
    be out of the box, and out of the ball where gamma > 1.
    """

    name: Name = field(init=False, default="vertex_mixup", repr=False)
    recipes: ClassVar = {
        "mnist": AdversarialTraining.recipes["mnist"],
        "digits": AdversarialTraining.recipes["digits"],
    }
    gamma: float = 2.0
    """Distance of the vertex from the image, in that of the attacked image, >= 0."""
    label_at_image: float = 1.0
    """Probability of the label at the image, in [0, 1]."""
    label_at_vertex: float = 0.1
    """Probability of the label at the vertex, in [0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("gamma", self.gamma, least=0)
        checked_number("label_at_image", self.label_at_image, least=0, most=1)
        checked_number("label_at_vertex", self.label_at_vertex, least=0, most=1)

    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the mean cross-entropy of the mixed images with their soft targets."""
        from torch.nn import functional as F

        from deepcheck.attacks.draws import Draws, mixed
        from deepcheck.attacks.norms import per_example

        key, *_ = drawn
        attacked = self.attacked(model, images, labels, *drawn)
        vertex = images + self.gamma * (attacked - images)
        w = Draws(mixed(key, 1)).uniform(images)  # Beta(1, 1); the attack has the stream 0
        at_label = w * self.label_at_image + (1 - w) * self.label_at_vertex
        w = per_example(w, images)
        logits = model(w * images + (1 - w) * vertex).float()
        return F.cross_entropy(logits, smoothed(labels, at_label, logits.shape[1]))
