"""Which of some lengths the distances between two sets of points are within."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import LANES, kept
from odeflow.numerics.threads import Flag, map_blocks

__all__ = ["levels"]

Array = npt.NDArray[np.float64]
Levels = npt.NDArray[np.uint16]

_TOGETHER = 4
"""Coordinates that are written out, so that a distance is read and stored once for all of them."""
_AT_ONCE = 16
"""Coordinates, a multiple of that, between two looks at whether all pairs of a vector are too far apart already."""


def levels(plus: Array, minus: Array, lengths: Array, norm: str) -> Levels:
    r"""Return for each pair how many of the lengths are below its distance, shape (plus, minus).

    For L2 the squares :math:`\sum_k (x_k - z_k)^2` are compared, for L-infinity :math:`\max_k |x_k - z_k|`. A sum ends where it
    is above the largest length, so coordinates in which the two sets differ most come first.

    Parameters
    ----------
    plus, minus
        Points, shapes (plus, N) and (minus, N), finite; squares of distances may overflow.
    lengths
        Increasing, >= 0, fewer than 2^16.
    norm
        "l2" or "linf".
    """
    with np.errstate(over="ignore", invalid="ignore"):
        apart = (plus.mean(axis=0) - minus.mean(axis=0)) ** 2 + plus.var(axis=0) + minus.var(axis=0)
    order = np.argsort(-np.nan_to_num(apart, nan=np.inf), kind="stable")
    varies = np.maximum(plus.max(axis=0), minus.max(axis=0)) > np.minimum(plus.min(axis=0), minus.min(axis=0))
    order = order[varies[order]]
    limits = lengths**2 if norm == "l2" else lengths
    absent = (-len(order)) % _TOGETHER
    plus, minus = (np.pad(one[:, order], ((0, 0), (0, absent))) for one in (plus, minus))
    count = len(minus)
    blocks = -(-count // LANES)
    lanes = np.resize(np.arange(count), blocks * LANES)  # the last block is filled up, and what it says is left out
    minus = np.ascontiguousarray(minus[lanes].reshape(blocks, LANES, -1).transpose(0, 2, 1))
    out = np.empty((len(plus), len(lanes)), np.uint16)

    def work(first: int, last: int, stop: Flag) -> None:
        if not stop[0]:
            _fill(plus, minus[first:last], limits, norm == "l2", out[:, first * LANES : last * LANES])

    map_blocks(work, blocks, least=1)
    return out[:, :count]


@kept
def _fill(plus, minus, limits, squares, out):  # type: ignore[no-untyped-def]
    # plain formula: out[i, j] = (limits < distance of plus[i] and minus[j]).sum()
    n, N = plus.shape
    largest = limits[-1]
    distance = np.empty(LANES)
    for block in range(len(minus)):
        z = minus[block]
        for i in range(n):
            distance[:] = 0.0
            nearest = 0.0
            k = 0
            while k < N and nearest <= largest:
                end = min(k + _AT_ONCE, N)
                if squares:
                    for one in range(k, end, _TOGETHER):
                        x0, x1, x2, x3 = plus[i, one], plus[i, one + 1], plus[i, one + 2], plus[i, one + 3]
                        for lane in range(LANES):
                            d0, d1 = x0 - z[one, lane], x1 - z[one + 1, lane]
                            d2, d3 = x2 - z[one + 2, lane], x3 - z[one + 3, lane]
                            distance[lane] += (d0 * d0 + d1 * d1) + (d2 * d2 + d3 * d3)
                else:
                    for one in range(k, end, _TOGETHER):
                        x0, x1, x2, x3 = plus[i, one], plus[i, one + 1], plus[i, one + 2], plus[i, one + 3]
                        for lane in range(LANES):
                            d0, d1 = abs(x0 - z[one, lane]), abs(x1 - z[one + 1, lane])
                            d2, d3 = abs(x2 - z[one + 2, lane]), abs(x3 - z[one + 3, lane])
                            d0, d2 = max(d1, d0), max(d3, d2)
                            d0 = max(d2, d0)
                            distance[lane] = max(distance[lane], d0)
                nearest = distance.min()
                k = end
            for lane in range(LANES):
                out[i, block * LANES + lane] = np.searchsorted(limits, distance[lane])
