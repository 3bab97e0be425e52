"""Ascent from images within a ball: the search that all embeddings share, for many labels and images at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from deepcheck.attacks.gradients import NO_GRADIENT
from deepcheck.attacks.norms import NORMS, Norm, per_example
from deepcheck.defences.neighbours.goals import Goal

__all__ = ["Found", "ascend", "looked", "step_sizes"]


@dataclass(eq=False)
class Found:
    """The best points of an ascent, shape (n, ...), the net's logits there, (n, K), their score and distance, (n,)."""

    points: Tensor
    logits: Tensor
    score: Tensor
    distance: Tensor

    def put_better(self, points: Tensor, logits: Tensor, score: Tensor, distance: Tensor) -> None:
        """Put points in where their score is larger than what is here."""
        better = score > self.score
        for mine, its in ((self.points, points), (self.logits, logits), (self.score, score), (self.distance, distance)):
            torch.where(per_example(better, mine), its, mine, out=mine)

    @staticmethod
    def joined(parts: list[Found]) -> Found:
        """Return what was found for parts of the examples as one."""
        if len(parts) == 1:
            return parts[0]
        columns = ((getattr(part, name) for part in parts) for name in Found.__dataclass_fields__)
        return Found(*(torch.cat(tuple(column)) for column in columns))


def step_sizes(steps: int, radius: float) -> list[float]:
    """Return the lengths of the steps: 5 radius / steps in the first half of them, then falling linearly to 0.

    The first half goes through the ball, 2.5 times its radius, and the second finds the place to a few thousandths of it.
    """
    half = steps - steps // 2
    first = 2.5 * radius / half
    return [first if t < half else first * (steps - t) / (steps // 2 + 1) for t in range(steps)]


def ascend(
    ask: Callable[[Tensor], Tensor],
    images: Tensor,
    goal: Goal,
    *,
    norm: Norm,
    radius: float,
    bounds: tuple[float, float],
    steps: int,
    start: Tensor | None = None,
) -> Found:
    """Return the best points that steepest ascent finds within a ball around images and the box.

    Every step goes along the steepest direction of the norm, and back into ball and box. From the second half of the steps on a
    goal that turns back has balls of its own: a step smaller than where the point is, or a step larger. The images themselves are
    among the points that are compared. Each example is by itself, but for rounding.

    Parameters
    ----------
    ask
        From points, shape (n, ...), to logits, shape (n, K). It must not change them.
    images
        Shape (n, ...), n >= 1, in single precision at least.
    goal
        Of these examples.
    norm, radius, bounds
        The ball and the box.
    steps
        Gradients, >= 1; there is one evaluation more.
    start
        Where to begin, shape (n, ...), in ball and box; default: at the images, and nothing is asked of them twice.

    Raises
    ------
    ValueError
        If the net has no gradient.
    """
    confine = norm.confinement(images, radius, bounds)
    found: Found | None = None
    z = images.clone()
    if start is not None:
        found = looked(ask, images, z, goal, norm)[0]
        z = confine(start.clone())
    dual = NORMS[str(norm.dual)]
    for t, step in enumerate(step_sizes(steps, radius)):
        now, rise, gradient = looked(ask, images, z, goal, norm, with_gradient=True)
        if found is None:
            found = Found(z.clone(), now.logits, now.score, now.distance)
        else:
            found.put_better(z, now.logits, now.score, now.distance)
        gradient = gradient if not norm.room_matters else _movable(gradient, z, bounds)
        direction = norm.during(t / max(steps - 1, 1), z[0].numel()).steepest(gradient)
        z = z.add_(direction, alpha=step)
        if goal.turns_back and 2 * t >= steps:
            back = goal.inward(rise, dual.length(gradient))
            allowed = torch.where(back, now.distance - step, now.distance + step).clamp(0, radius)
            z = norm.confinement(images, allowed, bounds)(z)
        else:
            z = confine(z)
    assert found is not None
    last = looked(ask, images, z, goal, norm)[0]
    found.put_better(z, last.logits, last.score, last.distance)
    return found


def looked(
    ask: Callable[[Tensor], Tensor],
    images: Tensor,
    z: Tensor,
    goal: Goal,
    norm: Norm,
    *,
    with_gradient: bool = False,
) -> tuple[Found, Tensor, Tensor]:
    """Return what the net makes of points, what rises there, and its gradient (else the points).

    Where it has no finite logits, the score is minus infinity. An entry of the gradient that is no number is 0.
    """
    gradient: Tensor | None = z
    with torch.set_grad_enabled(with_gradient):
        logits = ask(z.requires_grad_(with_gradient))
        rise = goal.rise(logits)
        if with_gradient:
            gradient = torch.autograd.grad(rise.sum(), z, allow_unused=True)[0] if rise.requires_grad else None
    z.requires_grad_(False)
    if gradient is None:
        raise ValueError(NO_GRADIENT)
    logits, rise = logits.detach(), rise.detach()
    distance = norm.length(z - images)
    score = goal.score(rise, distance)
    score = torch.where(logits.amax(1).isfinite() & ~score.isnan(), score, -torch.inf)
    if with_gradient:
        gradient = gradient.nan_to_num_(nan=0.0)
    return Found(z, logits, score, distance), rise, gradient


def _movable(gradient: Tensor, z: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return the gradient without the entries at the edge of the box that point out of it."""
    low, high = bounds
    return gradient.masked_fill(((z <= low) & (gradient < 0)) | ((z >= high) & (gradient > 0)), 0)
