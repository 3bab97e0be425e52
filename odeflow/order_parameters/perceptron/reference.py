r"""The perceptron's right-hand side and Jacobian in plain NumPy, for every variant: what the kernels are held to.

The examples are in groups that are attacked alike, of a cluster c and a label :math:`\tau` that is seen. With
:math:`u = \tau\tilde x \sim N(m, v)`, :math:`m = \tau(c\rho R/2 - b) - a`, :math:`v = v_c Q`, and
:math:`\delta = \tau f(u)`, the averages :math:`D_1 = \langle f\rangle` and :math:`D_2 = \langle f^2\rangle` and their
derivatives by m are Gaussian averages with Hermite polynomials, :math:`\partial_m^k \langle f\rangle =
v^{-k/2} \langle f\,\mathrm{He}_k((u-m)/\sqrt v)\rangle`; those by v follow from the heat equation, :math:`\partial_v =
\tfrac12 \partial_m^2`. Exact as N grows; the averages are converged to rounding. Where the loss on examples without attack has a
weight, the loss has a surrogate, or the learning rates follow the state, the Jacobian is by differences, with errors of about 1e-10.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from odeflow.laws import quadratures
from odeflow.model import Adversary, GaussianMixture, LearningRule, check_parts
from odeflow.parameters import by_dims, checked_array

__all__ = ["jacobian", "rates", "unchecked_jacobian", "unchecked_rates"]

Array = npt.NDArray[np.float64]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(32)
_BREAKS = (-33.0, -17.0, -8.0, -4.0, -2.0, 0.0, 1.0, 2.0, 4.0, 8.0, 17.0, 33.0)  # f has scales, and kinks, at these
_SIGMAS = (-11.0, -7.0, -4.0, -2.0, 0.0, 2.0, 4.0, 7.0, 11.0)


def rates(
    R: npt.ArrayLike,
    b: npt.ArrayLike,
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    Q: npt.ArrayLike | None = None,
) -> tuple[Any, ...]:
    """Return dR/dalpha and db/dalpha, and dQ/dalpha of free weights (exact as N grows; equations (1.1) and (3)).

    Parameters
    ----------
    R, b
        Overlap in [-sqrt(Q), sqrt(Q)] and bias, of any shapes that broadcast; DataArrays by the names of their dims.
    mixture, rule, adversary
        The model, with any variant of rule and adversary.
    Q
        Squared length of the weights, > 0; needed if they are not normalised, and not allowed otherwise.

    Returns
    -------
    tuple of float or ndarray
        dR/dalpha, db/dalpha (and dQ/dalpha), unit 1.

    Raises
    ------
    TypeError, ValueError
        If the model is not one of the perceptron's, R, b or Q is out of range, or Q is missing or too much.

    Examples
    --------
    >>> dR, db = rates(0.5, 0.1, GaussianMixture(), LearningRule(), Adversary(1.0))
    >>> round(float(dR), 8), round(float(db), 8)
    (0.02022693, 0.00113543)
    """
    return unchecked_rates(*_checked_state(R, b, Q, mixture, rule, adversary), mixture, rule, adversary)


def unchecked_rates(
    R: Any, b: Any, Q: Any, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
) -> tuple[Any, ...]:
    """Return what `rates` does, at any R: a search for fixed points also looks where there are no classifiers."""
    R, b, Q = _state(R, b, Q, mixture, rule, adversary)
    if _is_seed(rule, adversary):
        return _seed_rates(R, b, mixture, rule, adversary)
    along_B = along_w = squares = pull = by_R = by_Q = np.zeros(R.shape)
    kappa = adversary.clean_weight
    for group in _groups(mixture, rule, adversary):
        share, cluster, tau, variance, _ = group
        m, v, shift, of_B = _law(R, b, Q, mixture, adversary, group)
        if rule.surrogate == "none":
            attacked, attacked_slope, _, _ = _averages(rule, m, v)
            clean, clean_slope, _, _ = _averages(rule, m + shift, v) if kappa else (attacked, attacked_slope, 0, 0)
            attacked = (1 - kappa) * attacked
            D1, slope = attacked + kappa * clean, (1 - kappa) * attacked_slope + kappa * clean_slope
            D2 = _averages(rule, m, v, power=2, shift=shift, clean_weight=kappa)[0]
        else:
            D1, attacked, D2, slope = _surrogate_averages(rule, m + shift, v, shift, kappa)
        signed = tau * cluster * mixture.rho / 2
        along_B = along_B + share * (signed * D1 - of_B * attacked + variance * R * slope)
        along_w = along_w + share * (signed * R * D1 - shift * attacked + variance * Q * slope)
        squares = squares + share * variance * D2
        pull = pull + share * tau * D1
        is_blind = adversary.attack == "blind"
        by_R = by_R - share * (signed * D1 - (of_B * attacked if is_blind else 0))
        by_Q = by_Q - share / 2 * (variance * slope - (0 if is_blind else shift * attacked / Q))
    noise = rule.eta_w**2 / rule.batch * squares if rule.second_order else np.zeros(R.shape)
    by_b = pull + rule.decay_b * b
    # drift and noise of the state, and the gradient of the expected loss
    drift: tuple[Array, ...]
    diffusion: tuple[Array, ...]
    gradient: tuple[Array, ...]
    if rule.normalised:
        drift = rule.eta_w * (along_B - R * along_w), -rule.eta_b * by_b
        diffusion = -R / 2 * noise, 0.0 * noise
        gradient = by_R, by_b
        if rule.steps == "polyak":  # of |w - B|^2 / 2 = 1 - R
            gradient = -np.ones(R.shape), np.zeros(R.shape)
    else:
        drift = (
            rule.eta_w * (along_B - rule.decay_w * R),
            -rule.eta_b * by_b,
            2 * rule.eta_w * (along_w - rule.decay_w * Q),
        )
        diffusion = 0.0 * noise, 0.0 * noise, noise
        gradient = by_R, by_b, by_Q + rule.decay_w / 2
    scale = 1.0 if rule.steps == "constant" else _line_search(gradient, drift, diffusion)
    return tuple(scale * one + scale**2 * two for one, two in zip(drift, diffusion, strict=True))


def _line_search(gradient: tuple[Array, ...], drift: tuple[Array, ...], diffusion: tuple[Array, ...]) -> Array:
    """Return the c in [0, 1] at which c A + c^2 C is least: how the expected loss changes with learning rates times c."""
    A, C = (sum(g * f for g, f in zip(gradient, flow, strict=True)) for flow in (drift, diffusion))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(-A >= 2 * C, 1.0, np.maximum(-A / (2 * C), 0.0))


def jacobian(
    R: npt.ArrayLike,
    b: npt.ArrayLike,
    mixture: GaussianMixture,
    rule: LearningRule,
    adversary: Adversary,
    *,
    Q: npt.ArrayLike | None = None,
) -> Array:
    """Return the derivatives of the rates (dR, db)/dalpha, or (dR, db, dQ)/dalpha, by the state (exact as N grows).

    Parameters
    ----------
    R, b, mixture, rule, adversary, Q
        As for `rates`.

    Returns
    -------
    ndarray
        Shape (..., 2, 2), or (..., 3, 3) of free weights: rows the rates, columns the derivatives by R, b (and Q).

    Raises
    ------
    TypeError, ValueError
        If the model is not one of the perceptron's, or Q is missing or too much.
    """
    return unchecked_jacobian(*_checked_state(R, b, Q, mixture, rule, adversary), mixture, rule, adversary)


def unchecked_jacobian(
    R: Any, b: Any, Q: Any, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
) -> Array:
    """Return what `jacobian` does, at any R."""
    R, b, Q = _state(R, b, Q, mixture, rule, adversary)
    if _is_seed(rule, adversary):
        return _seed_jacobian(R, b, mixture, rule, adversary)
    n = 2 if rule.normalised else 3
    if adversary.clean_weight or rule.surrogate != "none" or rule.steps != "constant":
        return _differences(R, b, Q, mixture, rule, adversary)
    root = np.sqrt(Q)
    along_B, along_w, squares, pull = (np.zeros((*R.shape, 3)) for _ in range(4))  # derivatives by R, b, Q
    value_w, value_squares = np.zeros(R.shape), np.zeros(R.shape)
    zero, one = np.zeros(R.shape), np.ones(R.shape)
    by_R, by_Q = np.stack([one, zero, zero], -1), np.stack([zero, zero, one], -1)
    for group in _groups(mixture, rule, adversary):
        share, cluster, tau, variance, epsilon = group
        m, v, shift, of_B = _law(R, b, Q, mixture, adversary, group)
        D1, slope, curvature, third = _averages(rule, m, v)
        D2, D2_m, D2_mm, _ = _averages(rule, m, v, power=2)
        signed = tau * cluster * mixture.rho / 2
        if adversary.attack == "blind":
            dshift, dof_B = epsilon * by_R, np.zeros_like(by_R)
        else:
            dshift = epsilon / (2 * root[..., None]) * by_Q
            dof_B = epsilon * (by_R / root[..., None] - (R / (2 * root**3))[..., None] * by_Q)
        dm = signed * by_R - dshift - tau * np.stack([zero, one, zero], -1)
        dv = variance * by_Q
        dD1 = slope[..., None] * dm + curvature[..., None] / 2 * dv
        dslope = curvature[..., None] * dm + third[..., None] / 2 * dv
        dD2 = D2_m[..., None] * dm + D2_mm[..., None] / 2 * dv
        lead_B, dlead_B = signed - of_B, -dof_B
        lead_w, dlead_w = signed * R - shift, signed * by_R - dshift
        along_B += share * (dlead_B * D1[..., None] + lead_B[..., None] * dD1)
        along_B += share * variance * (by_R * slope[..., None] + R[..., None] * dslope)
        along_w += share * (dlead_w * D1[..., None] + lead_w[..., None] * dD1)
        along_w += share * variance * (by_Q * slope[..., None] + Q[..., None] * dslope)
        value_w += share * (lead_w * D1 + variance * Q * slope)
        squares += share * variance * dD2
        value_squares += share * variance * D2
        pull += share * tau * dD1
    along_B -= rule.decay_w * by_R
    along_w -= rule.decay_w * by_Q
    pull += rule.decay_b * np.stack([zero, one, zero], -1)
    noise = rule.eta_w**2 / rule.batch if rule.second_order else 0.0
    J = np.empty((*R.shape, n, n))
    if rule.normalised:
        along = along_B - by_R * value_w[..., None] - R[..., None] * along_w
        J[..., 0, :] = (rule.eta_w * along - noise / 2 * (by_R * value_squares[..., None] + R[..., None] * squares))[
            ..., :n
        ]
    else:
        J[..., 0, :] = rule.eta_w * along_B
        J[..., 2, :] = 2 * rule.eta_w * along_w + noise * squares
    J[..., 1, :] = -rule.eta_b * pull[..., :n]
    return J


def _differences(
    R: Array, b: Array, Q: Array, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
) -> Array:
    """Return the Jacobian by differences of order 4 in steps of 1e-3."""
    y = [R, b] if rule.normalised else [R, b, Q]

    def at(column: int, by: Array) -> Array:
        z = [value + by if i == column else value for i, value in enumerate(y)]
        return np.stack(unchecked_rates(z[0], z[1], None if rule.normalised else z[2], mixture, rule, adversary), -1)

    columns = []
    for i, value in enumerate(y):
        h = 1e-3 * (value if i == 2 else np.maximum(1.0, np.abs(value)))
        difference = 8 * (at(i, h) - at(i, -h)) - (at(i, 2 * h) - at(i, -2 * h))
        columns.append(difference / (12 * h[..., None]))
    return np.stack(columns, -1)


def _checked_state(
    R: Any, b: Any, Q: Any, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
) -> tuple[Any, Any, Any]:
    """Return a state of which R and b are numbers in their ranges, with DataArrays broadcast by their dims."""
    given = by_dims({"R": R, "b": b} | ({} if Q is None else {"Q": Q}))
    arrays = {name: checked_array(name, value) for name, value in given.items()}
    R, b, Q = arrays["R"], arrays["b"], arrays.get("Q")
    _state(R, b, Q, mixture, rule, adversary)
    if Q is not None and not np.all(Q > 0):
        raise ValueError(f"Q = {float(np.min(Q))!r} (smallest) is out of range: allowed is > 0")
    length = np.sqrt(1.0 if Q is None else Q)
    outside = np.abs(R) > length * (1 + 1e-6)  # the tolerance of a trajectory
    if np.any(outside):
        bad = float(np.broadcast_to(R, outside.shape)[outside].flat[0])
        allowed = "[-1, 1]" if Q is None else "[-sqrt(Q), sqrt(Q)]"
        raise ValueError(f"R = {bad!r} is out of range: allowed is in {allowed}")
    return R, b, Q


def _state(
    R: Any, b: Any, Q: Any, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
) -> tuple[Array, Array, Array]:
    """Return the state as arrays of one shape; Q = 1 for normalised weights, and nan where it is not possible."""
    check_parts(mixture=mixture, rule=rule, adversary=adversary)
    if rule.normalised and Q is not None:
        raise ValueError(f"Q = {np.asarray(Q).tolist()!r} is not allowed: the rule keeps |w| = 1; leave it out")
    if not rule.normalised and Q is None:
        raise ValueError("Q = None: allowed is a number > 0, because the weights are not normalised")
    R, b, Q = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (R, b, 1.0 if Q is None else Q)))
    return R, b, np.where(Q > 0, Q, np.nan)


def _is_seed(rule: LearningRule, adversary: Adversary) -> bool:
    seed = LearningRule(eta_w=rule.eta_w, eta_b=rule.eta_b, second_order=rule.second_order)
    return rule == seed and adversary == Adversary(adversary.epsilon)


class _Group(NamedTuple):
    """Examples that are attacked alike."""

    share: float
    """Their probability."""
    cluster: float
    """+1 or -1."""
    tau: float
    """The label that is seen."""
    variance: float
    epsilon: float


def _groups(mixture: GaussianMixture, rule: LearningRule, adversary: Adversary) -> list[_Group]:
    """Return the groups of examples that are attacked alike."""
    from odeflow.order_parameters.perceptron.variant_averages import law_scales

    scales = law_scales(
        rule, mixture.rho, mixture.v1, mixture.v2, adversary.epsilon, rule.input_noise, adversary.epsilon_ratio
    )
    [(_, factors, weights)] = quadratures(adversary.law, *scales)
    sizes = [(adversary.fraction * w, adversary.epsilon * x) for x, w in zip(factors, weights, strict=True)]
    sizes.append((1 - adversary.fraction, 0.0))
    clusters = ((mixture.p, 1.0, mixture.v1), (1 - mixture.p, -1.0, mixture.v2))
    labels = ((1 - rule.label_noise, 1.0), (rule.label_noise, -1.0))
    groups = []
    for (share, epsilon), (prior, c, v), (chance, agree) in product(sizes, clusters, labels):
        size = epsilon if agree * c > 0 else epsilon * adversary.epsilon_ratio
        groups.append(_Group(float(share * prior * chance), c, agree * c, v + rule.input_noise**2, float(size)))
    return [group for group in groups if group.share > 0]


def _law(
    R: Array, b: Array, Q: Array, mixture: GaussianMixture, adversary: Adversary, group: _Group
) -> tuple[Array, Array, Array, Array]:
    """Return mean and variance of u after the attack, what it takes from u, and what its direction has of B."""
    along = np.sqrt(Q)
    shift, of_B = (group.epsilon * R, np.full(R.shape, group.epsilon)) if adversary.attack == "blind" else (
        group.epsilon * along, group.epsilon * R / along
    )  # fmt: skip
    return group.tau * (group.cluster * mixture.rho * R / 2 - b) - shift, group.variance * Q, shift, of_B


def _averages(
    rule: LearningRule, m: Array, v: Array, power: int = 1, *, shift: Any = 0.0, clean_weight: float = 0.0
) -> tuple[Array, Array, Array, Array]:
    """Return the average of F(u)^power for u ~ N(m, v), and its first three derivatives by m.

    F is f where the clean weight is 0.
    """
    from odeflow.order_parameters.perceptron.variant_averages import plain_factor

    shift = np.broadcast_to(shift, m.shape)[..., None]
    places = np.array(_BREAKS)
    if rule.factor is not None:
        places = np.concatenate([2 * rule.factor.scale * places, rule.factor.kinks])
    u, t, density = _quadrature(m, v, [places, *([places - shift] if clean_weight else [])])
    factor = plain_factor(rule, u)
    if clean_weight:
        factor = (1 - clean_weight) * factor + clean_weight * plain_factor(rule, u + shift[..., None])
    weighted = density * factor**power
    hermite = (np.ones_like(t), t, t * t - 1, t * (t * t - 3))
    return tuple(np.sum(weighted * H, axis=(-2, -1)) / np.sqrt(v) ** k for k, H in enumerate(hermite))


def _surrogate_averages(
    rule: LearningRule, m: Array, v: Array, shift: Array, clean_weight: float
) -> tuple[Array, Array, Array, Array]:
    """Return <F>, <A>, <F^2> and <F'> for margins u ~ N(m, v) before the attack."""
    from odeflow.order_parameters.perceptron.surrogate_averages import plain_surrogate_factors

    a, places = shift[..., None], np.array(_BREAKS)
    u, t, density = _quadrature(m, v, [places, places - a, places + a])
    F, A = plain_surrogate_factors(rule, u, a[..., None], clean_weight)
    D1, part, D2, slope = (np.sum(density * f, axis=(-2, -1)) for f in (F, A, F * F, F * t))
    return D1, part, D2, slope / np.sqrt(v)


