"""The defences by name: what the common tests know them by."""

from __future__ import annotations

import inspect
from typing import Any

from deepcheck.attacks.base import Model
from deepcheck.checks import checked_choice
from deepcheck.defences.base import Defence
from deepcheck.defences.bit_depth import BitDepth
from deepcheck.defences.defense_gan import DefenseGAN
from deepcheck.defences.gaussian_noise import GaussianNoise
from deepcheck.defences.jpeg import JPEG
from deepcheck.defences.median import Median
from deepcheck.defences.neighbours import HCNN, MCN, NCN, MCNRenyi, MCNShannon
from deepcheck.defences.noise_ensemble import NoiseEnsemble
from deepcheck.defences.resize_pad import ResizePad

__all__ = ["DEFENCES", "listed", "make", "options_of"]

DEFENCES: dict[str, type[Defence]] = {
    "bit_depth": BitDepth,
    "defense_gan": DefenseGAN,
    "gaussian_noise": GaussianNoise,
    "resize_pad": ResizePad,
    "noise_ensemble": NoiseEnsemble,
    "jpeg": JPEG,
    "median": Median,
    "mcn": MCN,
    "hcnn": HCNN,
    "ncn": NCN,
    "mcn_shannon": MCNShannon,
    "mcn_renyi": MCNRenyi,
}
"""Name to class."""


def make(name: str, net: Model, *, seed: int = 0, **options: Any) -> Defence:
    """Return a defence around a net, by its name.

    Raises
    ------
    ValueError, TypeError
        If the name or an option is unknown, or a value is not allowed.
    """
    kind = DEFENCES[checked_choice("defence", name, DEFENCES)]
    for option in options:
        checked_choice(f"option of {name}", option, options_of(name))
    return kind(net, seed=seed, **options)


def options_of(name: str) -> dict[str, Any]:
    """Return the options of a defence and their defaults; net and seed are not among them."""
    parameters = inspect.signature(DEFENCES[name]).parameters
    return {key: one.default for key, one in parameters.items() if key not in ("net", "seed")}


def listed() -> str:
    """Return a text with a line for each defence: name, whether it is random, whether it has a gradient, and what it is."""
    lines = []
    for name, kind in DEFENCES.items():
        words = ("random" if kind.random else "", "gradient" if kind.has_gradient else "no gradient")
        about = (inspect.getdoc(kind) or "").splitlines()[0]
        lines.append(f"{name:<16} {words[0]:<7} {words[1]:<12} {about}")
    return "\n".join(lines)
