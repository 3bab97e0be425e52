"""The Square Attack: random search with square-shaped changes."""

from __future__ import annotations

import functools
import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.black_box.search import RandomSearch
from deepcheck.attacks.draws import Draws
from deepcheck.attacks.norms import per_example
from odeflow.model import checked_count, checked_number

__all__ = ["Square"]

_HALVINGS = (10, 50, 200, 1000, 2000, 4000, 6000, 8000)
"""Queries, out of 10,000, at which the area of the squares is halved."""
_TILES = 5
"""Tiles along an edge of the image in the first perturbation for L2."""


@dataclass(frozen=True)
class Square(RandomSearch):
    """Square Attack (Andriushchenko et al., ECCV 2020): random search that changes one square of the image per query.

    For L-infinity (algorithm 2), the first perturbation is +-epsilon in vertical stripes of width 1, and every query
    proposes +-epsilon, one sign per channel, in a square at a random place. Where that would change nothing, the
    opposite is proposed, so that no query is lost.

    For L2 (algorithm 3), the first perturbation is a tiling by the pattern of eq. 2 with random signs, of length
    epsilon. Every query proposes to empty one square, and to give its length, and what the box has cut off, to another,
    where the pattern is added to what is there.

    L1 is as L2 (Croce, Hein, ICML 2021, appendix), with lengths in L1, and more length than there is: the first tiles have
    the length 1 each, and a square of several channels gets the length once for each. What is too much is
    projected away, from every entry the same, so that few large ones stay.

    The share `p_init` of the image in a square is halved after 0.1, 0.5, 2, 10, 20, 40, 60 and 80 % of the queries.
    Squares that would not fit become rectangles of the same area; for vectors, shape (n, D), they are intervals.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = Square("linf", "wrong_confidence", queries=50, restarts=2)
    >>> attacked = attack(model, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 2, 5]))
    """

    _: KW_ONLY
    queries: int = 1000
    """Evaluations of the model per example and restart, >= 1, the first perturbation included."""
    p_init: float = 0.8
    """Share of the image's area in the first squares, in (0, 1]."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "queries", checked_count("queries", self.queries, 1))
        checked_number("p_init", self.p_init, above=0, most=1)
        if self._norm.name not in ("linf", "l2", "l1"):
            raise ValueError(f"norm = {self.norm!r} is not allowed for the Square Attack: linf, l2 or l1 is")

    @property
    def _queries(self) -> int:
        return self.queries

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) not in (2, 4):
            raise ValueError(f"images of shape {shape} are not allowed: (n, channels, height, width) or (n, D) is")

    def _propose(self, query: int, x: Tensor, now: Tensor, epsilon: float, draws: Draws) -> Tensor:
        shape = x.shape
        if x.ndim == 2:
            x, now = x[:, None, None, :], now[:, None, None, :]
        if self._norm.name == "linf":
            new = self._square(x, now, epsilon, draws, self._share(query)) if query else _stripes(x, epsilon, draws)
        else:
            p = int(self._norm.name[1])
            new = _transfer(x, now, epsilon, draws, self._share(query), p) if query else _tiling(x, epsilon, draws, p)
        return new.view(shape)

    def _share(self, query: int) -> float:
        """Return the share of the image's area in a square."""
        halvings = sum(query * 10_000 >= i * self.queries for i in _HALVINGS)
        return self.p_init * 0.5**halvings

    def _square(self, x: Tensor, now: Tensor, epsilon: float, draws: Draws, share: float) -> Tensor:
        """Propose +-epsilon in a square (algorithm 2)."""
        inside = _window(x, *_sides(share, *x.shape[2:]), draws).mask()
        step = epsilon * draws.signs(x, x.shape[1], 1, 1)
        confine = self._norm.confinement(x, epsilon, self.bounds)
        lost = ((confine(x + step) == now) | ~inside).flatten(1).all(1)
        return torch.where(inside, x + torch.where(per_example(lost, x), -step, step), now)


def _stripes(x: Tensor, epsilon: float, draws: Draws) -> Tensor:
    """Propose +-epsilon in vertical stripes of width 1."""
    _, channels, _, width = x.shape
    return x + epsilon * draws.signs(x, channels, 1, width)


def _tiling(x: Tensor, epsilon: float, draws: Draws, p: int) -> Tensor:
    """Propose a perturbation made of equal tiles with random signs, in L2 of length epsilon, in L1 of length 1 a tile."""
    _, channels, height, width = x.shape
    a, b = math.ceil(height / _TILES), math.ceil(width / _TILES)
    down, across = math.ceil(height / a), math.ceil(width / b)
    tiles = _patterns(a, b, x, p).repeat(1, down, across)[:, :height, :width]
    (form,) = draws.below(2)
    signs = draws.signs(x, channels, down, across)
    signs = signs.repeat_interleave(a, 2).repeat_interleave(b, 3)[:, :, :height, :width]
    delta = tiles[form, None] * signs
    return x + (delta if p == 1 else epsilon * _unit(delta, (1, 2, 3), p))


