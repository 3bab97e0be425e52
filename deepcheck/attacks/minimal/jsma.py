"""JSMA: the pixels that matter most for one class and against the others, pair by pair, to the edge of the box."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from deepcheck.attacks.examples import Examples
from deepcheck.attacks.gradients import by_class
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.objectives import Objective, TargetedMargin
from deepcheck.attacks.points import Points
from deepcheck.attacks.targets import Targets
from deepcheck.checks import checked_choice
from odeflow.model import checked_count, checked_number

__all__ = ["JSMA", "best_pairs"]

_ENTRIES = 1 << 22
"""Numbers of a table of pairs that are looked at at once."""


def best_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r"""Return the pairs p < q or q < p that maximise :math:`(a_p + a_q)(b_p + b_q)` where both sums are positive.

    Exact. A pixel that two others match or exceed in both a and b need not be looked at: one of the two can take its place
    in any pair. The others are the first and, without it, the second layer of maxima: few, as a rule, so that not all
    pairs are looked at; and those are taken in parts, so that memory grows with D alone.

    Parameters
    ----------
    a, b
        Shape (n, D), D >= 2; minus infinity for pixels that may not be taken.

    Returns
    -------
    (n, 2) indices, and the values, shape (n,): minus infinity where there is no such pair.
    """
    return _best(a, b, pairs=True)


def _best(a: Tensor, b: Tensor, *, pairs: bool) -> tuple[Tensor, Tensor]:
    """Return the best pairs, (n, 2), or the best pixels, (n, 1), and their values."""
    if not pairs:
        value, index = torch.where((a > 0) & (b > 0), a * b, -torch.inf).max(1)
        return index[:, None], value
    maxima = _maxima(a, b)
    m = int(maxima.sum(1).max())
    index = (~maxima).to(torch.int8).argsort(dim=1, stable=True)[:, :m]
    a, b = (torch.where(maxima, one, -torch.inf).gather(1, index) for one in (a, b))
    value = a.new_full((len(a),), -torch.inf)
    pair = torch.zeros(len(a), 2, dtype=torch.int64, device=a.device)
    size = max(1, _ENTRIES // max(1, len(a) * m))
    for first in range(0, m, size):
        p = slice(first, first + size)
        A, B = a[:, p, None] + a[:, None, :], b[:, p, None] + b[:, None, :]
        score = torch.where((A > 0) & (B > 0), A * B, -torch.inf)
        score.diagonal(first, 1, 2).fill_(-torch.inf)  # no pixel with itself
        most, at = score.flatten(1).max(1)
        here = torch.stack([index.gather(1, (first + at // m)[:, None]), index.gather(1, (at % m)[:, None])], 1)
        pair = torch.where((most > value)[:, None], here.squeeze(2), pair)
        value = torch.maximum(value, most)
    return pair, value


def _maxima(a: Tensor, b: Tensor) -> Tensor:
    """Return which pixels are in the first two layers of maxima of (a, b), shape (n, D); of equal ones, more."""
    order = a.argsort(dim=1, descending=True, stable=True)
    ahead = b.gather(1, order)
    chosen = torch.zeros_like(ahead, dtype=torch.bool)
    for _layer in range(2):
        rest = ahead.masked_fill(chosen, -torch.inf)
        highest = torch.cat([torch.full_like(rest[:, :1], -torch.inf), rest.cummax(1).values[:, :-1]], 1)
        chosen |= rest > highest
    return torch.zeros_like(chosen).scatter_(1, order, chosen)


@dataclass(frozen=True)
class JSMA(MinimalAttack):
    r"""JSMA (Papernot et al., IEEE EuroS&P 2016): pairs of pixels that matter most for a class go to the edge of the box.

    With the slopes :math:`a_p = \partial F_t / \partial x_p` of the target t and
    :math:`b_p = -\sum_{k \ne t} \partial F_k / \partial x_p`, each step takes the pair of pixels

    .. math:: \arg\max_{p \ne q} (a_p + a_q)(b_p + b_q) \quad\text{where}\quad a_p + a_q > 0, \; b_p + b_q > 0 ,

    among all that can still move, and moves both by theta (for a negative theta a and b change their signs), until the
    goal is reached, no pair is left, or the number of steps is :math:`\gamma D / 2`. F are the class probabilities,
    for which a = b, or the logits: on MNIST those reach fewer targets with more pixels. The pair is the best of all pairs.

    By nature the attack aims at a class. By default that is the likeliest wrong class, then the next, in one restart after
    the other; any wrong class will do, and the restart that changes the fewest pixels counts. With the objective
    ``targeted_margin``, ``targets="given"`` and ``restarts=1`` it aims at the classes of the call. Nothing is random. An
    upper bound on the least number of entries.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = JSMA(restarts=3)(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape
    torch.Size([3, 5])
    """

    norm: Norm | str = "l0"
    """The distance: "l0"."""
    objective: Objective | str = field(default_factory=lambda: TargetedMargin(goal="wrong"))
    """Says when the goal is reached: a targeted one."""
    _: KW_ONLY
    restarts: int = 9
    """Searches, >= 1: with targets that the attack chooses one for each, of which the nearest counts."""
    targets: Targets = "likeliest"
    """Where the classes to reach come from: the call, or the class that is least likely on the image, or the likeliest
    wrong one in the first restart, the next in the second, and so on."""
    theta: float = 1.0
    """Change of a pixel in a step, not 0, in the units of the pixels."""
    gamma: float = 0.145
    """Largest share of the entries that may change, in (0, 1]: the paper's for MNIST."""
    pixels: int = 2
    """Pixels of a step, 1 or 2."""
    outputs: Literal["logits", "probabilities"] = "probabilities"
    """What the slopes are of."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "pixels", checked_count("pixels", self.pixels, 1))
        if self.pixels > 2:
            raise ValueError(f"pixels = {self.pixels} is not allowed: 1 or 2 is")
        checked_number("theta", self.theta)
        if self.theta == 0:
            raise ValueError("theta = 0 is not allowed: a change of the pixels is, positive or negative")
        checked_number("gamma", self.gamma, above=0, most=1)
        checked_choice("outputs", self.outputs, ("logits", "probabilities"))
        if self._norm.name != "l0":
            raise ValueError(f"norm = {self.norm!r} is not allowed for JSMA: l0 is")
        if not self._objective.targeted:
            raise ValueError(f"objective = {self.objective!r} is not allowed for JSMA: a targeted one is")

    def _nearest(self, examples: Examples) -> Points:
        rows = torch.arange(len(examples), device=examples.images.device)
        z, found = examples.images.clone(), None
        steps = max(1, int(self.gamma * z[0].numel() / self.pixels))
        for step in range(steps + 1):
            some = examples.at(rows)
            with torch.enable_grad():
                points = some.points(z.requires_grad_(step < steps), self._objective)
            judged = replace(points, images=z.detach(), logits=points.logits.detach(), value=points.value.detach())
            if found is None:
                found = judged.copy()
            found.put(rows, judged)
            assert judged.reached is not None
            if step == steps or bool(judged.reached.all()):
                break
            taken, value = _best(*self._slopes(some, points.logits, z), pairs=self.pixels == 2)
            going = (~judged.reached & (value > 0)).nonzero().squeeze(1)
            if not len(going):
                break
            rows, taken, z = rows[going], taken[going], z.detach()[going].flatten(1)
            z = z.scatter(1, taken, (z.gather(1, taken) + self.theta).clamp(*self.bounds)).view(
                -1, *examples.images.shape[1:]
            )
        assert found is not None
        return found

    def _slopes(self, examples: Examples, logits: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return a and b in the direction of theta, shape (n, D); minus infinity for pixels that cannot move."""
        assert examples.targets is not None
        target = examples.targets[:, None]
        with torch.enable_grad():
            if self.outputs == "probabilities":  # a = b; of log p_t they are 1 / p_t times as large, and rank alike
                f = logits.log_softmax(1).gather(1, target).expand(-1, 2)
            else:
                others = logits.scatter(1, target, 0.0)
                others = others.masked_fill(others.isinf(), 0.0).sum(1, keepdim=True)  # without classes that are masked
                f = torch.cat([logits.gather(1, target), -others], 1)
        way = 1.0 if self.theta > 0 else -1.0
        a, b = (way * gradient.flatten(1) for gradient in by_class(f, z))
        stays = (z >= self.bounds[1] if self.theta > 0 else z <= self.bounds[0]).flatten(1)
        return a.masked_fill(stays, -torch.inf), b.masked_fill(stays, -torch.inf)
