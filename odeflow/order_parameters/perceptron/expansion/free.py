r"""Free weights: rates, derivatives, diffusion and drift of (R, b, Q), in the lanes of a kernel.

With :math:`a = R/Q`, :math:`c = (\rho/2)(1 - R^2/Q)`, and for each class the averages :math:`D_1`, :math:`D_2` and :math:`E =
\langle f\,(u + \tau b)\rangle = \mu D_1 + v D_1'`, where :math:`\mu = \rho R/2 - \varepsilon\sqrt Q` and :math:`v = v_\tau Q`,

.. math::
    dR/d\alpha = \eta_w \sum_\tau p_\tau (a E + c D_1), \qquad
    dQ/d\alpha = \sum_\tau p_\tau (2\eta_w E + \eta_w^2 v_\tau D_2), \qquad
    db/d\alpha = -\eta_b \sum_\tau p_\tau \tau D_1 ,

and everything else follows by derivatives of D1 and D2. Equations (6.8) and (6.9) of the theory page.
"""

from __future__ import annotations

import math

from odeflow.numerics.compilation import inlined
from odeflow.order_parameters.perceptron.expansion.moments import (
    D1,
    D2,
    D3,
    D4,
    MEAN,
    VARIANCE,
    erf_constants,
)
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
    SUM_ROWS,
    SUMS,
    V1,
    P,
    some_clean,
)
from odeflow.order_parameters.perceptron.variant_averages import CLOSED_ERF

__all__ = ["by_parameter", "rates", "sums"]

_R, _B, _Q = range(3)  # rows of the state

# rows of a class's sums: averages of D1, E and D2, each with its derivatives by R, b, Q, rho, epsilon, v_tau and the fraction
# and with the contraction of its second derivatives with the covariance; and of f^2 u'^2, f^2 u', f^3, f^3 u', f^4, u' = u + tau b
_OF = 9
_D, _E, _S = 0, _OF, 2 * _OF
_BY_R, _BY_B, _BY_Q, _BY_RHO, _BY_EPSILON, _BY_V, _BY_FRACTION, _BENT = range(1, _OF)
_F2UU, _F2U, _F3, _F3U, _F4 = range(3 * _OF, 3 * _OF + 5)


