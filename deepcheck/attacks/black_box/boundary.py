"""What attacks share that see labels alone: questions within a budget, rays, and bisection to the boundary."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from deepcheck.attacks.base import Bounds, Examples
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.points import Points

__all__ = ["FINEST", "Labels", "Lines", "Rays", "bisected", "checked_finite", "unit"]

FINEST = 64
"""Tolerance of a bisection, at least, in units of the precision: nearer to the boundary rounding decides on the label."""
_BEYOND = 1e-4
"""Share of the distance by which the points that leave an attack are beyond the last ones of a bisection."""


def checked_finite(bounds: Bounds, attack: str) -> None:
    """Raise ValueError if the box is not finite: an attack that starts anywhere in it needs one that is."""
    if not all(math.isfinite(bound) for bound in bounds):
        raise ValueError(f"bounds = {bounds!r} is not allowed for {attack}: finite ones are")


class Labels:
    """A model that says of points whether they reach the goal, and no more, a limited number of times for each example.

    The nearest points that do are kept, with what the model says of them.

    Parameters
    ----------
    examples
        n examples. They are asked about at once, as they are: that is the first query of each.
    objective
        Says what the goal is. Its value is not looked at.
    norm
        Of distances.
    bounds
        Least and largest value of a pixel.
    queries
        The budget of each example, >= 1.
    """

    def __init__(self, examples: Examples, objective: Objective, norm: Norm, bounds: Bounds, queries: int) -> None:
        self.examples, self.norm, self.bounds = examples, norm, bounds
        self._objective = objective
        self.found = examples.points(examples.images.clone(), objective)
        """The nearest points that reach the goal, and the images themselves where none has been found."""
        assert self.found.reached is not None
        x = examples.images
        self.length = x.new_zeros(len(x)).masked_fill_(~self.found.reached, torch.inf)
        """How far they are, shape (n,); infinite where none has been found."""
        self.left = torch.full_like(examples.labels, max(queries - 2, 0))
        """Queries that are left, shape (n,), without the last one."""
        self._last = queries > 1

    def ask(self, rows: Tensor, z: Tensor, *, keep: bool = True) -> tuple[Tensor, Tensor]:
        """Return of points whether they reach the goal, and how far they are, both shape (m,).

        A point of an example that has no query left does not reach it.

        Parameters
        ----------
        rows
            Numbers of the examples, ascending, shape (m,): one may come several times.
        z
            Points in the box, shape (m, ...).
        keep
            Look whether they are the nearest so far. Without, they are not kept, and all distances are 0.
        """
        reached, length = torch.zeros_like(rows, dtype=torch.bool), z.new_zeros(len(rows))
        count = torch.bincount(rows, minlength=len(self.left))
        place = torch.arange(len(rows), device=rows.device) - (count.cumsum(0) - count)[rows]  # among its example's
        asked = (place < self.left[rows]).nonzero().squeeze(1)
        self.left = (self.left - count).clamp_(min=0)
        for part in asked.split(self.examples.batch_size) if len(asked) else ():
            some, points = self.examples.at(rows[part]), z[part]
            new = some.points(points, self._objective)
            assert new.reached is not None
            reached[part] = new.reached
            if not keep:
                continue
            far = self.norm.length(some.rounded(points).to(points.dtype) - some.images)
            length[part] = far
            least = self.length.scatter_reduce(0, rows[part], far.masked_fill(~new.reached, torch.inf), "amin")
            nearest = new.reached & (far == least[rows[part]]) & (far < self.length[rows[part]])
            index = nearest.nonzero().squeeze(1)
            mine = rows[part][index]
            first = torch.ones_like(mine, dtype=torch.bool)
            first[1:] = mine[1:] != mine[:-1]  # of several of an example that are equally near
            self.found.put(mine[first], new.at(index[first]))
            self.length = least
        return reached, length

    def secured(self) -> Points:
        """Return the nearest points, a little beyond the boundary, so that rounding does not matter. It takes the last query."""
        rows = (self.length.isfinite() & (self.length > 0)).nonzero().squeeze(1)
        if not self._last or not len(rows):
            return self.found
        for part in rows.split(self.examples.batch_size):
            some = self.examples.at(part)
            beyond = (1 + _BEYOND) * (self.found.images[part] - some.images)
            new = some.points((some.images + beyond).clamp_(*self.bounds), self._objective)
            assert new.reached is not None
            index = new.reached.nonzero().squeeze(1)
            self.found.put(part[index], new.at(index))
        return self.found

    def going(self, rows: Tensor, least: int = 1) -> Tensor:
        """Return those of the examples `rows` that have so many queries left."""
        return rows[self.left[rows] >= least]


class Lines(Protocol):
    """Lines from images outwards, of which some can be taken."""

    def at(self, lines: Tensor) -> Lines:
        """Return the lines with these numbers."""

    def __call__(self, s: Tensor) -> Tensor:
        """Return the point of each line at s, shape (m,): the farther, the larger s is."""


class Rays:
    """Rays clip(x + s v) from images x, which may have several each.

    Parameters
    ----------
    labels
        Of the examples, with the box.
    rows
        Numbers of the examples, ascending, shape (m,).
    v
        Shape (m, ...).
    """

    def __init__(self, labels: Labels, rows: Tensor, v: Tensor) -> None:
        self.rows, self.v, self._labels = rows, v, labels

    def at(self, lines: Tensor) -> Rays:
        """Return the rays with these numbers."""
        return Rays(self._labels, self.rows[lines], self.v[lines])

    def __call__(self, s: Tensor) -> Tensor:
        """Return the point of each ray at s, shape (m,)."""
        return self._x().addcmul(per_example(s, self.v), self.v).clamp_(*self._labels.bounds)

    def length(self, s: Tensor) -> Tensor:
        """Return how far these points are, shape (m,)."""
        return self._labels.norm.length(self(s) - self._x())

    def at_length(self, s: Tensor, length: Tensor) -> Tensor:
        """Return about where rays are so far from the image, from s on: exact where no pixel meets the box."""
        for _ in range(3):
            now = self.length(s)
            s = torch.where(now > 0, s * (length / now), s)
        return s

    def _x(self) -> Tensor:
        return self._labels.examples.images[self.rows]


def bisected(
    labels: Labels, rows: Tensor, lines: Lines, low: Tensor, high: Tensor, tolerance: Tensor, *, nearest: bool = True
) -> Tensor:
    """Return where lines cross the boundary, shape (m,): from `high`, a point nearer by that reaches the goal.

    Parameters
    ----------
    labels
        Who is asked.
    rows
        Numbers of the examples of the lines, ascending, shape (m,).
    lines
        The lines.
    low, high
        Where the goal is not reached, and where it is, shape (m,).
    tolerance
        Of s, shape (m,).
    nearest
        Give a line up once it cannot become the nearest point of its example.
    """
    low, high = low.clone(), high.clone()
    tolerance = torch.maximum(tolerance, FINEST * torch.finfo(high.dtype).eps * high)
    going = (high - low > tolerance).nonzero().squeeze(1)
    while len(going):
        middle = (low[going] + high[going]) / 2
        reached, length = labels.ask(rows[going], lines.at(going)(middle))
        high[going] = torch.where(reached, middle, high[going])
        low[going] = torch.where(reached, low[going], middle)
        more = (high - low > tolerance)[going] & (labels.left[rows[going]] > 0)
        if nearest:
            more &= reached | (length < labels.length[rows[going]])
        going = going[more]
    return high


def unit(v: Tensor) -> tuple[Tensor, Tensor]:
    """Return vectors of Euclidean length 1, shape (m, ...), and the lengths that they had, shape (m,)."""
    size: Tensor = torch.linalg.vector_norm(v.flatten(1), dim=1)
    return v / per_example(size, v), size
