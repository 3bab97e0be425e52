"""Attacks: frozen configurations that are called with a model, images and labels."""

from deepcheck.attacks.base import Attack, Attacked
from deepcheck.attacks.norms import L0, L1, L2, LInf, Norm
from deepcheck.attacks.pgd import PGD, bim, fgsm, mim, pgd

__all__ = ["L0", "L1", "L2", "PGD", "Attack", "Attacked", "LInf", "Norm", "bim", "fgsm", "mim", "pgd"]
