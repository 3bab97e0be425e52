"""Noise on the image."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.draws import Draws, keys
from deepcheck.defences.base import Defence
from deepcheck.defences.wrappers import EOT, mean_of_draws
from odeflow.model import checked_count, checked_number

__all__ = ["GaussianNoise"]


class GaussianNoise(Defence):
    r"""The mean over several passes of the net, each on the image with Gaussian noise of its own.

    The class probabilities are :math:`\frac1T \sum_t p(x + \sigma \xi_t)`, :math:`\xi_t \sim N(0, 1)`; the logits are their
    logarithms. The sum is not cut off at the bounds of the pixels. A smoothed classifier as in Cohen et al. (ICML 2019),
    without its vote and its certificate. Judged by EOT.

    Parameters
    ----------
    net, seed
        See `Defence`.
    sigma
        Standard deviation of the noise, >= 0, in the units of the pixels.
    passes
        Passes T through the net, >= 1.
    """

    random = True

    def __init__(self, net: Model, *, sigma: float = 0.1, passes: int = 10, seed: int = 0) -> None:
        super().__init__(net, seed=seed)
        checked_number("sigma", sigma, least=0)
        self.sigma = sigma
        self.passes = checked_count("passes", passes, 1)

    def surrogate(self) -> Model:
        """Return the mean over as many calls as make about 30 passes (EOT)."""
        return EOT(self, draws=math.ceil(30 / self.passes))

    def _logits(self, images: Tensor) -> Tensor:
        source = self.generator(torch.device("cpu"))  # whose seeds are the same on every device
        indices = torch.arange(len(images), device=images.device)

        def draw() -> Tensor:
            xi = Draws(keys(source, indices)).normal(images)
            return self.net(images + self.sigma * xi)

        return mean_of_draws(draw, self.passes)
