"""Evaluation: attack, record every attacked example, and compute every published number from the records."""

import deepcheck._torch  # noqa: F401
from deepcheck.evaluation.corrupted import (
    corrupted_images,
    corruption_errors,
    format_corruption_table,
    mean_corruption_error,
)
from deepcheck.evaluation.detection import (
    detection,
    false_positive_rate,
    negative_confidences,
    negative_scores,
    positive_confidences,
    positive_scores,
    roc,
    roc_auc,
)
from deepcheck.evaluation.distal import distal, noise_images
from deepcheck.evaluation.queries import queries_needed, success_over_queries
from deepcheck.evaluation.records import AttackRecord, assemble, checked, joined
from deepcheck.evaluation.rejection import rejection
from deepcheck.evaluation.robustness import curve_area, robust_error, robustness_curve, worst_case
from deepcheck.evaluation.run import evaluate, record, split
from deepcheck.evaluation.sanity import Check, sanity_checks
from deepcheck.evaluation.scores import Scores, scores_of, with_score
from deepcheck.evaluation.separation import (
    PropositionWarning,
    binomial_bounds,
    chebyshev_bounds,
    composed,
    confident_attacks,
    loss_bounds,
    separation,
    wrong_confidences,
)
from deepcheck.evaluation.standard import standard_attack
from deepcheck.evaluation.suites import (
    SUITES,
    THREATS,
    Planned,
    Threats,
    adaptive,
    confidence_attack,
    oblivious,
    planned_suite,
    standard_suite,
    suite,
)
from deepcheck.evaluation.summary import format_summary, summary
from deepcheck.evaluation.tables import attack_table, format_attack_table
from deepcheck.evaluation.thresholds import confidence_threshold, standard_error, test_error, threshold_of
from deepcheck.evaluation.transfer import transfer_matrix
from deepcheck.evaluation.warned import Warned, looked_at

__all__ = [
    "SUITES",
    "THREATS",
    "AttackRecord",
    "Check",
    "Planned",
    "PropositionWarning",
    "Scores",
    "Threats",
    "Warned",
    "adaptive",
    "assemble",
    "attack_table",
    "binomial_bounds",
    "chebyshev_bounds",
    "checked",
    "composed",
    "confidence_attack",
    "confidence_threshold",
    "confident_attacks",
    "corrupted_images",
    "corruption_errors",
    "curve_area",
    "detection",
    "distal",
    "evaluate",
    "false_positive_rate",
    "format_attack_table",
    "format_corruption_table",
    "format_summary",
    "joined",
    "looked_at",
    "loss_bounds",
    "mean_corruption_error",
    "negative_confidences",
    "negative_scores",
    "noise_images",
    "oblivious",
    "planned_suite",
    "positive_confidences",
    "positive_scores",
    "queries_needed",
    "record",
    "rejection",
    "robust_error",
    "robustness_curve",
    "roc",
    "roc_auc",
    "sanity_checks",
    "scores_of",
    "separation",
    "split",
    "standard_attack",
    "standard_error",
    "standard_suite",
    "success_over_queries",
    "suite",
    "summary",
    "test_error",
    "threshold_of",
    "transfer_matrix",
    "with_score",
    "worst_case",
    "wrong_confidences",
]
