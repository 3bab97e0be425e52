"""Examples under attack: how an attack asks the model, and where its random numbers come from."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from deepcheck.attacks.calls import HALVES, Model, decided, logits_of
from deepcheck.attacks.draws import Draws, mixed
from deepcheck.attacks.norms import rounded
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.points import Points

if TYPE_CHECKING:
    from tqdm import tqdm

__all__ = ["Asked", "Examples"]

_NEVER = 2**62


class Asked:
    """How often the model was asked for each of n examples, and how often until the goal was reached first.

    Parameters
    ----------
    labels
        Of the n examples, for their number and device.
    """

    def __init__(self, labels: Tensor) -> None:
        self._count = torch.zeros_like(labels)
        self._first = torch.full_like(labels, _NEVER)

    def add(self, place: Tensor) -> None:
        """Count one evaluation for each example in `place`, which may name one more than once."""
        self._count.index_add_(0, place, torch.ones_like(place))

    def note(self, place: Tensor, reached: Tensor | None) -> None:
        """Note which of these examples have reached the goal, in the evaluation that was counted last."""
        if reached is not None:
            now = torch.where(reached, self._count[place], _NEVER)
            self._first.scatter_reduce_(0, place, now, "amin")

    def taken(self, *, until_reached: bool) -> Tensor:
        """Return the evaluations by example, shape (n,), and begin anew; of examples that reached the goal those until then."""
        count = torch.minimum(self._count, self._first) if until_reached else self._count.clone()
        self._count.zero_()
        self._first.fill_(_NEVER)
        return count


@dataclass(frozen=True, eq=False, repr=False)
class Examples:
    """Examples under attack, and what an attack needs to know about them."""

    model: Model
    images: Tensor
    """Shape (n, ...), in the precision of the search, which is single at least."""
    labels: Tensor
    targets: Tensor | None
    """Classes to reach, shape (n,), or (n, m) for one restart after the other; or log-probabilities to compare with, shape
    (n, K); None for objectives without either."""
    key: Tensor
    """Keys of the examples' random numbers, shape (n,), int64."""
    dtype: torch.dtype
    """Precision of the images that the model is given."""
    batch_size: int
    bar: tqdm[Any] | None
    undecided: list[Tensor] = field(default_factory=list)
    """Numbers of points, shape (), at which the model had no finite logits; shared by all parts of the examples."""
    asked: Asked | None = None
    """Where evaluations of the model are counted, shared by all parts of the examples; None: they are not."""
    place: Tensor | None = None
    """Of a part, the places of its examples among all, shape (n,); None: they are all."""
    turn: int = 0
    """How many restarts with the same targets came before."""
    least: Tensor | None = None
    """For minimal attacks: the least distance that restarts before found, shape (n,), infinite where none did."""

    @staticmethod
    def of(
        model: Model,
        images: Tensor,
        labels: Tensor,
        targets: Tensor | None,
        key: Tensor,
        batch_size: int,
        bar: tqdm[Any] | None = None,
    ) -> Examples:
        """Return examples; images in half precision are searched around in single precision."""
        wide = images.float() if images.dtype in HALVES else images
        return Examples(model, wide, labels, targets, key, images.dtype, batch_size, bar)

    def __len__(self) -> int:
        return len(self.images)

    def at(self, rows: Tensor | slice) -> Examples:
        """Return some of the examples."""
        targets = None if self.targets is None else self.targets[rows]
        place = None if self.asked is None else self._place()[rows]
        least = None if self.least is None else self.least[rows]
        images, labels, key = self.images[rows], self.labels[rows], self.key[rows]
        return replace(self, images=images, labels=labels, targets=targets, key=key, place=place, least=least)

    def batches(self) -> list[Examples]:
        """Return the examples in batches of at most `batch_size`; they share memory with these."""
        if len(self) <= self.batch_size:
            return [self]
        return [self.at(slice(start, start + self.batch_size)) for start in range(0, len(self), self.batch_size)]

    def stream(self, number: int) -> Examples:
        """Return the examples with other random numbers: their `number`-th stream, 0, 1, ..., such as a restart's.

        Of several targets it is the turn of the `number`-th, and after the last of the first again.
        """
        targets, turn = self.targets, number
        if targets is not None and targets.ndim == 2 and not targets.is_floating_point():
            turn, which = divmod(number, targets.shape[1])
            targets = targets[:, which]
        return replace(self, key=mixed(self.key, number), targets=targets, turn=turn)

    def draws(self, number: int = 0) -> Draws:
        """Return the examples' random numbers; with another `number`, such as a query's, others."""
        return Draws(mixed(self.key, number))

    def rounded(self, z: Tensor) -> Tensor:
        """Return points in the precision of the original images, rounded towards these: what leaves the attack."""
        return z if z.dtype is self.dtype else rounded(z, self.images, self.dtype)

    def logits(self, z: Tensor) -> Tensor:
        """Return the model's logits of points, shape (n, K), in single precision at least.

        The model gets a copy, which it may overwrite, in the precision of the original images.
        """
        if self.asked is not None:
            self.asked.add(self._place())
        return logits_of(self.model, self.rounded(z))

    def points(self, z: Tensor, objective: Objective, *, trial: bool = False) -> Points:
        """Return what the model makes of points, without a gradient.

        Where it has no finite logits, the goal is not reached, and the objective is minus infinity. Points on `trial`, such
        as those of a difference, which the attack will not return, do not end the count of evaluations.
        """
        logits = self.logits(z)
        some = decided(logits.detach())
        self.undecided.append((~some).sum())
        value = objective(logits, self.labels, self.targets)
        value = torch.where(some & ~value.detach().isnan(), value, -torch.inf)
        reached = objective.reached(logits, self.labels, self.targets)
        reached = None if reached is None else reached & some
        if self.asked is not None and not trial:
            self.asked.note(self._place(), reached)
        return Points(z, logits, value, reached)

    def settled(self, found: Points, objective: Objective) -> Points:
        """Return the points that were found, and where the model has no finite logits, the images themselves.

        Raises
        ------
        ValueError
            If it has none there either.
        """
        rows = (~decided(found.logits)).nonzero().squeeze(1)
        if not len(rows):
            return found
        found, some = found.copy(), self.at(rows)
        clean = Points.joined([batch.points(batch.images.clone(), objective) for batch in some.batches()])
        clean.size = None if found.size is None else torch.zeros_like(found.size[rows])
        if not bool(decided(clean.logits).all()):
            count = int((~decided(clean.logits)).sum())
            raise ValueError(
                f"model returned logits that are not finite for {count} of the images as they are, without an attack: "
                "allowed are numbers, and -inf for some classes"
            )
        found.put(rows, clean)
        return found

    def tick(self) -> None:
        """Move the progress bar."""
        if self.bar is not None:
            self.bar.update()

    def _place(self) -> Tensor:
        return torch.arange(len(self), device=self.labels.device) if self.place is None else self.place
