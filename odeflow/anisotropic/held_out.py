r"""Predictions on data that were not used: cross-validation over the means and covariances.

Means and covariances of n samples in N dimensions are wrong by :math:`\sqrt{N/n}`, and weights that are learned from them
fit what is wrong. At the same means and covariances the error is then too small, by far if n/N is of order one: there the
theory predicts what a classifier does on its own training set. Here the means and covariances are estimated from all parts
of the samples but one, the theory is solved for them, and the margins :math:`\tau(w\cdot\xi - b) - \varepsilon|w|_*` have
the mean and the variance of the part that was left out. Over all parts,

.. math:: S_{cv}(\varepsilon) = \sum_\tau p_\tau\,\Phi\!\left(-\frac{M_\tau}{\sqrt{V_\tau}}\right), \qquad
          M_\tau = \sum_f q_f M_{\tau f}, \quad V_\tau = \sum_f q_f\,(V_{\tau f} + M_{\tau f}^2) - M_\tau^2,

with the shares :math:`q_f` of the samples in part f; as the parts are small, their moments are averaged, and not their
errors. The weights have then learned from fewer samples than there are. The known correction for it adds
:math:`S(\text{all}) - \bar S`, the errors on all samples of the weights from all samples and of those from all parts but one
(P. Burman, Biometrika 76 (1989) 503). The standard error is that of the jackknife over the parts. Since the weights for
different parts have learned from nearly the same samples, their errors are not independent: the variance of K parts is
multiplied by :math:`1 + K/(K-1)` (C. Nadeau and Y. Bengio, Machine Learning 52 (2003) 239, eq. 11 with n2/n1 = 1/(K-1)).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.errors import checked_norm, dual_norm, share_in_error
from odeflow.anisotropic.integrate import (
    MAX_STEPS,
    RANK,
    check_model,
    checked_start,
    checked_test_epsilon,
    checked_times,
    integrate,
    solution,
)
from odeflow.anisotropic.mixture import LABELS_OF_CLASSES, Mixture, Samples
from odeflow.anisotropic.optimal import optimal_classifier
from odeflow.model import Adversary, LearningRule, checked_count, checked_number
from odeflow.numerics.threads import blas_threads
from odeflow.parameters import label
from odeflow.simulate import seed_sequence

if TYPE_CHECKING:
    import xarray as xr

    from odeflow.anisotropic.closure import Margins

__all__ = ["cross_validate", "cross_validate_optimum"]

Array = npt.NDArray[np.float64]

_LONG_NAMES = {
    "error_se": "standard error of the classification error",
    "adversarial_error_se": "standard error of the adversarial error",
    "plug_in_error": "classification error on the means and covariances that were learned from",
    "plug_in_adversarial_error": "adversarial error on the means and covariances that were learned from",
}


def cross_validate(
    samples: Samples,
    rule: LearningRule,
    adversary: Adversary,
    *,
    folds: int = 10,
    shrinkage: float | Literal["ledoit-wolf"] = 0.0,
    rng: int | np.random.SeedSequence | np.random.Generator | None = 0,
    alpha: npt.ArrayLike | None = None,
    examples: npt.ArrayLike | None = None,
    w0: float | npt.ArrayLike | None = None,
    b0: float = 0.0,
    test_epsilon: npt.ArrayLike | None = None,
    weights: bool = False,
    rank: int = RANK,
    rtol: float = 5e-3,
    max_steps: int = MAX_STEPS,
) -> xr.Dataset:
    """Predict what SGD on samples learns, and its errors on new data of the same law: `integrate` with held-out errors.

    Approximate: Gaussian margins, the closure of `integrate`, and an error of the estimate that is stated.

    Parameters
    ----------
    samples
        The data to learn from.
    rule, adversary
        As for `integrate`.
    folds
        Number of parts, >= 2, at most the samples of the smaller class. Each is left out once: the theory is solved
        folds + 1 times.
    shrinkage
        As for `Mixture.from_samples`, which needs it where a class has no more samples outside a part than dimensions.
    rng
        Seed of the parts, which are drawn at random within each class.
    alpha, examples, w0, b0, test_epsilon, weights, rank, rtol, max_steps
        As for `integrate`.

    Returns
    -------
    Dataset
        That of `integrate` for the means and covariances of all samples, in which error and adversarial_error are the
        held-out ones, with standard errors error_se and adversarial_error_se (to about a quarter, for 10 parts); and
        plug_in_error and plug_in_adversarial_error, those at the means and covariances that were learned from.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or a class has too few samples.
    IntegrationError
        If the solver cannot go on.

    References
    ----------
    P. Burman, A comparative study of ordinary cross-validation, v-fold cross-validation and the repeated learning-testing
    methods, Biometrika 76 (1989) 503. C. Nadeau and Y. Bengio, Inference for the generalization error, Machine Learning 52
    (2003) 239.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> y = np.repeat([1, -1], 40)
    >>> samples = Samples(rng.standard_normal((80, 20)) + 0.4 * y[:, None], y)
    >>> rule = LearningRule.per_example(0.02, N=20)
    >>> theory = cross_validate(samples, rule, Adversary(0.1, norm="linf"), examples=[2000])
    >>> bool(theory.plug_in_adversarial_error < theory.adversarial_error)
    True
    """
    check_model(rule, adversary)
    parts = _Parts(samples, folds, shrinkage, rng)
    dim, times = checked_times(alpha, examples)
    start, spread = checked_start(w0, rule, samples.N)
    epsilons = checked_test_epsilon(test_epsilon, adversary)
    options: dict[str, Any] = {"rank": rank, "rtol": rtol, "max_steps": max_steps}
    result = integrate(
        parts.whole, rule, adversary, alpha=alpha, examples=examples, w0=w0, b0=b0, test_epsilon=epsilons, weights=weights,
        **options,
    )  # fmt: skip
    t = times * (rule.eta_w if dim == "alpha" else rule.eta_w / samples.N)
    b0 = float(b0)

    def margins(mixture: Mixture, on: Sequence[Mixture]) -> list[list[Margins]]:
        closure, moments = solution(mixture, rule, adversary, t, start, spread, b0, **options)
        with blas_threads(mixture.N):
            return [[closure.margins(one.u, one.fluctuations, other) for one in moments] for other in on]

    learned = [margins(part.rest, (part.own, parts.whole)) for part in parts.parts]
    held, whole = (list(zip(*(both[k] for both in learned), strict=True)) for k in (0, 1))  # by time, then part
    for name, at in (("error", np.zeros(())), ("adversarial_error", epsilons)):
        values = [parts.error(*one, at) for one in zip(held, whole, result[name].values, strict=True)]
        _replace(result, name, np.stack([S for S, _ in values]), np.stack([se for _, se in values]))
    return _described(result, parts, "anisotropic.cross_validate")


def cross_validate_optimum(
    samples: Samples,
    epsilon: float = 0.0,
    norm: str = "l2",
    *,
    folds: int = 10,
    shrinkage: float | Literal["ledoit-wolf"] = 0.0,
    rng: int | np.random.SeedSequence | np.random.Generator | None = 0,
    rtol: float = 1e-6,
) -> xr.Dataset:
    """Return the linear classifier that is best for the means and covariances of samples, with held-out errors.

    Approximate: Gaussian margins, and an error of the estimate that is stated.

    Parameters
    ----------
    samples
        The data.
    epsilon, norm, rtol
        As for `optimal_classifier`.
    folds, shrinkage, rng
        As for `cross_validate`.

    Returns
    -------
    Dataset
        That of `optimal_classifier` for the means and covariances of all samples, in which error and adversarial_error
        are the held-out ones; and error_se, adversarial_error_se, plug_in_error and plug_in_adversarial_error, as for
        `cross_validate`. The certificate `gap` is of the plug-in problem.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed, or a class has too few samples.
    ConvergenceError
        As for `optimal_classifier`.
    """
    parts = _Parts(samples, folds, shrinkage, rng)
    epsilon = checked_number("epsilon", epsilon, least=0)
    norm = checked_norm(norm)
    result = optimal_classifier(parts.whole, epsilon, norm, rtol=rtol)
    held, whole = [], []
    for part in parts.parts:
        best = optimal_classifier(part.rest, epsilon, norm, rtol=rtol)
        w, b = best.w.values, float(best.b)
        held.append(_margins(w, b, part.own, norm))
        whole.append(_margins(w, b, parts.whole, norm))
    for name, at in (("error", 0.0), ("adversarial_error", epsilon)):
        _replace(result, name, *parts.error(held, whole, float(result[name]), np.array(at)))
    return _described(result, parts, "anisotropic.cross_validate_optimum")


def _margins(w: Array, b: float, mixture: Mixture, norm: str) -> Margins:
    """Return the law of the margins of one classifier."""
    from odeflow.anisotropic.closure import Margins

    return Margins(mixture.means @ w - b, float(dual_norm(w, norm)), mixture.variances(w), np.zeros(2), 0.0)


@dataclass(frozen=True)
class _Part:
    """A part of the samples, and the rest."""

    own: Mixture
    rest: Mixture
    counts: npt.NDArray[np.int64]
    """Samples of each class in the part, shape (2,)."""


class _Parts:
    """Samples in parts, each class on its own, as mixtures."""

    def __init__(self, samples: Samples, folds: int, shrinkage: float | str, rng: Any) -> None:
        if not isinstance(samples, Samples):
            raise TypeError(f"samples = {samples!r} is of the wrong type: allowed is anisotropic.Samples")
        self.folds, self.shrinkage = checked_count("folds", folds, 2), shrinkage
        X, y = samples.X, samples.y
        fewest = min(int((y == tau).sum()) for tau in LABELS_OF_CLASSES)
        if self.folds > fewest:
            allowed = (
                f"are 2 to {fewest}, the samples of a class" if fewest > 1 else "is no number, for a class has 1 sample"
            )
            raise ValueError(f"folds = {self.folds} is out of range: allowed {allowed}")
        self.seed = seed_sequence(rng)
        generator = np.random.default_rng(self.seed)
        part_of = np.empty(len(y), np.int64)
        for tau in LABELS_OF_CLASSES:
            own = np.flatnonzero(y == tau)
            part_of[generator.permutation(own)] = np.arange(len(own)) % self.folds
        options: dict[str, Any] = {"shrinkage": shrinkage}
        self.whole = Mixture.from_samples(X, y, **options)
        self.parts = []
        for part in range(self.folds):
            here = part_of == part
            counts = np.array([np.count_nonzero(y[here] == tau) for tau in LABELS_OF_CLASSES])
            self.parts.append(
                _Part(Mixture.of(X[here], y[here]), Mixture.from_samples(X[~here], y[~here], **options), counts)
            )

    def error(
        self, held: Sequence[Margins], whole: Sequence[Margins], plug_in: Any, epsilon: Array
    ) -> tuple[Array, Array]:
        """Return the held-out error, corrected for the size of the parts, and its standard error; shape of epsilon.

        `held` are the margins on the part that was left out, `whole` those on all samples, `plug_in` the error on all
        samples of what was learned from all.
        """
        counts = np.stack([part.counts for part in self.parts])
        without = [[f for f in range(self.folds) if f != part] for part in range(self.folds)]
        S = self._pooled(held, counts, epsilon)
        of_parts = np.stack([self._pooled([held[f] for f in rest], counts[rest], epsilon) for rest in without])
        jackknife = (self.folds - 1) * of_parts.var(axis=0)
        se = np.sqrt(jackknife * (1 + self.folds / (self.folds - 1)))
        fewer = self._pooled(whole, np.ones_like(counts), epsilon)
        return np.clip(S + plug_in - fewer, 0.0, 1.0), se

    def _pooled(self, margins: Sequence[Margins], counts: npt.NDArray[np.int64], epsilon: Array) -> Array:
        """Return the error for margins with the averages of means and second moments; constant classifiers on their own."""
        S = np.zeros(epsilon.shape)
        for k, (tau, prior) in enumerate(zip(LABELS_OF_CLASSES, self.whole.priors, strict=True)):
            room = np.stack([tau * one.mean[k] - epsilon * one.length for one in margins])
            variance = np.stack(
                [
                    one.variance[k] - 2 * tau * epsilon * one.with_length[k] + epsilon**2 * one.of_length
                    for one in margins
                ]
            )
            share = counts[:, k] / counts[:, k].sum()
            constant = np.isinf(room.reshape(len(room), -1)).any(axis=1)
            S += prior * np.tensordot(share[constant], share_in_error(room[constant], np.sqrt(variance[constant])), 1)
            if not constant.all():
                own = share[~constant] / share[~constant].sum()
                mean = np.tensordot(own, room[~constant], 1)
                spread = np.tensordot(own, np.maximum(variance[~constant], 0.0) + (room[~constant] - mean) ** 2, 1)
                S += prior * share[~constant].sum() * share_in_error(mean, np.sqrt(spread))
        return S


def _replace(result: xr.Dataset, name: str, value: Array, se: Array) -> None:
    """Put the held-out error in the place of the plug-in one, which is kept under its own name."""
    dims = result[name].dims
    result[f"plug_in_{name}"] = dims, result[name].values
    result[name] = dims, value
    result[f"{name}_se"] = dims, se


def _described(result: xr.Dataset, parts: _Parts, function: str) -> xr.Dataset:
    """Label what was added, and record how it was made."""
    for name, long_name in _LONG_NAMES.items():
        result[name].attrs.update(long_name=long_name, units="1")
    configuration = json.loads(result.attrs["configuration"])
    configuration["function"] = function
    configuration["options"] |= {"folds": parts.folds, "shrinkage": parts.shrinkage}
    seed = f"entropy={parts.seed.entropy}, spawn_key={tuple(parts.seed.spawn_key)}"
    result.attrs |= {"configuration": json.dumps(configuration), "seed": seed}
    return label(result)
