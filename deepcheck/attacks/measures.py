"""What the size of a perturbation is measured by: a norm of what is added to the image, or what a transformation does.

A `Norm` (see `deepcheck.attacks.norms`) is a measure with a geometry of images. The others measure the parameters of a
transformation; points of such attacks carry their size with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from deepcheck.checks import checked_choice

__all__ = ["SIZES", "ColourSize", "CombinedSize", "FlowSize", "Measure", "RigidSize", "measure"]


class Measure:
    """What `epsilon` bounds, and what `length` is in a result."""

    name: ClassVar[str]

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class FlowSize(Measure):
    """The longest displacement of a pixel, in pixels."""

    name = "flow"


class ColourSize(Measure):
    """The largest change of a colour: of L* over 100, u* over 200, v* over 200; of grey levels, over their range."""

    name = "colour"


class RigidSize(Measure):
    """The larger of angle and shift along an axis, each as a share of the largest that is allowed."""

    name = "rigid"


class CombinedSize(Measure):
    """The largest of the sizes of several transformations, each as a share of its bound."""

    name = "combined"


SIZES: dict[str, Measure] = {one.name: one for one in (FlowSize(), ColourSize(), RigidSize(), CombinedSize())}
"""One of each that is no norm, by name."""


def measure(value: object, allowed: Mapping[str, Measure]) -> Measure:
    """Return a measure by its name, or the measure itself, out of those that an attack knows.

    Raises
    ------
    ValueError, TypeError
        If it is none of them.
    """
    if not isinstance(value, Measure):
        return allowed[checked_choice("norm", value, allowed)]
    if not any(isinstance(value, type(one)) for one in allowed.values()):
        raise ValueError(f"norm = {value!r} is not allowed: one of {', '.join(allowed)} is")
    return value
