"""What is measured: trajectories, the specialised state over epsilon, and what becomes of random starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import xarray as xr
from scipy.integrate import solve_ivp
from scipy.optimize import brentq

from odeflow import Adversary, LearningRule, integrate, xor
from odeflow.order_parameters import Committee, random_start
from odeflow.order_parameters.base import flat, unflat
from odeflow.order_parameters.committee.errors import clean_error, fgsm_error
from odeflow.order_parameters.committee.units import ACTIVATIONS
from studies.common.two_layers import Clusters, Nets, fgsm, sgd
from studies.xor.plan import CENTRES, FIXED, C, Condition, Line, Plan

__all__ = [
    "critical_epsilon", "found", "growth", "line", "noisy_states", "settled", "shares", "simulated", "small_state",
]  # fmt: skip

Array = npt.NDArray[np.float64]
NET = Committee(4, "relu", tolerance=1e-4)
STATE = ("M", "Q", "c", "theta", "b")
TEST = 0.3  # test epsilon of S
_FOUND = 0.3  # of the largest overlap: a cluster is found if a unit of its label has this


# --- learning ---


def line(one: Line, seed: np.random.SeedSequence) -> xr.Dataset:
    """Return the theory over alpha and its simulation: the state, E, and S under FGSM at the test epsilon."""
    mixture, adversary = xor(2.0, one.v), Adversary(one.epsilon)
    rule = LearningRule(one.eta, one.eta)
    solved = integrate(mixture, rule, adversary, network=one.network, alpha=one.alpha, start=one.start)
    states = {name: solved[name].values for name in STATE}
    runs = simulated(one.network, mixture, rule, adversary, one.start, one.N, one.alpha, one.runs, seed)
    found = xr.Dataset(coords={"alpha": list(one.alpha), "unit": range(4), "other_unit": range(4), "cluster": range(4)})
    dims = {"M": ("unit", "cluster"), "Q": ("unit", "other_unit"), "theta": ("unit",), "b": ()}
    for name, more in dims.items():
        found[name] = ("alpha", *more), states[name]
        found[f"simulated_{name}"] = ("run", "alpha", *more), runs[name]
    for lead, of in ((("alpha",), states), (("run", "alpha"), runs)):
        for name, values in _errors(one, of).items():
            found["simulated_" * (len(lead) - 1) + name] = lead, values
    return found.assign_coords(run=range(one.runs))


def _errors(one: Line, state: dict[str, Array]) -> dict[str, Array]:
    """Return E and S under FGSM."""
    mixture, kind = xor(2.0, one.v), ACTIVATIONS[one.activation]
    M, Q, c, theta, b = (state[name] for name in STATE)
    p, v, tau = np.array(mixture.weights), one.v * np.array(mixture.variances), np.array(mixture.labels)
    return {
        "error": clean_error(kind, M, Q, c, theta, b, p, v, tau, tolerance=1e-4),
        "fgsm_error": fgsm_error(kind, M, Q, c, theta, b, p, v, tau, TEST, tolerance=1e-4),
    }


def simulated(
    network: Committee,
    mixture: Any,
    rule: LearningRule,
    adversary: Adversary,
    start: dict[str, Any],
    N: int,
    alpha: Sequence[float],
    runs: int,
    seed: np.random.SeedSequence,
) -> dict[str, Array]:
    """Return the order parameters of reduced simulations by name, shape (runs, alpha, ...); a start may be of each run."""
    variables = network.variables(rule, mixture)
    full = {"theta": np.zeros(4), "b": np.zeros(()), "c": C} | start
    lead = np.shape(full["M"])[:-2]
    full = {
        name: np.broadcast_to(full[name], (*lead, *np.shape(full[name])[np.ndim(full[name]) - len(v.sizes) :]))
        for name, v in zip(STATE, variables, strict=True)
    }
    examples = np.round(np.array(alpha) * N).astype(np.int64)
    states = network.simulate(
        mixture, rule, adversary, N=N, examples=examples, runs=runs, method="reduced", seed=seed,
        start=flat(full, variables), progress=False,
    )  # fmt: skip
    return unflat(states, variables)


# --- the collapse of the specialised state ---


def critical_epsilon(v: float) -> float:
    r"""Return the epsilon beyond which the specialised state is pushed to w = 0 (exact as eta -> 0 and N grows).

    Solves :math:`E\,||x| - \varepsilon/\sqrt 2| = \sqrt{2v/\pi} + \varepsilon/\sqrt 2`, x ~ N(1, v): near w = 0 both sides are
    what the attacked output of the right units, and of the others, grows with.

    Parameters
    ----------
    v
        Variance of the clusters, in (0, pi/2) up to which there is one.
    """

    def excess(epsilon: float) -> float:
        shift = epsilon / math.sqrt(2)
        return _folded(1 - shift, v, shift) - math.sqrt(2 * v / math.pi) - shift

    if not v > 0 or excess(0.0) <= 0:
        raise ValueError(
            f"v = {v!r}: allowed are variances > 0 with E|x| > sqrt(2 v / pi), at which such a state exists"
        )
    return float(brentq(excess, 0.0, 1.0, xtol=1e-14))


def _folded(mean: float, v: float, shift: float) -> float:
    """Return E ||x| - shift| for x ~ N(mean + shift, v)."""
    from scipy.stats import norm

    sd, centre = math.sqrt(v), mean + shift

    def absolute(m: float, low: float, high: float, sign: float) -> float:
        """Return the integral of sign (x - m) over low < x < high."""
        a, b = (low - centre) / sd, (high - centre) / sd
        first = (centre - m) * (norm.cdf(b) - norm.cdf(a)) - sd * (norm.pdf(b) - norm.pdf(a))
        return float(sign * first)

    inf = math.inf
    return (
        absolute(shift, shift, inf, 1.0) + absolute(shift, 0.0, shift, -1.0)
        + absolute(-shift, -shift, 0.0, 1.0) + absolute(-shift, -inf, -shift, -1.0)
    )  # fmt: skip


def small_state(q: Any, r: Any = 0.0, s: Any = 0.0, t: Any = 0.0) -> dict[str, Any]:
    """Return the symmetric state w_k = q centre_k + noise, with the noise's products r, s of opposite units, t of others."""
    q, r, s, t = (np.asarray(one, np.float64)[..., None, None] for one in (q, r, s, t))
    same, opposite = np.eye(4), np.kron(np.eye(2), [[0.0, 1.0], [1.0, 0.0]])
    gram = CENTRES @ CENTRES.T
    Q = q**2 * gram + r * same + s * opposite + t * (1 - same - opposite)
    lead = q.shape[:-2]
    return {
        "M": q * gram, "Q": Q, "c": np.broadcast_to(C, (*lead, 4)), "theta": np.zeros((*lead, 4)), "b": np.zeros(lead),
    }  # fmt: skip


