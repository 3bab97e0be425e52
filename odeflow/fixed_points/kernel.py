# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls
r"""Compiled solver of all fixed points. The mathematics is in `odeflow.fixed_points.equilibria`, section by section the same.

The forces and the biases at which they balance are in `odeflow.fixed_points.balance`. Here are the arcs of the curve G = 0
between such biases, the search for the fixed points along them, and their stability.
"""

from __future__ import annotations

import math

import numpy as np

from odeflow.fixed_points.balance import balance, biases, class_constants, force, noise, peak, scalar
from odeflow.numerics.compilation import is_set, kept

__all__ = ["MOST", "fixed_points"]

MOST = 6
"""Columns for the fixed points of one parameter point."""

DELTA_MAX = 1.3776
"""Bound on |delta|: the largest (1 + erf x) (2/sqrt(pi)) exp(-x^2) is 1.37757."""

_PIECES, _MOST_PIECES = 24, 1000  # of an arc that may hold more than the zeros that its ends prove


@scalar
def _other_margin(x, side, prior, cx, cy, peak_y):
    """Return the margin y on one side of its peak with psi_y(y) = prior + psi_x(x), the graph of G = 0.

    Newton from outside on a concave function: monotone.
    """
    level = prior + force(x, cx)[0]
    top = force(peak_y, cy)[0]
    if level >= top:
        return peak_y
    y = peak_y + side * math.sqrt((top - level) / cy[0])
    for _ in range(60):
        psi, phi, _ = force(y, cy)
        new = y - (psi - level) / phi
        if not side * (y - new) > 1e-16 * (1 + abs(y)) or side * (new - peak_y) <= 0:
            break
        y = new
    return y


@scalar
def _overlap(c):
    """Return R > 0 with (1 - R^2)/R = c."""
    return 2 / (c + math.sqrt(c * c + 4))


@scalar
def _excess(x, curve):
    """Return h(x) = epsilon(x) - epsilon on the graph y(x) of G = 0, and dh/dx."""
    side, prior, cx, cy, peak_y, half_rho, kappa, epsilon = curve
    y = _other_margin(x, side, prior, cx, cy, peak_y)
    _, phi_x, _ = force(x, cx)
    _, phi_y, _ = force(y, cy)
    r_x, chi_x = noise(x, cx)
    r_y, chi_y = noise(y, cy)
    c = kappa * (r_x + r_y)
    R = _overlap(c)
    dy = phi_x / phi_y if y != peak_y else 0.0
    dc = kappa * (r_x * (chi_x - phi_x) + r_y * (chi_y - phi_y) * dy)
    dR = -R / math.sqrt(c * c + 4) * dc
    return half_rho * R - epsilon - 0.5 * (x + y), half_rho * dR - 0.5 * (1 + dy)


@scalar
def _arc_zero(low, high, h_low, curve):
    """Return the zero of h in [low, high], at whose ends h has opposite signs: Newton, kept in the bracket."""
    x = 0.5 * (low + high)
    for _ in range(200):
        h, dh = _excess(x, curve)
        if (h < 0) == (h_low < 0):
            low = x
        else:
            high = x
        new = x - h / dh
        if not low < new < high:
            new = 0.5 * (low + high)
        if abs(new - x) <= 1e-9 * (1 + abs(x)):
            return new
        x = new
    return x


@scalar
def _arc_extremum(low, high, sign, curve):
    """Return where sign * h is largest in [low, high], by golden sections, and h there; or any point where it is > 0."""
    golden = 0.3819660112501051
    x1, x2 = low + golden * (high - low), high - golden * (high - low)
    h1, h2 = sign * _excess(x1, curve)[0], sign * _excess(x2, curve)[0]
    while h1 <= 0 and h2 <= 0 and high - low > 1e-10 * (1 + abs(low)):
        if h1 >= h2:
            high, x2, h2 = x2, x1, h1
            x1 = low + golden * (high - low)
            h1 = sign * _excess(x1, curve)[0]
        else:
            low, x1, h1 = x1, x2, h2
            x2 = high - golden * (high - low)
            h2 = sign * _excess(x2, curve)[0]
    return (x1, sign * h1) if h1 >= h2 else (x2, sign * h2)


