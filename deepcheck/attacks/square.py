"""The Square Attack: random search with square-shaped changes."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.noise import Proposal, RandomSearch
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
        if self._norm.name not in ("linf", "l2"):
            raise ValueError(f"norm = {self.norm!r} is not allowed for the Square Attack: linf or l2 is")

    @property
    def _queries(self) -> int:
        return self.queries

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if len(shape) not in (2, 4):
            raise ValueError(f"images of shape {shape} are not allowed: (n, channels, height, width) or (n, D) is")

    def _draw(self, query: int, images: Tensor, epsilon: float, generator: torch.Generator) -> Proposal:
        grid = images if images.ndim == 4 else images[:, None, None, :]
        draw = _Draw(grid, generator)
        if self._norm.name == "linf":
            propose = _stripes(draw, epsilon) if query == 0 else self._square(draw, epsilon, self._share(query))
        else:
            propose = _tiling(draw, epsilon) if query == 0 else _transfer(draw, epsilon, self._share(query))
        if images.ndim == 4:
            return propose
        return lambda rows, x, now: propose(rows, x[:, None, None, :], now[:, None, None, :]).flatten(1)

    def _share(self, query: int) -> float:
        """Return the share of the image's area in a square."""
        halvings = sum(query * 10_000 >= i * self.queries for i in _HALVINGS)
        return self.p_init * 0.5**halvings

    def _square(self, draw: _Draw, epsilon: float, share: float) -> Proposal:
        """Return what proposes +-epsilon in a square (algorithm 2)."""
        _, _, height, width = draw.shape
        window = draw.window(*_sides(share, height, width))
        sign = draw.signs(1, 1)

        def propose(rows: Tensor, x: Tensor, now: Tensor) -> Tensor:
            inside = window.mask(rows)
            step = epsilon * sign[rows]
            lost = (((x + step).clamp_(*self.bounds) == now) | ~inside).flatten(1).all(1)
            return torch.where(inside, x + torch.where(per_example(lost, x), -step, step), now)

        return propose


def _stripes(draw: _Draw, epsilon: float) -> Proposal:
    """Return what proposes +-epsilon in vertical stripes of width 1."""
    sign = draw.signs(1, draw.shape[3])
    return lambda rows, x, now: x + epsilon * sign[rows]  # noqa: ARG005


def _tiling(draw: _Draw, epsilon: float) -> Proposal:
    """Return what proposes a perturbation of length epsilon made of equal tiles with random signs."""
    _, _, height, width = draw.shape
    a, b = math.ceil(height / _TILES), math.ceil(width / _TILES)
    down, across = math.ceil(height / a), math.ceil(width / b)
    tiles = draw.patterns(a, b).repeat(1, down, across)[:, :height, :width]
    sign, form = draw.signs(down, across), draw.forms()

    def propose(rows: Tensor, x: Tensor, now: Tensor) -> Tensor:
        del now
        signs = sign[rows].repeat_interleave(a, 2).repeat_interleave(b, 3)[:, :, :height, :width]
        delta = tiles[form[rows], None] * signs
        return x + epsilon * _unit(delta, (1, 2, 3))

    return propose


def _transfer(draw: _Draw, epsilon: float, share: float) -> Proposal:
    """Return what proposes to move length from one square to another (algorithm 3)."""
    _, channels, height, width = draw.shape
    sides = _sides(share, height, width)
    a, b = (min(edge, max(3, side + 1 - side % 2)) for side, edge in zip(sides, (height, width), strict=True))
    first, second = draw.window(a, b), draw.window(a, b)
    patterns, form, rho = draw.patterns(a, b), draw.forms(), draw.signs(1, 1)

    def propose(rows: Tensor, x: Tensor, now: Tensor) -> Tensor:
        nu = now - x
        both = first.mask(rows) | second.mask(rows)
        unused = (epsilon**2 - nu.square().sum((1, 2, 3), keepdim=True)).clamp_(min=0)
        available = ((nu.square() * both).sum((2, 3), keepdim=True) + unused / channels).sqrt()
        W1 = first.index(rows)
        eta = patterns[form[rows], None]
        direction = _unit(rho[rows] * eta + _unit(nu[W1], (2, 3)), (2, 3))
        nu = nu.masked_fill(both, 0)
        nu[W1] = direction * available
        return x + nu

    return propose


