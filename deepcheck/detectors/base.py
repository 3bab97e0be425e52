"""What every detector is: an object that is fitted once, and gives a number to every image afterwards."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from deepcheck import checkpoint
from deepcheck.attacks.base import Model, checked_images, checked_logits, evaluating
from deepcheck.attacks.calls import logits_of
from odeflow.model import checked_count

__all__ = ["Detector"]

FILE = "detector"
"""Key of a detector in the header of its file."""
_STATE = "_state"


@dataclass(frozen=True)
class Detector(ABC):
    """A detector: a frozen configuration, and what it learnt from clean images.

    A subclass is a frozen dataclass of its options with two methods, `_learn` and `_score`, and stands in DETECTORS. Both
    see the net in eval mode.
    """

    name: ClassVar[str]
    """Its name in DETECTORS."""
    rejects: ClassVar[tuple[str, ...]] = ()
    """What it is claimed to score lower than clean images: some of "noise" and "attacked"."""

    @abstractmethod
    def _learn(self, net: Model, images: Tensor, labels: Tensor, batch_size: int) -> dict[str, Tensor]:
        """Return what is to be known of clean training images, as named tensors. Gradients are off."""

    @abstractmethod
    def _score(self, net: Model, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        """Return the scores of one batch, shape (n,), differentiable where the net is. `state` is on the images' device."""

    def fit(self, net: Model, images: Tensor, labels: Tensor, *, batch_size: int = 500) -> Self:
        """Learn what clean images of each class look like to a net.

        Parameters
        ----------
        net
            A function from images to logits. A module is put into eval mode, and back afterwards.
        images
            Clean training images, shape (n, ...), pixels in [0, 1], n >= 1; not those of a test.
        labels
            Their classes, shape (n,), int64, on the same device.
        batch_size
            Images that the net sees at once, >= 1.

        Returns
        -------
        Detector
            A fitted detector of the same options; this one stays as it is.

        Raises
        ------
        ValueError, TypeError
            If images or labels are not allowed, or the net is not what this detector looks at.
        """
        checked_images(images, labels, (0.0, 1.0))
        checked_count("batch_size", batch_size, 1)
        if not len(images):
            raise ValueError("images are none: allowed is one or more, clean ones of the training set")
        with evaluating(net), torch.no_grad():
            checked_logits(logits_of(net, images[:1]), 1, labels)
            state = self._learn(net, images, labels, batch_size)
        return self.restored(state)

    def score(self, net: Model, images: Tensor, *, batch_size: int = 500) -> Tensor:
        """Return a number for every image, large where it is to be accepted.

        Parameters
        ----------
        net
            The net that the detector was fitted for. A module is put into eval mode, and back afterwards.
        images
            Shape (n, ...), pixels in [0, 1].
        batch_size
            Images that the net sees at once, >= 1. The result does not depend on it, nor on the other images.

        Returns
        -------
        Tensor
            Shape (n,), finite. With a gradient where `images` ask for one: an attack that knows the detector needs it.

        Raises
        ------
        ValueError, TypeError
            If it was not fitted, or the images are not allowed.
        """
        state: Mapping[str, Tensor] | None = getattr(self, _STATE, None)
        if state is None:
            raise ValueError(f"{self!r} was not fitted: allowed is what its method fit returns")
        no_labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        checked_images(images.detach(), no_labels, (0.0, 1.0))
        checked_count("batch_size", batch_size, 1)
        here = {name: tensor.to(images.device) for name, tensor in state.items()}
        with evaluating(net), torch.set_grad_enabled(torch.is_grad_enabled() and images.requires_grad):
            parts = [self._score(net, part, here) for part in torch.split(images, batch_size)] if len(images) else []
        return torch.cat(parts) if parts else images.new_zeros(0)

    def restored(self, state: Mapping[str, Tensor]) -> Self:
        """Return a detector of the same options that knows `state`, as `fit` leaves it."""
        fitted = type(self)(**asdict(self))
        object.__setattr__(fitted, _STATE, dict(state))
        return fitted

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the fitted detector to a safetensors file: no pickle. `load_detector` reads it.

        Raises
        ------
        ValueError
            If it was not fitted.
        """
        state: Mapping[str, Tensor] | None = getattr(self, _STATE, None)
        if state is None:
            raise ValueError(f"{self!r} was not fitted: allowed is what its method fit returns")
        return checkpoint.write(path, state, {FILE: {"name": self.name, "options": asdict(self)}})