@scalar
def _arc(low, high, h_low, h_high, curve, found):
    """Put the zeros of h on an arc into `found` and return how many. Of h at the ends, only the sign is used."""
    length = (high - low) * math.sqrt(curve[2][0])  # in units of sqrt(1 + 2v)
    if h_low != h_high and length < 3:
        slope_low, slope_high = _excess(low, curve)[1], _excess(high, curve)[1]
        if 0.5 < slope_low / slope_high < 2:
            x = _arc_zero(low, high, h_low, curve)
            if 0.5 < _excess(x, curve)[1] / slope_low < 2:
                found[0] = x
                return 1
    count = 0
    x0, h0 = low, h_low
    x1, h1 = low, h_low
    pieces = int(min(_PIECES + 4 * length, _MOST_PIECES))
    for i in range(1, pieces + 1):
        x2 = low + (high - low) * i / pieces
        h2 = _excess(x2, curve)[0] if i < pieces else h_high
        if h1 * h2 < 0:
            if count < MOST:
                found[count] = _arc_zero(x1, x2, h1, curve)
            count += 1
        if i >= 2 and h0 * h1 > 0 and h1 * h2 > 0 and abs(h1) <= min(abs(h0), abs(h2)):
            # h comes near zero and turns back: two zeros more if its extremum is beyond
            top, h_top = _arc_extremum(x0, x2, -math.copysign(1.0, h1), curve)
            if h_top * h1 < 0:
                if count + 1 < MOST:
                    found[count] = _arc_zero(x0, top, h0, curve)
                    found[count + 1] = _arc_zero(top, x2, h_top, curve)
                count += 2
        x0, h0, x1, h1 = x1, h1, x2, h2
    return count


@scalar
def _polish(M, b, prior, c1, c2, half_rho, kappa, epsilon):
    """Return R and b after Newton steps for M and b on L = 0 and rho R/2 - epsilon - M = 0 together."""
    last = 1e-3
    for _ in range(8):
        L, L_b, _, L_M = balance(M, b, prior, c1, c2)
        r1, chi1 = noise(M - b, c1)
        r2, chi2 = noise(M + b, c2)
        slope1 = r1 * (chi1 - force(M - b, c1)[1])
        slope2 = r2 * (chi2 - force(M + b, c2)[1])
        c = kappa * (r1 + r2)
        R = _overlap(c)
        K = half_rho * R - epsilon - M
        K_Q = -half_rho * kappa * R / math.sqrt(c * c + 4)
        K_M = K_Q * (slope1 + slope2) - 1
        K_b = K_Q * (slope2 - slope1)
        det = L_M * K_b - L_b * K_M
        step_M = (L * K_b - K * L_b) / det
        step_b = (K * L_M - L * K_M) / det
        size = abs(step_M) + abs(step_b)
        if not size < last:
            break
        M -= step_M
        b -= step_b
        last = size
        if size < 1e-9:  # the next step would be its square
            break
    # (M + epsilon) / (rho / 2) would lose its digits where epsilon is large
    return _overlap(kappa * (noise(M - b, c1)[0] + noise(M + b, c2)[0])), b


@scalar
def _excess_at_zero(M, c, half_rho, kappa, epsilon):
    """Return rho R/2 - epsilon - M at b = 0 for two equal classes."""
    return half_rho * _overlap(2 * kappa * noise(M, c)[0]) - epsilon - M