@inlined
def sums(averages, how, nodes, weights, by_fraction, x, y, covariance, fluctuations, lanes):
    """Set the sums of both classes: over the nodes of the law, and last the examples that are not attacked.

    `averages` is `moments`, or one of its cases; `by_fraction` says whether the derivatives by the fraction are wanted.
    """
    for label in range(2):
        tau = 1.0 - 2.0 * label
        row = SUMS + label * SUM_ROWS
        for k in range(SUM_ROWS):
            for lane in range(lanes):
                x[(row + k) * lanes + lane] = 0.0
        for lane in range(lanes):
            x[VARIANCE * lanes + lane] = x[(V1 + label) * lanes + lane] * max(y[_Q * lanes + lane], 1e-300)
        if how.family == CLOSED_ERF:
            erf_constants(x, VARIANCE, ERF, 0, lanes, lanes)
        for node in range(nodes.size + 1):
            clean = node == nodes.size
            size = 0.0 if clean else nodes[node]
            if clean and not (by_fraction or some_clean(x, lanes)):
                continue
            for lane in range(lanes):
                length = math.sqrt(max(y[_Q * lanes + lane], 1e-300))
                margin = 0.5 * x[RHO * lanes + lane] * y[_R * lanes + lane] - size * x[EPSILON * lanes + lane] * length
                x[MEAN * lanes + lane] = margin - tau * y[_B * lanes + lane]
            averages(how, x, ERF, 5, 4, fluctuations, lanes)
            for lane in range(lanes):
                change = -1.0 if clean else weights[node]
                share = 1.0 - x[FRACTION * lanes + lane] if clean else x[FRACTION * lanes + lane] * weights[node]
                Q, v = max(y[_Q * lanes + lane], 1e-300), x[(V1 + label) * lanes + lane]
                length, half_rho, epsilon = math.sqrt(Q), 0.5 * x[RHO * lanes + lane], size * x[EPSILON * lanes + lane]
                V, mu = v * Q, half_rho * y[_R * lanes + lane] - epsilon * length
                m_Q = -0.5 * epsilon / length
                D, D_1, D_2, D_3 = (
                    x[D1 * lanes + lane],
                    x[(D1 + 1) * lanes + lane],
                    x[(D1 + 2) * lanes + lane],
                    x[(D1 + 3) * lanes + lane],
                )
                S, S_1, S_2 = x[D2 * lanes + lane], x[(D2 + 1) * lanes + lane], x[(D2 + 2) * lanes + lane]
                E = mu * D + V * D_1
                along = D + mu * D_1 + V * D_2  # dE by mu, and by m with it
                D_Q = m_Q * D_1 + 0.5 * v * D_2
                E_v = 0.5 * mu * D_2 + D_1 + 0.5 * V * D_3  # by the variance
                x[(row + _D) * lanes + lane] += share * D
                x[(row + _D + _BY_R) * lanes + lane] += share * half_rho * D_1
                x[(row + _D + _BY_B) * lanes + lane] -= share * tau * D_1
                x[(row + _D + _BY_Q) * lanes + lane] += share * D_Q
                x[(row + _D + _BY_RHO) * lanes + lane] += share * 0.5 * y[_R * lanes + lane] * D_1
                x[(row + _D + _BY_EPSILON) * lanes + lane] -= share * size * length * D_1
                x[(row + _D + _BY_V) * lanes + lane] += share * 0.5 * Q * D_2
                x[(row + _D + _BY_FRACTION) * lanes + lane] += change * D
                x[(row + _E) * lanes + lane] += share * E
                x[(row + _E + _BY_R) * lanes + lane] += share * half_rho * along
                x[(row + _E + _BY_B) * lanes + lane] -= share * tau * (along - D)
                x[(row + _E + _BY_Q) * lanes + lane] += share * (m_Q * along + v * E_v)
                x[(row + _E + _BY_RHO) * lanes + lane] += share * 0.5 * y[_R * lanes + lane] * along
                x[(row + _E + _BY_EPSILON) * lanes + lane] -= share * size * length * along
                x[(row + _E + _BY_V) * lanes + lane] += share * Q * E_v
                x[(row + _E + _BY_FRACTION) * lanes + lane] += change * E
                x[(row + _S) * lanes + lane] += share * S
                x[(row + _S + _BY_R) * lanes + lane] += share * half_rho * S_1
                x[(row + _S + _BY_B) * lanes + lane] -= share * tau * S_1
                x[(row + _S + _BY_Q) * lanes + lane] += share * (m_Q * S_1 + 0.5 * v * S_2)
                x[(row + _S + _BY_RHO) * lanes + lane] += share * 0.5 * y[_R * lanes + lane] * S_1
                x[(row + _S + _BY_EPSILON) * lanes + lane] -= share * size * length * S_1
                x[(row + _S + _BY_V) * lanes + lane] += share * 0.5 * Q * S_2
                x[(row + _S + _BY_FRACTION) * lanes + lane] += change * S
            if fluctuations:
                for lane in range(lanes):
                    share = 1.0 - x[FRACTION * lanes + lane] if clean else x[FRACTION * lanes + lane] * weights[node]
                    Q, v = max(y[_Q * lanes + lane], 1e-300), x[(V1 + label) * lanes + lane]
                    length, half_rho, epsilon = (
                        math.sqrt(Q),
                        0.5 * x[RHO * lanes + lane],
                        size * x[EPSILON * lanes + lane],
                    )
                    V, mu = v * Q, half_rho * y[_R * lanes + lane] - epsilon * length
                    m_Q, m_QQ = -0.5 * epsilon / length, 0.25 * epsilon / (length * Q)
                    D, D_1, D_2 = x[D1 * lanes + lane], x[(D1 + 1) * lanes + lane], x[(D1 + 2) * lanes + lane]
                    D_3, D_4, D_5 = x[(D1 + 3) * lanes + lane], x[(D1 + 4) * lanes + lane], x[(D1 + 5) * lanes + lane]
                    S, S_1, S_2 = x[D2 * lanes + lane], x[(D2 + 1) * lanes + lane], x[(D2 + 2) * lanes + lane]
                    S_3, S_4 = x[(D2 + 3) * lanes + lane], x[(D2 + 4) * lanes + lane]
                    T, T_1 = x[D3 * lanes + lane], x[(D3 + 1) * lanes + lane]
                    RR, Rb, RQ = (
                        y[covariance * lanes + lane],
                        y[(covariance + 1) * lanes + lane],
                        y[(covariance + 2) * lanes + lane],
                    )
                    bb, bQ, QQ = (
                        y[(covariance + 3) * lanes + lane],
                        y[(covariance + 4) * lanes + lane],
                        y[(covariance + 5) * lanes + lane],
                    )
                    # covariances of m with R, b, Q, with itself, with the variance; of mu with m and the variance
                    mR, mb, mQ = (
                        half_rho * RR - tau * Rb + m_Q * RQ,
                        half_rho * Rb - tau * bb + m_Q * bQ,
                        half_rho * RQ - tau * bQ + m_Q * QQ,
                    )
                    mm, mV, VV, bend = half_rho * mR - tau * mb + m_Q * mQ, v * mQ, v * v * QQ, m_QQ * QQ
                    mu_m, mu_V = half_rho * mR + m_Q * mQ, v * (half_rho * RQ + m_Q * QQ)
                    D_bent = D_2 * mm + D_3 * mV + 0.25 * D_4 * VV + D_1 * bend
                    K_bent = D_3 * mm + D_4 * mV + 0.25 * D_5 * VV + D_2 * bend
                    S_bent = S_2 * mm + S_3 * mV + 0.25 * S_4 * VV + S_1 * bend
                    E_bent = bend * D + 2.0 * (D_1 * mu_m + 0.5 * D_2 * mu_V) + mu * D_bent
                    E_bent += 2.0 * (D_2 * mV + 0.5 * D_3 * VV) + V * K_bent
                    x[(row + _D + _BENT) * lanes + lane] += share * D_bent
                    x[(row + _E + _BENT) * lanes + lane] += share * E_bent
                    x[(row + _S + _BENT) * lanes + lane] += share * S_bent
                    x[(row + _F2UU) * lanes + lane] += share * (mu * mu * S + 2.0 * mu * V * S_1 + V * (S + V * S_2))
                    x[(row + _F2U) * lanes + lane] += share * (mu * S + V * S_1)
                    x[(row + _F3) * lanes + lane] += share * T
                    x[(row + _F3U) * lanes + lane] += share * (mu * T + V * T_1)
                    x[(row + _F4) * lanes + lane] += share * x[D4 * lanes + lane]


