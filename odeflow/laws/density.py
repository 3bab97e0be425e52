"""Quadrature over the density of a law: a fine rule by halving panels, and the Gaussian rule of few nodes that it gives."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]
    Curve = Callable[[Array], Array]

__all__ = ["few_nodes", "has_mean_square"]

_PANEL = 20  # nodes of a panel of the fine rule
_GAUSS = 16  # and of the rule that is made of it
_FAR = 140 * math.log(10)  # log of the largest factor, in means
_NEAR = 18.0  # - log of the distance from an end of the support; what is nearer is put there
_PANELS = 400  # that may be halved
_QUANTILES = (1e-15, 1e-12, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.1, 0.25, 0.5)


def few_nodes(distribution: Any, mean: float, edges: Array) -> tuple[Array, Array]:
    """Return nodes and weights of a quadrature over a density: 16 nodes between neighbouring edges, and beyond the last.

    Each piece has the Gaussian rule of the density itself, exact for polynomials of degree 31. Beyond the last edge X it
    is exact for (x/X)^k times polynomials in X/x, so for the total, the mean and, if it is finite, the mean square.
    The weights add up to what the density integrates to.
    """
    import numpy as np

    x, weights = _fine_rule(distribution, mean, edges)
    piece = np.searchsorted(edges, x, side="right")
    nodes = []
    for i in range(1, len(edges)):
        here = piece == i
        nodes.append(_gaussian_rule(x[here] - edges[i - 1], weights[here]))
        nodes[-1][0][:] += edges[i - 1]
    here, last = piece == len(edges), edges[-1]
    power = 2 if has_mean_square(distribution, mean) else 1
    far, share = _gaussian_rule(last / x[here], weights[here] * (x[here] / last) ** power)
    nodes.append((last / far, share * far**power))
    factors, shares = (np.concatenate(values) for values in zip(*nodes, strict=True))
    return factors, shares


def _fine_rule(distribution: Any, mean: float, cuts: Array) -> tuple[Array, Array]:
    """Return many nodes and weights of a density, in panels that end at the cuts.

    The support is cut at the mean, and its parts are integrated over the logarithm of the distance from an end: there,
    poles and tails are exponentials.
    """
    import numpy as np

    low, high = map(float, distribution.support())
    with np.errstate(all="ignore"):
        cuts = np.concatenate([cuts, distribution.ppf(_QUANTILES), distribution.isf(_QUANTILES)])
        ends = [low, high] if high < math.inf else [low]
        rest = [distribution.cdf(low + _gap(low, low, mean)), distribution.sf(high - _gap(high, low, mean))]
    nodes, weights = [np.array(ends)], [np.array(rest[: len(ends)])]
    for x_of, size_of, t_of, reach in _coordinates(low, high, mean):

        def density(t: Array, x_of: Curve = x_of, size_of: Curve = size_of) -> tuple[Array, Array]:
            x = x_of(t)
            with np.errstate(all="ignore"):
                return x, np.nan_to_num(distribution.pdf(x) * size_of(t), nan=0.0, posinf=0.0)

        with np.errstate(all="ignore"):
            t = t_of(cuts)
        inside = t[(t > 1e-9 * reach) & (t < reach)]
        edges = np.unique(np.concatenate([[0.0], inside, np.geomspace(min(1.0, reach / 2), reach, 10)]))
        for x, mass in _integrated(density, edges, mean):
            nodes.append(x)
            weights.append(mass)
    x, w = np.concatenate(nodes), np.concatenate(weights)
    return x[w > 0], w[w > 0]


def _gap(end: float, low: float, mean: float) -> float:
    """Return the distance from an end of the support within which all is put at the end."""
    return abs(mean - low if end == low else (end - mean) / 2) * math.exp(-_NEAR if end else -_FAR)


def _coordinates(low: float, high: float, mean: float) -> Iterator[tuple[Curve, Curve, Curve, float]]:
    """Yield x(t), the size of dx/dt, t(x) and the largest t of each part of the support, from the mean outwards."""
    import numpy as np

    def from_end(end: float, distance: float, sign: float, reach: float) -> tuple[Curve, Curve, Curve, float]:
        def size(t: Array) -> Array:
            return abs(distance) * np.exp(sign * t)

        return (
            lambda t: end + math.copysign(1, distance) * size(t),
            size,
            lambda x: sign * np.log((x - end) / distance),
            reach,
        )

    yield from_end(low, mean - low, -1.0, _NEAR if low else _FAR)
    if high == math.inf:
        yield from_end(low, mean - low, 1.0, _FAR)
    else:
        middle = (mean + high) / 2
        yield from_end(low, mean - low, 1.0, math.log((middle - low) / (mean - low)))
        yield from_end(high, middle - high, -1.0, _NEAR)


def _integrated(
    density: Callable[[Array], tuple[Array, Array]], edges: Array, mean: float
) -> Iterator[tuple[Array, Array]]:
    """Yield nodes and weights of panels, halved where their total and mean are not yet converged, the worst first."""
    import numpy as np

    z, w = np.polynomial.legendre.leggauss(_PANEL)
    heap: list[tuple[float, float, list[tuple[float, float, Array, Array]]]] = []

    def panel(t0: float, t1: float) -> tuple[float, float, Array, Array]:
        x, mass = density((t0 + t1) / 2 + (t1 - t0) / 2 * z)
        return t0, t1, x, mass * w * (t1 - t0) / 2

    def put(whole: tuple[float, float, Array, Array]) -> None:
        t0, t1, x, mass = whole
        halves = [panel(t0, (t0 + t1) / 2), panel((t0 + t1) / 2, t1)]
        total = sum(float(half[3].sum()) for half in halves) - float(mass.sum())
        first = sum(float(half[3] @ half[2]) for half in halves) - float(mass @ x)
        heapq.heappush(heap, (-max(abs(total), abs(first) / mean), t0, halves))

    for t0, t1 in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        put(panel(t0, t1))
    for _ in range(_PANELS):
        if heap[0][0] > -1e-14:
            break
        for half in heapq.heappop(heap)[2]:
            put(half)
    for _, _, halves in heap:
        yield from (half[2:] for half in halves)


def has_mean_square(distribution: Any, mean: float) -> bool:
    """Return whether x^2 times the density can be integrated: whether its tail is steeper than x^-3."""
    import numpy as np

    if distribution.support()[1] < math.inf:
        return True
    x = mean * np.geomspace(1, math.exp(_FAR), 400)
    with np.errstate(all="ignore"):
        density = distribution.pdf(x)
    there = density > 1e-300
    if not there[-1] and np.count_nonzero(there) < 2:
        return True
    slope = np.diff(np.log(density[there])[-2:]) / np.diff(np.log(x[there])[-2:])
    return bool(slope[0] < -3.02)


def _gaussian_rule(x: Array, weights: Array) -> tuple[Array, Array]:
    """Return the Gaussian rule of at most 16 nodes of a discrete measure.

    Lanczos's method with all vectors kept orthogonal; the nodes are the eigenvalues of its tridiagonal matrix (Golub and
    Welsch, Math. Comp. 23 (1969) 221).
    """
    import numpy as np
    from scipy.linalg import eigh_tridiagonal

    total = weights.sum()
    if x.size <= 1 or total < 1e-30:
        return x[:1].copy(), np.full(min(x.size, 1), total)
    scale = x.max()
    basis = [np.sqrt(weights / total)]
    diagonal, beside = [], []
    while True:
        new = x / scale * basis[-1]
        diagonal.append(basis[-1] @ new)
        for _ in range(2):
            for vector in basis:
                new = new - (vector @ new) * vector
        length = np.linalg.norm(new)
        if len(basis) == min(_GAUSS, x.size) or length < 1e-14:
            break
        beside.append(length)
        basis.append(new / length)
    nodes, vectors = eigh_tridiagonal(np.array(diagonal), np.array(beside))
    return nodes.clip(x.min() / scale, 1) * scale, total * vectors[0] ** 2
