r"""Right-hand side for all variants of the rule and the adversary, including weights that are not normalised.

An example of the cluster c = +-1 is seen with a label :math:`\tau`, which is c or, with the probability of `label_noise`, -c. With
:math:`Q = |w|^2`, :math:`u = \tau\tilde x \sim N(m, vQ)`, :math:`m = \tau(c\rho R/2 - b) - a`, where the attack takes
:math:`a = \varepsilon\sqrt Q` from the margin (the blind one :math:`\varepsilon R`), the variance v of the cluster and of input noise,
and :math:`\delta = \tau F(u)`, the averages :math:`D_1 = \langle F\rangle`, :math:`D_2 = \langle F^2\rangle`,
:math:`D_1' = \langle F'\rangle` and :math:`\tilde D_1`, the part of :math:`D_1` from the attacked example
(`odeflow.order_parameters.perceptron.mixed_averages`) give by Stein's lemma

.. math::
    \langle \delta\,\tilde\xi\cdot B\rangle &= \Bigl\langle \tau c\frac\rho2 D_1 - \frac{\varepsilon R}{\sqrt Q}\tilde D_1
        + v R D_1' \Bigr\rangle \\
    \langle \delta\,\tilde\xi\cdot w\rangle &= \Bigl\langle \tau c\frac{\rho R}2 D_1 - a\tilde D_1 + v Q D_1' \Bigr\rangle \\
    \langle \delta^2 v\rangle &= \langle v D_2 \rangle

where the outer averages are over clusters, labels and sizes of the attack, and a blind attack has :math:`\varepsilon` for
:math:`\varepsilon R/\sqrt Q`. With a surrogate, :math:`\tilde D_1 = \langle A\rangle` of
`odeflow.order_parameters.perceptron.surrogate_averages`. With batches of n examples

.. math::
    dR/d\alpha = \eta_w (\langle\delta\,\tilde\xi\cdot B\rangle - \lambda_w R), \qquad
    dQ/d\alpha = 2\eta_w (\langle\delta\,\tilde\xi\cdot w\rangle - \lambda_w Q) + (\eta_w^2/n) \langle\delta^2 v\rangle,
    \qquad db/d\alpha = -\eta_b (\langle\delta\rangle + \lambda_b b)

or, for normalised weights (Q = 1), :math:`dR/d\alpha = \eta_w(\langle\delta\,\tilde\xi\cdot B\rangle -
R\langle\delta\,\tilde\xi\cdot w\rangle) - (\eta_w^2/2n) R \langle\delta^2 v\rangle`. Exact as N grows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba.extending import overload

from odeflow.model.rule import STEPS
from odeflow.numerics import runge_kutta
from odeflow.numerics.compilation import LANES, inlined
from odeflow.order_parameters.perceptron.mixed_averages import WORK, Factors, attacked_of, factors_of, lane_mixed

if TYPE_CHECKING:
    import numpy.typing as npt

    from odeflow.model import Adversary, LearningRule
    from odeflow.order_parameters.base import Points
    from odeflow.order_parameters.perceptron.own_factor import OwnFactor
    from odeflow.order_parameters.perceptron.surrogate_averages import SurrogateFactor
    from odeflow.order_parameters.perceptron.variant_averages import UpdateFactor

__all__ = ["CONSTANTS", "PARAMETERS", "Constant", "Kind", "VariantModel", "kind_of", "lane_search", "load_search"]

PARAMETERS = (
    "p", "rho", "v1", "v2", "eta_w", "eta_b", "epsilon", "second_order", "fraction", "decay_w", "decay_b", "batch",
    "label_noise", "input_noise", "smoothing", "beta", "epsilon_ratio", "clean_weight", "R0", "b0", "Q0",
)  # fmt: skip
"""Columns of `VariantModel.parameters`."""

_R, _B, _Q = range(3)  # rows of the state; without _Q for normalised weights

# rows of constants: the parameters; the scratch space and the sums over groups of examples, with rows of their own
(
    _HALF_RHO, _EPSILON, _RATIO, _FRACTION, _ETA_W, _ETA_W_SQUARED, _ETA_B, _DECAY_W, _DECAY_B, _P, _V1, _V2,
    _LABEL_NOISE, _SMOOTHED, _CLEAN_WEIGHT, _BETA, _NOISE, _SCRATCH,
) = range(18)  # fmt: skip
_MEAN, _VARIANCE, _OF_B, _SHIFT, _SHARE, _D1, _ATTACKED, _D2, _SLOPE, _WORK = range(10)  # of the scratch space
_SUMS = _SCRATCH + _WORK + WORK
_ALONG_B, _ALONG_W, _SQUARES, _PULL, _BY_R, _BY_Q, _SCALE = range(7)  # of the sums
CONSTANTS = _SUMS + 7

_DISTANCE = STEPS.index("polyak")


class Kind(NamedTuple):
    """What all trajectories of a batch have in common. What only some have does not change the others' numbers."""

    factors: UpdateFactor | Factors | OwnFactor | SurrogateFactor
    """What the update's factor is made of."""
    normalised: bool
    """Variables R, b if True, else R, b, Q."""
    blind: bool
    """Whether the attack is along B, not w."""
    noisy: bool
    """Whether labels are flipped."""
    partly: bool
    """Whether there are examples that are not attacked."""
    squared: bool
    """Whether the loss is the squared one."""
    searches: int
    """What the factor of the learning rates makes least: 0, nothing, for it is 1; 1, the expected loss; 2, |w - B|."""


