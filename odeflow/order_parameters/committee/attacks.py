r"""Attacks on the two-layer network at one point, in field space, for the kernels (section 5.1 of the theory).

Every gradient of :math:`\phi(x) = b + \sum_k c_k g(x_k)` lies in the span of the weights, so that an attack is K numbers d: the
example moves by :math:`\sum_l d_l w_l`, its fields become :math:`\tilde x = x + Q d`, and :math:`d^T Q d` is the squared length
of the move. Exact at any N.

The largest and the least output within the budget, and so the worst case of the loss, are exact for one or two units, and for
up to six of ReLU. Beyond that they are those of a climb from several starts: a lower bound of what the adversary can do.
"""

from __future__ import annotations

import math

from numba import njit

from odeflow.numerics.compilation import called, inlined
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD
from odeflow.order_parameters.committee.units import ERF, slope, unit

__all__ = ["MOST_PATTERNS", "attack", "attack_scratch", "is_exact", "output", "worst_output"]

MOST_PATTERNS = 6
"""Most units of ReLU whose 3^K faces are searched for the worst case."""

_CLIMB = 300  # most steps of a climb
_HALVINGS = 60


@inlined
def attack_scratch(K):
    """Return how many floats of scratch `attack` and `worst_output` need."""
    return K * K + 6 * K


def is_exact(kind: int, K: int) -> bool:
    """Return whether the worst case of K units of this kind is exact."""
    return K <= 2 or (kind != ERF and K <= MOST_PATTERNS)


@inlined
def output(kind, x, c, b):
    """Return phi(x), x of shape (K,)."""
    phi = b
    for k in range(c.size):
        phi += c[k] * unit(kind, x[k])
    return phi


@called
def _moved_output(kind, x, Q, c, b, d):
    """Return phi(x + Q d)."""
    phi = b
    for k in range(c.size):
        moved = x[k]
        for l in range(c.size):
            moved += Q[k, l] * d[l]
        phi += c[k] * unit(kind, moved)
    return phi


@called
def _square(Q, d):
    """Return d^T Q d, at least 0."""
    square = 0.0
    for k in range(d.size):
        for l in range(d.size):
            square += d[k] * Q[k, l] * d[l]
    return max(square, 0.0)


@called
def _gradient(kind, x, Q, c, u):
    """Fill u with the direction of steepest ascent of phi at x, of length 1; return False, and u = 0, if there is none."""
    K = c.size
    if kind == ERF:
        # far out all exponentials underflow, but their ratios do not
        least = math.inf
        for k in range(K):
            if c[k] != 0.0:
                least = min(least, x[k] * x[k])
        for k in range(K):
            u[k] = c[k] * math.exp(0.5 * (least - x[k] * x[k])) if c[k] != 0.0 else 0.0
    else:
        for k in range(K):
            u[k] = c[k] * slope(kind, x[k])
    largest = 0.0
    for k in range(K):
        largest = max(largest, abs(u[k]))
    if largest > 0.0:
        for k in range(K):
            u[k] /= largest
        square = _square(Q, u)
        if square > 0.0:
            scale = 1.0 / math.sqrt(square)
            for k in range(K):
                u[k] *= scale
            return True
    for k in range(K):
        u[k] = 0.0
    return False


@called
def _ascend(kind, x, Q, c, b, tau, epsilon, how, work, d):
    """Fill d with the result of PGD on the loss, from d = 0."""
    K = c.size
    moved, u = work[:K], work[K : 2 * K]
    for k in range(K):
        d[k] = 0.0
    for _ in range(how.steps):
        for k in range(K):
            moved[k] = x[k]
            for l in range(K):
                moved[k] += Q[k, l] * d[l]
        e = output(kind, moved, c, b) - tau
        if e == 0.0 or not _gradient(kind, moved, Q, c, u):
            return  # the next step would be the same
        step = how.step * epsilon if e > 0.0 else -how.step * epsilon
        for k in range(K):
            d[k] += step * u[k]
        square = _square(Q, d)
        if square > epsilon * epsilon:
            scale = epsilon / math.sqrt(square)
            for k in range(K):
                d[k] *= scale


