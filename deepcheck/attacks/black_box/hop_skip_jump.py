"""HopSkipJump: along the boundary, by labels alone."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.black_box.boundary import FINEST, Labels, bisected, checked_finite, unit
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.points import Points
from deepcheck.attacks.starts import Tiles
from odeflow.model import checked_count

__all__ = ["HopSkipJump"]

_AT_ONCE = 20
"""Directions that are tried of each example at once: memory is for so many points."""
_MOST = 10_000
"""Directions of one estimate, at most."""
_FIRST = 0.1
"""Distance of the points of the first estimate, as a share of the box."""
_HALVINGS = 20
"""Of a step, at most."""
_COARSEST = 1e-3
"""Largest tolerance of a bisection, as a share of the distance: images of few pixels."""


@dataclass(frozen=True)
class HopSkipJump(MinimalAttack):
    r"""HopSkipJump (Chen, Jordan, Wainwright, IEEE S&P 2020): along the boundary, by labels alone.

    From a point :math:`z_t` on the boundary, found by bisection between the image x and a point that reaches the goal, the
    direction of the gradient is estimated by labels :math:`\phi = \pm 1` of B points around it (eqs. 9 and 16),

    .. math:: v_t = \frac{1}{B - 1} \sum_{b=1}^B \big(\phi(z_t + \delta_t u_b) - \bar\phi\big) u_b , \qquad
              B_t = B_0 \sqrt t , \qquad \delta_t = |z_t - x| / D ,

    with u uniform on the unit sphere (in L-infinity, normalised from the cube), or what the box leaves of it, and the mean
    of the labels as baseline. Then comes a step along :math:`v_t / |v_t|_2` (in L-infinity its signs), of the length
    :math:`|z_t - x| / \sqrt t`, which is halved until the goal is reached, and bisection towards x again, to the share
    :math:`\theta = D^{-3/2}` of the distance (in L-infinity :math:`D^{-2}`), but no more than 1/1000, and no less than 64
    times the precision, where rounding decides on labels, and :math:`\delta` is larger by as much.

    Beside the paper: the next step starts from the nearest point so far, so that a bisection that cannot become the nearest
    is given up; first points are uniform in the box and, in turn, the image with tiles of black and white, as some nets
    call all noise one class; the number of queries is given, and never exceeded, not the number of steps; and what leaves the attack is
    beyond the boundary by 1e-4 of the distance, so that another batch size or device finds the same class.

    Of the model's outputs the class alone is used: logits, gradients and confidences do not matter, and the attack suits
    defences that have no gradient. What it finds is an upper bound on the distance; for a linear model of two classes, where
    no pixel meets the box, it tends to the distance itself with the number of queries.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = HopSkipJump("l2", queries=300)(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape, bool((attacked.prediction != labels).all())
    (torch.Size([1, 5]), True)
    """

    norm: Norm | str = "l2"
    """The distance: "l2" or "linf"."""
    _: KW_ONLY
    queries: int = 5000
    """Labels that are asked for, per example and restart, at most, >= 1, that of the image itself included."""
    directions: int = 100
    """Directions of the first estimate, B_0, >= 1; the t-th has sqrt(t) times as many, up to 10,000."""
    starts: int = 50
    """Points that are tried at most, to find a first one that reaches the goal, >= 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("queries", "directions", "starts"):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        if self._norm.name not in ("linf", "l2"):
            raise ValueError(f"norm = {self.norm!r} is not allowed for HopSkipJump: linf or l2 is")
        checked_finite(self.bounds, "HopSkipJump")

    def _nearest(self, examples: Examples) -> Points:
        labels = Labels(examples, self._objective, self._norm, self.bounds, self.queries)
        x = examples.images
        D = x[0].numel()
        theta = D**-1.5 if self._norm.name == "l2" else float(D) ** -2
        theta = max(min(theta, _COARSEST), FINEST * torch.finfo(x.dtype).eps)
        share = max(1 / D, (math.sqrt(D) if self._norm.name == "l2" else D) * theta)
        after = 2 + math.ceil(math.log2(1 / theta))  # queries of a step and the bisection after it
        rows, t = self._started(labels, theta), 0
        while True:
            t += 1
            rows = labels.going(rows)
            if not len(rows):
                return labels.secured()
            now, length = labels.found.images[rows], labels.length[rows]
            delta = share * length if t > 1 else torch.full_like(length, _FIRST * (self.bounds[1] - self.bounds[0]))
            most = min(round(self.directions * math.sqrt(t)), _MOST)
            B = torch.minimum((labels.left[rows] - after).clamp(1, most), labels.left[rows])
            d = self._norm.steepest(direction(labels, rows, now, delta, B, t))
            lines, far = self._stepped(labels, rows, now, d, length / math.sqrt(t))
            self._to_boundary(labels, rows[lines], far, theta)

    def _started(self, labels: Labels, theta: float) -> Tensor:
        """Find a first point for each example, and go to the boundary. Return the examples that have one."""
        low, high = self.bounds
        rows = labels.length.isinf().nonzero().squeeze(1)
        for start in range(self.starts):
            some = labels.going(rows[labels.length[rows].isinf()])
            if not len(some):
                break
            examples = labels.examples.at(some)
            x, draws = examples.images, examples.draws(start)
            if start % 2 == 0:
                z = (low + high) / 2 + (high - low) / 2 * draws.symmetric(x)
            else:
                z = x + Tiles()(self._norm, x, high - low, draws)
            labels.ask(some, z.clamp_(low, high))
        rows = rows[labels.length[rows].isfinite()]
        self._to_boundary(labels, rows, labels.found.images[rows], theta)
        return rows

    def _to_boundary(self, labels: Labels, rows: Tensor, far: Tensor, theta: float) -> None:
        """Bisect between images and points `far`, which reach the goal."""
        kind = Segments if self._norm.name == "l2" else Cubes
        x = labels.examples.images[rows]
        one = x.new_ones(len(rows))
        bisected(labels, rows, kind(x, far), 0 * one, one, theta * one)

    def _stepped(self, labels: Labels, rows: Tensor, now: Tensor, d: Tensor, step: Tensor) -> tuple[Tensor, Tensor]:
        """Go along d, half as far until the goal is reached. Return which examples do, and where they are then."""
        far, done = now.clone(), torch.zeros_like(rows, dtype=torch.bool)
        lines = torch.arange(len(rows), device=rows.device)
        for halving in range(_HALVINGS):
            lines = lines[~done[lines] & (labels.left[rows[lines]] > 0)]
            if not len(lines):
                break
            length = per_example(step[lines] / 2**halving, now)
            far[lines] = (now[lines] + length * d[lines]).clamp_(*self.bounds)
            done[lines], _ = labels.ask(rows[lines], far[lines])
        lines = done.nonzero().squeeze(1)
        return lines, far[lines]


@dataclass(frozen=True, eq=False)
class Segments:
    """Segments from images x to other points: the nearest way in L2."""

    x: Tensor
    far: Tensor

    def at(self, lines: Tensor) -> Segments:
        """Return some of them."""
        return type(self)(self.x[lines], self.far[lines])

    def __call__(self, s: Tensor) -> Tensor:
        """Return the points at the share s of the way, shape (m,)."""
        return torch.lerp(self.x, self.far, per_example(s, self.x))


class Cubes(Segments):
    """The same in L-infinity: of the other points, what the cube of the share s of the distance leaves of them."""

    def __call__(self, s: Tensor) -> Tensor:
        """Return the points clipped to the cube, shape (m, ...)."""
        radius = per_example(s * (self.far - self.x).flatten(1).abs().amax(1), self.x)
        return torch.clamp(self.far, self.x - radius, self.x + radius)


def direction(labels: Labels, rows: Tensor, now: Tensor, delta: Tensor, B: Tensor, number: int) -> Tensor:
    r"""Return the direction in which the goal is reached, by the labels of points around points on the boundary.

    Parameters
    ----------
    labels, rows
        Who is asked, and about which examples, of which there are m.
    now
        Points on the boundary, shape (m, ...).
    delta
        Distance of the points around them, shape (m,).
    B
        How many, shape (m,), int64.
    number
        Of the estimate, for its random numbers.

    Returns
    -------
    Tensor
        :math:`\sum_b (\phi_b - \bar\phi) u_b`, and where all labels are equal :math:`\sum_b \phi_b u_b`, shape (m, ...). On a flat
        boundary through `now` its mean is along the normal, exactly; and the cosine to it is about
        :math:`(1 + \pi D / 2 B)^{-1/2}`.
    """
    examples = labels.examples.at(rows).stream(number)
    ones = [1] * (now.ndim - 1)
    weighted, plain, total = torch.zeros_like(now), torch.zeros_like(now), torch.zeros_like(delta)
    for first in range(0, int(B.max()), _AT_ONCE):
        some = (first < B).nonzero().squeeze(1)
        m = (B[some] - first).clamp(max=_AT_ONCE)
        asked = torch.arange(_AT_ONCE, device=m.device) < m[:, None]
        z, step = now[some][:, None], delta[some].view(-1, 1, *ones)
        like, draws = z.expand(-1, _AT_ONCE, *now.shape[1:]), examples.at(some).draws(first)
        u = draws.normal(like) if labels.norm.name == "l2" else draws.symmetric(like)
        u = unit(u.flatten(0, 1))[0].view_as(u)
        points = (z + step * u).clamp_(*labels.bounds)
        u = (points - z) / step
        phi = u.new_zeros(asked.shape)
        reached, _ = labels.ask(rows[some].repeat_interleave(m), points[asked], keep=False)
        phi[asked] = 2 * reached.to(phi.dtype) - 1
        weighted[some] += (phi.view(*phi.shape, *ones) * u).sum(1)
        plain[some] += (asked.view(*phi.shape, *ones) * u).sum(1)
        total[some] += phi.sum(1)
    mean = total / B
    return weighted - per_example(torch.where(mean.abs() < 1, mean, 0), now) * plain
