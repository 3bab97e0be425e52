"""Carlini and Wagner's attacks in L-infinity and L0: a bound on the perturbation that is tightened whenever it holds."""

from __future__ import annotations

import abc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.minimal.tanh import Adam, TanhSpace
from deepcheck.attacks.norms import per_example
from deepcheck.attacks.points import Points

__all__ = ["Bound", "Entries", "Largest", "Search"]

GAIN = 0.9999
"""A run goes on while each tenth of it brings the loss below this share of what it was."""
_EVERY = 10


class Bound(abc.ABC):
    """What holds perturbations back, for each of n images."""

    @abc.abstractmethod
    def confined(self, z: Tensor, x: Tensor) -> Tensor:
        """Return points with the image in the place of entries that must not change."""

    @abc.abstractmethod
    def penalty(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return what is added to the hinge, shape (n,), and its gradient."""

    @abc.abstractmethod
    def holds(self, delta: Tensor) -> Tensor:
        """Return where the bound holds, shape (n,)."""

    @abc.abstractmethod
    def tighten(self, chosen: Tensor, delta: Tensor, gradient: Tensor, share: float) -> None:
        """Tighten the bound of some images, shape (n,), to a share of what the perturbation needs."""

    @abc.abstractmethod
    def done(self) -> Tensor:
        """Return where the bound is as tight as it is to be, shape (n,)."""

    @abc.abstractmethod
    def at(self, rows: Tensor) -> Bound:
        """Return the bound of some of the images."""


class Largest(Bound):
    """No entry larger than s, which is a penalty: sum of max(|delta_i| - s, 0)."""

    def __init__(self, s: Tensor, least: float) -> None:
        self.s, self.least = s, least

    @staticmethod
    def of(images: Tensor, bounds: tuple[float, float]) -> Largest:
        """Return the bound that is the whole box; the least is 1/256 of it."""
        size = bounds[1] - bounds[0]
        return Largest(images.new_full((len(images),), size), size / 256)

    def confined(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the points: all entries may change."""
        del x
        return z

    def penalty(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return sum of max(|delta_i| - s, 0), and its gradient."""
        excess = delta.abs() - per_example(self.s, delta)
        return excess.clamp(min=0).flatten(1).sum(1), delta.sign() * (excess > 0)

    def holds(self, delta: Tensor) -> Tensor:
        """Return where no entry is larger than s."""
        return delta.flatten(1).abs().amax(1) <= self.s

    def tighten(self, chosen: Tensor, delta: Tensor, gradient: Tensor, share: float) -> None:
        """Let s be a share of the largest entry."""
        del gradient
        self.s = torch.where(chosen, share * delta.flatten(1).abs().amax(1), self.s)

    def done(self) -> Tensor:
        """Return where s is below a grey level of 256."""
        return self.s < self.least

    def at(self, rows: Tensor) -> Largest:
        """Return the bound of some of the images."""
        return Largest(self.s[rows], self.least)


class Entries(Bound):
    """Only allowed entries change, of which there are fewer and fewer; the penalty is |delta|_2^2."""

    def __init__(self, allowed: Tensor) -> None:
        self.allowed = allowed

    @staticmethod
    def of(images: Tensor) -> Entries:
        """Return the bound that allows all."""
        return Entries(torch.ones_like(images, dtype=torch.bool))

    def confined(self, z: Tensor, x: Tensor) -> Tensor:
        """Return the points, and the image where entries are not allowed to change."""
        return torch.where(self.allowed, z, x)

    def penalty(self, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return |delta|_2^2 and its gradient."""
        return delta.flatten(1).square().sum(1), 2 * delta

    def holds(self, delta: Tensor) -> Tensor:
        """Return True: points are made so."""
        return torch.ones(len(delta), dtype=torch.bool, device=delta.device)

    def tighten(self, chosen: Tensor, delta: Tensor, gradient: Tensor, share: float) -> None:
        """Allow a share of the entries that have changed, one less at least: those with the largest |gradient * delta|."""
        changed = (delta != 0).flatten(1)
        score = torch.where(changed, (gradient * delta).flatten(1).abs(), -1.0)
        kept = torch.minimum((share * changed.sum(1)).floor(), changed.sum(1) - 1.0)
        rank = score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        fewer = (rank < kept[:, None]).view_as(self.allowed)
        self.allowed = torch.where(per_example(chosen, delta), fewer & self.allowed, self.allowed)

    def done(self) -> Tensor:
        """Return where none is allowed."""
        return ~self.allowed.flatten(1).any(1)

    def at(self, rows: Tensor) -> Entries:
        """Return the bound of some of the images."""
        return Entries(self.allowed[rows])


@dataclass(frozen=True)
class Search:
    """One search: steps of Adam down penalty + c hinge, in tanh space, each image with a bound, c and a count of its own."""

    bounds: tuple[float, float]
    steps: int
    step_size: float
    searches: int
    initial_c: float
    share: float
    """What is left of the bound whenever it holds, in (0, 1)."""
    ask: Callable[[Examples, Tensor], tuple[Points, Tensor]]
    """Returns what the model makes of points, and the gradient of the objective."""
    confidence: float
    put: Callable[[Examples, Points, Points, Tensor], Tensor]
    """Puts points in the place of others where they are nearer, and returns all lengths."""

    def __call__(self, examples: Examples, found: Points, bound: Bound) -> Points:
        """Return the nearest points that a search finds, from what is found already."""
        kept, rows = found, torch.arange(len(examples), device=examples.images.device)
        space = TanhSpace(examples.images, self.bounds)
        u = space.start.clone()
        adam = Adam(u, self.step_size, self.steps)
        best = found.copy()
        n = len(examples)
        c = examples.images.new_full((n,), self.initial_c)
        least, lowest, before = (c.new_full((n,), torch.inf) for _ in range(3))
        raised = torch.zeros_like(rows)
        tenth = max(1, self.steps // 10)
        step = 0
        while len(rows):
            step += 1
            z, slope = space.points(u)
            z = bound.confined(z, examples.images)
            points, gradient = self.ask(examples, z)
            assert points.reached is not None
            least = self.put(examples, best, points, least)
            delta = z - examples.images
            penalty, down = bound.penalty(delta)
            hinge = (self.confidence - points.value).clamp(min=0)
            lowest = torch.minimum(lowest, penalty + c * hinge)
            active = per_example(c * (hinge > 0), z)
            adam.move(u, (down - active * gradient).mul_(slope))
            held = points.reached & bound.holds(delta)
            bound.tighten(held, delta, gradient, self.share)
            looked = adam.count % tenth == 0
            failed = ~held & ((looked & (lowest > GAIN * before)) | (adam.count >= self.steps))
            before = torch.where(looked, lowest, before)
            c = torch.where(failed, 10 * c, c)
            raised = raised + failed
            new = held | failed
            adam.restart(new)
            lowest, before = (one.masked_fill(new, torch.inf) for one in (lowest, before))
            if step % _EVERY == 0:
                going = ((raised < self.searches) & ~bound.done()).nonzero().squeeze(1)
                if len(going) < len(rows):
                    kept.put(rows, best)
                    rows, best, examples, space, u = (
                        rows[going],
                        best.at(going),
                        examples.at(going),
                        space.at(going),
                        u[going],
                    )
                    adam, bound, c, raised = adam.at(going), bound.at(going), c[going], raised[going]
                    least, lowest, before = least[going], lowest[going], before[going]
        return kept
