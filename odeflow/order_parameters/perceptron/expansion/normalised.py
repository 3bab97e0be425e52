r"""Normalised weights: rates, derivatives, diffusion and drift of (R, b), in the lanes of a kernel.

With :math:`c = (\rho/2)(1-R^2)`, shares :math:`p_\tau` of the classes, and averages over the law of the attack,

.. math::
    dR/d\alpha = \eta_w c \sum_\tau p_\tau D_1 - (\eta_w^2/2) R \sum_\tau p_\tau v_\tau D_2, \qquad
    db/d\alpha = -\eta_b \sum_\tau p_\tau \tau D_1 ,

and everything else follows by derivatives of D1 and D2 by :math:`m_\tau = \rho R/2 - \varepsilon - \tau b` and
:math:`v_\tau`. Equations (6.1) to (6.4) of the theory page.
"""

from __future__ import annotations

from odeflow.numerics.compilation import inlined
from odeflow.order_parameters.perceptron.expansion.moments import D1, D2, D3, D4, ERF_ROWS, MEAN, VARIANCE
from odeflow.order_parameters.perceptron.expansion.rows import (
    DIFFUSION,
    DRIFT,
    EPSILON,
    ERF,
    ETA_B,
    ETA_W,
    FRACTION,
    JACOBIAN,
    RATE,
    RHO,
    SECOND_ORDER,
    SHARE,
    SUM_ROWS,
    SUMS,
    V1,
    P,
    some_clean,
)

__all__ = ["by_parameter", "rates", "sums"]

_R, _B = range(2)  # rows of the state

# rows of a class's sums: averages over its examples of D1 and D2 with their derivatives, also times the factor of epsilon, and
# of those that are attacked less those that are not; of f^2 (u + tau b), f^3, f^3 (u + tau b) and f^4
_D1, _D2, _D1_EPSILON, _D2_EPSILON, _D1_FRACTION, _D2_FRACTION, _F2U, _F3, _F3U, _F4 = 0, 3, 6, 7, 8, 9, 10, 11, 12, 13


@inlined
def _add(x, to, row, first, factor, lanes):
    """Set a row to another times the share of the examples and a factor, or add that to it: a loop a row is SIMD code."""
    if first:
        for lane in range(lanes):
            x[to * lanes + lane] = factor * x[SHARE * lanes + lane] * x[row * lanes + lane]
    else:
        for lane in range(lanes):
            x[to * lanes + lane] += factor * x[SHARE * lanes + lane] * x[row * lanes + lane]


@inlined
def sums(averages, how, nodes, weights, by_fraction, x, y, covariance, fluctuations, lanes):
    """Set the sums of both classes: over the nodes of the law, and last the examples that are not attacked.

    `averages` is `moments`, or one of its cases; `by_fraction` says whether the derivatives by the fraction are wanted.
    """
    with_clean = by_fraction or some_clean(x, lanes)
    for label in range(2):
        tau = 1.0 - 2.0 * label
        row = SUMS + label * SUM_ROWS
        for node in range(nodes.size + 1 if with_clean else nodes.size):
            first, clean = node == 0, node == nodes.size
            size = 0.0 if clean else nodes[node]
            for lane in range(lanes):
                margin = 0.5 * x[RHO * lanes + lane] * y[_R * lanes + lane] - size * x[EPSILON * lanes + lane]
                x[MEAN * lanes + lane] = margin - tau * y[_B * lanes + lane]
            for lane in range(lanes):
                x[VARIANCE * lanes + lane] = x[(V1 + label) * lanes + lane]
            averages(how, x, ERF + label * ERF_ROWS, 2, 2, fluctuations, lanes)
            if by_fraction:
                for lane in range(lanes):
                    x[SHARE * lanes + lane] = -1.0 if clean else weights[node]
                _add(x, row + _D1_FRACTION, D1, first, 1.0, lanes)
                _add(x, row + _D2_FRACTION, D2, first, 1.0, lanes)
            for lane in range(lanes):
                fraction = x[FRACTION * lanes + lane]
                x[SHARE * lanes + lane] = 1.0 - fraction if clean else fraction * weights[node]
            for k in range(3):
                _add(x, row + _D1 + k, D1 + k, first, 1.0, lanes)
                _add(x, row + _D2 + k, D2 + k, first, 1.0, lanes)
            _add(x, row + _D1_EPSILON, D1 + 1, first, -size, lanes)
            _add(x, row + _D2_EPSILON, D2 + 1, first, -size, lanes)
            if fluctuations:
                _add(x, row + _F3, D3, first, 1.0, lanes)
                _add(x, row + _F4, D4, first, 1.0, lanes)
                # in the place of D1 and its derivative, which nobody reads again: averages with u + tau b
                for lane in range(lanes):
                    along, v = x[MEAN * lanes + lane] + tau * y[_B * lanes + lane], x[VARIANCE * lanes + lane]
                    x[D1 * lanes + lane] = along * x[D2 * lanes + lane] + v * x[(D2 + 1) * lanes + lane]
                for lane in range(lanes):
                    along, v = x[MEAN * lanes + lane] + tau * y[_B * lanes + lane], x[VARIANCE * lanes + lane]
                    x[(D1 + 1) * lanes + lane] = along * x[D3 * lanes + lane] + v * x[(D3 + 1) * lanes + lane]
                _add(x, row + _F2U, D1, first, 1.0, lanes)
                _add(x, row + _F3U, D1 + 1, first, 1.0, lanes)


