"""Attributions: maps of what a prediction rests on, how alike two maps are, and the attack that moves them."""

from deepcheck.attributions.attack import AttributionAttack, AttributionsAttacked
from deepcheck.attributions.maps import (
    MAPS,
    AttributionMap,
    GradientTimesInput,
    IntegratedGradients,
    Saliency,
    pixel_sizes,
)
from deepcheck.attributions.metrics import kendall_tau, spearman_rho, top_pixels_shared
from deepcheck.attributions.robustness import METRICS, attribution_robustness, attribution_summary

__all__ = [
    "MAPS",
    "METRICS",
    "AttributionAttack",
    "AttributionMap",
    "AttributionsAttacked",
    "GradientTimesInput",
    "IntegratedGradients",
    "Saliency",
    "attribution_robustness",
    "attribution_summary",
    "kendall_tau",
    "pixel_sizes",
    "spearman_rho",
    "top_pixels_shared",
]
