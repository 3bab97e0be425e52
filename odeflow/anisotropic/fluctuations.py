r"""The covariance of the weights over runs of SGD: in full on a subspace, diagonal on the rest.

The bias is the last coordinate of :math:`u = (w, b/\beta)`, :math:`\beta = \sqrt{\eta_b/\eta}`, which sees the constant
input :math:`-\beta`: then plain SGD with the rate :math:`\eta` moves all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.mixture import Mixture

__all__ = ["Drift", "Fluctuations", "Noise", "Seen", "Subspace"]

Array = npt.NDArray[np.float64]

_SUBSPACE_ITERATIONS = 4


class Subspace:
    """An orthonormal basis of means, bias and leading principal components, and the covariances as seen from it."""

    def __init__(self, mixture: Mixture, means: Array, rank: int) -> None:
        """Find the basis: `means` are those of u, shape (2, N + 1); `rank` counts the principal components."""
        N = mixture.N
        columns = np.zeros((N + 1, 3))
        columns[:, :2] = means.T
        columns[N, 2] = 1.0
        if not mixture.diagonal and rank > 0:
            components = _leading(np.tensordot(mixture.priors, mixture.covariances, 1), min(rank, N))
            columns = np.hstack([columns, np.vstack([components, np.zeros(components.shape[1])])])
        self.basis = np.linalg.qr(columns)[0] if columns.shape[1] <= N else np.eye(N + 1)
        outside = 1 - (self.basis**2).sum(axis=1)
        self.outside = np.where(outside > 1e-9, outside, 0.0)
        """Diagonal of the projector on the rest."""
        self.own = self.seen(mixture)
        """The mixture's covariances as seen from the subspace."""

    def seen(self, mixture: Mixture) -> Seen:
        """Return the covariances of a mixture as seen from the subspace."""
        V = self.basis[: mixture.N]
        covariances, rests = [], []
        for C in mixture.covariances:
            CV = C[:, None] * V if mixture.diagonal else C @ V
            inside = V.T @ CV
            rest = (C if mixture.diagonal else np.diag(C)) - np.einsum("ik,ik->i", V, 2 * CV - V @ inside)
            covariances.append(inside)
            rests.append(np.append(np.maximum(rest, 0.0), 0.0) * (self.outside > 0))
        return Seen(covariances, rests)


class Seen(NamedTuple):
    """Covariances of two classes as seen from a subspace."""

    covariances: list[Array]
    """Covariance of each class in the basis."""
    rest: list[Array]
    """Diagonal of each covariance on the rest."""


@dataclass(frozen=True)
class Drift:
    """The matrix J of d<u>/du: classes' covariances, a few vectors, and a diagonal."""

    classes: Array
    """Factors of the two covariances."""
    vectors: Array
    """Shape (N + 1, vectors)."""
    weights: Array
    """J contains vectors @ weights @ vectors.T."""
    diagonal: Array
    """J contains -diag(diagonal), shape (N + 1,)."""


@dataclass(frozen=True)
class Noise:
    """The covariance D of one example's update over eta^2, of the same form (with +diag)."""

    classes: Array
    vectors: Array
    weights: Array
    diagonal: Array


class Fluctuations:
    r"""The covariance :math:`\Sigma = V S V^T + \mathrm{diag}(d)` of u over the runs, V the basis of a subspace."""

    def __init__(self, subspace: Subspace, S: Array, d: Array) -> None:
        self.subspace, self.S, self.d = subspace, S, d

    @classmethod
    def isotropic(cls, subspace: Subspace, variance: float) -> Fluctuations:
        """Return the covariance of weights with independent coordinates of one variance, and a fixed bias."""
        V = subspace.basis
        S = variance * (np.eye(V.shape[1]) - np.outer(V[-1], V[-1]))
        return cls(subspace, S, variance * subspace.outside)

    def variances(self) -> Array:
        """Return the diagonal, shape (N + 1,)."""
        V = self.subspace.basis
        return np.asarray(np.einsum("ik,ik->i", V @ self.S, V) + self.d)

    def trace_with_covariances(self, seen: Seen | None = None) -> Array:
        """Return the traces of Sigma C_tau, shape (2,), for the mixture of the subspace or another one."""
        sub = self.subspace
        shared = np.divide(self.d, sub.outside, out=np.zeros_like(self.d), where=sub.outside > 0)
        pairs = zip(*(seen or sub.own), strict=True)
        return np.array([np.vdot(self.S, inside) + shared @ rest for inside, rest in pairs])

    def trace_of_squares(self) -> Array:
        """Return the traces of (Sigma C_tau)^2, shape (2,)."""
        sub = self.subspace
        shared = np.divide(self.d, sub.outside, out=np.zeros_like(self.d), where=sub.outside > 0)
        products = [(self.S @ inside, shared * rest) for inside, rest in zip(*sub.own, strict=True)]
        return np.array([np.vdot(product, product.T) + rest @ rest for product, rest in products])

    def form(self, vectors: Array) -> Array:
        """Return vectors.T @ Sigma @ vectors, for the columns of an array of shape (N + 1, vectors)."""
        inside = self.subspace.basis.T @ vectors
        return np.asarray(inside.T @ self.S @ inside + vectors.T @ (self.d[:, None] * vectors))

    def with_bias(self) -> Array:
        """Return the covariance of each coordinate with the bias."""
        V = self.subspace.basis
        return np.asarray(V @ (self.S @ V[-1]))

    def scaled(self, factor: float) -> Fluctuations:
        """Return factor * Sigma."""
        return Fluctuations(self.subspace, factor * self.S, factor * self.d)

    def flow(self, drift: Drift, noise: Noise, eta: float) -> Flow:
        r"""Return the solution of :math:`\Sigma' = J\Sigma + \Sigma J^T + \eta D` with constant J and D."""
        return Flow(self, drift, noise, eta)


