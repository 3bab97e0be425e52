"""Opt-Attack: descent on the distance to the boundary as a function of the direction, by labels alone."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.black_box.boundary import FINEST, Labels, Rays, bisected, checked_finite, unit
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.points import Points
from odeflow.model import checked_count, checked_number

__all__ = ["OptAttack"]

_AT_ONCE = 10
"""Starts that are tried of each example at once: memory is for so many points."""
_FACTORS = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""Steps that are tried, in units of the last that was taken."""
_WIDTH = 1 / 5
"""First width of a bracket of the boundary, in units of the smoothing."""
_TOLERANCE = 1 / 10
"""Where its bisection ends, in the same units."""
_WIDENINGS = 12
"""Of a bracket, at most, each to twice the width."""
_LEAST_STEP = 1e-4
"""Where steps get shorter, the smoothing is divided by 10."""


@dataclass(frozen=True)
class OptAttack(MinimalAttack):
    r"""Opt-Attack (Cheng, Le, Chen, Yi, Zhang, Hsieh, ICLR 2019): descent on the distance along a direction, by labels alone.

    With :math:`g(\theta)` the distance to the boundary along a direction (eq. 4), the first direction is the best of some
    Gaussian ones, and every step measures the slope in some random directions u of length 1 (algorithm 2),

    .. math:: \theta \leftarrow \theta - \eta\, \frac{1}{q} \sum_{i=1}^q \frac{g(\theta + \beta u_i) - g(\theta)}{\beta\, g(\theta)}
              \, u_i , \qquad |\theta|_2 = 1 .

    Each g is found by labels (algorithm 1): a bracket from where the boundary was, wider and wider until the label changes,
    then bisection, to a tenth of :math:`\beta g`. Of six step sizes around the last one, a factor of 4 apart, the one that
    ends nearest is taken; those that are not nearer than what there is cost one query. Where steps get tiny, the smoothing
    :math:`\beta` becomes a tenth. Points are clipped to the box, which the paper does not say, and g is the distance of what
    leaves it; a direction is that of the clipped point. Division by g makes the step size a number without unit.

    Of the model's outputs the class alone is used. The number of queries is never exceeded, and what leaves
    the attack is beyond the boundary by 1e-4 of the distance, as rounding decides on labels nearer to it. It is an upper bound on
    the distance; of a linear model of two classes, where no pixel meets the box, it tends to the distance itself.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = OptAttack("l2", queries=300)(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape, bool((attacked.prediction != labels).all())
    (torch.Size([1, 5]), True)
    """

    norm: Norm | str = "l2"
    """The distance: "l2". In L-infinity the distance has edges along which no descent by slopes goes on."""
    _: KW_ONLY
    queries: int = 20_000
    """Labels that are asked for, per example and restart, at most, >= 1, that of the image itself included."""
    starts: int = 100
    """Gaussian directions of which the one with the nearest boundary is the first, >= 1."""
    directions: int = 10
    """Directions in which the slope is measured in every step, >= 1."""
    smoothing: float = 0.005
    """Length of the differences by which it is measured, of directions of length 1, in (0, 1): the first one."""
    step_size: float = 0.2
    """First step along the slope of the logarithm of the distance, > 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("queries", "starts", "directions"):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        checked_number("smoothing", self.smoothing, above=0, below=1)
        checked_number("step_size", self.step_size, above=0)
        if self._norm.name != "l2":
            raise ValueError(f"norm = {self.norm!r} is not allowed for Opt-Attack: l2 is")
        checked_finite(self.bounds, "Opt-Attack")

    def _nearest(self, examples: Examples) -> Points:
        labels = Labels(examples, self._objective, self._norm, self.bounds, self.queries)
        x = examples.images
        beta, step = x.new_full((len(x),), self.smoothing), x.new_full((len(x),), self.step_size)
        finest = min(self.smoothing, FINEST * torch.finfo(x.dtype).eps / _TOLERANCE)
        rows, t = self._started(labels), 0
        while True:
            t += 1
            rows = labels.going(rows)
            if not len(rows):
                return labels.secured()
            taken = self._descended(labels, rows, beta[rows], step[rows], t)
            tiny = taken < _LEAST_STEP
            step[rows] = torch.where(tiny, 1.0, taken)
            beta[rows] = torch.where(tiny, (beta[rows] / 10).clamp(min=finest), beta[rows])

    def _started(self, labels: Labels) -> Tensor:
        """Look along Gaussian directions. Return the examples for which one reaches the goal."""
        low, high = self.bounds
        wrong = labels.length == 0
        rows = (~wrong).nonzero().squeeze(1)
        for first in range(0, self.starts, _AT_ONCE):
            rows = labels.going(rows)
            if not len(rows):
                break
            count = min(_AT_ONCE, self.starts - first)
            v = (high - low) * _normals(labels, rows, count, number=0, draw=first)
            rays = Rays(labels, rows.repeat_interleave(count), v.flatten(0, 1))
            # the whole way, or as far as the best so far
            best = labels.length[rays.rows]
            s = rays.at_length(torch.ones_like(best), best).clamp(max=1)
            reached, _ = labels.ask(rays.rows, rays(s))
            rays, s = rays.at(reached), s[reached]
            bisected(labels, rays.rows, rays, torch.zeros_like(s), s, _TOLERANCE * self.smoothing * s)
        return (labels.length.isfinite() & ~wrong).nonzero().squeeze(1)

    def _descended(self, labels: Labels, rows: Tensor, beta: Tensor, step: Tensor, number: int) -> Tensor:
        """Take a step down from the nearest points so far. Return its size, shape (m,), a small one where none helped."""
        q, k = self.directions, len(_FACTORS)
        theta, size = unit(labels.found.images[rows] - labels.examples.images[rows])
        g, tolerance = labels.length[rows], _TOLERANCE * beta * size
        u = _normals(labels, rows, q, number)
        u = unit(u.flatten(0, 1))[0].view_as(u)
        v = theta[:, None] + per_example(beta, u) * u
        rays = Rays(labels, rows.repeat_interleave(q), unit(v.flatten(0, 1))[0])
        g_u = _distances(labels, rays, *(each.repeat_interleave(q) for each in (size, _WIDTH * beta, tolerance)))
        slope = (g_u.view(-1, q) / g[:, None] - 1) / beta[:, None]
        known = slope.isfinite()
        slope = torch.where(known, slope, 0) / known.sum(1, keepdim=True).clamp(min=1)
        gradient = (slope.view(*slope.shape, *[1] * (theta.ndim - 1)) * u).sum(1)

        eta = step[:, None] * torch.tensor(_FACTORS).to(step)
        v = theta[:, None] - eta.view(*eta.shape, *[1] * (theta.ndim - 1)) * gradient[:, None]
        rays = Rays(labels, rows.repeat_interleave(k), unit(v.flatten(0, 1))[0])
        s = rays.at_length(size.repeat_interleave(k), labels.length[rays.rows])
        width, tolerance = (_WIDTH * beta).repeat_interleave(k), tolerance.repeat_interleave(k)
        g_v = _distances(labels, rays, s, width, tolerance, nearest=True).view(-1, k)
        least, which = g_v.min(1)
        return torch.where(least < g, eta.gather(1, which[:, None]).squeeze(1), step * _FACTORS[0])


def _normals(labels: Labels, rows: Tensor, count: int, number: int, draw: int = 0) -> Tensor:
    """Return `count` normal tensors for each of m examples, shape (m, count, ...)."""
    examples = labels.examples.at(rows)
    x = examples.images
    return examples.stream(number).draws(draw).normal(x[:, None].expand(-1, count, *x.shape[1:]))


def _distances(
    labels: Labels, rays: Rays, s: Tensor, width: Tensor, tolerance: Tensor, *, nearest: bool = False
) -> Tensor:
    """Return how far the boundary is along rays, shape (m,): infinite where it was not found (algorithm 1).

    Parameters
    ----------
    s
        Where to begin, shape (m,).
    width
        Of the first bracket, as a share of s, shape (m,).
    tolerance
        Of s, shape (m,).
    nearest
        Follow only what can become the nearest point of its example.
    """
    inwards, _ = labels.ask(rays.rows, rays(s))
    high, low, width = torch.where(inwards, s, torch.inf), torch.where(inwards, 0, s), width.clone()
    lines = inwards.nonzero().squeeze(1) if nearest else torch.arange(len(s), device=s.device)
    for _widening in range(_WIDENINGS):
        lines = lines[(labels.left[rays.rows[lines]] > 0) & (width[lines] < 1)]
        if not len(lines):
            break
        back = inwards[lines]
        edge = torch.where(back, high[lines] * (1 - width[lines]), low[lines] * (1 + width[lines]))
        some = rays.at(lines)
        reached, _ = labels.ask(some.rows, some(edge))
        high[lines] = torch.where(reached, edge, high[lines])
        low[lines] = torch.where(reached, low[lines], edge)
        width[lines] *= 2
        lines = lines[reached == back]
    g = torch.full_like(s, torch.inf)
    found = high.isfinite().nonzero().squeeze(1)
    if len(found):
        some = rays.at(found)
        g[found] = some.length(
            bisected(labels, some.rows, some, low[found], high[found], tolerance[found], nearest=nearest)
        )
    return g
