"""Attack a net in all ways of a suite, and record every attacked example."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepcheck.attacks.base import Attack, Attacked, Model, checked_images
from deepcheck.attacks.judged import PRECISIONS, Precision, best_restart, in_precision
from deepcheck.attacks.measures import Measure
from deepcheck.attacks.prepared.base import PreparedAttack
from deepcheck.checks import checked_choice
from deepcheck.data import Images
from deepcheck.defences.base import Adaptive, Defence
from deepcheck.detectors.base import Detector
from deepcheck.device import describe, exact_float32, memory_advice
from deepcheck.evaluation.predicted import predictions
from deepcheck.evaluation.records import AttackRecord, assemble
from deepcheck.evaluation.scores import IMAGES, with_images, with_score
from deepcheck.evaluation.suites import Planned, described, effort
from deepcheck.models.noise import noises_in
from odeflow.model import checked_count
from odeflow.numerics.memory import check_memory

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["evaluate", "images_in", "named_data", "predictions", "record", "split"]

_LOG = logging.getLogger(__name__)
_RECORD_BYTES = 64  # of an example after a restart
Tensors = tuple[Tensor, Tensor]
"""Images, shape (n, ...), pixels in [0, 1], of a floating type, and labels, shape (n,), int64."""


@exact_float32()
def evaluate(
    model: Model,
    images: Images | Tensors,
    planned: Mapping[str, Planned],
    *,
    examples: int | None = None,
    validation: int | None = None,
    detectors: Mapping[str, Detector] | None = None,
    keep_images: bool = False,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    precision: Precision = "float32",
    channels_last: bool = False,
    configuration: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Attack a net on the first test images, and record every attacked example.

    Parameters
    ----------
    model
        A function from images to logits, on `device`. A module is put into eval mode, and back afterwards. A random
        `Defence`, or net with noise layers, is given a seed of its own for each attack.
    images
        The data set, of which test images alone are used. Or a pair of tensors (x, y): pixels in [0, 1], shape (n, ...),
        and labels, shape (n,), int64.
    planned
        Attacks by name, as from `suite`. Those that are prepared on other images are so on the first training images of the
        data set, before any attack; of tensors there are none.
    examples
        Number of test images to attack, the first ones, >= 1; default: 1000, or of tensors all but those for validation.
    validation
        Number of test images kept apart for the threshold, the last ones, >= 0; default: 1000, or of tensors none.
    detectors
        Fitted detectors by name, whose scores are recorded beside the confidence.
    keep_images
        Whether to keep the images, so that a detector made later can score them (`with_score`): 4 bytes a pixel, for each
        test and validation image and for what each attack made of a test image at each epsilon. The standard suite on
        1,000 images of MNIST runs 35 pairs of attack and epsilon: 116 MB; on CIFAR-10 31: 406 MB.
    seed
        Of the attacks, >= 0. Each attack has a stream of its own: its result does not depend on the others.
    device
        Where the model is.
    batch_size
        Examples that the model sees at once, >= 1. The result does not depend on it but for rounding, unless the model is
        random.
    precision
        Of the search: float32, or bfloat16 (autocast), which a GPU does several times as fast. What is recorded (prediction
        and confidence, of clean images too) is what the model says in float32 of what was found, with one restart for all:
        see `deepcheck.attacks.judged.InPrecision`.
    channels_last
        Let the search give the model images with their channels last in memory, which is faster on GPUs. What is recorded
        is what the model says of images as they are.
    configuration
        For the attributes of the result, such as the net's.
    progress
        Show progress on a terminal.

    Returns
    -------
    Dataset
        Records, see `deepcheck.evaluation.schema`.

    Raises
    ------
    ValueError, TypeError
        If there are too few images, a number is out of range, or a detector was not fitted; before any attack.
    MemoryError
        If a batch does not fit into the memory of the GPU.
    """
    checked_count("seed", seed, 0)
    checked_count("batch_size", batch_size, 1)
    checked_choice("precision", precision, PRECISIONS)
    if not planned or not {"", "clean"}.isdisjoint(planned):
        raise ValueError(f"planned = {list(planned)} is not allowed: one attack or more is, not named '' or 'clean'")
    device = torch.device(device)
    examples, validation = _sizes(images, examples, validation)
    restarts = max(getattr(one.attack, "restarts", 1) for one in planned.values())
    check_memory(
        _RECORD_BYTES * examples * restarts * sum(len(one.epsilons) for one in planned.values()),
        f"records of {examples:,} examples with {restarts:,} restarts need",
        "fewer are allowed",
    )
    (x, y), (x_apart, y_apart) = split(images, examples, validation, device)
    planned = {
        name: replace(one, attack=_ready(one.attack, name, model, images, one.epsilons, seed, device, batch_size))
        for name, one in planned.items()
    }
    for detector in (detectors or {}).values():
        detector.score(model, x[:1])  # one that was not fitted is refused now, and not after hours
    attacked: dict[str, AttackRecord] = {}
    kept = {}
    with memory_advice(batch_size):
        _restart_random(model, seed, "clean")
        clean, apart = predictions(model, x, batch_size), predictions(model, x_apart, batch_size)
        for name, one in planned.items():
            _LOG.info("attacking: %s at epsilon = %s", name, ", ".join(f"{value:.4g}" for value in one.epsilons))
            _restart_random(model, seed, name)
            generator = stream(seed, name, torch.device("cpu"))  # whose seeds are the same on every device
            epsilons = one.epsilons
            attack = _searching(one.attack, precision, channels_last=channels_last)
            attacked[name], found = record(
                attack, model, x, y, epsilons, generator, batch_size=batch_size, progress=progress
            )
            if keep_images or detectors:
                rising = np.argsort(epsilons)
                kept[name] = found.images.float().cpu().numpy()[rising], best_restart(found).cpu().numpy()[rising]
    records = assemble(
        attacked,
        label=y.cpu().numpy(),
        clean_prediction=clean[0],
        clean_confidence=clean[1],
        validation_label=y_apart.cpu().numpy(),
        validation_prediction=apart[0],
        validation_confidence=apart[1],
        seed=str(seed),
        device=describe(device),
        configuration={
            "data": {**named_data(images, x, y), "examples": examples, "validation": validation},
            "attacks": described(planned),
            "search": {"precision": precision, "channels_last": channels_last},
            **({"detectors": {name: repr(one) for name, one in detectors.items()}} if detectors else {}),
            **(configuration or {}),
        },
    )
    if kept:
        records = with_images(records, kept, x.cpu().numpy(), x_apart.cpu().numpy())
        with memory_advice(batch_size):
            for name, detector in (detectors or {}).items():
                records = with_score(records, name, detector, model, device=device, batch_size=batch_size)
    if kept and not keep_images:
        records = records.drop_vars([*IMAGES, "kept_attack", "kept_epsilon"])
    return records


