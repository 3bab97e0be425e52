r"""Gaussian averages where an update sums several factors of one example, in the lanes of a kernel.

With smoothed labels the factor is :math:`\varphi(u) = f(u) - k\,g'(u)`; with a loss on the example without attack beside that
on the attacked one, of weight :math:`\kappa`, it is :math:`F(u) = (1-\kappa)\,\varphi(u) + \kappa\,\varphi(u + a)`, where the attack
takes a from the margin. Averages of F are sums of those of `odeflow.order_parameters.perceptron.variant_averages`; those of its square
need products :math:`\langle f_1(u) f_2(u + a)\rangle` as well: closed for straight lines, otherwise by Gauss-Legendre quadrature between
the places around which either varies, with an error below 1e-10.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba.extending import overload

from odeflow.model import LearningRule
from odeflow.numerics.compilation import LANES, called, inlined
from odeflow.numerics.elementary import exp
from odeflow.order_parameters.perceptron.own_factor import (
    OwnFactor,
    lane_own_averages,
    lane_own_factors,
    own_factor,
    own_value,
)
from odeflow.order_parameters.perceptron.surrogate_averages import (
    SurrogateFactor,
    lane_surrogate_averages,
    lane_surrogate_factors,
    surrogate_factor,
    surrogate_factors,
)
from odeflow.order_parameters.perceptron.variant_averages import (
    CLOSED_LINE,
    LINEAR_LOGISTIC,
    QUADRATURE,
    SIGMAS,
    UpdateFactor,
    below,
    factor,
    lane_averages,
    lane_factors,
    output_slope,
    update_factor,
)

__all__ = [
    "WORK",
    "Factors",
    "attacked_of",
    "factors_of",
    "lane_learned",
    "lane_mixed",
    "lane_products",
    "lane_smoothed",
    "learned",
    "smoothed_factor",
]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(40)

WORK = 15
"""Rows of scratch space that `lane_mixed` needs."""


class Factors(NamedTuple):
    """What an update's factor is made of, where it is more than f."""

    f: UpdateFactor
    """The negative derivative of the loss by the margin."""
    slope: UpdateFactor
    """g', where labels are smoothed."""
    smooth: bool
    """Whether some are."""
    twice: bool
    """Whether the loss on examples without attack has a weight."""


def factors_of(
    rule: LearningRule, *, smooth: bool, twice: bool
) -> UpdateFactor | Factors | OwnFactor | SurrogateFactor:
    """Return what a rule's factor is made of: f alone has a type of its own, for which less is compiled."""
    if rule.surrogate != "none":
        return surrogate_factor(rule)
    if rule.factor is not None:
        return own_factor(rule.factor, non_robust=rule.update == "non_robust", twice=twice)
    f = update_factor(rule)
    return Factors(f, output_slope(rule) if smooth else f, smooth, twice) if smooth or twice else f


@inlined
def _limit(how):
    """Return what f tends to on the far wrong side, where that is not 0."""
    if how.family == CLOSED_LINE:
        return how.a
    return 1.0 if how.family == QUADRATURE and how.function == LINEAR_LOGISTIC else 0.0


@inlined
def _lines(one, other, m, v, shift, out):
    """Average a product of straight lines up to where either is cut off."""
    for lane in range(LANES):
        cut = min(one.cut, other.cut - shift[lane])
        P, density = below(cut, m[lane], v[lane])
        at_cut = cut if cut < 1e300 else 0.0  # its density is 0 then
        first = m[lane] * P - density
        second = (m[lane] * m[lane] + v[lane]) * P - (m[lane] + at_cut) * density
        a = other.a + other.c * shift[lane]
        out[lane] = one.a * a * P + (one.a * other.c + a * one.c) * first + one.c * other.c * second


@called
def _factors_at(how, u, out):
    lane_factors(how, u, out)


