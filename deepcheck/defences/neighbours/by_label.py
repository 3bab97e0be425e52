"""Embeddings that look for a point of every label, and take the best: HCNN, MCN and NCN."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deepcheck.attacks.base import Attack, Bounds, Model
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.defences.neighbours.ascent import Found, looked
from deepcheck.defences.neighbours.base import Batch, Embedding
from deepcheck.defences.neighbours.goals import LogOdds, Nearest, Penalised
from deepcheck.defences.neighbours.pulled_back import for_confidence
from deepcheck.defences.neighbours.surrogates import BestOverBall, slope_of_best
from odeflow.model import checked_number

__all__ = ["HCNN", "MCN", "NCN", "ByLabel", "Neighbours"]

_HALVINGS = 10
"""Of the way from the image to a point that reaches the level."""


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For each of K labels the point near each of n images that an embedding found for it."""

    points: Tensor
    """Shape (K, n, ...)."""
    confidence: Tensor
    """F(z_l)_l, shape (K, n)."""
    prediction: Tensor
    """The class that the net predicts there, shape (K, n)."""
    distance: Tensor
    """|z_l - x| in the norm of the embedding, shape (K, n)."""
    logits: Tensor
    """The net's, shape (K, n, K)."""
    score: Tensor
    """What the embedding chooses by, the more the better, shape (K, n): log-odds of F_l, or what is said there."""

    @property
    def order(self) -> Tensor:
        """The labels from the one whose point is best to the one whose is worst, shape (K, n)."""
        return self.score.argsort(dim=0, descending=True, stable=True)

    def best(self) -> Tensor:
        """Return the best of the points, shape (n, ...)."""
        columns = torch.arange(self.score.shape[1], device=self.score.device)
        return self.points[self.score.argmax(0), columns]


class ByLabel(Embedding):
    """An embedding that looks for a point of every label: K searches for an image. A subclass says for what."""

    @abstractmethod
    def goal(self, classes: Tensor) -> LogOdds:
        """Return what the point of each label is to have, for labels of shape (m,)."""

    def neighbours(self, images: Tensor, *, steps: int | None = None) -> Neighbours:
        """Return a point for every label; the net at the best of them is what the defence says.

        Parameters
        ----------
        images
            Shape (n, ...), n >= 1, pixels in `bounds`.
        steps
            Gradients of each search, >= 1; default: those of the defence.
        """
        with self._batch(images) as batch:
            found = self._neighbours(batch, self._count(steps))
            return replace(found, points=batch.out(found.points))

    def surrogate(self) -> Model:
        """Return the best score of every label over the ball, with its gradient: see `BestOverBall`."""
        return BestOverBall(self)

    def own_attacks(self, norm: str) -> dict[str, Attack]:
        """Return the attack for high confidence, in the norm of the ball."""
        return for_confidence(self, norm)

    def best_over_ball(self, images: Tensor, *, with_gradient: bool) -> tuple[Tensor, Tensor]:
        """Return the value of the best point of every label, shape (n, K), and its gradient, (n, K, ...).

        They are after searches of `attack_steps`. Without a gradient it is zeros. See `BestOverBall`.
        """
        with self._batch(images) as batch:
            found, values, slopes = self._neighbours(batch, self.attack_steps), [], []
            points, K = found.points.flatten(0, 1), batch.classes
            label = torch.arange(K, device=points.device).repeat_interleave(len(batch))
            for rows, x in batch.parts(K):
                z, goal, ask = points[rows], self.goal(label[rows]), batch.asked(x)
                now, rise, gradient = looked(ask, x, z, goal, self.norm, with_gradient=with_gradient)
                if with_gradient:
                    gradient = slope_of_best(self.norm, gradient, z, x, self.bounds)
                value, factor = goal.value(rise, now.distance, self.dual.length(gradient))
                values.append(value)
                slopes.append(per_example(factor, z) * gradient)
            n = len(batch)
            value, slope = (torch.cat(one).unflatten(0, (K, n)).transpose(0, 1) for one in (values, slopes))
            return value, slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    def _embedded(self, batch: Batch, steps: int) -> Tensor:
        return self._neighbours(batch, steps).best()

    def _neighbours(self, batch: Batch, steps: int) -> Neighbours:
        """Return the points of all labels, each the best for its label of all that were found for any."""
        K, n = batch.classes, len(batch)
        self._check_classes(K)
        label = torch.arange(K, device=batch.images.device)
        found = self._searched(batch, self.goal(label.repeat_interleave(n)), steps, K)
        score = self._score_by_label(found, label).view(K, n, K)
        which = score.argmax(0)  # (n, K): the point that is best for each label
        rows = which.T * n + torch.arange(n, device=which.device)
        points, logits, distance = (one[rows] for one in (found.points, found.logits, found.distance))
        confidence = logits.softmax(2).gather(2, label[:, None, None].expand(K, n, 1)).squeeze(2)
        best = score.gather(0, which[None]).squeeze(0).T
        return Neighbours(points, confidence, logits.argmax(2), distance, logits, best)

    def _score_by_label(self, found: Found, label: Tensor) -> Tensor:
        """Return the score of all points for each label, shape (K n, K)."""
        columns = []
        for one in label:
            goal = self.goal(one.expand(len(found.logits)))
            score = goal.score(goal.rise(found.logits), found.distance)
            columns.append(torch.where(found.logits.amax(1).isfinite() & ~score.isnan(), score, -torch.inf))
        return torch.stack(columns, 1)

    def _check_classes(self, count: int) -> None:
        """Raise ValueError if an option does not go with so many classes."""


