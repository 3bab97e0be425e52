"""Defences: what wraps a trained net at test time, and the attack that it must be judged by."""

import deepcheck._torch  # noqa: F401
from deepcheck.defences.base import Adaptive, Defence, Oblivious
from deepcheck.defences.bit_depth import BitDepth
from deepcheck.defences.defense_gan import DefenseGAN
from deepcheck.defences.gaussian_noise import GaussianNoise
from deepcheck.defences.jpeg import JPEG
from deepcheck.defences.median import Median
from deepcheck.defences.neighbours import HCNN, MCN, NCN, MCNRenyi, MCNShannon, PulledBack
from deepcheck.defences.noise_ensemble import NoiseEnsemble
from deepcheck.defences.on_manifold import OnManifold
from deepcheck.defences.registry import DEFENCES, make
from deepcheck.defences.resize_pad import ResizePad
from deepcheck.defences.wrappers import BPDA, EOT, Behind

__all__ = [
    "BPDA",
    "DEFENCES",
    "EOT",
    "HCNN",
    "JPEG",
    "MCN",
    "NCN",
    "Adaptive",
    "Behind",
    "BitDepth",
    "Defence",
    "DefenseGAN",
    "GaussianNoise",
    "MCNRenyi",
    "MCNShannon",
    "Median",
    "NoiseEnsemble",
    "Oblivious",
    "OnManifold",
    "PulledBack",
    "ResizePad",
    "make",
]
