"""The former place of `deepcheck.attacks.gradient.pgd`."""

from deepcheck.attacks.gradient.pgd import PGD, bim, fgsm, mim, pgd, targeted_pgd, whole_steps
from deepcheck.attacks.points import Points

__all__ = ["PGD", "Points", "bim", "fgsm", "mim", "pgd", "targeted_pgd", "whole_steps"]