def settled(v: float, lengths: Sequence[float]) -> Array:
    """Return the epsilon at which the specialised state of each length is at rest as eta -> 0, NaN where there is none.

    A continuation down the branch, of which q is the parameter: epsilon is found by the secant rule, from the last two.
    """
    rule = LearningRule(1.0, FIXED, second_order=False)

    def pull(q: float, epsilon: float) -> float:
        rates = NET.rates(small_state(q), xor(2.0, v), rule, Adversary(epsilon))
        return float(rates["M"][0, 0])

    found: list[float] = []
    for q in lengths:
        if pull(q, 0.0) <= 0:  # too long even without an attack
            found.append(np.nan)
            continue
        high = 0.1
        while pull(q, high) > 0 and high < 1.5:
            high += 0.1
        found.append(float(brentq(lambda epsilon, q=q: pull(q, epsilon), high - 0.1, high, xtol=1e-6)))
    return np.array(found)


START = 0.5, 0.01
"""q and r of the state from which the specialised one relaxes, and from which it is simulated."""


def noisy_states(v: float, eta: float, sizes: Sequence[float], alpha: float) -> Array:
    """Return q, r, s, t of the specialised state at a finite eta after a long time, shape (sizes, 4).

    The symmetric state stays symmetric, so that the kernel's rates are those of four numbers: of the logarithms of q and of
    the noise's eigenvalues r - s, r + s + 2 t and r + s - 2 t, some of which hardly move, which an implicit rule passes over.
    """
    rule = LearningRule(eta, FIXED)
    critical = critical_epsilon(v)

    def rates(logarithms: Array, epsilon: float) -> Array:
        values = np.exp(logarithms.T)
        q = values[:, 0]
        change = NET.rates(small_state(q, *_products(values)), xor(2.0, v), rule, Adversary(epsilon))
        dq, Q = change["M"][:, 0, 0], change["Q"]
        r, s, t = Q[:, 0, 0] - 2 * q * dq, Q[:, 0, 1] + 2 * q * dq, Q[:, 0, 2]
        speed: Array = (np.stack([dq, r - s, r + s + 2 * t, r + s - 2 * t], axis=1) / values).T
        return speed

    found = np.empty((len(sizes), 4))
    begin = np.log([START[0], START[1], START[1], START[1]])
    for i, size in enumerate(sizes):
        epsilon = size * critical
        solved = solve_ivp(
            lambda _, y, epsilon=epsilon: rates(y.reshape(4, -1), epsilon).reshape(y.shape), (0.0, alpha), begin, "BDF",
            t_eval=[alpha], rtol=1e-3, atol=1e-3, vectorized=True,
        )  # fmt: skip
        values = np.exp(solved.y[:, -1])
        found[i] = values[0], *_products(values)
    return found


