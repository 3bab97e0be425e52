"""The attacks of Carlini and Wagner: the nearest example as the minimum of distance and hinge, in tanh space, by Adam."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.gradients import points_and_gradient
from deepcheck.attacks.minimal.penalty import PenaltyAttack
from deepcheck.attacks.minimal.tighten import Entries, Largest, Search
from deepcheck.attacks.minimal.tanh import Adam, TanhSpace
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.points import Points

__all__ = ["CarliniWagner"]


@dataclass(frozen=True)
class CarliniWagner(PenaltyAttack):
    r"""C&W (Carlini and Wagner, IEEE S&P 2017): distance and hinge minimised together, in tanh space, by Adam.

    In L2, with :math:`x' = (\tanh u + 1) / 2` for pixels in [0, 1],

    .. math:: \min_u |x' - x|_2^2 + c \max(\kappa - m(x'), 0)

    """

    norm: Norm | str = "l2"
    """The distance: "l2", "linf" or "l0"."""
    _: KW_ONLY
    share: float = 0.9
    """In L-infinity and L0: what is left of the bound whenever it holds, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(math.isfinite(edge) for edge in self.bounds):
            raise ValueError(f"bounds = {self.bounds!r} is not allowed for CarliniWagner: finite ones are")

    def _size(self, delta: Tensor) -> Tensor:
        return self._norm.length(delta)

    def _nearest(self, examples: Examples) -> Points:
        if self._norm.name == "l2":
            return super()._nearest(examples)
        found = self._points(examples, examples.images.clone())
        rows = found.unfinished()
        if not len(rows):
            return found
        some, best = examples.at(rows), found.at(rows)
        x = some.images
        bound = Entries.of(x) if self._norm.name == "l0" else Largest.of(x, self.bounds)
        search = Search(
            self.bounds,
            self.steps,
            self.step_size,
            self.searches,
            self.initial_c,
            self.share,
            self._asked,
            self.confidence,
            self._put_smaller,
        )
        best = search(some, best, bound)
        if self._norm.name == "linf":
            best = self._on_the_line(some, best)
        found.put(rows, best)
        return found

    def _asked(self, examples, z):
        points, gradient = points_and_gradient(examples, z, self._objective)
        return self._judged(points), gradient

    def _walk(self, examples: Examples, c: Tensor) -> _Walk:
        space = TanhSpace(examples.images, self.bounds)
        u = space.start.clone()
        return _Walk(self, examples, c, space, u, Adam(u, self.step_size, self.steps))


@dataclass(eq=False)
class _Walk:
    """Adam in tanh space down |z - x|^2 + c max(confidence - objective, 0)."""

    attack: CarliniWagner
    examples: Examples
    c: Tensor
    space: TanhSpace
    u: Tensor
    adam: Adam

    def step(self, number: int) -> tuple[Points, Tensor]:
        """Return the points before the step, and the loss there."""
        del number
        z, slope = self.space.points(self.u)
        points, gradient = self.attack._points_and_gradient(self.examples, z)
        delta = z - self.examples.images
        loss = delta.flatten(1).square().sum(1) + self.c * self.attack._hinge(points)
        self.adam.move(self.u, delta.mul_(2).sub_(per_example(self.c, z) * gradient).mul_(slope))
        return points, loss

    def at(self, rows: Tensor) -> _Walk:
        """Return the walk of some of the images."""
        examples, space, adam = self.examples.at(rows), self.space.at(rows), self.adam.at(rows)
        return _Walk(self.attack, examples, self.c[rows], space, self.u[rows], adam)
