"""Detectors: fitted on clean training images, they give every image a score, large where it is to be accepted."""

import deepcheck._torch  # noqa: F401
from deepcheck.detectors.base import Detector
from deepcheck.detectors.confidence import Confidence
from deepcheck.detectors.mahalanobis import Mahalanobis
from deepcheck.detectors.registry import DETECTORS, load_detector

__all__ = ["DETECTORS", "Confidence", "Detector", "Mahalanobis", "load_detector"]
