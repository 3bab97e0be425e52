"""The former place of `deepcheck.training.methods.ccat`."""

from deepcheck.training.methods.ccat import CCAT, ccat_attack, soft_targets, true_class_weight

__all__ = ["CCAT", "ccat_attack", "soft_targets", "true_class_weight"]