def _quadrature(m: Array, v: Array, places: list[Array]) -> tuple[Array, Array, Array]:
    """Return nodes between some places, the same in units of the standard deviation from m, and their weights for N(m, v)."""
    m, s = m[..., None], np.sqrt(v)[..., None]
    breaks = [np.broadcast_to(place, (*m.shape[:-1], place.shape[-1])) for place in places]
    edges = np.concatenate([m + s * np.array(_SIGMAS), *breaks], -1)
    edges = np.sort(np.clip(edges, m + s * _SIGMAS[0], m + s * _SIGMAS[-1]), axis=-1)
    low, half = edges[..., :-1, None], np.diff(edges, axis=-1)[..., None] / 2
    u = low + half * (1 + _NODES)
    t = (u - m[..., None]) / s[..., None]
    return u, t, np.exp(-t * t / 2) / math.sqrt(2 * math.pi) / s[..., None] * half * _WEIGHTS


def _seed_rates(
    R: Array, b: Array, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary
) -> tuple[Any, Any]:
    from odeflow.order_parameters.perceptron.averages import delta, delta_squared

    p_plus, p_minus = mixture.p, 1 - mixture.p
    m_plus = +(mixture.rho * R / 2 - adversary.epsilon) - b
    m_minus = -(mixture.rho * R / 2 - adversary.epsilon) - b
    delta_plus, delta_minus = delta(m_plus, mixture.v1, +1.0), delta(m_minus, mixture.v2, -1.0)
    dR = rule.eta_w * mixture.rho / 2 * (1 - R**2) * (p_plus * delta_plus - p_minus * delta_minus)
    if rule.second_order:
        squares = p_plus * mixture.v1 * delta_squared(m_plus, mixture.v1, +1.0) + p_minus * mixture.v2 * delta_squared(
            m_minus, mixture.v2, -1.0
        )
        dR = dR - rule.eta_w**2 / 2 * R * squares
    db = -rule.eta_b * (p_plus * delta_plus + p_minus * delta_minus)
    return dR, db