@inlined
def _three(x, k, lane, lanes):
    """Return of both classes together D1 and E, of D1 the difference, and D2 times v: sums, their derivatives or contractions."""
    p, other = x[P * lanes + lane], 1.0 - x[P * lanes + lane]
    plus, minus = SUMS + k, SUMS + SUM_ROWS + k
    D_plus, D_minus = p * x[(plus + _D) * lanes + lane], other * x[(minus + _D) * lanes + lane]
    E = p * x[(plus + _E) * lanes + lane] + other * x[(minus + _E) * lanes + lane]
    S = p * x[V1 * lanes + lane] * x[(plus + _S) * lanes + lane]
    S += other * x[(V1 + 1) * lanes + lane] * x[(minus + _S) * lanes + lane]
    return D_plus + D_minus, E, D_plus - D_minus, S


@inlined
def _both(x, k, lane, lanes):
    """Return a sum of the class +1 and that of -1, with their priors."""
    p = x[P * lanes + lane]
    return p * x[(SUMS + k) * lanes + lane], (1.0 - p) * x[(SUMS + SUM_ROWS + k) * lanes + lane]


@inlined
def rates(x, y, covariance, fluctuations, lanes):
    """Set rates and Jacobian, and if wanted diffusion and drift at the covariance that begins at a row of y; from the sums."""
    for lane in range(lanes):
        R, Q = y[_R * lanes + lane], max(y[_Q * lanes + lane], 1e-300)
        half_rho, eta_w, eta_b = 0.5 * x[RHO * lanes + lane], x[ETA_W * lanes + lane], x[ETA_B * lanes + lane]
        noise = x[SECOND_ORDER * lanes + lane] * eta_w * eta_w
        a, a_R, a_Q = R / Q, 1.0 / Q, -R / (Q * Q)
        c, c_R, c_Q = half_rho * (1.0 - R * R / Q), -2.0 * half_rho * R / Q, half_rho * R * R / (Q * Q)
        D, E, T, S = _three(x, 0, lane, lanes)
        D_R, E_R, T_R, S_R = _three(x, _BY_R, lane, lanes)
        D_b, E_b, T_b, S_b = _three(x, _BY_B, lane, lanes)
        D_Q, E_Q, T_Q, S_Q = _three(x, _BY_Q, lane, lanes)
        dR, db, dQ = eta_w * (a * E + c * D), -eta_b * T, 2.0 * eta_w * E + noise * S
        x[(RATE + _R) * lanes + lane] = dR
        x[(RATE + _B) * lanes + lane] = db
        x[(RATE + _Q) * lanes + lane] = dQ
        x[JACOBIAN * lanes + lane] = eta_w * (a_R * E + a * E_R + c_R * D + c * D_R)
        x[(JACOBIAN + 1) * lanes + lane] = eta_w * (a * E_b + c * D_b)
        x[(JACOBIAN + 2) * lanes + lane] = eta_w * (a_Q * E + a * E_Q + c_Q * D + c * D_Q)
        x[(JACOBIAN + 3) * lanes + lane] = -eta_b * T_R
        x[(JACOBIAN + 4) * lanes + lane] = -eta_b * T_b
        x[(JACOBIAN + 5) * lanes + lane] = -eta_b * T_Q
        x[(JACOBIAN + 6) * lanes + lane] = 2.0 * eta_w * E_R + noise * S_R
        x[(JACOBIAN + 7) * lanes + lane] = 2.0 * eta_w * E_b + noise * S_b
        x[(JACOBIAN + 8) * lanes + lane] = 2.0 * eta_w * E_Q + noise * S_Q
        if fluctuations:
            v1, v2 = x[V1 * lanes + lane], x[(V1 + 1) * lanes + lane]
            plus, minus = _both(x, _S, lane, lanes)
            plus_1, minus_1 = _both(x, _F2U, lane, lanes)
            plus_2, minus_2 = _both(x, _F2UU, lane, lanes)
            plus_3, minus_3 = _both(x, _F3, lane, lanes)
            plus_4, minus_4 = _both(x, _F3U, lane, lanes)
            plus_5, minus_5 = _both(x, _F4, lane, lanes)
            across = 1.0 - R * R / Q
            squares, once, twice = plus + minus, plus_1 + minus_1, plus_2 + minus_2
            cubes, cubes_once = v1 * plus_3 + v2 * minus_3, v1 * plus_4 + v2 * minus_4
            # diffusion: the increments are eta_w f (a u' + c + sqrt(v (1 - R^2/Q)) z), -eta_b tau f and 2 eta_w f u' + eta_w^2 v f^2
            RR = eta_w * eta_w * (a * a * twice + 2.0 * a * c * once + c * c * squares + across * S)
            Rb = eta_w * (a * (plus_1 - minus_1) + c * (plus - minus))
            RQ = 2.0 * eta_w * eta_w * (a * twice + c * once) + noise * eta_w * (a * cubes_once + c * cubes)
            bQ = 2.0 * eta_w * (plus_1 - minus_1) + noise * (v1 * plus_3 - v2 * minus_3)
            QQ = 4.0 * eta_w * (eta_w * twice + noise * cubes_once) + noise * noise * (
                v1 * v1 * plus_5 + v2 * v2 * minus_5
            )
            x[DIFFUSION * lanes + lane] = RR - dR * dR
            x[(DIFFUSION + 1) * lanes + lane] = -eta_b * Rb - dR * db
            x[(DIFFUSION + 2) * lanes + lane] = RQ - dR * dQ
            x[(DIFFUSION + 3) * lanes + lane] = eta_b * eta_b * squares - db * db
            x[(DIFFUSION + 4) * lanes + lane] = -eta_b * bQ - db * dQ
            x[(DIFFUSION + 5) * lanes + lane] = QQ - dQ * dQ
            # half the curvature of the rates, and the step's own second order, which only the length has
            RR, Rb, RQ = (
                y[covariance * lanes + lane],
                y[(covariance + 1) * lanes + lane],
                y[(covariance + 2) * lanes + lane],
            )
            bQ, QQ = y[(covariance + 4) * lanes + lane], y[(covariance + 5) * lanes + lane]
            D_2, E_2, T_2, S_2 = _three(x, _BENT, lane, lanes)
            a_bent = -2.0 * RQ / (Q * Q) + 2.0 * R * QQ / (Q * Q * Q)
            c_bent = 2.0 * half_rho / Q * (-RR + 2.0 * R * RQ / Q - R * R * QQ / (Q * Q))
            bend = a_bent * E + c_bent * D + a * E_2 + c * D_2
            bend += 2.0 * (E_R * (a_R * RR + a_Q * RQ) + E_b * (a_R * Rb + a_Q * bQ) + E_Q * (a_R * RQ + a_Q * QQ))
            bend += 2.0 * (D_R * (c_R * RR + c_Q * RQ) + D_b * (c_R * Rb + c_Q * bQ) + D_Q * (c_R * RQ + c_Q * QQ))
            own = eta_w * eta_w * (twice / Q + half_rho * c * squares - S)
            x[(DRIFT + _R) * lanes + lane] = 0.5 * eta_w * bend
            x[(DRIFT + _B) * lanes + lane] = -0.5 * eta_b * T_2
            x[(DRIFT + _Q) * lanes + lane] = own + 0.5 * (2.0 * eta_w * E_2 + noise * S_2)


