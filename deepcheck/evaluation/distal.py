"""Distal adversarial examples: images of no class that an attack makes a net confident in.

Whatever class is predicted on noise is wrong; a net should not be confident there, nor anywhere near.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepcheck.attacks.base import Model
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import OneOf, UniformBall, Zero
from deepcheck.checks import checked_choice
from deepcheck.device import describe, exact_float32, memory_advice
from deepcheck.evaluation.records import assemble
from deepcheck.evaluation.run import predictions, record, stream
from deepcheck.evaluation.suites import long_enough
from odeflow.model import checked_count
from odeflow.numerics.memory import check_memory

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["NOISES", "distal", "distal_attack", "noise_images"]

NOISES = ("uniform", "smooth")
SMOOTHING = (1.0, 2.0)
"""Range of the standard deviation of the Gaussian filter, in pixels."""
CONTRAST = (5.0, 30.0)
"""Range of the slope of the sigmoid that raises the contrast."""
_PIXEL_BYTES = 48  # of float32: two kinds of noise, their best images, and what the attack holds meanwhile
SHOWN = 16
"""Images of each kind that are kept as pictures."""


def noise_images(kind: str, count: int, in_shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    r"""Draw images of no class.

    Parameters
    ----------
    kind
        "uniform": every pixel from U(0, 1). "smooth": then, image by image, a Gaussian filter with a standard deviation
        from U(1, 2) pixels, and the contrast :math:`1 / (1 + e^{-\gamma (x - \bar x)})`, where :math:`\bar x` is the
        image's mean, channel by channel, and :math:`\gamma` from U(5, 30).
    count
        Number of images, >= 0.
    in_shape
        Channels, height, width.
    generator
        Source of the random numbers, on the device where the images are to be.

    Returns
    -------
    Tensor
        Shape (count, channels, height, width), in [0, 1], float32.

    Raises
    ------
    ValueError, TypeError
        If the kind is unknown, or a number out of range.

    Notes
    -----
    As in Stutz, Hein, Schiele, "Confidence-Calibrated Adversarial Training", ICML 2020.
    """
    checked_choice("kind", kind, NOISES)
    checked_count("count", count, 0)
    check_memory(
        _PIXEL_BYTES * count * math.prod(in_shape),
        f"count = {count:,} noise images, and what is made of them, need",
        "fewer are allowed",
    )
    device = generator.device
    x = torch.rand((count, *in_shape), generator=generator, device=device)
    if kind == "uniform" or not count:
        return x
    sigma, gamma = (
        low + (high - low) * torch.rand(count, generator=generator, device=device)
        for low, high in (SMOOTHING, CONTRAST)
    )
    x = _smoothed(x, sigma)
    return torch.sigmoid(gamma.view(-1, 1, 1, 1) * (x - x.mean((2, 3), keepdim=True)))


def distal_attack(*, steps: int, restarts: int = 1) -> PGD:
    """Return the attack: ascent on max over k of log p_k in the L-infinity ball, from the image or near it.

    Its step is a twentieth of epsilon at first, or as long as so few steps need to cross the ball.
    """
    return PGD(
        "linf",
        "any_confidence",
        steps=steps,
        relative_step_size=long_enough(0.05, steps, 0.9),
        momentum=0.9,
        backtracking=1.1,
        start=OneOf((UniformBall(), Zero())),
        restarts=restarts,
    )


@exact_float32()
def distal(
    model: Model,
    in_shape: tuple[int, int, int],
    *,
    epsilon: float,
    count: int = 1000,
    steps: int = 1000,
    restarts: int = 2,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    configuration: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Make distal adversarial examples of a net, and record its confidence in each.

    Parameters
    ----------
    model
        A function from images to logits, on `device`. A module is put into eval mode, and back afterwards.
    in_shape
        Channels, height, width of an image.
    epsilon
        Radius of the L-infinity ball around the noise, > 0.
    count
        Noise images of each kind, >= 1.
    steps, restarts
        Of the attack, >= 1.
    seed, device, batch_size, configuration, progress
        See `evaluate`.

    Returns
    -------
    Dataset
        Records, see `deepcheck.evaluation.schema`: "clean" are the noise images themselves, and every label is -1. The
        coordinate noise (example) says which of NOISES an image is. In addition, for the first images of each kind,
        image and noise_image (shown, channel, row, column): with the attack, after the restart that reached the largest
        objective, and without; image_prediction and image_confidence (shown) are the net's for image.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range.
    MemoryError
        If a batch does not fit into the memory of the GPU.
    """
    checked_count("count", count, 1)
    checked_count("batch_size", batch_size, 1)
    if not 0 < epsilon < math.inf:
        raise ValueError(f"epsilon = {epsilon!r} is out of range: allowed is a finite number > 0")
    device = torch.device(device)
    # random numbers are drawn on the CPU, where they are the same for every device
    draw = stream(checked_count("seed", seed, 0), "noise")
    x = torch.cat([noise_images(kind, count, in_shape, draw) for kind in NOISES]).to(device)
    y = torch.zeros(len(x), dtype=torch.int64, device=device)  # of no class: the objective does not look at it
    attack = distal_attack(steps=steps, restarts=restarts)
    with memory_advice(batch_size):
        clean = predictions(model, x, batch_size)
        generator = stream(seed, "distal")
        attacked, found = record(
            attack, model, x, y, (float(epsilon),), generator, batch_size=batch_size, progress=progress
        )
    records = assemble(
        {"distal": attacked},
        label=np.full(len(x), -1),
        clean_prediction=clean[0],
        clean_confidence=clean[1],
        seed=str(seed),
        device=describe(device),
        configuration={"attack": repr(attack), "count": count, "epsilon": epsilon, **(configuration or {})},
    )
    shown = np.concatenate([kind * count + np.arange(min(count, SHOWN)) for kind in range(len(NOISES))])
    pixels = ("shown", "channel", "row", "column")
    text = {"units": "1", "long_name": "pixels of the distal adversarial example"}
    pictures = found.images[0, shown]
    prediction, confidence = predictions(model, pictures, batch_size)
    return records.assign(
        image=(pixels, pictures.cpu().numpy(), text),
        noise_image=(pixels, x[shown].cpu().numpy(), {**text, "long_name": "pixels of the noise"}),
        image_prediction=("shown", prediction, {**text, "long_name": "predicted class of image"}),
        image_confidence=("shown", confidence, {**text, "long_name": "largest class probability on image"}),
    ).assign_coords(
        shown=("shown", shown, {"units": "1", "long_name": "index of the example that is shown"}),
        noise=("example", np.repeat(np.array(NOISES, object), count), {"units": "1", "long_name": "kind of the noise"}),
    )


def _smoothed(x: Tensor, sigma: Tensor) -> Tensor:
    """Return each image after a Gaussian filter of its own width, mirrored at the edges."""
    reach = min(math.ceil(3 * SMOOTHING[1]), min(x.shape[2:]) - 1)
    offset = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(offset**2) / (2 * sigma[:, None] ** 2))
    kernel = kernel / kernel.sum(1, keepdim=True)
    n, channels = x.shape[:2]
    kernel = kernel.repeat_interleave(channels, 0)[:, None, None, :]  # one for each channel of each image
    planes = F.pad(x, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    planes = F.conv2d(planes, kernel, groups=n * channels)
    planes = F.conv2d(planes, kernel.transpose(2, 3), groups=n * channels)
    return planes.view(x.shape)
