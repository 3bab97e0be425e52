"""Attacks by gradient over the parameters of transformations: flows, colours, additive ones, and several together."""

from __future__ import annotations

import abc
from dataclasses import KW_ONLY, dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from deepcheck.attacks.base import BudgetAttack, Examples
from deepcheck.attacks.gradients import points_and_gradient
from deepcheck.attacks.measures import ColourSize, CombinedSize, FlowSize, Measure, measure
from deepcheck.attacks.points import Points, looks
from deepcheck.attacks.spatial.colour import Colour
from deepcheck.attacks.spatial.descent import LBFGS, Adam, Descent
from deepcheck.attacks.spatial.sampling import Border
from deepcheck.attacks.spatial.transformations import Additive, Flow, Transformation
from deepcheck.checks import checked_choice
from odeflow.model import checked_count, checked_number

__all__ = ["Combined", "ReColorAdv", "StAdv", "Transformed", "Transforming"]

Optimiser = Literal["adam", "lbfgs"]


@dataclass(frozen=True)
class Transforming(BudgetAttack):
    r"""An attack on images through the parameters of transformations, applied one after the other.

    With objective :math:`f`, transformations :math:`T_i` of bounds :math:`b_i` and penalties :math:`L_i` of weights
    :math:`\tau_i`, it looks for the least

    .. math:: -\min(f(T(x; \theta)), \kappa) + \sum_i \tau_i L_i(\theta_i) , \qquad
              \mathrm{size}_i(\theta_i) \le \epsilon\, b_i ,

    from the identity. The variables of the search are :math:`\theta_i / b_i`, confined after every step. An example is
    finished once it reaches the goal of the objective with the objective :math:`\kappa` at least. With
    `stop_when_reached = False` it goes on, and of the points that are so the one of the least penalty is kept. `length` is
    the largest of :math:`\mathrm{size}_i / b_i`. Nothing is random: restarts repeat what was found.
    """

    norm: Measure | str = "combined"
    """What measures the transformation: a name, or a Measure."""
    _: KW_ONLY
    steps: int = 100
    """Gradient steps, >= 1."""
    relative_step_size: float = 0.05
    """Length of a step as a share of the bound, > 0: of every step of Adam in each variable, and of the first of L-BFGS in
    that of the largest gradient."""
    optimiser: Optimiser = "adam"
    """adam, or lbfgs: a step is then the next evaluation of a search along a line."""
    relaxation: float = 1e-3
    """Factor in (0, 1] by which the weights of the penalties fall from the first step to the last, geometrically: where a
    smooth transformation does not reach the goal, a rougher one may. 1: they stay, as in the papers."""
    kappa: float = 0.0
    """Objective that an example must have to be finished, >= 0, in units of the logits for margins."""

    _own: ClassVar[Measure] = CombinedSize()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        checked_number("relative_step_size", self.relative_step_size, above=0)
        checked_number("relaxation", self.relaxation, above=0, most=1)
        checked_number("kappa", self.kappa, least=0)
        checked_choice("optimiser", self.optimiser, ("adam", "lbfgs"))
        self._parts  # noqa: B018  # their ranges are checked where they are made

    @property
    @abc.abstractmethod
    def _parts(self) -> tuple[Transformation, ...]:
        """The transformations, the first first."""

    def _checked_norm(self) -> Measure:
        return measure(self.norm, {self._own.name: self._own})

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        for part in self._parts:
            part.check(shape, self.bounds)

    def _attack(self, examples: Examples, epsilon: float) -> Points:
        search = _Search(self, self._parts, epsilon)
        p = search.start(examples.images)
        kept, penalty, loss, gradient = search.evaluate(examples, p)
        least = penalty
        rows: Tensor | None = None  # of the examples that are still attacked; None: all
        stops = self.stop_when_reached and kept.reached is not None
        step = self.relative_step_size * epsilon
        descent: Descent = Adam(step) if self.optimiser == "adam" else LBFGS(step)
        for t in range(1, self.steps + 1 if epsilon else 1):
            p = search.confined(descent(p, loss, gradient), examples.images)
            now, penalty, loss, gradient = search.evaluate(
                examples, p, self.relaxation ** (t / self.steps), with_gradient=t < self.steps
            )
            mine, mine_least = (kept, least) if rows is None else (kept.at(rows), least[rows])
            better = self._better(now, penalty, mine, mine_least)
            mine.put_where(better, now)
            mine_least = torch.where(better, penalty, mine_least)
            if rows is None:
                least = mine_least
            else:
                kept.put(rows, mine)
                least[rows] = mine_least
            if not (stops and looks(t) and t < self.steps):
                continue
            going = (~self.finished(mine)).nonzero().squeeze(1)
            if len(going) <= 0.75 * len(examples):  # a smaller batch pays
                if not len(going):
                    break
                rows = going if rows is None else rows[going]
                examples, p, loss, gradient = examples.at(going), p[going], loss[going], gradient[going]
                descent.keep(going)
        return kept

    def finished(self, points: Points) -> Tensor:
        """Return which points reach the goal and have the objective kappa, shape (n,)."""
        if points.reached is None:
            return torch.zeros_like(points.value, dtype=torch.bool)
        return points.reached & (points.value >= self.kappa)

    def _better(self, now: Points, penalty: Tensor, kept: Points, least: Tensor) -> Tensor:
        """Return where the points are better than what is kept: finished, then of less penalty; or worse for the model."""
        new, old = self.finished(now), self.finished(kept)
        if self.stop_when_reached:
            return ~old & (new | now.better_than(kept))
        return (new & ~old) | (new & old & (penalty < least)) | (~new & ~old & now.better_than(kept))