def kind_of(rule: LearningRule, adversary: Adversary, points: Points) -> Kind:
    """Return the kind of a batch of points, with the parameters that are numbers by name."""
    defaults = {"smoothing": 0.0, "clean_weight": 0.0, "label_noise": 0.0, "fraction": 1.0}
    smooth, twice, noisy, partly = (bool(np.any(points[name] != value)) for name, value in defaults.items())
    factors = factors_of(rule, smooth=smooth, twice=twice)
    is_blind, searches = adversary.attack == "blind", STEPS.index(rule.steps)
    return Kind(factors, rule.normalised, is_blind, noisy, partly, rule.loss == "squared", searches)


class VariantModel(NamedTuple):
    """A batch of trajectories that share a rule and a law of the perturbation, for `odeflow.numerics.runge_kutta.solve`."""

    parameters: npt.NDArray[np.float64]
    """One row a trajectory, columns as in `PARAMETERS`, float64, C-contiguous."""
    nodes: npt.NDArray[np.float64]
    """Factors of epsilon: quadrature nodes of the law."""
    weights: npt.NDArray[np.float64]
    """Their weights, which sum to 1."""
    kind: Kind


def _is_variant_model(system: Any) -> bool:
    return getattr(system, "instance_class", None) is VariantModel


@inlined
def _set_eta_w(eta_w, lane, constants):
    constants[_ETA_W * LANES + lane] = eta_w
    constants[_ETA_W_SQUARED * LANES + lane] = constants[_NOISE * LANES + lane] * (eta_w * eta_w)


@overload(runge_kutta.load)
def _load(system, index, lane, constants, y):
    if not _is_variant_model(system):
        return None

    def load(system, index, lane, constants, y):
        (
            p, rho, v1, v2, eta_w, eta_b, epsilon, second_order, fraction, decay_w, decay_b, batch,
            label_noise, input_noise, smoothing, beta, epsilon_ratio, clean_weight, R0, b0, Q0,
        ) = system.parameters[index]  # fmt: skip
        constants[_HALF_RHO * LANES + lane] = rho / 2
        constants[_RATIO * LANES + lane] = epsilon_ratio
        constants[_FRACTION * LANES + lane] = fraction
        constants[_NOISE * LANES + lane] = second_order / batch
        constants[_EPSILON * LANES + lane] = epsilon
        _set_eta_w(eta_w, lane, constants)
        constants[_ETA_B * LANES + lane] = eta_b
        constants[_DECAY_W * LANES + lane] = decay_w
        constants[_DECAY_B * LANES + lane] = decay_b
        constants[_P * LANES + lane] = p
        constants[_V1 * LANES + lane] = v1 + input_noise**2
        constants[_V2 * LANES + lane] = v2 + input_noise**2
        constants[_LABEL_NOISE * LANES + lane] = label_noise
        constants[_SMOOTHED * LANES + lane] = smoothing if system.kind.squared else 0.5 * smoothing
        constants[_CLEAN_WEIGHT * LANES + lane] = clean_weight
        constants[_BETA * LANES + lane] = beta
        y[_R * LANES + lane] = R0
        y[_B * LANES + lane] = b0
        if not system.kind.normalised:
            y[_Q * LANES + lane] = Q0

    return load


runge_kutta.FOLLOWERS.add(VariantModel)


@overload(runge_kutta.follow)
def _follow(system, changes, values, constants):
    if not _is_variant_model(system):
        return None

    def follow(system, changes, values, constants):
        if changes[0]:
            for lane in range(LANES):
                constants[_EPSILON * LANES + lane] = values[lane]
        if changes[1]:
            for lane in range(LANES):
                _set_eta_w(values[LANES + lane], lane, constants)
        if changes[2]:
            for lane in range(LANES):
                constants[_ETA_B * LANES + lane] = values[2 * LANES + lane]

    return follow


