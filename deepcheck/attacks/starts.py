"""Where an attack starts: perturbations in the ball, one per example."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws, Source
from deepcheck.attacks.norms import L0, Epsilon, Norm, per_example, radius
from odeflow.model import checked_number

__all__ = ["Gaussian", "Nearby", "OneOf", "Start", "Tiles", "UniformBall", "UniformLength", "Zero"]


class Start(abc.ABC):
    """A law of the first perturbation. What leaves the ball or the box is projected by the attack."""

    @abc.abstractmethod
    def __call__(self, norm: Norm, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw perturbations in the shape of `like`, shape (n, ...), for the ball of radius `epsilon`, a number or shape (n,).

        The numbers come from streams by example (see `draws`), or from a torch.Generator that gives the seed of such.
        """


@dataclass(frozen=True)
class Zero(Start):
    """The image itself. Nothing is drawn."""

    def __call__(self, norm: Norm, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Return zeros."""
        del norm, epsilon, source
        return torch.zeros_like(like)


@dataclass(frozen=True)
class UniformBall(Start):
    """Uniform in the ball."""

    def __call__(self, norm: Norm, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw from the uniform law in the ball."""
        return norm.uniform(like, epsilon, source)


@dataclass(frozen=True)
class Gaussian(Start):
    """Normal numbers of standard deviation epsilon / (2 ln D), D entries: few of them leave the L-infinity ball."""

    def __call__(self, norm: Norm, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw normal numbers of that deviation."""
        del norm
        deviation = radius(epsilon, like) / (2 * math.log(max(math.prod(like.shape[1:]), 2)))
        return deviation * Draws.of(source, like).normal(like)


@dataclass(frozen=True)
class Nearby(Start):
    """Normal numbers of a deviation that does not grow with epsilon: next to the image, as TRADES starts."""

    deviation: float = 0.001
    """Standard deviation of each entry, > 0; epsilon, where that is less."""

    def __post_init__(self) -> None:
        checked_number("deviation", self.deviation, above=0)

    def __call__(self, norm: Norm, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw normal numbers of that deviation."""
        del norm
        return min(self.deviation, epsilon) * Draws.of(source, like).normal(like)


@dataclass(frozen=True)
class UniformLength(Start):
    """Uniform direction (of normal numbers), times a length that is uniform in [0, epsilon]: denser near the image."""

    def __call__(self, norm: Norm, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw a direction and a length for each example."""
        draws = Draws.of(source, like)
        direction = draws.normal(like)
        length = (epsilon * draws.uniform(like)).to(like.dtype)
        if isinstance(norm, L0):
            return norm.project(direction, length + 1).clamp_(-1, 1)
        return direction * per_example(length / norm.length(direction), like)


@dataclass(frozen=True)
class Tiles(Start):
    """Tiles of one size, each of +-epsilon or unchanged: what random searches by squares and stripes propose.

    Height and width of the tiles are powers of 2, up to those of the image, drawn for each example with the place of the
    first tile. Of the tiles a share that is uniform in (0, 1) is changed, in every channel with a sign of its own.
    Vectors, shape (n, D), have intervals.
    """

    def __call__(self, norm: Norm, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw sizes, places, shares and signs."""
        del norm
        draws = Draws.of(source, like)
        height, width = like.shape[-2:] if like.ndim > 2 else (1, like.shape[-1])
        down, across, top, left = draws.below(height.bit_length(), width.bit_length(), height, width)
        row, column = _tile(height, down, top), _tile(width, across, left)
        share = draws.uniform(like)
        u = draws.symmetric(like.view(len(like), -1, height, width))  # a number for each tile, and some to spare
        u = u.gather(2, row[:, None, :, None].expand_as(u)).gather(3, column[:, None, None, :].expand_as(u))
        changed = u.abs() < per_example(share, u)
        return (radius(epsilon, u) * u.sign() * changed).view(like.shape)


def _tile(edge: int, power: Tensor, first: Tensor) -> Tensor:
    """Return the number of the tile that each pixel along an edge is in, shape (n, edge), for tiles of 2^power pixels."""
    pixel = torch.arange(edge, device=power.device)
    # the last tile may be a remainder, and then the first is as well: one more than fit; it shares the last one's number
    return ((pixel + (first % 2**power)[:, None]) // 2 ** power[:, None]).clamp_(max=edge - 1)


@dataclass(frozen=True)
class OneOf(Start):
    """One of several laws for each example, with equal probabilities."""

    starts: tuple[Start, ...]

    def __post_init__(self) -> None:
        if not self.starts:
            raise ValueError("starts = () is not allowed: at least one start is")

    def __call__(self, norm: Norm, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw from all laws, and choose one of them for each example."""
        draws = Draws.of(source, like)
        (choice,) = draws.below(len(self.starts))
        delta = torch.zeros_like(like)
        for index, start in enumerate(self.starts):
            drawn = start(norm, like, epsilon, draws)
            delta = torch.where(per_example(choice == index, like), drawn, delta)
        return delta
