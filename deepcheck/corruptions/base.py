"""What every natural corruption is: a function of images, a severity from 1 to 5, and random numbers.

Hendrycks and Dietterich (ICLR 2019) corrupted photographs in some twenty ways, each in five severities: CIFAR-10-C. Mu and Gilmer
(2019) did so for MNIST: MNIST-C, in one severity each, chosen out of five. A corruption here has two tables of five parameters:
one for grey images, with the numbers by which MNIST-C was made, and one for coloured ones, with those of CIFAR-10-C. Where there
are none, or one alone, the numbers are ours, and `grey_from` and `colour_from` say so.

Lengths in the tables are pixels of images 28 high (grey) or 32 (colour). They grow and shrink with the height.
"""

from __future__ import annotations

import abc
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from deepcheck.attacks.checks import checked_images
from deepcheck.attacks.draws import Draws, Source
from deepcheck.attacks.spatial.sampling import checked_pictures

__all__ = [
    "CIFAR10_C",
    "GREY_HEIGHT",
    "MNIST_C",
    "OURS",
    "SEVERITIES",
    "Corruption",
    "checked_severities",
    "checked_severity",
    "unit",
]

SEVERITIES = (1, 2, 3, 4, 5)
MNIST_C = "MNIST-C"
CIFAR10_C = "CIFAR-10-C"
OURS = "ours"
GREY_HEIGHT, COLOUR_HEIGHT = 28, 32


def checked_severity(severity: object) -> int:
    """Return a severity.

    Raises
    ------
    TypeError
        If it is no whole number.
    ValueError
        If it is not one of 1 to 5. The image as it is has no severity.
    """
    if isinstance(severity, bool) or not isinstance(severity, int):
        raise TypeError(f"severity = {severity!r} is of the wrong type: allowed is a whole number from 1 to 5")
    if severity not in SEVERITIES:
        raise ValueError(f"severity = {severity} is out of range: allowed is a whole number from 1 to 5")
    return severity


def checked_severities(severities: object) -> tuple[int, ...]:
    """Return severities, one at least, each once; raises as `checked_severity`."""
    if isinstance(severities, str) or not isinstance(severities, Iterable):
        raise TypeError(f"severities = {severities!r} is of the wrong type: allowed are numbers out of 1 to 5")
    found = tuple(checked_severity(one) for one in severities)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"severities = {list(found)} is not allowed: one or more out of 1 to 5, each once, are")
    return found


def unit(images: Tensor) -> float:
    """Return how many pixels of these images a pixel of the tables is."""
    return images.shape[2] / (GREY_HEIGHT if images.shape[1] == 1 else COLOUR_HEIGHT)


@dataclass(frozen=True)
class Corruption(abc.ABC):
    """A corruption: called with images, a severity and a source of random numbers, it returns corrupted images.

    A subclass has the tables and the method `apply`, and stands in CORRUPTIONS. The first line of its docstring says what it does.
    """

    group: ClassVar[str]
    """noise, blur, weather, digital or geometric."""
    random: ClassVar[bool] = True
    """Whether other random numbers give other images."""
    grey: ClassVar[tuple[Any, ...] | None]
    """The five parameters for grey images. None: there is no such corruption of grey images."""
    colour: ClassVar[tuple[Any, ...]]
    """The five parameters for coloured images."""
    grey_from: ClassVar[str] = MNIST_C
    """Where the parameters for grey images are from."""
    colour_from: ClassVar[str] = CIFAR10_C
    """The same for coloured ones."""
    published: ClassVar[int | None] = None
    """The severity of which the files of MNIST-C are; None where it is not among its fifteen corruptions."""

    def __call__(self, images: Tensor, severity: int, source: Source) -> Tensor:
        """Return corrupted images.

        Parameters
        ----------
        images
            Shape (n, 1 or 3, height, width), pixels in [0, 1], of a floating type.
        severity
            1 to 5.
        source
            Random numbers by example, or a generator that gives the seed of such: what an image becomes depends on its own
            numbers, and neither on the other images nor on the device.

        Returns
        -------
        Tensor
            Of the same shape, type and device, pixels in [0, 1]: a new tensor.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed; before any work.
        """
        parameters = self.parameters(self._checked(images))
        parameter = parameters[checked_severity(severity) - 1]
        draws = Draws.of(source, images)
        with torch.no_grad():
            wide = images.to(torch.promote_types(images.dtype, torch.float32)).contiguous()
            corrupted = self.apply(wide, parameter, draws) if len(images) else wide
            return corrupted.clamp(0, 1).to(images.dtype)  # clamp makes a new tensor

    @abc.abstractmethod
    def apply(self, images: Tensor, parameter: Any, draws: Draws) -> Tensor:
        """Return the images after the corruption with one parameter of a table. Pixels may leave [0, 1]."""

    def parameters(self, channels: int) -> tuple[Any, ...]:
        """Return the five parameters for images of so many channels.

        Raises
        ------
        ValueError
            If there is no such corruption of grey images.
        """
        if channels != 1:
            return self.colour
        if self.grey is None:
            raise ValueError(f"{type(self).__name__} of grey images is not allowed: it does nothing to them")
        return self.grey

    def _checked(self, images: object) -> int:
        """Return the number of channels of images that are allowed."""
        shape = tuple(images.shape) if isinstance(images, Tensor) else (0,)
        labels = torch.zeros(shape[:1], dtype=torch.int64, device=images.device if isinstance(images, Tensor) else None)
        checked_images(images, labels, (0.0, 1.0))
        checked_pictures(shape)
        if shape[1] not in (1, 3):
            raise ValueError(f"images of shape {shape} are not allowed: 1 channel (grey) or 3 (colours) are")
        return shape[1]
