"""Projected gradient ascent on an objective of the logits, in a ball around each image: one loop for a family of attacks.

FGSM, BIM, MIM, PGD, targeted and least-likely-class attacks and the attacks on confidence are configurations of `PGD`.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from deepcheck.attacks.base import BudgetAttack, Examples, Model
from deepcheck.attacks.draws import keys
from deepcheck.attacks.gradients import points_and_gradient
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.objectives import Objective, Targeted
from deepcheck.attacks.objectives import objective as as_objective
from deepcheck.attacks.points import Points, looks
from deepcheck.attacks.starts import Start, UniformBall, Zero
from odeflow.model import checked_count, checked_number

__all__ = ["PGD", "bim", "fgsm", "mim", "pgd", "targeted_pgd", "whole_steps"]


@dataclass(frozen=True)
class PGD(BudgetAttack):
    """Projected gradient ascent (Madry et al., ICLR 2018) with optional momentum, backtracking and restarts.

    From a start in the ball, every step goes along the steepest direction of the norm, and back into ball and box:

        z <- confine(z + step_size * steepest(grad objective(z)))

    The result is exact for linear models of two classes, within rounding and with enough steps, in L-infinity, and in L2
    and L1 where no pixel meets the bounds.

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
    keep: Literal["best", "last"] = "best"
    """Which iterate of a restart is kept: the one of the largest objective (one that reaches the goal first), or the
    last."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
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
        _check(
            "stop_when_reached",
            self.stop_when_reached,
            not (self.stop_when_reached and self.keep == "last" and self.restarts > 1),
            "False where the last iterate of several restarts is kept",
        )

    def reach(self, epsilon: float) -> float:
        """Return how far all steps of a restart go together, in the units of epsilon.

        Less than `steps` times the step where momentum first has to build up; without what backtracking takes away.
        """
        step, T = _some(self.step_size, self.relative_step_size, epsilon), self.steps
        return step * (whole_steps(T, self.momentum) if self.momentum_of == "direction" else T)

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

        The model is used in the mode that it is in. The images are those of the attack's first restart.
        """
        key = keys(generator, torch.arange(len(images), device=images.device))
        return self.perturb_with(model, images, labels, epsilon, key, targets)

    def perturb_with(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        epsilon: float,
        key: Tensor,
        targets: Tensor | None = None,
        *,
        factors: Tensor | None = None,
    ) -> Tensor:
        """Return what `perturb` returns, with the keys of the examples' random numbers given, shape (n,), int64.

        By `factors`, shape (n,), >= 0, in double precision, each example's radius and steps are multiplied. None: by 1.

        Where no example is dropped (`stop_when_reached` is False, or the objective has no goal, or the last iterate is
        kept) it reads nothing off the GPU, so that a CUDA graph can record it: see `deepcheck.graphs.Captured`. The keys
        are drawn without: ``deepcheck.attacks.draws.keys(generator, torch.arange(n, device=images.device))``.
        """
        examples = Examples.of(model, images.detach(), labels, targets, key, len(images)).stream(0)
        with torch.no_grad():
            return self._ascend(examples, epsilon, factors, images_alone=True).images.to(images.dtype)

    def _attack(self, examples: Examples, epsilon: float) -> Points:
        return self._ascend(examples, epsilon)

    def _ascend(
        self, examples: Examples, epsilon: float, factors: Tensor | None = None, *, images_alone: bool = False
    ) -> Points:
        """Run one restart on one batch, and return what is kept of it.

        Radius and steps of each example are multiplied by its factor, if there are any. With `images_alone` the last iterate is
        not evaluated where it is kept in any case.
        """
        x = examples.images
        size, radius = _some(self.step_size, self.relative_step_size, epsilon), _times(epsilon, factors)
        confine = self._norm.confinement(x, radius, self.bounds)
        step: float | Tensor = size if self.backtracking is None else x.new_full((len(x),), size)
        step = step if factors is None else (step * factors).to(x.dtype)
        m: Tensor | None = None
        start = self.start(self._norm, x, radius, examples.draws())
        now, gradient = self._evaluate(examples, confine(x + start))
        kept = now.copy() if self.keep == "best" else now
        rows: Tensor | None = None  # of the examples that are still attacked; None: all
        stops = self.stop_when_reached and now.reached is not None
        for t in range(1, self.steps + 1):
            norm = self._norm.during((t - 1) / max(self.steps - 1, 1), x[0].numel())
            m = self._direction(norm, gradient, m, now.images)
            direction = norm.steepest(m) if self.momentum_of == "gradient" and self.momentum else m
            points = now.images if self.backtracking is None else now.images.clone()
            z = confine(_add(points, step, direction))
            if t == self.steps and images_alone and self.keep == "last" and self.backtracking is None:
                return replace(now, images=z)
            new, new_gradient = self._evaluate(examples, z, with_gradient=t < self.steps)
            if self.backtracking is None:
                now, gradient = new, new_gradient
            else:
                worse = new.value < now.value
                assert isinstance(step, Tensor)
                step = torch.where(worse, step / self.backtracking, step)
                gradient = torch.where(per_example(worse, z), gradient, new_gradient)
                now.put_where(~worse, new)
            if self.keep == "last":
                kept = now
                continue
            kept.put_better(rows, now, final=stops)
            if not (stops and looks(t) and t < self.steps):
                continue
            going = kept.unfinished(rows)
            if len(going) <= 0.75 * len(examples):  # a smaller batch pays
                if not len(going):
                    break
                rows = going if rows is None else rows[going]
                examples, now, gradient, m = examples.at(going), now.at(going), gradient[going], m[going]
                step = step[going] if isinstance(step, Tensor) else step
                radius = radius[going] if isinstance(radius, Tensor) else radius
                confine = self._norm.confinement(examples.images, radius, self.bounds)
        return kept

    def _direction(self, norm: Norm, gradient: Tensor, m: Tensor | None, points: Tensor) -> Tensor:
        """Return where to go: the steepest direction, smoothed; or the smoothed gradient, if that has the momentum."""
        if norm.room_matters:  # an entry at the edge of the box cannot follow the gradient out of it
            low, high = self.bounds
            gradient = gradient.masked_fill(((points <= low) & (gradient < 0)) | ((points >= high) & (gradient > 0)), 0)
        if self.momentum_of == "gradient" and self.momentum:
            size = gradient.flatten(1).abs().sum(1)
            gradient = gradient / per_example(torch.where(size > 0, size, torch.ones_like(size)), gradient)
            return gradient if m is None else gradient.add_(m, alpha=self.momentum)
        direction = norm.steepest(gradient)
        if not self.momentum:
            return direction
        m = torch.zeros_like(direction) if m is None else m
        return direction.mul_(1 - self.momentum).add_(m, alpha=self.momentum)

    def _evaluate(self, examples: Examples, z: Tensor, *, with_gradient: bool = True) -> tuple[Points, Tensor]:
        """Return what the model makes of points, and the gradient of the objective there (else the points)."""
        if not with_gradient:
            return examples.points(z, self._objective), z
        return points_and_gradient(examples, z, self._objective)


