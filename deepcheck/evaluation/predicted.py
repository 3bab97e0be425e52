"""What a net predicts on images as they are."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from deepcheck.attacks.base import Model, checked_logits, evaluating
from deepcheck.attacks.calls import frozen, logits_of

__all__ = ["predictions"]


def predictions(model: Model, x: Tensor, batch_size: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class of each image, shape (n,), and its probability, with the model in eval mode."""
    if not len(x):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    # frozen as in an attack: a compiled net would be compiled once more
    with evaluating(model), frozen(model), torch.no_grad():
        logits = torch.cat([logits_of(model, part).float() for part in torch.split(x, batch_size)])
    checked_logits(logits, len(x), torch.zeros(0, dtype=torch.int64))
    confidence, prediction = logits.softmax(1).max(1)
    return prediction.cpu().numpy(), confidence.cpu().numpy()