@inlined
def _both(x, k, lane, lanes):
    """Return a sum of the class +1 and that of -1, with their priors."""
    p = x[P * lanes + lane]
    return p * x[(SUMS + k) * lanes + lane], (1.0 - p) * x[(SUMS + SUM_ROWS + k) * lanes + lane]


@inlined
def rates(x, y, covariance, fluctuations, lanes):
    """Set rates and Jacobian, and if wanted diffusion and drift at the covariance that begins at a row of y; from the sums."""
    for lane in range(lanes):
        R = y[_R * lanes + lane]
        half_rho, eta_w, eta_b = 0.5 * x[RHO * lanes + lane], x[ETA_W * lanes + lane], x[ETA_B * lanes + lane]
        v1, v2, second_order = x[V1 * lanes + lane], x[(V1 + 1) * lanes + lane], x[SECOND_ORDER * lanes + lane]
        noise = 0.5 * second_order * eta_w * eta_w
        c, c_R = half_rho * (1.0 - R * R), -2.0 * half_rho * R
        plus, minus = _both(x, _D1, lane, lanes)
        D, T = plus + minus, plus - minus
        plus, minus = _both(x, _D1 + 1, lane, lanes)
        D_R, D_b, T_R, T_b = half_rho * (plus + minus), minus - plus, half_rho * (plus - minus), -(plus + minus)
        plus, minus = _both(x, _D2, lane, lanes)
        S = v1 * plus + v2 * minus
        plus, minus = _both(x, _D2 + 1, lane, lanes)
        S_R, S_b = half_rho * (v1 * plus + v2 * minus), v2 * minus - v1 * plus
        dR, db = eta_w * c * D - noise * R * S, -eta_b * T
        x[(RATE + _R) * lanes + lane] = dR
        x[(RATE + _B) * lanes + lane] = db
        x[JACOBIAN * lanes + lane] = eta_w * (c_R * D + c * D_R) - noise * (S + R * S_R)
        x[(JACOBIAN + 1) * lanes + lane] = eta_w * c * D_b - noise * R * S_b
        x[(JACOBIAN + 2) * lanes + lane] = -eta_b * T_R
        x[(JACOBIAN + 3) * lanes + lane] = -eta_b * T_b
        if fluctuations:
            var_R = y[covariance * lanes + lane]
            cov, var_b = y[(covariance + 1) * lanes + lane], y[(covariance + 2) * lanes + lane]
            # diffusion: the increment of R is eta_w f (c + sqrt(v (1 - R^2)) z) - (eta_w^2/2) R v f^2, that of b -eta_b tau f
            plus, minus = _both(x, _D2, lane, lanes)
            plus_3, minus_3 = _both(x, _F3, lane, lanes)
            plus_4, minus_4 = _both(x, _F4, lane, lanes)
            cubes = v1 * plus_3 + v2 * minus_3
            fourths = v1 * v1 * plus_4 + v2 * v2 * minus_4
            across = 1.0 - R * R
            RR = eta_w * eta_w * (plus * (c * c + v1 * across) + minus * (c * c + v2 * across))
            RR += noise * R * (noise * R * fourths - 2.0 * eta_w * c * cubes)
            Rb = eta_w * c * (plus - minus) - noise * R * (v1 * plus_3 - v2 * minus_3)
            x[DIFFUSION * lanes + lane] = RR - dR * dR
            x[(DIFFUSION + 1) * lanes + lane] = -eta_b * Rb - dR * db
            x[(DIFFUSION + 2) * lanes + lane] = eta_b * eta_b * (plus + minus) - db * db
            # the step's own second order
            plus_1, minus_1 = _both(x, _F2U, lane, lanes)
            own = R * (v1 * plus + v2 * minus) - half_rho * R * c * (plus + minus) - 2.0 * c * (plus_1 + minus_1)
            plus_1, minus_1 = _both(x, _F3U, lane, lanes)
            third = R * (v1 * plus_1 + v2 * minus_1) - 0.5 * c * cubes
            drift = 0.5 * eta_w * eta_w * own + noise * (2.0 * eta_w * third + 0.75 * eta_w * eta_w * R * fourths)
            # and half the curvature of the rates
            plus, minus = _both(x, _D1 + 2, lane, lanes)
            straight = half_rho * half_rho * var_R + var_b
            crossed = 2.0 * half_rho * cov
            D_2, T_2 = (
                straight * (plus + minus) - crossed * (plus - minus),
                straight * (plus - minus) - crossed * (plus + minus),
            )
            plus, minus = _both(x, _D2 + 2, lane, lanes)
            S_2 = straight * (v1 * plus + v2 * minus) - crossed * (v1 * plus - v2 * minus)
            bend = eta_w * (-2.0 * half_rho * D * var_R + 2.0 * c_R * (D_R * var_R + D_b * cov) + c * D_2)
            bend -= noise * (2.0 * (S_R * var_R + S_b * cov) + R * S_2)
            x[(DRIFT + _R) * lanes + lane] = drift + 0.5 * bend
            x[(DRIFT + _B) * lanes + lane] = -0.5 * eta_b * T_2