@njit(nogil=True, error_model="numpy")
def attack(kind, x, Q, c, b, tau, epsilon, how, work, d):
    """Fill d with the attack on the example with the fields x = lambda - theta and the label tau.

    Parameters
    ----------
    kind
        ERF or RELU, of `odeflow.order_parameters.committee.units`.
    x, c, d
        Shape (K,).
    Q
        Overlaps of the weights, shape (K, K); may be singular.
    b, tau, epsilon
        Output bias, label (of any value; MARGIN takes its sign), and largest length of the move, >= 0.
    how
        An `odeflow.order_parameters.committee.quadrature.sums.Attack`.
    work
        Scratch of `attack_scratch(K)` floats.
    """
    K = c.size
    for k in range(K):
        d[k] = 0.0
    if epsilon == 0.0:
        return
    if how.kind == FGSM or how.kind == MARGIN:
        e = output(kind, x, c, b) - tau if how.kind == FGSM else -tau
        if e != 0.0 and _gradient(kind, x, Q, c, d):
            size = epsilon if e > 0.0 else -epsilon
            for k in range(K):
                d[k] *= size
    elif how.kind == PGD:
        _ascend(kind, x, Q, c, b, tau, epsilon, how, work, d)
    else:
        trial = work[attack_scratch(K) - K :]
        largest = -1.0
        for side in range(2):
            sign = 1.0 - 2.0 * side
            error = worst_output(kind, x, Q, c, b, sign, epsilon, work, trial) - sign * tau
            if error > largest:
                largest = error
                for k in range(K):  # assigned as one, it would have numba compile its strings, for a message
                    d[k] = trial[k]


@njit(nogil=True, error_model="numpy")
def worst_output(kind, x, Q, c, b, sign, epsilon, work, d):
    """Return the largest sign phi(x + Q d) over d^T Q d <= epsilon^2, and fill d with where it is.

    The arguments are those of `attack`, with the sign +1 or -1 instead of the label. The least tau phi is minus that of
    sign = -tau. Exact where `is_exact` says so, otherwise a lower bound.
    """
    K = c.size
    for k in range(K):
        d[k] = 0.0
    if epsilon == 0.0:
        return sign * output(kind, x, c, b)
    if kind != ERF and K <= MOST_PATTERNS:
        return _over_faces(kind, x, Q, c, b, sign, epsilon, work, d)
    if K <= 2:
        return _on_arc(kind, x, Q, c, b, sign, epsilon, d)
    return _climbed(kind, x, Q, c, b, sign, epsilon, work, d)


@called
def _on_arc(kind, x, Q, c, b, sign, epsilon, d):
    r"""`worst_output` of one or two units that increase.

    Unit k alone would have the example moved along :math:`\pm w_k`. Between these two directions, at an angle
    :math:`\gamma < \pi`, lies the best: any other move, on the circle or in it, can be bettered for both units. On the arc,
    at the angle t from the first, the derivative is

    .. math:: |c_2| A_2 \sin(\gamma - t)\, g'(x_2 + A_2\cos(\gamma - t)) - |c_1| A_1 \sin t\, g'(x_1 + A_1\cos t),

    with :math:`A_k = \varepsilon |w_k|` and x turned so that more is better. Where it falls through 0 is a maximum.
    """
    K = c.size
    last = K - 1
    A, B = epsilon * math.sqrt(max(Q[0, 0], 0.0)), epsilon * math.sqrt(max(Q[last, last], 0.0))
    one = sign if c[0] > 0.0 else -sign
    two = sign if c[last] > 0.0 else -sign
    if K == 1 or c[1] == 0.0 or B == 0.0:
        if c[0] != 0.0 and A > 0.0:
            d[0] = one * epsilon * epsilon / A
        return sign * _moved_output(kind, x, Q, c, b, d)
    if c[0] == 0.0 or A == 0.0:
        d[1] = two * epsilon * epsilon / B
        return sign * _moved_output(kind, x, Q, c, b, d)
    x_1, x_2 = one * x[0], two * x[1]
    a, b_2 = abs(c[0]) * A, abs(c[1]) * B
    gamma = math.atan2(
        math.sqrt(max(Q[0, 0] * Q[1, 1] - Q[0, 1] * Q[1, 0], 0.0)), one * two * 0.5 * (Q[0, 1] + Q[1, 0])
    )
    cells = 8 + int(min(4.0 * gamma * (A + B), 400.0))
    best, where = -math.inf, 0.0
    begin, at_begin = 0.0, math.inf
    for cell in range(1, cells + 1):
        end = gamma * cell / cells
        at_end = -math.inf
        if cell < cells:
            at_end = _slope_on_arc(end, gamma, x_1, x_2, A, B, a, b_2)
        if at_begin >= 0.0 > at_end:
            t = _fall_on_arc(begin, end, at_begin, at_end, gamma, x_1, x_2, A, B, a, b_2)
            value = abs(c[0]) * one * unit(kind, one * (x_1 + A * math.cos(t)))
            value += abs(c[1]) * two * unit(kind, two * (x_2 + B * math.cos(gamma - t)))
            if value > best:
                best, where = value, t
        begin, at_begin = end, at_end
    sin = math.sin(gamma)
    if sin > 1e-9:
        d[0] = one * epsilon * epsilon * math.sin(gamma - where) / (sin * A)
        d[1] = two * epsilon * epsilon * math.sin(where) / (sin * B)
    else:  # parallel weights
        d[0] = one * epsilon * epsilon * math.cos(where) / A
    return sign * b + best


