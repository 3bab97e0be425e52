"""The box as the range of a hyperbolic tangent, and Adam in its preimage: what Carlini and Wagner's attacks walk in."""

from __future__ import annotations

import torch
from torch import Tensor

from deepcheck.attacks.norms import per_example

__all__ = ["Adam", "TanhSpace"]

_SHARE = 0.99
"""Share of (-1, 1) that the box takes: its edges are not infinitely far."""
_FIRST, _SECOND, _EPS = 0.9, 0.999, 1e-8


class TanhSpace:
    """Points z = x + s (tanh u - tanh u_x) of the box around images x, where s makes the box a share of (-1, 1).

    With u_x, the preimage of x, z is x exactly. Beyond that share, z is at the edge.
    """

    def __init__(self, images: Tensor, bounds: tuple[float, float]) -> None:
        low, high = bounds
        self._x, self._bounds = images, bounds
        self._scale = (high - low) / 2 / _SHARE
        t = ((images - (low + high) / 2) / self._scale).clamp_(-_SHARE, _SHARE)
        self.start = (
            ((1 + t) / (1 - t)).log_().div_(2)
        )  # rounded the same wherever a pixel stands: torch's atanh is not
        self._t = self.start.tanh()

    def points(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the points of the box, and the slopes dz/du."""
        t = u.tanh()
        z = torch.add(self._x, t - self._t, alpha=self._scale).clamp_(*self._bounds)
        return z, (1 - t).mul_(1 + t).mul_(self._scale)

    def at(self, rows: Tensor) -> TanhSpace:
        """Return the space of some of the images."""
        space = TanhSpace.__new__(TanhSpace)
        space._x, space._bounds, space._scale = self._x[rows], self._bounds, self._scale
        space.start, space._t = self.start[rows], self._t[rows]
        return space


class Adam:
    """Adam (Kingma and Ba, ICLR 2015) for n examples, each with a count of steps of its own."""

    def __init__(self, u: Tensor, step_size: float, steps: int) -> None:
        self._m, self._v = torch.zeros_like(u), torch.zeros_like(u)
        self.count = torch.zeros(len(u), dtype=torch.int64, device=u.device)
        t = torch.arange(1, steps + 1, dtype=torch.float64)
        first, second = 1 - _FIRST**t, (1 - _SECOND**t).sqrt()
        self._step, self._floor = (one.to(u) for one in (step_size * second / first, _EPS * second))

    def move(self, u: Tensor, gradient: Tensor) -> None:
        """Take a step down the gradient, in place."""
        self._m.lerp_(gradient, 1 - _FIRST)
        self._v.mul_(_SECOND).addcmul_(gradient, gradient, value=1 - _SECOND)
        step, floor = (per_example(one[self.count], u) for one in (self._step, self._floor))
        u.sub_((self._m / self._v.sqrt().add_(floor)).mul_(step))
        self.count += 1

    def restart(self, chosen: Tensor) -> None:
        """Let some examples, shape (n,), begin anew."""
        going = per_example(~chosen, self._m)
        self._m.mul_(going)
        self._v.mul_(going)
        self.count.mul_(~chosen)

    def at(self, rows: Tensor) -> Adam:
        """Return the state of some of the examples."""
        adam = Adam.__new__(Adam)
        adam._step, adam._floor = self._step, self._floor
        adam._m, adam._v, adam.count = self._m[rows], self._v[rows], self.count[rows]
        return adam
