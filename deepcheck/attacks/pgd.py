"""Projected gradient ascent on an objective of the logits, in a ball around each image: one loop for a family of attacks.

FGSM, BIM, MIM, PGD, targeted and least-likely-class attacks and the attacks on confidence are configurations of `PGD`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal, NoReturn

import torch
from torch import Tensor
from tqdm import tqdm

from deepcheck.attacks.base import (
    Attacked,
    Bounds,
    Model,
    checked_bounds,
    checked_classes,
    checked_epsilons,
    checked_images,
    checked_logits,
    evaluating,
)
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.objectives import objective as as_objective
from deepcheck.attacks.starts import Start, UniformBall, Zero
from odeflow.model import checked_count, checked_number

__all__ = ["PGD", "bim", "fgsm", "mim", "pgd"]


@dataclass(frozen=True)
class PGD:
    """Projected gradient ascent (Madry et al., ICLR 2018) with optional momentum, backtracking and restarts.

    From a start in the ball, every step goes along the steepest direction of the norm, and back into ball and box:

        z <- confine(z + step_size * steepest(grad objective(z)))

    Of several restarts the worst for the model counts, for each example: one that reaches the attack's goal (say, is
    misclassified) before one that does not, then the larger objective. All random numbers are drawn for all examples
    at once, so the result does not depend on `batch_size` (but for the rounding of the model's own arithmetic).

    Examples
    --------
    >>> import torch
    >>> from deepcheck import models
    >>> model = models.build("linear", 10, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = PGD("linf", "cross_entropy", steps=10, relative_step_size=0.25, restarts=2)
    >>> attacked = attack(model, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 2, 5]))
    """

    norm: Norm | str
    """The ball: "linf", "l2", "l1", "l0" or a Norm."""
    objective: Objective | str = "cross_entropy"
    """What is maximised: a name out of `objectives.OBJECTIVES`, or an Objective."""
    _: KW_ONLY
    steps: int
    """Gradient steps per restart, >= 1."""
    step_size: float | None = None
    """Length of a step, > 0, in the units of epsilon. Either this or `relative_step_size` must be given."""
    relative_step_size: float | None = None
    """Length of a step as a share of epsilon, > 0."""
    momentum: float = 0.0
    """In [0, 1) for directions, >= 0 for gradients."""
    momentum_of: Literal["direction", "gradient"] = "direction"
    """direction: m <- momentum m + (1 - momentum) steepest(g), a step along m (CCAT). gradient: m <- momentum m +
    g / |g|_1, a step along steepest(m) (MIM: Dong et al., CVPR 2018)."""
    backtracking: float | None = None
    """A factor > 1: a step is taken only where the objective is no worse after it; elsewhere the example stays where
    it is, and its step size is divided by this factor. None: every step is taken."""
    start: Start = field(default_factory=UniformBall)
    """Law of the first perturbation."""
    restarts: int = 1
    """Number of starts, >= 1."""
    keep: Literal["best", "last"] = "best"
    """Which iterate of a restart is kept: the one of the largest objective (one that reaches the goal first), or the
    last."""
    stop_when_reached: bool = True
    """Drop an example once it reaches the goal of the objective (is misclassified, or classified as its target); its
    later restarts repeat what was found. Objectives of confidence have no such goal."""
    targets: Literal["given", "least_likely"] = "given"
    """For targeted objectives: classes given with the call, or the class that is least likely on the clean image."""
    bounds: Bounds = (0.0, 1.0)
    """Least and largest value of a pixel; infinite ones are allowed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", as_norm(self.norm))
        object.__setattr__(self, "objective", as_objective(self.objective))
        object.__setattr__(self, "bounds", checked_bounds(self.bounds))
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        object.__setattr__(self, "restarts", checked_count("restarts", self.restarts, 1))
        if (self.step_size is None) == (self.relative_step_size is None):
            raise ValueError(
                f"step_size = {self.step_size!r} and relative_step_size = {self.relative_step_size!r}: "
                "allowed is one of the two, and the other None"
            )
        for name in ("step_size", "relative_step_size"):
            if getattr(self, name) is not None:
                checked_number(name, getattr(self, name), above=0)
        _check("momentum_of", self.momentum_of, self.momentum_of in ("direction", "gradient"), "direction or gradient")
        limit = 1.0 if self.momentum_of == "direction" else math.inf
        checked_number("momentum", self.momentum, least=0, below=limit)
        if self.backtracking is not None:
            checked_number("backtracking", self.backtracking, above=1)
        _check("start", self.start, isinstance(self.start, Start), "a Start, say Zero() or UniformBall()")
        _check("keep", self.keep, self.keep in ("best", "last"), "best or last")
        _check("targets", self.targets, self.targets in ("given", "least_likely"), "given or least_likely")
        if not isinstance(self.stop_when_reached, bool):
            raise TypeError(f"stop_when_reached = {self.stop_when_reached!r} is not a bool: allowed is True or False")
        _check(
            "stop_when_reached",
            self.stop_when_reached,
            not (self.stop_when_reached and self.keep == "last" and self.restarts > 1),
            "False where the last iterate of several restarts is kept",
        )

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        targets: Tensor | None = None,
        batch_size: int = 500,
        progress: bool = False,
    ) -> Attacked:
        """Attack a model on some examples.

        Parameters
        ----------
        model
            A function from images to logits, shape (n, K). A module is put into eval mode, and back afterwards.
        images
            Shape (n, ...), pixels in `bounds`, of a floating type.
        labels
            True classes, shape (n,), int64, on the same device.
        epsilon
            Radius of the ball, >= 0, or several: then every field of the result has a first axis for them.
        generator
            Source of all random numbers, on any device.
        targets
            Classes to reach, shape (n,), for a targeted objective.
        batch_size
            Examples that the model sees at once.
        progress
            Show a progress bar on a terminal.

        Returns
        -------
        Attacked
            Approximate: a lower bound on the largest objective in the ball. Exact for linear models of two classes,
            within rounding and with enough steps, in L-infinity, and in L2 and L1 where no pixel meets the bounds.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed; before any attack.
        """
        epsilons, single = checked_epsilons(epsilon)
        checked_images(images, labels, self.bounds)
        batch_size = checked_count("batch_size", batch_size, 1)
        with evaluating(model):
            if len(images):
                with torch.no_grad():
                    logits = _logits(model, images[:1])
                checked_logits(logits, 1, labels)
            targets = self._targets(model, images, labels, targets, batch_size)
            if targets is not None and len(images):
                checked_classes("targets", targets, logits.shape[1])
            total = len(epsilons) * self.restarts * math.ceil(len(images) / batch_size)
            with tqdm(total=total, desc=repr(self), unit="batch", disable=None if progress else True) as bar:
                results = [
                    self._attack(model, images, labels, targets, value, generator, batch_size, bar)
                    for value in epsilons
                ]
        if single:
            return results[0]
        fields = Attacked.__dataclass_fields__
        return Attacked(**{name: torch.stack([getattr(result, name) for result in results]) for name in fields})

    def perturb(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        epsilon: float,
        generator: torch.Generator,
        targets: Tensor | None = None,
    ) -> Tensor:
        """Return the attacked images of one batch after one start: what training needs. Nothing is checked.

        The model is used in the mode that it is in.
        """
        delta = self.start(self._norm, images, epsilon, generator)
        return self._ascend(model, images, labels, targets, delta, epsilon, images_alone=True).images

    def _targets(
        self, model: Model, images: Tensor, labels: Tensor, targets: Tensor | None, batch_size: int
    ) -> Tensor | None:
        """Return the classes to reach, or None where the objective is not targeted."""
        if not self._objective.targeted:
            _check("targets", targets, targets is None and self.targets == "given", "None: the objective has no target")
            return None
        if self.targets == "least_likely":
            _check("targets", targets, targets is None, "None: the attack takes the least likely class")
            with torch.no_grad():
                return torch.cat([_logits(model, batch).argmin(1) for batch in torch.split(images, batch_size)])
        if targets is None or targets.shape != labels.shape or targets.dtype != torch.int64:
            given = None if targets is None else f"{targets.dtype} of shape {tuple(targets.shape)}"
            raise ValueError(
                f"targets = {given} is not allowed: a torch.int64 tensor of shape {tuple(labels.shape)} is"
            )
        return targets

    def _attack(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        epsilon: float,
        generator: torch.Generator,
        batch_size: int,
        bar: tqdm[NoReturn],
    ) -> Attacked:
        """Attack all examples at one epsilon, with all restarts."""
        worst = current = None
        rows = torch.arange(len(images), device=images.device)
        restarts = []
        for _restart in range(self.restarts):
            delta = self.start(self._norm, images, epsilon, generator)
            if worst is not None and self.stop_when_reached:
                rows = (~worst.reached).nonzero().squeeze(1)
            parts = []
            for part in torch.split(rows, batch_size):
                part_targets = None if targets is None else targets[part]
                parts.append(self._ascend(model, images[part], labels[part], part_targets, delta[part], epsilon))
                bar.update()
            found = Points.joined(parts)
            if worst is None:
                worst, current = found, found.copy()
            else:
                current = worst.copy()
                current.put(rows, found)
                worst.put_better(rows, found)
            probability, prediction = current.logits.softmax(1).max(1)
            length = self._norm.length(current.images - images)
            restarts.append((current.value, prediction, probability, length))
        assert worst is not None
        value, prediction, probability, length = (torch.stack(field) for field in zip(*restarts, strict=True))
        return Attacked(worst.images, worst.value, value, prediction, probability, length)

    def _ascend(
        self,
        model: Model,
        x: Tensor,
        y: Tensor,
        targets: Tensor | None,
        delta: Tensor,
        epsilon: float,
        *,
        images_alone: bool = False,
    ) -> Points:
        """Run one restart on one batch, from perturbations `delta`, and return what is kept of it.

        With `images_alone` the last iterate is not evaluated where it is kept in any case.
        """
        rows = torch.arange(len(x), device=x.device)
        confine = self._norm.confinement(x, epsilon, self.bounds)
        size = _some(self.step_size, self.relative_step_size, epsilon)
        step = size if self.backtracking is None else torch.full_like(y, size, dtype=x.dtype)
        m: Tensor | None = None
        now, gradient = self._evaluate(model, confine(x + delta), y, targets)
        kept = now.copy() if self.keep == "best" else now
        for t in range(1, self.steps + 1):
            m = self._direction(gradient, m, now.images)
            direction = self._norm.steepest(m) if self.momentum_of == "gradient" and self.momentum else m
            points = now.images if self.backtracking is None else now.images.clone()
            z = confine(_add(points, step, direction))
            if t == self.steps and images_alone and self.keep == "last" and self.backtracking is None:
                return replace(now, images=z)
            new, new_gradient = self._evaluate(model, z, y, targets, with_gradient=t < self.steps)
            if self.backtracking is None:
                now, gradient = new, new_gradient
            else:
                worse = new.value < now.value
                assert isinstance(step, Tensor)
                step = torch.where(worse, step / self.backtracking, step)
                gradient = torch.where(per_example(worse, x), gradient, new_gradient)
                now.put_where(~worse, new)
            if self.keep == "last":
                kept = now
                continue
            if not self.stop_when_reached:
                kept.put_better(None, now)
                continue
            kept.put_better(rows if len(rows) < len(kept.value) else None, now, final=True)
            going = ~kept.reached[rows]
            if going.sum() <= 0.75 * len(rows):  # a smaller batch pays
                going = going.nonzero().squeeze(1)
                if not len(going):
                    break
                rows, x, y, gradient, m = rows[going], x[going], y[going], gradient[going], m[going]
                targets = None if targets is None else targets[going]
                step = step[going] if isinstance(step, Tensor) else step
                now = now.at(going)
                confine = self._norm.confinement(x, epsilon, self.bounds)
        return kept

    def _direction(self, gradient: Tensor, m: Tensor | None, points: Tensor) -> Tensor:
        """Return where to go: the steepest direction, smoothed; or the smoothed gradient, if that has the momentum."""
        if self._norm.room_matters:  # an entry at the edge of the box cannot follow the gradient out of it
            low, high = self.bounds
            gradient = gradient.masked_fill(((points <= low) & (gradient < 0)) | ((points >= high) & (gradient > 0)), 0)
        if self.momentum_of == "gradient" and self.momentum:
            size = gradient.flatten(1).abs().sum(1)
            gradient = gradient / per_example(torch.where(size > 0, size, torch.ones_like(size)), gradient)
            return gradient if m is None else gradient.add_(m, alpha=self.momentum)
        direction = self._norm.steepest(gradient)
        if not self.momentum:
            return direction
        m = torch.zeros_like(direction) if m is None else m
        return direction.mul_(1 - self.momentum).add_(m, alpha=self.momentum)

    def _evaluate(
        self, model: Model, z: Tensor, y: Tensor, targets: Tensor | None, *, with_gradient: bool = True
    ) -> tuple[Points, Tensor]:
        """Return what the model makes of points, and the gradient of the objective there."""
        gradient = z
        with torch.set_grad_enabled(with_gradient):
            z.requires_grad_(with_gradient)
            logits = _logits(model, z)
            value = self._objective(logits, y, targets)
            if with_gradient:
                found = torch.autograd.grad(value.sum(), z, allow_unused=True)[0] if value.requires_grad else None
                if found is None:
                    raise ValueError(
                        "model has no gradient by its images: allowed is one that is differentiable in torch; for "
                        "others there are the attacks Square and UniformNoise"
                    )
                gradient = found
        z.requires_grad_(False)
        logits, value = logits.detach(), value.detach()
        reached = self._objective.reached(logits, y, targets)
        return Points(z, logits, value, torch.zeros_like(y, dtype=torch.bool) if reached is None else reached), gradient

    @property
    def _norm(self) -> Norm:
        assert isinstance(self.norm, Norm)
        return self.norm

    @property
    def _objective(self) -> Objective:
        assert isinstance(self.objective, Objective)
        return self.objective


