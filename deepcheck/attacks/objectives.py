"""What an attack maximises: functions of logits and labels, per example.

The functions of probabilities are given as logarithms: the same ascent direction and order, and no underflow.
Targeted forms take the class to reach where the others take the true class.
"""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck.checks import checked_choice
from odeflow.model import checked_number

__all__ = [
    "DLR",
    "OBJECTIVES",
    "AnyConfidence",
    "CrossEntropy",
    "Divergence",
    "Margin",
    "Objective",
    "Targeted",
    "TargetedCrossEntropy",
    "TargetedDLR",
    "TargetedMargin",
    "TargetedOdds",
    "WrongConfidence",
    "WrongOdds",
    "objective",
]


FewClasses = Literal["error", "difference"]
Goal = Literal["target", "wrong", "never"]


class Objective(abc.ABC):
    """A function to maximise, and when an example is finished."""

    name: ClassVar[str]
    targeted: ClassVar[bool] = False
    """Whether it needs the class to reach."""
    compares: ClassVar[bool] = False
    """Whether it needs log-probabilities to compare with, shape (n, K), in the place of classes to reach. In an attack they
    are those of the images as they are."""
    seeks: ClassVar[Literal["class", "confidence"]] = "class"
    """What its goal is: that an image is of a class, or has so much confidence in it. Attacks that walk to the linearised
    boundary between classes reach the first alone."""

    @abc.abstractmethod
    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return the objective, shape (n,), of logits of shape (n, K), labels and, where targeted, targets (n,)."""

    def reached(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return which examples are finished, shape (n,): here the misclassified ones. None: it can always be more."""
        del targets
        return logits.argmax(1) != labels


