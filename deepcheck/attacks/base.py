"""What every attack takes and returns, and the call that all of them share.

An attack is a frozen configuration and a call with a model and examples. The call stands here once: checks of its input,
eval mode and frozen parameters, batches, epsilons, restarts and the worst of them for each example, random numbers by
example, a progress bar, and no change to the caller's tensors. What an attack adds is what it does with a batch:

- `BudgetAttack`, within a given epsilon: `_attack`, from a batch of examples to points in ball and box;
- `deepcheck.attacks.minimal.base.MinimalAttack`, which looks for the nearest adversarial example: `_nearest`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from deepcheck.attacks.calls import Model, evaluating, frozen, warn_of_undecided
from deepcheck.attacks.checks import (
    Bounds,
    checked_bounds,
    checked_classes,
    checked_epsilons,
    checked_images,
    checked_indices,
    checked_logits,
    checked_targets,
    warn_of_probabilities,
)
from deepcheck.attacks.draws import keys
from deepcheck.attacks.examples import Asked, Examples
from deepcheck.attacks.measures import Measure
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.objectives import objective as as_objective
from deepcheck.attacks.points import Attacked, Points, Restarts
from deepcheck.attacks.targets import TARGETS, Targets, chosen
from deepcheck.device import exact_float32
from odeflow.model import checked_count

__all__ = [
    "Attack",
    "Attacked",
    "Bounds",
    "BudgetAttack",
    "CheckedAttack",
    "Examples",
    "Model",
    "checked_bounds",
    "checked_classes",
    "checked_epsilons",
    "checked_images",
    "checked_logits",
    "evaluating",
    "frozen",
    "plain",
]


class Attack(Protocol):
    """An attack within a budget: a frozen configuration that is called with a model and examples."""

    @property
    def norm(self) -> object:
        """The norm that `epsilon` bounds."""

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        batch_size: int = ...,
    ) -> Attacked:
        """Attack the model on these examples."""


@dataclass(frozen=True)
class CheckedAttack(abc.ABC):
    """What every attack has: norm, objective, restarts and bounds, and the checks of a call."""

    norm: Measure | str = "linf"
    """The ball: a name out of `norms.NORMS` or a Norm; of transformations the attack's own measure."""
    objective: Objective | str = "margin"
    """What is maximised: a name out of `objectives.OBJECTIVES`, or an Objective."""
    _: KW_ONLY
    restarts: int = 1
    """Number of searches from the beginning, >= 1: the worst for the model counts, for each example."""
    bounds: Bounds = (0.0, 1.0)
    """Least and largest value of a pixel; infinite ones are allowed."""
    targets: Targets = "given"
    """For targeted objectives: classes given with the call; or the class that is least likely on the clean image; or the
    likeliest wrong class in the first restart, the next in the second, and so on, as APGD-T does."""

    _unit: ClassVar[str] = "batch"

    def __post_init__(self) -> None:
        object.__setattr__(self, "norm", self._checked_norm())
        object.__setattr__(self, "objective", as_objective(self.objective))
        object.__setattr__(self, "bounds", checked_bounds(self.bounds))
        object.__setattr__(self, "restarts", checked_count("restarts", self.restarts, 1))
        if self.targets not in TARGETS:
            raise ValueError(f"targets = {self.targets!r} is not allowed: given, least_likely or likeliest is")

    @property
    def _measure(self) -> Measure:
        assert isinstance(self.norm, Measure)
        return self.norm

    @property
    def _norm(self) -> Norm:
        assert isinstance(self.norm, Norm)
        return self.norm

    @property
    def _objective(self) -> Objective:
        assert isinstance(self.objective, Objective)
        return self.objective

    def _checked_norm(self) -> Measure:
        """Return what measures the perturbation, or raise ValueError or TypeError."""
        return as_norm(self.norm)

    def _check_shape(self, shape: tuple[int, ...]) -> None:  # noqa: B027
        """Raise ValueError if images of this shape cannot be attacked."""

    def _checked_targets(self, targets: object, labels: Tensor) -> Tensor | None:
        """Return the classes to reach as they are given, or raise ValueError."""
        if self.targets == "given":
            return checked_targets(targets, labels, self._objective.targeted)
        if not self._objective.targeted:
            raise ValueError(
                f"targets = {self.targets!r} is not allowed with objective = {self._objective.name}: the objective has no target; "
                "allowed is given"
            )
        if targets is not None:
            raise ValueError(f"targets are not allowed: the attack takes the {self.targets.replace('_', ' ')} class")
        return None

    def _aims(self, examples: Examples, targets: Tensor | None) -> list[Examples]:
        """Return the examples with the classes to reach, or what is compared with: once for each set of targets given."""
        if self.targets != "given" or self._objective.compares:
            uncounted = replace(examples, asked=None)
            logits = torch.cat([batch.logits(batch.images) for batch in uncounted.batches()])
            if self._objective.compares:
                return [replace(examples, targets=logits.log_softmax(1))]
            return [replace(examples, targets=chosen(self.targets, logits, examples.labels, self.restarts))]
        if targets is None or targets.ndim == 1:
            return [replace(examples, targets=targets)]
        return [replace(examples, targets=one) for one in targets]

    def _ticks(self, batches: int) -> int:
        """Return how often the progress bar moves in one restart over so many batches."""
        return batches

    @contextmanager
    def _examples(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        generator: torch.Generator,
        targets: Tensor | None,
        indices: Tensor | None,
        batch_size: int,
        progress: bool,
        epsilons: int = 1,
    ) -> Iterator[list[Examples]]:
        """Check the arguments of a call, and give the examples under attack, with the model as an attack needs it.

        There is one set of examples for each set of targets that is given, else one.
        """
        checked_images(images, labels, self.bounds)
        self._check_shape(tuple(images.shape))
        batch_size = checked_count("batch_size", batch_size, 1)
        indices = checked_indices(indices, images)
        targets = self._checked_targets(targets, labels)
        aims = len(targets) if targets is not None and targets.ndim == 2 else 1
        total = aims * epsilons * self.restarts * self._ticks(math.ceil(len(images) / batch_size))
        with (
            exact_float32(),
            torch.inference_mode(False),
            torch.no_grad(),
            evaluating(model),
            frozen(model),
            tqdm(total=total, desc=repr(self), unit=self._unit, disable=None if progress else True) as bar,
        ):
            x, y, t, i = (None if one is None else plain(one) for one in (images, labels, targets, indices))
            assert x is not None
            assert y is not None
            assert i is not None
            examples = Examples.of(model, x, y, None, keys(generator, i), batch_size, bar)
            if not len(x):
                yield [examples] * aims
                return
            logits = examples.at(slice(1)).logits(examples.images[:1])
            checked_logits(logits, 1, y)
            warn_of_probabilities(logits)
            if t is not None:
                checked_classes("targets", t.flatten(), logits.shape[1])
            yield self._aims(replace(examples, asked=Asked(y)), t)
            warn_of_undecided(int(torch.stack(examples.undecided).sum()) if examples.undecided else 0)

    @contextmanager
    def _restart_on_bar(self, examples: Examples) -> Iterator[None]:
        """Move the progress bar by one restart in the end, even if it took fewer steps."""
        bar = examples.bar
        assert bar is not None
        end = bar.n + self._ticks(len(examples.batches()))
        yield
        bar.update(end - bar.n)

    def _found(self, attack: Callable[[Examples], Points], examples: Examples) -> Points:
        """Return what an attack on batches finds, for all examples."""
        parts = []
        for batch in examples.batches():
            parts.append(attack(batch))
            examples.tick()
        return Points.joined(parts)