def split(
    images: Images | Tensors, examples: int, validation: int, device: torch.device | str = "cpu"
) -> tuple[Tensors, Tensors]:
    """Return the first test images with their labels, and the last ones with theirs.

    Returns
    -------
    tuple
        Pixels in [0, 1], shape (n, channels, height, width), float32, and labels, shape (n,), int64; for both parts.

    Raises
    ------
    ValueError, TypeError
        If there are not so many test images, or tensors are not allowed.
    """
    checked_count("examples", examples, 1)
    checked_count("validation", validation, 0)
    count = images_in(images)
    if examples + validation > count:
        name = images.name if isinstance(images, Images) else "the tensors given"
        raise ValueError(
            f"examples = {examples} and validation = {validation} are more than the {count} test images of "
            f"{name}: allowed are {count} together, as no image may be in both"
        )

    def part(chosen: slice) -> Tensors:
        if not isinstance(images, Images):
            return images[0][chosen].detach().to(device, torch.float32), images[1][chosen].to(device)
        x = torch.tensor(images.test_images[chosen], device=device).float().div_(255)
        return x, torch.tensor(images.test_labels[chosen], device=device)

    return part(slice(0, examples)), part(slice(count - validation, count))


def record(
    attack: Attack,
    model: Model,
    x: Tensor,
    y: Tensor,
    epsilons: tuple[float, ...],
    generator: torch.Generator,
    *,
    batch_size: int = 500,
    progress: bool = False,
) -> tuple[AttackRecord, Attacked]:
    """Run an attack, and return the record of it, and what it found.

    Parameters
    ----------
    attack
        The attack.
    model
        A function from images to logits.
    x, y
        Images, shape (n, ...), pixels in [0, 1], and labels, shape (n,), int64.
    epsilons
        Sizes of the perturbation, as of `Planned`.
    generator
        Source of the attack's random numbers.
    batch_size
        Examples that the model sees at once, >= 1.
    progress
        Show progress on a terminal.

    Returns
    -------
    tuple
        The record, for `assemble`; and what the attack returned, with a first axis for the epsilons.

    Raises
    ------
    ValueError, TypeError
        If an argument is not allowed.
    """
    checked_images(x, y, (0.0, 1.0))
    options: dict[str, Any] = {"progress": progress} if progress else {}
    found = attack(model, x, y, epsilon=epsilons, generator=generator, batch_size=batch_size, **options)
    norm, objective, success = attack.norm, getattr(attack, "objective", ""), getattr(found, "success", None)
    queries = getattr(found, "queries", None)
    return (
        AttackRecord(
            norm.name if isinstance(norm, Measure) else str(norm),
            epsilons,
            found.prediction.cpu().numpy(),
            found.confidence.cpu().numpy(),
            found.length.cpu().numpy(),
            objective=objective if isinstance(objective, str) else getattr(objective, "name", ""),
            success=None if success is None else success.cpu().numpy().astype(np.int8),
            effort=effort(attack),
            queries=None if queries is None else queries.cpu().numpy(),
        ),
        found,
    )