@scalar
def _overlap_at_zero(low, high, c, half_rho, kappa, epsilon):
    """Return R of the fixed point with b = 0 of two equal classes: bisection for M, then secants."""
    h_low, h_high = (
        _excess_at_zero(low, c, half_rho, kappa, epsilon),
        _excess_at_zero(high, c, half_rho, kappa, epsilon),
    )
    M = low
    for step in range(200):
        M = 0.5 * (low + high) if step % 3 == 2 or h_low == h_high else low + (high - low) * h_low / (h_low - h_high)
        h = _excess_at_zero(M, c, half_rho, kappa, epsilon)
        if h > 0:
            low, h_low = M, h
        else:
            high, h_high = M, h
        if high - low <= 4e-16 * (1 + abs(M)) or h == 0:
            break
    return _overlap(2 * kappa * noise(M, c)[0])


@scalar
def _moving(p, half_rho, v1, v2, kappa, epsilon, state):
    """Put R, b of all fixed points at a finite learning rate into `state`; return how many. Asks for v2 >= v1."""
    prior = math.log(p) - math.log1p(-p)
    c1, c2 = class_constants(v1), class_constants(v2)
    highest = half_rho - epsilon
    lowest = half_rho * _overlap(DELTA_MAX * (v1 + v2) * kappa) - epsilon
    peak1, peak2 = peak(c1), peak(c2)
    over_s = prior + force(peak1, c1)[0] <= force(peak2, c2)[0]  # G = 0 is two graphs t(s), or else two graphs s(t)
    cx, cy, peak_y, shift = (c1, c2, peak2, prior) if over_s else (c2, c1, peak1, -prior)

    # where G = 0 crosses M = lowest and M = highest: x, side, sign of h
    ends = np.empty((7, 3))
    roots = np.empty(3)
    n = 0
    symmetric = (
        p == 0.5 and v1 == v2
    )  # then b = 0 is a solution of G = 0, and of the others those with b > 0 are enough
    for M, sign in ((lowest, 1.0), (highest, -1.0)):
        for i in range(biases(M, prior, c1, c2, roots)):
            if symmetric and roots[i] < 1e-7:
                continue
            s, t = M - roots[i], M + roots[i]
            ends[n, 0] = s if over_s else t
            ends[n, 1] = math.copysign(1.0, (t if over_s else s) - peak_y)
            ends[n, 2] = sign
            n += 1
    if symmetric and lowest < peak1 < highest:  # where the solutions with b > 0 begin
        ends[n, 0] = peak1
        ends[n, 1] = 1.0
        ends[n, 2] = math.copysign(1.0, _excess_at_zero(peak1, c1, half_rho, kappa, epsilon))
        n += 1

    found = np.empty(MOST)
    count, room = 0, (MOST - 1) // 2 if symmetric else MOST
    for side in (-1.0, 1.0):
        curve = (side, shift, cx, cy, peak_y, half_rho, kappa, epsilon)
        order = ends[:n][ends[:n, 1] == side]
        order = order[np.argsort(order[:, 0])]
        for i in range(len(order) - 1):
            low, high = order[i, 0], order[i + 1, 0]
            if order[i, 2] == order[i + 1, 2]:
                middle = 0.5 * (low + high)
                M = 0.5 * (middle + _other_margin(middle, side, shift, cx, cy, peak_y))
                if not lowest < M < highest:
                    continue
            for j in range(min(_arc(low, high, order[i, 2], order[i + 1, 2], curve, found), room - count)):
                y = _other_margin(found[j], side, shift, cx, cy, peak_y)
                s, t = (found[j], y) if over_s else (y, found[j])
                R, b = _polish(0.5 * (s + t), 0.5 * (t - s), prior, c1, c2, half_rho, kappa, epsilon)
                state[count, 0] = R
                state[count, 1] = b
                count += 1
    if symmetric:
        state[count : 2 * count, 0] = state[:count, 0]
        state[count : 2 * count, 1] = -state[:count, 1]
        state[2 * count, 0] = _overlap_at_zero(lowest, highest, c1, half_rho, kappa, epsilon)
        state[2 * count, 1] = 0.0
        count = 2 * count + 1
    return count


