"""How a model is asked, here and wherever deepcheck asks one: what it is given, what it may answer, and the mode it is in."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = [
    "Model",
    "NotFiniteWarning",
    "ProbabilityWarning",
    "decided",
    "evaluating",
    "frozen",
    "logits_of",
    "warn_of_undecided",
]

Model = Callable[[Tensor], Tensor]
"""A function from images, shape (n, ...), to logits, shape (n, K)."""

HALVES = (torch.float16, torch.bfloat16)


class NotFiniteWarning(UserWarning):
    """A model has no finite logits at some of the points that an attack tried. They count as not broken."""


class ProbabilityWarning(UserWarning):
    """A model returns probabilities, it seems, where logits are expected."""


@contextmanager
def evaluating(model: Model) -> Iterator[None]:
    """Put a module, and every module in it, into eval mode, and restore afterwards what was found.

    A function that is no module is left alone.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def frozen(model: Model) -> Iterator[None]:
    """Let no parameter of a module ask for a gradient, and restore afterwards what was found.

    An attack needs gradients by the images alone; a compiled net computes those by its parameters too, used or not.
    A function that is no module is left alone.
    """
    trained = [p for p in model.parameters() if p.requires_grad] if isinstance(model, nn.Module) else []
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()


def logits_of(model: Model, images: Tensor) -> Tensor:
    """Return what a model says of images, shape (n, K), in single precision at least.

    The model gets a copy, which it may overwrite. Gradients pass through it.

    Parameters
    ----------
    model
        A function from images to logits.
    images
        Shape (n, ...), n >= 1.

    Raises
    ------
    TypeError
        If the model returns something else than a tensor of a floating type, such as a tuple.
    ValueError
        If its shape is not (n, K) with K >= 2.
    """
    logits: object = model(images.clone())
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(
            f"model returned a {kind} for images of shape {tuple(images.shape)}: allowed is one tensor of logits, of a "
            "floating type; take it out in a function around the model"
        )
    if logits.ndim != 2 or len(logits) != len(images) or logits.shape[1] < 2:
        raise ValueError(
            f"model returned logits of shape {tuple(logits.shape)} for {len(images)} images: "
            "allowed is (n, K) with K >= 2 classes"
        )
    return logits.float() if logits.dtype in HALVES else logits


def decided(logits: Tensor) -> Tensor:
    """Return where logits, shape (n, K), say something: the largest is finite and none is NaN, shape (n,).

    Minus infinity is allowed for some of the classes: a class that is masked.
    """
    return logits.amax(1).isfinite()


def warn_of_undecided(count: int) -> None:
    """Warn if there were points that an attack tried at which the model had no finite logits."""
    if count:
        warnings.warn(
            f"model returned logits that are not finite at {count} of the points that the attack tried: they count as not "
            "broken",
            NotFiniteWarning,
            stacklevel=2,
        )
