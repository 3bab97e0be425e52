"""The corruptions by name, and those that a benchmark is made of."""

from __future__ import annotations

from collections.abc import Iterable

from deepcheck.checks import checked_choice
from deepcheck.corruptions.base import Corruption
from deepcheck.corruptions.blur import DefocusBlur, GaussianBlur, GlassBlur, MotionBlur, ZoomBlur
from deepcheck.corruptions.digital import Contrast, JpegCompression, Pixelate, Quantize, Saturate
from deepcheck.corruptions.geometric import ElasticTransform, Rotate, Scale, Shear, Translate
from deepcheck.corruptions.noise import GaussianNoise, ImpulseNoise, ShotNoise, SpeckleNoise
from deepcheck.corruptions.strokes import CannyEdges, DottedLine, Stripe, Zigzag
from deepcheck.corruptions.weather import Brightness, Fog, Frost, Snow, Spatter

__all__ = ["BENCHMARKS", "CORRUPTIONS", "chosen", "listed"]

CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": GaussianNoise(),
    "shot_noise": ShotNoise(),
    "impulse_noise": ImpulseNoise(),
    "speckle_noise": SpeckleNoise(),
    "gaussian_blur": GaussianBlur(),
    "defocus_blur": DefocusBlur(),
    "glass_blur": GlassBlur(),
    "motion_blur": MotionBlur(),
    "zoom_blur": ZoomBlur(),
    "snow": Snow(),
    "frost": Frost(),
    "fog": Fog(),
    "brightness": Brightness(),
    "spatter": Spatter(),
    "contrast": Contrast(),
    "saturate": Saturate(),
    "pixelate": Pixelate(),
    "quantize": Quantize(),
    "jpeg_compression": JpegCompression(),
    "stripe": Stripe(),
    "dotted_line": DottedLine(),
    "zigzag": Zigzag(),
    "canny_edges": CannyEdges(),
    "elastic_transform": ElasticTransform(),
    "shear": Shear(),
    "rotate": Rotate(),
    "scale": Scale(),
    "translate": Translate(),
}
"""By name, in the groups noise, blur, weather, digital, geometric."""

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "mnist_c": (
        "shot_noise",
        "impulse_noise",
        "glass_blur",
        "motion_blur",
        "fog",
        "brightness",
        "spatter",
        "stripe",
        "dotted_line",
        "zigzag",
        "canny_edges",
        "shear",
        "rotate",
        "scale",
        "translate",
    ),
    "cifar10_c": (
        "gaussian_noise",
        "shot_noise",
        "impulse_noise",
        "defocus_blur",
        "glass_blur",
        "motion_blur",
        "zoom_blur",
        "snow",
        "frost",
        "fog",
        "brightness",
        "contrast",
        "pixelate",
        "jpeg_compression",
        "elastic_transform",
    ),
}
"""The fifteen corruptions of MNIST-C and those of CIFAR-10-C, whose mean is published."""


def chosen(names: Iterable[str] | None, channels: int) -> tuple[str, ...]:
    """Return the names of corruptions for images of so many channels, each once, in the order given.

    Parameters
    ----------
    names
        Names; "mnist_c" and "cifar10_c" stand for their fifteen, "all" for all that there are for such images. None: the
        fifteen of MNIST-C for grey images, of CIFAR-10-C for coloured ones.
    channels
        1 or 3.

    Raises
    ------
    ValueError, TypeError
        If a name is unknown, there is none, or it is none for such images.
    """
    if isinstance(names, str):
        raise TypeError(f"corruptions = {names!r} is of the wrong type: allowed is a list of names")
    if names is None:
        return BENCHMARKS["mnist_c" if channels == 1 else "cifar10_c"]
    fitting = tuple(name for name, one in CORRUPTIONS.items() if channels != 1 or one.grey is not None)
    groups = {"all": fitting, **BENCHMARKS}
    found: dict[str, None] = {}
    for name in names:
        checked_choice("corruption", name, (*CORRUPTIONS, *groups))
        found |= dict.fromkeys(groups.get(name, (name,)))
    if not found:
        raise ValueError("corruptions = [] is not allowed: one name or more is")
    for name in found:
        CORRUPTIONS[name].parameters(channels)
    return tuple(found)


def listed() -> str:
    """Return all corruptions, a line each: name, group, what it does, and where its numbers are from."""
    wide = max(map(len, CORRUPTIONS))
    lines = [f"{'name':<{wide}}  {'group':<9}  {'grey':<20}  {'colour':<10}  what it does"]
    for name, one in CORRUPTIONS.items():
        text = (one.__doc__ or "").splitlines()[0]
        grey = "none" if one.grey is None else one.grey_from
        lines.append(f"{name:<{wide}}  {one.group:<9}  {grey:<20}  {one.colour_from:<10}  {text}")
    return "\n".join(lines)