@scalar
def _resting(p, v1, v2, M, R, state, count):
    """Append R and the biases with L(M, b) = 0 to `state`; return how many it has. Asks for v2 >= v1."""
    roots = np.empty(3)
    n = biases(M, math.log(p) - math.log1p(-p), class_constants(v1), class_constants(v2), roots)
    for i in range(n):
        state[count + i, 0] = R
        state[count + i, 1] = roots[i]
    if p == 0.5 and v1 == v2:  # n is odd, and the one in the middle is zero by symmetry
        state[count + n // 2, 1] = 0.0
    return count + n


@scalar
def _linearised(R, b, p, half_rho, v1, v2, eta_w, eta_b, epsilon, second_order):
    """Return the Jacobian of (R, b) divided by F = p D1(s), and ln F, at a fixed point: where F = (1-p) D1(t)."""
    c1, c2 = class_constants(v1), class_constants(v2)
    M = half_rho * R - epsilon
    psi1, phi1, _ = force(M - b, c1)
    phi2 = force(M + b, c2)[1]
    J_RR = eta_w * half_rho * (half_rho * (1 - R * R) * (phi1 + phi2) - 4 * R)
    J_Rb = eta_w * half_rho * (1 - R * R) * (phi2 - phi1)
    if second_order:
        r1, chi1 = noise(M - b, c1)
        r2, chi2 = noise(M + b, c2)
        J_RR -= eta_w * eta_w / 2 * (r1 + r2 + R * half_rho * (r1 * chi1 + r2 * chi2))
        J_Rb -= eta_w * eta_w / 2 * R * (r2 * chi2 - r1 * chi1)
    return J_RR, J_Rb, eta_b * half_rho * (phi2 - phi1), eta_b * (phi1 + phi2), math.log(p) + psi1


@kept
def fixed_points(table, first, last, stop, state, eigenvalues, stable, count):
    """Fill the rows first <= point < last of what follows, from those of the table."""
    for point in range(first, last):
        if is_set(stop):
            return
        p, rho, v1, v2, eta_w, eta_b, epsilon, second_order = table[point]
        swapped = v2 < v1
        if swapped:  # the mirror image: classes exchanged, b -> -b
            p, v1, v2 = 1 - p, v2, v1
        half_rho = rho / 2
        here = state[point]
        if rho == 0:
            n = _resting(p, v1, v2, -epsilon, 0.0, here, 0)
        elif second_order == 0:
            n = _resting(p, v1, v2, half_rho - epsilon, 1.0, here, 0)
        else:
            n = _moving(p, half_rho, v1, v2, eta_w / (2 * rho), epsilon, here)
        here[:n] = here[:n][np.argsort(here[:n, 1])]
        if second_order == 0:
            n = _resting(p, v1, v2, -half_rho - epsilon, -1.0, here, n)
        if swapped:
            here[:n, 1] *= -1
            upper = here[:n, 0] > -1
            here[:n] = np.concatenate((here[:n][upper][::-1], here[:n][~upper][::-1]))
            p, v1, v2 = 1 - p, v2, v1
        count[point] = n
        for i in range(n):
            a, b, c, d, log_F = _linearised(
                here[i, 0], here[i, 1], p, half_rho, v1, v2, eta_w, eta_b, epsilon, second_order
            )
            half_trace, half_gap = 0.5 * (a + d), 0.5 * (a - d)
            discriminant = half_gap * half_gap + b * c
            determinant = a * d - b * c
            stable[point, i] = half_trace < 0 and determinant > 0
            F = math.exp(log_F)
            root = math.sqrt(abs(discriminant))
            if discriminant < 0:
                eigenvalues[point, i, 0] = F * complex(half_trace, root)
                eigenvalues[point, i, 1] = F * complex(half_trace, -root)
            else:  # the one of larger size first, so that nothing cancels in the other
                large = half_trace + math.copysign(root, half_trace)
                small = determinant / large if large != 0 else 0.0
                eigenvalues[point, i, 0] = F * max(large, small)
                eigenvalues[point, i, 1] = F * min(large, small)
