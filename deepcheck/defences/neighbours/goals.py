"""What a search around an image is for: the function that it climbs, and which of its points is the best."""

from __future__ import annotations

import abc
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Goal", "LogOdds", "Nearest", "Penalised", "RenyiEntropy", "ShannonEntropy", "log_odds"]


def log_odds(logits: Tensor, classes: Tensor) -> Tensor:
    """Return log(p_k / (1 - p_k)) of a class k for each example, shape (n,), of logits, shape (n, K).

    It has digits where p_k rounds to 1, and a gradient there, and the same order as p_k.
    """
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return logits.gather(1, classes[:, None]).squeeze(1) - others.logsumexp(1)


class Goal(abc.ABC):
    """What an ascent is for: the function whose gradient it follows, and which of its points is the best."""

    turns_back: bool = False
    """Whether it may go back towards the images, in the second half of its steps."""

    @abc.abstractmethod
    def rise(self, logits: Tensor) -> Tensor:
        """Return the function that is followed, shape (n,), of logits, shape (n, K)."""

    def score(self, rise: Tensor, distance: Tensor) -> Tensor:
        """Return what the best point has most of, shape (n,), of the function and the distances from the images."""
        del distance
        return rise

    def inward(self, rise: Tensor, slope: Tensor) -> Tensor:
        """Return where it pays to go back towards the image, shape (n,).

        `slope` is the dual norm of the gradient of `rise`: how fast that can grow with the distance.
        """
        raise NotImplementedError

    def value(self, rise: Tensor, distance: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return what a surrogate says of a best point, shape (n,), in the order of the scores, and its derivative by `rise`.

        `slope` is the dual norm of the gradient of `rise`.
        """
        del slope
        return self.score(rise, distance), torch.ones_like(rise)

    def at(self, rows: slice) -> Goal:
        """Return the goal of some of the examples."""
        del rows
        return self


@dataclass(frozen=True, eq=False)
class LogOdds(Goal):
    """The largest probability of a class, by its log-odds."""

    classes: Tensor
    """Shape (n,), int64."""

    def rise(self, logits: Tensor) -> Tensor:
        """Return the log-odds of the class."""
        return log_odds(logits, self.classes)

    def at(self, rows: slice) -> LogOdds:
        """Return the goal of some of the examples."""
        return LogOdds(self.classes[rows])


@dataclass(frozen=True, eq=False)
class Penalised(LogOdds):
    """The largest p_k - penalty |z - x|, which decides by its logit: without a penalty that is the log-odds of p_k.

    It is positive at a best point, as it is at the image.
    """

    penalty: float

    turns_back = True

    def value(self, rise: Tensor, distance: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return the logit of v = p_k - penalty |z - x|, and p_k (1 - p_k) / (v (1 - v))."""
        v, rest = self._two_sides(rise, distance)
        slowness = rise.sigmoid() * torch.sigmoid(-rise)
        del slope
        return self.score(rise, distance), torch.where(self.penalty * distance > 0, slowness / (v * rest), 1.0)

    def score(self, rise: Tensor, distance: Tensor) -> Tensor:
        """Return log(v / (1 - v)), v = p_k - penalty |z - x|, minus infinity where that is not positive."""
        v, rest = self._two_sides(rise, distance)
        return torch.where(self.penalty * distance > 0, v.clamp_min(0).log() - rest.log(), rise)

    def _two_sides(self, rise: Tensor, distance: Tensor) -> tuple[Tensor, Tensor]:
        """Return v and 1 - v, each with its digits."""
        cost = self.penalty * distance
        return rise.sigmoid() - cost, torch.sigmoid(-rise) + cost

    def inward(self, rise: Tensor, slope: Tensor) -> Tensor:
        """Return where p_k falls by less than the penalty does: |grad p_k| = p_k (1 - p_k) |grad log-odds|."""
        return rise.sigmoid() * torch.sigmoid(-rise) * slope < self.penalty

    def at(self, rows: slice) -> Penalised:
        """Return the goal of some of the examples."""
        return Penalised(self.classes[rows], self.penalty)


@dataclass(frozen=True, eq=False)
class Nearest(LogOdds):
    """The nearest point with p_k >= level; where there is none, that of the largest p_k."""

    level: float
    xi: float
    """How far it looks: the unit of distances."""

    turns_back = True

    def value(self, rise: Tensor, distance: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Return -|z - x| / xi where the level is reached on the way, and the log-odds over it where the image has it.

        Where it is not reached, -1 and the log-odds that are missing. The least distance has the gradient -grad / |grad|_* of
        the log-odds at the nearest point.
        """
        above = rise - torch.logit(torch.full_like(rise, self.level), eps=torch.finfo(rise.dtype).eps / 2)
        reached = self.reached(rise)
        unit = max(self.xi, torch.finfo(distance.dtype).tiny)
        within = torch.where(distance > 0, -distance / unit, above.clamp_min(0))
        value = torch.where(reached, within, above.clamp_max(0) - 1)
        factor = torch.where(reached & (distance > 0) & (slope > 0), 1 / (unit * slope), 1.0)
        return value, factor

    def reached(self, rise: Tensor) -> Tensor:
        """Return where p_k >= level, shape (n,)."""
        return rise.sigmoid() >= self.level

    def score(self, rise: Tensor, distance: Tensor) -> Tensor:
        """Return 1 / |z - x| where the level is reached, else log p_k, which is less."""
        return torch.where(self.reached(rise), 1 / distance, F.logsigmoid(rise))

    def inward(self, rise: Tensor, slope: Tensor) -> Tensor:
        """Return where the level is reached."""
        del slope
        return self.reached(rise)

    def at(self, rows: slice) -> Nearest:
        """Return the goal of some of the examples."""
        return Nearest(self.classes[rows], self.level, self.xi)


class ShannonEntropy(Goal):
    """The least entropy H = -sum over k of p_k log p_k."""

    def rise(self, logits: Tensor) -> Tensor:
        """Return -H, in double precision: it is small where one p_k is near 1."""
        log_p = logits.double().log_softmax(1)
        return (log_p.exp() * log_p.clamp_min(torch.finfo(log_p.dtype).min)).sum(1)


@dataclass(frozen=True)
class RenyiEntropy(Goal):
    """The least entropy H_a = a / (1 - a) log |p|_a = 1 / (1 - a) log(sum over k of p_k^a)."""

    order: float
    """a, > 0 and not 1."""

    def rise(self, logits: Tensor) -> Tensor:
        """Return -H_a, in double precision: it is small where one p_k is near 1."""
        a = self.order
        return (a * logits.double().log_softmax(1)).logsumexp(1) / (a - 1)
