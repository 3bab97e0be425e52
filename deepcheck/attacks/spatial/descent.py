"""Ways down a function of many variables, for a batch of examples, each on its own: Adam, and L-BFGS.

Both are asked in turn with the loss and the gradient at the points that they last proposed, or at what became of these
behind bounds, and propose the next. No example's steps depend on the others.
"""

from __future__ import annotations

import abc

import torch
from torch import Tensor

__all__ = ["LBFGS", "Adam", "Descent"]


class Descent(abc.ABC):
    """A way down: points p, shape (n, P), loss, shape (n,), and gradient, shape (n, P), give the next points."""

    @abc.abstractmethod
    def __call__(self, p: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """Return the next points."""

    @abc.abstractmethod
    def keep(self, rows: Tensor) -> None:
        """Go on with some of the examples alone."""


class Adam(Descent):
    """Adam (Kingma, Ba, ICLR 2015).

    Parameters
    ----------
    step
        Length of a step in every variable, at first.
    """

    def __init__(self, step: float, betas: tuple[float, float] = (0.9, 0.999), offset: float = 1e-8) -> None:
        self._step, self._betas, self._offset = step, betas, offset
        self._count = 0
        self._m: Tensor | None = None
        self._v: Tensor | None = None

    def __call__(self, p: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """Return the points after one step: p - step m / (sqrt(v) + offset), with the moments m and v freed of their bias."""
        del loss
        first, second = self._betas
        self._count += 1
        zero = torch.zeros_like(p)
        self._m = (zero if self._m is None else self._m).lerp(gradient, 1 - first)
        self._v = (zero if self._v is None else self._v).lerp(gradient.square(), 1 - second)
        m, v = self._m / (1 - first**self._count), self._v / (1 - second**self._count)
        return p - self._step * m / (v.sqrt() + self._offset)

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the examples alone."""
        if self._m is not None and self._v is not None:
            self._m, self._v = self._m[rows], self._v[rows]


class LBFGS(Descent):
    """L-BFGS (Liu, Nocedal, 1989), with steps that are halved until they gain enough (Armijo).

    Every call is one evaluation: an example whose step has gained goes on from there, the others go back and try half of
    it. Where many halves in turn did not gain, what was learned of the curvature is forgotten. The first step, and any
    without curvature, goes along the gradient and changes the variable of the largest entry by `step`.

    Parameters
    ----------
    step
        Largest change of a variable in the first step.
    memory
        Evaluations whose differences are kept.
    """

    _GAIN = 1e-4
    _HALVES = 8

    def __init__(self, step: float, memory: int = 10) -> None:
        self._step, self._memory = step, memory
        self._count = 0
        self._state: dict[str, Tensor] = {}  # of the best points, by name, with a first axis for the examples
        self._pairs: list[dict[str, Tensor]] = []  # s = change of p, y = change of the gradient, rho = 1 / s.y or 0

    def __call__(self, p: Tensor, loss: Tensor, gradient: Tensor) -> Tensor:
        """Return the next points to try."""
        if not self._state:
            zero = torch.zeros_like(loss)
            self._state = {"p": p, "loss": loss, "g": gradient, "scale": zero, "share": zero + 1, "tries": zero}
        else:
            self._learn(p, loss, gradient)
        now = self._state
        first = self._step / now["g"].abs().amax(1).clamp(min=torch.finfo(p.dtype).tiny)
        d = -self._times_inverse_hessian(now["g"], torch.where(now["scale"] > 0, now["scale"], first))
        uphill = ~(_dot(d, now["g"]) < 0)
        d = torch.where(uphill[:, None], -first[:, None] * now["g"], d)
        return now["p"] + now["share"][:, None] * d

    def keep(self, rows: Tensor) -> None:
        """Go on with some of the examples alone."""
        self._state = {name: one[rows] for name, one in self._state.items()}
        self._pairs = [{name: one[rows] for name, one in pair.items()} for pair in self._pairs]

    def _learn(self, p: Tensor, loss: Tensor, gradient: Tensor) -> None:
        """Take steps that have gained, with what they say of the curvature, and halve the others."""
        now = self._state
        s, y = p - now["p"], gradient - now["g"]
        gained = loss <= now["loss"] + self._GAIN * _dot(s, now["g"]).clamp(max=0)
        sy, yy = _dot(s, y), _dot(y, y)
        curved = gained & (sy > 1e-10 * yy)
        zero = torch.zeros_like(loss)
        tries = torch.where(gained, zero, now["tries"] + 1)
        lost = tries >= self._HALVES
        share = torch.where(gained | lost, zero + 1, now["share"] / 2)
        scale = torch.where(curved, sy / torch.where(curved, yy, zero + 1), now["scale"])
        self._state = {
            "p": torch.where(gained[:, None], p, now["p"]),
            "loss": torch.where(gained, loss, now["loss"]),
            "g": torch.where(gained[:, None], gradient, now["g"]),
            "scale": torch.where(lost, zero, scale),
            "share": share,
            "tries": torch.where(lost, zero, tries),
        }
        rho = torch.where(curved, 1 / torch.where(curved, sy, zero + 1), zero)
        s, y = (torch.where(curved[:, None], one, torch.zeros_like(one)) for one in (s, y))
        self._pairs = [*self._pairs, {"s": s, "y": y, "rho": rho}][-self._memory :]
        for pair in self._pairs:
            pair["rho"] = torch.where(lost, zero, pair["rho"])

    def _times_inverse_hessian(self, q: Tensor, scale: Tensor) -> Tensor:
        """Return the inverse Hessian, as far as it was learned, times q: the recursion over pairs and back."""
        alphas = []
        for pair in reversed(self._pairs):
            alphas.append(pair["rho"] * _dot(pair["s"], q))
            q = q - alphas[-1][:, None] * pair["y"]
        q = scale[:, None] * q
        for pair, alpha in zip(self._pairs, reversed(alphas), strict=True):
            beta = pair["rho"] * _dot(pair["y"], q)
            q = q + (alpha - beta)[:, None] * pair["s"]
        return q


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(1)