@inlined
def by_parameter(x, y, parameter, out, row, lanes):
    """Set the rows of out from `row` on to the derivatives of the rates by a parameter, by its number in `DERIVED`."""
    for lane in range(lanes):
        R, Q, p = y[_R * lanes + lane], max(y[_Q * lanes + lane], 1e-300), x[P * lanes + lane]
        half_rho, eta_w, eta_b = 0.5 * x[RHO * lanes + lane], x[ETA_W * lanes + lane], x[ETA_B * lanes + lane]
        noise = x[SECOND_ORDER * lanes + lane] * eta_w * eta_w
        a, across = R / Q, 1.0 - R * R / Q
        D, E, T, S = _three(x, 0, lane, lanes)
        dR, db, dQ = 0.0, 0.0, 0.0
        if parameter == 4:  # eta_w
            dR = a * E + half_rho * across * D
            dQ = 2.0 * E + 2.0 * x[SECOND_ORDER * lanes + lane] * eta_w * S
        elif parameter == 5:  # eta_b
            db = -T
        else:
            if parameter == 0:  # p
                plus, minus = x[(SUMS + _D) * lanes + lane], x[(SUMS + SUM_ROWS + _D) * lanes + lane]
                E = x[(SUMS + _E) * lanes + lane] - x[(SUMS + SUM_ROWS + _E) * lanes + lane]
                S = x[V1 * lanes + lane] * x[(SUMS + _S) * lanes + lane]
                S -= x[(V1 + 1) * lanes + lane] * x[(SUMS + SUM_ROWS + _S) * lanes + lane]
                D, T = plus - minus, plus + minus
            elif parameter == 1:  # rho
                dR = 0.5 * eta_w * across * D
                D, E, T, S = _three(x, _BY_RHO, lane, lanes)
            elif parameter == 2:  # v1
                D = p * x[(SUMS + _D + _BY_V) * lanes + lane]
                E, T = p * x[(SUMS + _E + _BY_V) * lanes + lane], D
                S = p * (x[(SUMS + _S) * lanes + lane] + x[V1 * lanes + lane] * x[(SUMS + _S + _BY_V) * lanes + lane])
            elif parameter == 3:  # v2
                other, minus = 1.0 - p, SUMS + SUM_ROWS
                D = other * x[(minus + _D + _BY_V) * lanes + lane]
                E, T = other * x[(minus + _E + _BY_V) * lanes + lane], -D
                S = x[(minus + _S) * lanes + lane] + x[(V1 + 1) * lanes + lane] * x[(minus + _S + _BY_V) * lanes + lane]
                S *= other
            elif parameter == 6:  # epsilon
                D, E, T, S = _three(x, _BY_EPSILON, lane, lanes)
            elif parameter == 7:  # fraction
                D, E, T, S = _three(x, _BY_FRACTION, lane, lanes)
            else:  # an initial value
                D, E, T, S = 0.0, 0.0, 0.0, 0.0
            dR += eta_w * (a * E + half_rho * across * D)
            db = -eta_b * T
            dQ = 2.0 * eta_w * E + noise * S
        out[(row + _R) * lanes + lane] = dR
        out[(row + _B) * lanes + lane] = db
        out[(row + _Q) * lanes + lane] = dQ
