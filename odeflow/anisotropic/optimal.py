r"""The linear classifier with the least adversarial error on two Gaussian classes.

Notation: :math:`\mu = (m_+ - m_-)/2`; :math:`\sigma_\tau(w) = \sqrt{w^TC_\tau w}`; and
:math:`u_\tau = (\tau(w\cdot m_\tau - b) - \varepsilon|w|_*)/\sigma_\tau`, so that class tau has the error
:math:`\Phi(-u_\tau)`. The bias moves error between the classes: :math:`u_+\sigma_+ + u_-\sigma_- =
2(w\cdot\mu - \varepsilon|w|_*)` at every b.

**One covariance.** The best w has the largest margin :math:`M(w) = (w\cdot\mu - \varepsilon|w|_*)/\sigma(w)`, that is, it
solves :math:`\min_w \tfrac12 w^TCw - w\cdot\mu + \varepsilon|w|_*`: `max_margin`.

**Two covariances.** No other w allows both u to be larger, so the best w maximises :math:`F(w) = 2(w\cdot\mu -
\varepsilon|w|_*) - u_+\sigma_+(w) - u_-\sigma_-(w)`, and F = 0 there. For :math:`u_\pm\ge0` F is concave, and its
stationarity :math:`2(\mu - \varepsilon s) = t_+C_+w + t_-C_-w`, s a subgradient of :math:`|w|_*` and :math:`t_\tau =
u_\tau/\sigma_\tau`, is that of the problem above with :math:`C_\lambda = \lambda C_+ + (1-\lambda)C_-` and
:math:`\lambda = t_+/(t_++t_-)`, up to the length of w. This leaves one number to be searched.

For :math:`u_- < 0 < u_+` F is not concave, but the tangent of :math:`\sigma_-` at the present w bounds it from below, with
equality there: :math:`F(w) \ge 2(w\cdot\mu' - \varepsilon|w|_*) - u_+\sigma_+(w)`, :math:`\mu' = \mu + \tfrac12|u_-|\,C_-w/
\sigma_-`. The maximum of this bound, again a `max_margin`, raises u_+ at the same u_-: a descent in the error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.errors import checked_norm, dual_norm
from odeflow.anisotropic.lasso import SEPARATE, ConvergenceError, rounding
from odeflow.anisotropic.margin import certified_gap, covariance_product, max_margin
from odeflow.anisotropic.mixture import Mixture
from odeflow.anisotropic.reduction import Subproblem, grown
from odeflow.model import checked_number
from odeflow.numerics.threads import blas_threads
from odeflow.optimal import stationary_biases
from odeflow.parameters import label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["optimal_classifier"]

Array = npt.NDArray[np.float64]

_LONG_NAMES = {
    "gap": "bound of the relative distance from the largest margin",
    "mix": "share of the covariance of the class +1 that the weights belong to",
}
_MIXES = (0.001, *(k / 8 for k in range(1, 8)), 0.999)
"""Values of lambda that are tried first. Not 0 and 1: where one class does not vary, the other one must decide."""
_STEPS = 1000  # of a descent
_STARTS = 3  # of descents, besides the best classifier with lambda in [0, 1]
_LARGE = 1000
"""Dimension from which on a problem in L2 is solved in a subspace: below, it takes a second or two as it is."""
_RIDGE = 1e-6  # relative, in comparisons of two variances of which both may vanish


def optimal_classifier(mixture: Mixture, epsilon: float = 0.0, norm: str = "l2", *, rtol: float = 1e-6) -> xr.Dataset:
    r"""Return the linear classifier sign(w.xi - b) with the least adversarial error at `epsilon`.

    **Exact** for classes with one covariance (equal to 12 digits): the global optimum, with a certified gap.

    **Approximate** for two covariances. Among the constant classifiers and those that err in each class in at most half
    of the cases it is the optimum, as far as the search in one number (lambda, in the module's docstring) finds it: all
    local minima between nine values. Where an error above one half in one class pays (weak signals,
    strong attacks, priors or variances that differ much) there is no such reduction, and it is the best of a few local
    optima.

    From 1000 dimensions on, a problem in L2 is solved in a subspace that grows until the certificate holds for the whole.
    For means and covariances of few samples the error is too small: see `cross_validate_optimum`.

    Parameters
    ----------
    mixture
        The data. Covariances may be singular.
    epsilon
        Size of the perturbation to be robust against, >= 0, in the units of the data; 0 gives the least classification
        error.
    norm
        Norm in which epsilon is the size: "l2" or "linf".
    rtol
        Largest relative gap of the margin, in (0, 1).

    Returns
    -------
    Dataset
        w (dim feature; of length 1), b, error, adversarial_error (at `epsilon`), and

        gap
            Certificate: no margin :math:`(w\cdot\mu - \varepsilon|w|_*)/\sqrt{w^TC_\lambda w}` is larger than this w's
            divided by 1 - gap. nan where there is none: for two covariances, if the error is above one half in a class.
        mix
            The lambda of :math:`C_\lambda`; outside [0, 1] if the error is above one half in a class. nan for one
            covariance, where each lambda is right, and for a constant classifier.

        If no classifier is found to be better than a constant one, w = 0 and b = -inf (always +1) or +inf (always -1):
        the majority label, +1 in a tie. Where the classes can be separated, the adversarial error is 0, and w is one of
        many that separate them.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.
    ConvergenceError
        If a gap stays above `rtol`: for C_lambda that are nearly singular, at an epsilon that is not 0 but tiny.

    References
    ----------
    A. Bhagoji, D. Cullina and P. Mittal, arXiv:1909.12272 (one covariance). T. W. Anderson and R. R. Bahadur, Ann. Math.
    Statist. 33 (1962) 420 (two covariances, epsilon = 0).

    Examples
    --------
    >>> mixture = Mixture(0.5, means=[[1.0, 0.2], [-1.0, -0.2]], covariances=[[1.0, 1.0], [1.0, 1.0]])
    >>> optimal_classifier(mixture, 0.5, "linf").w.values
    array([1., 0.])
    """
    import xarray as xr

    if not isinstance(mixture, Mixture):
        raise TypeError(f"mixture = {mixture!r} is of the wrong type: allowed is a Mixture")
    epsilon = checked_number("epsilon", epsilon, least=0)
    norm = checked_norm(norm)
    rtol = checked_number("rtol", rtol, above=0, below=1)
    with blas_threads(mixture.N):
        best = _Problem(mixture, epsilon, norm, rtol).best()
    length = float(np.linalg.norm(best.w)) or 1.0
    reach = epsilon * float(dual_norm(best.w, norm))
    data = {
        "w": ("feature", best.w / length + 0.0),
        "b": (best.w @ mixture.means.mean(axis=0) + best.b) / length,
        "error": _error(mixture.p, best.margin + reach, best.b, best.variances),
        "adversarial_error": best.S,
        "gap": best.gap,
        "mix": best.mix,
    }
    arguments: dict[str, Any] = {"p": mixture.p, "N": mixture.N, "epsilon": epsilon, "norm": norm}
    result = label(xr.Dataset(data, arguments, provenance("anisotropic.optimal_classifier", **arguments, rtol=rtol)))
    for name, long_name in _LONG_NAMES.items():
        result[name].attrs.update(long_name=long_name, units="1")
    return result


class _Classifier(NamedTuple):
    """Weights with the best bias for them."""

    w: Array
    b: float
    """Bias from the midpoint of the means."""
    S: float
    margin: float
    """w.mu - epsilon |w|_*."""
    variances: tuple[float, float]
    """w' C_tau w."""
    gap: float
    mix: float

    @property
    def u(self) -> tuple[float, float]:
        """Distances of the classes from the boundary on their own side, in standard deviations."""
        return _ratio(self.margin - self.b, self.variances[0]), _ratio(self.margin + self.b, self.variances[1])

    @property
    def own_mix(self) -> float:
        """The lambda that its u belong to; where w belongs to the same, S is stationary."""
        t_plus, t_minus = (_ratio(u, v) for u, v in zip(self.u, self.variances, strict=True))
        if math.isinf(t_plus) or math.isinf(t_minus):
            return float(t_plus > t_minus)
        return t_plus / (t_plus + t_minus) if t_plus + t_minus != 0 else math.inf


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is optimised."""

    mixture: Mixture
    epsilon: float
    norm: str
    rtol: float

    @cached_property
    def mu(self) -> Array:
        plus, minus = self.mixture.means
        return np.asarray(plus - minus) / 2

    @cached_property
    def shared(self) -> bool:
        """Whether the classes have one covariance, to 12 digits."""
        C = self.mixture.covariances
        return bool(np.abs(C[0] - C[1]).max() <= 1e-12 * np.abs(C[0]).max())

    def best(self) -> _Classifier:
        """Return the best classifier that is found; a constant one if that is as good."""
        if self.norm == "l2" and self.epsilon > 0 and not self.mixture.diagonal and self.mixture.N >= _LARGE:
            best = self.by_subspace()
            if best is not None:
                return best
        constant = self.constant()
        if self.shared:
            best = self.at(0.5)._replace(mix=math.nan)
        else:
            best = self.descend(_least(self.path()))
            found = [best]
            for start in self.starts(best):
                with suppress(ConvergenceError):  # of a start that is degenerate: no harm, it is an additional one
                    found.append(self.descend(start))
            best = _least(found)
            if min(best.u) < 0:
                best = best._replace(gap=math.nan, mix=best.own_mix)
        return best if best.S < constant.S else constant

    def by_subspace(self) -> _Classifier | None:
        """Return the best classifier of a large problem in L2, or None where no small subspace holds it."""
        plus, minus = self.mixture.covariances
        variances = np.diagonal(plus) + np.diagonal(minus)
        least = 1e-6 * float(variances.mean()) or 1.0
        best: _Classifier | None = None

        def seeds(small: Subproblem | None) -> tuple[Array, float] | None:
            nonlocal best
            if small is None:
                return np.column_stack([self.mu, self.mu / (variances + least)]), 0.5
            problem = _Problem(small.mixture, self.epsilon, self.norm, self.rtol / 10)
            inside = problem.best()
            before, w = best, small.basis @ inside.w
            best = self.with_best_bias(w, mix=inside.mix)
            if not w.any():
                return None
            if min(best.variances) == 0:
                raise ConvergenceError("a class does not vary in the subspace: this is for the whole problem")
            length = float(np.linalg.norm(w))
            products = [product @ inside.w for product in small.products]
            t = [u / math.sqrt(v) for u, v in zip(best.u, best.variances, strict=True)]
            left = 2 * (self.mu - self.epsilon * w / length) - t[0] * products[0] - t[1] * products[1]
            mix = 0.5 if self.shared else min(max(best.own_mix, 0.0), 1.0)
            if self.shared or min(best.u) >= 0:
                share = inside.mix if 0 <= inside.mix <= 1 else 0.5
                gap = certified_gap(share * plus + (1 - share) * minus, self.mu, self.epsilon, w)
                best = best._replace(gap=gap)
                done = gap <= self.rtol
            else:
                done = before is not None and 0.01 * self.rtol * best.S >= before.S - best.S
            if done:
                return None
            return np.column_stack([left, left / (variances + least), *products]), mix

        try:
            found = grown(self.mixture, seeds)
        except ConvergenceError:
            return None
        if not found or best is None:
            return None
        return best if best.S < self.constant().S else self.constant()

    def constant(self) -> _Classifier:
        """Return the majority label."""
        p = self.mixture.p
        gap = 0.0 if self.shared else math.nan
        b = -math.inf if p >= 0.5 else math.inf
        return _Classifier(np.zeros(self.mixture.N), b, min(p, 1 - p), 0.0, (0.0, 0.0), gap, math.nan)

    def at(self, mix: float, start: Array | None = None) -> _Classifier:
        """Return the classifier with the largest margin for the covariance C_lambda."""
        plus, minus = self.mixture.covariances
        return self.with_best_bias(*self.max_margin(mix * plus + (1 - mix) * minus, self.mu, start), mix)

    def max_margin(self, C: Array, mu: Array, start: Array | None) -> tuple[Array, float]:
        return max_margin(C, mu, self.epsilon, self.norm, rtol=self.rtol, start=start)

    def with_best_bias(self, w: Array, gap: float = math.nan, mix: float = math.nan) -> _Classifier:
        """Return the classifier with the weights w and the bias that is best for them."""
        if not w.any():
            return self.constant()
        p, means = self.mixture.p, self.mixture.means
        margin = float(w @ self.mu - self.epsilon * dual_norm(w, self.norm))
        v_plus, v_minus = (max(float(w @ covariance_product(C, w)), rounding(C, w)) for C in self.mixture.covariances)
        if self.shared:
            v_plus = v_minus = (v_plus + v_minus) / 2
        accuracy = 1e-9 * float(np.abs(means @ w).sum() + abs(margin))
        biases = np.array([*_candidates(p, margin, v_plus, v_minus, accuracy), -math.inf, math.inf])
        errors = _error(p, margin, biases, (v_plus, v_minus))
        k = int(np.argmin(errors))
        return _Classifier(w, float(biases[k]), float(errors[k]), margin, (v_plus, v_minus), gap, mix)

    def path(self) -> list[_Classifier]:
        """Return the classifiers for some lambda: a grid, and the minima of S that it brackets."""
        from scipy.optimize import brentq

        found: dict[float, _Classifier] = {}

        def at(mix: float) -> _Classifier:
            if mix not in found:
                found[mix] = self.at(mix, found[next(reversed(found))].w if found else None)
            return found[mix]

        def pull(mix: float) -> float:  # to the lambda that the errors belong to: that way, S falls
            u_plus, u_minus = at(mix).u
            return (1.0 if u_minus < 0 else 0.0 if u_plus < 0 else at(mix).own_mix) - mix

        for mix in _MIXES:
            if at(mix).S == 0 or not at(mix).w.any():
                return [at(mix)]
        for low, high in pairwise(_MIXES):
            if pull(low) > 0 > pull(high):
                brentq(pull, low, high, xtol=0.01 * self.rtol)
        return list(found.values())

    def descend(self, classifier: _Classifier) -> _Classifier:
        """Improve a classifier step by step until its error falls no further."""
        for _ in range(_STEPS):
            new = self.step(classifier)
            gain = classifier.S - new.S
            if gain <= 0.01 * self.rtol * classifier.S:
                return classifier
            classifier = new
        raise ConvergenceError(
            f"epsilon = {self.epsilon!r}: the error still falls, by {gain:.3g} to {classifier.S:.9g}, after {_STEPS} "
            f"steps of the descent, and rtol = {self.rtol:g}: choose a larger rtol"
        )

    def step(self, classifier: _Classifier) -> _Classifier:
        """Return the classifier that maximises the bound of F from below that touches F at this one, or a better one."""
        w, u, v = classifier.w, classifier.u, classifier.variances
        if max(u) < 0 or min(v) == 0 or not w.any() or math.isinf(classifier.b):
            return classifier
        if min(u) >= 0:
            return self.at(classifier.own_mix, w)
        other = int(np.argmin(u))
        tangent = covariance_product(self.mixture.covariances[other], w) / math.sqrt(v[other])
        w_new, _ = self.max_margin(self.mixture.covariances[1 - other], self.mu - 0.5 * u[other] * tangent, w)
        return self.farther(w / np.linalg.norm(w), w_new / np.linalg.norm(w_new)) if w_new.any() else classifier

    def farther(self, w: Array, w_new: Array) -> _Classifier:
        """Return the best of the classifiers w + k (w_new - w), k = 1, 2, 4, ... up to the first that is worse."""
        best, k = self.with_best_bias(w_new), 2
        while (new := self.with_best_bias(w + k * (w_new - w))).S < best.S:
            best, k = new, 2 * k
        return best

    def starts(self, best: _Classifier) -> list[_Classifier]:
        """Return where else to descend from: the best along the centres, and where the variances differ the most.

        If the best classifier so far errs in each class in at most half of the cases, only those that are better yet.
        """
        if best.S == 0:
            return []
        plus, minus = self.mixture.covariances
        v_plus, v_minus = (C if C.ndim == 1 else C.diagonal() for C in (plus, minus))
        both = v_plus + v_minus + _RIDGE * (v_plus + v_minus).mean()
        largest = [np.abs(self.mu), v_plus - v_minus, v_minus - v_plus, v_plus / both, v_minus / both]
        axes = np.zeros((len(largest), self.mixture.N))
        axes[range(len(largest)), [int(values.argmax()) for values in largest]] = 1.0
        directions = [self.mu, *axes]
        if not self.mixture.diagonal:
            directions += [_largest_share(plus, minus), _largest_share(minus, plus)]
        found = [self.with_best_bias(sign * w) for w in directions for sign in (1.0, -1.0)]
        if min(best.u) >= 0:
            found = [classifier for classifier in found if classifier.S < best.S]
        return sorted(found, key=lambda classifier: classifier.S)[:_STARTS]


def _largest_share(C: Array, other: Array) -> Array:
    """Return, roughly, the w with the largest share w' C w of w' (C + other) w: some steps of the power method."""
    from scipy.linalg import cho_factor, cho_solve

    both = C + other
    both[np.diag_indices_from(both)] += _RIDGE * both.diagonal().mean()
    w = C.diagonal() / both.diagonal()
    factor = cho_factor(both.T, lower=True, overwrite_a=True, check_finite=False)
    for _ in range(30):
        w = cho_solve(factor, covariance_product(C, w), check_finite=False)
        w /= np.linalg.norm(w) or 1.0
    return np.asarray(w)


def _least(classifiers: Iterable[_Classifier]) -> _Classifier:
    """Return the one with the least adversarial error, the first in a tie."""
    return min(classifiers, key=lambda classifier: classifier.S)


def _ratio(x: float, variance: float) -> float:
    """Return x in standard deviations; without variance a class is right or wrong as a whole (wrong on the boundary)."""
    if variance > 0:
        return x / math.sqrt(variance)
    return math.inf if x > 0 else -math.inf


def _error(p: float, margin: float, b: Any, variances: tuple[float, float]) -> Any:
    """Return the error of a classifier with a bias b, or several, from the midpoint."""
    from scipy.special import ndtr

    S: Any = 0.0
    for prior, room, variance in zip((p, 1 - p), (margin - b, margin + b), variances, strict=True):
        S = S + prior * (ndtr(-room / math.sqrt(variance)) if variance > 0 else np.where(room > 0, 0.0, 1.0))
    return S


def _candidates(p: float, margin: float, v_plus: float, v_minus: float, accuracy: float) -> list[float]:
    """Return the finite biases of which one may be the best.

    A class whose spread is below the accuracy of w.xi has the boundary just beyond it.
    """
    least = (accuracy / SEPARATE) ** 2
    if v_plus > least and v_minus > least:
        return stationary_biases(p, margin, v_plus, v_minus)
    return [0.0, margin - accuracy, accuracy - margin]
