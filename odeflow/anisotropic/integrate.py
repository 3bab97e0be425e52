"""Integrate the theory of SGD on two Gaussian classes with any means and covariances."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.anisotropic.errors import checked_epsilons, share_in_error
from odeflow.anisotropic.mixture import LABELS_OF_CLASSES, Mixture, real_array
from odeflow.integrate import IntegrationError, checked_alpha
from odeflow.model import (
    Adversary,
    LearningRule,
    check_constant,
    check_known,
    checked_count,
    checked_number,
    numeric_parameters,
)
from odeflow.numerics.threads import blas_threads
from odeflow.parameters import a, label
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

    from odeflow.anisotropic.closure import Closure, Margins
    from odeflow.anisotropic.stepper import Moments

__all__ = [
    "STATUS",
    "check_model",
    "checked_start",
    "checked_test_epsilon",
    "checked_times",
    "integrate",
    "mean_error",
    "recorded_start",
    "solution",
    "time_coords",
    "warn_of_closure",
]

Array = npt.NDArray[np.float64]

RANK = 50
MAX_STEPS = 100_000
LARGEST = 1e50  # of weights, bias and epsilon: squares of their products with data are finite
STATUS = {
    0: "done",
    1: "weights and bias have reached 0 in the limit of small learning rates, and stay there: no direction is left",
}
"""What the status codes of a time say."""


def integrate(
    mixture: Mixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
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
    r"""Integrate mean and covariance of the weights over learning time, and give the errors (equations (4)).

    Exact for Gaussian classes as eta -> 0 (a rule with second_order=False). With the noise of SGD approximate: the
    weights are taken as Gaussian over runs. Then exact as N grows for isotropic classes and L2.

    Parameters
    ----------
    mixture
        The data: a `Mixture`.
    rule
        The learning rule; eta_w/N and eta_b/N are its rates per example (`LearningRule.per_example`).
    adversary
        Whom it attacks, how hard, and in which norm.
    alpha, examples
        Increasing output times >= 0, shape (alpha,) or (examples,): in examples per dimension, or in examples. One of
        the two.
    w0
        Initial weights: an array of shape (N,), or a number, the root mean square length of Gaussian weights
        that differ from run to run. Default: 1 if the rule keeps the weights normalised, otherwise 0.03.
    b0
        Initial bias.
    test_epsilon
        Perturbations at which `adversarial_error` is evaluated, >= 0: a number, or shape (test_epsilon,). Default: the
        adversary's epsilon.
    weights
        Whether the result has the weights too.
    rank
        Principal components of the data on which the covariance of the weights is kept in full, >= 0; on the rest it
        is taken as diagonal. From N on nothing is left out. The cost grows as its square, and above some hundred as
        its cube.
    rtol
        Relative tolerance of the weights, in (0, 1).
    max_steps
        Most steps that the solver may take.

    Returns
    -------
    Dataset
        With dim alpha or examples: l1_norm and l2_norm (means over runs), b, error, adversarial_error (with dim
        test_epsilon, if that is an array), and w and w_sd (mean and standard deviation over runs, dim feature) with
        weights=True; and

        neglected
            The largest size so far of what the closure takes to be small; above 0.5 a prediction may be far off, and a
            `ClosureWarning` says so (see the page "Theory on real data").
        status
            0, or 1 once weights and bias have vanished: where delta jumps at 0 (perceptron loss, sign output,
            update="non_robust") a strong attack takes them to 0 in a finite time, in the limit of small learning rates.
            Errors are nan then.

        If the mixture was estimated, the coordinate samples_per_dimension is n/N. The errors are those of the mixture as
        it was estimated, and too small by far where n/N is: see `cross_validate`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.
    IntegrationError
        If the solver cannot go on.

    Examples
    --------
    >>> from odeflow import GaussianMixture
    >>> mixture = Mixture.isotropic(GaussianMixture(), N=1000)
    >>> theory = integrate(mixture, LearningRule(), Adversary(1.0), alpha=[0.0, 100.0])
    >>> theory.sizes["alpha"]
    2
    """
    import xarray as xr

    check_model(rule, adversary)
    for name in ("eta_w", "eta_b"):
        if getattr(rule, name) == 0:
            raise ValueError(
                f"{name} = 0.0: allowed is > 0 for this theory, which measures time in it; simulate allows 0"
            )
    if not isinstance(mixture, Mixture):
        raise TypeError(f"mixture = {mixture!r} is of the wrong type: allowed is an anisotropic.Mixture")
    N = mixture.N
    dim, times = checked_times(alpha, examples)
    start, spread = checked_start(w0, rule, N)
    b0 = checked_number("b0", b0, least=-LARGEST, most=LARGEST)
    epsilons = checked_test_epsilon(test_epsilon, adversary)
    rank = checked_count("rank", rank, 0)
    rtol = checked_number("rtol", rtol, least=1e-8, below=1)
    max_steps = checked_count("max_steps", max_steps, 1)

    per_time = rule.eta_w if dim == "alpha" else rule.eta_w / N
    closure, moments = solution(
        mixture, rule, adversary, per_time * times, start, spread, b0, rank=rank, rtol=rtol, max_steps=max_steps
    )
    warn_of_closure(moments, times, dim)
    rows = [_row(closure, one, epsilons, weights=weights) for one in moments]
    data: dict[str, Any] = {
        name: (_dims(name, dim, epsilons), np.stack([row[name] for row in rows])) for name in rows[0]
    }
    coords = time_coords(dim, times, N) | {
        **numeric_parameters(rule, adversary), "norm": adversary.norm, "p": mixture.p, "N": N, "b0": b0,
        "test_epsilon": epsilons,
    }  # fmt: skip
    if mixture.samples is not None:
        coords["samples_per_dimension"] = sum(mixture.samples) / N
    attrs = provenance(
        "anisotropic.integrate", rule, adversary,
        mixture=repr(mixture), w0=recorded_start(w0, rule), b0=b0, test_epsilon=epsilons, rank=rank, rtol=rtol,
        max_steps=max_steps,
    )  # fmt: skip
    result = label(xr.Dataset(data, coords, attrs))
    result["status"].attrs["meaning"] = "; ".join(f"{code}: {text}" for code, text in STATUS.items())
    return result


def solution(
    mixture: Mixture,
    rule: LearningRule,
    adversary: Adversary,
    t: Array,
    start: Array,
    spread: float,
    b0: float,
    *,
    rank: int,
    rtol: float,
    max_steps: int,
) -> tuple[Closure, list[Moments]]:
    """Return the equations, and the moments at times t (in eta times examples), of arguments that were checked."""
    from odeflow.anisotropic.closure import Closure
    from odeflow.anisotropic.fluctuations import Fluctuations
    from odeflow.anisotropic.stepper import StepError, trajectory

    with blas_threads(mixture.N):
        closure = Closure(mixture, rule, adversary, rank)
        u = np.append(start, b0 / closure.beta)
        fluctuations = Fluctuations.isotropic(closure.subspace, spread**2 / mixture.N)
        try:
            return closure, list(trajectory(closure, u, fluctuations, t, rtol=rtol, max_steps=max_steps))
        except StepError as error:
            raise IntegrationError(
                f"the theory of {rule}, {adversary} failed: {error}; a larger rtol or max_steps may help"
            ) from None


def warn_of_closure(moments: list[Moments], times: Array, dim: str) -> None:
    """Warn of moments at which what the closure neglects is large, in the name of the caller's caller."""
    from odeflow.anisotropic.validity import LARGE, ClosureWarning

    large = [max(one.neglected) > LARGE for one in moments]
    if not any(large):
        return
    step, place, width = moments[-1].neglected
    why = {
        f"one example changes the output by {step:.2g} of the range in which learning depends on it": step,
        f"the mean output has over runs {place:.2g} of the variance of that range": place,
        f"the variance of the output differs from run to run by {width:.2g} of that of the range": width,
    }
    warnings.warn(
        f"the theory with noise may be far off from {dim} = {times[large.index(True)]:g} on: "
        f"{'; '.join(text for text, size in why.items() if size > LARGE)} (more than {LARGE:g} is too much): take smaller "
        "learning rates, or simulate; see 'Where the closure fails' on the documentation's page 'Theory on real data'",
        ClosureWarning,
        stacklevel=3,
    )


