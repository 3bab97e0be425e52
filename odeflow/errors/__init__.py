"""Errors of classifiers, clean and under attack, with rejection, and with the most confident neighbour's answer.

Linear classifiers by formulas that broadcast, two-layer networks up to their quadrature; all exact at any N.
"""

from odeflow.errors.linear import adversarial_error, classification_error, robustness_curve
from odeflow.errors.margins import Margins, confidence_threshold
from odeflow.errors.networks import composed, robustness
from odeflow.errors.separation import most_confident_neighbour, rejection, separation

__all__ = [
    "Margins",
    "adversarial_error",
    "classification_error",
    "composed",
    "confidence_threshold",
    "most_confident_neighbour",
    "rejection",
    "robustness",
    "robustness_curve",
    "separation",
]
