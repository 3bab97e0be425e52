"""Evaluation: attack, record every attacked example, and compute every published number from the records."""

from deepcheck.evaluation.detection import (
    detection,
    false_positive_rate,
    negative_confidences,
    positive_confidences,
    roc,
    roc_auc,
)
from deepcheck.evaluation.records import AttackRecord, assemble, checked
from deepcheck.evaluation.robustness import curve_area, robust_error, robustness_curve, worst_case
from deepcheck.evaluation.thresholds import confidence_threshold, standard_error, test_error, threshold_of

__all__ = [
    "AttackRecord",
    "assemble",
    "checked",
    "confidence_threshold",
    "curve_area",
    "detection",
    "false_positive_rate",
    "negative_confidences",
    "positive_confidences",
    "robust_error",
    "robustness_curve",
    "roc",
    "roc_auc",
    "standard_error",
    "test_error",
    "threshold_of",
    "worst_case",
]
