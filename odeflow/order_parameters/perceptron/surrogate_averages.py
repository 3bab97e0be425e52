r"""Gaussian averages where the loss has a surrogate of the outputs g(x) and g(x') for an example and for the same one under attack.

With :math:`u = \tau x \sim N(m, v)` the margin of the example as it is, :math:`u' = \tau x'` that of the attacked one and a the length of
the move, TRADES (H. Zhang et al., arXiv 1901.08573) has the loss

.. math:: \ell(u) + \beta \max_{|u' - u| \le a} D(g(u), g(u')), \qquad u' = u - a\,\mathrm{sgn}\,u ,

with :math:`D = \frac12 (g - g')^2` of the squared loss and the Kullback-Leibler divergence of the probabilities
:math:`1/(1 + e^{-g})` of the logistic loss. Pairing (H. Kannan et al., arXiv 1803.06373) has

.. math:: (1-\kappa)\,\ell(u') + \kappa\,\ell(u) + \tfrac\beta2 (g(u) - g(u'))^2, \qquad u' = u - a .

The update's factor is F, the negative derivative by u and u' together; A, that by u' times what the attack's direction has, goes with the
attack alone. Both vary around u = 0 and around u' = 0, and F of TRADES jumps at u = 0: Gauss-Legendre quadrature in panels between these
places, with an error below 1e-10; of linear outputs with the squared loss in closed form.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from odeflow.numerics.compilation import LANES, called, inlined
from odeflow.numerics.elementary import exp
from odeflow.order_parameters.perceptron.variant_averages import (
    NODES,
    SIGMAS,
    WEIGHTS,
    below,
    erf_and_slope,
    logistic,
    tanh_and_slope,
)

if TYPE_CHECKING:
    import numpy.typing as npt

    from odeflow.model import LearningRule

__all__ = [
    "SurrogateFactor",
    "lane_surrogate_averages",
    "lane_surrogate_factors",
    "plain_surrogate_factors",
    "surrogate_factor",
    "surrogate_factors",
]

_OUTPUTS = ("erf", "tanh", "linear")
_ERF, _TANH, _LINEAR = range(3)
_REACHES = (
    6.0,
    17.0,
    33.0,
)  # where g', or of linear outputs the logistic loss's factor less its limits, is below 1e-14
_FEW_NODES, _FEW_WEIGHTS = np.polynomial.legendre.leggauss(32)  # enough for erf, whose reach is short
_PARTS = 5  # panels: beyond the lower place, three between the two, beyond the upper one


class SurrogateFactor(NamedTuple):
    """A loss with a surrogate, as the kernels take it."""

    trades: bool
    """TRADES, or else pairing."""
    squared: bool
    """The squared loss, or else the logistic one."""
    output: int
    reach: float
    """Distance from its place beyond which a factor is at its limit."""


def surrogate_factor(rule: LearningRule) -> SurrogateFactor:
    """Return the loss of a rule with a surrogate."""
    output = _OUTPUTS.index(rule.activation)
    return SurrogateFactor(rule.surrogate == "trades", rule.loss == "squared", output, _REACHES[output])


def plain_surrogate_factors(
    rule: LearningRule, u: npt.NDArray[np.float64], a: npt.NDArray[np.float64], clean_weight: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return F(u) and A(u), with margins u before the attack, in plain NumPy: what the kernels are held to."""
    from scipy.special import expit

    from odeflow.order_parameters.perceptron.variant_averages import plain_factor

    direction = np.where(u >= 0, 1.0, -1.0) if rule.surrogate == "trades" else np.ones_like(u)
    other = u - a * direction
    (g, slope), (other_g, other_slope) = (_plain_output(rule.activation, x) for x in (u, other))
    # of the surrogate, by u and by u'
    if rule.surrogate == "trades" and rule.loss == "logistic":
        p, q = expit(g), expit(other_g)
        here, there = -p * expit(-g) * (g - other_g) * slope, (p - q) * other_slope
    else:
        here, there = -(g - other_g) * slope, (g - other_g) * other_slope
    clean, attacked = plain_factor(rule, u), plain_factor(rule, other)
    if rule.surrogate == "trades":
        clean_weight = 1.0
    here, there = clean_weight * clean + rule.beta * here, (1 - clean_weight) * attacked + rule.beta * there
    return here + there, there * direction


