"""The search that attacks of the kind of Carlini and Wagner's share: distance plus c times a hinge, and a bisection of c."""

from __future__ import annotations

import abc
from dataclasses import KW_ONLY, dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from deepcheck.attacks.examples import Examples
from deepcheck.attacks.gradients import points_and_gradient
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.norms import per_example
from deepcheck.attacks.points import Points
from odeflow.model import checked_count, checked_number

__all__ = ["GAIN", "PenaltyAttack", "Walk"]

GAIN = 0.9999
"""A run goes on while each tenth of it brings the least loss below this share of what it was."""


class Walk(Protocol):
    """Points that go down the loss, step by step."""

    def step(self, number: int) -> tuple[Points, Tensor]:
        """Take the step with this number, 0, 1, ..., and return the points to judge, and the loss, shape (n,)."""

    def at(self, rows: Tensor) -> Walk:
        """Return the walk of some of the images."""


@dataclass(frozen=True)
class PenaltyAttack(MinimalAttack):
    r"""An attack that minimises, for each image, :math:`D(x' - x) + c \max(\kappa - m(x'), 0)` at several c.

    m is the objective, which is positive where its goal is reached, D what the attack calls small. The first c is
    `initial_c`. It is multiplied by 10 until a run succeeds, then bisected: every image has its own. Of all points of all
    runs that reach the goal with :math:`m \ge \kappa`, the least counts.
    """

    _: KW_ONLY
    steps: int = 1000
    """Steps at one c, >= 1; at most, see `abort_early`."""
    step_size: float = 0.01
    """Step size, > 0."""
    searches: int = 9
    """Values of c, >= 1."""
    initial_c: float = 1e-3
    """First value of c, > 0."""
    confidence: float = 0.0
    """Margin kappa that the objective must have, >= 0, in its units: 10 gives the high-confidence attack."""
    abort_early: bool = True
    """Stop a run where a tenth of its steps has not made the loss smaller, for each image."""
    line_search: int = 10
    """Bisections, >= 0, of the line from the image to what a run found; 0: none, as in the paper."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("steps", 1), ("searches", 1), ("line_search", 0)):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), least))
        for name in ("step_size", "initial_c"):
            checked_number(name, getattr(self, name), above=0)
        checked_number("confidence", self.confidence, least=0)
        if not isinstance(self.abort_early, bool):
            raise TypeError(f"abort_early = {self.abort_early!r} is not a bool: allowed is True or False")
        right, classes = torch.tensor([[3.0, 1.0, 0.5, 0.0]]), torch.tensor([0])
        reached = self._objective.reached(right, classes, classes + 1)
        assert reached is not None
        if not bool(reached | (self._objective(right, classes, classes + 1) <= 0)):
            raise ValueError(
                f"objective = {self.objective!r} is not allowed: one that is positive where its goal is reached and nowhere "
                "else is, say margin or targeted_margin"
            )

    @abc.abstractmethod
    def _size(self, delta: Tensor) -> Tensor:
        """Return what is to be small, shape (n,), of perturbations."""

    @abc.abstractmethod
    def _walk(self, examples: Examples, c: Tensor) -> Walk:
        """Return a walk from the images, at c, shape (n,)."""

    def _nearest(self, examples: Examples) -> Points:
        found = self._points(examples, examples.images.clone())
        rows = found.unfinished()
        if not len(rows):
            return found
        found.put(rows, self._search_all(examples.at(rows), found.at(rows)))
        return found

    def _search_all(self, examples: Examples, best: Points) -> Points:
        """Return the least points for images that do not reach the goal as they are: `best` is they."""
        c = examples.images.new_full((len(examples),), self.initial_c)
        lower, upper = torch.zeros_like(c), torch.full_like(c, torch.inf)
        for _search in range(self.searches):
            new = self._run(examples, c)
            assert new.reached is not None
            upper = torch.where(new.reached, torch.minimum(upper, c), upper)
            lower = torch.where(new.reached, lower, torch.maximum(lower, c))
            c = torch.where(upper.isinf(), 10 * c, (lower + upper) / 2)
            self._put_smaller(examples, best, self._on_the_line(examples, new))
        return best

    def _points(self, examples: Examples, z: Tensor) -> Points:
        """Return what the model makes of points; the goal is reached with the margin that is asked for."""
        return self._judged(examples.points(z, self._objective))

    def _points_and_gradient(self, examples: Examples, z: Tensor) -> tuple[Points, Tensor]:
        """Return the same, and the gradient of the objective."""
        points, gradient = points_and_gradient(examples, z, self._objective)
        return self._judged(points), gradient

    def _hinge(self, points: Points, c: Tensor) -> tuple[Tensor, Tensor]:
        """Return c max(confidence - objective, 0), shape (n,), and its slope by the objective, less the sign."""
        short = points.value < self.confidence
        return torch.where(short, c * (self.confidence - points.value), 0.0), torch.where(short, c, 0.0)

    def _judged(self, points: Points) -> Points:
        assert points.reached is not None
        if self.confidence == 0:
            return points
        return replace(points, reached=points.reached & (points.value >= self.confidence))

    def _least(self, examples: Examples, points: Points) -> Tensor:
        """Return the sizes of the perturbations as they leave the attack, infinite where the goal is not reached."""
        assert points.reached is not None
        x = examples.images
        return self._size(examples.rounded(points.images).to(x.dtype) - x).masked_fill(~points.reached, torch.inf)

    def _put_smaller(self, examples: Examples, best: Points, new: Points, least: Tensor | None = None) -> Tensor:
        """Put new points in where they are smaller, and return all sizes; `least` are those of the points that are here."""
        least = self._least(examples, best) if least is None else least
        size = self._least(examples, new)
        smaller = (size < least) | (size.isinf() & least.isinf() & (new.value > best.value))
        best.put_where(smaller, new)
        return torch.minimum(size, least)

    def _on_the_line(self, examples: Examples, found: Points) -> Points:
        """Return points between image and what was found, close to where the goal is lost."""
        assert found.reached is not None
        rows = found.reached.nonzero().squeeze(1)
        if not self.line_search or not len(rows):
            return found
        some, best = examples.at(rows), found.at(rows)
        x, delta = some.images, best.images - some.images
        short, far = delta.new_zeros(len(rows)), delta.new_ones(len(rows))
        least = self._least(some, best)
        for _bisection in range(self.line_search):
            middle = (short + far) / 2
            new = self._points(some, (x + per_example(middle, x) * delta).clamp_(*self.bounds))
            least = self._put_smaller(some, best, new, least)
            assert new.reached is not None
            far, short = torch.where(new.reached, middle, far), torch.where(new.reached, short, middle)
        found = found.copy()
        found.put(rows, best)
        return found

    def _run(self, examples: Examples, c: Tensor) -> Points:
        """Return the least points of one run at c, shape (n,), that reach the goal, or the best that do not."""
        walk = self._walk(examples, c)
        best, loss = walk.step(0)
        least = self._least(examples, best)
        kept, lowest, before = best.copy(), loss, loss
        rows = torch.arange(len(c), device=c.device)
        tenth = max(1, self.steps // 10)
        for step in range(1, self.steps):
            points, loss = walk.step(step)
            least = self._put_smaller(examples, best, points, least)
            lowest = torch.minimum(lowest, loss)
            if not self.abort_early or step % tenth or step == self.steps - 1:
                continue
            going = (lowest <= GAIN * before).nonzero().squeeze(1)
            if len(going) < len(rows):
                kept.put(rows, best)
                if not len(going):
                    return kept
                examples, walk, best = examples.at(going), walk.at(going), best.at(going)
                least, lowest, rows = least[going], lowest[going], rows[going]
            before = lowest
        kept.put(rows, best)
        return kept