@dataclass(frozen=True)
class Transformed(Transforming):
    """Any transformations one after the other, each within epsilon times its bound, by gradient.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = Transformed(transformations=(Colour(0.06), Flow(0.5), Additive(8 / 255)))
    >>> attacked = attack(model, images, labels, epsilon=1.0, generator=torch.Generator().manual_seed(0))
    >>> attacked.images.shape, bool((attacked.length <= 1).all())
    (torch.Size([5, 1, 8, 8]), True)
    """

    _: KW_ONLY
    transformations: tuple[Transformation, ...] = (Colour(), Flow(0.8), Additive())
    """Which ones, the first first."""

    def __post_init__(self) -> None:
        given: object = self.transformations
        if (
            not isinstance(given, tuple | list)
            or not given
            or not all(isinstance(one, Transformation) for one in given)
        ):
            raise ValueError(
                f"transformations = {given!r} are not allowed: a tuple of them is, say (Flow(), Additive())"
            )
        object.__setattr__(self, "transformations", tuple(given))
        super().__post_init__()

    @property
    def _parts(self) -> tuple[Transformation, ...]:
        return self.transformations


@dataclass(frozen=True)
class StAdv(Transforming):
    """Spatially transformed adversarial examples (Xiao et al., ICLR 2018): a smooth flow of the pixels.

    The margin up to kappa, and tau times the roughness of the flow; epsilon is the longest displacement in pixels, which
    the paper does not bound. See `Flow` for the penalty and the border.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = StAdv()(model, images, labels, epsilon=1.0, generator=torch.Generator().manual_seed(0))
    >>> attacked.images.shape, bool((attacked.length <= 1).all())
    (torch.Size([5, 1, 8, 8]), True)
    """

    norm: Measure | str = "flow"
    """What measures the transformation: flow, the longest displacement of a pixel."""
    _: KW_ONLY
    tau: float = 0.05
    """Weight of the roughness of the flow, >= 0. Nets that withstand smooth flows are attacked with 0 as well: on an
    adversarially trained net that broke twice as many images."""
    border: Border = "edge"
    """What is outside: the nearest pixel (edge), the image mirrored at its outermost pixels (mirror), or 0 (zero)."""

    _own = FlowSize()

    @property
    def _parts(self) -> tuple[Transformation, ...]:
        return (Flow(1.0, checked_number("tau", self.tau, least=0), self.border),)


@dataclass(frozen=True)
class ReColorAdv(Transforming):
    """Functional attack on colours (ReColorAdv: Laidlaw, Feizi, NeurIPS 2019): one map for all pixels of an image.

    For RGB it is a map of CIELUV, for grey images a curve; epsilon is the largest change of a coordinate (the paper: 0.06).
    See `Colour` for its units and the penalty.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    >>> images, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = ReColorAdv()(model, images, labels, epsilon=0.06, generator=torch.Generator().manual_seed(0))
    >>> attacked.images.shape, bool((attacked.length <= 0.06).all())
    (torch.Size([5, 3, 8, 8]), True)
    """

    norm: Measure | str = "colour"
    """What measures the transformation: colour, the largest change of a coordinate."""
    _: KW_ONLY
    smoothness: float = 0.05
    """Weight of the roughness of the map, >= 0."""
    grid: tuple[int, int, int] = (16, 32, 32)
    """Points of the grid along L*, u* and v*, each >= 2."""
    levels: int = 16
    """Points of the curve for grey images, >= 2."""

    _own = ColourSize()

    @property
    def _parts(self) -> tuple[Transformation, ...]:
        return (Colour(1.0, checked_number("smoothness", self.smoothness, least=0), self.grid, self.levels),)