def _transfer(x: Tensor, now: Tensor, epsilon: float, draws: Draws, share: float, p: int) -> Tensor:
    """Propose to move length from one square to another (algorithm 3)."""
    _, channels, height, width = x.shape
    sides = _sides(share, height, width)
    a, b = (min(edge, max(3, side + 1 - side % 2)) for side, edge in zip(sides, (height, width), strict=True))
    ends = height - a + 1, width - b + 1
    top, left, other_top, other_left, form = draws.below(*ends, *ends, 2)
    first, second = _Window(tuple(x.shape), a, b, top, left), _Window(tuple(x.shape), a, b, other_top, other_left)
    rho = draws.signs(x, channels, 1, 1)
    nu = now - x
    if p == 1:  # what the projection leaves by rounding is nothing
        nu = nu.masked_fill(nu.abs() <= 8 * torch.finfo(x.dtype).eps * epsilon, 0)
    both = first.mask() | second.mask()
    size = nu.abs() if p == 1 else nu.square()  # its sum is the length, or the square of it
    unused = (epsilon**p - size.sum((1, 2, 3), keepdim=True)).clamp_(min=0)
    available = (size * both).sum((2, 3), keepdim=True) + unused / channels
    available = available * channels if p == 1 else available.sqrt()
    W1 = first.index()
    eta = _patterns(a, b, x, p)[form, None]
    direction = _unit(rho * eta + _unit(nu[W1], (2, 3), p), (2, 3), p)
    nu = nu.masked_fill(both, 0)
    nu[W1] = direction * available
    return x + nu


@dataclass(frozen=True, eq=False)
class _Window:
    """A rectangle of a x b pixels in every image, at its own place: `top` and `left`, shape (n,)."""

    shape: tuple[int, ...]
    a: int
    b: int
    top: Tensor
    left: Tensor

    def mask(self) -> Tensor:
        """Return whether a pixel is inside, shape (n, 1, height, width)."""
        device = self.top.device
        down = torch.arange(self.shape[2], device=device) - self.top[:, None]
        across = torch.arange(self.shape[3], device=device) - self.left[:, None]
        inside = ((down >= 0) & (down < self.a))[:, :, None] & ((across >= 0) & (across < self.b))[:, None, :]
        return inside[:, None]

    def index(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the index of the pixels inside, in all channels: it takes out shape (n, channels, a, b)."""
        device = self.top.device
        down = self.top[:, None] + torch.arange(self.a, device=device)
        across = self.left[:, None] + torch.arange(self.b, device=device)
        return (
            torch.arange(len(down), device=device)[:, None, None, None],
            torch.arange(self.shape[1], device=device)[:, None, None],
            down[:, None, :, None],
            across[:, None, None, :],
        )


def _window(x: Tensor, a: int, b: int, draws: Draws) -> _Window:
    """Draw a rectangle of a x b pixels in every image."""
    _, _, height, width = x.shape
    return _Window(tuple(x.shape), a, b, *draws.below(height - a + 1, width - b + 1))


def _sides(share: float, height: int, width: int) -> tuple[int, int]:
    """Return height and width of the square with this share of the image's area, or of a rectangle where none fits."""
    area = share * height * width
    side = max(1, round(math.sqrt(area)))
    if side > height:
        return height, min(width, max(1, round(area / height)))
    if side > width:
        return min(height, max(1, round(area / width))), width
    return side, side


def _patterns(a: int, b: int, like: Tensor, p: int) -> Tensor:
    """Return the patterns of the L2 and L1 attacks split along the height and along the width, shape (2, a, b)."""
    return _kept_patterns(a, b, p, like.dtype, like.device, type(like))


@functools.lru_cache(maxsize=64)
def _kept_patterns(a: int, b: int, p: int, dtype: torch.dtype, device: torch.device, kind: type[Tensor]) -> Tensor:
    """Return the patterns, made once for each size, precision, device and kind of tensor: they are not to be changed."""
    del kind
    return torch.stack([_pattern(a, b, p), _pattern(b, a, p).T]).to(device, dtype)


def _pattern(a: int, b: int, p: int = 2) -> Tensor:
    """Return the pattern, shape (a, b) and of length 1 in Lp: a bump above and a negative one below."""
    k = a // 2
    power = 4 if p == 1 else 2
    pattern = torch.cat([_bump(k, b, power), -_bump(a - k, b, power)]) if k else _bump(a, b, power)
    return _unit(pattern, (0, 1), p)


def _bump(h1: int, h2: int, power: int = 2) -> Tensor:
    """Return eta of eq. 2, shape (h1, h2): sum for k = 0, ..., M(r, s) of 1 / (n + 1 - k)^2, largest in the middle.

    For L1 the power is 4, for a bump that is narrower.
    """
    n = max(h1, h2) // 2
    r = (torch.arange(h1) - h1 // 2).abs()
    s = (torch.arange(h2) - h2 // 2).abs()
    M = n - torch.maximum(r[:, None], s[None, :])
    k = torch.arange(n + 1, dtype=torch.float64)
    eta: Tensor = (1 / (n + 1 - k) ** power).cumsum(0)[M]
    return eta


def _unit(values: Tensor, dims: tuple[int, ...], p: int) -> Tensor:
    """Return the values over their length in Lp along some axes, 0 where that is 0."""
    length: Tensor = torch.linalg.vector_norm(values, ord=p, dim=dims, keepdim=True)
    return values / torch.where(length > 0, length, torch.ones_like(length))
