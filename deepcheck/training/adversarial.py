"""The former place of `deepcheck.training.methods.at`."""

from deepcheck.training.methods.at import AdversarialTraining

__all__ = ["AdversarialTraining"]
