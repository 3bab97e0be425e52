"""Attack a net in all ways of a suite, and record every attacked example."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepcheck.attacks.base import Attack, Attacked, Model, checked_images, checked_logits, evaluating
from deepcheck.attacks.norms import Norm
from deepcheck.data import Images
from deepcheck.device import describe, memory_advice
from deepcheck.evaluation.records import AttackRecord, assemble
from deepcheck.evaluation.suites import Planned, described
from odeflow.model import checked_count

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["evaluate", "predictions", "record", "split"]

_LOG = logging.getLogger(__name__)


def evaluate(
    model: Model,
    images: Images,
    planned: Mapping[str, Planned],
    *,
    examples: int = 1000,
    validation: int = 1000,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    configuration: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Attack a net on the first test images, and record every attacked example.

    Parameters
    ----------
    model
        A function from images to logits, on `device`. A module is put into eval mode, and back afterwards.
    images
        The data set. Test images alone are used.
    planned
        Attacks by name, as from `suite`.
    examples
        Number of test images to attack, the first ones, >= 1.
    validation
        Number of test images kept apart for the confidence threshold, the last ones, >= 0.
    seed
        Of the attacks, >= 0. Each attack has a stream of its own: its result does not depend on the others.
    device
        Where the model is.
    batch_size
        Examples that the model sees at once, >= 1. The result does not depend on it.
    configuration
        For the attributes of the result, such as the net's.
    progress
        Show progress on a terminal.

    Returns
    -------
    Dataset
        Records, see `deepcheck.evaluation.records`.

    Raises
    ------
    ValueError, TypeError
        If there are too few images, or a number is out of range; before any attack.
    MemoryError
        If a batch does not fit into the memory of the GPU.
    """
    checked_count("seed", seed, 0)
    checked_count("batch_size", batch_size, 1)
    if not planned or not {"", "clean"}.isdisjoint(planned):
        raise ValueError(f"planned = {list(planned)} is not allowed: one attack or more is, not named '' or 'clean'")
    device = torch.device(device)
    (x, y), (x_apart, y_apart) = split(images, examples, validation, device)
    with memory_advice(batch_size):
        clean, apart = predictions(model, x, batch_size), predictions(model, x_apart, batch_size)
        attacked = {}
        for name, one in planned.items():
            _LOG.info("attacking: %s at epsilon = %s", name, ", ".join(f"{value:.4g}" for value in one.epsilons))
            generator = stream(seed, name, torch.device("cpu"))  # whose seeds are the same on every device
            attacked[name] = record(
                one.attack, model, x, y, one.epsilons, generator, batch_size=batch_size, progress=progress
            )[0]
    return assemble(
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
            "data": {"name": images.name, "examples": examples, "validation": validation},
            "attacks": described(planned),
            **(configuration or {}),
        },
    )


def split(
    images: Images, examples: int, validation: int, device: torch.device | str = "cpu"
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return the first test images with their labels, and the last ones with theirs.

    Returns
    -------
    tuple
        Pixels in [0, 1], shape (n, channels, height, width), float32, and labels, shape (n,), int64; for both parts.

    Raises
    ------
    ValueError
        If there are not so many test images.
    """
    checked_count("examples", examples, 1)
    checked_count("validation", validation, 0)
    count = len(images.test_images)
    if examples + validation > count:
        raise ValueError(
            f"examples = {examples} and validation = {validation} are more than the {count} test images of "
            f"{images.name}: allowed are {count} together, as no image may be in both"
        )

    def part(chosen: slice) -> tuple[Tensor, Tensor]:
        x = torch.tensor(images.test_images[chosen], device=device).float().div_(255)
        return x, torch.tensor(images.test_labels[chosen], device=device)

    return part(slice(0, examples)), part(slice(count - validation, count))


def predictions(model: Model, x: Tensor, batch_size: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Return the predicted class of each image, shape (n,), and its probability, with the model in eval mode."""
    if not len(x):
        return np.zeros(0, np.int64), np.zeros(0, np.float32)
    with evaluating(model), torch.no_grad():
        logits = torch.cat([model(part).float() for part in torch.split(x, batch_size)])
    checked_logits(logits, len(x), torch.zeros(0, dtype=torch.int64))
    confidence, prediction = logits.softmax(1).max(1)
    return prediction.cpu().numpy(), confidence.cpu().numpy()


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
    """Run an attack, and return the record of it, and what it found."""
    checked_images(x, y, (0.0, 1.0))
    options: dict[str, Any] = {"progress": progress} if progress else {}
    found = attack(model, x, y, epsilon=epsilons, generator=generator, batch_size=batch_size, **options)
    norm = attack.norm
    return (
        AttackRecord(
            norm.name if isinstance(norm, Norm) else str(norm),
            epsilons,
            found.prediction.cpu().numpy(),
            found.confidence.cpu().numpy(),
            found.length.cpu().numpy(),
            getattr(getattr(attack, "objective", ""), "name", ""),
        ),
        found,
    )


def stream(seed: int, name: str, device: torch.device) -> torch.Generator:
    """Return the generator of one attack: from the seed and the attack's name alone."""
    state = np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0] >> np.uint64(1)))
