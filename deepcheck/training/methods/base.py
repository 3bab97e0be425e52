"""What every training method is."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from deepcheck.checks import checked_choice
from odeflow.model import checked_count, checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from deepcheck.attacks.base import Model
    from deepcheck.models import Network

__all__ = ["AttackingMethod", "Method", "Name", "RecordableMethod"]

Name = Annotated[str, tyro.conf.Suppress]
"""A name that is fixed: a field, so that `dataclasses.asdict` has it, but no flag."""


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """A training method: its settings, and how they become a loss whose gradient is followed.

    A new one is a frozen dataclass in a file of its own. The first line of its docstring says what it is and gives its
    source. Its fields have defaults, a docstring each (the help of the command's flag) and names that no recipe has; their
    ranges are checked in ``__post_init__``. Only `loss` must be written. The others are for methods that train more than
    one network, or remember something:

    =============  ==========================================================================================
    `network`      which network is trained: the one of the recipe, or several in one
    `start`        what the method remembers: tensors and networks that are saved with every checkpoint
    `loss`         from a batch to the loss
    `after_step`   what is done after every step of the optimiser, when gradients are still there
    `replays`      how many steps are taken on each batch
    `stages`       how many trainings follow each other
    `next_stage`   what is done between two of them
    =============  ==========================================================================================

    Of a method's fields `norm` and `epsilon` say against which perturbations it trains; see `Recipe.threat`.
    """

    name: Name = field(init=False, default="", repr=False)
    """Name of the method in `METHODS`: of recipes, in files and on the command line."""
    recipes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """By data set, what its recipe has beside what every recipe for this data set has (`deepcheck.training.recipe.DEFAULTS`):
    fields of the recipe, and of the method."""

    @classmethod
    def settings(cls) -> tuple[str, ...]:
        """Return the names of the fields that can be set."""
        return tuple(one.name for one in fields(cls) if one.init)

    def network(self, build: Callable[..., Network]) -> Network:
        """Return the network to train.

        Parameters
        ----------
        build
            Returns the network of the recipe with new random weights, another one at each call; keyword arguments
            are further options of `deepcheck.models.build`.
        """
        return build()

    def start(self, network: Network, *, batch_size: int, generator: torch.Generator) -> nn.Module | None:
        """Return what the method remembers from step to step, or None.

        Buffers, parameters and modules of it are saved with every checkpoint and are there again when a training is
        resumed. The optimiser leaves them alone.

        Parameters
        ----------
        network
            The network before the first step.
        batch_size
            Examples in every batch of this process.
        generator
            Source of all random numbers.
        """
        del network, batch_size, generator
        return None

    @abc.abstractmethod
    def loss(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        progress: float,
        generator: torch.Generator,
        state: Any,
    ) -> Tensor:
        """Return the loss of one batch, a scalar.

        Parameters
        ----------
        model
            The network, compiled or not, in train mode, with all that `network` returned has (`features`, say). In
            this mode it is called once, on whatever it is to learn from; otherwise in eval mode, in which it is not
            left.
        images, labels
            Shape (n, C, H, W) in [0, 1], and (n,). They are not changed.
        progress
            Share of the training that is over, in [0, 1).
        generator
            Source of all random numbers.
        state
            What `start` returned, None where that is nothing.
        """

    def after_step(self, *, network: Network, progress: float, state: Any) -> None:
        """Bring the state up to date after a step of the optimiser.

        The network has its new weights. The gradients of the loss are still there: by the weights, and by tensors of
        the state that asked for one. `progress` and `state` are those of the loss.
        """
        del network, progress, state

    def replays(self) -> int:
        """Return the number of steps on each batch, >= 1: all see the same images, each with a loss of its own."""
        return 1

    def stages(self) -> int:
        """Return the number of trainings that follow each other, >= 1.

        Each has the same share of the epochs, and the learning rate over the whole schedule, momenta and an average of its
        own. The result is that of the last one.
        """
        return 1

    def next_stage(self, *, network: Network, state: Any) -> None:
        """Make the network and the state ready for the next stage, in place, before the first step of it."""
        del network, state


@dataclass(frozen=True, kw_only=True)
class RecordableMethod(Method):
    """A method whose loss a CUDA graph can record: what changes from step to step is drawn before, and goes in.

    It is written as two functions in the place of `loss`, which is one after the other, and it remembers nothing.
    """

    @abc.abstractmethod
    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Any, ...]:
        """Return what the loss of a batch depends on beside the batch: tensors on its device, or what can be hashed.

        For everything else than tensors that changes there is another recording: a number of steps may change now and then,
        but not every time.
        """

    @abc.abstractmethod
    def loss_of(self, model: Model, images: Tensor, labels: Tensor, *drawn: Any) -> Tensor:
        """Return the loss of one batch, a scalar, for what was drawn. It must not look at values: see `Captured`."""

    def loss(
        self, model: Model, images: Tensor, labels: Tensor, *, progress: float, generator: torch.Generator, **_: Any
    ) -> Tensor:
        """Return the loss of one batch, a scalar."""
        return self.loss_of(model, images, labels, *self.drawn(images, progress=progress, generator=generator))


@dataclass(frozen=True, kw_only=True)
class AttackingMethod(Method):
    """A method that attacks images with projected gradient ascent: what all of these have."""

    norm: Literal["linf", "l2"] = "linf"
    """Norm of the training attack."""
    epsilon: float = 0.3
    """Radius of the training attack, >= 0."""
    attack_steps: int = 10
    """Steps of the training attack, >= 1."""
    step_size: float = 0.06
    """Step of the training attack, > 0."""
    first_steps: int | None = None
    """Steps of the attack at the beginning, >= 1; from these they grow linearly to attack_steps, if that is more. None:
    attack_steps from the beginning."""
    growth: float = 0.5
    """Share of the training over which the steps grow, in [0, 1]."""

    def __post_init__(self) -> None:
        checked_choice("norm", self.norm, ("linf", "l2"))
        checked_number("epsilon", self.epsilon, least=0)
        checked_count("attack_steps", self.attack_steps, 1)
        checked_number("step_size", self.step_size, above=0)
        if self.first_steps is not None:
            checked_count("first_steps", self.first_steps, 1)
        checked_number("growth", self.growth, least=0, most=1)

    def steps_at(self, progress: float) -> int:
        """Return the steps of the attack at this progress of the training, in [0, 1)."""
        first = self.attack_steps if self.first_steps is None else min(self.first_steps, self.attack_steps)
        share = min(progress / self.growth, 1.0) if self.growth else 1.0
        return round(first + share * (self.attack_steps - first))