class MCN(ByLabel):
    r"""The net at the most confident point of a ball around the image, MCN (Wu et al., ICML 2018).

    The most confident neighbour is :math:`\arg\max_{|z - x| \le \xi} \max_l F(z)_l` (Wu, Jang, Chen, Chen and Jha). One targeted
    ascent for each label l from the image, on the log-odds of :math:`F_l`, whose maximum is that of :math:`F_l` and which
    tell points apart where this rounds to 1; then the best label's. Approximate: an ascent finds a local maximum. For a linear net
    of two classes it is exact, and the answer is the net's own.

    It costs K (steps + 1) passes through the net for an image. Its `surrogate` is the maximum itself, label by label, with its
    gradient by Danskin's theorem. The second attack that belongs to it is `PulledBack`, the third one on the net alone
    (`Oblivious`).

    Parameters
    ----------
    net, seed, xi, norm, steps, attack_steps, bounds
        See `Embedding`.
    """

    def goal(self, classes: Tensor) -> LogOdds:
        """Return the largest log-odds."""
        return LogOdds(classes)


class HCNN(ByLabel):
    r"""The net at a point of a ball that is confident, less a penalty on its distance, HCNN (Wu et al., ICML 2018).

    The highly confident near neighbour is :math:`\arg\max_{|z - x| \le \xi} \max_l F(z)_l - \lambda |z - x|`. As `MCN`, and in
    the second half of its steps an ascent goes back towards the image where that costs :math:`F_l` less than the penalty
    gives: where :math:`|\nabla F_l|_* < \lambda`. The length is that of the ball's norm. Points are compared by the logit of
    :math:`F_l - \lambda |z - x|`, which is positive at the best of them.

    Parameters
    ----------
    net, seed, xi, norm, steps, attack_steps, bounds
        See `Embedding`.
    penalty
        :math:`\lambda`, >= 0, in confidence over length. With 0 it is `MCN`.
    """

    def __init__(
        self,
        net: Model,
        *,
        penalty: float = 1.0,
        xi: float = 0.1,
        norm: Norm | str = "linf",
        steps: int = 100,
        attack_steps: int = 20,
        bounds: Bounds = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(net, xi=xi, norm=norm, steps=steps, attack_steps=attack_steps, bounds=bounds, seed=seed)
        self.penalty = checked_number("penalty", penalty, least=0)

    def goal(self, classes: Tensor) -> LogOdds:
        """Return the largest probability less the penalty."""
        return Penalised(classes, self.penalty) if self.penalty else LogOdds(classes)


class NCN(ByLabel):
    r"""The net at the nearest point where its confidence has a given level, NCN (Wu et al., ICML 2018).

    The nearest confident neighbour is :math:`\arg\min |z - x|` with :math:`\max_l F(z)_l \ge` level. For each label an ascent within the ball; in
    the second half of its steps it goes back towards the image where the level is reached, and away where it is not, by steps that
    become ever smaller; then the way from the image to the best point is halved ten times. The point has the level. Its distance is,
    along that way, the least one to a thousandth of `xi`; whether there is a nearer point elsewhere the ascent alone can say. For
    a linear net of two classes it is exact to that thousandth. Where no point in the ball reaches the level, it is the most
    confident point that was found: MCN's.

    It costs K (steps + 11) passes through the net for an image. Its `surrogate` is the least distance itself, label by label,
    with its gradient.

    Parameters
    ----------
    net, seed, norm, steps, attack_steps, bounds
        See `Embedding`.
    xi
        How far it looks, >= 0.
    level
        Confidence to reach, in (1/K, 1]: at 1/K every point has it.
    """

    def __init__(
        self,
        net: Model,
        *,
        level: float = 0.9,
        xi: float = 0.1,
        norm: Norm | str = "linf",
        steps: int = 100,
        attack_steps: int = 20,
        bounds: Bounds = (0.0, 1.0),
        seed: int = 0,
    ) -> None:
        super().__init__(net, xi=xi, norm=norm, steps=steps, attack_steps=attack_steps, bounds=bounds, seed=seed)
        self.level = checked_number("level", level, above=0, most=1)

    def goal(self, classes: Tensor) -> Nearest:
        """Return the nearest point of the level."""
        return Nearest(classes, self.level, self.xi)

    def _check_classes(self, count: int) -> None:
        if self.level <= 1 / count:
            raise ValueError(
                f"level = {self.level:g} is not allowed for {count} classes: a number in (1/{count}, 1] is, as the likeliest class "
                f"has more than 1/{count} everywhere"
            )

    def _search(self, batch: Batch, x: Tensor, goal: Any, steps: int) -> Found:
        """Return what the search finds, moved towards the image along a line as far as the level allows."""
        found = super()._search(batch, x, goal, steps)
        ask, confine = batch.asked(x), self.norm.confinement(x, self.xi, self.bounds)
        delta, share, half = found.points - x, torch.ones_like(found.distance), 0.5
        for _ in range(_HALVINGS):
            z = confine(x + per_example(share - half, x) * delta)
            logits = ask(z)
            rise = goal.rise(logits)
            reached = goal.reached(rise) & logits.amax(1).isfinite()
            share = torch.where(reached, share - half, share)
            distance = self.norm.length(z - x)
            found.put_better(z, logits, torch.where(reached, goal.score(rise, distance), -torch.inf), distance)
            half /= 2
        return found
