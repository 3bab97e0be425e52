"""DeepFool: to the nearest boundary of the linearised model, step by step."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import torch
from torch import Tensor

from deepcheck.attacks.base import Examples
from deepcheck.attacks.gradients import by_class
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.objectives import Margin
from deepcheck.attacks.points import Points
from odeflow.model import checked_count, checked_number

__all__ = ["DeepFool"]

_LEAST = 1e-4
"""Least difference of two logits that a step closes, the paper's constant: what is found is beyond the rounding of the logits."""


@dataclass(frozen=True)
class DeepFool(MinimalAttack):
    r"""DeepFool (Moosavi-Dezfooli, Fawzi, Frossard, CVPR 2016): steps to the nearest boundary of the linearised model.

    With :math:`f_k = z_k - z_y` and :math:`g_k = \nabla f_k` at the current point, the boundary of the class k is at the
    distance :math:`|f_k| / |g_k|_q`, q dual to the norm. The step goes to the nearest, a little beyond,

    .. math:: x \leftarrow \mathrm{clip}\Big(x + (1 + o) \frac{|f_l|}{\langle g_l, d \rangle}\, d\Big), \qquad
              d = \arg\max_{|d| = 1} \langle g_l, d \rangle, \qquad l = \arg\min_k \frac{|f_k|}{|g_k|_q} ,

    until the class is another. In L2 d is :math:`g_l / |g_l|_2`, in L-infinity the signs, and what leaves the box is clipped; the
    paper has no box. In L1 d is one entry, the largest of :math:`g_k` that the box lets move. For linear models of two classes
    one step gives :math:`1 + o` times the distance to the boundary, exactly, where no pixel meets the box; in general it is
    an upper bound on that distance. Nothing is random.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = DeepFool("l2")(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape, bool((attacked.prediction != labels).all())
    (torch.Size([1, 5]), True)
    """

    norm: Norm | str = "l2"
    """The distance: "l2", "linf", "l1" or a Norm that has a dual."""
    _: KW_ONLY
    steps: int = 50
    """Steps, >= 1."""
    overshoot: float = 0.02
    """Share of a step by which it goes beyond the boundary, o, > 0."""
    candidates: int = 10
    """Classes that are looked at, >= 2: the true one, and of the others those with the largest logits on the image."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "steps", checked_count("steps", self.steps, 1))
        object.__setattr__(self, "candidates", checked_count("candidates", self.candidates, 2))
        checked_number("overshoot", self.overshoot, above=0)
        if self._norm.dual is None:
            raise ValueError(f"norm = {self.norm!r} is not allowed for DeepFool: one that has a dual is")
        if self._objective.targeted:
            raise ValueError(f"objective = {self.objective!r} is not allowed for DeepFool: one without targets is")
        if self._objective.seeks != "class":
            raise ValueError(
                f"objective = {self.objective!r} is not allowed for DeepFool: one whose goal is a class is"
            )

    def _nearest(self, examples: Examples) -> Points:
        found = examples.points(examples.images.clone(), self._objective)
        others = found.logits.scatter(1, examples.labels[:, None], -torch.inf)
        classes = others.topk(min(self.candidates, others.shape[1]) - 1, dim=1).indices
        rows = torch.arange(len(examples), device=classes.device)
        for _step in range(self.steps):
            assert found.reached is not None
            beyond = found.reached & (Margin()(found.logits, examples.labels) > 0)  # equal logits are of either class
            rows = rows[~beyond[rows]]
            if not len(rows):
                break
            some = examples.at(rows)
            z = self._stepped(some, found.images[rows], classes[rows]).clamp_(*self.bounds)
            found.put(rows, some.points(z, self._objective))
        return found

    def _stepped(self, examples: Examples, z: Tensor, classes: Tensor) -> Tensor:
        """Return the points beyond the nearest boundary of the linearised model."""
        low, high = self.bounds
        with torch.enable_grad():
            logits = examples.logits(z.requires_grad_())
            f = logits.gather(1, classes) - logits.gather(1, examples.labels[:, None])
        nearest = z.new_full((len(z),), torch.inf)
        step = torch.zeros_like(z)
        for k, g in enumerate(by_class(f, z)):
            if self._norm.name == "l1":  # whose step moves one entry: at its edge it would move nothing
                g = g.masked_fill(((z <= low) & (g < 0)) | ((z >= high) & (g > 0)), 0)
            d = self._norm.steepest(g)
            slope = (g * d).flatten(1).sum(1)
            size = f[:, k].detach().abs().clamp(min=_LEAST).to(z.dtype)
            distance = torch.where(slope > 0, size / slope, torch.inf)
            step = torch.where(per_example(distance < nearest, z), per_example(distance, z) * d, step)
            nearest = torch.minimum(nearest, distance)
        return z.requires_grad_(False) + (1 + self.overshoot) * step