def stream(seed: int, name: str, device: torch.device | str = "cpu") -> torch.Generator:
    """Return the generator of one attack: from the seed and the attack's name alone.

    On the CPU it gives the same numbers wherever the attack runs; one on another device gives others.
    """
    state = np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))


def _ready(
    attack: Attack,
    name: str,
    model: Model,
    images: Images | Tensors,
    epsilons: tuple[float, ...],
    seed: int,
    device: torch.device,
    batch_size: int,
) -> Attack:
    """Return an attack that can be run: one that has to be prepared is so on the first training images."""
    if isinstance(attack, Adaptive) and isinstance(attack.attack, PreparedAttack) and isinstance(model, Defence):
        _restart_random(model, seed, f"prepare {name}")
        followed = attack.followed(model)
        return replace(attack, attack=_ready(attack.attack, name, followed, images, epsilons, seed, device, batch_size))
    if not isinstance(attack, PreparedAttack):
        return attack
    if not isinstance(images, Images):
        raise TypeError(
            f"planned[{name!r}] = {attack!r} is prepared on training images, and two tensors have none: allowed are "
            "Images, or what its prepare(...) returns"
        )
    count = attack.prepare_on
    _LOG.info("preparing: %s on the first %d training images", name, min(count, len(images.train_images)))
    x = torch.tensor(images.train_images[:count], device=device).float().div_(255)
    y = torch.tensor(images.train_labels[:count], device=device)
    draw = stream(seed, f"prepare {name}")
    with memory_advice(batch_size):
        _restart_random(model, seed, f"prepare {name}")
        ready: Attack = attack.prepare(model, x, y, epsilon=epsilons, generator=draw, batch_size=batch_size)
    return ready


def _searching(attack: Attack, precision: Precision, *, channels_last: bool) -> Attack:
    """Return an attack that searches in this precision: of one that follows a surrogate, the search there."""
    if isinstance(attack, Adaptive):
        return replace(attack, attack=in_precision(attack.attack, precision, channels_last=channels_last))
    return in_precision(attack, precision, channels_last=channels_last)


def _restart_random(model: Model, seed: int, name: str) -> None:
    """Give a random defence, or net, a stream of its own for each attack, so that its draws do not depend on the others."""
    own = stream(seed, f"defence {name}", torch.device("cpu")).initial_seed()
    if isinstance(model, Defence):
        model.reseed(own)
    for noise in noises_in(model):
        noise.reseed(own)


def images_in(images: Images | Tensors) -> int:
    """Return the number of test images, of the data set or of tensors that are allowed."""
    if isinstance(images, Images):
        return len(images.test_images)
    given: object = images
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(
            f"images are of the wrong type {type(images).__name__}: allowed are Images, or a pair of tensors (x, y)"
        )
    checked_images(images[0], images[1], (0.0, 1.0))
    return len(images[0])


def _sizes(images: Images | Tensors, examples: int | None, validation: int | None) -> tuple[int, int]:
    """Return how many test images to attack and how many to keep apart, with their defaults."""
    if isinstance(images, Images):
        return 1000 if examples is None else examples, 1000 if validation is None else validation
    apart = 0 if validation is None else checked_count("validation", validation, 0)
    return images_in(images) - apart if examples is None else examples, apart


def named_data(images: Images | Tensors, x: Tensor, y: Tensor) -> dict[str, str]:
    """Return what the images were: a name, or of tensors a digest of what was attacked."""
    if isinstance(images, Images):
        return {"name": images.name}
    digest = hashlib.sha256(x.cpu().numpy().tobytes() + y.cpu().numpy().tobytes()).hexdigest()
    return {"name": "tensors", "sha256": digest}
