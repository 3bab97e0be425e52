"""The defences by name: what the common tests know them by."""

from __future__ import annotations

from deepcheck.defences.base import Defence
from deepcheck.defences.bit_depth import BitDepth
from deepcheck.defences.defense_gan import DefenseGAN
from deepcheck.defences.gaussian_noise import GaussianNoise
from deepcheck.defences.jpeg import JPEG
from deepcheck.defences.median import Median
from deepcheck.defences.noise_ensemble import NoiseEnsemble
from deepcheck.defences.resize_pad import ResizePad

__all__ = ["DEFENCES"]

DEFENCES: dict[str, type[Defence]] = {
    "bit_depth": BitDepth,
    "defense_gan": DefenseGAN,
    "gaussian_noise": GaussianNoise,
    "resize_pad": ResizePad,
    "noise_ensemble": NoiseEnsemble,
    "jpeg": JPEG,
    "median": Median,
}
"""Name to class."""
