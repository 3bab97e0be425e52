"""Attacks that follow one model and are judged by another: what was found on a fast or smooth one, asked of the net itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Attack, Attacked, Model, checked_epsilons, checked_logits, evaluating
from deepcheck.attacks.calls import decided, frozen, logits_of, warn_of_undecided
from deepcheck.checks import checked_choice

__all__ = ["PRECISIONS", "InPrecision", "Precision", "Quick", "best_restart", "in_precision", "judged"]

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


def judged(found: Attacked, judge: Model, labels: Tensor, batch_size: int) -> Attacked:
    """Return what another model says of the images that an attack found: the best of all its restarts.

    Prediction and confidence are the judge's, in one call, so that there is one restart in the result. The objective is the
    attack's, and so are the length, and the queries, of all its restarts.

    Parameters
    ----------
    found
        Of n examples, at one epsilon or at several.
    judge
        A function from images to logits. A module is put into eval mode, and back afterwards. Where it has no finite
        logits, the example counts as not broken, with a warning.
    labels
        Shape (n,), int64.
    batch_size
        Examples that the judge sees at once, >= 1.

    Raises
    ------
    ValueError, TypeError
        If the judge returns no logits for classes with these labels.
    """
    n = len(labels)
    attacked = found.images.flatten(0, found.objective.ndim - 1)
    with evaluating(judge), frozen(judge), torch.no_grad():
        parts = [logits_of(judge, part).float() for part in torch.split(attacked, batch_size)] if len(attacked) else []
    logits = torch.cat(parts) if parts else attacked.new_zeros(0, 2)
    some = decided(logits)
    checked_logits(logits[some], int(some.sum()), labels)
    warn_of_undecided(int((~some).sum()))
    confidence, prediction = logits.softmax(1).max(1)
    prediction = torch.where(some, prediction, labels.repeat(len(attacked) // max(n, 1)))  # not broken
    confidence = confidence.masked_fill(~some, 0)
    shape = (*found.objective.shape[:-1], 1, n)
    return Attacked(
        found.images,
        found.objective,
        found.objective.reshape(shape),
        prediction.reshape(shape),
        confidence.reshape(shape),
        found.length.gather(-2, best_restart(found).unsqueeze(-2)),
        found.queries.sum(-2, keepdim=True),
    )


def best_restart(found: Attacked) -> Tensor:
    """Return the restart that the images are from, shape (..., n): the first with the objective of the images."""
    return (found.restart_objective == found.objective.unsqueeze(-2)).byte().argmax(-2)


class Quick(nn.Module):
    """A model that computes in lower precision, or in another order of memory, and takes and gives what it took and gave.

    Parameters
    ----------
    model
        A function from images to logits.
    precision
        bfloat16: mixed precision (autocast). float32: as the model is.
    channels_last
        Give it images, shape (n, C, H, W), with the channels last in memory, as the matrix units of a GPU want them.
    """

    def __init__(self, model: Model, precision: Precision = "float32", *, channels_last: bool = False) -> None:
        super().__init__()
        self.model = model
        checked_choice("precision", precision, PRECISIONS)
        self.precision = precision
        self.channels_last = channels_last

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        if self.channels_last and images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        low = self.precision == "bfloat16"
        with torch.autocast(images.device.type, torch.bfloat16) if low else nullcontext():
            return self.model(images)


@dataclass(frozen=True)
class InPrecision:
    """An attack that searches in lower precision, and is judged by the net as it is.

    The images are those that the attack finds on a `Quick` form of the net, the best of all its restarts. Prediction and
    confidence are what the net itself says of them, so that there is one restart in the result. Where only the quick form is
    fooled, the example is attacked again, on the net itself: rounding may neither break an example nor save one that the
    attack would have gone on with. The objective that is returned is that of the search.

    Examples
    --------
    >>> import torch
    >>> from deepcheck.attacks import PGD
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = InPrecision(PGD("linf", steps=10, relative_step_size=0.25, restarts=2), "bfloat16")
    >>> attacked = attack(model, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 1, 5]))
    """

    attack: Attack
    """Any attack, but none that says itself whether it had success."""
    precision: Precision = "bfloat16"
    """Of the search: bfloat16 (autocast), or float32."""
    channels_last: bool = False
    """Whether images have their channels last in memory in the search."""

    def __post_init__(self) -> None:
        checked_choice("precision", self.precision, PRECISIONS)

    @property
    def norm(self) -> object:
        """The norm that `epsilon` bounds."""
        return self.attack.norm

    @property
    def objective(self) -> object:
        """What the attack maximises, if it says so."""
        return getattr(self.attack, "objective", "")

    def __call__(
        self,
        model: Model,
        images: Tensor,
        labels: Tensor,
        *,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        batch_size: int = 500,
        **options: Any,
    ) -> Attacked:
        """Attack a model on some examples; the arguments are those of the attack.

        Raises
        ------
        TypeError
            If the attack says itself whether it had success, which holds for the search alone.
        ValueError, TypeError
            If an argument is not allowed; before any attack.
        """
        targets = options.get("targets")
        if isinstance(targets, Tensor) and targets.ndim == 2:
            return self._towards(targets, model, images, labels, epsilon, generator, batch_size, options)
        epsilons, single = checked_epsilons(epsilon)
        quick = Quick(model, self.precision, channels_last=self.channels_last)
        common: dict[str, Any] = {"generator": generator, "batch_size": batch_size}
        found = self.attack(quick, images, labels, epsilon=epsilons, **common, **options)
        if hasattr(found, "success"):
            raise TypeError(f"attack = {self.attack!r} is not allowed in lower precision: it has a success of its own")
        result = judged(found, model, labels, batch_size)
        fooled = found.prediction.gather(-2, best_restart(found).unsqueeze(-2)) != labels
        only = (fooled & (result.prediction == labels)).squeeze(-2)
        names = [field.name for field in fields(Attacked)]
        result = replace(result, **{name: getattr(result, name).clone() for name in names})
        for number, value in enumerate(epsilons):
            rows = only[number].nonzero().squeeze(1)
            if not len(rows):
                continue
            some: dict[str, Any] = {
                name: one[rows] if isinstance(one, Tensor) and len(one) == len(labels) else one
                for name, one in options.items()
            }
            again = self.attack(model, images[rows], labels[rows], epsilon=value, **common, **some)
            again = judged(again, model, labels[rows], batch_size)
            for name in names:
                new = getattr(again, name)
                row = getattr(result, name)[number]
                if name in ("images", "objective"):
                    row[rows] = new
                elif name == "queries":
                    row[:, rows] += new
                else:
                    row[:, rows] = new
        return replace(result, **{name: getattr(result, name)[0] for name in names}) if single else result

    def _towards(
        self,
        targets: Tensor,
        model: Model,
        images: Tensor,
        labels: Tensor,
        epsilon: float | Sequence[float],
        generator: torch.Generator,
        batch_size: int,
        options: dict[str, Any],
    ) -> Attacked:
        """Return what is found for one set of targets, shape (m, n), after the other, with the same random numbers."""
        state, found = generator.get_state(), []
        common: dict[str, Any] = {"epsilon": epsilon, "generator": generator, "batch_size": batch_size}
        for one in targets:
            generator.set_state(state)
            found.append(self(model, images, labels, **common, **(options | {"targets": one})))
        return Attacked.stacked(found)


def in_precision(attack: Attack, precision: Precision = "float32", *, channels_last: bool = False) -> Attack:
    """Return an attack that searches in this precision and order of memory: as it is where both are the net's own."""
    checked_choice("precision", precision, PRECISIONS)
    if precision == "float32" and not channels_last:
        return attack
    return InPrecision(attack, precision, channels_last)
