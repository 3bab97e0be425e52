"""Attacks: frozen configurations that are called with a model, images and labels."""

import deepcheck._torch  # noqa: F401
from deepcheck.attacks.base import Attack, Attacked
from deepcheck.attacks.black_box.noise import UniformNoise
from deepcheck.attacks.black_box.square import Square
from deepcheck.attacks.calls import NotFiniteWarning, ProbabilityWarning
from deepcheck.attacks.gradient.apgd import APGD, apgd_ce, apgd_t
from deepcheck.attacks.minimal.base import MinimalAttack, WithinBudget
from deepcheck.attacks.minimal.deepfool import DeepFool
from deepcheck.attacks.norms import L0, L1, L2, LInf, Norm

# from its former place, so that the module of this name is loaded before the function takes the name
from deepcheck.attacks.pgd import PGD, bim, fgsm, mim, pgd, targeted_pgd
from deepcheck.attacks.registry import ATTACKS

__all__ = [
    "APGD",
    "ATTACKS",
    "L0",
    "L1",
    "L2",
    "PGD",
    "Attack",
    "Attacked",
    "DeepFool",
    "LInf",
    "MinimalAttack",
    "Norm",
    "NotFiniteWarning",
    "ProbabilityWarning",
    "Square",
    "UniformNoise",
    "WithinBudget",
    "apgd_ce",
    "apgd_t",
    "bim",
    "fgsm",
    "mim",
    "pgd",
    "targeted_pgd",
]
