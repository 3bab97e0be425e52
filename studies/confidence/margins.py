"""Signed margins tau z: their laws in theory, and what is read off them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erfinv, ndtr, ndtri

from deepcheck.evaluation import roc_auc
from odeflow import GaussianMixture

__all__ = ["Gaussians", "accepted", "auc_at", "class_margins", "seed_margins", "share", "symmetric_auc", "t_erf"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Gaussians:
    """The law of a signed margin tau z that is Gaussian in each class."""

    p: Array
    """Shares of the classes, shape (2,)."""
    mean: Array
    """Means of tau z, shape (..., 2)."""
    sd: Array
    """Standard deviations, shape (..., 2)."""

    def below(self, u: Any) -> Array:
        """Return the probability of a signed margin of at most u, which broadcasts against (...)."""
        result: Array = (self.p * ndtr((np.asarray(u)[..., None] - self.mean) / self.sd)).sum(-1)
        return result

    def auc(self) -> float:
        """Return the chance that of a right and a wrong prediction the right one has the larger margin |z|."""
        wrong = float(self.below(0.0))
        c = np.linspace(0, float((np.abs(self.mean) + 9 * self.sd).max()), 20_001)
        pairs = np.diff(self.below(c)) * (wrong - (self.below(-c[1:]) + self.below(-c[:-1])) / 2)
        return float(pairs.sum() / (wrong * (1 - wrong)))


def seed_margins(R: Any, b: Any, Q: Any, mixture: GaussianMixture, delta: Any) -> Gaussians:
    """Return the law of the seed model's signed margin after the strongest attack, with |w|^2 = Q (exact)."""
    R, b, length, delta = np.broadcast_arrays(R, b, np.sqrt(Q), delta)
    mean = mixture.rho * R / 2 - delta * length
    sd = length[..., None] * np.sqrt([mixture.v1, mixture.v2])
    return Gaussians(np.array([mixture.p, 1 - mixture.p]), np.stack([mean - b, mean + b], -1), sd)


def class_margins(margin: Array, label: npt.NDArray[np.int64]) -> Gaussians:
    """Return Gaussians with the means and variances of signed margins, shape (..., n), in the classes +1 and -1."""
    parts = [margin[..., label == tau] for tau in (1, -1)]
    return Gaussians(
        np.array([part.shape[-1] for part in parts]) / len(label),
        np.stack([part.mean(-1) for part in parts], -1),
        np.stack([part.std(-1) for part in parts], -1),
    )


def share(margin: Array, t: Array) -> Array:
    """Return the share of signed margins, shape (..., n), that are at most -t: shape (..., t)."""
    result: Array = (margin[..., None, :] <= -t[:, None]).mean(-1)
    return result


def accepted(clean: Array, attacked: Array, bound: float) -> tuple[float, float]:
    """Return the least threshold t >= 0 of |z| that at most this share of attacked examples exceeds while wrong.

    And the share of the clean examples that are right and exceed it. Both arguments are signed margins, shape (n,).
    """
    t = max(-float(np.sort(attacked)[int(bound * len(attacked) + 1e-9)]), 0.0)
    return t, float((clean > t).mean())


def symmetric_auc(error: Any) -> Array:
    """Return the AUC of the seed model with p = 1/2 where its adversarial error is this, at any epsilon (exact).

    With b = 0 it depends on nothing else: the attacked margin has the mean -Phi^-1(error) in units of its deviation.
    """
    errors = np.asarray(error, float)
    aucs = [
        Gaussians(np.array([1.0, 0.0]), np.full(2, -ndtri(one)), np.ones(2)).auc() if 0 < one < 1 else np.nan
        for one in errors.ravel()
    ]
    return np.reshape(aucs, errors.shape)


def auc_at(margin: Array) -> float:
    """Return the area under the ROC curve of |z| for right against wrong predictions; NaN if one is missing."""
    return roc_auc(margin[margin > 0], -margin[margin <= 0])


def t_erf(level: Array) -> Array:
    """Return the margin at which the seed model's confidence is the level."""
    result: Array = erfinv(2 * level - 1)
    return result
