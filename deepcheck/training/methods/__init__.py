"""Training methods: one a file, and all of them by name.

A method's file loads torch only inside its functions, so that a command line can be built from the fields quickly.
"""

from __future__ import annotations

from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.base import AttackingMethod, Method, Name, RecordableMethod
from deepcheck.training.methods.ccat import CCAT
from deepcheck.training.methods.distillation import Distillation
from deepcheck.training.methods.noise_layers import NoiseLayers
from deepcheck.training.methods.standard import Standard

__all__ = ["METHODS", "AttackingMethod", "Method", "Name", "RecordableMethod"]

METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "at": AdversarialTraining,
    "ccat": CCAT,
    "distillation": Distillation,
    "noise_layers": NoiseLayers,
}
"""All training methods by name."""
