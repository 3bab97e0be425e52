"""Greedy local search for a few pixels."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.points import Points
from odeflow.model import checked_count, checked_number

__all__ = ["LocalSearch"]


@dataclass(frozen=True)
class LocalSearch(MinimalAttack):
    r"""LocalSearch (Narodytska, Kasiviswanathan, 2016): greedy search for a few pixels that change the class.

    A round changes each pixel of a neighbourhood alone, and asks the model. The best few are changed for good, and the
    next neighbourhood is the union of the squares around them, cut off at the edges of the image. The first is a random
    share of all pixels; of equal pixels, random ones are the best. In units in which the box is [-1/2, 1/2], the new value
    of every channel is

    .. math:: \mathrm{cyclic}(u) = r u - \mathrm{round}(r u) ,

    which is r u, or where that leaves the box r u -+ 1. The search ends when the class is another.

    Here a pixel is tried with the value that it would get, so that all that is asked is in the box, and a single pixel
    that reaches the goal ends the search. With `probe` it is tried as in the paper, at :math:`p\,\mathrm{sign}(u)`, which
    says how much the pixel matters. The objective is the margin by default, whose order of pixels stays where the
    probability of the class, the paper's score, rounds to 1; that is the objective cross_entropy. Rounds with a larger
    neighbourhood ask more: at most `kept` squares of pixels.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = LocalSearch(rounds=20)(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape
    torch.Size([1, 5])
    """

    norm: Norm | str = "l0"
    """The distance: "l0", the number of entries, so that a pixel of three channels counts three."""
    _: KW_ONLY
    rounds: int = 150
    """Rounds, R, >= 1."""
    seeds: float = 0.1
    """Share of the pixels in the first neighbourhood, in (0, 1]: one pixel at least."""
    kept: int = 5
    """Pixels that a round changes, t, >= 1."""
    neighbourhood: int = 5
    """Pixels to each side of a changed one, d, >= 1: a square of side 2 d + 1."""
    factor: float = 1.5
    """Factor of the new value, r, in (0, 2]."""
    probe: float | None = None
    """Size of a pixel on trial, p, > 0, in units of the box's width: the paper has 10. None: its new value."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rounds", "kept", "neighbourhood"):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        checked_number("seeds", self.seeds, above=0, most=1)
        checked_number("factor", self.factor, above=0, most=2)
        if self.probe is not None:
            checked_number("probe", self.probe, above=0)
        if self._norm.name != "l0":
            raise ValueError(f"norm = {self.norm!r} is not allowed for LocalSearch: l0 is")
        if not all(map(math.isfinite, self.bounds)):
            raise ValueError(f"bounds = {self.bounds} are not allowed for LocalSearch: finite ones are")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) != 4:
            raise ValueError(
                f"images of shape {shape} are not allowed for LocalSearch: (n, channels, height, width) is"
            )

    def _nearest(self, examples: Examples) -> Points:
        found = examples.points(examples.images.clone(), self._objective)
        rows = found.unfinished()
        height, width = examples.images.shape[2:]
        first = max(1, round(self.seeds * height * width))
        order = _shuffled(examples, 0)
        near = torch.zeros_like(order, dtype=torch.bool).scatter_(1, order[:, :first], True)[rows]
        for turn in range(1, self.rounds + 1):
            if not len(rows):
                break
            some, now = examples.at(rows), found.at(rows)
            chosen, known = self._best(self._tried(some, now.images, near), _shuffled(some, turn))
            changed = torch.zeros_like(near).scatter_(1, chosen, known).view(-1, 1, height, width)
            new = some.points(torch.where(changed, self._new(now.images), now.images), self._objective)
            now.put_where(new.value > -torch.inf, new)
            found.put(rows, now)
            assert now.reached is not None
            going = (~now.reached & known.any(1)).nonzero().squeeze(1)
            near = self._around(chosen[going], known[going], height, width)
            rows = rows[going]
        return found

    def _tried(self, examples: Examples, now: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
        """Return the objective with each pixel alone changed, and whether that reaches the goal, shape (n, pixels).

        The objective is minus infinity of pixels that are not in `near`, of this shape.
        """
        value = torch.full_like(near, -torch.inf, dtype=now.dtype)
        reached = torch.zeros_like(near)
        trial = (self._new(now) if self.probe is None else self._far(now)).flatten(2)
        row, pixel = near.nonzero(as_tuple=True)
        for of, at in zip(row.split(examples.batch_size), pixel.split(examples.batch_size), strict=True):
            z = now[of].flatten(2)
            z[torch.arange(len(of), device=of.device), :, at] = trial[of, :, at]
            points = examples.at(of).points(z.view(-1, *now.shape[1:]), self._objective, trial=True)
            value[of, at] = points.value.to(value.dtype)
            if self.probe is None and points.reached is not None:
                reached[of, at] = points.reached
        return value, reached

    def _best(self, tried: tuple[Tensor, Tensor], order: Tensor) -> tuple[Tensor, Tensor]:
        """Return the best pixels, shape (n, t), and which of them are any: of equal ones, the first in a random order.

        Where one pixel reaches the goal it is alone.
        """
        value, reached = tried
        alone = reached.any(1, keepdim=True)
        value = value.masked_fill(alone & ~reached, -torch.inf)
        best = value.gather(1, order).sort(dim=1, descending=True, stable=True)
        known = best.values[:, : self.kept] > -torch.inf
        known[:, 1:] &= ~alone
        return order.gather(1, best.indices[:, : self.kept]), known

    def _around(self, chosen: Tensor, known: Tensor, height: int, width: int) -> Tensor:
        """Return whether a pixel is in one of the squares around those chosen, shape (n, pixels)."""
        row, column = chosen // width, chosen % width
        down = (torch.arange(height, device=row.device) - row[..., None]).abs() <= self.neighbourhood
        across = (torch.arange(width, device=row.device) - column[..., None]).abs() <= self.neighbourhood
        return ((down & known[..., None])[..., :, None] & across[..., None, :]).any(1).flatten(1)

    def _new(self, z: Tensor) -> Tensor:
        """Return the value that each entry gets if its pixel is changed."""
        low, high = self.bounds
        u = self.factor * ((z - low) / (high - low) - 0.5)
        return (low + (high - low) * (u - u.round() + 0.5)).clamp_(low, high)

    def _far(self, z: Tensor) -> Tensor:
        """Return the value that each entry has while its pixel is on trial, as in the paper: far from the middle."""
        assert self.probe is not None
        low, high = self.bounds
        middle = (low + high) / 2
        return middle + self.probe * (high - low) * (z - middle).sign()


def _shuffled(examples: Examples, number: int) -> Tensor:
    """Return the pixels of each example in a random order, shape (n, pixels)."""
    height, width = examples.images.shape[2:]
    return examples.draws(number).words(height * width).argsort(dim=1, stable=True)
