"""The confidence as a detector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.calls import logits_of
from deepcheck.detectors.base import Detector

__all__ = ["Confidence"]


@dataclass(frozen=True)
class Confidence(Detector):
    r"""The largest class probability (Hendrycks and Gimpel, ICLR 2017): :math:`\max_k p_k(x)`, in [1/K, 1]. Exact.

    It has nothing to learn. Records have it in any case, under "confidence", and of every restart.
    """

    name: ClassVar[str] = "confidence"
    rejects: ClassVar[tuple[str, ...]] = ("noise",)

    def _learn(self, net: Model, images: Tensor, labels: Tensor, batch_size: int) -> dict[str, Tensor]:  # noqa: ARG002
        return {}

    def _score(self, net: Model, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        return logits_of(net, images).float().softmax(1).amax(1)
