"""Classes that a targeted attack is to reach."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from deepcheck.attacks.checks import checked_classes
from odeflow.model import checked_count

__all__ = ["TARGETS", "Targets", "chosen", "every_class", "every_other_class"]

Targets = Literal["given", "least_likely", "likeliest"]
TARGETS: tuple[Targets, ...] = ("given", "least_likely", "likeliest")
"""Given with the call; or the class that is least likely on the clean image; or the likeliest wrong class in the first
restart, the next in the second, and so on."""


def chosen(how: Targets, logits: Tensor, labels: Tensor, restarts: int) -> Tensor:
    """Return classes to reach from the logits of the images, shape (n,), or of the likeliest (n, m), m <= `restarts`."""
    if how == "least_likely":
        return logits.argmin(1)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(restarts, logits.shape[1] - 1), dim=1).indices


def _checked(labels: object, num_classes: int) -> int:
    """Return the number of classes, or raise if labels are not classes below it."""
    K = checked_count("num_classes", num_classes, 2)
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.ndim != 1:
        given = (
            f"{labels.dtype} of shape {tuple(labels.shape)}" if isinstance(labels, Tensor) else type(labels).__name__
        )
        raise TypeError(f"labels are {given}: allowed is a torch.int64 tensor of shape (n,)")
    checked_classes("labels", labels, K)
    return K


def every_class(labels: Tensor, num_classes: int) -> Tensor:
    """Return every class as a target for every example, shape (K, n), int64: the true one is among them.

    Parameters
    ----------
    labels
        Classes of n examples, shape (n,), int64.
    num_classes
        K, >= 2.

    Examples
    --------
    >>> every_class(torch.tensor([0, 2]), 3).tolist()
    [[0, 0], [1, 1], [2, 2]]
    """
    K = _checked(labels, num_classes)
    return torch.arange(K, device=labels.device)[:, None].expand(K, len(labels)).contiguous()


def every_other_class(labels: Tensor, num_classes: int) -> Tensor:
    """Return every wrong class as a target, shape (K - 1, n), int64: y + 1, y + 2, ... modulo K.

    Parameters
    ----------
    labels
        Classes of n examples, shape (n,), int64.
    num_classes
        K, >= 2.

    Examples
    --------
    >>> every_other_class(torch.tensor([0, 2]), 3).tolist()
    [[1, 0], [2, 1]]
    """
    K = _checked(labels, num_classes)
    return (labels[None, :] + torch.arange(1, K, device=labels.device)[:, None]) % K
