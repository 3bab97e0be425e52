"""Points of the search, what a model makes of them, and the worst case of several restarts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from deepcheck.attacks.measures import Measure
from deepcheck.attacks.norms import Norm, per_example, rounded

__all__ = ["Attacked", "Nearest", "Points", "Restarts", "looks"]

_EVERY = 5


def looks(step: int) -> bool:
    """Return whether an attack looks after this step, 1, 2, ..., which examples are finished: 1, 3, 6, 10, 15, 20, ...

    Each look waits until the GPU has done all that it was asked for. What is found does not depend on it: an example that
    is finished stays as it is, whether it is dropped at once or takes part a little longer. Most finish at first.
    """
    return step % _EVERY == 0 if step >= 2 * _EVERY else step in (1, 3, 6)


@dataclass(frozen=True, eq=False, repr=False)
class Attacked:
    """What an attack found, for n examples.

    With a list of E epsilons every field has a first axis of length E; with one number it has not.
    """

    images: Tensor
    """The attacked images, shape (n, ...); of all restarts the one that is worst for the model on this example."""
    objective: Tensor
    """The objective there, shape (n,)."""
    restart_objective: Tensor
    """The objective at the end of every restart, shape (restarts, n)."""
    prediction: Tensor
    """The predicted class at the end of every restart, shape (restarts, n)."""
    confidence: Tensor
    """The probability of that class, shape (restarts, n)."""
    length: Tensor
    """Norm of the perturbation, shape (restarts, n), in the attack's norm, or size of the transformation. Of a minimal attack it is the distance that was
    found, infinite where none was; `length.amin(0)` is then that of `images`."""
    queries: Tensor
    """Evaluations of the model in every restart, shape (restarts, n), int64: until the example reached the goal, where the
    attack drops it then, else all. A gradient is one evaluation; 0 for a restart that was not needed. The looks before an
    attack, at what the model returns and at the likeliest classes as targets, are not among them."""

    def __repr__(self) -> str:
        return f"Attacked({self.prediction.shape[-1]} images, {self.prediction.shape[-2]} restarts)"

    @staticmethod
    def none(images: Tensor, restarts: int) -> Attacked:
        """Return what is found for no examples, of which `images` has the shape (0, ...)."""
        one, each = images.new_empty(0), images.new_empty((restarts, 0))
        return Attacked(images.clone(), one, each, each.long(), each.clone(), each.clone(), each.long())

    @staticmethod
    def stacked(results: Sequence[Attacked]) -> Attacked:
        """Return the results at several epsilons as one."""
        names = Attacked.__dataclass_fields__
        return Attacked(**{name: torch.stack([getattr(result, name) for result in results]) for name in names})

    @staticmethod
    def of_all(results: Sequence[Sequence[Attacked]], *, single_epsilon: bool, targets: Tensor | None) -> Attacked:
        """Return results by set of targets and by epsilon as one, without the axes that were not asked for."""
        by_target = [one[0] if single_epsilon else Attacked.stacked(one) for one in results]
        several = targets is not None and targets.ndim == 2
        return Attacked.stacked(by_target) if several else by_target[0]


@dataclass(eq=False)
class Points:
    """Points of the search, one per example, and what the model makes of them."""

    images: Tensor
    logits: Tensor
    value: Tensor
    """The objective."""
    reached: Tensor | None
    """Whether the goal is reached; None for objectives without one."""
    size: Tensor | None = None
    """Size of the transformation, shape (n,); None for what is measured by a norm."""

    @staticmethod
    def joined(parts: Sequence[Points]) -> Points:
        """Return the points of several batches as one."""
        return parts[0] if len(parts) == 1 else _each(lambda *columns: torch.cat(columns), *parts)

    def copy(self) -> Points:
        """Return a copy that shares no memory."""
        return _each(Tensor.clone, self)

    def unfinished(self, rows: Tensor | None = None) -> Tensor:
        """Return which of the examples `rows` (None: of all) have not reached the goal. It waits for the GPU."""
        assert self.reached is not None
        return (~(self.reached if rows is None else self.reached[rows])).nonzero().squeeze(1)

    def at(self, rows: Tensor) -> Points:
        """Return the points of some examples, as a copy."""
        return _each(lambda mine: mine[rows], self)

    def put(self, rows: Tensor, other: Points) -> None:
        """Put points in the place of the examples `rows`."""
        _each(lambda mine, its: mine.index_put_((rows,), its), self, other)

    def put_where(self, chosen: Tensor, other: Points) -> None:
        """Put those points of another set in that are `chosen`, shape (n,)."""
        _each(lambda mine, its: torch.where(per_example(chosen, mine), its, mine, out=mine), self, other)

    def put_better(self, rows: Tensor | None, other: Points, *, final: bool = False) -> None:
        """Put the points of the examples `rows` (None: of all) in where they are better than what is here.

        With `final`, points here that reach the goal stay.
        """
        mine = self if rows is None else self.at(rows)
        better = other.better_than(mine)
        if final and mine.reached is not None:
            better &= ~mine.reached
        mine.put_where(better, other)
        if rows is not None:
            self.put(rows, mine)

    def better_than(self, other: Points) -> Tensor:
        """Return where these points are better: they reach the goal first, or have the larger objective."""
        larger = self.value > other.value
        if self.reached is None or other.reached is None:
            return larger
        return (self.reached & ~other.reached) | ((self.reached == other.reached) & larger)


def _each(function: Callable[..., Any], *points: Points) -> Points:
    """Return what a function makes of each field of some points; of what is None, None."""
    columns = ([getattr(one, name) for one in points] for name in Points.__dataclass_fields__)
    return Points(*(None if column[0] is None else function(*column) for column in columns))  # type: ignore[arg-type]


class Restarts:
    """The restarts of an attack, one after the other, and the worst of them for each example.

    Parameters
    ----------
    norm
        Of the perturbations, or what else measures them: then the points have their sizes.
    images
        The original images, shape (n, ...), in the precision of the search.
    dtype
        Precision of the attacked images.
    """

    def __init__(self, norm: Measure, images: Tensor, dtype: torch.dtype) -> None:
        self.worst: Points | None = None
        self._norm = norm
        self._images = images
        self._dtype = dtype
        self._rows: list[tuple[Tensor, Tensor, Tensor, Tensor, Tensor]] = []

    def left(self) -> Tensor | None:
        """Return the rows of the examples that have not reached the goal; None for all."""
        if self.worst is None or self.worst.reached is None:
            return None
        return self.worst.unfinished()

    def add(self, rows: Tensor | None, found: Points | None, queries: Tensor) -> None:
        """Add what a restart found for the examples `rows` (None: for all); the others repeat what was found before.

        `queries` are the evaluations of the model that it took, shape (n,).
        """
        if self.worst is None:
            assert rows is None
            assert found is not None
            current, self.worst = found, found.copy()
        elif found is None:
            current = self.worst
        elif rows is None:
            current = found
            self.worst.put_where(self._better(found, self.worst, None), found)
        else:
            current = self.worst.copy()
            current.put(rows, found)
            worst = self.worst.at(rows)
            worst.put_where(self._better(found, worst, rows), found)
            self.worst.put(rows, worst)
        probability, prediction = current.logits.softmax(1).max(1)
        self._rows.append((current.value, prediction, probability, self._length(current, None), queries))

    def result(self) -> Attacked:
        """Return what all restarts found."""
        assert self.worst is not None
        each = (torch.stack(field) for field in zip(*self._rows, strict=True))
        return Attacked(self._rounded(self.worst, self._images), self.worst.value, *each)

    def _better(self, found: Points, worst: Points, rows: Tensor | None) -> Tensor:
        """Return where a new restart is worse for the model, shape (n,)."""
        del rows
        return found.better_than(worst)

    def _length(self, points: Points, rows: Tensor | None) -> Tensor:
        """Return the length of the perturbations of some examples (None: of all) as they leave the attack, rounded."""
        if not isinstance(self._norm, Norm):
            assert points.size is not None
            return points.size
        images = self._images if rows is None else self._images[rows]
        return self._norm.length(self._rounded(points, images).to(images.dtype) - images)

    def _rounded(self, points: Points, images: Tensor) -> Tensor:
        """Return the attacked images as they leave the attack: no farther from the originals than in the search."""
        z = points.images
        return z if z.dtype is self._dtype else rounded(z, images, self._dtype)


class Nearest(Restarts):
    """The restarts of a minimal attack: what reaches the goal nearest to the image is the worst."""

    def least(self) -> Tensor:
        """Return the least distance that was found, shape (n,), infinite where none was."""
        assert self.worst is not None
        return self._length(self.worst, None)

    def _better(self, found: Points, worst: Points, rows: Tensor | None) -> Tensor:
        mine, least = self._length(found, rows), self._length(worst, rows)
        return (mine < least) | (least.isinf() & mine.isinf() & found.better_than(worst))

    def _length(self, points: Points, rows: Tensor | None) -> Tensor:
        length = super()._length(points, rows)
        return length if points.reached is None else length.masked_fill(~points.reached, torch.inf)
