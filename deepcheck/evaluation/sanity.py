"""Checks against false robustness: signs that an attack has failed, and not that a net has withstood it.

After Carlini et al., "On Evaluating Adversarial Robustness" (2019), and Athalye, Carlini, Wagner, "Obfuscated Gradients
Give a False Sense of Security" (ICML 2018).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Model, checked_images, evaluating, plain
from deepcheck.attacks.calls import logits_of
from deepcheck.attacks.draws import checked_generator
from deepcheck.attacks.objectives import CrossEntropy
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.square import Square
from deepcheck.defences.wrappers import EOT
from deepcheck.device import exact_float32
from deepcheck.evaluation.predicted import predictions
from deepcheck.evaluation.robustness import worst_case
from deepcheck.evaluation.suites import Planned, cannot_cross
from odeflow.model import checked_count

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Check", "sanity_checks"]

_SHARE = 0.02
"""Share of the examples that a check lets pass."""


_TARGETS = 9
"""Classes that are tried one by one on what only the black-box attack turns."""


@dataclass(frozen=True)
class Check:
    """One check, and what was found."""

    name: str
    """What should hold."""
    passed: bool
    found: str
    """What was measured."""
    advice: str
    """What to do where it failed."""

    def __str__(self) -> str:
        return f"{self.name}: {self.found}" + ("" if self.passed else f" ({self.advice})")


@exact_float32()
@torch.inference_mode(False)
def sanity_checks(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    epsilon: float,
    generator: torch.Generator,
    steps: int = 40,
    queries: int = 1000,
    batch_size: int = 500,
    planned: Mapping[str, Planned] | None = None,
    records: xr.Dataset | None = None,
) -> list[Check]:
    """Look for signs of false robustness in L-infinity.

    Parameters
    ----------
    model
        A function from images to logits.
    images, labels
        Some test examples, shape (n, channels, height, width) in [0, 1], and (n,); a hundred will do.
    epsilon
        Size of the perturbation that robustness is claimed for, > 0.
    generator
        Source of all random numbers.
    steps
        Gradient steps that should be enough, >= 1.
    queries
        Evaluations of the black-box attack per example, >= 1.
    batch_size
        Examples that the model sees at once.
    planned
        The attacks by which robustness was claimed, as from `suite`.
    records
        What they found, of `evaluate` on at least these examples, first and in this order, at `epsilon` in L-infinity.

    Returns
    -------
    list of Check
        eval mode, output repeats, gradients, large epsilon, more iterations, black box; a failed one first. With `planned`
        also whether their steps can cross the ball, and with `records` whether the attacks here, of 5 `steps` and two
        objectives, turn examples that those have left.
        Approximate: a net that passes may still be less robust than it seems.

    Raises
    ------
    ValueError, TypeError
        If images or labels are not allowed, or a number is out of range.
    """
    checked_images(images, labels, (0.0, 1.0))
    checked_generator(generator)
    for name, count in (("steps", steps), ("queries", queries), ("batch_size", batch_size)):
        checked_count(name, count, 1)
    if not len(images):
        raise ValueError("images are none: allowed is one or more")
    if not epsilon > 0:
        raise ValueError(f"epsilon = {epsilon!r} is out of range: allowed is > 0")
    images, labels = plain(images), plain(labels)
    predictions(model, images, batch_size)  # one that has no finite logits for them is refused
    checks = [_eval_mode(model), _output_repeats(model, images[:batch_size])]
    if planned is not None:
        checks.append(_crossing(planned))

    def attached(x: Tensor) -> Tensor:
        """Return the logits, with a gradient of 0 where the model has none at all, as after a comparison of pixels."""
        return logits_of(model, x) + 0 * x.flatten(1).sum(1, keepdim=True)

    def wrong(attack: PGD | Square, size: float, source: torch.Generator = generator) -> Tensor:
        """Return which examples an attack turns, in any restart."""
        found = attack(attached, images, labels, epsilon=size, generator=source, batch_size=batch_size)
        return (found.prediction != labels).any(0)

    with evaluating(model):
        checks.append(_gradients(attached, images, labels, batch_size))
        largest = wrong(PGD("linf", "margin", steps=100, step_size=0.05, restarts=2), 1.0)
        again = torch.Generator(generator.device)
        again.set_state(generator.get_state())
        few = wrong(PGD("linf", "margin", steps=steps, relative_step_size=2.5 / steps), epsilon)
        white = few | wrong(PGD("linf", "cross_entropy", steps=steps, relative_step_size=2.5 / steps), epsilon)
        # from the same starts: what other starts find is no matter of iterations
        many = wrong(PGD("linf", "margin", steps=5 * steps, relative_step_size=0.5 / steps), epsilon, again)
        square = wrong(Square("linf", "margin", queries=queries), epsilon)
        black = square & ~(white | many)
        if black.any():  # ascent follows one class, which need not be the nearest one: not so where gradients are right
            attack = PGD("linf", "targeted_margin", steps=5 * steps, relative_step_size=0.5 / steps)
            black[black.clone()] = ~_turned_to_some_class(
                attack, attached, images[black], labels[black], epsilon, generator, batch_size
            )
    share = float(largest.double().mean())
    checks.append(
        Check(
            "error rises to 1 at a large epsilon",
            share >= 1 - _SHARE,
            f"error {share:.3f} at epsilon = 1, where every image can become any other",
            "the attack gets stuck: try other steps, starts and objectives",
        )
    )
    gain = float(many.double().mean() - few.double().mean())
    checks.append(
        Check(
            "more iterations do not help",
            gain <= _SHARE,
            f"error {float(few.double().mean()):.3f} after {steps} steps, {float(many.double().mean()):.3f} after {5 * steps}",
            "attack with more steps",
        )
    )
    only = float(black.double().mean())
    checks.append(
        Check(
            "white box beats black box",
            only <= _SHARE,
            f"{only:.3f} of the examples fall to a random search of {queries} queries but not to gradients",
            "the gradients mislead: do not trust attacks that use them",
        )
    )
    if records is not None:
        checks.append(_left(records, white | many | square, epsilon))
    return sorted(checks, key=lambda check: check.passed)


def _crossing(planned: Mapping[str, Planned]) -> Check:
    """Return whether the steps of the attacks are long enough together."""
    short = cannot_cross(planned)
    return Check(
        "steps can cross the ball",
        not short,
        f"attacks whose steps are too short together: {', '.join(short) or 'none'}",
        "take longer steps, or more: together 2.5 epsilon",
    )


def _left(records: xr.Dataset, turned: Tensor, epsilon: float) -> Check:
    """Return whether the attacks on record turn what those here turn."""
    count = len(turned)
    if records.sizes["example"] < count:
        raise ValueError(
            f"records have {records.sizes['example']} examples: allowed are those of {count} images, or more"
        )
    wrong = torch.tensor(worst_case(records, norm="linf", epsilon=epsilon)["wrong"].values[:count])
    share = float((turned.cpu() & ~wrong).double().mean())
    return Check(
        "a longer attack finds no more",
        share <= _SHARE,
        f"error {float(wrong.double().mean()):.3f} on record, and {share:.3f} more of the examples fall to other attacks",
        "the robustness on record is not there: attack with more steps, restarts and objectives",
    )


def _eval_mode(model: Model) -> Check:
    """Return whether no module is in train mode."""
    training = (
        [name for name, module in model.named_modules() if module.training] if isinstance(model, nn.Module) else []
    )
    return Check(
        "the model is in eval mode",
        not training,
        f"modules in train mode: {len(training)}",
        "call model.eval(); attacks here do so, other uses do not",
    )


@torch.no_grad()
def _output_repeats(model: Model, x: Tensor) -> Check:
    """Return whether the model says the same twice. In eval mode; random layers of one's own stay random.

    A mean over draws need not: an attack on it does what the advice says.
    """
    with evaluating(model):
        one, other = logits_of(model, x), logits_of(model, x)
        change = float(torch.where(one == other, 0.0, (one - other).abs()).max())
    draws = model.draws if isinstance(model, EOT) else 1
    of = f" of the mean over {draws} draws" if draws > 1 else ""
    return Check(
        "the output repeats",
        change <= 1e-4 or draws > 1,
        f"logits{of} change by {change:.2g} from call to call",
        "attack their mean over many calls",
    )


def _turned_to_some_class(
    attack: PGD,
    model: Model,
    images: Tensor,
    labels: Tensor,
    epsilon: float,
    generator: torch.Generator,
    batch_size: int,
) -> Tensor:
    """Return which examples a targeted attack turns, with each of the likeliest wrong classes as the target."""
    with torch.no_grad():
        logits = torch.cat([logits_of(model, x) for x in torch.split(images, batch_size)])
    logits = logits.scatter(1, labels[:, None], -torch.inf)
    turned = torch.zeros_like(labels, dtype=torch.bool)
    for targets in logits.topk(min(_TARGETS, logits.shape[1] - 1), 1).indices.T:
        found = attack(
            model, images, labels, epsilon=epsilon, generator=generator, targets=targets, batch_size=batch_size
        )
        turned |= (found.prediction != labels).any(0)
    return turned


def _gradients(model: Model, images: Tensor, labels: Tensor, batch_size: int) -> Check:
    """Return whether the cross-entropy has a gradient at the images."""
    zero = 0
    for x, y in zip(torch.split(images, batch_size), torch.split(labels, batch_size), strict=True):
        z = x.clone().requires_grad_()
        with torch.enable_grad():
            value = CrossEntropy()(logits_of(model, z), y).sum()
            (gradient,) = torch.autograd.grad(value, z)
        zero += int((gradient.nan_to_num(nan=0.0).flatten(1).abs().amax(1) == 0).sum())
    share = zero / len(images)
    return Check(
        "gradients are not zero",
        share <= _SHARE,
        f"the cross-entropy has no gradient at {share:.3f} of the images",
        "attack the margin of the logits instead",
    )
