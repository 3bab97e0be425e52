"""The shortest way from a point to a hyperplane inside a box: exact, in L-infinity, L2 and L1, batched."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcheck.attacks.norms import Norm

__all__ = ["NAMES", "shortest"]

NAMES = ("linf", "l2", "l1")
"""Norms that are known here."""
_FIRST, _MORE = 32, 4


def shortest(norm: Norm, normal: Tensor, gap: Tensor, points: Tensor, bounds: tuple[float, float]) -> Tensor:
    r"""Return the shortest delta with <normal, delta> = gap that keeps the points in the box.

    No entry moves but towards the hyperplane, by a step of its own size s until it meets the box: it is
    :math:`\mathrm{sign}(w_i) \min(r s_i, m_i)`, :math:`m_i` the room, with :math:`s_i = 1` in L-infinity and
    :math:`s_i = |w_i|` in L2. In L1 the entries of the largest weights go to the edge of the box, and those of one weight
    t, the last that is needed, a share of the way.

    Parameters
    ----------
    norm
        One of the names in `NAMES`.
    normal
        w, shape (n, ...).
    gap
        Shape (n,), of either sign.
    points
        In the box, shape (n, ...), in the precision of w.
    bounds
        Of the box; they may be infinite.

    Returns
    -------
    Tensor
        Shape (n, ...). Exact up to rounding of sums in this precision. Where hyperplane and box do not meet, the way to the
        corner that comes nearest to it: the entries without weight stay.

    Notes
    -----
    As in Croce and Hein (ICML 2020, section 2.1 and appendix A), where everything is sorted. What <w, delta> makes of r
    is concave and made of straight pieces, so that Newton's method goes up to the solution from below and ends there,
    after as many steps as the set of entries at the edge of the box changes: three or four of them in nets.
    """
    w = normal.flatten(1) * torch.where(gap < 0, -1.0, 1.0).to(normal.dtype)[:, None]
    low, high = bounds
    p = points.flatten(1)
    room = torch.where(w > 0, high - p, p - low).clamp_(min=0)
    gap = gap.abs().to(w.dtype)
    a = w.abs()
    size = _largest_first(a, room, gap) if norm.name == "l1" else _evenly(a, room, gap, by_weight=norm.name == "l2")
    return size.mul_(w.sign()).view_as(normal)


def _evenly(a: Tensor, room: Tensor, gap: Tensor, *, by_weight: bool) -> Tensor:
    """Return min(r s_i, m_i), with s_i the weight or 1, so that the sum over a_i times that is the gap."""
    s = a if by_weight else None
    speed = a if s is None else a * s
    full = a * room
    r = torch.zeros_like(gap)
    size, some = r[:, None] if s is None else torch.zeros_like(a), torch.empty_like(a)
    while True:
        free = size < room
        slope = torch.mul(speed, free, out=some).sum(1)
        at_edge = torch.where(free, 0.0, full).sum(1)
        # the gap is met by the pieces that are free now; none is: every entry is at the edge
        new = torch.where(slope > 0, torch.maximum(r, (gap - at_edge) / slope), r)
        if torch.equal(new, r):
            return torch.minimum(size.expand_as(room), room)
        r = new
        size = r[:, None] if s is None else torch.mul(s, r[:, None], out=size)


def _largest_first(a: Tensor, room: Tensor, gap: Tensor) -> Tensor:
    """Return the room of the largest weights, a share of it for the last, and 0, so that the sum over a_i times that is the gap."""
    room = torch.where(a > 0, torch.minimum(room, gap[:, None] / a), 0.0)  # more is never needed, and it is finite
    full = a * room
    key = torch.where(room > 0, a, 0.0)
    count = min(_FIRST, a.shape[1])
    while True:
        weights, index = key.topk(count, dim=1)
        short = full.gather(1, index).cumsum(1) < gap[:, None]
        if count == a.shape[1] or not bool(short[:, -1].any()):
            break
        count = min(_MORE * count, a.shape[1])
    # the weight of the last, by its value: equal weights share what is left, so that their order does not matter
    last = short.sum(1, keepdim=True)
    t = torch.where(last < count, weights.gather(1, last.clamp(max=count - 1)), 0.0)
    whole, partly = a > t, (a == t) & (t > 0)
    rest = gap - torch.where(whole, full, 0.0).sum(1)
    share = (rest / torch.where(partly, full, 0.0).sum(1)).clamp(0, 1)
    return torch.where(whole, room, torch.where(partly, share[:, None] * room, 0.0))