class Flow:
    """The exact solution of the linear equation, from the eigenvectors of J in the subspace."""

    def __init__(self, start: Fluctuations, drift: Drift, noise: Noise, eta: float) -> None:
        sub = start.subspace
        self.subspace = sub
        J, rates = _parts(sub, drift.classes, drift.vectors, drift.weights, -drift.diagonal, per_direction=True)
        D, sources = _parts(sub, noise.classes, noise.vectors, noise.weights, noise.diagonal, per_direction=False)
        self.noise = Fluctuations(sub, D, np.maximum(sources, 0.0))
        """D as the subspace sees it."""
        rates_inside, self.U = np.linalg.eigh(J)
        self.rates = np.add.outer(rates_inside, rates_inside)
        self.S, self.D = (self.U.T @ matrix @ self.U for matrix in (start.S, eta * D))
        self.rest_rates = 2 * rates
        self.d, self.sources = start.d, eta * np.maximum(sources, 0.0)

    def __call__(self, dt: float) -> Fluctuations:
        """Return Sigma after a time dt."""
        S = self.U @ _relaxed(self.S, self.rates, self.D, dt) @ self.U.T
        return Fluctuations(self.subspace, (S + S.T) / 2, _relaxed(self.d, self.rest_rates, self.sources, dt))


def _parts(
    sub: Subspace, classes: Array, vectors: Array, weights: Array, diagonal: Array, *, per_direction: bool
) -> tuple[Array, Array]:
    """Return a matrix of the form of `Drift` or `Noise` in the subspace, and its diagonal on the rest.

    On the rest, a rate is that of a direction: what the covariance gives to a coordinate is divided by the coordinate's
    share of the rest, since the fluctuations there are close to a multiple of the projector.
    """
    V = sub.basis
    inside = V.T @ vectors
    matrix = (V.T * diagonal) @ V + inside @ weights @ inside.T
    rest = np.zeros(len(V))
    for factor, covariance, outside in zip(classes, *sub.own, strict=True):
        matrix += factor * covariance
        rest += factor * outside
    if per_direction:
        rest = np.divide(rest, sub.outside, out=np.zeros_like(rest), where=sub.outside > 0) + diagonal
    else:
        beyond = vectors - V @ inside
        rest += (beyond @ weights * beyond).sum(axis=1) + diagonal * sub.outside
    return (matrix + matrix.T) / 2, rest


def _relaxed(y: Array, rate: Array, source: Array, dt: float) -> Array:
    """Return the solution of y' = rate y + source after dt."""
    x = rate * dt
    grown = np.divide(np.expm1(x), rate, out=np.full_like(rate, dt), where=np.abs(x) > 1e-12)
    return np.exp(x) * y + grown * source


def _leading(C: Array, rank: int) -> Array:
    """Return orthonormal columns close to the leading eigenvectors of C, by subspace iteration (always the same)."""
    N = len(C)
    if rank > N // 4:
        return np.linalg.eigh(C)[1][:, N - rank :]
    Q = np.random.default_rng(0).standard_normal((N, rank + 10))
    for _ in range(_SUBSPACE_ITERATIONS):
        Q = np.linalg.qr(C @ Q)[0]
    return np.asarray(Q @ np.linalg.eigh(Q.T @ C @ Q)[1][:, -rank:])