@dataclass(eq=False)
class Points:
    """Points of the search, one per example, and what the model makes of them."""

    images: Tensor
    logits: Tensor
    value: Tensor
    """The objective."""
    reached: Tensor
    """Whether the goal is reached; False for objectives without one."""

    @staticmethod
    def joined(parts: Sequence[Points]) -> Points:
        """Return the points of several batches as one."""
        return Points(*(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS))

    def copy(self) -> Points:
        """Return a copy that shares no memory."""
        return Points(*(getattr(self, name).clone() for name in _FIELDS))

    def at(self, rows: Tensor) -> Points:
        """Return the points of some examples."""
        return Points(*(getattr(self, name)[rows] for name in _FIELDS))

    def put(self, rows: Tensor, other: Points) -> None:
        """Put points in the place of the examples `rows`."""
        for name in _FIELDS:
            getattr(self, name)[rows] = getattr(other, name)

    def put_where(self, chosen: Tensor, other: Points) -> None:
        """Put those points of another set in that are `chosen`, shape (n,)."""
        for name in _FIELDS:
            mine, its = getattr(self, name), getattr(other, name)
            torch.where(per_example(chosen, mine), its, mine, out=mine)

    def put_better(self, rows: Tensor | None, other: Points, *, final: bool = False) -> None:
        """Put the points of the examples `rows` (None: of all) in where they are better than what is here.

        With `final`, points here that reach the goal stay.
        """
        mine = self if rows is None else self.at(rows)
        better = other.better_than(mine)
        if final:
            better &= ~mine.reached
        if rows is None:
            self.put_where(better, other)
        else:
            self.put(rows[better], other.at(better))

    def better_than(self, other: Points) -> Tensor:
        """Return where these points are better: they reach the goal first, or have the larger objective."""
        larger = (self.reached == other.reached) & (self.value > other.value)
        return (self.reached & ~other.reached) | larger


