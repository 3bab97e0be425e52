"""Probability of an error along one line of the frame, X_k = start_k + sigma t with t ~ N(0, 1), each by its own means."""

from __future__ import annotations

import math

import numpy as np

from odeflow.numerics.compilation import called
from odeflow.order_parameters.committee.errors.frame import below
from odeflow.order_parameters.committee.errors.roots import output, root
from odeflow.order_parameters.committee.quadrature.sums import FGSM, MARGIN, PGD
from odeflow.order_parameters.committee.units import ERF, RELU

__all__ = ["attacked_line"]


@called
def attacked_line(frame, how, start, reach, work):
    """Return the probability that an example of the line is wrong after the attack `how`.

    ReLU units under FGSM or the margin's attack: exact. Else to the roots that are found, see `_scanned_line`.
    """
    overshoot = np.inf
    if how.kind != MARGIN:
        overshoot = root(frame.kind, frame.B - 1.0, frame.a, frame.sign, start, work[0, 0])
        if overshoot > -np.inf and overshoot < np.inf:
            work[0, 0] = overshoot
    if frame.kind == RELU and (how.kind == FGSM or how.kind == MARGIN):
        return _relu_line(frame, start, overshoot, work)
    return _scanned_line(frame, how, start, overshoot, reach, work)


@called
def _relu_line(frame, start, overshoot, work):
    """Between the kinks and the place where f = 1 the attack is one shift of X, and wrong is what lies below a root."""
    K = frame.a.size
    sigma = frame.G[K - 1, K - 1]
    edges, moved = work[1], work[2]
    for k in range(K):
        edges[k] = -start[k]
    edges[K] = overshoot
    edges[K + 1] = np.inf
    for k in range(1, K + 1):  # sorted
        edge, n = edges[k], k
        while n > 0 and edges[n - 1] > edge:
            edges[n] = edges[n - 1]
            n -= 1
        edges[n] = edge
    low, total = -np.inf, 0.0
    for part in range(K + 2):
        high = edges[part]
        if high <= low:
            continue
        pattern = 0
        for k in range(K):
            above = -start[k] <= low
            if above == (frame.sign[k] > 0.0):
                pattern |= 1 << k
        turn = 1.0 if high <= overshoot else -1.0
        for k in range(K):
            moved[k] = start[k] + (turn * frame.shifts[pattern, k] if frame.epsilon > 0.0 else 0.0)
        last = min(root(frame.kind, frame.B, frame.a, frame.sign, moved[:K], 0.0), high)
        if last > low:
            total += below(last, sigma) - below(low, sigma)
        low = high
    return total


@called
def _attacked(frame, how, start, w, turn, work):
    """Return f after the attack at one point of the line; `turn` is 1 where f < 1, else -1."""
    K = frame.a.size
    X, u, d, Su = work[3], work[4], work[5], work[1]
    steps, size = 1, frame.epsilon
    if how.kind == PGD:
        steps, size = how.steps, how.step * frame.epsilon
    for k in range(K):
        X[k] = start[k] + w
        d[k] = 0.0
    for step in range(steps):
        if step > 0:
            f = output(frame.kind, frame.B, frame.a, frame.sign, X[:K])
            turn = 1.0 if f < 1.0 else -1.0
        least, square, length = np.inf, 0.0, 0.0
        for k in range(K):
            least = min(least, X[k] * X[k])
        for k in range(K):
            if frame.kind == ERF:  # without the largest exponential, which may underflow
                u[k] = frame.a[k] * math.exp(-0.5 * (X[k] * X[k] - least))
            else:
                u[k] = frame.a[k] if frame.sign[k] * X[k] > 0.0 else 0.0
        for k in range(K):
            Su[k] = 0.0
            for n in range(K):
                Su[k] += frame.S[k, n] * u[n]
            square += u[k] * Su[k]
        if not square > 0.0:
            break
        for k in range(K):
            d[k] -= turn * size * u[k] / math.sqrt(square)
        for k in range(K):
            X[k] = 0.0
            for n in range(K):
                X[k] += frame.S[k, n] * d[n]
            length += d[k] * X[k]
        if how.kind == PGD and length > frame.epsilon * frame.epsilon:
            for k in range(K):
                d[k] *= frame.epsilon / math.sqrt(length)
                X[k] *= frame.epsilon / math.sqrt(length)
        for k in range(K):
            X[k] += start[k] + w
    return output(frame.kind, frame.B, frame.a, frame.sign, X[:K])


