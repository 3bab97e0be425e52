"""Carlini and Wagner's attacks in L-infinity and L0: a bound on the perturbation that is tightened whenever it holds."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from deepcheck.attacks.examples import Examples
from deepcheck.attacks.minimal.penalty import GAIN, PenaltyAttack
from deepcheck.attacks.minimal.tanh import Adam, TanhSpace
from deepcheck.attacks.norms import per_example
from deepcheck.attacks.points import Points

__all__ = ["Bound", "Entries", "Largest", "tightened"]

_EVERY = 10
"""Steps after which images that are done are dropped."""


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


def tightened(attack: PenaltyAttack, examples: Examples, found: Points, bound: Bound, share: float) -> Points:
    """Return the nearest points that Adam finds, in tanh space, on penalty + c hinge; of those in `found`, which it changes.

    Whenever a point reaches the goal within the bound, that becomes tighter; where a run ends without one, c becomes ten
    times as large. Each image has a bound, c, and a count of steps of its own, and goes on from where it is.
    """
    rows = torch.arange(len(examples), device=examples.images.device)
    space, best = TanhSpace(examples.images, attack.bounds), found.copy()
    u = space.start.clone()
    adam = Adam(u, attack.step_size, attack.steps)
    c = torch.full_like(found.value, attack.initial_c).to(u)
    least, lowest, before = (torch.full_like(c, torch.inf) for _ in range(3))
    raised, tenth, step = torch.zeros_like(rows), max(1, attack.steps // 10), 0
    while len(rows):
        z, slope = space.points(u)
        z = bound.confined(z, examples.images)
        points, gradient = attack._points_and_gradient(examples, z)
        least = attack._put_smaller(examples, best, points, least)
        delta = z - examples.images
        (penalty, down), (hinge, weight) = bound.penalty(delta), attack._hinge(points, c)
        adam.move(u, (down - per_example(weight, z) * gradient).mul_(slope))
        assert points.reached is not None
        held = points.reached & bound.holds(delta)
        bound.tighten(held, delta, gradient, share)
        lowest, looked = torch.minimum(lowest, penalty + hinge), adam.count % tenth == 0
        stuck = looked & (lowest > GAIN * before) if attack.abort_early else torch.zeros_like(held)
        failed = ~held & (stuck | (adam.count >= attack.steps))
        before = torch.where(looked, lowest, before)
        c, raised = torch.where(failed, 10 * c, c), raised + failed
        adam.restart(held | failed)
        lowest, before = (one.masked_fill(held | failed, torch.inf) for one in (lowest, before))
        step += 1
        if step % _EVERY == 0:
            going = ((raised < attack.searches) & ~bound.done()).nonzero().squeeze(1)
            if len(going) < len(rows):
                found.put(rows, best)
                examples, best, space, adam = examples.at(going), best.at(going), space.at(going), adam.at(going)
                bound, rows, u, c, raised = bound.at(going), rows[going], u[going], c[going], raised[going]
                least, lowest, before = least[going], lowest[going], before[going]
    return found
