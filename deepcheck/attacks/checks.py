"""Checks of what an attack is given."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from deepcheck.attacks.calls import ProbabilityWarning, decided

__all__ = [
    "Bounds",
    "checked_bounds",
    "checked_classes",
    "checked_epsilons",
    "checked_images",
    "checked_indices",
    "checked_logits",
    "checked_targets",
    "warn_of_probabilities",
]

Bounds = tuple[float, float]
"""Least and largest value of a pixel."""


def checked_bounds(bounds: Bounds) -> Bounds:
    """Return (low, high), low < high.

    Raises
    ------
    ValueError
        If they are not two numbers in this order.
    """
    try:
        low, high = (float(value) for value in bounds)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high:
        raise ValueError(f"bounds = {bounds!r} is not allowed: two numbers, the lower first, are")
    return low, high


def checked_images(images: object, labels: object, bounds: Bounds) -> None:
    """Raise if images and labels are not what a model can be attacked on.

    Raises
    ------
    TypeError
        If they are not tensors of numbers, images of a floating type and labels of integers.
    ValueError
        If their shapes or devices do not go together, if a pixel is NaN or out of `bounds`, or a label is negative.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"images are of the wrong type {kind}: allowed is a tensor of a floating type")
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64:
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels are of the wrong type {kind}: allowed is a tensor of torch.int64")
    if images.ndim < 2 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"images of shape {tuple(images.shape)} and labels of shape {tuple(labels.shape)} do not go together: "
            "allowed are (n, ...) and (n,)"
        )
    if images.device != labels.device:
        raise ValueError(f"images are on {images.device}, but labels on {labels.device}: allowed is one device")
    if images.numel() == 0:
        return
    least, largest = (float(value) for value in torch.aminmax(images.detach()))
    if math.isnan(least) or math.isnan(largest):
        example = int(images.isnan().flatten(1).any(1).nonzero()[0])
        raise ValueError(f"images[{example}] has NaN pixels: allowed are numbers in {list(bounds)}")
    if least < bounds[0] or largest > bounds[1]:
        hint = "; divide bytes by 255, and leave normalisation to the model" if bounds == (0.0, 1.0) else ""
        raise ValueError(f"images have pixels in [{least:g}, {largest:g}]: allowed is {list(bounds)}{hint}")
    _check_least("labels", labels)


def checked_epsilons(epsilon: float | Sequence[float], name: str = "epsilon") -> tuple[tuple[float, ...], bool]:
    """Return the epsilons, and whether one number was given; `name` is what they are called where they come from.

    Raises
    ------
    ValueError, TypeError
        If there is none, or one is negative, infinite or no number.
    """
    single = isinstance(epsilon, int | float) or getattr(epsilon, "ndim", 1) == 0
    given: object = epsilon
    try:
        if isinstance(given, str):  # "12" is not [1, 2]
            raise TypeError
        values = (float(epsilon),) if single else tuple(float(value) for value in epsilon)  # type: ignore[arg-type, union-attr]
    except (TypeError, ValueError):
        raise TypeError(f"{name} = {epsilon!r} is of the wrong type: allowed is a number or a list of them") from None
    if not values:
        raise ValueError(f"{name} = [] is not allowed: at least one number is")
    for value in values:
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} = {value!r} is not allowed: a finite number >= 0 is")
    return values, single


def checked_logits(logits: Tensor, count: int, labels: Tensor) -> None:
    """Raise if a model's output for `count` images is not logits for classes with these labels.

    Raises
    ------
    ValueError
        If its shape is not (n, K) with K >= 2, if it is not finite (minus infinity is allowed for some of the classes), or
        if a label is not below K.
    """
    if logits.ndim != 2 or len(logits) != count or logits.shape[1] < 2:
        raise ValueError(
            f"model returned logits of shape {tuple(logits.shape)} for {count} images: "
            "allowed is (n, K) with K >= 2 classes"
        )
    if not bool(decided(logits).all()):
        raise ValueError("model returned logits that are not finite: there is nothing to attack")
    checked_classes("labels", labels, logits.shape[1])


def warn_of_probabilities(logits: Tensor) -> None:
    """Warn if logits are such as probabilities are: none negative, and their sum 1.

    The softmax of a softmax is nearly uniform: gradients vanish, and confidences mean nothing.
    """
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        warnings.warn(
            "model returned outputs that sum to 1, as probabilities do: allowed are logits; leave the softmax out",
            ProbabilityWarning,
            stacklevel=2,
        )


def checked_classes(name: str, classes: Tensor, count: int) -> None:
    """Raise if classes, shape (n,), are not in 0..count - 1.

    Raises
    ------
    ValueError
        If one is not.
    """
    if not len(classes):
        return
    _check_least(name, classes)
    if int(classes.max()) >= count:
        raise ValueError(
            f"{name} have the value {int(classes.max())}, but the model has {count} classes: allowed is 0..{count - 1}"
        )


def _check_least(name: str, classes: Tensor) -> None:
    if int(classes.min()) < 0:
        raise ValueError(f"{name} have the value {int(classes.min())}: allowed is a class, 0 or more")


def checked_indices(indices: object, images: Tensor) -> Tensor:
    """Return the indices of n examples, shape (n,), int64, on their device: 0, ..., n - 1 where None is given.

    Raises
    ------
    TypeError, ValueError
        If they are not n integers of torch.int64, or one is negative.
    """
    count = len(images)
    if indices is None:
        return torch.arange(count, device=images.device)
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64:
        kind = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
        raise TypeError(f"indices are of the wrong type {kind}: allowed is a tensor of torch.int64")
    if indices.shape != (count,):
        raise ValueError(f"indices have the shape {tuple(indices.shape)}: allowed is ({count},) for {count} images")
    if count and int(indices.min()) < 0:
        raise ValueError(f"indices have the value {int(indices.min())}: allowed is 0 or more")
    return indices.to(images.device)


def checked_targets(targets: object, labels: Tensor, targeted: bool) -> Tensor | None:
    """Return the classes to reach, shape (n,) or for several sets (m, n), int64; None where the objective is not `targeted`.

    Raises
    ------
    ValueError
        If they are needed and not given in this form, or given and not needed.
    """
    if not targeted:
        if targets is not None:
            raise ValueError("targets are not allowed: the objective has none")
        return None
    n = len(labels)
    if not isinstance(targets, Tensor) or targets.dtype != torch.int64 or not _fits(tuple(targets.shape), n):
        given = f"{targets.dtype} of shape {tuple(targets.shape)}" if isinstance(targets, Tensor) else targets
        raise ValueError(
            f"targets = {given} is not allowed: a torch.int64 tensor of shape {(n,)} is, or (m, {n}) for m >= 1 targets each"
        )
    return targets.to(labels.device)


def _fits(shape: tuple[int, ...], n: int) -> bool:
    return shape == (n,) or (len(shape) == 2 and shape[0] >= 1 and shape[1] == n)
