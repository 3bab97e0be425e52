"""What every training method is."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from deepcheck.checks import checked_choice
from odeflow.model import checked_count, checked_number

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from deepcheck.attacks.base import Model
    from deepcheck.attacks.pgd import PGD
    from deepcheck.models import Network

__all__ = ["AttackingMethod", "Method", "Name", "RampedMethod", "RecordableMethod"]

Name = Annotated[str, tyro.conf.Suppress]
"""A name that is fixed: a field, so that `dataclasses.asdict` has it, but no flag."""


@dataclass(frozen=True, kw_only=True)
class Method(abc.ABC):
    """A training method: its settings, and how they become a loss whose gradient is followed.

    A new one is a frozen dataclass in a file of its own. The first line of its docstring says what it is and gives its
    source. Its fields have defaults, a docstring each (the help of the command's flag) and names that no recipe has; their
    ranges are checked in ``__post_init__``. Only `loss` must be written. The others are for methods that train more than
    one network, remember something, or look at what they have learnt:

    =============  ==========================================================================================
    `network`      which network is trained: the one of the recipe, or several in one
    `start`        what the method remembers: tensors and networks that are saved with every checkpoint
    `loss`         from a batch to the loss
    `after_step`   what is done after every step of the optimiser, when gradients are still there
    `replays`      how many steps are taken on each batch
    `after_epoch`  what the history says of an epoch, beside loss and accuracies
    `ends`         whether the training is over before its last epoch
    `keeps_best`   whether the result is the best network, and not the last
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

    def after_epoch(
        self, *, network: Network, images: Tensor, labels: Tensor, progress: float, generator: torch.Generator
    ) -> dict[str, float]:
        """Return what the history says of an epoch beside the loss and the accuracies, by name: here nothing.

        Parameters
        ----------
        network
            The one that would be the result, in eval mode: it is not to be changed.
        images, labels
            Those kept apart, shape (n, C, H, W) in [0, 1], and (n,).
        progress
            Share of the training that is over, in (0, 1].
        generator
            Source of all random numbers, the same after every epoch: those of the training do not depend on it.
        """
        del network, images, labels, progress, generator
        return {}

    def ends(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Return whether a training with this history, one epoch or more, is over before its last epoch: here never."""
        del history
        return False

    @property
    def keeps_best(self) -> bool:
        """Whether the result is the network of the epoch with the best robust accuracy on the images kept apart."""
        return False

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


@dataclass(frozen=True, kw_only=True)
class RampedMethod(AttackingMethod, RecordableMethod):
    """A method that attacks images in a ball whose radius may grow: by PGD in eval mode, whose last iterate counts.

    A new one writes `loss_of`, for what `drawn` returns: keys, the attack and its radius, which `attacked` takes. Another
    attack than that on the cross-entropy is another `attack`.
    """

    ramp: float = 0.0
    """Share of the training over which the radius grows linearly from 0 to epsilon, in [0, 1]. A small convolutional
    net that meets epsilon = 0.3 on MNIST at once may never leave the uniform prediction."""
    epsilon_schedule: tuple[float, ...] = ()
    """Radius over the training in the place of the ramp: two values or more, each >= 0, at equal distances from the beginning
    to the end, and linear in between. It may be above `epsilon`, which stays the radius that the net is to withstand. The
    length of a step does not change with it. Empty: that of `ramp`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("ramp", self.ramp, least=0, most=1)
        radii = tuple(checked_number("epsilon_schedule", one, least=0) for one in self.epsilon_schedule)
        if len(radii) == 1:
            raise ValueError(f"epsilon_schedule = {radii} is not allowed: two values or more are, or none")
        object.__setattr__(self, "epsilon_schedule", radii)

    @cached_property
    def attack(self) -> PGD:
        """The attack, with all its steps."""
        from deepcheck.attacks.pgd import PGD

        return PGD(self.norm, steps=self.attack_steps, step_size=self.step_size, keep="last", stop_when_reached=False)

    def attack_at(self, progress: float) -> PGD:
        """Return the attack at this progress of the training, in [0, 1).

        Steps so few that they would not lead from the image to the edge of the ball are epsilon / steps long: one is the
        fast gradient method from a random start (Wong, Rice and Kolter, ICLR 2020).
        """
        steps = self.steps_at(progress)
        if steps == self.attack_steps:
            return self.attack
        size = max(self.step_size, self.epsilon_at(progress) / steps)
        return replace(self.attack, steps=steps, step_size=size)

    def epsilon_at(self, progress: float) -> float:
        """Return the radius of the attack at this progress of the training, in [0, 1)."""
        if self.epsilon_schedule:
            place = progress * (len(self.epsilon_schedule) - 1)
            before = min(int(place), len(self.epsilon_schedule) - 2)
            low, high = self.epsilon_schedule[before : before + 2]
            return low + (place - before) * (high - low)
        return self.epsilon * (min(progress / self.ramp, 1.0) if self.ramp else 1.0)

    def drawn(self, images: Tensor, *, progress: float, generator: torch.Generator) -> tuple[Any, ...]:
        """Return keys of random numbers for the images, the attack, and its radius."""
        import torch

        from deepcheck.attacks.draws import keys

        all_of_them = torch.arange(len(images), device=images.device)
        return keys(generator, all_of_them), self.attack_at(progress), self.epsilon_at(progress)

    def attacked(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        key: Tensor,
        attack: PGD,
        epsilon: float,
        reference: Tensor | None = None,
        *,
        factors: Tensor | None = None,
    ) -> Tensor:
        """Return the attacked images, without a graph; the model is attacked in eval mode, with its weights frozen.

        `reference` is what the attack's objective needs beside labels, shape (n, ...): see `Objective`. `factors` are those of
        the radius and the step of each example, shape (n,).
        """
        from deepcheck.attacks.base import evaluating, frozen

        with evaluating(model), frozen(model):
            return attack.perturb_with(model, images, labels, epsilon, key, reference, factors=factors)
