"""ZOO: the attack of Carlini and Wagner with its gradient estimated pixel by pixel, from outputs alone."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.black_box.adam import Adam
from deepcheck.attacks.black_box.probes import groups, values
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.norms import Norm, rounded
from deepcheck.attacks.points import Points
from odeflow.model import checked_count, checked_number

__all__ = ["ZOO"]

_LOOKS = 10
"""How often a descent asks whether it still gains."""
_GAIN = 1e-4
"""Share of the loss that it must have gained by then."""


@dataclass(frozen=True)
class ZOO(MinimalAttack):
    r"""ZOO (Chen, Zhang, Sharma, Yi, Hsieh, AISec 2017): Carlini and Wagner's attack with differences for the gradient.

    With the margin of the true class over the others, :math:`f(x) = \max(z_y - \max_{k \ne y} z_k, -\kappa)` (or of the
    others over the target), and :math:`\delta = x - x_0`, it descends

    .. math:: c f(x) + |\delta|_2^2

    in some pixels at a time, chosen at random, of which Adam has moments and counts of their own. The slope of f along a
    pixel is a difference of f at two points over their distance, that of the square is exact. The constant c is found for
    each example by bisection: ten times larger until the goal is reached, then between what reached it and what did not.
    The nearest point that reached it counts.

    Points are clipped to the box after every step, and so are those that are asked: at an edge of the box the difference
    is one-sided. (The paper's variant for MNIST has tanh in the place of the clip.) A difference of log p_k is one of
    logits, in which nothing is lost where p_y rounds to 1: so f is taken from logits. The paper asks on where f is flat,
    that is beyond the margin; here that costs one evaluation in place of two for each pixel. Only outputs of the model are
    used, at most 2 `coordinates` + 1 for a step.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = ZOO(steps=60, bisections=4)
    >>> attacked = attack(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape, bool((attacked.prediction != labels).all())
    (torch.Size([1, 5]), True)
    """

    norm: Norm | str = "l2"
    """The distance: "l2"."""
    _: KW_ONLY
    steps: int = 3000
    """Steps of each descent, >= 1. The paper has 3,000 on MNIST, 1,000 on CIFAR-10."""
    coordinates: int = 128
    """Pixels of a step, of all channels, >= 1; of images with fewer, all."""
    difference: float = 1e-4
    """How far a pixel is moved to each side for a slope, h, > 0, in units of pixels: the square root of the rounding unit
    of the images' precision at least, 3e-4 in single and 0.03 in half precision."""
    learning_rate: float = 0.01
    """Of Adam, > 0, in units of pixels."""
    kappa: float = 0.0
    """Margin that a point must have to count, >= 0, in units of logits."""
    bisections: int = 9
    """Descents with different c, >= 1."""
    c: float = 0.01
    """The first c, > 0."""
    abort: bool = True
    """End a descent that has not gained 0.01 % of its loss in a tenth of the steps."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("steps", "coordinates", "bisections"):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        for name in ("difference", "learning_rate", "c"):
            checked_number(name, getattr(self, name), above=0)
        checked_number("kappa", self.kappa, least=0)
        if not isinstance(self.abort, bool):
            raise TypeError(f"abort = {self.abort!r} is not a bool: allowed is True or False")
        if self._norm.name != "l2":
            raise ValueError(f"norm = {self.norm!r} is not allowed for ZOO: l2 is")
        if self._objective.name not in ("margin", "targeted_margin"):
            raise ValueError(f"objective = {self.objective!r} is not allowed for ZOO: margin or targeted_margin is")

    def _nearest(self, examples: Examples) -> Points:
        found = _Found(examples.points(examples.images.clone(), self._objective), self.kappa)
        c = found.length.new_full((len(examples),), self.c)
        low, high = torch.zeros_like(c), torch.full_like(c, math.inf)
        rows = (found.length > 0).nonzero().squeeze(1)
        for bisection in range(self.bisections):
            if not len(rows):
                break
            reached = self._descend(examples.at(rows), bisection, c[rows], found, rows)
            low[rows] = torch.where(reached, low[rows], c[rows])
            high[rows] = torch.where(reached, c[rows], high[rows])
            c = torch.where(high.isinf(), 10 * c, (low + high) / 2)
        return found.points

    def _descend(self, examples: Examples, bisection: int, c: Tensor, found: _Found, rows: Tensor) -> Tensor:
        """Descend from the images with one c each, put what is nearer in, and return which reached the margin."""
        x = examples.images.flatten(1)
        n, D = x.shape
        m = min(self.coordinates, D)
        reached, adam, z, every = (
            torch.zeros_like(c, dtype=torch.bool),
            Adam.of(x),
            x.clone(),
            max(1, self.steps // _LOOKS),
        )
        place = torch.arange(n, device=x.device)  # in what this descent was given
        here, before = torch.zeros_like(reached), torch.full_like(c, math.inf)  # whether f is flat here; the last loss
        for step in range(self.steps):
            chosen = examples.draws(bisection * self.steps + step).words(D).argsort(dim=1, stable=True)[:, :m]
            g = 2 * (z - x).gather(1, chosen)
            steep = (~here).nonzero().squeeze(1)  # elsewhere f is flat
            if len(steep):
                some = examples.at(steep)
                g[steep] -= c[steep, None] * self._slopes(some, z[steep].view_as(some.images), chosen[steep])
            moved = z.gather(1, chosen) - self.learning_rate * adam.direction(g, chosen)
            z.scatter_(1, chosen, moved.clamp_(*self.bounds))
            points = examples.points(z.view_as(examples.images).clone(), self._objective)
            here = found.put_nearer(rows, examples, points)
            reached[place] |= here
            if self.abort and (step + 1) % every == 0:
                loss = c * (-points.value).to(x.dtype).clamp(min=-self.kappa) + (z - x).square().sum(1)
                going = (loss < (1 - _GAIN) * before).nonzero().squeeze(1)
                before = loss
                if not len(going):
                    break
                if len(going) < len(rows):
                    examples, rows, place, adam = examples.at(going), rows[going], place[going], adam.at(going)
                    x, z, c, here, before = x[going], z[going], c[going], here[going], before[going]
        return reached

    def _slopes(self, examples: Examples, z: Tensor, chosen: Tensor) -> Tensor:
        """Return differences of the objective along the chosen coordinates, both of shape (n, m)."""
        m = chosen.shape[1]
        h = max(self.difference, math.sqrt(torch.finfo(examples.dtype).eps))
        slopes = []
        for some in groups(examples, 2 * m):
            part, here, index = examples.at(some), z[some].flatten(1), chosen[some]
            now, image = here.gather(1, index), part.images.flatten(1).gather(1, index)
            # as the model gets them: of what is asked and not of what was meant, so that no rounding is divided by h
            up, down = (
                rounded((now + side).clamp_(*self.bounds), image, examples.dtype).to(now.dtype) for side in (h, -h)
            )
            asked = here[:, None].repeat(1, 2 * m, 1)
            asked.scatter_(2, torch.cat([index, index], 1)[..., None], torch.cat([up, down], 1)[..., None])
            f = values(part, asked.view(len(part), 2 * m, *z.shape[1:]), self._objective).to(now.dtype)
            slopes.append(((f[:, :m] - f[:, m:]) / (up - down)).nan_to_num_(0.0, 0.0, 0.0))
        return torch.cat(slopes)


class _Found:
    """The nearest points so far that reach the margin, and elsewhere the best."""

    def __init__(self, clean: Points, kappa: float) -> None:
        self.points = clean
        self.kappa = kappa
        assert clean.reached is not None
        self.length = torch.where(self._counts(clean), 0.0, math.inf).to(clean.images.dtype)

    def put_nearer(self, rows: Tensor, examples: Examples, points: Points) -> Tensor:
        """Put points of the examples `rows` in where they are nearer, and return which reach the margin."""
        counts = self._counts(points)
        delta = examples.rounded(points.images).to(points.images.dtype) - examples.images
        length = torch.linalg.vector_norm(delta.flatten(1), dim=1).masked_fill(~counts, math.inf)
        mine, least = self.points.at(rows), self.length[rows]
        nearer = (length < least) | (least.isinf() & points.better_than(mine))
        mine.put_where(nearer, points)
        self.points.put(rows, mine)
        self.length[rows] = torch.minimum(length, least)
        return counts

    def _counts(self, points: Points) -> Tensor:
        assert points.reached is not None
        return points.reached & (points.value >= self.kappa) if self.kappa else points.reached