@dataclass(frozen=True)
class Combined(Transforming):
    """Colours, then a flow, then what is added, together (Laidlaw, Feizi, NeurIPS 2019): epsilon multiplies all bounds.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 10))
    >>> images, labels = torch.rand(5, 3, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = Combined(flow=0)(model, images, labels, epsilon=1, generator=torch.Generator().manual_seed(0))
    >>> attacked.images.shape, bool((attacked.length <= 1).all())
    (torch.Size([5, 3, 8, 8]), True)
    """

    _: KW_ONLY
    colour: float = 0.06
    """Largest change of a coordinate of colours, >= 0; 0: no such part."""
    flow: float = 0.8
    """Longest displacement of a pixel, in pixels, >= 0; 0: no such part. (The paper's 0.05 of half the width of an image of
    CIFAR-10.)"""
    additive: float = 8 / 255
    """Largest change of a pixel after these, >= 0; 0: no such part."""
    grid: tuple[int, int, int] = (16, 32, 32)
    """Points of the grid of colours along L*, u* and v*, each >= 2."""

    def __post_init__(self) -> None:
        for name in ("colour", "flow", "additive"):
            checked_number(name, getattr(self, name), least=0)
        if not self._parts:
            raise ValueError("colour = flow = additive = 0 is not allowed: one of them above 0 is")
        super().__post_init__()

    @property
    def _parts(self) -> tuple[Transformation, ...]:
        parts: list[Transformation] = [Colour(self.colour, grid=self.grid)] if self.colour else []
        parts += [Flow(self.flow)] if self.flow else []
        parts += [Additive(self.additive)] if self.additive else []
        return tuple(parts)


@dataclass(frozen=True, eq=False)
class _Search:
    """The function that an attack makes small: of variables p, shape (n, P), which are parameters over their bounds."""

    attack: Transforming
    parts: tuple[Transformation, ...]
    epsilon: float

    def start(self, images: Tensor) -> Tensor:
        """Return the variables of the identity."""
        return torch.cat([part.parameters(images).flatten(1) for part in self.parts], 1)

    def confined(self, p: Tensor, images: Tensor) -> Tensor:
        """Return the nearest variables within epsilon."""
        parts = zip(self.parts, self._split(p, images), strict=True)
        return torch.cat([part.confine(one, self.epsilon).flatten(1) for part, one in parts], 1)

    def evaluate(
        self, examples: Examples, p: Tensor, weight: float = 1.0, *, with_gradient: bool = True
    ) -> tuple[Points, Tensor, Tensor, Tensor]:
        """Return what the model makes of the images, the penalty and the loss, shapes (n,), and its gradient (else p)."""
        attack, x = self.attack, examples.images
        with torch.set_grad_enabled(with_gradient):
            p = p.detach().requires_grad_(with_gradient)
            z, penalty, sizes = x, x.new_zeros(len(x)), []
            for part, share in zip(self.parts, self._split(p, x), strict=True):
                theta = part.bound * share
                z = part.apply(z, theta)
                if part.smoothness:
                    penalty = penalty + part.smoothness * part.penalty(theta)
                sizes.append(part.size(share.detach()))
            z = z.clamp(*attack.bounds)
        if with_gradient:
            points, outer = points_and_gradient(examples, z.detach(), attack._objective)
        else:
            points = examples.points(z, attack._objective)
        points = replace(points, size=torch.stack(sizes).amax(0))
        finished = attack.finished(points)
        loss = weight * penalty.detach() - torch.where(finished, points.value.clamp(max=attack.kappa), points.value)
        if not with_gradient:
            return points, penalty, loss, p
        outer = -outer.masked_fill(finished.view(-1, *[1] * (outer.ndim - 1)), 0)
        outputs, outers = [z], [outer]
        if penalty.requires_grad:
            outputs, outers = [z, penalty], [outer, torch.full_like(penalty, weight)]
        (gradient,) = torch.autograd.grad(outputs, [p], outers)
        return points, penalty.detach(), loss, gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)

    def _split(self, p: Tensor, images: Tensor) -> list[Tensor]:
        """Return the variables of each transformation, in the shape of its parameters."""
        shapes = [part.parameters(images[:0]).shape[1:] for part in self.parts]
        columns = p.split([shape.numel() for shape in shapes], 1)
        return [column.view(-1, *shape) for column, shape in zip(columns, shapes, strict=True)]