@called
def lane_products(one, other, m, v, shift, out, work):
    """Set out = <f_one(u) f_other(u + shift)> for u ~ N(m, v) in every lane; `work` has six times as many entries."""
    if one.family == CLOSED_LINE and other.family == CLOSED_LINE:
        _lines(one, other, m, v, shift, out)
        return
    u, f, half, middle, shifted, g = work[0], work[1], work[2], work[3], work[4], work[5]
    limit = _limit(one) * _limit(other)
    out[:] = 0.0
    for side in range(3):  # below the lower place, between the two, above the upper one
        for lane in range(LANES):
            s, here, there = SIGMAS * math.sqrt(v[lane]), 0.0, -shift[lane]
            if limit == 0.0:
                low = max(m[lane] - s, here - one.reach, there - other.reach)
            else:  # less the limit, the product is 0 where both have reached it
                low = max(m[lane] - s, min(here, there) - min(one.reach, other.reach))
            high = min(m[lane] + s, here + one.reach, there + other.reach)
            high = min(high, one.cut, other.cut - shift[lane])
            low = low if side == 0 else max(low, min(here, there) if side == 1 else max(here, there))
            high = high if side == 2 else min(high, min(here, there) if side == 0 else max(here, there))
            half[lane] = max(0.5 * (high - low), 0.0)
            middle[lane] = 0.5 * (high + low)
        for node in range(_NODES.size):
            for lane in range(LANES):
                u[lane] = middle[lane] + half[lane] * _NODES[node]
                shifted[lane] = u[lane] + shift[lane]
            _factors_at(one, u, f)
            _factors_at(other, shifted, g)
            for lane in range(LANES):
                z = u[lane] - m[lane]
                density = exp(-0.5 * z * z / v[lane]) / math.sqrt(2 * math.pi * v[lane])
                product = f[lane] * g[lane] - (limit if side == 0 else 0.0)
                out[lane] += _WEIGHTS[node] * half[lane] * density * product
    if limit != 0.0:
        for lane in range(LANES):
            cut = min(one.cut, other.cut - shift[lane])
            out[lane] += limit * below(min(0.0, -shift[lane], cut), m[lane], v[lane])[0]


@called
def _smoothed_averages(factors, k, m, v, D1, D2, slope, work):
    """Set the averages D1, D2 and D1' of f - k g'."""
    lane_averages(factors.f, m, v, D1, D2, slope, work)
    if factors.smooth:
        G1, G2, G_slope, zero = work[6], work[7], work[8], work[9]
        lane_averages(factors.slope, m, v, G1, G2, G_slope, work)
        for lane in range(LANES):
            D1[lane] -= k[lane] * G1[lane]
            slope[lane] -= k[lane] * G_slope[lane]
            D2[lane] += k[lane] * k[lane] * G2[lane]
            zero[lane] = 0.0
        lane_products(factors.f, factors.slope, m, v, zero, G1, work)
        for lane in range(LANES):
            D2[lane] -= 2.0 * k[lane] * G1[lane]


@called
def _sums(factors, k, weight, shift, m, v, D1, attacked, D2, slope, work):
    _smoothed_averages(factors, k, m, v, D1, D2, slope, work)
    for lane in range(LANES):
        attacked[lane] = D1[lane]
    if not factors.twice:
        return
    # the rows before are used below
    plain, C1, C2, C_slope, product = work[10], work[11], work[12], work[13], work[14]
    for lane in range(LANES):
        plain[lane] = m[lane] + shift[lane]
    _smoothed_averages(factors, k, plain, v, C1, C2, C_slope, work)
    for lane in range(LANES):
        attacked[lane] = (1.0 - weight[lane]) * D1[lane]
        D1[lane] = attacked[lane] + weight[lane] * C1[lane]
        slope[lane] = (1.0 - weight[lane]) * slope[lane] + weight[lane] * C_slope[lane]
        D2[lane] = (1.0 - weight[lane]) ** 2 * D2[lane] + weight[lane] ** 2 * C2[lane]
    for which in range(4 if factors.smooth else 1):
        one = factors.f if which < 2 else factors.slope
        other = factors.f if which % 2 == 0 else factors.slope
        lane_products(one, other, m, v, shift, product, work)
        for lane in range(LANES):
            sign = 1.0 if which == 0 else (k[lane] * k[lane] if which == 3 else -k[lane])
            D2[lane] += 2.0 * weight[lane] * (1.0 - weight[lane]) * sign * product[lane]


def lane_mixed(factors, k, weight, beta, shift, m, v, D1, attacked, D2, slope, work):
    """Set <F>, its part from the attacked example, <F^2> and <F'> in every lane; `work` has `WORK` times as many entries.

    k is that of smoothed labels, `weight` that of the loss without attack, `beta` that of a surrogate, and `shift` what the attack
    takes from the margin, which has the mean m after it. With a surrogate the part has the direction of the attack as its sign.
    """
    raise NotImplementedError(f"{factors!r}: this is for compiled code")


@overload(lane_mixed)
def _lane_mixed(factors, k, weight, beta, shift, m, v, D1, attacked, D2, slope, work):
    if factors.instance_class is Factors:
        return lambda factors, k, weight, beta, shift, m, v, D1, attacked, D2, slope, work: _sums(  # noqa: ARG005
            factors, k, weight, shift, m, v, D1, attacked, D2, slope, work
        )
    if factors.instance_class is OwnFactor:
        return lambda factors, k, weight, beta, shift, m, v, D1, attacked, D2, slope, work: lane_own_averages(  # noqa: ARG005
            factors, weight, shift, m, v, D1, attacked, D2, slope
        )
    if factors.instance_class is SurrogateFactor:
        return lambda factors, k, weight, beta, shift, m, v, D1, attacked, D2, slope, work: lane_surrogate_averages(
            factors, k, weight, beta, shift, m, v, D1, attacked, D2, slope, work
        )
    return lambda factors, k, weight, beta, shift, m, v, D1, attacked, D2, slope, work: lane_averages(  # noqa: ARG005
        factors, m, v, D1, D2, slope, work
    )