@inlined
def _search(kind, constants, y, sums, scale):
    """Set in every lane the factor c <= 1 of the learning rates with which c A + c^2 C, the rate of the expected loss, is least.

    The loss is that whose negative derivative by the margin is the update's factor, with that of the decay: A is the product of its
    gradient by R, b and Q with the drift, C with the noise. Or, for Polyak's steps, |w - B|^2 / 2 = 1 - R stands in its place.
    """
    for lane in range(LANES):
        R, b = y[_R * LANES + lane], y[_B * LANES + lane]
        eta_w, eta_b = constants[_ETA_W * LANES + lane], constants[_ETA_B * LANES + lane]
        noise = constants[_ETA_W_SQUARED * LANES + lane] * sums[_SQUARES, lane]
        along_B, along_w, by_R = sums[_ALONG_B, lane], sums[_ALONG_W, lane], sums[_BY_R, lane]
        by_b = sums[_PULL, lane] + constants[_DECAY_B * LANES + lane] * b
        if kind.searches == _DISTANCE:
            by_R, by_b = -1.0, 0.0
        if kind.normalised:
            A = eta_w * by_R * (along_B - R * along_w) - eta_b * by_b * by_b
            C = -0.5 * noise * R * by_R
        else:
            Q, decay = y[_Q * LANES + lane], constants[_DECAY_W * LANES + lane]
            by_Q = sums[_BY_Q, lane] + 0.5 * decay
            A = eta_w * (by_R * (along_B - decay * R) + 2.0 * by_Q * (along_w - decay * Q)) - eta_b * by_b * by_b
            C = noise * by_Q
        scale[lane] = 1.0 if -A >= 2.0 * C else max(-0.5 * A / C, 0.0)