def whole_steps(steps: int, momentum: float = 0.0) -> float:
    """Return how many steps without momentum go as far as these: sum over t = 1, ..., T of 1 - momentum^t."""
    return steps - momentum * (1 - momentum**steps) / (1 - momentum)


def fgsm(norm: Norm | str = "linf", objective: Objective | str = "cross_entropy") -> PGD:
    """Return the fast gradient method (Goodfellow et al., ICLR 2015): one step of length epsilon from the image."""
    return PGD(norm, objective, steps=1, relative_step_size=1.0, start=Zero())


def bim(norm: Norm | str = "linf", *, steps: int = 10, relative_step_size: float | None = None) -> PGD:
    """Return the basic iterative method (Kurakin et al., ICLR 2017): steps from the image, by default of epsilon / steps."""
    return PGD(norm, steps=steps, relative_step_size=_share(relative_step_size, 1.0, steps), start=Zero())


def mim(
    norm: Norm | str = "linf", *, steps: int = 10, relative_step_size: float | None = None, momentum: float = 1.0
) -> PGD:
    """Return the momentum iterative method (Dong et al., CVPR 2018): gradients of length 1 accumulate.

    Steps are epsilon / steps long by default.
    """
    return PGD(
        norm,
        steps=steps,
        relative_step_size=_share(relative_step_size, 1.0, steps),
        momentum=momentum,
        momentum_of="gradient",
        start=Zero(),
    )


def pgd(
    norm: Norm | str = "linf",
    objective: Objective | str = "cross_entropy",
    *,
    steps: int = 40,
    step_size: float | None = None,
    relative_step_size: float | None = None,
    restarts: int = 1,
    momentum: float = 0.0,
    backtracking: float | None = None,
) -> PGD:
    """Return projected gradient ascent from uniform starts (Madry et al., ICLR 2018).

    Steps are 2.5 epsilon / steps long where neither `step_size` nor `relative_step_size` is given.
    """
    if step_size is None:
        relative_step_size = _share(relative_step_size, 2.5, steps)
    return PGD(
        norm,
        objective,
        steps=steps,
        step_size=step_size,
        relative_step_size=relative_step_size,
        restarts=restarts,
        momentum=momentum,
        backtracking=backtracking,
    )


def targeted_pgd(
    norm: Norm | str = "linf",
    objective: Objective | str = "targeted_margin",
    *,
    steps: int = 40,
    relative_step_size: float | None = None,
    restarts: int = 9,
    backtracking: float | None = 1.5,
) -> PGD:
    """Return ascent towards one wrong class after the other, the likeliest first, with a restart for each.

    Any wrong class will do. Steps are by default 2.5 epsilon / steps long at first, and shorter where they lose.
    """
    towards = as_objective(objective)
    _check("objective", objective, isinstance(towards, Targeted), "a targeted one")
    assert isinstance(towards, Targeted)
    return PGD(
        norm,
        replace(towards, goal="wrong"),
        steps=steps,
        relative_step_size=_share(relative_step_size, 2.5, steps),
        restarts=restarts,
        backtracking=backtracking,
        targets="likeliest",
    )


def _share(given: float | None, all_steps: float, steps: int) -> float:
    """Return the length of a step as a share of epsilon: as given, or so that all steps have some length together."""
    return all_steps / checked_count("steps", steps, 1) if given is None else given


def _add(points: Tensor, step: float | Tensor, direction: Tensor) -> Tensor:
    """Add step * direction to the points, in place."""
    if isinstance(step, Tensor):
        return points.addcmul_(direction, step.view(-1, *[1] * (points.ndim - 1)))
    return points.add_(direction, alpha=step)


def _times(epsilon: float, factors: Tensor | None) -> float | Tensor:
    return epsilon if factors is None else epsilon * factors


def _some(step_size: float | None, relative_step_size: float | None, epsilon: float) -> float:
    if step_size is not None:
        return step_size
    assert relative_step_size is not None
    return relative_step_size * epsilon


def _check(name: str, value: object, allowed: bool, what: str) -> None:
    if not allowed:
        raise ValueError(f"{name} = {value!r} is not allowed: {what} is")