def attacked_of(factors, D1, attacked):
    """Return where the part from the attacked example is: it is the whole where f is the only factor."""
    raise NotImplementedError(f"{factors!r}: this is for compiled code")


@overload(attacked_of, inline="always")
def _attacked_of(factors, D1, attacked):
    if factors.instance_class in (Factors, OwnFactor, SurrogateFactor):
        return lambda factors, D1, attacked: attacked  # noqa: ARG005
    return lambda factors, D1, attacked: D1  # noqa: ARG005


def lane_smoothed(factors, k, u, out, work):
    """Set out = f(u) - k g'(u) in every lane; `work` has as many entries."""
    raise NotImplementedError(f"{factors!r}: this is for compiled code")


@overload(lane_smoothed)
def _lane_smoothed(factors, k, u, out, work):
    if factors.instance_class is UpdateFactor:
        return lambda factors, k, u, out, work: lane_factors(factors, u, out)  # noqa: ARG005
    if factors.instance_class is OwnFactor:
        return lambda factors, k, u, out, work: lane_own_factors(factors, u, out)  # noqa: ARG005

    def smoothed(factors, k, u, out, work):
        lane_factors(factors.f, u, out)
        if factors.smooth:
            lane_factors(factors.slope, u, work)
            for lane in range(LANES):
                out[lane] -= k * work[lane]

    return smoothed


def smoothed_factor(factors, k, u):
    """Return f(u) - k g'(u)."""
    raise NotImplementedError(f"{factors!r}: this is for compiled code")


@overload(smoothed_factor)
def _smoothed_factor(factors, k, u):
    if factors.instance_class is UpdateFactor:
        return lambda factors, k, u: factor(factors, u)  # noqa: ARG005
    if factors.instance_class is OwnFactor:
        return lambda factors, k, u: own_value(factors, u)  # noqa: ARG005
    return lambda factors, k, u: factor(factors.f, u) - (k * factor(factors.slope, u) if factors.smooth else 0.0)


def lane_learned(factors, numbers, shift, margin, attacked, total, work):
    """Set A and F in every lane, of margins after the attack; `work` has ten times as many entries.

    The rows of `numbers` are k, the weight of the loss without attack and beta, each the same in all lanes.
    """
    raise NotImplementedError(f"{factors!r}: this is for compiled code")


@overload(lane_learned)
def _lane_learned(factors, numbers, shift, margin, attacked, total, work):
    if factors.instance_class is SurrogateFactor:

        def both(factors, numbers, shift, margin, attacked, total, work):
            clean = work[8]
            for lane in range(LANES):
                clean[lane] = margin[lane] + shift[lane]
            lane_surrogate_factors(factors, numbers[0], numbers[1], numbers[2], shift, clean, total, attacked, work)

        return both

    def mixed(factors, numbers, shift, margin, attacked, total, work):
        k, weight = numbers[0, 0], numbers[1, 0]
        f, clean, rest = work[0], work[1], work[2]
        lane_smoothed(factors, k, margin, f, rest)
        for lane in range(LANES):
            attacked[lane] = (1.0 - weight) * f[lane]
            total[lane] = attacked[lane]
        if weight > 0.0:
            for lane in range(LANES):
                clean[lane] = margin[lane] + shift[lane]
            lane_smoothed(factors, k, clean, f, rest)
            for lane in range(LANES):
                total[lane] += weight * f[lane]

    return mixed


def learned(factors, k, weight, beta, shift, margin):
    """Return A and F of a margin after the attack."""
    raise NotImplementedError(f"{factors!r}: this is for compiled code")


@overload(learned)
def _learned(factors, k, weight, beta, shift, margin):
    if factors.instance_class is SurrogateFactor:

        def both(factors, k, weight, beta, shift, margin):
            F, A = surrogate_factors(factors, k, weight, beta, shift, margin + shift)
            return A, F

        return both

    def mixed(factors, k, weight, beta, shift, margin):
        attacked = (1.0 - weight) * smoothed_factor(factors, k, margin)
        total = attacked
        if weight > 0.0:
            total += weight * smoothed_factor(factors, k, margin + shift)
        return attacked, total

    return mixed
