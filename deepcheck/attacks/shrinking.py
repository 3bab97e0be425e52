"""How far a perturbation is shrunk so that, clipped to the box, its length is that of the ball: by a factor, or a threshold.

The length falls with either, piece by piece, and the pieces can be sorted: exact, without a look at the numbers, as a GPU
wants it. On a CPU sorting takes the most time of an attack, and a search from piece to piece a part of it: it ends at the
same number up to rounding. Sizes a and rooms r have the shape (n, D) and double precision, bounds the shape (n,).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["factor", "threshold"]

_CLOSE = 1e-14
"""Relative distance from the bound at which a search ends."""
_DIGIT = torch.finfo(torch.float64).eps


def factor(a: Tensor, r: Tensor, square: Tensor) -> Tensor:
    """Return the s in [0, 1] for which the sum of min(s a, r)^2 is `square`, shape (n,), or 1 where it is less already."""
    outside = torch.minimum(a, r).square_().sum(1) > square
    found = (_searched_factor if a.device.type == "cpu" else _sorted_factor)(a, r, square, outside)
    return torch.where(outside, found, 1.0)


def threshold(a: Tensor, r: Tensor, bound: Tensor) -> Tensor:
    """Return the t >= 0 for which the sum of min(max(a - t, 0), r) is `bound`, shape (n,), or 0 where it is less already."""
    outside = torch.minimum(a, r).sum(1) > bound
    found = (_searched_threshold if a.device.type == "cpu" else _sorted_threshold)(a, r, bound, outside)
    t = torch.where(outside, found, 0.0)
    longer = (
        torch.minimum((a - t[:, None]).clamp_(min=0), r).sum(1) > bound
    )  # by the rounding of t, which a bound may be below
    return torch.where(longer, t * (1 + 4 * _DIGIT), t)


def _searched_factor(a: Tensor, r: Tensor, square: Tensor, outside: Tensor) -> Tensor:
    """Newton's method in s^2: the square of the length is concave in it, so that what begins below stays below.

    Each turn finds one more entry that meets the box at least, or is the last.
    """
    found = torch.ones_like(square)
    rows = outside.nonzero().squeeze(1)
    a2, r2, square = a[rows].square_(), r[rows].square_(), square[rows]
    q = square / _positive(a2.sum(1))
    while len(rows):
        size = a2 * q[:, None]
        free = torch.where(size < r2, a2, 0.0).sum(1)
        new = q + (square - torch.minimum(size, r2, out=size).sum(1)) / _positive(free)
        going = new > q * (1 + _CLOSE)
        found[rows] = q.sqrt()
        rows, a2, r2, square, q = _left(going, rows, a2, r2, square, torch.where(going, new, q))
    return found


def _searched_threshold(a: Tensor, r: Tensor, bound: Tensor, outside: Tensor) -> Tensor:
    """Newton's method between two ends that close in; half way where it leaves them, and at every fourth turn."""
    found = torch.zeros_like(bound)
    rows = outside.nonzero().squeeze(1)
    a, r, bound = a[rows], r[rows], bound[rows]
    low, t = torch.zeros_like(bound), torch.zeros_like(bound)
    high, turn = a.amax(1) if len(rows) else bound, 0
    while len(rows):
        turn += 1
        left = (a - t[:, None]).clamp_(min=0)
        excess = torch.minimum(left, r).sum(1).sub_(bound)
        between = ((left > 0) & (left < r)).sum(1)
        rounding = _CLOSE * bound + 0.5 * _DIGIT * t * between  # the last is that of t
        going = (excess.abs() > rounding) & (high - low > 2 * _DIGIT * high)
        found[rows] = t
        low, high = torch.where(excess > 0, t, low), torch.where(excess > 0, high, t)
        new, half = t + excess / between, (low + high) / 2
        inner = (new > low) & (new < high) & (turn % 4 > 0)
        t = torch.where(going, torch.where(inner, new, half), t)
        rows, a, r, bound, low, high, t = _left(going, rows, a, r, bound, low, high, t)
    return found


def _left(going: Tensor, rows: Tensor, *columns: Tensor) -> tuple[Tensor, ...]:
    """Return what is left of some rows: none, the half or less that is going on, or all of them."""
    count = int(going.sum())
    if 2 * count > len(going):
        return rows, *columns
    return tuple(column[going] for column in (rows, *columns))


def _sorted_factor(a: Tensor, r: Tensor, square: Tensor, outside: Tensor) -> Tensor:
    """Between two of the values r / a, where entries meet the box, the square of the length is a sum of two parts.

    They are the sum of r^2 of the entries that have met it, and s^2 times the sum of a^2 of the others.
    """
    del outside
    s, order = torch.where(a > 0, r / a, torch.inf).sort(dim=1)
    at_edge = r.gather(1, order).square().cumsum(1)
    free = a.gather(1, order).square().flip(1).cumsum(1).flip(1)
    zero = torch.zeros_like(free[:, :1])
    count = (at_edge + s.square() * torch.cat([free[:, 1:], zero], 1) < square[:, None]).sum(1)
    count = count.clamp_(max=a.shape[1] - 1)[:, None]
    rest = square[:, None] - torch.cat([zero, at_edge], 1).gather(1, count)
    return (rest.clamp_(min=0) / _positive(free.gather(1, count))).sqrt_().squeeze(1)


def _sorted_threshold(a: Tensor, r: Tensor, bound: Tensor, outside: Tensor) -> Tensor:
    """Between two of the values a and a - r the length falls as fast as there are entries strictly between 0 and r."""
    del outside
    t, order = torch.cat([a, (a - r).clamp_(min=0)], 1).sort(dim=1, descending=True)
    between = torch.where(order < a.shape[1], 1.0, -1.0).to(a.dtype).cumsum(1)
    gained = (between[:, :-1] * (t[:, :-1] - t[:, 1:])).cumsum(1)
    length = torch.cat([torch.zeros_like(bound)[:, None], gained], 1)  # at each threshold in t
    last = (length <= bound[:, None]).sum(1, keepdim=True).sub_(1).clamp_(min=0)
    excess = (bound[:, None] - length.gather(1, last)) / between.gather(1, last).clamp_(min=1)
    return (t.gather(1, last) - excess).squeeze(1)


def _positive(values: Tensor) -> Tensor:
    """Return what can be divided by: 1 instead of 0."""
    return torch.where(values > 0, values, torch.ones_like(values))
