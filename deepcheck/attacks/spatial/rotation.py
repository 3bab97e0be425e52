"""Rotations and translations, tried one after the other."""

from __future__ import annotations

import functools
from dataclasses import KW_ONLY, dataclass, replace
from typing import Literal

from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.black_box.search import RandomSearch
from deepcheck.attacks.draws import Draws
from deepcheck.attacks.measures import Measure, RigidSize, measure
from deepcheck.attacks.points import Points
from deepcheck.attacks.spatial.sampling import Border
from deepcheck.attacks.spatial.transformations import Rigid
from deepcheck.checks import checked_choice
from odeflow.model import checked_count

__all__ = ["Rotation"]


@dataclass(frozen=True)
class Rotation(RandomSearch):
    """Rotations and translations (Engstrom et al., ICML 2019), all of a grid or some at random: the worst of them.

    Epsilon multiplies the largest angle and the largest shift: 1 is the paper's. The image itself is always the first that
    is tried; a grid is tried from small transformations to large, so that the smallest that reaches the goal is found. Only
    outputs of the model are used. See `Rigid` for what a rotation is.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = Rotation(angles=5, shifts=3)
    >>> attacked = attack(model, images, labels, epsilon=1.0, generator=torch.Generator().manual_seed(0))
    >>> attacked.images.shape, bool((attacked.length <= 1).all())
    (torch.Size([5, 1, 8, 8]), True)
    """

    norm: Measure | str = "rigid"
    """What measures the transformation: rigid, angle and shifts as shares of the largest."""
    _: KW_ONLY
    search: Literal["grid", "random"] = "grid"
    """grid: all angles with all shifts of a grid. random: uniform draws."""
    angles: int = 31
    """Angles of the grid, >= 1; 1 is no rotation."""
    shifts: int = 5
    """Shifts of the grid along each axis, >= 1; 1 is no shift."""
    draws: int = 10
    """Transformations that are drawn in a random search, >= 1."""
    angle: float = 30.0
    """Largest angle in degrees, in [0, 180]."""
    shift: float = 3.0
    """Largest shift along an axis in pixels, >= 0."""
    border: Border = "zero"
    """What is outside: the nearest pixel (edge), the image mirrored at its outermost pixels (mirror), or 0 (zero)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_choice("search", self.search, ("grid", "random"))
        for name in ("angles", "shifts", "draws"):
            object.__setattr__(self, name, checked_count(name, getattr(self, name), 1))
        self._rigid  # noqa: B018  # its ranges are checked where it is made

    @property
    def effort(self) -> str:
        """How hard the attack tries, as text."""
        return f"{self._queries} queries" + (f" x {self.restarts}" if self.restarts > 1 else "")

    @property
    def _rigid(self) -> Rigid:
        return Rigid(self.angle, self.shift, self.border)

    @property
    def _queries(self) -> int:
        return len(_grid(self.angles, self.shifts)) if self.search == "grid" else self.draws + 1

    def _checked_norm(self) -> Measure:
        return measure(self.norm, {"rigid": RigidSize()})

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        self._rigid.check(shape, self.bounds)

    def _propose(self, query: int, x: Tensor, now: Tensor, epsilon: float, draws: Draws) -> Tensor:
        del now
        return self._rigid.apply(x, self._parameters(query, x, epsilon, draws)).clamp_(*self.bounds)

    def _ask(self, query: int, examples: Examples, now: Tensor, epsilon: float) -> Points:
        x = examples.images
        points = examples.points(self._propose(query, x, now, epsilon, examples.draws(query)), self._objective)
        theta = self._parameters(query, x, epsilon, examples.draws(query))
        return replace(points, size=self._rigid.size(theta).expand(len(x)).clone())

    def _parameters(self, query: int, x: Tensor, epsilon: float, draws: Draws) -> Tensor:
        """Return the parameters of the transformation that is tried in a query, shape (n, 3), or (1, 3) for all images."""
        if self.search == "grid":
            theta = x.new_tensor([_grid(self.angles, self.shifts)[query]])
        else:
            theta = x.new_zeros(len(x), 3)
            theta = draws.symmetric(theta) if query else theta
        return self._rigid.confine(epsilon * theta, epsilon)


@functools.lru_cache(maxsize=64)
def _grid(angles: int, shifts: int) -> list[tuple[float, float, float]]:
    """Return the transformations of a grid, as shares of the largest, from small to large; the first is the identity."""
    turns, moves = ([(2 * k - m + 1) / max(m - 1, 1) for k in range(m)] for m in (angles, shifts))  # 0 exactly
    grid = [(a, b, c) for a in turns for b in moves for c in moves]
    grid.sort(key=lambda one: max(abs(share) for share in one))
    return grid if not any(grid[0]) else [(0.0, 0.0, 0.0), *grid]
