r"""Any number of erf units against the worst case, from below: a climb to the highest point within reach.

In the frame the wrong region lies below the graph of an analytic function :math:`Y(t_1, \ldots, t_{K-1})`, and so does what is
within reach r of it, whose graph at t is the largest

.. math:: Y(p) + \sqrt{r^2 - |p - t|^2}, \qquad |p - t| \le r.

At the largest, :math:`p = t + r\,\nabla Y / \sqrt{1 + |\nabla Y|^2}`. This is iterated from several starts. Each p shows that
an attack exists, so what is found is a lower bound; it is exact wherever one of the climbs ends at the highest point.
"""

from __future__ import annotations

import math

from odeflow.numerics.compilation import called
from odeflow.order_parameters.committee.errors.roots import root

__all__ = ["climbed_line"]

_STEPS = 40


@called
def climbed_line(frame, start, work):
    """Return the probability that an example of the line is wrong, or within reach of a wrong one that a climb finds."""
    K = frame.a.size
    sigma, r = frame.G[K - 1, K - 1], frame.radius
    p, X, rise = work[1], work[2], work[3]  # p: from t
    w = root(frame.kind, frame.B, frame.a, frame.sign, start, work[0, 0])
    if abs(w) == math.inf:
        return 1.0 if w > 0.0 else 0.0
    work[0, 0] = w
    top = -math.inf
    for first in range(K + 1):
        # from the example, or from where one unit alone would be attacked
        length = 0.0
        for j in range(K):
            length += frame.G[first - 1, j] ** 2 if first > 0 else 1.0
        for j in range(K - 1):
            p[j] = -r * frame.G[first - 1, j] / math.sqrt(length) if first > 0 else 0.0
        best, share = -math.inf, 1.0
        w_here = w
        for _ in range(_STEPS):
            square = 0.0
            for k in range(K):
                X[k] = start[k]
                for j in range(K - 1):
                    X[k] += frame.G[k, j] * p[j]
            for j in range(K - 1):
                square += p[j] * p[j]
            w_here = root(frame.kind, frame.B, frame.a, frame.sign, X[:K], w_here)
            height = w_here / sigma + math.sqrt(max(r * r - square, 0.0))
            gain = height - best
            if gain < 0.0:
                share *= 0.5  # too far: the next step is shorter
            best = max(best, height)
            if abs(gain) < 1e-10 * (1.0 + abs(best)) or share < 1e-3:
                break
            least = math.inf
            for k in range(K):
                X[k] += w_here
                least = min(least, X[k] * X[k])
            slope, square = 0.0, sigma * sigma
            for j in range(K - 1):
                rise[j] = 0.0
            for k in range(K):
                part = frame.a[k] * math.exp(0.5 * (least - X[k] * X[k]))
                slope += part
                for j in range(K - 1):
                    rise[j] -= part * frame.G[k, j]
            for j in range(K - 1):
                rise[j] /= slope
                square += rise[j] * rise[j]
            for j in range(K - 1):
                p[j] += share * (r * rise[j] / math.sqrt(square) - p[j])
        top = max(top, best)
    return 0.5 * math.erfc(-top * math.sqrt(0.5))
