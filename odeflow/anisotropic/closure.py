r"""The moments of the weights under SGD, closed by taking them as Gaussian. Section 4 of the theory page.

With :math:`u = (w, b/\beta)` (see `odeflow.anisotropic.fluctuations`), mean :math:`\bar u` and covariance
:math:`\Sigma` over runs, and t = eta times the number of examples,

.. math::
    \bar u' = G = \sum_\tau p_\tau [\langle\delta\rangle_\tau a_\tau + \langle\delta'\rangle_\tau c_\tau], \quad
    a_\tau = m_\tau - \tau\varepsilon s, \quad c_\tau = C_\tau \bar u, \qquad
    \Sigma' = J\Sigma + \Sigma J^T + \eta D,

    J = \sum_\tau p_\tau [\langle\delta'\rangle_\tau (C_\tau + a a^T) + \langle\delta''\rangle_\tau (a c^T + c a^T)
        + \langle\delta'''\rangle_\tau c c^T - \tau\varepsilon\langle\delta\rangle_\tau\,\partial s],

    D = \sum_\tau p_\tau [\langle\delta^2\rangle_\tau (C_\tau + a a^T) + \langle(\delta^2)'\rangle_\tau (a c^T + c a^T)
        + \langle(\delta^2)''\rangle_\tau c c^T + \varepsilon^2\langle\delta^2\rangle_\tau\,\mathrm{var}\,s] - G G^T .
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.fluctuations import Drift, Fluctuations, Noise, Subspace
from odeflow.anisotropic.mixture import LABELS_OF_CLASSES, Mixture
from odeflow.anisotropic.norms import NORM
from odeflow.model import Adversary, LearningRule
from odeflow.order_parameters.perceptron.variant_averages import averages, update_factor

__all__ = ["Closure", "Frozen", "Margins", "Slope"]

Array = npt.NDArray[np.float64]

_TAU = np.array(LABELS_OF_CLASSES)[:, None]
_LEAST_VARIANCE = 1e-12  # of x, whose scale is 1
_UNSEEN = 1e-7
_COLLAPSED = 1e-5
# five-point differences, in steps of _STEP standard deviations
_OFFSETS = np.arange(-2.0, 3.0)
_FIRST = np.array([1.0, -8.0, 0.0, 8.0, -1.0]) / 12
_SECOND = np.array([-1.0, 16.0, -30.0, 16.0, -1.0]) / 12
_STEP = 0.05


@dataclass(frozen=True)
class Frozen:
    """What the drift of the mean needs of the covariance; constant while the mean takes a step."""

    V: Array
    """Variance of each weight, shape (N,)."""
    extra: Array
    """What fluctuations add to the variance of x, shape (2, attacks)."""
    inflation: float
    """What they add to the growth of |w|^2 / 2; for normalised weights."""


@dataclass(frozen=True)
class Slope:
    """d u/dt = smooth - pull * s(u), with the dual norm's gradient s apart, because it is stiff."""

    smooth: Array
    pull: float


class Margins(NamedTuple):
    r"""What the error needs: means and variances of the margins :math:`\tau x` under an attack, by its epsilon."""

    mean: Array
    """Mean of x in each class, shape (2,), without attack."""
    length: float
    """Mean dual norm: what x loses by an attack of size 1."""
    variance: Array
    """Variance of x in each class over examples and runs, shape (2,), without attack."""
    with_length: Array
    """Covariance over runs of the mean of x and what an attack of size 1 takes from it, shape (2,)."""
    of_length: float
    """Variance over runs of the latter."""