@dataclass(frozen=True)
class BudgetAttack(CheckedAttack):
    """An attack within a given budget: points in ball and box that are as bad as possible for the model.

    Of several restarts the worst for the model counts, for each example: one that reaches the goal of the objective (say,
    is misclassified) before one that does not, then the larger objective.
    """

    _: KW_ONLY
    stop_when_reached: bool = True
    """Drop an example once it reaches the goal of the objective (is misclassified, or classified as its target); its
    later restarts repeat what was found. Objectives of confidence have no such goal."""

    def __post_init__(self) -> None:
        super().__post_init__()
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
        indices: Tensor | None = None,
        batch_size: int = 500,
        progress: bool = False,
    ) -> Attacked:
        """Attack a model on some examples.

        Parameters
        ----------
        model
            A function from images to logits, shape (n, K). A module is put into eval mode, and back afterwards. It may
            overwrite what it is given.
        images
            Shape (n, ...), pixels in `bounds`, of a floating type. They are not changed; a graph that they are part of is
            left alone.
        labels
            True classes, shape (n,), int64, on the same device.
        epsilon
            Radius of the ball, >= 0, or several: then every field of the result has a first axis for them. Every epsilon
            gets the same random numbers: its result does not depend on the others.
        generator
            Source of the seed, on any device. It advances by one number. The same seed gives the same random numbers on
            every device, a generator on another device another seed.
        targets
            Classes to reach, shape (n,), for a targeted objective; or several for each example, shape (m, n), such as
            `deepcheck.attacks.targets.every_other_class` returns: then every field of the result has a first axis for them,
            before that of the epsilons.
        indices
            Numbers of the examples, >= 0, shape (n,), int64; default: 0, ..., n - 1. An example's random numbers depend
            on the seed and on its number alone, so that parts of a set that are attacked with the numbers that they have
            in the whole, and the same seed, give what the whole gives.
        batch_size
            Examples that the model sees at once. The result does not depend on it (but for the rounding of the model's
            own arithmetic, and on a GPU that of sums over the pixels).
        progress
            Show a progress bar on a terminal.

        Returns
        -------
        Attacked
            Approximate: a lower bound on the largest objective in the ball. Images are in ball and box in their own
            precision: they are rounded towards the originals.

        Warns
        -----
        NotFiniteWarning
            If the model has no finite logits at a point that was tried: such points are not kept, and count as not broken.
        ProbabilityWarning
            If the model seems to return probabilities in the place of logits.

        Raises
        ------
        ValueError, TypeError
            If an argument is not allowed, or the model returns no logits, shape (n, K); before any attack. If it has no
            finite ones for an image as it is: as soon as that is seen.
        """
        epsilons, single = checked_epsilons(epsilon)
        with self._examples(
            model,
            images,
            labels,
            generator=generator,
            targets=targets,
            indices=indices,
            batch_size=batch_size,
            progress=progress,
            epsilons=len(epsilons),
        ) as aims:
            results = [[self._worst(examples, value) for value in epsilons] for examples in aims]
        return Attacked.of_all(results, single_epsilon=single, targets=targets)

    @abc.abstractmethod
    def _attack(self, examples: Examples, epsilon: float) -> Points:
        """Attack one batch once: points in the ball of radius `epsilon` and in the box.

        It is called without gradients, which it may switch on, and never without examples.
        """

    def _search(self, examples: Examples, epsilon: float) -> Points:
        """Attack all examples once: batch after batch."""
        return self._found(lambda batch: self._attack(batch, epsilon), examples)

    def _worst(self, examples: Examples, epsilon: float) -> Attacked:
        """Attack all examples at one epsilon, with all restarts."""
        if not len(examples):
            return Attacked.none(examples.images.to(examples.dtype), self.restarts)
        found = Restarts(self._measure, examples.images, examples.dtype)
        for restart in range(self.restarts):
            rows = found.left() if self.stop_when_reached else None
            some = (examples if rows is None else examples.at(rows)).stream(restart)
            with self._restart_on_bar(examples):
                points = some.settled(self._search(some, epsilon), self._objective) if len(some) else None
            assert examples.asked is not None
            found.add(rows, points, examples.asked.taken(until_reached=self.stop_when_reached))
        return found.result()


def plain(tensor: Tensor) -> Tensor:
    """Return a tensor that autograd can work with: without its graph, and not one of inference mode."""
    tensor = tensor.detach()
    return tensor.clone() if tensor.is_inference() else tensor
