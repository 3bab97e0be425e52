"""Training methods: one a file, and all of them by name.

A method's file loads torch only inside its functions, so that a command line can be built from the fields quickly.
"""

from __future__ import annotations

from deepcheck.training.methods.alp import LogitPairing
from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.base import AttackingMethod, Method, Name, RampedMethod, RecordableMethod
from deepcheck.training.methods.ccat import CCAT
from deepcheck.training.methods.cure import CURE
from deepcheck.training.methods.distillation import Distillation
from deepcheck.training.methods.fast_at import FastAT
from deepcheck.training.methods.free_at import FreeAT
from deepcheck.training.methods.ig_norm import IGNorm
from deepcheck.training.methods.ig_sum_norm import IGSumNorm
from deepcheck.training.methods.interpolated_at import InterpolatedAT
from deepcheck.training.methods.llr import LLR
from deepcheck.training.methods.noise_layers import NoiseLayers
from deepcheck.training.methods.non_robust_at import NonRobustAT
from deepcheck.training.methods.random_at import RandomAT
from deepcheck.training.methods.standard import Standard
from deepcheck.training.methods.trades import Trades
from deepcheck.training.methods.vertex_mixup import VertexMixup

__all__ = ["METHODS", "AttackingMethod", "Method", "Name", "RampedMethod", "RecordableMethod"]

METHODS: dict[str, type[Method]] = {
    "standard": Standard,
    "at": AdversarialTraining,
    "ccat": CCAT,
    "trades": Trades,
    "alp": LogitPairing,
    "interpolated_at": InterpolatedAT,
    "vertex_mixup": VertexMixup,
    "fast_at": FastAT,
    "free_at": FreeAT,
    "random_at": RandomAT,
    "non_robust_at": NonRobustAT,
    "cure": CURE,
    "llr": LLR,
    "ig_norm": IGNorm,
    "ig_sum_norm": IGSumNorm,
    "distillation": Distillation,
    "noise_layers": NoiseLayers,
}
"""All training methods by name."""