@inlined
def by_parameter(x, y, parameter, out, row, lanes):
    """Set the rows of out from `row` on to the derivatives of the rates by a parameter, by its number in `DERIVED`."""
    for lane in range(lanes):
        R, p = y[_R * lanes + lane], x[P * lanes + lane]
        half_rho, eta_w, eta_b = 0.5 * x[RHO * lanes + lane], x[ETA_W * lanes + lane], x[ETA_B * lanes + lane]
        v1, v2 = x[V1 * lanes + lane], x[(V1 + 1) * lanes + lane]
        noise = 0.5 * x[SECOND_ORDER * lanes + lane] * eta_w * eta_w
        c = half_rho * (1.0 - R * R)
        plus, minus = _both(x, _D1, lane, lanes)
        squares_plus, squares_minus = _both(x, _D2, lane, lanes)
        D, T, S = plus + minus, plus - minus, v1 * squares_plus + v2 * squares_minus
        dR, db = 0.0, 0.0
        if parameter == 4:  # eta_w
            dR = c * D - x[SECOND_ORDER * lanes + lane] * eta_w * R * S
        elif parameter == 5:  # eta_b
            db = -T
        else:
            if parameter == 0:  # p
                plus, minus = x[(SUMS + _D1) * lanes + lane], -x[(SUMS + SUM_ROWS + _D1) * lanes + lane]
                S = v1 * x[(SUMS + _D2) * lanes + lane] - v2 * x[(SUMS + SUM_ROWS + _D2) * lanes + lane]
            elif parameter == 1:  # rho
                dR = 0.5 * eta_w * (1.0 - R * R) * D
                plus, minus = _both(x, _D1 + 1, lane, lanes)
                squares_plus, squares_minus = _both(x, _D2 + 1, lane, lanes)
                plus, minus, S = 0.5 * R * plus, 0.5 * R * minus, 0.5 * R * (v1 * squares_plus + v2 * squares_minus)
            elif parameter == 2:  # v1
                S = squares_plus + 0.5 * v1 * p * x[(SUMS + _D2 + 2) * lanes + lane]
                plus, minus = 0.5 * p * x[(SUMS + _D1 + 2) * lanes + lane], 0.0
            elif parameter == 3:  # v2
                S = squares_minus + 0.5 * v2 * (1.0 - p) * x[(SUMS + SUM_ROWS + _D2 + 2) * lanes + lane]
                plus, minus = 0.0, 0.5 * (1.0 - p) * x[(SUMS + SUM_ROWS + _D1 + 2) * lanes + lane]
            elif parameter == 6:  # epsilon
                plus, minus = _both(x, _D1_EPSILON, lane, lanes)
                squares_plus, squares_minus = _both(x, _D2_EPSILON, lane, lanes)
                S = v1 * squares_plus + v2 * squares_minus
            elif parameter == 7:  # fraction
                plus, minus = _both(x, _D1_FRACTION, lane, lanes)
                squares_plus, squares_minus = _both(x, _D2_FRACTION, lane, lanes)
                S = v1 * squares_plus + v2 * squares_minus
            else:  # an initial value
                plus, minus, S = 0.0, 0.0, 0.0
            dR += eta_w * c * (plus + minus) - noise * R * S
            db = -eta_b * (plus - minus)
        out[(row + _R) * lanes + lane] = dR
        out[(row + _B) * lanes + lane] = db