_FIELDS = ("images", "logits", "value", "reached")


def fgsm(norm: Norm | str = "linf", objective: Objective | str = "cross_entropy") -> PGD:
    """Return the fast gradient method (Goodfellow et al., ICLR 2015): one step of length epsilon from the image."""
    return PGD(norm, objective, steps=1, relative_step_size=1.0, start=Zero())


def bim(norm: Norm | str = "linf", *, steps: int, relative_step_size: float) -> PGD:
    """Return the basic iterative method (Kurakin et al., ICLR 2017): several steps from the image."""
    return PGD(norm, steps=steps, relative_step_size=relative_step_size, start=Zero())


def mim(norm: Norm | str = "linf", *, steps: int, relative_step_size: float, momentum: float = 1.0) -> PGD:
    """Return the momentum iterative method (Dong et al., CVPR 2018): gradients of length 1 accumulate."""
    return PGD(
        norm,
        steps=steps,
        relative_step_size=relative_step_size,
        momentum=momentum,
        momentum_of="gradient",
        start=Zero(),
    )


def pgd(norm: Norm | str = "linf", *, steps: int, relative_step_size: float, restarts: int = 1) -> PGD:
    """Return projected gradient ascent on the cross-entropy from uniform starts (Madry et al., ICLR 2018)."""
    return PGD(norm, steps=steps, relative_step_size=relative_step_size, restarts=restarts)


def _logits(model: Model, z: Tensor) -> Tensor:
    logits = model(z)
    return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def _add(points: Tensor, step: float | Tensor, direction: Tensor) -> Tensor:
    """Add step * direction to the points, in place."""
    if isinstance(step, Tensor):
        return points.addcmul_(direction, step.view(-1, *[1] * (points.ndim - 1)))
    return points.add_(direction, alpha=step)


def _some(step_size: float | None, relative_step_size: float | None, epsilon: float) -> float:
    if step_size is not None:
        return step_size
    assert relative_step_size is not None
    return relative_step_size * epsilon


def _check(name: str, value: object, allowed: bool, what: str) -> None:
    if not allowed:
        raise ValueError(f"{name} = {value!r} is not allowed: {what} is")