def _row(closure: Closure, moments: Moments, epsilons: Array, *, weights: bool) -> dict[str, Any]:
    """Return what a result says of one time."""
    from odeflow.anisotropic.norms import L2, LInfinity

    w, V = moments.u[:-1], closure.variances(moments.fluctuations)
    margins = closure.margins(moments.u, moments.fluctuations)
    there = 0.0 if moments.collapsed else 1.0
    lost = np.nan if moments.collapsed else 0.0
    row = {
        "l1_norm": there * LInfinity.dual(w, V),
        "l2_norm": there * L2.dual(w, V),
        "b": closure.beta * moments.u[-1],
        "error": mean_error(margins, closure.mixture.priors, np.zeros(())) + lost,
        "adversarial_error": mean_error(margins, closure.mixture.priors, epsilons) + lost,
        "neglected": max(moments.neglected),
        "status": np.int8(moments.collapsed),
    }
    return row | {"w": w, "w_sd": there * np.sqrt(V)} if weights else row


def mean_error(margins: Margins, priors: tuple[float, float], epsilon: Array) -> Array:
    r"""Return the adversarial error, averaged over runs by the variance :math:`a^T\Sigma a` of the margin's mean."""
    S = np.zeros(epsilon.shape)
    for k, (tau, prior) in enumerate(zip(LABELS_OF_CLASSES, priors, strict=True)):
        variance = margins.variance[k] - 2 * tau * epsilon * margins.with_length[k] + epsilon**2 * margins.of_length
        room = tau * margins.mean[k] - epsilon * margins.length
        S += prior * share_in_error(room, np.sqrt(np.maximum(variance, 0.0)))
    return S


