"""Random search: the call that attacks share which propose points and keep what is better."""

from __future__ import annotations

import abc
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from deepcheck.attacks.base import BudgetAttack, Examples
from deepcheck.attacks.draws import Draws
from deepcheck.attacks.points import Points, looks

__all__ = ["RandomSearch"]


@dataclass(frozen=True)
class RandomSearch(BudgetAttack):
    """Random search for the largest objective: a proposal becomes the current point where it is better.

    Only outputs of the model are used, never a gradient. Proposals are compared as restarts are: one that reaches the
    goal of the objective before one that does not, then the larger objective.
    """

    _unit: ClassVar[str] = "query"

    @property
    @abc.abstractmethod
    def _queries(self) -> int:
        """Number of proposals per restart."""

    @abc.abstractmethod
    def _propose(self, query: int, x: Tensor, now: Tensor, epsilon: float, draws: Draws) -> Tensor:
        """Return new points for images x, shape (m, ...), from the best so far, `now`, which are x for query 0, 1, ...

        The search confines them to ball and box. `now` is not to be changed.
        """

    def _ticks(self, batches: int) -> int:
        return self._queries if batches else 0

    def _attack(self, examples: Examples, epsilon: float) -> Points:
        return self._search(examples, epsilon)

    def _search(self, examples: Examples, epsilon: float) -> Points:
        """Run one search for all examples.

        The loop over queries is outside, that over batches inside: so the examples that are left are packed into full
        batches.
        """
        best = Points.joined([self._ask(0, batch, batch.images, epsilon) for batch in examples.batches()])
        examples.tick()
        going = torch.arange(len(examples), device=best.images.device)
        stops = self.stop_when_reached and best.reached is not None
        for query in range(1, self._queries):
            if stops and looks(query):
                going = best.unfinished()
                if not len(going):
                    break
            if len(going) == len(examples) <= examples.batch_size:
                best.put_better(None, self._ask(query, examples, best.images, epsilon), final=stops)
            else:
                for rows in torch.split(going, examples.batch_size):
                    now = best.at(rows)
                    now.put_better(None, self._ask(query, examples.at(rows), now.images, epsilon), final=stops)
                    best.put(rows, now)
            examples.tick()
        return best

    def _ask(self, query: int, examples: Examples, now: Tensor, epsilon: float) -> Points:
        """Return what the model makes of the proposals of one query."""
        x = examples.images
        z = self._propose(query, x, now, epsilon, examples.draws(query))
        return examples.points(self._norm.confinement(x, epsilon, self.bounds)(z), self._objective)
