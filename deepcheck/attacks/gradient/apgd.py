"""Projected gradient ascent that chooses its own steps: APGD, and its sparse form for L1."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from deepcheck.attacks.base import BudgetAttack
from deepcheck.attacks.examples import Examples
from deepcheck.attacks.gradients import points_and_gradient
from deepcheck.attacks.norms import L1, L2, Norm, per_example
from deepcheck.attacks.objectives import DLR, Objective, Targeted, TargetedDLR
from deepcheck.attacks.objectives import objective as as_objective
from deepcheck.attacks.points import Points, looks
from odeflow.model import checked_count, checked_number

__all__ = ["APGD", "apgd_ce", "apgd_t"]

_NORMS = ("linf", "l2", "l1")
_FIRST, _LESS, _LEAST = 22, 3, 6
"""Steps between checkpoints in percent: at first, less from one to the next, at least."""
_SHORTER, _SHORTEST = 1.5, 0.1
"""L1: what the step is divided by, and its least share of the first one."""
_SPARSER = 1.5
"""L1: a step moves as many entries as the best perturbation has, divided by this."""
_FEWER = 0.95
"""L1: the best perturbation counts as sparser where it has less than this share of the entries that it had."""
_CHECK = 4
"""L1: steps between checkpoints in percent."""
_BALLS = ((3, 30), (2, 30), (1, 40))
"""L1: radii of the balls, in units of epsilon, and percent of the steps in each."""


@dataclass(eq=False)
class _Climb:
    """Where the examples of a batch are, and what each knows of its own last steps."""

    now: Points
    gradient: Tensor
    before: Tensor
    """The iterate before, of the shape of the images."""
    best: Points
    best_gradient: Tensor
    step: Tensor
    """Length of the steps, shape (n,), as the others below."""
    helped: Tensor
    """Number of steps since the last checkpoint that raised the objective."""
    improved: Tensor
    """Whether the best point is newer than the last checkpoint."""
    shortened: Tensor
    """Whether the step was shortened at the last checkpoint."""
    changed: Tensor
    """Number of entries in which the best point at the last checkpoint was not the image."""

    @staticmethod
    def begun(now: Points, gradient: Tensor, step: float, changed: Tensor) -> _Climb:
        """Return where a climb begins."""
        no = torch.zeros_like(now.value, dtype=torch.bool)
        return _Climb(
            now=now,
            gradient=gradient,
            before=now.images,
            best=now.copy(),
            best_gradient=gradient,
            step=now.images.new_full((len(no),), step),
            helped=torch.zeros_like(no, dtype=torch.int64),
            improved=no,
            shortened=no,
            changed=changed,
        )

    def at(self, rows: Tensor) -> _Climb:
        """Return some of the examples, as a copy."""
        parts: dict[str, Any] = {}
        for name, one in vars(self).items():
            parts[name] = one.at(rows) if isinstance(one, Points) else one[rows]
        return _Climb(**parts)

    def go(self, new: Points, gradient: Tensor, *, final: bool) -> None:
        """Step to new points; with `final`, a best point that reaches the goal stays."""
        better = new.better_than(self.best)
        if final and self.best.reached is not None:
            better &= ~self.best.reached
        self.helped = self.helped + (new.value > self.now.value)
        self.improved = self.improved | better
        self.best.put_where(better, new)
        self.best_gradient = torch.where(per_example(better, gradient), gradient, self.best_gradient)
        self.before, self.now, self.gradient = self.now.images, new, gradient

    def return_to_best(self, chosen: Tensor) -> None:
        """Go on from the best point where `chosen`."""
        self.now.put_where(chosen, self.best)
        self.gradient = torch.where(per_example(chosen, self.gradient), self.best_gradient, self.gradient)


@dataclass(frozen=True)
class APGD(BudgetAttack):
    r"""Auto-PGD (Croce, Hein, ICML 2020; in L1 as in ICML 2021): ascent that shortens its steps where they stop to help.

    From a random point, with the step :math:`\eta = 2 \epsilon` at first and d the steepest direction of the norm,

    .. math:: z = P(x_k + \eta\, d), \qquad x_{k+1} = P(x_k + a\, (z - x_k) + (1 - a)(x_k - x_{k-1})) ,

    with P the nearest point of ball and box together, exactly, and a = 1 in the first step. At the checkpoints, after 22, 41,
    57, 70, 80, 87, 93 and 99 % of the steps, an example's own step is halved, and it goes on from its best point, if fewer
    than a share :math:`\rho` of its steps since the last checkpoint raised the objective, or if its step was not halved then
    and nothing better was found since.

    In L1 there is no momentum, :math:`\eta = \epsilon` at first, and a step goes by equal parts along the m entries of the
    largest gradients, m being the number of entries of the best perturbation so far, less those at the edge of the box, over
    1.5, rounded down. Every 4 % of a ball's steps, where the best perturbation has less than 0.95 of the entries that it had,
    the step is :math:`\epsilon` again, from the best point; elsewhere it is divided by 1.5, down to :math:`\epsilon / 10`.
    Of all steps 30 % are made in the ball of radius :math:`3 \epsilon`, 30 % in that of :math:`2 \epsilon` and 40 % in the
    ball itself, each from the best point before.

    Entries at the edge of the box that a step would push out of it do not count in the length of a step in L2 and L1. They go
    along, so that the projection leaves them where they are; in L1 those that are there in the image do not. The papers know
    neither. An image that reaches the goal as it is, is kept. The ratios `dlr` and `targeted_dlr` need 3 and 4 classes: of a
    model with fewer, the difference alone is maximised, which is the margin, and that between target and true class.

    The result is exact for linear models of two classes, up to rounding and with enough steps; in general it is a lower bound
    on the largest objective.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = APGD("l2", "dlr", steps=20)(model, images, labels, epsilon=0.5, generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, bool((attacked.length <= 0.5).all())
    (torch.Size([5, 1, 8, 8]), True)
    """

    objective: Objective | str = "cross_entropy"
    """What is maximised: a name out of `objectives.OBJECTIVES`, or an Objective."""
    _: KW_ONLY
    steps: int = 100
    """Gradient steps per restart, >= 1."""
    rho: float = 0.75
    """Share of the steps that must raise the objective, or the step is halved, in [0, 1]. It plays no part in L1."""
    momentum: float = 0.75
    """Share of the new step in the way to the next point, a, in (0, 1]; the rest goes on as before. It plays no part in
    L1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        checked_number("rho", self.rho, least=0, most=1)
        checked_number("momentum", self.momentum, above=0, most=1)
        if self._norm.name not in _NORMS:
            raise ValueError(f"norm = {self.norm!r} is not allowed for APGD: linf, l2 or l1 is")
        if isinstance(self.objective, DLR | TargetedDLR):
            object.__setattr__(self, "objective", replace(self.objective, few_classes="difference"))

    @property
    def _sparse(self) -> bool:
        return isinstance(self.norm, L1)

    def _attack(self, examples: Examples, epsilon: float) -> Points:
        kept = examples.points(examples.images.clone(), self._objective)
        rows: Tensor | None = None
        stops = self.stop_when_reached and kept.reached is not None
        if stops:
            rows = kept.unfinished()
            if not len(rows):
                return kept
            examples = examples.at(rows)
        balls = _balls(self.steps) if self._sparse else [(1, self.steps)]
        z = self._start(examples, balls[0][0] * epsilon)
        for radius, steps in balls:
            found = self._climb(examples, z, radius * epsilon, steps, stops=stops and radius == 1)
            z = found.images.clone()
        kept.put_better(rows, found, final=stops)
        return kept

    def _start(self, examples: Examples, epsilon: float) -> Tensor:
        """Return random points: uniform in the ball; in L1 normal numbers, of which the projection leaves a few."""
        x, draws = examples.images, examples.draws()
        return x + (draws.normal(x) if self._sparse else self._norm.uniform(x, epsilon, draws))

    def _climb(self, examples: Examples, z: Tensor, epsilon: float, steps: int, *, stops: bool) -> Points:
        """Climb from given points in one ball, and return the best that is found of each example."""
        x = examples.images
        confine = self._norm.confinement(x, epsilon, self.bounds)
        now, gradient = points_and_gradient(examples, confine(z), self._objective)
        climb = _Climb.begun(now, gradient, (1 if self._sparse else 2) * epsilon, _changed(now.images, x))
        checkpoints = _every(steps) if self._sparse else _checkpoints(steps)
        kept: Points | None = None
        rows: Tensor | None = None  # of the examples that are still attacked; None: all
        last = 0
        for t in range(1, steps + 1):
            z = self._next(climb, examples.images, confine, first=t == 1)
            if t < steps:
                climb.go(*points_and_gradient(examples, z, self._objective), final=stops)
            else:
                climb.go(examples.points(z, self._objective), climb.gradient, final=stops)
                break
            if t in checkpoints:
                self._check(climb, examples.images, epsilon, t - last)
                last = t
            if not (stops and looks(t)):
                continue
            going = climb.best.unfinished()
            if len(going) <= 0.75 * len(examples):  # a smaller batch pays
                kept = _with(kept, rows, climb.best)
                if not len(going):
                    return kept
                rows = going if rows is None else rows[going]
                examples, climb = examples.at(going), climb.at(going)
                confine = self._norm.confinement(examples.images, epsilon, self.bounds)
        return _with(kept, rows, climb.best)

    def _next(self, climb: _Climb, images: Tensor, confine: Callable[[Tensor], Tensor], *, first: bool) -> Tensor:
        """Return the next points."""
        x, gradient = climb.now.images, climb.gradient
        step = per_example(climb.step, x)
        if not self._norm.room_matters:
            z = confine(x + step * self._norm.steepest(gradient))
        else:
            blocked = _blocked(x, gradient, self.bounds)
            if self._sparse:
                came = x != images
                count = (climb.changed - (blocked & came).flatten(1).sum(1)) / _SPARSER
                return confine(x + step * _sparse_signs(gradient, blocked, came, count.long()))
            z = confine(x + step * _of_free_length(gradient, blocked))
        if first or self.momentum == 1:
            return z
        a = self.momentum
        return confine(x + a * (z - x) + (1 - a) * (x - climb.before))

    def _check(self, climb: _Climb, images: Tensor, epsilon: float, steps: int) -> None:
        """Change the steps of each example by what the last ones brought, so many since the last checkpoint."""
        if self._sparse:
            changed = _changed(climb.best.images, images)
            back = changed < _FEWER * climb.changed
            climb.step = torch.where(back, epsilon, (climb.step / _SHORTER).clamp(min=_SHORTEST * epsilon))
            climb.changed = changed
        else:
            back = (climb.helped < self.rho * steps) | ~(climb.shortened | climb.improved)
            climb.step = torch.where(back, climb.step / 2, climb.step)
        climb.return_to_best(back)
        climb.shortened = back
        climb.improved = torch.zeros_like(climb.improved)
        climb.helped = torch.zeros_like(climb.helped)


def apgd_ce(norm: Norm | str = "linf", *, steps: int = 100, restarts: int = 1, rho: float = 0.75) -> APGD:
    """Return Auto-PGD on the cross-entropy (Croce, Hein, ICML 2020; L1: ICML 2021), the first attack of AutoAttack."""
    return APGD(norm, "cross_entropy", steps=steps, restarts=restarts, rho=rho)


def apgd_t(
    norm: Norm | str = "linf",
    objective: Objective | str = "targeted_dlr",
    *,
    steps: int = 100,
    restarts: int = 9,
    rho: float = 0.75,
) -> APGD:
    """Return Auto-PGD towards one wrong class after the other (Croce, Hein, ICML 2020), the second attack of AutoAttack.

    The likeliest class is the first, with a restart for each; after the last it is the turn of the first again. Any wrong
    class will do.
    """
    towards = as_objective(objective)
    if not towards.targeted:
        raise ValueError(f"objective = {objective!r} is not allowed: a targeted one is")
    assert isinstance(towards, Targeted)
    return APGD(norm, replace(towards, goal="wrong"), steps=steps, restarts=restarts, rho=rho, targets="likeliest")


def _checkpoints(steps: int) -> set[int]:
    """Return after which of the steps, 1, 2, ..., those of each example are looked at: ceil(p_j N), p_j = 22, 41, ... %."""
    found, p, width = set(), _FIRST, _FIRST
    while p <= 100:
        found.add(-(-p * steps // 100))
        width = max(width - _LESS, _LEAST)
        p += width
    return found


def _every(steps: int) -> set[int]:
    """Return the same for L1."""
    period = max(_CHECK * steps // 100, 1)
    return set(range(period, steps + 1, period))


def _balls(steps: int) -> list[tuple[int, int]]:
    """Return radii of balls, in units of epsilon, and numbers of steps in them, without those of no step."""
    parts = [(radius, percent * steps // 100) for radius, percent in _BALLS[:-1]]
    return [(radius, part) for radius, part in parts if part] + [(1, steps - sum(part for _, part in parts))]


def _changed(points: Tensor, images: Tensor) -> Tensor:
    """Return the number of entries in which points are not the images, shape (n,)."""
    return (points != images).flatten(1).sum(1)


def _blocked(x: Tensor, gradient: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Return which entries are at an edge of the box, up to rounding, and would be pushed out of it."""
    low, high = bounds
    digit = 2 * torch.finfo(x.dtype).eps * max((abs(bound) for bound in bounds if math.isfinite(bound)), default=0.0)
    return ((x <= low + digit) & (gradient < 0)) | ((x >= high - digit) & (gradient > 0))


def _of_free_length(gradient: Tensor, blocked: Tensor) -> Tensor:
    """Return the gradient in units of its length without the entries that are blocked at the edge of the box.

    These keep theirs: an entry at the edge that had none would be drawn away from there by the projection onto the ball.
    """
    g = L2().steepest(gradient)
    length = L2().length(g.masked_fill(blocked, 0)).clamp(min=1e-6)
    return g / per_example(length, g)


def _sparse_signs(gradient: Tensor, blocked: Tensor, changed: Tensor, count: Tensor) -> Tensor:
    """Return 1/m times the signs of each gradient's m largest entries that are not blocked, and of larger ones that are.

    m is `count`, shape (n,), at least 1, more where entries tie. Entries that are blocked where the image has them, and have
    not `changed`, are left out: those that have come to the edge go along, to stay there.
    """
    size = gradient.flatten(1).abs()
    free = size.masked_fill(blocked.flatten(1), 0)
    rank = count.clamp(min=1, max=size.shape[1])[:, None] - 1
    chosen = size >= free.sort(dim=1, descending=True).values.gather(1, rank)
    m = (chosen & (free > 0)).sum(1, keepdim=True).clamp_(min=1)
    chosen &= (changed | ~blocked).flatten(1)
    return (chosen * gradient.flatten(1).sign() / m).view_as(gradient)


def _with(kept: Points | None, rows: Tensor | None, best: Points) -> Points:
    """Return all points, with those of the examples `rows` as they are now."""
    if kept is None:
        return best
    assert rows is not None
    kept.put(rows, best)
    return kept