def check_model(rule: object, adversary: object) -> None:
    """Raise a TypeError if rule or adversary is not what its name says; warn of an epsilon in the wrong units."""
    for name, part, kind in (("rule", rule, LearningRule), ("adversary", adversary, Adversary)):
        if not isinstance(part, kind):
            raise TypeError(f"{name} = {part!r} is of the wrong type: allowed is {a(kind.__name__)}")
        check_constant(part)
    check_known("odeflow.anisotropic", rule, adversary)
    if isinstance(adversary, Adversary) and adversary.norm == "linf" and adversary.epsilon > 1:
        warnings.warn(
            f"epsilon = {adversary.epsilon:g} in L-infinity is more than the whole range of pixel values in [0, 1]; "
            f"from a scale of 0 to 255 it is {adversary.epsilon:g}/255",
            stacklevel=3,
        )


def checked_times(alpha: npt.ArrayLike | None, examples: npt.ArrayLike | None) -> tuple[str, Array]:
    """Return the name of the time that was given, alpha or examples, and its values."""
    if (alpha is None) == (examples is None):
        given = "neither" if alpha is None else "both"
        raise TypeError(f"{given} of alpha and examples given: allowed is one of the two")
    if alpha is not None:
        return "alpha", checked_alpha(alpha)
    return "examples", checked_alpha(examples, name="examples")  # type: ignore[arg-type]


def checked_start(w0: float | npt.ArrayLike | None, rule: LearningRule, N: int) -> tuple[Array, float]:
    """Return the mean of the initial weights, and the root mean square length of their random part."""
    if w0 is None:
        w0 = 1.0 if rule.normalised else 0.03
    if not isinstance(w0, list | tuple) and np.ndim(w0) == 0:
        spread = checked_number("w0", w0, above=0, most=LARGEST)
        if rule.normalised and spread != 1:
            raise ValueError(f"w0 = {spread!r} is out of range: allowed is 1, because the rule keeps |w| = 1")
        return np.zeros(N), spread
    start = np.array(real_array("w0", w0))
    if start.shape != (N,):
        raise ValueError(f"w0 has shape {start.shape}: allowed is a number > 0, or finite numbers of shape ({N},)")
    bad = ~(np.abs(start) <= LARGEST)
    if bad.any():
        raise ValueError(
            f"w0 contains {float(start[bad][0])!r}: allowed are finite numbers, at most {LARGEST:g} in size"
        )
    if rule.normalised and abs(np.linalg.norm(start) - 1) > 1e-6:
        raise ValueError(f"w0 has the length {float(np.linalg.norm(start))!r}: allowed is 1, as the rule keeps |w| = 1")
    return start, 0.0


def checked_test_epsilon(test_epsilon: npt.ArrayLike | None, adversary: Adversary) -> Array:
    """Return the perturbations of the test, a number or a row of increasing ones."""
    epsilons = checked_epsilons("test_epsilon", adversary.epsilon if test_epsilon is None else test_epsilon)
    if epsilons.size == 0 or epsilons.ndim > 1 or np.any(np.diff(np.atleast_1d(epsilons)) <= 0):
        raise ValueError(f"test_epsilon = {test_epsilon!r} is not a grid: allowed is a number, or increasing ones >= 0")
    return epsilons


def time_coords(dim: str, times: Array, N: int) -> dict[str, Any]:
    """Return the coordinates of time, in both units."""
    other = ("examples", times * N) if dim == "alpha" else ("alpha", times / N)
    return {dim: times, other[0]: (dim, other[1])}


def _dims(name: str, dim: str, epsilons: Array) -> tuple[str, ...]:
    if name in ("w", "w_sd"):
        return (dim, "feature")
    return (dim, "test_epsilon") if name == "adversarial_error" and epsilons.ndim else (dim,)


def recorded_start(w0: float | npt.ArrayLike | None, rule: LearningRule) -> float | str:
    """Return the initial weights as they are recorded."""
    if w0 is None:
        return 1.0 if rule.normalised else 0.03
    return float(w0) if np.ndim(w0) == 0 else "given"  # type: ignore[arg-type]