def _plain_output(
    activation: str, u: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    from scipy.special import erf

    if activation == "linear":
        return u, np.ones_like(u)
    return (
        (erf(u), 2 / math.sqrt(math.pi) * np.exp(-u * u))
        if activation == "erf"
        else (np.tanh(u), 1 / np.cosh(np.clip(u, -300, 300)) ** 2)
    )


@inlined
def _output(output, u):
    """Return 1 - g(u), g(u) and g'(u)."""
    if output == _ERF:
        return erf_and_slope(u)
    if output == _TANH:
        return tanh_and_slope(u)
    return 1.0 - u, u, 1.0


@inlined
def _trades_squared(short, g, slope, other_g, other_slope, k, beta):
    """Return F, and its part by u'."""
    there = beta * (g - other_g) * other_slope
    return (short - k - beta * (g - other_g)) * slope + there, there


@inlined
def _trades_logistic(g, slope, other_g, other_slope, k, beta):
    miss, other_miss = logistic(g), logistic(other_g)  # 1 - p and 1 - q
    there = beta * (other_miss - miss) * other_slope
    return (miss - k - beta * miss * (1.0 - miss) * (g - other_g)) * slope + there, there


@inlined
def _pairing(lack, g, slope, other_lack, other_g, other_slope, k, weight, beta):
    there = ((1.0 - weight) * (other_lack - k) + beta * (g - other_g)) * other_slope
    return (weight * (lack - k) - beta * (g - other_g)) * slope + there, there


@called
def surrogate_factors(how, k, weight, beta, a, u):
    """Return F(u) and A(u)."""
    toward = -1.0 if how.trades and u < 0.0 else 1.0
    short, g, slope = _output(how.output, u)
    other_short, other_g, other_slope = _output(how.output, u - a * toward)
    if how.trades and how.squared:
        F, there = _trades_squared(short, g, slope, other_g, other_slope, k, beta)
    elif how.trades:
        F, there = _trades_logistic(g, slope, other_g, other_slope, k, beta)
    else:
        lack, other_lack = (short, other_short) if how.squared else (logistic(g), logistic(other_g))
        F, there = _pairing(lack, g, slope, other_lack, other_g, other_slope, k, weight, beta)
    return F, there * toward


@inlined
def _lane_outputs(output, u, short, g, slope):
    """Set 1 - g(u), g(u) and g'(u) in every lane, with one branch-free loop for each output."""
    if output == _ERF:
        for lane in range(LANES):
            short[lane], g[lane], slope[lane] = erf_and_slope(u[lane])
    elif output == _TANH:
        for lane in range(LANES):
            short[lane], g[lane], slope[lane] = tanh_and_slope(u[lane])
    else:
        for lane in range(LANES):
            short[lane], g[lane], slope[lane] = 1.0 - u[lane], u[lane], 1.0


@called
def lane_surrogate_factors(how, k, weight, beta, a, u, F, A, work):
    """Set F(u) and A(u) in every lane; `work` has eight times as many entries."""
    toward, other = work[0], work[1]
    short, g, slope, other_short, other_g, other_slope = work[2], work[3], work[4], work[5], work[6], work[7]
    for lane in range(LANES):
        toward[lane] = -1.0 if how.trades and u[lane] < 0.0 else 1.0
        other[lane] = u[lane] - a[lane] * toward[lane]
    _lane_outputs(how.output, u, short, g, slope)
    _lane_outputs(how.output, other, other_short, other_g, other_slope)
    if how.trades and how.squared:
        for lane in range(LANES):
            F[lane], A[lane] = _trades_squared(
                short[lane], g[lane], slope[lane], other_g[lane], other_slope[lane], k[lane], beta[lane]
            )
    elif how.trades:
        for lane in range(LANES):
            F[lane], A[lane] = _trades_logistic(
                g[lane], slope[lane], other_g[lane], other_slope[lane], k[lane], beta[lane]
            )
    else:
        if not how.squared:
            for lane in range(LANES):
                short[lane], other_short[lane] = logistic(g[lane]), logistic(other_g[lane])
        for lane in range(LANES):
            F[lane], A[lane] = _pairing(
                short[lane], g[lane], slope[lane], other_short[lane], other_g[lane], other_slope[lane],
                k[lane], weight[lane], beta[lane],
            )  # fmt: skip
    for lane in range(LANES):
        A[lane] *= toward[lane]


@inlined
def _closed(how, k, weight, beta, a, m, v, D1, A, D2, slope):
    """Average the straight lines of linear outputs with the squared loss: the surrogate is a decay of the weights."""
    for lane in range(LANES):
        attacked = 0.0 if how.trades else 1.0 - weight[lane]
        D1[lane] = 1.0 - k[lane] - m[lane] + attacked * a[lane]
        A[lane] = attacked * (1.0 - k[lane] - m[lane] + a[lane]) + beta[lane] * a[lane]
        D2[lane] = D1[lane] * D1[lane] + v[lane]
        slope[lane] = -1.0


@inlined
def _panel(how, part, side, a, m, v, half, middle):
    """Set a panel of every lane, within the Gaussian's reach; return whether there is any."""
    widest = 0.0
    for lane in range(LANES):
        low, high = min(a[lane], 0.0), max(a[lane], 0.0)
        near = min(0.5 * (high - low), how.reach)
        begin, end = low - how.reach, low
        if part == 1:
            begin, end = low, low + near
        elif part == 2:  # between the two, both factors are at their limits
            begin, end = low + near, high - near
        elif part == 3:
            begin, end = high - near, high
        elif part == 4:
            begin, end = high, high + how.reach
        begin, end = (begin, end) if side == 0 else (-end, -begin)
        s = SIGMAS * math.sqrt(v[lane])
        begin, end = max(begin, m[lane] - s), min(end, m[lane] + s)
        half[lane] = max(0.5 * (end - begin), 0.0)
        middle[lane] = 0.5 * (begin + end)
        widest = max(widest, half[lane])
    return widest > 0.0


@called
def lane_surrogate_averages(how, k, weight, beta, a, attacked_mean, v, D1, A, D2, slope, work):
    """Set <F>, <A>, <F^2> and <F'> in every lane, of u with the mean `attacked_mean` + a; `work` has `WORK` times as many entries."""
    m, u, half, middle, f, moved, rest = work[8], work[9], work[10], work[11], work[12], work[13], work[14]
    for lane in range(LANES):
        m[lane] = attacked_mean[lane] + a[lane]
    if how.output == _LINEAR and how.squared:
        _closed(how, k, weight, beta, a, m, v, D1, A, D2, slope)
        return
    is_linear = how.output == _LINEAR
    nodes, weights = (_FEW_NODES, _FEW_WEIGHTS) if how.output == _ERF else (NODES, WEIGHTS)
    D1[:], A[:], D2[:], slope[:] = 0.0, 0.0, 0.0, 0.0
    for side in range(2 if how.trades else 1):  # TRADES has the places 0 and a, and 0 and -a
        for part in range(1 if how.trades else 0, _PARTS):
            if (part == 2 and not is_linear) or not _panel(how, part, side, a, m, v, half, middle):
                continue
            for lane in range(LANES):
                # F tends to 1 - k far on the wrong side, and to -k on the other, where outputs are linear; A of pairing likewise
                rest[lane] = ((1.0 if middle[lane] < 0.0 else 0.0) - k[lane]) if is_linear else 0.0
            for node in range(nodes.size):
                for lane in range(LANES):
                    u[lane] = middle[lane] + half[lane] * nodes[node]
                lane_surrogate_factors(how, k, weight, beta, a, u, f, moved, work)
                for lane in range(LANES):
                    z = u[lane] - m[lane]
                    measure = exp(-0.5 * z * z / v[lane]) / math.sqrt(2 * math.pi * v[lane])
                    measure *= weights[node] * half[lane]
                    D1[lane] += measure * (f[lane] - rest[lane])
                    D2[lane] += measure * (f[lane] * f[lane] - rest[lane] * rest[lane])
                    slope[lane] += measure * (f[lane] - rest[lane]) * z / v[lane]
                    part_rest = (1.0 - weight[lane]) * rest[lane] + beta[lane] * a[lane] if is_linear else 0.0
                    A[lane] += measure * (moved[lane] - (0.0 if how.trades else part_rest))
    if is_linear:
        for lane in range(LANES):
            P, density = below(0.0, m[lane], v[lane])
            D1[lane] += P - k[lane]
            D2[lane] += (1.0 - k[lane]) * (1.0 - k[lane]) * P + k[lane] * k[lane] * (1.0 - P)
            slope[lane] -= density / v[lane]
            if not how.trades:
                A[lane] += (1.0 - weight[lane]) * (P - k[lane]) + beta[lane] * a[lane]
