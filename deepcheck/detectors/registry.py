"""The detectors by name: what the common tests, records and files know them by."""

from __future__ import annotations

import os

from deepcheck import checkpoint
from deepcheck.checks import checked_choice
from deepcheck.detectors.base import FILE, Detector
from deepcheck.detectors.confidence import Confidence
from deepcheck.detectors.mahalanobis import Mahalanobis

__all__ = ["DETECTORS", "load_detector"]

DETECTORS: dict[str, type[Detector]] = {
    "confidence": Confidence,
    "mahalanobis": Mahalanobis,
}
"""Name to class."""


def load_detector(path: str | os.PathLike[str]) -> Detector:
    """Return the fitted detector of a file that `Detector.save` has written.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, or holds no detector.
    ValueError
        If it holds one that is not in DETECTORS.
    """
    tensors, info = checkpoint.read(path)
    if FILE not in info:
        raise checkpoint.CheckpointError(f"{str(path)!r} holds no detector: allowed is a file that Detector.save wrote")
    about = info[FILE]
    if not isinstance(about, dict) or not isinstance(about.get("options"), dict):
        raise checkpoint.CheckpointError(f"{str(path)!r} describes no detector: {about!r}"[:300])
    kind = DETECTORS[checked_choice("detector", about.get("name"), DETECTORS)]
    try:
        return kind(**about["options"]).restored(tensors)
    except (TypeError, KeyError, RuntimeError) as error:
        raise checkpoint.CheckpointError(
            f"{str(path)!r} holds no whole detector: {' '.join(str(error).split())}"
        ) from None
