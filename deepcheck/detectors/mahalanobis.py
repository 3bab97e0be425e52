"""Distance of the features from the nearest class."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.checks import checked_choice
from deepcheck.detectors.base import Detector
from odeflow.model import checked_number

__all__ = ["Mahalanobis"]


@dataclass(frozen=True)
class Mahalanobis(Detector):
    r"""Squared Mahalanobis distance of the features from the nearest class (Lee et al., NeurIPS 2018).

    .. math:: s(x) = -\min_k (\phi(x) - \mu_k)^\top \Sigma^{-1} (\phi(x) - \mu_k)

    with the mean :math:`\mu_k` of the features of the training images of class k, and the covariance
    :math:`\Sigma = \frac1n \sum_k \sum_{y_i = k} (\phi(x_i) - \mu_k)(\phi(x_i) - \mu_k)^\top` that all classes share.
    Of the paper this is the score of one layer, without noise added to the image and without a regression on layers.
    """

    name: ClassVar[str] = "mahalanobis"
    rejects: ClassVar[tuple[str, ...]] = ("noise", "attacked")

    of: Literal["features", "logits"] = "features"
    """What is taken for phi: the layer before the logits, ``net.features``, or the logits."""
    shrinkage: float = 1e-3
    r"""Weight lambda in (0, 1) of the mean variance: :math:`(1 - \lambda) \Sigma + \lambda \bar\sigma^2 1` is inverted. Features
    that never change would make :math:`\Sigma` singular."""

    def __post_init__(self) -> None:
        checked_choice("of", self.of, ("features", "logits"))
        checked_number("shrinkage", self.shrinkage, above=0, below=1)

    def _learn(self, net: Model, images: Tensor, labels: Tensor, batch_size: int) -> dict[str, Tensor]:
        phi = self._phi(net)
        features = torch.cat([phi(part).double() for part in torch.split(images, batch_size)])
        n, d = features.shape
        classes, index = labels.unique(return_inverse=True)
        total = features.new_zeros(len(classes), d).index_add_(0, index, features)
        mu = total / index.bincount()[:, None]
        centred = features - mu[index]
        Sigma = centred.T @ centred / n
        variance = Sigma.diagonal().mean()
        if not variance > 0:
            raise ValueError("images have the same features in every class: allowed are some that differ")
        Sigma = (1 - self.shrinkage) * Sigma + self.shrinkage * variance * torch.eye(
            d, device=Sigma.device, dtype=Sigma.dtype
        )
        # (phi - mu)^T Sigma^-1 (phi - mu) = |whitening (phi - mu)|^2, a sum of squares, which no rounding makes negative
        factor = torch.linalg.cholesky(Sigma)
        whitening = torch.linalg.solve_triangular(
            factor, torch.eye(d, device=Sigma.device, dtype=Sigma.dtype), upper=False
        )
        return {"whitening": whitening, "centres": mu @ whitening.T}

    def _score(self, net: Model, images: Tensor, state: Mapping[str, Tensor]) -> Tensor:
        white = self._phi(net)(images).double() @ state["whitening"].T
        distance = (white[:, None] - state["centres"]).square().sum(2)
        return -distance.amin(1).float()

    def _phi(self, net: Model) -> Callable[[Tensor], Tensor]:
        if self.of == "logits":
            return lambda x: net(x.clone())  # which it may overwrite
        features: Callable[[Tensor], Tensor] | None = getattr(net, "features", None)
        if not callable(features):
            raise TypeError("net has no method features: allowed is one that has, or Mahalanobis(of='logits')")
        return lambda x: features(x.clone()).flatten(1)
