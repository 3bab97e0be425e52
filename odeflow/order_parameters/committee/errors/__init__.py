r"""Errors of a two-layer network of given order parameters, exact: clean, under an attack, and in the worst case.

Section 5.5 of the theory. In the plane :math:`h = L^{-1}\lambda`, :math:`Q = LL^T`, a cluster is Gaussian and the length of an
attack is Euclidean distance:

.. math:: E = \sum_a p_a P(\tau_a\phi \le 0), \qquad
   S(\varepsilon) = \sum_a p_a P(\min_{|r| \le \varepsilon} \tau_a\phi(L(h + r)) \le 0) .

An output of 0 is an error. All functions take arrays, and broadcast over the leading axes of the states.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD, WORST, Attack
from odeflow.order_parameters.committee.units import ERF, RELU

__all__ = ["adversarial_error", "adversarial_error_bound", "clean_error", "fgsm_error"]

Array = npt.NDArray[np.float64]


def clean_error(
    kind: int, M: Any, Q: Any, c: Any, theta: Any, b: Any, p: Any, v: Any, tau: Any, *, tolerance: float = 1e-6
) -> Array:
    r"""Return the probability that the sign of the output is wrong on a new example.

    Parameters
    ----------
    kind
        ``ERF``, g(x) = erf(x / sqrt(2)), or ``RELU``.
    M
        w_k.mu_a, shape (..., K, clusters).
    Q
        w_k.w_l, shape (..., K, K), positive semidefinite; it may be singular.
    c, theta
        Output weights and thresholds, shape (..., K).
    b
        Output bias, shape (...).
    p, v, tau
        Weight, variance and label (+-1) of each cluster, shape (..., clusters).
    tolerance
        Absolute error of the quadrature, in [1e-12, 1e-2].

    Returns
    -------
    ndarray
        In [0, 1], shape (...); nan where the state is not finite.

    Raises
    ------
    ValueError
        If a shape or a value is not allowed.
    """
    from odeflow.order_parameters.committee.errors.integral import CLEAN

    return _errors(CLEAN, kind, M, Q, c, theta, b, p, v, tau, 0.0, Attack(FGSM, 1, 1.0), tolerance)


def fgsm_error(
    kind: int, M: Any, Q: Any, c: Any, theta: Any, b: Any, p: Any, v: Any, tau: Any, epsilon: Any,
    how: Attack = Attack(FGSM, 1, 1.0), *, tolerance: float = 1e-6,  # noqa: B008
) -> Array:  # fmt: skip
    r"""Return the probability that the sign of the output is wrong after an attack of the loss.

    FGSM pushes where the loss grows fastest: away from the right sign, but for an example whose output is beyond its label,
    :math:`\tau\phi > 1`, the other way.

    Parameters
    ----------
    kind, M, Q, c, theta, b, p, v, tau, tolerance
        As for `clean_error`.
    epsilon
        Length of the attack, >= 0, shape (...).
    how
        FGSM on the loss; MARGIN, which never pushes the other way; or PGD on the loss. With ReLU units the first two are
        integrated exactly along one coordinate; of the others the changes of sign are looked for, at steps of a quarter.

    Returns
    -------
    ndarray
        In [0, 1], shape (...); nan where the state is not finite.

    Raises
    ------
    ValueError
        If a shape or a value is not allowed.
    """
    from odeflow.order_parameters.committee.errors.integral import ATTACKED

    if how.kind not in (FGSM, MARGIN, PGD) or how.steps < 1 or not how.step > 0:
        raise ValueError(
            f"how = {how!r}: allowed are FGSM ({FGSM}), MARGIN ({MARGIN}) and PGD ({PGD}) with steps >= 1 and step > 0; for the "
            "worst case there is adversarial_error"
        )
    return _errors(ATTACKED, kind, M, Q, c, theta, b, p, v, tau, epsilon, how, tolerance)


def adversarial_error(
    kind: int, M: Any, Q: Any, c: Any, theta: Any, b: Any, p: Any, v: Any, tau: Any, epsilon: Any,
    *, tolerance: float = 1e-6,
) -> Array:  # fmt: skip
    r"""Return the probability that some perturbation of length epsilon or less makes the sign of the output wrong.

    Exact: for one or two erf units, and for any number of ReLU units.

    Parameters
    ----------
    kind, M, Q, c, theta, b, p, v, tau, epsilon, tolerance
        As for `fgsm_error`.

    Returns
    -------
    ndarray
        In [0, 1], shape (...); nan where the state is not finite.

    Raises
    ------
    ValueError
        If a shape or a value is not allowed, or for more than two erf units.
    """
    from odeflow.order_parameters.committee.errors.integral import WORST_CASE

    K = np.shape(c)[-1] if np.ndim(c) else 0
    if kind == ERF and K > 2:
        raise ValueError(
            f"the exact worst case of {K} erf units is not known: allowed are 1 and 2, or ReLU units; adversarial_error_bound "
            "gives a lower bound"
        )
    return _errors(WORST_CASE, kind, M, Q, c, theta, b, p, v, tau, epsilon, Attack(WORST, 1, 1.0), tolerance)


def adversarial_error_bound(
    kind: int, M: Any, Q: Any, c: Any, theta: Any, b: Any, p: Any, v: Any, tau: Any, epsilon: Any,
    *, tolerance: float = 1e-6,
) -> Array:  # fmt: skip
    r"""Return a lower bound of `adversarial_error`, for any number of units: what climbs from K + 1 starts find.

    For ReLU units it is `adversarial_error`. For erf units each climb follows the gradient to the highest point within reach;
    the bound is the exact error where they find it, as they do unless the boundary bends more than a circle of radius epsilon.

    Parameters
    ----------
    kind, M, Q, c, theta, b, p, v, tau, epsilon, tolerance
        As for `fgsm_error`.

    Returns
    -------
    ndarray
        In [0, 1], shape (...); nan where the state is not finite.

    Raises
    ------
    ValueError
        If a shape or a value is not allowed.
    """
    from odeflow.order_parameters.committee.errors.integral import BOUND, WORST_CASE

    what = BOUND if kind == ERF else WORST_CASE
    return _errors(what, kind, M, Q, c, theta, b, p, v, tau, epsilon, Attack(WORST, 1, 1.0), tolerance)


def _errors(
    what: int, kind: int, M: Any, Q: Any, c: Any, theta: Any, b: Any, p: Any, v: Any, tau: Any, epsilon: Any, how: Attack,
    tolerance: float,
) -> Array:  # fmt: skip
    """Check, broadcast, and run the kernel on all cores."""
    from scipy.special import erfcinv

    from odeflow.numerics.threads import Flag, map_blocks
    from odeflow.order_parameters.committee.errors.kernel import errors
    from odeflow.order_parameters.committee.errors.lattice import lattices

    if kind not in (ERF, RELU):
        raise ValueError(f"kind = {kind!r} is unknown: allowed is ERF ({ERF}) or RELU ({RELU})")
    if not 1e-12 <= tolerance <= 1e-2:
        raise ValueError(f"tolerance = {tolerance!r} is out of range: allowed is 1e-12 <= tolerance <= 0.01")
    entries = {"M": M, "Q": Q, "c": c, "theta": theta, "b": b, "p": p, "v": v, "tau": tau, "epsilon": epsilon}
    arrays = {name: np.asarray(value, np.float64) for name, value in entries.items()}
    if arrays["M"].ndim < 2:
        raise ValueError(f"M has shape {arrays['M'].shape}: allowed is (..., units, clusters)")
    K, clusters = arrays["M"].shape[-2:]
    cores = {"M": (K, clusters), "Q": (K, K), "c": (K,), "theta": (K,), "p": (clusters,), "v": (clusters,)}
    cores["tau"] = (clusters,)
    for name, core in cores.items():
        shape = arrays[name].shape
        if shape[len(shape) - len(core) :] != core:
            raise ValueError(f"{name} has shape {shape}: allowed is (..., {', '.join(map(str, core))})")
    allowed = {"epsilon": arrays["epsilon"] >= 0, "v": arrays["v"] > 0, "p": arrays["p"] >= 0}
    allowed["tau"] = np.abs(arrays["tau"]) == 1
    for (name, is_good), text in zip(allowed.items(), (">= 0", "> 0", ">= 0", "-1 or 1"), strict=True):
        if not np.all(is_good):
            raise ValueError(f"{name} = {float(arrays[name][~is_good][0])!r} is out of range: allowed is {text}")
    leading = {name: array.shape[: array.ndim - len(cores.get(name, ()))] for name, array in arrays.items()}
    try:
        shape = np.broadcast_shapes(*leading.values())
    except ValueError:
        raise ValueError(f"leading axes do not broadcast: {leading}") from None
    count = math.prod(shape)
    flat = []
    is_finite = np.ones(count, bool)
    for name, array in arrays.items():
        core = cores.get(name, ())
        rows = np.ascontiguousarray(np.broadcast_to(array, (*shape, *core))).reshape(count, *core)
        is_finite &= np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
        flat.append(rows)
    flat = [array[is_finite] for array in flat]
    found = np.empty(np.count_nonzero(is_finite))
    reach = math.sqrt(2) * float(erfcinv(0.02 * tolerance))
    rules = lattices(tuple(int(units) for units in np.unique(np.count_nonzero(arrays["c"], axis=-1))))

    def work(first: int, last: int, stop: Flag) -> None:
        errors(what, kind, *flat, how, rules, reach, tolerance, first, last, stop, found)

    map_blocks(work, found.size, least=4 if K <= 2 else 1)
    out = np.full(count, np.nan)
    out[is_finite] = found
    return out.reshape(shape)