class _Draw:
    """Random numbers for all images, shape (n, channels, height, width), of one query."""

    def __init__(self, images: Tensor, generator: torch.Generator) -> None:
        self.shape = images.shape
        self._like = images
        self._generator = generator

    def signs(self, *shape: int) -> Tensor:
        """Return +1 or -1, shape (n, channels, *shape)."""
        return self._integers(2, *self.shape[:2], *shape).mul_(2).sub_(1).to(self._like.dtype)

    def forms(self) -> Tensor:
        """Return 0 or 1, shape (n,): which of two patterns."""
        return self._integers(2, self.shape[0])

    def window(self, a: int, b: int) -> _Window:
        """Return a rectangle of a x b pixels in every image."""
        n, _, height, width = self.shape
        return _Window(self.shape, a, b, self._integers(height - a + 1, n), self._integers(width - b + 1, n))

    def patterns(self, a: int, b: int) -> Tensor:
        """Return the patterns of the L2 attack split along the height and along the width, shape (2, a, b)."""
        return torch.stack([_pattern(a, b), _pattern(b, a).T]).to(self._like)

    def _integers(self, end: int, *shape: int) -> Tensor:
        drawn = torch.randint(end, shape, generator=self._generator, device=self._generator.device)
        return drawn.to(self._like.device)


@dataclass(frozen=True, eq=False)
class _Window:
    """A rectangle of a x b pixels in every image, at its own place."""

    shape: tuple[int, ...]
    a: int
    b: int
    top: Tensor
    left: Tensor

    def mask(self, rows: Tensor) -> Tensor:
        """Return whether a pixel is inside, shape (m, 1, height, width)."""
        down = torch.arange(self.shape[2], device=rows.device) - self.top[rows, None]
        across = torch.arange(self.shape[3], device=rows.device) - self.left[rows, None]
        inside = ((down >= 0) & (down < self.a))[:, :, None] & ((across >= 0) & (across < self.b))[:, None, :]
        return inside[:, None]

    def index(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the index of the pixels inside, in all channels: it takes out shape (m, channels, a, b)."""
        device = rows.device
        down = self.top[rows, None] + torch.arange(self.a, device=device)
        across = self.left[rows, None] + torch.arange(self.b, device=device)
        return (
            torch.arange(len(rows), device=device)[:, None, None, None],
            torch.arange(self.shape[1], device=device)[:, None, None],
            down[:, None, :, None],
            across[:, None, None, :],
        )


def _sides(share: float, height: int, width: int) -> tuple[int, int]:
    """Return height and width of the square with this share of the image's area, or of a rectangle where none fits."""
    area = share * height * width
    side = max(1, round(math.sqrt(area)))
    if side > height:
        return height, min(width, max(1, round(area / height)))
    if side > width:
        return min(height, max(1, round(area / width))), width
    return side, side


def _pattern(a: int, b: int) -> Tensor:
    """Return the pattern of the L2 attack, shape (a, b) and of length 1: a bump above and a negative one below."""
    k = a // 2
    pattern = torch.cat([_bump(k, b), -_bump(a - k, b)]) if k else _bump(a, b)
    return _unit(pattern, (0, 1))


def _bump(h1: int, h2: int) -> Tensor:
    """Return eta of eq. 2, shape (h1, h2): sum for k = 0, ..., M(r, s) of 1 / (n + 1 - k)^2, largest in the middle."""
    n = max(h1, h2) // 2
    r = (torch.arange(h1) - h1 // 2).abs()
    s = (torch.arange(h2) - h2 // 2).abs()
    M = n - torch.maximum(r[:, None], s[None, :])
    k = torch.arange(n + 1, dtype=torch.float64)
    eta: Tensor = (1 / (n + 1 - k) ** 2).cumsum(0)[M]
    return eta


def _unit(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return the values over their Euclidean length along some axes, 0 where that is 0."""
    length: Tensor = torch.linalg.vector_norm(values, dim=dims, keepdim=True)
    return values / torch.where(length > 0, length, torch.ones_like(length))
