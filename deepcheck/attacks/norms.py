"""Geometry of the balls |delta| <= epsilon: length, projection, steepest step, uniform law, and what the box cuts off.

Every function works on a batch of perturbations, shape (n, ...), each on its own: the result for one does not depend
on the others, on a GPU up to rounding: there the order of a sum depends on the shape of the batch. `epsilon` is a number or a tensor of shape (n,).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws, Source
from deepcheck.attacks.measures import Measure
from deepcheck.attacks.shrinking import factor, threshold
from deepcheck.checks import checked_choice
from odeflow.model import checked_count, checked_number

__all__ = ["L0", "L1", "L2", "NORMS", "LInf", "Norm", "norm"]

Epsilon = float | Tensor


def per_example(values: Tensor, like: Tensor) -> Tensor:
    """Return values of shape (n,) as (n, 1, ...), to go with perturbations."""
    return values.view(-1, *[1] * (like.ndim - 1))


def radius(epsilon: Epsilon, like: Tensor) -> Epsilon:
    """Return epsilon to go with perturbations: a number, or shape (n,) as (n, 1, ...) in their precision."""
    return per_example(epsilon.to(like), like) if isinstance(epsilon, Tensor) and epsilon.ndim else epsilon


class Norm(Measure, abc.ABC):
    """A norm of perturbations (or the number of entries, L0) and the geometry of its ball."""

    dual: ClassVar[str | None]
    """Name of the dual norm max{<g, d> : |d| <= 1}; None for L0, which is no norm."""
    room_matters: ClassVar[bool] = True
    """Whether the steepest step depends on which entries the box still lets move."""

    @abc.abstractmethod
    def length(self, delta: Tensor) -> Tensor:
        """Return |delta|, shape (n,)."""

    @abc.abstractmethod
    def project(self, delta: Tensor, epsilon: Epsilon) -> Tensor:
        """Return the point of the ball that is nearest to delta in Euclidean distance. Exact."""

    @abc.abstractmethod
    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction d with |d| = 1 that maximises <gradient, d>, and 0 where the gradient is 0."""

    def during(self, progress: float, dimension: int) -> Norm:
        """Return the norm with the steepest step for a point of an attack, progress in [0, 1], on so many entries."""
        del progress, dimension
        return self

    @abc.abstractmethod
    def uniform(self, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Return perturbations of the shape of `like`, uniform in the ball.

        The numbers come from streams by example, or from a torch.Generator that gives the seed of such.
        """

    def project_within(self, delta: Tensor, epsilon: Epsilon, low: Tensor, high: Tensor) -> Tensor:
        """Return the point nearest to delta, in Euclidean distance, of the ball and of the box low <= . <= high together.

        Exact in the norms of this module, where low <= 0 <= high; `low` and `high` have the shape of delta and may be
        infinite. Here, for a norm that has nothing better: projected onto the ball, then clipped. That is in both, but not
        the nearest.
        """
        return self.project(delta, epsilon).clamp(low, high)

    def confinement(self, images: Tensor, epsilon: Epsilon, bounds: tuple[float, float]) -> Callable[[Tensor], Tensor]:
        """Return the map of points to the nearest point of the ball around `images` and the box together.

        It may overwrite its argument. What it returns is inside in the numbers that it returns, not only up to rounding.
        """
        low, high = bounds[0] - images, bounds[1] - images
        epsilon = epsilon * (1 - 4 * torch.finfo(images.dtype).eps)  # the length of what is projected is rounded

        def confine(points: Tensor) -> Tensor:
            delta = self.project_within(points.sub_(images), epsilon, low, high)
            return moved(images, delta).clamp_(*bounds)

        return confine

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


@dataclass(frozen=True, repr=False)
class LInf(Norm):
    """The largest entry in absolute value."""

    name = "linf"
    dual = "l1"
    room_matters = False

    def length(self, delta: Tensor) -> Tensor:
        """Return max_i |delta_i|, shape (n,)."""
        return delta.flatten(1).abs().amax(1)

    def project(self, delta: Tensor, epsilon: Epsilon) -> Tensor:
        """Clip every entry to [-epsilon, epsilon]."""
        epsilon = radius(epsilon, delta)
        return torch.clamp(delta, -epsilon, epsilon)  # type: ignore[arg-type]

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the sign of the gradient."""
        return gradient.sign()

    def uniform(self, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw every entry from U(-epsilon, epsilon)."""
        return radius(epsilon, like) * Draws.of(source, like).symmetric(like)

    def project_within(self, delta: Tensor, epsilon: Epsilon, low: Tensor, high: Tensor) -> Tensor:
        """Clip every entry to [-epsilon, epsilon] and to the box."""
        return self.project(delta, epsilon).clamp(low, high)

    def confinement(self, images: Tensor, epsilon: Epsilon, bounds: tuple[float, float]) -> Callable[[Tensor], Tensor]:
        """Return the map of points into the cube around `images` and the box: one clip of every entry."""
        step = radius(below(epsilon, images), images) + torch.zeros_like(images)
        low, high = moved(images, -step).clamp_(min=bounds[0]), moved(images, step).clamp_(max=bounds[1])

        def confine(points: Tensor) -> Tensor:
            return points.clamp_(low, high)

        return confine


@dataclass(frozen=True, repr=False)
class L2(Norm):
    """The Euclidean length."""

    name = "l2"
    dual = "l2"

    def length(self, delta: Tensor) -> Tensor:
        """Return (sum_i delta_i^2)^(1/2), shape (n,)."""
        length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
        return length

    def project(self, delta: Tensor, epsilon: Epsilon) -> Tensor:
        """Shorten the perturbations that are longer than epsilon."""
        return delta * per_example((epsilon / _positive(self.length(delta))).clamp(max=1.0), delta)

    def project_within(self, delta: Tensor, epsilon: Epsilon, low: Tensor, high: Tensor) -> Tensor:
        """Shorten the perturbation by one factor s <= 1, then clip it to the box: clip(s delta), of length epsilon at most.

        An entry of size a with the room r is min(s a, r), so that the length rises with s.
        """
        a, r = _sizes_and_rooms(delta, low, high)
        s = factor(a, r, _per_row(epsilon, a) ** 2)
        return _signed(torch.minimum(s[:, None] * a, r), delta)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the gradient, of length 1."""
        gradient = gradient / _positive(per_example(gradient.flatten(1).abs().amax(1), gradient))
        return gradient / _positive(per_example(self.length(gradient), gradient))

    def uniform(self, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw a uniform direction and a length epsilon U^(1/D), for D entries."""
        draws = Draws.of(source, like)
        direction = self.steepest(draws.normal(like))
        U = draws.uniform(like)
        return radius(epsilon, like) * direction * per_example(U ** (1 / _dimension(like)), like)


@dataclass(frozen=True)
class _Sparse(Norm):
    """A norm whose steepest step moves few entries."""

    coordinates: int = 1
    """Entries that a step moves, >= 1. One is the steepest step; with more, attacks on nets need fewer steps."""
    shares: tuple[float, float] | None = None
    """Shares of the entries that the first and the last step of an attack by gradient move, in (0, 1], in place of
    `coordinates`: many at first and few in the end, as in APGD-L1 (Croce and Hein, ICML 2021). There they follow from the
    perturbation that was found so far, here from the number of the step, geometrically: so they do not depend on where the
    attack starts, nor on how far it has come."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "coordinates", checked_count("coordinates", self.coordinates, 1))
        for share in self.shares or ():
            checked_number("shares", share, above=0, most=1)

    def during(self, progress: float, dimension: int) -> Norm:
        """Return the norm with as many `coordinates` as the shares say."""
        if self.shares is None:
            return self
        first, last = self.shares
        return type(self)(max(1, round(dimension * first * (last / first) ** progress)))


@dataclass(frozen=True)
class L1(_Sparse):
    """The sum of the entries in absolute value."""

    name = "l1"
    dual = "linf"

    def length(self, delta: Tensor) -> Tensor:
        """Return sum_i |delta_i|, shape (n,)."""
        return delta.flatten(1).abs().sum(1)

    def project(self, delta: Tensor, epsilon: Epsilon) -> Tensor:
        """Shrink every entry by the same threshold, to zero at most, so that the length is epsilon where it was more.

        With the absolute values sorted, u_1 >= u_2 >= ..., the threshold is (u_1 + ... + u_k - epsilon) / k for the
        largest k with u_k above it (Duchi et al., ICML 2008, figure 1).
        """
        size = delta.flatten(1).abs()
        bound = _per_row(epsilon, size)
        u = size.sort(dim=1, descending=True).values
        excess = u.cumsum(1) - bound[:, None]
        k = torch.arange(1, size.shape[1] + 1, dtype=size.dtype, device=size.device)
        # the condition holds for k = 1, ..., count
        count = (u * k > excess).sum(1).clamp_(min=1)
        threshold = excess.gather(1, count[:, None] - 1).squeeze(1) / count
        shrunk = (size - threshold.clamp(min=0)[:, None]).clamp_(min=0).view_as(delta)
        return torch.copysign(shrunk, delta) * per_example((bound > 0).to(size.dtype), delta)

    def project_within(self, delta: Tensor, epsilon: Epsilon, low: Tensor, high: Tensor) -> Tensor:
        """Shrink every entry by the same threshold t >= 0, then clip it to the box, so that the length is epsilon at most.

        An entry of size a with the room r is a - t between 0 and r, so that the length falls with t (Croce and Hein, ICML
        2021, proposition 2.1, in other words).
        """
        a, r = _sizes_and_rooms(delta, low, high)
        t = threshold(a, r, _per_row(epsilon, a))
        return _signed(torch.minimum((a - t[:, None]).clamp_(min=0), r), delta)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the sign of the gradient at its largest entry, or 1/m of the signs at its m largest `coordinates`."""
        m = min(self.coordinates, _dimension(gradient))
        return _largest(gradient.flatten(1), m).sign_().div_(m).view_as(gradient)

    def uniform(self, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw D + 1 exponential numbers; D of them with random signs, over their sum."""
        draws = Draws.of(source, like)
        U = draws.symmetric(like)
        exponential = -torch.log1p(-U.abs())
        total = exponential.flatten(1).sum(1) - torch.log1p(-draws.uniform(like))
        return radius(epsilon, like) * torch.copysign(exponential, U) / per_example(total, like)


@dataclass(frozen=True)
class L0(_Sparse):
    """The number of entries that are not zero. The ball of radius epsilon has floor(epsilon) of them."""

    name = "l0"
    dual = None

    def length(self, delta: Tensor) -> Tensor:
        """Return the number of entries that are not zero, shape (n,)."""
        return (delta.flatten(1) != 0).sum(1).to(delta.dtype)

    def project(self, delta: Tensor, epsilon: Epsilon) -> Tensor:
        """Keep the floor(epsilon) entries that are largest in absolute value; of equal ones, any."""
        return delta * _few(delta.abs(), epsilon)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the sign of the gradient at its largest `coordinates` entries."""
        return _largest(gradient.flatten(1), min(self.coordinates, _dimension(gradient))).sign_().view_as(gradient)

    def uniform(self, like: Tensor, epsilon: Epsilon, source: Source) -> Tensor:
        """Draw floor(epsilon) different entries, and a value in U(-1, 1) for each."""
        draws = Draws.of(source, like)
        rank = draws.words(_dimension(like)).argsort(dim=1, stable=True).argsort(dim=1)
        count = epsilon.floor()[:, None] if isinstance(epsilon, Tensor) else math.floor(epsilon)
        return draws.symmetric(like) * (rank < count).view_as(like)

    def project_within(self, delta: Tensor, epsilon: Epsilon, low: Tensor, high: Tensor) -> Tensor:
        """Clip to the box the floor(epsilon) entries for which that gains most; of equal ones, any.

        An entry that becomes c costs (delta - c)^2 instead of delta^2: c (2 delta - c) less.
        """
        clipped = delta.clamp(low, high)
        return clipped * _few(clipped * (2 * delta - clipped), epsilon)

    def confinement(self, images: Tensor, epsilon: Epsilon, bounds: tuple[float, float]) -> Callable[[Tensor], Tensor]:
        """Return the map of points to the nearest point of the box in which floor(epsilon) entries are not the image's."""
        low, high = bounds[0] - images, bounds[1] - images

        def confine(points: Tensor) -> Tensor:
            delta = self.project_within(points.sub_(images), epsilon, low, high)
            return torch.where(delta != 0, (images + delta).clamp_(*bounds), images)  # x + (z - x) may round past z

        return confine


NORMS: dict[str, Norm] = {"linf": LInf(), "l2": L2(), "l1": L1(), "l0": L0()}
"""One of each, by name."""


def norm(value: str | Measure) -> Norm:
    """Return a norm by its name, or the norm itself.

    Raises
    ------
    ValueError, TypeError
        If the name is unknown.
    """
    return value if isinstance(value, Norm) else NORMS[checked_choice("norm", value, NORMS)]


def moved(images: Tensor, delta: Tensor) -> Tensor:
    """Return images + delta, rounded towards the images: no entry is farther from its image than delta says.

    The rounding error of a sum is a number of the same precision (Knuth's two-sum), so that it can be seen exactly.
    """
    z = images + delta
    back = z - images
    error = (images - (z - back)) + (delta - back)
    beyond = ((error < 0) & (delta > 0)) | ((error > 0) & (delta < 0))
    return torch.where(beyond, torch.nextafter(z, images), z)


def rounded(points: Tensor, images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return points in another precision, in which the images are exact, rounded towards the images.

    The gradient passes as through a conversion.
    """
    z = points.to(dtype)
    with torch.no_grad():
        wide = z.to(points.dtype)
        beyond = ((wide > points) & (points >= images)) | ((wide < points) & (points <= images))
        change = torch.where(beyond, torch.nextafter(z, images.to(dtype)) - z, 0.0)
    return z + change


def below(epsilon: Epsilon, like: Tensor) -> Tensor:
    """Return the largest number in the precision of `like` that is not above epsilon, of its shape."""
    exact = _tensor(epsilon, torch.empty((), dtype=torch.float64, device=like.device))
    radius = exact.to(like.dtype)
    return torch.where(radius.double() > exact, torch.nextafter(radius, torch.zeros_like(radius)), radius)


def _sizes_and_rooms(delta: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Return |delta_i|, and how large it may be in the box, shapes (n, D), in double precision."""
    room = torch.where(delta > 0, high, -low)
    return delta.flatten(1).double().abs(), room.flatten(1).double().clamp_(min=0)


def _per_row(epsilon: Epsilon, rows: Tensor) -> Tensor:
    return _tensor(epsilon, rows).expand(len(rows))


def _tensor(epsilon: Epsilon, like: Tensor) -> Tensor:
    """Return epsilon in the precision and on the device of `like`: a number is not copied there, but filled in there."""
    return epsilon.to(like) if isinstance(epsilon, Tensor) else like.new_full((), epsilon)


def _signed(size: Tensor, delta: Tensor) -> Tensor:
    """Return sizes, shape (n, D), with the signs and the shape and precision of delta."""
    return torch.copysign(size.to(delta.dtype).view_as(delta), delta)


def _dimension(batch: Tensor) -> int:
    return math.prod(batch.shape[1:])


def _positive(values: Tensor) -> Tensor:
    """Return what can be divided by: 1 instead of 0."""
    return torch.where(values > 0, values, torch.ones_like(values))


def _few(values: Tensor, epsilon: Epsilon) -> Tensor:
    """Return where the floor(epsilon) largest values of each example are, of equal ones any, in the shape of the values."""
    rows = values.flatten(1)
    if isinstance(epsilon, Tensor):
        rank = rows.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        return (rank < epsilon.floor().view(-1, 1)).view_as(values)
    index = rows.topk(math.floor(min(epsilon, rows.shape[1])), dim=1).indices
    return torch.zeros_like(rows, dtype=torch.bool).scatter_(1, index, True).view_as(values)


def _largest(rows: Tensor, count: int) -> Tensor:
    """Return the rows, shape (n, D), with all but the `count` entries largest in absolute value set to zero."""
    index = rows.abs().topk(count, dim=1).indices
    return torch.zeros_like(rows).scatter_(1, index, rows.gather(1, index))