class Closure:
    """The equations for one mixture, rule and adversary."""

    def __init__(self, mixture: Mixture, rule: LearningRule, adversary: Adversary, rank: int) -> None:
        N = mixture.N
        self.mixture, self.rule = mixture, rule
        self.norm = NORM[adversary.norm]
        self.eta = rule.eta_w / N
        self.noise_rate = self.eta if rule.second_order else 0.0
        self.beta = math.sqrt(rule.eta_b / rule.eta_w)
        self.p = np.array(mixture.priors)[:, None]
        self.m = np.hstack([mixture.means, np.full((2, 1), -self.beta)])
        self.epsilon, self.share = _attacks(adversary)
        self.subspace = Subspace(mixture, self.m, rank)
        self.traces = np.array([C.sum() if mixture.diagonal else np.trace(C) for C in mixture.covariances])
        self.least_V = _UNSEEN**2 / (N * (self._scale(bias=False) or 1.0))
        """A variance of the weights that changes nothing: it moves x by a ten-millionth of its scale, which is 1."""
        self.scale = math.sqrt(self._scale(bias=True))
        """Largest x, in root mean square over the attacked examples, that weights and bias of length 1 can give."""
        jumps = update_factor(rule).cut == 0
        self.can_collapse = jumps and not rule.normalised and not rule.second_order
        """Whether u may vanish in a finite time: delta jumps at x = 0, so that only the direction of u counts near 0."""
        self.least_range = 0.0 if jumps else math.sqrt(0.5)
        """Range of x over which delta changes, where the spread of x is not larger: for erf the width of its slope."""

    def _scale(self, *, bias: bool) -> float:
        """Return a bound of x^2 over |u|^2, averaged over attacked examples."""
        m = self.m if bias else self.m[:, :-1]
        attack = self.epsilon.max() * self.norm.dual(
            np.zeros(self.mixture.N), np.full(self.mixture.N, 1 / self.mixture.N)
        )
        return float(self.p[:, 0] @ (self.traces + (m**2).sum(axis=1)) + attack**2)

    def collapsed(self, u: Array) -> bool:
        """Return whether u has fallen to the length at which x is as small as the least spread that is told from 0."""
        return self.can_collapse and float(np.linalg.norm(u)) * self.scale < _COLLAPSED

    def freeze(self, u: Array, fluctuations: Fluctuations) -> Frozen:
        """Return what the drift needs of the covariance."""
        V = self.variances(fluctuations)
        gram = fluctuations.form(np.column_stack([self.m.T, self.s(u, V)]))
        extra = np.empty((2, self.epsilon.size))
        traces = fluctuations.trace_with_covariances()
        for k, tau in enumerate(LABELS_OF_CLASSES):
            for j, epsilon in enumerate(self.epsilon):
                extra[k, j] = traces[k] + _along(gram, k, 2, -tau * epsilon)
        return Frozen(V, np.maximum(extra, 0.0), 0.0)

    def variances(self, fluctuations: Fluctuations) -> Array:
        """Return the variance of each weight, shape (N,), > 0."""
        return np.asarray(np.maximum(fluctuations.variances()[:-1], self.least_V))

    def s(self, u: Array, V: Array) -> Array:
        """Return the mean gradient of the dual norm by u: none for the bias."""
        return np.append(self.norm.direction(u[:-1], V), 0.0)

    def products(self, u: Array) -> Array:
        """Return C_tau u, shape (2, N + 1)."""
        w = u[:-1]
        C = self.mixture.covariances
        c = np.zeros((2, u.size))
        for k in range(2):
            c[k, :-1] = C[k] * w if self.mixture.diagonal else C[k] @ w
        return c

    def margins(self, u: Array, fluctuations: Fluctuations, mixture: Mixture | None = None) -> Margins:
        """Return the law over examples and runs of the margins, on this mixture or on another one."""
        V = self.variances(fluctuations)
        s = self.s(u, V)
        if mixture is None:
            m, variance, seen = self.m, self.products(u) @ u, None
        else:
            m = np.hstack([mixture.means, self.m[:, -1:]])
            variance, seen = mixture.variances(u[:-1]), self.subspace.seen(mixture)
        gram = fluctuations.form(np.column_stack([m.T, s]))
        return Margins(
            m @ u,
            self.norm.dual(u[:-1], V),
            variance + fluctuations.trace_with_covariances(seen) + np.diag(gram)[:2],
            gram[:2, 2],
            float(gram[2, 2]),
        )

    def field(self, u: Array, c: Array, frozen: Frozen) -> tuple[Array, Array]:
        """Return mean and variance of x after the attack, shape (2, attacks) each."""
        mean = (self.m @ u)[:, None] - _TAU * self.epsilon * self.norm.dual(u[:-1], frozen.V)
        return mean, np.maximum((c @ u)[:, None] + frozen.extra, _LEAST_VARIANCE)

    def slope(self, u: Array, c: Array, frozen: Frozen, *, normalise: bool = True) -> Slope:
        """Return G, less the growth of |w| if the rule and `normalise` say so."""
        mean, variance = self.field(u, c, frozen)
        D1, _, delta_1 = averages(_TAU * mean, variance, self.rule)  # tau <delta>, <delta'>
        weight = self.p * self.share
        smooth = (weight * _TAU * D1).sum(axis=1) @ self.m + (weight * delta_1).sum(axis=1) @ c
        pull = float((weight * self.epsilon * D1).sum())
        if self.rule.normalised and normalise:
            smooth[:-1] -= self.growth(u, smooth, pull, frozen) * u[:-1]
        return Slope(smooth, pull)

    def growth(self, u: Array, smooth: Array, pull: float, frozen: Frozen) -> float:
        """Return d(<|w|^2>/2)/dt without normalisation, which normalisation takes away, for |w| = 1."""
        w = u[:-1]
        return float(w @ smooth[:-1] - pull * (w @ self.norm.direction(w, frozen.V)) + frozen.inflation)

    def matrices(self, u: Array, c: Array, frozen: Frozen) -> tuple[Drift, Noise]:
        """Return J and D."""
        mean, variance = self.field(u, c, frozen)
        step = _STEP * np.sqrt(variance)[..., None]
        D1, D2, delta_1 = averages((_TAU * mean)[..., None] + step * _OFFSETS, variance[..., None], self.rule)
        step = step[..., 0]
        delta, square = D1[..., 2], D2[..., 2]  # tau <delta>, <delta^2>
        delta_2, delta_3 = _TAU * (delta_1 @ _FIRST) / step, delta_1 @ _SECOND / step**2
        square_1, square_2 = _TAU * (D2 @ _FIRST) / step, D2 @ _SECOND / step**2
        delta_1 = delta_1[..., 2]

        weight = self.p * self.share
        s = self.s(u, frozen.V)
        pull = float((weight * self.epsilon * delta).sum())
        G = (weight * _TAU * delta).sum(axis=1) @ self.m + (weight * delta_1).sum(axis=1) @ c - pull * s
        vectors = np.column_stack([self.m.T, s, c.T, G])  # m_+, m_-, s, c_+, c_-, G
        J, D = np.zeros((6, 6)), np.zeros((6, 6))
        for k, tau in enumerate(LABELS_OF_CLASSES):
            for j, epsilon in enumerate(self.epsilon):
                a, along_c = np.zeros(6), np.zeros(6)
                a[k], a[2], along_c[3 + k] = 1.0, -tau * epsilon, 1.0
                pair = np.stack([a, along_c])
                for matrix, (aa, ac, cc) in (
                    (J, (delta_1[k, j], delta_2[k, j], delta_3[k, j])),
                    (D, (square[k, j], square_1[k, j], square_2[k, j])),
                ):
                    matrix += weight[k, j] * pair.T @ np.array([[aa, ac], [ac, cc]]) @ pair
        D[5, 5] = -1.0
        curvature = np.append(pull * self.norm.curvature(u[:-1], frozen.V), 0.0)
        spread = float((weight * self.epsilon**2 * square).sum()) * np.append(self.norm.spread(s[:-1]), 0.0)
        return (
            Drift((weight * delta_1).sum(axis=1), vectors, J, curvature),
            Noise((weight * square).sum(axis=1), vectors, D, spread),
        )

    def normalise(
        self, u: Array, c: Array, frozen: Frozen, fluctuations: Fluctuations, drift: Drift, noise: Noise
    ) -> tuple[Frozen, Drift]:
        """Return the same with what keeps <|w|^2> = 1: the growth is taken from mean and fluctuations alike."""
        on_bias = drift.vectors @ (drift.weights @ drift.vectors[-1])
        growth_of_Sigma = (  # tr(J Sigma) over the weights
            drift.classes @ fluctuations.trace_with_covariances()
            + np.vdot(drift.weights, fluctuations.form(drift.vectors))
            - drift.diagonal @ fluctuations.variances()
            - on_bias @ fluctuations.with_bias()
        )
        by_vectors = (noise.vectors[:-1] @ noise.weights * noise.vectors[:-1]).sum()
        trace_of_D = noise.classes @ self.traces + by_vectors + noise.diagonal.sum()
        frozen = replace(frozen, inflation=float(growth_of_Sigma + self.noise_rate / 2 * trace_of_D))
        without = self.slope(u, c, frozen, normalise=False)
        growth = self.growth(u, without.smooth, without.pull, frozen)
        diagonal = drift.diagonal + np.append(np.full(u.size - 1, growth), 0.0)
        return frozen, replace(drift, diagonal=diagonal)


def _along(gram: Array, i: int, j: int, factor: float) -> float:
    """Return the quadratic form of vector i + factor * vector j from the Gram matrix of all."""
    return float(gram[i, i] + 2 * factor * gram[i, j] + factor**2 * gram[j, j])


def _attacks(adversary: Adversary) -> tuple[Array, Array]:
    """Return the sizes of the perturbation that an example may meet, and their shares."""
    factors, weights = (np.ones(1), np.ones(1)) if adversary.law is None else adversary.law.nodes()
    epsilon, share = adversary.epsilon * factors, adversary.fraction * weights
    if adversary.fraction < 1:
        epsilon, share = np.append(epsilon, 0.0), np.append(share, 1 - adversary.fraction)
    return epsilon, share
