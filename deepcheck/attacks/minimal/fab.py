"""FAB: along the boundary of the linearised model, as near to the image as the box allows."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace

import torch
from torch import Tensor

from deepcheck.attacks.examples import Examples
from deepcheck.attacks.gradients import by_class
from deepcheck.attacks.minimal import hyperplane
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.attacks.objectives import Margin, Objective, Targeted, TargetedMargin
from deepcheck.attacks.objectives import objective as as_objective
from deepcheck.attacks.points import Points
from odeflow.model import checked_count, checked_number

__all__ = ["FAB", "fab_t"]

_ENOUGH = 5e-6
"""Margin, as a share of the image's own, that the final search keeps: on the boundary itself what the model says is up to
rounding."""


@dataclass(frozen=True)
class FAB(MinimalAttack):
    r"""Fast adaptive boundary attack (Croce, Hein, ICML 2020): along the boundary, as near to the image as the box allows.

    With :math:`f_k = z_k - z_y` at the current point x, l is the class of the nearest boundary of the linearised model,
    :math:`|f_k| / |\nabla f_k|_q`, q dual to the norm. :math:`\delta` and :math:`\delta_0` are the shortest ways within
    the box from x and from the image :math:`x_0` to the hyperplane where the linearised :math:`f_l` is zero. The step

    .. math:: x \leftarrow \mathrm{clip}\big((1 - a)(x + \eta \delta) + a (x_0 + \eta \delta_0)\big), \qquad
              a = \min\Big(\frac{|\delta|}{|\delta| + |\delta_0|}, a_{\max}\Big),

    goes a little beyond it; once the goal is reached, :math:`x \leftarrow x_0 + \beta (x - x_0)`. In the end a few steps of
    false position bring the nearest point that was found to the boundary: on the line from :math:`x_0 + \delta_0`, and, as
    in the paper, on that from the image. With a targeted
    objective l is the target (and where other classes must be passed too, y the largest of them): one gradient a step in
    the place of one for each class.

    Restarts begin at a random point within half the distance that was found before, with
    several targets once each had its turn. For linear models of two classes the result is the distance in the box, and
    1e-4 of it at most more; in general an upper bound.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = FAB("l2", steps=10)(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape, bool((attacked.prediction != labels).all())
    (torch.Size([1, 5]), True)
    """

    _: KW_ONLY
    steps: int = 100
    """Steps per restart, >= 1: each takes a gradient for each wrong class, or for the target alone."""
    alpha_max: float = 0.1
    """Largest share of the way from the image in a step, in [0, 1]."""
    eta: float = 1.05
    """Length of a step in units of the way to the linearised boundary, >= 1."""
    beta: float = 0.9
    """What is left of the perturbation once the goal is reached, in (0, 1)."""
    final_steps: int = 3
    """Steps of the search on the line in the end, >= 0."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        object.__setattr__(self, "final_steps", checked_count("final_steps", self.final_steps, 0))
        checked_number("alpha_max", self.alpha_max, least=0, most=1)
        checked_number("eta", self.eta, least=1)
        checked_number("beta", self.beta, above=0, below=1)
        if self._norm.name not in hyperplane.NAMES:
            raise ValueError(f"norm = {self.norm!r} is not allowed for FAB: {', '.join(hyperplane.NAMES)} are")
        if self._objective.seeks != "class":
            raise ValueError(f"objective = {self.objective!r} is not allowed for FAB: one whose goal is a class is")

    @property
    def _margin(self) -> Objective:
        """What is positive where the goal is reached."""
        goal = self._objective.goal if isinstance(self._objective, Targeted) else "wrong"
        return TargetedMargin() if goal == "target" else Margin()

    def _nearest(self, examples: Examples) -> Points:
        found = examples.points(examples.images.clone(), self._objective)
        rows = found.unfinished()
        if len(rows):
            found.put(rows, self._walked(examples.at(rows), found.at(rows)))
        return found

    def _walked(self, examples: Examples, found: Points) -> Points:
        """Return the nearest points on a walk from those of some examples that have not reached the goal."""
        x = examples.images
        z = found.images.clone() if not examples.turn else self._start(examples)
        least = x.new_full((len(x),), torch.inf)
        inner = self._margin(found.logits, examples.labels, examples.targets)
        for _step in range(self.steps):
            z = self._stepped(examples, z)
            new = examples.points(z.clone(), self._objective)
            least = self._put_nearer(examples, found, new, least)
            assert new.reached is not None
            back = new.reached | new.value.isneginf()  # and away from where the model has no finite logits
            z = torch.where(per_example(back, z), x + self.beta * (z - x), z)
        rows = least.isfinite().nonzero().squeeze(1)
        if self.final_steps and len(rows):
            found.put(rows, self._finished(examples.at(rows), found.at(rows), inner[rows], least[rows]))
        return found

    def _stepped(self, examples: Examples, z: Tensor) -> Tensor:
        """Return the points after one step."""
        x = examples.images
        delta, delta_0 = self._ways(examples, z, *self._boundary(examples, z))
        length, length_0 = self._norm.length(delta), self._norm.length(delta_0)
        a = (length / (length + length_0)).nan_to_num(nan=0.0).clamp(max=self.alpha_max)
        z, x = z + self.eta * delta, x + self.eta * delta_0
        return z.lerp_(x, per_example(a, z)).clamp_(*self.bounds)

    def _ways(self, examples: Examples, z: Tensor, f: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """Return the shortest ways from points, and from the images, to where f + <w, . - z> is zero."""
        x = examples.images
        at_image = f + (w * (x - z)).flatten(1).sum(1, dtype=torch.float64)
        delta = hyperplane.shortest(self._norm, w, -f, z, self.bounds)
        return delta, hyperplane.shortest(self._norm, w, -at_image, x, self.bounds)

    def _boundary(self, examples: Examples, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return f and its gradient for the class of the nearest boundary, and zeros where there is none."""
        with torch.enable_grad():
            logits = examples.logits(z.requires_grad_())
            f = self._differences(logits, examples)
        nearest = z.new_full((len(z),), torch.inf)
        value, w = torch.zeros_like(f[:, 0].detach()), torch.zeros_like(z)
        dual = as_norm(str(self._norm.dual))
        for k, g in enumerate(by_class(f, z)):
            now = f[:, k].detach()
            distance = (now.abs() / dual.length(g)).to(z.dtype)
            nearer = distance < nearest
            nearest = torch.where(nearer, distance, nearest)
            value = torch.where(nearer, now, value)
            w = torch.where(per_example(nearer, z), g, w)
        z.requires_grad_(False)
        return value.double(), w

    def _differences(self, logits: Tensor, examples: Examples) -> Tensor:
        """Return f, shape (n, K - 1), or (n, 1) with a target."""
        labels, targets = examples.labels[:, None], examples.targets
        if targets is None:
            others = torch.arange(logits.shape[1] - 1, device=labels.device).expand(len(labels), -1)
            return logits.gather(1, others + (others >= labels)) - logits.gather(1, labels)
        if isinstance(self._margin, TargetedMargin):  # the largest other class is to be passed
            labels = logits.detach().scatter(1, targets[:, None], -torch.inf).argmax(1, keepdim=True)
        return logits.gather(1, targets[:, None]) - logits.gather(1, labels)

    def _start(self, examples: Examples) -> Tensor:
        """Return random points, half as far from the image as what was found before, else as the linearised boundary."""
        x = examples.images
        f, w = self._boundary(examples, x.clone())
        radius = self._norm.length(hyperplane.shortest(self._norm, w, -f, x, self.bounds))
        if examples.least is not None:
            radius = torch.where(examples.least.isfinite(), examples.least, radius)
        t = examples.draws().symmetric(x) if self._norm.name == "linf" else examples.draws().normal(x)
        return (x + t * per_example(0.5 * radius / self._norm.length(t), x)).clamp_(*self.bounds)

    def _put_nearer(self, examples: Examples, found: Points, new: Points, least: Tensor) -> Tensor:
        """Put points in that are the nearest, or the last where none was found, and return the least distance."""
        assert new.reached is not None
        x = examples.images
        length = self._norm.length(examples.rounded(new.images).to(x.dtype) - x)
        nearer = new.reached & (length < least)
        found.put_where(nearer | (least.isinf() & ~new.value.isneginf()), new)
        return torch.where(nearer, length, least)

    def _finished(self, examples: Examples, found: Points, inner: Tensor, least: Tensor) -> Points:
        """Return points nearer to the boundary: on the lines from where the images meet the linearised boundary to those found.

        Then on those from the images, where the margin is `inner`; in the box, a way that is shortened is not the shortest.
        """
        x = examples.images
        rounding = 8 * torch.finfo(x.dtype).eps * found.logits.nan_to_num(neginf=0.0).abs().amax(1)
        enough = torch.maximum(-_ENOUGH * inner, rounding)
        _, delta_0 = self._ways(examples, found.images, *self._boundary(examples, found.images.clone()))
        z = (x + delta_0).clamp_(*self.bounds)
        margin = self._margin(examples.points(z, self._objective).logits, examples.labels, examples.targets)
        least = self._between(examples, found, z, margin, enough, least)
        self._between(examples, found, x, inner, enough, least)
        return found

    def _between(
        self, examples: Examples, found: Points, z: Tensor, inner: Tensor, enough: Tensor, least: Tensor
    ) -> Tensor:
        """Search by false position between z and the points found, put in what is nearer, and return the least distance."""
        for _step in range(self.final_steps):
            outer = self._margin(found.logits, examples.labels, examples.targets)
            share = ((4 * enough - inner) / (outer - inner)).nan_to_num(nan=1.0).clamp(0, 1)
            new = examples.points(torch.lerp(z, found.images, per_example(share.to(z.dtype), z)), self._objective)
            margin = self._margin(new.logits, examples.labels, examples.targets)
            assert new.reached is not None
            new.reached &= margin >= enough
            least = self._put_nearer(examples, found, new, least)
            z = torch.where(per_example(new.reached, z), z, new.images)
            inner = torch.where(new.reached, inner, margin)
        return least


def fab_t(
    norm: Norm | str = "linf",
    objective: Objective | str = "targeted_margin",
    *,
    steps: int = 100,
    restarts: int = 9,
    alpha_max: float = 0.1,
    eta: float = 1.05,
    beta: float = 0.9,
) -> FAB:
    """Return targeted FAB (Croce, Hein, ICML 2020): towards one wrong class after the other, the likeliest first.

    Any wrong class will do. It takes one gradient a step, however many classes there are.
    """
    towards = as_objective(objective)
    if not towards.targeted:
        raise ValueError(f"objective = {objective!r} is not allowed: a targeted one is")
    assert isinstance(towards, Targeted)
    return FAB(
        norm,
        replace(towards, goal="wrong"),
        steps=steps,
        restarts=restarts,
        alpha_max=alpha_max,
        eta=eta,
        beta=beta,
        targets="likeliest",
    )
