"""EAD: the nearest example in the elastic net, by iterative shrinkage with momentum."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

import torch
from torch import Tensor

from deepcheck.attacks.examples import Examples
from deepcheck.attacks.minimal.penalty import PenaltyAttack
from deepcheck.attacks.norms import Norm, per_example
from deepcheck.attacks.points import Points
from deepcheck.checks import checked_choice
from odeflow.model import checked_number

__all__ = ["EAD"]


@dataclass(frozen=True)
class EAD(PenaltyAttack):
    r"""EAD (Chen, Sharma, Zhang, Yi, Hsieh, AAAI 2018): elastic net and hinge minimised together, which changes few pixels.

    With :math:`g(z) = |z - x|_2^2 + c \max(\kappa - m(z), 0)` and the momentum of FISTA (Beck and Teboulle, 2009),

    .. math:: x_{k+1} = S_\beta(y_k - \alpha_k \nabla g(y_k)), \qquad
              y_{k+1} = x_{k+1} + \tfrac{k}{k + 3} (x_{k+1} - x_k), \qquad \alpha_k = \alpha_0 \sqrt{1 - k / T},

    where :math:`S_\beta` moves each pixel towards the image by beta, not beyond it, and into the box. As beta is not
    multiplied with the step size, the weight of the L1 norm is :math:`\beta / \alpha_k`. Here the model is asked at the
    point of the box that is nearest to :math:`y_k`.

    Of all points that reach the goal the least counts: in the elastic net, :math:`|z - x|_2^2 + \beta |z - x|_1`, or in L1.
    c is bisected as in C&W. An upper bound on the least distance in L1; on linear models of two classes close to it where
    :math:`\beta / \alpha_0` is large beside the distance. Nothing is random.

    The paper has 1,000 steps from the step size 0.01, 9 values of c from 0.001, beta 0.001, and no line search.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attacked = EAD(steps=100)(model, images, labels, generator=torch.Generator().manual_seed(0))
    >>> attacked.length.shape, bool((attacked.prediction != labels).all())
    (torch.Size([1, 5]), True)
    """

    norm: Norm | str = "l1"
    """The distance: "l1"."""
    _: KW_ONLY
    beta: float = 1e-3
    """Weight of the L1 norm in the elastic net, >= 0."""
    decision: Literal["l1", "elastic_net"] = "l1"
    """What is least of all that was found: the L1 norm or the elastic net."""

    def __post_init__(self) -> None:
        super().__post_init__()
        checked_number("beta", self.beta, least=0)
        checked_choice("decision", self.decision, ("l1", "elastic_net"))
        if self._norm.name != "l1":
            raise ValueError(f"norm = {self.norm!r} is not allowed for EAD: l1 is")

    def _size(self, delta: Tensor) -> Tensor:
        length = delta.flatten(1).abs().sum(1)
        return length if self.decision == "l1" else delta.flatten(1).square().sum(1) + self.beta * length

    def _walk(self, examples: Examples, c: Tensor) -> _Walk:
        return _Walk(self, examples, c, examples.images, examples.images)

    def _shrunk(self, z: Tensor, x: Tensor) -> Tensor:
        """Return S_beta(z): beta nearer to x, x where that is nearer, in the box."""
        low, high = self.bounds
        inside = torch.nn.functional.softshrink(z - x, self.beta).add_(x).clamp_(low, high)
        return torch.where((z - x).abs() <= self.beta, x, inside)


@dataclass(eq=False)
class _Walk:
    """FISTA down the elastic net and the hinge."""

    attack: EAD
    examples: Examples
    c: Tensor
    x: Tensor
    """Points x_k."""
    y: Tensor
    """Points y_k."""

    def step(self, number: int) -> tuple[Points, Tensor]:
        """Return the points after the step, and the loss before it."""
        attack, images = self.attack, self.examples.images
        y = self.y.clamp(*attack.bounds)
        points, gradient = attack._points_and_gradient(self.examples, y)
        delta = y - images
        hinge, weight = attack._hinge(points, self.c)
        loss = delta.flatten(1).square().sum(1) + hinge
        size = attack.step_size * (1 - number / attack.steps) ** 0.5
        slope = delta.mul_(2).sub_(per_example(weight, y) * gradient)
        before, self.x = self.x, attack._shrunk(self.y - size * slope, images)
        self.y = self.x + number / (number + 3) * (self.x - before)
        return attack._points(self.examples, self.x), loss

    def at(self, rows: Tensor) -> _Walk:
        """Return the walk of some of the images."""
        return _Walk(self.attack, self.examples.at(rows), self.c[rows], self.x[rows], self.y[rows])