@dataclass(frozen=True)
class Targeted(Objective):
    """What maximises a class to reach."""

    goal: Goal = "target"
    """When an example is finished: once it is classified as its target, or as any wrong class, or never. An attack that aims
    at one class after the other, to be misclassified, wants the second; one for confidence in the target the third."""

    targeted = True

    def __post_init__(self) -> None:
        checked_choice("goal", self.goal, ("target", "wrong", "never"))

    def reached(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return which examples are finished, shape (n,); None: there is always more to gain."""
        if self.goal == "never":
            return None
        prediction = logits.argmax(1)
        return prediction == _given(targets) if self.goal == "target" else prediction != labels


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross-entropy of the true class, -log p_y.

    It is log(1 + exp(m)) with m the log of the odds against y, log(sum over k != y of exp(z_k)) - z_y, and computed so:
    -log p_y itself, and 1 - p_y in its gradient, have no digits left in single precision where p_y is near 1.
    """

    name = "cross_entropy"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return -log p_y."""
        del targets
        odds = _others(logits, labels).logsumexp(1) - _at(logits, labels)
        return -F.logsigmoid(-odds)  # softplus rounds by the place of an example in its batch


@dataclass(frozen=True)
class Margin(Objective):
    """Margin of Carlini and Wagner (2017): max over k != y of z_k, less z_y. Positive where misclassified."""

    name = "margin"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return max over k != y of z_k, less z_y."""
        del targets
        return _largest_other(logits, labels) - _at(logits, labels)


@dataclass(frozen=True)
class WrongConfidence(Objective):
    """Confidence in a wrong class: log of max over k != y of p_k. It is never finished."""

    name = "wrong_confidence"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return log max over k != y of p_k."""
        del targets
        return _largest_other(logits, labels) - logits.logsumexp(1)

    def reached(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return None: there is always more confidence to gain."""


@dataclass(frozen=True)
class AnyConfidence(Objective):
    """Confidence in any class, log max over k of p_k: for images that belong to none. It is never finished."""

    name = "any_confidence"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return log max over k of p_k."""
        del labels, targets
        return logits.amax(1) - logits.logsumexp(1)

    def reached(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return None: there is always more confidence to gain."""


@dataclass(frozen=True)
class Divergence(Objective):
    """Divergence of the probabilities from those of the image, KL(q || p) = sum over k of q_k log(q_k / p_k), in TRADES.

    It is never finished. At the image itself it is 0 and has no slope: an attack must start elsewhere.
    """

    name = "divergence"
    compares = True

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return KL(q || p), of log q as `targets`, shape (n, K)."""
        del labels
        if targets is None:
            raise ValueError("targets = None is not allowed: a divergence needs log-probabilities to compare with")
        return F.kl_div(logits.log_softmax(1), targets, reduction="none", log_target=True).sum(1)

    def reached(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return None: there is always more divergence to gain."""


@dataclass(frozen=True)
class DLR(Objective):
    """Difference of logits ratio (Croce and Hein, ICML 2020, eq. 6), the margin in units of the logits' spread.

    -(z_y - max over k != y of z_k) / (z_1 - z_3), with the logits sorted, z_1 the largest. Needs 3 classes.
    """

    few_classes: FewClasses = "error"
    """What a model of fewer classes gets: an error, or the difference alone, which is the margin."""

    name = "dlr"

    def __post_init__(self) -> None:
        checked_choice("few_classes", self.few_classes, ("error", "difference"))

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return (max over k != y of z_k - z_y) / (z_1 - z_3)."""
        del targets
        difference = _largest_other(logits, labels) - _at(logits, labels)
        if self.few_classes == "difference" and logits.shape[1] < 3:
            return difference
        z = _sorted(logits, 3)
        return difference / (z[:, 0] - z[:, 2] + 1e-12)


@dataclass(frozen=True)
class TargetedCrossEntropy(Targeted):
    """Log-probability of the target, log p_t."""

    name = "targeted_cross_entropy"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return log p_t."""
        del labels
        return -F.cross_entropy(logits, _given(targets), reduction="none")


@dataclass(frozen=True)
class TargetedMargin(Targeted):
    """Margin of the target, z_t less max over k != t of z_k. Positive where the target is reached."""

    name = "targeted_margin"

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return z_t less max over k != t of z_k."""
        del labels
        targets = _given(targets)
        return _at(logits, targets) - _largest_other(logits, targets)


@dataclass(frozen=True)
class TargetedDLR(Targeted):
    """Targeted difference of logits ratio (Croce and Hein, ICML 2020, eq. 7). Needs 4 classes.

    -(z_y - z_t) / (z_1 - (z_3 + z_4)/2), with the logits sorted, z_1 the largest.
    """

    few_classes: FewClasses = "error"
    """What a model of fewer classes gets: an error, or the difference alone."""

    name = "targeted_dlr"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_choice("few_classes", self.few_classes, ("error", "difference"))

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return (z_t - z_y) / (z_1 - (z_3 + z_4)/2)."""
        difference = _at(logits, _given(targets)) - _at(logits, labels)
        if self.few_classes == "difference" and logits.shape[1] < 4:
            return difference
        z = _sorted(logits, 4)
        return difference / (z[:, 0] - (z[:, 2] + z[:, 3]) / 2 + 1e-12)


@dataclass(frozen=True)
class WrongOdds(Objective):
    """Log-odds of the likeliest wrong class, k, less those of a level: log(p_k / (1 - p_k)) - log(level / (1 - level)).

    Positive where a wrong class has more confidence than the level, which is its goal: of a minimal attack, the nearest image
    of so much confidence in a wrong class. At 1/2 it is nearly the margin; below, that class need not be the prediction.

    log(p_k / (1 - p_k)) is z_k - log(sum over j != k of exp(z_j)), and computed so: it has its digits, and a slope, where p_k
    is near 0 or 1.
    """

    level: float = 0.5
    """The confidence to reach, in (0, 1)."""

    name = "wrong_odds"
    seeks = "confidence"

    def __post_init__(self) -> None:
        checked_number("level", self.level, above=0, below=1)

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return log(p_k / (1 - p_k)) of the likeliest k != y, less log(level / (1 - level))."""
        del targets
        return _odds(logits, _others(logits, labels).argmax(1)) - _logit(self.level)

    def reached(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return where p_k >= level of a wrong class k, shape (n,)."""
        return self(logits, labels, targets) >= 0


@dataclass(frozen=True)
class TargetedOdds(Targeted):
    """Log-odds of the target less those of a level, log(p_t / (1 - p_t)) - log(level / (1 - level)).

    Positive where the target has more confidence than the level, which is its goal. See `WrongOdds`.
    """

    level: float = 0.5
    """The confidence to reach, in (0, 1)."""
    goal: Goal = field(default="target", kw_only=True)
    """When an example is finished: once p_t >= level of its target, or of any wrong class, or never."""

    name = "targeted_odds"
    seeks = "confidence"

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("level", self.level, above=0, below=1)

    def __call__(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
        """Return log(p_t / (1 - p_t)) - log(level / (1 - level))."""
        del labels
        return _odds(logits, _given(targets)) - _logit(self.level)

    def reached(self, logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor | None:
        """Return which examples are finished, shape (n,); None: there is always more to gain."""
        targets = _given(targets)
        if self.goal == "never":
            return None
        return (
            self(logits, labels, targets) >= 0
            if self.goal == "target"
            else WrongOdds(self.level).reached(logits, labels)
        )


OBJECTIVES: dict[str, Objective] = {
    one.name: one
    for one in (
        CrossEntropy(),
        Margin(),
        WrongConfidence(),
        AnyConfidence(),
        DLR(),
        Divergence(),
        TargetedCrossEntropy(),
        TargetedMargin(),
        TargetedDLR(),
        WrongOdds(),
        TargetedOdds(),
    )
}
"""One of each, by name."""


def objective(value: str | Objective) -> Objective:
    """Return an objective by its name, or the objective itself.

    Raises
    ------
    ValueError, TypeError
        If the name is unknown.
    """
    return value if isinstance(value, Objective) else OBJECTIVES[checked_choice("objective", value, OBJECTIVES)]


def _given(targets: Tensor | None) -> Tensor:
    if targets is None:
        raise ValueError("targets = None is not allowed: a targeted objective needs the classes to reach")
    return targets


def _at(logits: Tensor, classes: Tensor) -> Tensor:
    return logits.gather(1, classes[:, None]).squeeze(1)


def _largest_other(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the largest logit of all classes but one."""
    return _others(logits, classes).amax(1)


def _others(logits: Tensor, classes: Tensor) -> Tensor:
    """Return the logits, with minus infinity for one class."""
    return logits.scatter(1, classes[:, None], -torch.inf)


def _odds(logits: Tensor, classes: Tensor) -> Tensor:
    """Return log(p_k / (1 - p_k)) of one class each, shape (n,)."""
    return _at(logits, classes) - _others(logits, classes).logsumexp(1)


def _logit(level: float) -> float:
    return math.log(level) - math.log1p(-level)


def _sorted(logits: Tensor, needed: int) -> Tensor:
    if logits.shape[1] < needed:
        raise ValueError(f"the model has {logits.shape[1]} classes: this difference of logits ratio needs {needed}")
    return logits.sort(1, descending=True).values
