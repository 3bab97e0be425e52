"""Attacks that only look at the model's output: random search, and its simplest form, the best of some noise."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import NoReturn

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
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.objectives import objective as as_objective
from deepcheck.attacks.pgd import Points
from odeflow.model import checked_count

__all__ = ["RandomSearch", "UniformNoise"]

Proposal = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From indices of some examples, shape (m,), their images, and the best points so far, both of shape (m, ...), to new
points, which the search confines to ball and box."""


@dataclass(frozen=True)
class RandomSearch(abc.ABC):
    """Random search for the largest objective: a proposal becomes the current point where it is better.

    Only outputs of the model are used, never a gradient. Of several restarts the worst for the model counts, for each
    example: one that reaches the goal of the objective (say, is misclassified) before one that does not, then the
    larger objective; proposals are compared in the same way.
    """

    norm: Norm | str = "linf"
    """The ball: a name out of `norms.NORMS` or a Norm."""
    objective: Objective | str = "margin"
    """What is maximised: a name out of `objectives.OBJECTIVES`, or an Objective."""
    _: KW_ONLY
    restarts: int = 1
    """Number of searches from the beginning, >= 1."""
    stop_when_reached: bool = True
    """Drop an example once it reaches the goal of the objective; its later restarts repeat what was found. Objectives
    of confidence have no such goal."""
    bounds: Bounds = (0.0, 1.0)
    """Least and largest value of a pixel; infinite ones are allowed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", as_norm(self.norm))
        object.__setattr__(self, "objective", as_objective(self.objective))
        object.__setattr__(self, "bounds", checked_bounds(self.bounds))
        object.__setattr__(self, "restarts", checked_count("restarts", self.restarts, 1))
        if not isinstance(self.stop_when_reached, bool):
            raise TypeError(f"stop_when_reached = {self.stop_when_reached!r} is not a bool: allowed is True or False")

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
            Source of all random numbers, on any device. It advances by one number per epsilon and restart.
        targets
            Classes to reach, shape (n,), for a targeted objective.
        batch_size
            Examples that the model sees at once. The result does not depend on it (but for the rounding of the model's
            own arithmetic).
        progress
            Show a progress bar on a terminal.

        Returns
        -------
        Attacked
            Approximate: a lower bound on the largest objective in the ball.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed; before any attack.
        """
        epsilons, single = checked_epsilons(epsilon)
        checked_images(images, labels, self.bounds)
        self._check_shape(tuple(images.shape))
        batch_size = checked_count("batch_size", batch_size, 1)
        self._check_targets(labels, targets)
        with evaluating(model), torch.no_grad():
            if len(images):
                logits = model(images[:1])
                checked_logits(logits, 1, labels)
                if targets is not None:
                    checked_classes("targets", targets, logits.shape[1])
            total = len(epsilons) * self.restarts * self._queries
            with tqdm(total=total, desc=repr(self), unit="query", disable=None if progress else True) as bar:
                results = [
                    self._attack(model, images, labels, targets, value, generator, batch_size, bar)
                    for value in epsilons
                ]
        if single:
            return results[0]
        fields = Attacked.__dataclass_fields__
        return Attacked(**{name: torch.stack([getattr(result, name) for result in results]) for name in fields})

    @property
    @abc.abstractmethod
    def _queries(self) -> int:
        """Number of proposals per restart."""

    @abc.abstractmethod
    def _draw(self, query: int, images: Tensor, epsilon: float, generator: torch.Generator) -> Proposal:
        """Draw the random numbers of one query, 0, 1, ..., for all images, and return what proposes with them.

        The best points so far are the images themselves when it proposes for query 0.
        """

    def _check_shape(self, shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raise ValueError if images of this shape cannot be attacked."""

    def _check_targets(self, labels: Tensor, targets: Tensor | None) -> None:
        if not self._objective.targeted:
            if targets is not None:
                raise ValueError("targets are not allowed: the objective has none")
        elif targets is None or targets.shape != labels.shape or targets.dtype != torch.int64:
            given = None if targets is None else f"{targets.dtype} of shape {tuple(targets.shape)}"
            raise ValueError(
                f"targets = {given} is not allowed: a torch.int64 tensor of shape {tuple(labels.shape)} is"
            )

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
        worst: Points | None = None
        rows = torch.arange(len(images), device=images.device)
        restarts = []
        for _restart in range(self.restarts):
            # A stream of its own: a search that ends early takes no fewer numbers from the caller's generator.
            stream = _spawned(generator)
            if worst is not None and self.stop_when_reached:
                rows = (~worst.reached).nonzero().squeeze(1)
            if worst is None:
                worst = self._search(model, images, labels, targets, rows, epsilon, stream, batch_size, bar)
                current = worst.copy()
            else:
                current = worst.copy()
                if len(rows):
                    found = self._search(model, images, labels, targets, rows, epsilon, stream, batch_size, bar)
                    current.put(rows, found)
                    worst.put_better(rows, found)
                else:
                    bar.update(self._queries)
            probability, prediction = current.logits.softmax(1).max(1)
            length = self._norm.length(current.images - images)
            restarts.append((current.value, prediction, probability, length))
        assert worst is not None
        value, prediction, probability, length = (torch.stack(field) for field in zip(*restarts, strict=True))
        return Attacked(worst.images, worst.value, value, prediction, probability, length)

    def _search(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        rows: Tensor,
        epsilon: float,
        generator: torch.Generator,
        batch_size: int,
        bar: tqdm[NoReturn],
    ) -> Points:
        """Run one search for the examples `rows`, and return the best points found.

        The loop over queries is outside, that over batches inside: each query draws a few numbers for all examples,
        whichever are still searching, so what one example gets depends neither on the batches nor on when others end,
        and no random numbers have to be kept. It also packs the examples that are left into full batches.
        """

        def ask(propose: Proposal, part: Tensor, now: Tensor) -> Points:
            x, y = images[part], labels[part]
            z = self._norm.confinement(x, epsilon, self.bounds)(propose(part, x, now))
            return self._evaluate(model, z, y, None if targets is None else targets[part])

        propose = self._draw(0, images, epsilon, generator)
        best = Points.joined([ask(propose, part, images[part]) for part in torch.split(rows, batch_size)])
        bar.update()
        going = torch.arange(len(rows), device=rows.device)
        for query in range(1, self._queries):
            if self.stop_when_reached:
                going = going[~best.reached[going]]
            if not len(going):
                bar.update(self._queries - query)
                break
            propose = self._draw(query, images, epsilon, generator)
            for part in torch.split(going, batch_size):
                now = best.at(part)
                new = ask(propose, rows[part], now.images)
                better = new.better_than(now).nonzero().squeeze(1)
                best.put(part[better], new.at(better))
            bar.update()
        return best

    def _evaluate(self, model: Model, z: Tensor, y: Tensor, targets: Tensor | None) -> Points:
        """Return what the model makes of points."""
        logits = model(z)
        if logits.dtype in (torch.bfloat16, torch.float16):
            logits = logits.float()
        reached = self._objective.reached(logits, y, targets)
        value = self._objective(logits, y, targets)
        return Points(z, logits, value, torch.zeros_like(y, dtype=torch.bool) if reached is None else reached)

    @property
    def _norm(self) -> Norm:
        assert isinstance(self.norm, Norm)
        return self.norm

    @property
    def _objective(self) -> Objective:
        assert isinstance(self.objective, Objective)
        return self.objective


@dataclass(frozen=True)
class UniformNoise(RandomSearch):
    """Perturbations uniform in the ball: the best of some draws, for each example.

    The baseline of every attack, for any norm. What leaves the box is clipped to it.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = UniformNoise("l2", "wrong_confidence", draws=20)
    >>> attacked = attack(model, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 1, 5]))
    """

    _: KW_ONLY
    draws: int = 1
    """Perturbations per restart, >= 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "draws", checked_count("draws", self.draws, 1))

    @property
    def _queries(self) -> int:
        return self.draws

    def _draw(self, query: int, images: Tensor, epsilon: float, generator: torch.Generator) -> Proposal:
        del query
        delta = self._norm.uniform(images, epsilon, generator)
        return lambda rows, x, now: x + delta[rows]  # noqa: ARG005


def _spawned(generator: torch.Generator) -> torch.Generator:
    """Return a generator of its own stream, seeded by one number from another."""
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    return torch.Generator(generator.device).manual_seed(int(seed))