def _products(values: Array) -> tuple[Array, Array, Array]:
    """Return r, s and t of the noise from q and its eigenvalues, shape (..., 4)."""
    _, odd, plus, minus = np.moveaxis(values, -1, 0)
    even = (plus + minus) / 2
    return (even + odd) / 2, (even - odd) / 2, (plus - minus) / 4


# --- random starts ---


def found(M: Array) -> npt.NDArray[np.bool_]:
    """Return which clusters are found, shape (..., 4): a unit of its label has a share 0.3 of the largest overlap."""
    least = _FOUND * np.abs(M).max(axis=(-2, -1), keepdims=True)[..., 0]
    each = np.stack([M[..., :2, :2].max(axis=-2), M[..., 2:, 2:].max(axis=-2)], axis=-2)
    answer: npt.NDArray[np.bool_] = each.reshape(*M.shape[:-2], 4) > least
    return answer


def shares(one: Condition, plan: Plan, seed: int) -> xr.Dataset:
    """Return of each start whether all clusters are found.

    The starts are the same at every epsilon and, where the size is, in every condition.
    """
    mixture = xor(2.0, plan.start_variance)
    N = one.N if one.method != "reduced" else 500
    start = random_start(NET, mixture, size=one.size, N=N, runs=one.runs, rng=seed)
    if one.start == "missing":
        P = np.broadcast_to(0.6 * CENTRES[[0, 0, 2, 3]], (one.runs, 4, 2)) + start["M"][..., [0, 2]]
        start = {"M": P @ CENTRES.T, "Q": P @ np.swapaxes(P, 1, 2) + 0.3**2 * 0.1 * np.eye(4)}
    result = xr.Dataset(coords={"start_epsilon": list(one.epsilon), "start": range(one.runs)})
    states = np.stack([_ends(one, plan, start, epsilon, seed) for epsilon in one.epsilon])
    result["all_found"] = ("start_epsilon", "start"), found(states).all(axis=-1)
    return result


def _ends(one: Condition, plan: Plan, start: dict[str, Array], epsilon: float, seed: int) -> Array:
    """Return M at the end, shape (starts, 4, 4)."""
    mixture = xor(2.0, plan.start_variance)
    alpha = plan.time / one.eta
    if one.method == "reduced":
        child = np.random.SeedSequence(seed).spawn(1)[0]
        adversary = one.adversary(epsilon)
        return simulated(NET, mixture, one.rule, adversary, start, one.N, [alpha], one.runs, child)["M"][:, -1]
    data = Clusters(CENTRES, np.full(4, 0.25), np.full(4, plan.start_variance), np.array(mixture.labels))
    along = start["M"][..., [0, 2]]
    nets = Nets.with_overlaps(along, start["Q"], C, np.zeros(4), 0.0, nets=one.runs, N=one.N, relu=True)
    # an attack of one's own is as long as what one of two equal units meets of the net's
    alone = epsilon / math.sqrt(2) if one.method == "alone" else None
    (last,) = sgd(
        nets, data, fgsm(epsilon), eta=one.eta, examples=[round(alpha * one.N)], alone=alone,
        generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip
    return last.overlaps(CENTRES)[0]


def growth(plan: Plan) -> xr.Dataset:
    """Return the theory's growth rates per eta alpha of like units' overlap with their centres, small beside the noise.

    Both pairs turn to one centre each, or to two. (exact as eta -> 0 and N grows)
    """
    rule = LearningRule(1.0, FIXED, second_order=False)
    q, r = plan.rates_overlap, plan.rates_length**2
    result = np.empty((len(plan.rates_epsilon), 2))
    for j, other in enumerate(([0, 0, 2, 2], [0, 1, 2, 3])):
        P = q * CENTRES[other]
        state = small_state(q) | {"M": P @ CENTRES.T, "Q": P @ P.T + r * np.eye(4)}
        for i, epsilon in enumerate(plan.rates_epsilon):
            rates = NET.rates(state, xor(2.0, plan.start_variance), rule, Adversary(epsilon))
            result[i, j] = rates["M"][0, 0] / q
    return xr.Dataset(
        {"growth": (("rates_epsilon", "turned_to"), result)},
        {"rates_epsilon": list(plan.rates_epsilon), "turned_to": ["one centre", "two centres"]},
    )
