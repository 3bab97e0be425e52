"""The attacks of Carlini and Wagner: the nearest example as the minimum of distance and hinge, in tanh space, by Adam."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from deepcheck.attacks.examples import Examples
from deepcheck.attacks.minimal.penalty import PenaltyAttack
from deepcheck.attacks.minimal.tanh import Adam, TanhSpace
from deepcheck.attacks.minimal.tighten import Entries, Largest, tightened
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.points import Points
from odeflow.model import checked_number

__all__ = ["CarliniWagner"]


@dataclass(frozen=True)
class CarliniWagner(PenaltyAttack):
    r"""C&W (Carlini, Wagner, IEEE S&P 2017): distance and hinge minimised together by Adam, in tanh space.

    In L2, with the objective m (the margin of the logits, of a target or of any wrong class) and the confidence kappa,

    .. math:: \min_u \; |x' - x|_2^2 + c \max(\kappa - m(x'), 0), \qquad x' = (\tanh u + 1) / 2

    for pixels in [0, 1], from :math:`x' = x`. The first c is `initial_c`, times 10 until a run succeeds; then it is bisected.

    In L-infinity the distance is replaced by :math:`\sum_i \max(|x'_i - x_i| - s, 0)`, and s, at first the size of the box,
    becomes `share` of the largest change whenever the goal is reached within it, until it is 1/256 of the box. In L0 the
    distance is that of L2 on the entries that may change: whenever the goal is reached, `share` of those that have changed
    may go on, the ones of largest :math:`|\nabla_i m \, (x'_i - x_i)|`. In both, where a run ends without that, the next
    goes on from there with 10 c, `searches` times at most.

    Every image has a c, a bound and an end of its own. Upper bounds on the least distances: in L2 on linear models within
    1 % of it. Nothing is random.

    The paper has 10,000 steps, kappa 0 (in its high-confidence attacks up to 40), and, as its code, 9 values of c from
    0.001, in L-infinity from 0.00001 doubled up to 20; a line search it has not. Here 99 % of (-1, 1) are the box; there 100,
    and in the code 99.9999, so that black and white pixels are hard to move.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = CarliniWagner("l2", steps=200)(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape, bool((attacked.prediction != labels).all())
    (torch.Size([1, 5]), True)
    """

    norm: Norm | str = "l2"
    """The distance: "l2", "linf" or "l0"."""
    _: KW_ONLY
    share: float = 0.9
    """In L-infinity and L0: what is left of the bound whenever it holds, in (0, 1)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("share", self.share, above=0, below=1)
        if self._norm.name not in ("l2", "linf", "l0"):
            raise ValueError(f"norm = {self.norm!r} is not allowed for CarliniWagner: l2, linf or l0 is")
        if not all(math.isfinite(edge) for edge in self.bounds):
            raise ValueError(f"bounds = {self.bounds!r} is not allowed for CarliniWagner: finite ones are")

    def _size(self, delta: Tensor) -> Tensor:
        return self._norm.length(delta)

    def _search_all(self, examples: Examples, best: Points) -> Points:
        if self._norm.name == "l2":
            return super()._search_all(examples, best)
        x = examples.images
        if self._norm.name == "l0":
            return tightened(self, examples, best, Entries.of(x), self.share)
        return self._on_the_line(examples, tightened(self, examples, best, Largest.of(x, self.bounds), self.share))

    def _walk(self, examples: Examples, c: Tensor) -> _Walk:
        space = TanhSpace(examples.images, self.bounds)
        u = space.start.clone()
        return _Walk(self, examples, c, space, u, Adam(u, self.step_size, self.steps))


@dataclass(eq=False)
class _Walk:
    """Adam in tanh space down |z - x|^2 + c max(confidence - objective, 0)."""

    attack: CarliniWagner
    examples: Examples
    c: Tensor
    space: TanhSpace
    u: Tensor
    adam: Adam

    def step(self, number: int) -> tuple[Points, Tensor]:
        """Return the points before the step, and the loss there."""
        del number
        z, slope = self.space.points(self.u)
        points, gradient = self.attack._points_and_gradient(self.examples, z)
        delta = z - self.examples.images
        hinge, weight = self.attack._hinge(points, self.c)
        loss = delta.flatten(1).square().sum(1) + hinge
        self.adam.move(self.u, delta.mul_(2).sub_(per_example(weight, z) * gradient).mul_(slope))
        return points, loss

    def at(self, rows: Tensor) -> _Walk:
        """Return the walk of some of the images."""
        examples, space, adam = self.examples.at(rows), self.space.at(rows), self.adam.at(rows)
        return _Walk(self.attack, examples, self.c[rows], space, self.u[rows], adam)