@called
def _scanned_line(frame, how, start, overshoot, reach, work):
    """Look for the changes of sign of the attacked f where an attack may change the sign at all, on both sides of f = 1."""
    K = frame.a.size
    sigma = frame.G[K - 1, K - 1]
    shifted = work[2]
    edges = work[6]
    for side in range(2):  # every field moves by at most epsilon sqrt(Q_kk)
        for k in range(K):
            shifted[k] = start[k] + (1 - 2 * side) * frame.epsilon * math.sqrt(frame.S[k, k])
        edges[side] = root(frame.kind, frame.B, frame.a, frame.sign, shifted[:K], work[0, 1 + side])
        if abs(edges[side]) < np.inf:
            work[0, 1 + side] = edges[side]
    first = max(edges[0], -reach * sigma)
    last = min(edges[1], reach * sigma)
    total = below(min(first, last), sigma)
    for side in range(2):
        turn = 1.0 if side == 0 else -1.0
        low = first if side == 0 else max(first, overshoot)
        high = min(last, overshoot) if side == 0 else last
        if high > low:
            total += _scanned_part(frame, how, start, low, high, turn, sigma, work)
    return total


@called
def _scanned_part(frame, how, start, low, high, turn, sigma, work):
    points = int(min(8.0 + 4.0 * (high - low), 64.0))
    h = (high - low) / points
    total = 0.0
    begin = low  # of the stretch with the present sign
    w = low + 1e-12 * h
    f = _attacked(frame, how, start, w, turn, work)
    f_before = f
    for point in range(1, points + 1):
        w_new = low + h * point if point < points else high - 1e-12 * h
        f_new = _attacked(frame, how, start, w_new, turn, work)
        if (f <= 0.0) != (f_new <= 0.0):
            at = _crossing(frame, how, start, w, w_new, f, f_new, turn, work)
            if f <= 0.0:
                total += below(at, sigma) - below(begin, sigma)
            begin = at
        elif point >= 2 and abs(f) < abs(f_before) and abs(f) < abs(f_new) and (f_before <= 0.0) == (f <= 0.0):
            # a turn towards 0 between three points of one sign may hide two changes
            middle = _nearest(frame, how, start, w - h, w, w_new, f_before, f, f_new, turn, work)
            f_middle = _attacked(frame, how, start, middle, turn, work)
            if (f_middle <= 0.0) != (f <= 0.0):
                left = _crossing(frame, how, start, w - h, middle, f_before, f_middle, turn, work)
                right = _crossing(frame, how, start, middle, w_new, f_middle, f_new, turn, work)
                if f <= 0.0:
                    total -= below(right, sigma) - below(left, sigma)
                else:
                    total += below(right, sigma) - below(left, sigma)
        f_before, f, w = f, f_new, w_new
    if f <= 0.0:
        total += below(high, sigma) - below(begin, sigma)
    return total


@called
def _nearest(frame, how, start, left, middle, right, f_left, f_middle, f_right, turn, work):
    """Return a point between left and right at which |f| is least, or f has another sign, by parabolas."""
    best, f_best = middle, f_middle
    for _ in range(12):
        one, two = (best - left) * (f_best - f_right), (best - right) * (f_best - f_left)
        if one == two:
            break
        new = best - 0.5 * ((best - left) * one - (best - right) * two) / (one - two)
        if not left < new < right or abs(new - best) < 1e-9 * (right - left):
            break
        f_new = _attacked(frame, how, start, new, turn, work)
        if (f_new <= 0.0) != (f_middle <= 0.0):
            return new
        if abs(f_new) < abs(f_best):
            if new > best:
                left, f_left = best, f_best
            else:
                right, f_right = best, f_best
            best, f_best = new, f_new
        elif new > best:
            right, f_right = new, f_new
        else:
            left, f_left = new, f_new
    return best


@called
def _crossing(frame, how, start, low, high, f_low, f_high, turn, work):
    """Return where the attacked f changes its sign: the Illinois form of regula falsi, and halves where it is slow."""
    wrong = f_low <= 0.0
    moved = 0  # the end that the last step moved
    for step in range(80):
        if high - low <= 1e-13 * (1.0 + abs(low)):
            break
        new = 0.5 * (low + high)
        if step % 4 != 3:
            chord = (low * f_high - high * f_low) / (f_high - f_low)
            if low < chord < high:
                new = chord
        f = _attacked(frame, how, start, new, turn, work)
        if abs(f) < 1e-13:
            return new
        if (f <= 0.0) == wrong:
            low, f_low = new, f
            f_high *= 0.5 if moved == -1 else 1.0
            moved = -1
        else:
            high, f_high = new, f
            f_low *= 0.5 if moved == 1 else 1.0
            moved = 1
    return 0.5 * (low + high)
