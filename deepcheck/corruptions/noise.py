"""Noise, pixel by pixel."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from deepcheck.attacks.draws import Draws
from deepcheck.corruptions.base import Corruption

__all__ = ["GaussianNoise", "ImpulseNoise", "ShotNoise", "SpeckleNoise", "poisson"]

_BELOW, _STEPS = 4, 8
"""A quantile of the Poisson law is at most 4 below the approximation and 3 above, for means from 0 to 2000 at least."""


class GaussianNoise(Corruption):
    r"""Gaussian noise: x + c z, z from N(0, 1)."""

    group = "noise"
    grey = (0.08, 0.12, 0.18, 0.26, 0.38)
    colour = (0.04, 0.06, 0.08, 0.09, 0.10)

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Add the noise."""
        return images + parameter * draws.normal(images)


class ShotNoise(Corruption):
    """Shot noise: a Poisson number of mean c x, over c; its variance is x / c."""

    group = "noise"
    grey = (60, 25, 12, 5, 3)
    colour = (500, 250, 100, 75, 50)
    published = 5

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Draw the numbers."""
        share = (1 + draws.symmetric(images).double()) / 2
        return (poisson(images.double() * parameter, share) / parameter).to(images)


class ImpulseNoise(Corruption):
    """Impulse noise: a share c of the pixels, channel by channel, is black or white, as often the one as the other."""

    group = "noise"
    grey = (0.03, 0.06, 0.09, 0.17, 0.27)
    colour = (0.01, 0.02, 0.03, 0.05, 0.07)
    published = 4

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Put them."""
        u = draws.symmetric(images)
        return torch.where(u.abs() < parameter, (u > 0).to(images), images)


class SpeckleNoise(Corruption):
    """Speckle noise: x + c x z, z from N(0, 1): the brighter, the noisier."""

    group = "noise"
    grey = (0.15, 0.2, 0.35, 0.45, 0.6)
    colour = (0.06, 0.1, 0.12, 0.16, 0.2)

    def apply(self, images: Tensor, parameter: float, draws: Draws) -> Tensor:
        """Add the noise."""
        return images + parameter * images * draws.normal(images)


def poisson(mean: Tensor, share: Tensor) -> Tensor:
    r"""Return quantiles of Poisson laws (exact): the least k with :math:`P(N \le k) = Q(k + 1, \lambda) \ge u`.

    Q is the regularised upper incomplete gamma function, taken once; terms are added to it. The approximation :math:`\lambda + \sqrt\lambda z + (z^2 - 1) / 6` of
    Cornish and Fisher, with the normal quantile z, says where to look.

    Parameters
    ----------
    mean
        lambda >= 0, float64.
    share
        u, in (0, 1), of the same shape; not nearer to its ends than numbers of single precision are.
    """
    z = math.sqrt(2) * torch.special.erfinv(2 * share - 1)
    k = ((mean + mean.sqrt() * z + (z * z - 1) / 6).floor() - _BELOW).clamp(min=0)
    term = torch.exp(torch.xlogy(k, mean) - mean - torch.lgamma(k + 1))  # P(N = k)
    total = torch.special.gammaincc(k + 1, mean)  # P(N <= k)
    quantile: Tensor = k.clone()
    for _ in range(_STEPS):
        quantile += total < share
        k = k + 1
        term = term * mean / k
        total = total + term
    return quantile