@overload(runge_kutta.derivative)
def _derivative(system, constants, y, dydt):
    if not _is_variant_model(system):
        return None

    def derivative(system, constants, y, dydt):
        kind = system.kind
        scratch = constants[_SCRATCH * LANES : _SUMS * LANES].reshape(_SUMS - _SCRATCH, LANES)
        m, v, of_B, shift, share = scratch[_MEAN], scratch[_VARIANCE], scratch[_OF_B], scratch[_SHIFT], scratch[_SHARE]
        D1, D2, slope = scratch[_D1], scratch[_D2], scratch[_SLOPE]
        attacked = attacked_of(kind.factors, D1, scratch[_ATTACKED])
        work = scratch[_WORK:]
        k = constants[_SMOOTHED * LANES : (_SMOOTHED + 1) * LANES]
        weight = constants[_CLEAN_WEIGHT * LANES : (_CLEAN_WEIGHT + 1) * LANES]
        beta = constants[_BETA * LANES : (_BETA + 1) * LANES]
        sums = constants[_SUMS * LANES : CONSTANTS * LANES].reshape(CONSTANTS - _SUMS, LANES)
        along_B, along_w, squares, pull = sums[_ALONG_B], sums[_ALONG_W], sums[_SQUARES], sums[_PULL]
        by_R, by_Q, scale = sums[_BY_R], sums[_BY_Q], sums[_SCALE]
        sums[:] = 0.0
        # the nodes of the law, and last the examples that are not attacked; both clusters; true and flipped labels
        for node in range(system.nodes.size + (1 if kind.partly else 0)):
            is_clean = node == system.nodes.size
            factor = 0.0 if is_clean else system.nodes[node]
            for group in range(4 if kind.noisy else 2):
                cluster, is_flipped = group % 2, group >= 2
                agree = -1.0 if is_flipped else 1.0
                tau = agree * (1.0 - 2.0 * cluster)
                for lane in range(LANES):
                    Q = 1.0 if kind.normalised else max(y[_Q * LANES + lane], 1e-300)
                    half_rho, R, b = constants[_HALF_RHO * LANES + lane], y[_R * LANES + lane], y[_B * LANES + lane]
                    size = (
                        constants[_EPSILON * LANES + lane]
                        * factor
                        * (constants[_RATIO * LANES + lane] if tau < 0.0 else 1.0)
                    )
                    root = math.sqrt(Q)
                    of_B[lane] = size if kind.blind else size * R / root
                    shift[lane] = size * (R if kind.blind else root)
                    m[lane] = agree * half_rho * R - shift[lane] - tau * b
                    v[lane] = constants[(_V1 + cluster) * LANES + lane] * Q
                lane_mixed(kind.factors, k, weight, beta, shift, m, v, D1, attacked, D2, slope, work)
                for lane in range(LANES):
                    R = y[_R * LANES + lane]
                    Q = 1.0 if kind.normalised else max(y[_Q * LANES + lane], 1e-300)
                    signed = agree * constants[_HALF_RHO * LANES + lane]
                    fraction = constants[_FRACTION * LANES + lane]
                    part = 1.0 - fraction if is_clean else fraction * system.weights[node]
                    prior = constants[_P * LANES + lane]
                    part *= prior if cluster == 0 else 1.0 - prior
                    if kind.noisy:
                        flipped = constants[_LABEL_NOISE * LANES + lane]
                        part *= flipped if is_flipped else 1.0 - flipped
                    share[lane] = part
                    variance = constants[(_V1 + cluster) * LANES + lane]
                    along_B[lane] += part * (
                        signed * D1[lane] - of_B[lane] * attacked[lane] + variance * R * slope[lane]
                    )
                    along_w[lane] += part * (
                        signed * R * D1[lane] - shift[lane] * attacked[lane] + variance * Q * slope[lane]
                    )
                    squares[lane] += part * variance * D2[lane]
                    pull[lane] += part * tau * D1[lane]
                if kind.searches:
                    for lane in range(LANES):
                        Q = 1.0 if kind.normalised else max(y[_Q * LANES + lane], 1e-300)
                        signed = agree * constants[_HALF_RHO * LANES + lane]
                        along, across = (of_B[lane], 0.0) if kind.blind else (0.0, shift[lane] / Q)
                        variance = constants[(_V1 + cluster) * LANES + lane]
                        by_R[lane] -= share[lane] * (signed * D1[lane] - along * attacked[lane])
                        by_Q[lane] -= 0.5 * share[lane] * (variance * slope[lane] - across * attacked[lane])
        for lane in range(LANES):
            scale[lane] = 1.0
        if kind.searches:
            _search(kind, constants, y, sums, scale)
        for lane in range(LANES):
            R, b = y[_R * LANES + lane], y[_B * LANES + lane]
            eta_w = scale[lane] * constants[_ETA_W * LANES + lane]
            eta_w_squared = scale[lane] * scale[lane] * constants[_ETA_W_SQUARED * LANES + lane]
            eta_b = scale[lane] * constants[_ETA_B * LANES + lane]
            decay_w = constants[_DECAY_W * LANES + lane]
            if kind.normalised:
                along = along_B[lane] - R * along_w[lane]
                dydt[_R * LANES + lane] = eta_w * along - 0.5 * eta_w_squared * R * squares[lane]
            else:
                Q = y[_Q * LANES + lane]
                dydt[_R * LANES + lane] = eta_w * (along_B[lane] - decay_w * R)
                dydt[_Q * LANES + lane] = 2.0 * eta_w * (along_w[lane] - decay_w * Q) + eta_w_squared * squares[lane]
            dydt[_B * LANES + lane] = -eta_b * (pull[lane] + constants[_DECAY_B * LANES + lane] * b)

    return derivative


class Constant(NamedTuple):
    """Stands for a `VariantModel` where a simulation has no line search."""

    factor: float = 1.0


def load_search(search, constants, y):
    """Load the model of a line search into every lane."""
    raise NotImplementedError(f"{search!r}: this is for compiled code")


@overload(load_search)
def _load_search(search, constants, y):
    if search.instance_class is Constant:
        return lambda search, constants, y: None  # noqa: ARG005

    def load(search, constants, y):
        for lane in range(LANES):
            runge_kutta.load(search, 0, lane, constants, y)

    return load


def lane_search(search, constants, y, R, b, Q, epsilon, eta_w, eta_b, scale):
    """Set the factor of the learning rates at the states (R, b, Q) of the lanes; y has a state and its derivative."""
    raise NotImplementedError(f"{search!r}: this is for compiled code")


@overload(lane_search)
def _lane_search(search, constants, y, R, b, Q, epsilon, eta_w, eta_b, scale):
    if search.instance_class is Constant:
        return lambda search, constants, y, R, b, Q, epsilon, eta_w, eta_b, scale: None  # noqa: ARG005

    def set_scale(search, constants, y, R, b, Q, epsilon, eta_w, eta_b, scale):
        for lane in range(LANES):
            y[_R * LANES + lane], y[_B * LANES + lane], y[_Q * LANES + lane] = R[lane], b[lane], Q[lane]
            constants[_EPSILON * LANES + lane], constants[_ETA_B * LANES + lane] = epsilon, eta_b
            _set_eta_w(eta_w, lane, constants)
        runge_kutta.derivative(search, constants, y, y[3 * LANES :])
        for lane in range(LANES):
            scale[lane] = constants[(_SUMS + _SCALE) * LANES + lane]

    return set_scale
