"""Noise on the image."""

from __future__ import annotations

from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.draws import Draws
from deepcheck.defences.passes import RandomPasses
from odeflow.model import checked_number

__all__ = ["GaussianNoise"]


class GaussianNoise(RandomPasses):
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

    def __init__(self, net: Model, *, sigma: float = 0.1, passes: int = 10, seed: int = 0) -> None:
        super().__init__(net, passes=passes, seed=seed)
        self.sigma = checked_number("sigma", sigma, least=0)

    def one_pass(self, images: Tensor, draws: Draws) -> Tensor:
        """Return the logits of the images with noise, shape (n, K)."""
        return self.net(images + self.sigma * draws.normal(images))
