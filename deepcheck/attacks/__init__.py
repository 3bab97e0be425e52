"""Attacks: frozen configurations that are called with a model, images and labels."""

import deepcheck._torch  # noqa: F401
from deepcheck.attacks.base import Attack, Attacked
from deepcheck.attacks.black_box.hop_skip_jump import HopSkipJump
from deepcheck.attacks.black_box.local_search import LocalSearch
from deepcheck.attacks.black_box.noise import UniformNoise
from deepcheck.attacks.black_box.opt_attack import OptAttack
from deepcheck.attacks.black_box.spsa import SPSA, nes
from deepcheck.attacks.black_box.square import Square
from deepcheck.attacks.black_box.zoo import ZOO
from deepcheck.attacks.calls import NotFiniteWarning, ProbabilityWarning
from deepcheck.attacks.gradient.apgd import APGD, apgd_ce, apgd_t
from deepcheck.attacks.gradient.confident import confident_pgd
from deepcheck.attacks.minimal.base import MinimalAttack, WithinBudget
from deepcheck.attacks.minimal.carlini_wagner import CarliniWagner
from deepcheck.attacks.minimal.deepfool import DeepFool
from deepcheck.attacks.minimal.ead import EAD
from deepcheck.attacks.minimal.fab import FAB, fab_t
from deepcheck.attacks.minimal.jsma import JSMA
from deepcheck.attacks.norms import L0, L1, L2, LInf, Norm

# from its former place, so that the module of this name is loaded before the function takes the name
from deepcheck.attacks.pgd import PGD, bim, fgsm, mim, pgd, targeted_pgd
from deepcheck.attacks.prepared.base import PreparedAttack
from deepcheck.attacks.prepared.transfer import Substitute, Transfer
from deepcheck.attacks.prepared.universal import Universal, UniversalPerturbation
from deepcheck.attacks.registry import ATTACKS
from deepcheck.attacks.spatial.colour import Colour
from deepcheck.attacks.spatial.rotation import Rotation
from deepcheck.attacks.spatial.transformations import Additive, Flow, Rigid
from deepcheck.attacks.spatial.transformed import Combined, ReColorAdv, StAdv, Transformed

__all__ = [
    "APGD",
    "ATTACKS",
    "EAD",
    "FAB",
    "JSMA",
    "L0",
    "L1",
    "L2",
    "PGD",
    "SPSA",
    "ZOO",
    "Additive",
    "Attack",
    "Attacked",
    "CarliniWagner",
    "Colour",
    "Combined",
    "DeepFool",
    "Flow",
    "HopSkipJump",
    "LInf",
    "LocalSearch",
    "MinimalAttack",
    "Norm",
    "NotFiniteWarning",
    "OptAttack",
    "PreparedAttack",
    "ProbabilityWarning",
    "ReColorAdv",
    "Rigid",
    "Rotation",
    "Square",
    "StAdv",
    "Substitute",
    "Transfer",
    "Transformed",
    "UniformNoise",
    "Universal",
    "UniversalPerturbation",
    "WithinBudget",
    "apgd_ce",
    "apgd_t",
    "bim",
    "confident_pgd",
    "fab_t",
    "fgsm",
    "mim",
    "nes",
    "pgd",
    "targeted_pgd",
]
