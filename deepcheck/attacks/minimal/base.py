"""The call that minimal attacks share, and how they take part where a budget is given."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from deepcheck.attacks.base import Attacked, CheckedAttack, Examples, Model, checked_epsilons
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.points import Nearest, Points, Restarts
from deepcheck.attacks.targets import Targets

__all__ = ["MinimalAttack", "WithinBudget"]


@dataclass(frozen=True)
class MinimalAttack(CheckedAttack):
    """An attack that looks for the adversarial example nearest to the image.

    The objective says when one is found: it must have a goal. Of several restarts the nearest counts, for each example.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        nothing, target = torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64)
        if self._objective.reached(nothing, target, target) is None:
            raise ValueError(f"objective = {self.objective!r} is not allowed: one that has a goal is, say margin")

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator,
        targets: Tensor | None = None,
        indices: Tensor | None = None,
        batch_size: int = 500,
        progress: bool = False,
    ) -> Attacked:
        """Look for the adversarial example nearest to each image.

        Parameters
        ----------
        model, images, labels, generator, targets, indices, batch_size, progress
            As of an attack within a budget, see `deepcheck.attacks.base.BudgetAttack`.

        Returns
        -------
        Attacked
            `length` is the distance that was found: an upper bound on the least one. It is 0 for an image that is
            misclassified already, and infinite where nothing was found; `images` then has the attack's last try.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed; before any attack.
        """
        with self._examples(
            model,
            images,
            labels,
            generator=generator,
            targets=targets,
            indices=indices,
            batch_size=batch_size,
            progress=progress,
        ) as aims:
            results = [[self._of_all_restarts(examples)] for examples in aims]
        return Attacked.of_all(results, single_epsilon=True, targets=targets)

    def _of_all_restarts(self, examples: Examples) -> Attacked:
        """Return the nearest points of all restarts."""
        if not len(examples):
            return Attacked.none(examples.images.to(examples.dtype), self.restarts)
        assert examples.asked is not None
        found = Nearest(self._norm, examples.images, examples.dtype)
        for restart in range(self.restarts):
            some = examples.stream(restart)
            points = some.settled(self._search(some), self._objective)
            found.add(None, points, examples.asked.taken(until_reached=False))
            examples = replace(examples, least=found.least())
        return found.result()

    @abc.abstractmethod
    def _nearest(self, examples: Examples) -> Points:
        """Attack one batch once: the nearest points in the box that reach the goal, or the last that were tried.

        It is called without gradients, which it may switch on, and never without examples.
        """

    def _search(self, examples: Examples) -> Points:
        """Attack all examples once: batch after batch."""
        return self._found(self._nearest, examples)


@dataclass(frozen=True)
class WithinBudget:
    """A minimal attack as one within a budget: what records and suites take.

    The search is made once for each restart. At an epsilon, what it found counts where it is in the ball; elsewhere it is
    moved into the ball, which is the best that this attack has there, and the model is asked again. An example that has
    reached the goal repeats what was found in the restarts that follow.

    Examples
    --------
    >>> import torch
    >>> from deepcheck.attacks.minimal.deepfool import DeepFool
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = WithinBudget(DeepFool("l2"))
    >>> attacked = attack(model, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 1, 5]))
    """

    attack: MinimalAttack

    def __post_init__(self) -> None:
        given: object = self.attack
        if not isinstance(given, MinimalAttack):
            raise TypeError(f"attack = {given!r} is not allowed: one that looks for the nearest is, such as DeepFool()")

    @property
    def norm(self) -> Norm:
        """The norm that `epsilon` bounds: the attack's."""
        return self.attack._norm

    @property
    def objective(self) -> Objective:
        """The attack's objective."""
        return self.attack._objective

    @property
    def restarts(self) -> int:
        """The attack's number of restarts."""
        return self.attack.restarts

    @property
    def targets(self) -> Targets:
        """Where the attack's classes to reach come from."""
        return self.attack.targets

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        targets: Tensor | None = None,
        indices: Tensor | None = None,
        batch_size: int = 500,
        progress: bool = False,
    ) -> Attacked:
        """Attack a model on some examples, within one or more budgets: see `deepcheck.attacks.base.BudgetAttack`."""
        epsilons, single = checked_epsilons(epsilon)
        with self.attack._examples(
            model,
            images,
            labels,
            generator=generator,
            targets=targets,
            indices=indices,
            batch_size=batch_size,
            progress=progress,
        ) as aims:
            results = [self._at(examples, epsilons) for examples in aims]
        return Attacked.of_all(results, single_epsilon=single, targets=targets)

    def _at(self, examples: Examples, epsilons: Sequence[float]) -> list[Attacked]:
        """Return what was found at each epsilon, after one search for each restart.

        After the first it is made for the examples that are left at any epsilon.
        """
        if not len(examples):
            return [Attacked.none(examples.images.to(examples.dtype), self.restarts) for _ in epsilons]
        asked = examples.asked
        assert asked is not None
        found = [Restarts(self.norm, examples.images, examples.dtype) for _ in epsilons]
        nearest = Nearest(self.norm, examples.images, examples.dtype)
        for restart in range(self.restarts):
            left = [one.left() for one in found]
            rows = None if left[0] is None else torch.cat([mine for mine in left if mine is not None]).unique()
            some = (examples if rows is None else examples.at(rows)).stream(restart)
            with self.attack._restart_on_bar(examples):
                points = self.attack._search(some) if len(some) else None
            searched = asked.taken(until_reached=False)
            nearest.add(rows, points, searched)
            for epsilon, one, mine in zip(epsilons, found, left, strict=True):
                place = slice(None) if rows is None or mine is None else torch.searchsorted(rows, mine)
                its = None if points is None else self._within(some.at(place), points.images[place], epsilon)
                for_it = searched if mine is None else torch.zeros_like(searched).index_copy_(0, mine, searched[mine])
                one.add(mine, its, for_it + asked.taken(until_reached=False))
            examples = replace(examples, least=nearest.least())
        return [one.result() for one in found]

    def _within(self, examples: Examples, nearest: Tensor, epsilon: float) -> Points | None:
        """Return the points that were found, moved into the ball where they are outside; None for no examples."""
        if not len(examples):
            return None
        x = examples.images
        inside = self.norm.length(examples.rounded(nearest).double() - x.double()) <= epsilon
        confined = self.norm.confinement(x, epsilon, self.attack.bounds)(nearest.clone())
        z = torch.where(per_example(inside, x), nearest, confined)
        batches = zip(examples.batches(), z.split(examples.batch_size), strict=True)
        found = Points.joined([batch.points(part, self.objective) for batch, part in batches])
        return examples.settled(found, self.objective)
