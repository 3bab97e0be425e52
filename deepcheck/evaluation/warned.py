"""Looks at a net before an evaluation: what would make its robustness seem larger than it is, or its numbers no comparison."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor

from deepcheck.attacks.base import Model, checked_classes, checked_images, plain
from deepcheck.attacks.calls import decided, evaluating, frozen, logits_of
from deepcheck.attacks.objectives import Margin
from odeflow.model import checked_count

__all__ = ["Warned", "looked_at"]

_PAGE = "docs/warnings.md"
_SHARE = 0.02
"""Share of the images that may have no gradient, or no finite logits, without a warning."""
_CLASSES = 4
"""Least number of classes that the targeted difference of logits ratio needs."""


@dataclass(frozen=True)
class Warned:
    """A warning, and what was seen."""

    name: str
    """random-net, no-gradient, softmax, test-time-optimisation, few-classes or not-finite: its place on the page of warnings."""
    found: str
    """What was seen, and what to do."""

    def __str__(self) -> str:
        return f"{self.name}: {self.found} ({_PAGE}#{self.name})"


def looked_at(model: Model, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> list[Warned]:
    """Return what an evaluation of this net by fixed attacks has to be warned of.

    Approximate: it looks at these images alone, without an attack. An empty list is no proof.

    Parameters
    ----------
    model
        A function from images to logits. A module is put into eval mode, and back afterwards.
    images, labels
        Some test images, shape (n, ...) in [0, 1], n >= 1, and their classes, shape (n,); a hundred will do.
    batch_size
        Images that the model sees at once, >= 1.

    Returns
    -------
    list of Warned
        Of a random net, a net without gradient, outputs that sum to 1, optimisation at test time, few classes, and logits that
        are not finite.

    Raises
    ------
    ValueError, TypeError
        If images or labels are not allowed, or the model returns no logits.
    """
    checked_images(images, labels, (0.0, 1.0))
    checked_count("batch_size", batch_size, 1)
    if not len(images):
        raise ValueError("images are none: allowed is one or more")
    images, labels = plain(images), plain(labels)
    with torch.inference_mode(False), torch.no_grad(), evaluating(model), frozen(model):
        with _watched(_GRADIENTS) as calls:
            first = _logits(model, images, batch_size)
        checked_classes("labels", labels, first.shape[1])
        again = _logits(model, images, batch_size)
        some = decided(first)
        silent = _without_gradient(model, images[some], labels[some], batch_size)
    found = []
    scale = 1e-4 * float(first[some].abs().amax()) if bool(some.any()) else 0.0
    different = int(((first - again).abs() > scale).any(1).sum())
    if different:
        found.append(
            Warned(
                "random-net",
                f"the logits of {different} of {len(images)} images differ between two calls: attack the mean of several, EOT",
            )
        )
    if silent > _SHARE:
        found.append(
            Warned(
                "no-gradient",
                f"{silent:.0%} of the images have no gradient of the margin: attacks by gradient say nothing there, use BPDA, or "
                "attacks by queries",
            )
        )
    if bool(some.any()) and bool((first[some] >= 0).all()) and bool(((first[some].sum(1) - 1).abs() < 1e-4).all()):
        found.append(Warned("softmax", "the outputs sum to 1, as probabilities do: let the model return logits"))
    if calls:
        found.append(
            Warned(
                "test-time-optimisation",
                f"the model computes gradients when it is asked ({', '.join(sorted(calls))}): attack through its optimisation",
            )
        )
    if first.shape[1] < _CLASSES:
        found.append(
            Warned("few-classes", f"{first.shape[1]} classes: the margin stands for the difference of logits ratio")
        )
    if not bool(some.all()):
        found.append(
            Warned(
                "not-finite",
                f"{int((~some).sum())} of {len(images)} images have no finite logits: leave them out, they are refused",
            )
        )
    return found


def _logits(model: Model, images: Tensor, batch_size: int) -> Tensor:
    return torch.cat([logits_of(model, part).detach() for part in images.split(batch_size)])


def _without_gradient(model: Model, images: Tensor, labels: Tensor, batch_size: int) -> float:
    """Return the share of the images at which the margin has no gradient, or one of zeros."""
    none = 0
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        with torch.enable_grad():
            z = x.clone().requires_grad_()
            value = Margin()(logits_of(model, z), y)
            gradient = torch.autograd.grad(value.sum(), z, allow_unused=True)[0] if value.requires_grad else None
        none += len(x) if gradient is None else int((gradient.nan_to_num(nan=0.0).flatten(1) == 0).all(1).sum())
    return none / max(len(images), 1)


_GRADIENTS: dict[CodeType, str] = {
    torch.autograd.grad.__code__: "torch.autograd.grad",
    torch.autograd.backward.__code__: "torch.autograd.backward",
}


@contextmanager
def _watched(functions: dict[CodeType, str]) -> Iterator[set[str]]:
    """Give the names of those of some functions that are called in this thread; a profiler that is at work sees nothing of it."""
    seen: set[str] = set()
    before = sys.getprofile()

    def look(frame: FrameType, event: str, _argument: Any) -> None:
        if event == "call" and frame.f_code in functions:
            seen.add(functions[frame.f_code])

    sys.setprofile(look)
    try:
        yield seen
    finally:
        sys.setprofile(before)
