"""What attacks share that are prepared first: on images that they are not run on, or with a net that they are not run on."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from deepcheck.attacks.base import Attack, Attacked, CheckedAttack, Examples, Model, checked_epsilons
from deepcheck.attacks.draws import mixed
from odeflow.model import checked_count

__all__ = ["PreparedAttack", "drawing"]

Ready_co = TypeVar("Ready_co", bound=Attack, covariant=True)
"""The attack that comes out."""


@dataclass(frozen=True)
class PreparedAttack(CheckedAttack, Generic[Ready_co]):
    """An attack that is prepared: a frozen configuration, of which `prepare` makes an attack within a budget.

    What it is prepared on is for training alone. The attack that comes out is run, and recorded, on images that are held
    out, as any other.
    """

    _: KW_ONLY
    prepare_on: int = 1000
    """Images that it is prepared on where a data set is given, >= 1: the first of the training set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "prepare_on", checked_count("prepare_on", self.prepare_on, 1))
        if self._objective.targeted:
            name = type(self).__name__
            raise ValueError(f"objective = {self.objective!r} is not allowed for {name}: one without targets is")

    def prepare(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        batch_size: int = 500,
        progress: bool = False,
    ) -> Ready_co:
        """Prepare the attack on all of these images, against a model.

        Parameters
        ----------
        model
            A function from images to logits, shape (n, K): the one that will be attacked.
        images, labels
            As an attack takes them, see `deepcheck.attacks.base.BudgetAttack`; not those that it will be run on.
        epsilon
            The size, >= 0, or sizes that the attack is prepared for.
        generator
            Source of the seed. It advances by one number.
        batch_size
            Images that the model sees at once. What is prepared depends on it by rounding alone.
        progress
            Show a progress bar on a terminal.

        Returns
        -------
        Attack
            An attack within a budget.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed, or there are no images.
        """
        epsilons, _ = checked_epsilons(epsilon)
        given: object = images
        if isinstance(given, Tensor) and given.numel() == 0:
            raise ValueError("images are none: allowed is one image or more to prepare the attack on")
        with self._examples(
            model,
            images,
            labels,
            generator=generator,
            targets=None,
            indices=None,
            batch_size=batch_size,
            progress=progress,
            epsilons=len(epsilons),
        ) as (examples,):
            return self._prepared(replace(examples, asked=None), epsilons)

    def __call__(self, *_arguments: Any, **_options: Any) -> Attacked:
        """Raise TypeError: it is no attack yet. `prepare` returns one."""
        raise TypeError(f"attack = {self!r} is to be prepared first: allowed is what its prepare(...) returns")

    @abc.abstractmethod
    def _prepared(self, examples: Examples, epsilons: tuple[float, ...]) -> Ready_co:
        """Return the attack, prepared on the examples, of which there is one at least.

        It is called without gradients, which it may switch on.
        """


def drawing(examples: Examples, number: int = 0) -> torch.Generator:
    """Return a source of random numbers on the CPU for what is done with all examples together: the `number`-th."""
    return torch.Generator().manual_seed(int(mixed(examples.key[:1], number)) & (2**63 - 1))