def _seed_jacobian(R: Array, b: Array, mixture: GaussianMixture, rule: LearningRule, adversary: Adversary) -> Array:
    """Return the Jacobian from the forces, which do not underflow at a large bias."""
    from odeflow.order_parameters.perceptron.forces import log_force, noise_ratio, noise_slope, slope

    p, rho, v1, v2 = mixture.p, mixture.rho, mixture.v1, mixture.v2
    eta_w, eta_b, epsilon = rule.eta_w, rule.eta_b, adversary.epsilon
    s, t = rho * R / 2 - epsilon - b, rho * R / 2 - epsilon + b
    D_s, D_t = p * np.exp(log_force(s, v1)), (1 - p) * np.exp(log_force(t, v2))
    dD_s, dD_t = D_s * slope(s, v1), D_t * slope(t, v2)
    J = np.empty((*R.shape, 2, 2))
    J[..., 0, 0] = eta_w * rho / 2 * ((1 - R**2) * rho / 2 * (dD_s + dD_t) - 2 * R * (D_s + D_t))
    J[..., 0, 1] = eta_w * rho / 2 * (1 - R**2) * (dD_t - dD_s)
    J[..., 1, 0] = eta_b * rho / 2 * (dD_t - dD_s)
    J[..., 1, 1] = eta_b * (dD_s + dD_t)
    if rule.second_order:
        N_s, N_t = D_s * noise_ratio(s, v1), D_t * noise_ratio(t, v2)  # p v <delta^2>
        dN_s, dN_t = N_s * noise_slope(s, v1), N_t * noise_slope(t, v2)
        J[..., 0, 0] -= eta_w**2 / 2 * (N_s + N_t + R * rho / 2 * (dN_s + dN_t))
        J[..., 0, 1] -= eta_w**2 / 2 * R * (dN_t - dN_s)
    return J