@called
def _fall_on_arc(low, high, f_low, f_high, gamma, x_1, x_2, A, B, a, b):
    """Return where the derivative on the arc falls through 0 between two points: halving until it is finite at both, Illinois."""
    side = 0
    t = low
    for _ in range(_HALVINGS):
        last = t
        t = 0.5 * (low + high)
        if f_low < math.inf and f_high > -math.inf:
            t = (low * f_high - high * f_low) / (f_high - f_low)
        f = _slope_on_arc(t, gamma, x_1, x_2, A, B, a, b)
        if f < 0.0:
            high, f_high = t, f
            f_low *= 0.5 if side == 1 else 1.0
            side = 1
        else:
            low, f_low = t, f
            f_high *= 0.5 if side == -1 else 1.0
            side = -1
        if f == 0.0 or abs(t - last) < 1e-15 * gamma or high - low < 1e-15 * gamma:
            break
    return t


@called
def _slope_on_arc(t, gamma, x_1, x_2, A, B, a, b):
    """Return the derivative on the arc, up to a positive factor, with which it does not underflow."""
    X, Y = x_1 + A * math.cos(t), x_2 + B * math.cos(gamma - t)
    one, two = a * math.sin(t), b * math.sin(gamma - t)
    exponent = 0.5 * (X * X - Y * Y)
    if exponent > 0.0:
        return two - one * math.exp(-exponent)
    return two * math.exp(exponent) - one


@called
def _over_faces(kind, x, Q, c, b, sign, epsilon, work, d):
    r"""`worst_output` of K units of ReLU.

    The output is linear where no field changes its sign. Its extremes lie, for some set Z of fields that are 0 and some set
    of fields that are active, where the linear function of the active ones is largest on the ball within x_Z = 0:

    .. math:: d = d_Z + \sqrt{\varepsilon^2 - |d_Z|^2}\, u_Z / |u_Z|,

    with the shortest move :math:`d_Z` to x_Z = 0 and u_Z the part of :math:`\pm c` on the active units that leaves x_Z as it
    is. All these are moves that the adversary can make, so that the best of them is the best.
    """
    K = c.size
    L = work[: K * K]
    base, row = work[K * K : K * K + K], work[K * K + K : K * K + 2 * K]
    trial, active = work[K * K + 2 * K : K * K + 3 * K], work[K * K + 3 * K : K * K + 4 * K]
    best = sign * output(kind, x, c, b)
    for zeros in range(1 << K):
        # the Cholesky factor of Q_ZZ, and the shortest move there
        regular = True
        for k in range(K):
            if zeros >> k & 1 and regular:
                for l in range(k + 1):
                    if zeros >> l & 1:
                        rest = Q[k, l]
                        for m in range(l):
                            if zeros >> m & 1:
                                rest -= L[k * K + m] * L[l * K + m]
                        if l < k:
                            L[k * K + l] = rest / L[l * K + l]
                        elif rest > 1e-13 * Q[k, k]:
                            L[k * K + k] = math.sqrt(rest)
                        else:
                            regular = False  # these planes meet where fewer of them do
        if not regular:
            continue
        for k in range(K):
            row[k] = -x[k]
        _solve(L, zeros, row, base)
        left = epsilon * epsilon
        for k in range(K):
            left += base[k] * x[k]
        if left < 0.0:
            continue  # too far
        for actives in range(1 << K):
            if actives & zeros:
                continue
            for k in range(K):
                active[k] = sign * c[k] if actives >> k & 1 else 0.0
            for k in range(K):
                row[k] = 0.0
                for l in range(K):
                    row[k] -= Q[k, l] * active[l]
            _solve(L, zeros, row, trial)
            square = 0.0  # u_Z^T Q u_Z = active^T Q u_Z
            for k in range(K):
                trial[k] += active[k]
                square -= row[k] * trial[k]
            scale = math.sqrt(left / square) if square > 0.0 else 0.0
            for k in range(K):
                trial[k] = base[k] + scale * trial[k]
            value = sign * _moved_output(kind, x, Q, c, b, trial)
            if value > best:
                best = value
                for k in range(K):
                    d[k] = trial[k]
    return best


