"""The largest confidence that attacks find in each wrong class, for each example and each size of the ball."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepcheck.attacks.base import (
    Attack,
    CheckedAttack,
    Model,
    checked_epsilons,
    checked_images,
    checked_logits,
    evaluating,
    frozen,
)
from deepcheck.attacks.calls import decided, logits_of, warn_of_undecided
from deepcheck.attacks.gradient.confident import confident_pgd
from deepcheck.attacks.gradient.pgd import pgd
from deepcheck.attacks.judged import InPrecision
from deepcheck.attacks.measures import Measure
from deepcheck.attacks.minimal.base import MinimalAttack, WithinBudget
from deepcheck.attacks.minimal.carlini_wagner import CarliniWagner
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.objectives import TargetedOdds
from deepcheck.attacks.targets import every_other_class
from deepcheck.defences.base import Adaptive, Defence
from deepcheck.device import describe, exact_float32, memory_advice
from deepcheck.evaluation.run import stream
from deepcheck.evaluation.suites import effort
from odeflow.model import checked_count
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["LONG_NAMES", "checked_found", "confident_attacks", "cross_entropy_attack", "wrong_confidences"]

LOSS_ATTACK = "loss"
"""What the attack on the loss is called among the others."""
LONG_NAMES = {
    "delta": "largest norm of the perturbation",
    "target": "wrong class",
    "example": "example",
    "label": "class",
    "clean_prediction": "predicted class of the image itself",
    "clean_confidence": "largest class probability on the image itself",
    "wrong_confidence": "largest confidence found in the wrong class",
    "wrong": "whether a wrong prediction was found",
    "wrong_prediction_confidence": "largest confidence found in a wrong prediction",
    "worst_loss": "largest cross-entropy at all points that were found",
    "attacked_loss": "largest cross-entropy found by the attack on it",
}


def confident_attacks(
    norm: Norm | str = "linf", *, starts: int = 10, steps: int = 100, level: float | None = None
) -> dict[str, Attack]:
    """Return attacks on the confidence in a given wrong class, by name.

    Parameters
    ----------
    norm
        Of the perturbation.
    starts, steps
        Of the ascent on log p of the class, >= 1: random starts, and gradient steps from each.
    level
        Where it is given, in (0, 1): the attack of Carlini and Wagner for this confidence too, in L-infinity, L2 or L0. It looks
        for the nearest image that has it, once, with 10 `steps` at each of its bounds. It aims at log-odds of 0.001 more, so that
        rounding does not undo what it finds.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or the norm is none.
    """
    checked_count("starts", starts, 1)
    ascent = replace(confident_pgd(norm, steps=steps, restarts=starts), targets="given")
    if level is None:
        return {"confident_pgd": ascent}
    odds = TargetedOdds(level)
    nearest = CarliniWagner(norm, odds, confidence=1e-3, steps=10 * steps, initial_c=0.1, searches=5)
    return {"confident_pgd": ascent, "carlini_wagner": WithinBudget(nearest)}


def cross_entropy_attack(norm: Norm | str = "linf", *, starts: int = 10, steps: int = 100) -> Attack:
    """Return the attack on the loss: projected gradient ascent on the cross-entropy, which goes on where the answer is wrong.

    Parameters
    ----------
    norm
        Of the perturbation.
    starts, steps
        Random starts, and gradient steps from each, >= 1.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range, or the norm is none.
    """
    checked_count("starts", starts, 1)
    return replace(pgd(norm, steps=steps, restarts=starts), stop_when_reached=False)


@exact_float32()
def wrong_confidences(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    delta: float | Sequence[float],
    attacks: Mapping[str, Attack | MinimalAttack] | None = None,
    loss_attack: Attack | None = None,
    norm: Norm | str = "linf",
    starts: int = 10,
    steps: int = 100,
    generator: torch.Generator,
    batch_size: int = 500,
    configuration: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> xr.Dataset:
    r"""Return the largest confidence in each wrong class that attacks find within delta, and what it takes to judge rejection.

    Approximate: lower bounds on what is in the ball. Every point that an attack hands over, and the image itself, is judged
    for all classes; what was found in a smaller ball counts in a larger one.

    Parameters
    ----------
    model
        A function from images to logits, shape (n, K). A module is put into eval mode, and back afterwards.
    images, labels
        Shape (n, ...) in [0, 1], n >= 1, and the true classes, shape (n,), int64, on the same device.
    delta
        Radius of the ball, >= 0, or several.
    attacks
        By name, all in one norm. One whose objective has a target that is given with the call is asked for each wrong class; the
        others once. One that stops at the first wrong answer (`stop_when_reached`) finds little confidence. Default: `confident_attacks` with the numbers below; of a `Defence`, those that know of it.
    loss_attack
        The attack on the cross-entropy, in the same norm, whose own result is kept apart. Default: `cross_entropy_attack` with the
        numbers below.
    norm, starts, steps
        Of the default attacks. For n examples they take n K starts (steps + 1) gradients at each delta; 10 starts and 100 steps are the
        paper's. Of given attacks the norm is theirs.
    generator
        Source of the seed; it advances by one number. Each attack has a stream of its own, so that its result does not depend on
        the others.
    batch_size
        Examples that the model sees at once, >= 1. The result does not depend on it, but for rounding.
    configuration
        For the attributes of the result, such as the net's.
    progress
        Show progress on a terminal.

    Returns
    -------
    Dataset
        Dims delta (increasing), target (the K classes) and example:

        - `wrong_confidence` (delta, target, example): the largest :math:`F(x')_t` found, NaN for the true class;
        - `wrong`, `wrong_prediction_confidence` (delta, example): whether a point was found that is classified wrongly, and
          the largest confidence of such a point in its class, NaN where there is none;
        - `worst_loss`, `attacked_loss` (delta, example): the largest cross-entropy :math:`-\log F(x')_y` of all points, and of
          those alone that the attack on the loss handed over (and the image);
        - `label`, `clean_prediction`, `clean_confidence` (example).

        All but the last do not decrease with delta. In the attributes: norm, attacks, their effort, the seed.

    Raises
    ------
    ValueError, TypeError
        If an argument is not allowed, or the model has no softmax confidence: one column of outputs, or outputs that are probabilities
        already; before any attack.
    """
    checked_images(images, labels, (0.0, 1.0))
    checked_count("batch_size", batch_size, 1)
    if not len(images):
        raise ValueError("images are none: allowed is one image or more")
    deltas = sorted(set(checked_epsilons(delta, "delta")[0]))
    chosen = _chosen(model, attacks, loss_attack, norm, starts, steps)
    clean = _logits(model, images, batch_size)
    checked_logits(clean, len(images), labels)
    check_confidence(clean)
    K = clean.shape[1]
    targets = every_other_class(labels, K)
    found = [_Found(clean, labels) for _ in deltas]
    options: dict[str, Any] = {"batch_size": batch_size} | ({"progress": True} if progress else {})
    undecided, seed = 0, int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    with memory_advice(batch_size):
        for name, attack in chosen.items():
            for together, aim in _rounds(attack, targets, batch_size):
                # with the same random numbers in each round, as an example's depend on its index alone
                own, x, y = stream(seed, name), _repeated(images, together), _repeated(labels, together)
                points = attack(model, x, y, epsilon=deltas, generator=own, **options, **aim).images
                for one, z in zip(found, points, strict=True):
                    for logits in _logits(model, z, batch_size).split(len(images)):
                        undecided += one.add(logits, on_loss=name == LOSS_ATTACK)
    warn_of_undecided(undecided)
    attributes = provenance(
        "wrong_confidences",
        seed=str(generator.initial_seed()),
        device=describe(images.device),
        stream=seed,
        norm=_norm_of(next(iter(chosen.values()))),
        attacks={name: repr(attack) for name, attack in chosen.items()},
        effort={name: _effort(attack, K) for name, attack in chosen.items()},
        examples=len(images),
        **({"net": dict(configuration)} if configuration else {}),
    )
    return _dataset(found, deltas, labels, clean, attributes)


class _Found:
    """What was found for n examples at one delta: at first, the images themselves."""

    def __init__(self, clean: Tensor, labels: Tensor) -> None:
        self.labels = labels
        self.confidence = torch.zeros(clean.shape, dtype=torch.float64, device=clean.device)
        self.loss = torch.zeros(len(clean), dtype=torch.float64, device=clean.device)
        self.loss_alone = self.loss.clone()
        self.wrong_prediction = torch.full_like(self.loss, -torch.inf)
        self.add(clean, on_loss=True)

    def add(self, logits: Tensor, *, on_loss: bool) -> int:
        """Add one point for each example, and return how many have no finite logits, which do not count."""
        some = decided(logits)
        log_p = logits.double().log_softmax(1).masked_fill(~some[:, None], -torch.inf)
        p = log_p.exp()
        torch.maximum(self.confidence, p, out=self.confidence)
        loss = -log_p.gather(1, self.labels[:, None]).squeeze(1)
        loss = torch.where(some, loss, 0.0)
        torch.maximum(self.loss, loss, out=self.loss)
        if on_loss:
            torch.maximum(self.loss_alone, loss, out=self.loss_alone)
        prediction = logits.argmax(1)
        wrong = some & (prediction != self.labels)
        value = p.gather(1, prediction[:, None]).squeeze(1).masked_fill(~wrong, -torch.inf)
        torch.maximum(self.wrong_prediction, value, out=self.wrong_prediction)
        return int((~some).sum())


def _dataset(
    found: list[_Found], deltas: list[float], labels: Tensor, clean: Tensor, attributes: Mapping[str, str]
) -> xr.Dataset:
    """Return what was found, by delta, each ball with what is in the smaller ones."""
    import xarray as xr

    def rising(name: str) -> npt.NDArray[np.float64]:
        return np.maximum.accumulate(np.stack([getattr(one, name).cpu().numpy() for one in found]), axis=0)

    y, K = labels.cpu().numpy(), clean.shape[1]
    confidence = rising("confidence").transpose(0, 2, 1)
    confidence[:, y, np.arange(len(y))] = np.nan
    best = rising("wrong_prediction")
    wrong = np.isfinite(best)
    probability, prediction = clean.double().softmax(1).max(1)
    each = ("delta", "example")
    result = xr.Dataset(
        {
            "wrong_confidence": (("delta", "target", "example"), confidence),
            "wrong": (each, wrong),
            "wrong_prediction_confidence": (each, np.where(wrong, best, np.nan)),
            "worst_loss": (each, rising("loss")),
            "attacked_loss": (each, rising("loss_alone")),
            "label": ("example", y),
            "clean_prediction": ("example", prediction.cpu().numpy()),
            "clean_confidence": ("example", probability.cpu().numpy()),
        },
        coords={"delta": deltas, "target": np.arange(K), "example": np.arange(len(y))},
        attrs=dict(attributes),
    )
    return named(result, LONG_NAMES)


def named(result: xr.Dataset, names: Mapping[str, str]) -> xr.Dataset:
    """Give every variable its long name and unit, in place."""
    for name in result.variables:
        if str(name) in names:
            result[name].attrs.update(long_name=names[str(name)], units="1")
    return result


def checked_found(found: object) -> xr.Dataset:
    """Return what `wrong_confidences` returned, with its dims in order, or raise if it is something else.

    Raises
    ------
    TypeError, ValueError
        If it is no Dataset, or one without its variables and dims.
    """
    import xarray as xr

    allowed = "allowed is what deepcheck.evaluation.separation.wrong_confidences returns"
    if not isinstance(found, xr.Dataset):
        raise TypeError(f"found is of the wrong type {type(found).__name__}: {allowed}")
    names = ("wrong_confidence", "wrong", "wrong_prediction_confidence", "worst_loss", "attacked_loss", "label")
    missing = [name for name in (*names, "clean_prediction", "clean_confidence") if name not in found.data_vars]
    if missing:
        raise ValueError(f"found lacks {', '.join(missing)}: {allowed}")
    if not found.sizes.get("example", 1):
        raise ValueError(f"found has no examples: {allowed}, of one example at least")
    if set(found["wrong_confidence"].dims) != {"delta", "target", "example"}:
        raise ValueError(f"found has the dims {found['wrong_confidence'].dims}: {allowed}; to select, keep the dim")
    return found.transpose("delta", "target", "example", ...)


def check_confidence(logits: Tensor) -> None:
    """Raise if outputs are such as probabilities are, none negative and their sum 1: their softmax is no confidence.

    Raises
    ------
    ValueError
        If they are.
    """
    if bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < 1e-4).all()):
        raise ValueError(
            "model has no softmax confidence: its outputs sum to 1, as probabilities do; allowed are logits, so leave the "
            "softmax out"
        )


def _chosen(
    model: Model,
    attacks: Mapping[str, Attack | MinimalAttack] | None,
    loss_attack: Attack | None,
    norm: Norm | str,
    starts: int,
    steps: int,
) -> dict[str, Attack]:
    """Return all attacks by name, the one on the loss last; they are in one norm."""
    knows = Adaptive if isinstance(model, Defence) else lambda attack: attack
    if attacks is None:
        named_: dict[str, Attack] = {
            name: knows(one) for name, one in confident_attacks(norm, starts=starts, steps=steps).items()
        }
    else:
        given: object = attacks
        if not isinstance(given, Mapping) or not given or LOSS_ATTACK in given:
            raise ValueError(
                f"attacks = {given!r} is not allowed: a dict of names to attacks is, one or more, none named {LOSS_ATTACK!r}"
            )
        named_ = {name: WithinBudget(one) if isinstance(one, MinimalAttack) else one for name, one in attacks.items()}
        norm = getattr(next(iter(named_.values())), "norm", norm)
    if loss_attack is None:
        loss_attack = knows(cross_entropy_attack(norm, starts=starts, steps=steps))
    named_[LOSS_ATTACK] = loss_attack
    norms = {name: _norm_of(attack) for name, attack in named_.items()}
    if len(set(norms.values())) > 1:
        raise ValueError(f"attacks in the norms {norms} are not allowed together: those in one norm are")
    return named_


def _norm_of(attack: Attack) -> str:
    return attack.norm.name if isinstance(attack.norm, Measure) else str(attack.norm)


def _aims(attack: object) -> bool:
    """Return whether an attack takes the classes to reach with its call."""
    while (inner := getattr(attack, "attack", None)) is not None:  # of a wrapper, such as Adaptive
        attack = inner
    targeted = getattr(getattr(attack, "objective", None), "targeted", False)
    return bool(targeted) and getattr(attack, "targets", "given") == "given"


def _rounds(attack: Attack, targets: Tensor, batch_size: int) -> list[tuple[int, dict[str, Any]]]:
    """Return how many classes are aimed at in each call, and the call's options: as many as go into one batch.

    Not all in one call, for the memory; and not one by one, as small batches are slow.
    """
    if not _aims(attack):
        return [(1, {})]
    inner: object = attack
    while isinstance(inner, Adaptive | InPrecision | WithinBudget):
        inner = inner.attack
    if not isinstance(inner, CheckedAttack):  # it may not know of indices
        return [(1, {"targets": one}) for one in targets]
    n = targets.shape[1]
    every = torch.arange(n, device=targets.device)
    return [
        (len(part), {"targets": part.flatten(), "indices": every.repeat(len(part))})
        for part in targets.split(max(1, batch_size // n))
    ]


def _repeated(tensor: Tensor, times: int) -> Tensor:
    return tensor if times == 1 else tensor.repeat(times, *[1] * (tensor.ndim - 1))


def _effort(attack: Attack, K: int) -> str:
    return effort(attack) + (f", for each of {K - 1} classes" if _aims(attack) else "")


def _logits(model: Model, images: Tensor, batch_size: int) -> Tensor:
    """Return logits, shape (n, K), in single precision at least, with the model in eval mode."""
    with evaluating(model), frozen(model), torch.no_grad():
        return torch.cat([logits_of(model, part) for part in images.detach().split(batch_size)])
