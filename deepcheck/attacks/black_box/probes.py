"""Several points of each example in one call of the model: what estimates by differences ask for."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.objectives import Objective

__all__ = ["groups", "values"]


def groups(examples: Examples, probes: int) -> Iterator[slice]:
    """Yield rows of the examples of which so many `probes` each are one batch of the model, or one example's are more."""
    size = max(1, examples.batch_size // probes)
    for start in range(0, len(examples), size):
        yield slice(start, start + size)


def values(examples: Examples, z: Tensor, objective: Objective) -> Tensor:
    """Return the objective, shape (n, m), at m points of each example, shape (n, m, ...).

    The model sees `batch_size` points at once. Where it has no finite logits, the objective is minus infinity.
    """
    n, m = z.shape[:2]
    rows = torch.arange(n, device=z.device).repeat_interleave(m)
    batches = zip(rows.split(examples.batch_size), z.flatten(0, 1).split(examples.batch_size), strict=True)
    return torch.cat([examples.at(some).points(part, objective, trial=True).value for some, part in batches]).view(n, m)