@called
def _solve(L, members, right, found):
    """Fill `found` with the solution of L L^T found = right on the members of a set, and 0 elsewhere."""
    K = found.size
    for k in range(K):
        found[k] = 0.0
        if members >> k & 1:
            rest = right[k]
            for m in range(k):
                if members >> m & 1:
                    rest -= L[k * K + m] * found[m]
            found[k] = rest / L[k * K + k]
    for back in range(K):
        k = K - 1 - back
        if members >> k & 1:
            rest = found[k]
            for m in range(k + 1, K):
                if members >> m & 1:
                    rest -= L[m * K + k] * found[m]
            found[k] = rest / L[k * K + k]


@called
def _climbed(kind, x, Q, c, b, sign, epsilon, work, d):
    """`worst_output` by climbs on the sphere: from the gradient's direction, and from that of some of the units.

    Up to MOST_PATTERNS units, some are every set of them; beyond that, each alone, and all.
    """
    K = c.size
    starts = 1 << K if K <= MOST_PATTERNS else K + 2
    moved, u, here, trial = work[:K], work[K : 2 * K], work[2 * K : 3 * K], work[3 * K : 4 * K]
    best = sign * output(kind, x, c, b)
    for start in range(starts):
        for k in range(K):
            if K <= MOST_PATTERNS:
                member = start >> k & 1 == 1
            else:
                member = start == k + 1 or start == K + 1
            here[k] = sign * c[k] if member else 0.0
        if start == 0 and _gradient(kind, x, Q, c, u):
            for k in range(K):
                here[k] = sign * u[k]
        square = _square(Q, here)
        scale = epsilon / math.sqrt(square) if square > 0.0 else 0.0
        for k in range(K):
            here[k] *= scale
        value = sign * _moved_output(kind, x, Q, c, b, here)
        step = 2.0 * epsilon
        for _ in range(_CLIMB):
            for k in range(K):
                moved[k] = x[k]
                for l in range(K):
                    moved[k] += Q[k, l] * here[l]
            if not _gradient(kind, moved, Q, c, u):
                break
            along = 0.0
            for k in range(K):
                along += sign * u[k] * (moved[k] - x[k])
            if along > epsilon * (1.0 - 1e-13):
                break  # the gradient points outwards: a maximum on the sphere
            for k in range(K):
                trial[k] = here[k] + step * sign * u[k]
            square = _square(Q, trial)
            scale = epsilon / math.sqrt(square) if square > 0.0 else 0.0
            for k in range(K):
                trial[k] *= scale
            moved_value = sign * _moved_output(kind, x, Q, c, b, trial)
            if moved_value > value:
                value = moved_value
                step *= 1.5
                for k in range(K):
                    here[k] = trial[k]
            else:
                step *= 0.3
                if step < 1e-7 * epsilon:
                    break
        if value > best:
            best = value
            for k in range(K):
                d[k] = here[k]
    return best
