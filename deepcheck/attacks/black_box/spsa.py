"""Ascent along gradients that are estimated from differences in random directions: SPSA and NES."""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from deepcheck.attacks.base import BudgetAttack, Examples
from deepcheck.attacks.black_box.adam import Adam
from deepcheck.attacks.black_box.probes import groups, values
from deepcheck.attacks.draws import Draws
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.points import Points, looks
from deepcheck.checks import checked_choice
from odeflow.model import checked_count, checked_number

__all__ = ["SPSA", "nes"]

_BLOCK = 128
"""Directions that are drawn at once, for the memory. The estimate depends on it, as on a seed."""


@dataclass(frozen=True)
class SPSA(BudgetAttack):
    r"""SPSA (Uesato et al., ICML 2018): ascent by Adam along a gradient estimated from differences in random directions.

    At the current point the objective J is asked for at m pairs of points,

    .. math:: g = \frac1m \sum_{i=1}^m \frac{J(x + \delta v_i) - J(x - \delta v_i)}{2 \delta}\, v_i ,
              \qquad v_i \in \{-1, 1\}^D ,

    the mean of which is the gradient of a linear J exactly, and in general up to :math:`\delta^2` (Spall, IEEE Trans.
    Automat. Contr. 1992): an entry of it has the variance :math:`(|\nabla J|^2 - (\partial_k J)^2) / m`. The step is
    Adam's, or the steepest, and what leaves ball or box is projected back. The points that are asked may leave both
    by :math:`\delta`. Only outputs of the model are used, 2 m + 1 for a step. Pairs without finite logits are left out.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = SPSA("linf", steps=20, samples=16)
    >>> attacked = attack(model, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 1, 5]))
    """

    _: KW_ONLY
    steps: int = 100
    """Steps, >= 1."""
    samples: int = 128
    """Pairs of points for each step, m, >= 1. The paper has 2,048 to 8,192; few of them are a weak attack."""
    difference: float = 0.01
    """Half the distance of the points of a pair in each pixel, delta, > 0, in units of pixels."""
    learning_rate: float = 0.01
    """Size of a step, root mean square over the pixels, > 0, in units of pixels."""
    directions: Literal["signs", "normal"] = "signs"
    """Law of the directions: signs as in SPSA, or normal numbers as in NES."""
    update: Literal["adam", "steepest"] | None = None
    """The step: Adam's (0.9, 0.999), or the steepest in the norm. None: Adam's in L-infinity as in the paper, and the steepest
    in L2, where Adam, whose steps are about the same in all pixels, does not end at the optimum of a linear model."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        object.__setattr__(self, "samples", checked_count("samples", self.samples, 1))
        checked_number("difference", self.difference, above=0)
        checked_number("learning_rate", self.learning_rate, above=0)
        checked_choice("directions", self.directions, ("signs", "normal"))
        if self.update is not None:
            checked_choice("update", self.update, ("adam", "steepest"))
        if self._norm.name not in ("linf", "l2"):
            raise ValueError(f"norm = {self.norm!r} is not allowed for SPSA: linf or l2 is")

    def _attack(self, examples: Examples, epsilon: float) -> Points:
        best = examples.points(examples.images.clone(), self._objective)
        stops = self.stop_when_reached and best.reached is not None
        rows = best.unfinished() if stops else torch.arange(len(examples), device=best.value.device)
        if not len(rows):
            return best
        examples = examples.at(rows)
        confine = self._norm.confinement(examples.images, epsilon, self.bounds)
        z, adam = examples.images, Adam.of(examples.images)
        own = self.update == "adam" or (self.update is None and self._norm.name == "linf")
        # a direction of length 1 in L2 has the root mean square D^(-1/2)
        size = self.learning_rate * (math.sqrt(z[0].numel()) if self._norm.name == "l2" and not own else 1)
        for step in range(1, self.steps + 1):
            g = self.gradient(examples, z, step)
            direction = adam.direction(g.flatten(1)).view_as(g) if own else self._norm.steepest(g)
            z = confine(z + size * direction)
            best.put_better(rows, examples.points(z, self._objective), final=stops)
            if not (stops and looks(step) and step < self.steps):
                continue
            going = best.unfinished(rows)
            if len(going) < len(rows):
                if not len(going):
                    break
                rows, examples, z, adam = rows[going], examples.at(going), z[going], adam.at(going)
                confine = self._norm.confinement(examples.images, epsilon, self.bounds)
        return best

    def gradient(self, examples: Examples, z: Tensor, step: int) -> Tensor:
        """Return the estimate of the objective's gradient at points, shape (n, ...), with the random numbers of a step."""
        g = torch.zeros_like(z)
        blocks = math.ceil(self.samples / _BLOCK)
        for block in range(blocks):
            m = min(_BLOCK, self.samples - block * _BLOCK)
            for some in groups(examples, 2 * m):
                part, here = examples.at(some), z[some, None]
                v = self._drawn(part.draws(step * blocks + block), here.expand(-1, m, *z.shape[1:]))
                pairs = torch.cat([here + self.difference * v, here - self.difference * v], 1)
                up, down = values(part, pairs, self._objective).to(z.dtype).split(m, dim=1)
                slope = ((up - down) / (2 * self.difference)).nan_to_num_(0.0, 0.0, 0.0)
                g[some] += v.mul_(slope.view(-1, m, *[1] * (z.ndim - 1))).sum(1)
        return g / self.samples

    def _drawn(self, draws: Draws, like: Tensor) -> Tensor:
        """Return directions, shape (n, m, ...)."""
        return draws.normal(like) if self.directions == "normal" else draws.signs(like, *like.shape[1:])


def nes(
    norm: Norm | str = "linf",
    objective: Objective | str = "margin",
    *,
    steps: int = 100,
    samples: int = 50,
    difference: float = 0.001,
    learning_rate: float = 0.01,
    restarts: int = 1,
) -> SPSA:
    """Return ascent along estimates from normal directions (NES; Ilyas, Engstrom, Athalye, Lin, ICML 2018).

    Every step is the steepest in the norm; theirs smooth the direction over steps.
    """
    return SPSA(
        norm,
        objective,
        steps=steps,
        samples=samples,
        difference=difference,
        learning_rate=learning_rate,
        restarts=restarts,
        directions="normal",
        update="steepest",
    )
