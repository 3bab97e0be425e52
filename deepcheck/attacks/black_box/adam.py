"""Adam for coordinates that are seen at different times, each example on its own."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Adam"]


@dataclass(eq=False)
class Adam:
    """Adam (Kingma and Ba, ICLR 2015) with 0.9 and 0.999, of which every coordinate counts its own steps."""

    m: Tensor
    """First moments, shape (n, D)."""
    v: Tensor
    """Second moments."""
    t: Tensor
    """Steps so far."""

    @staticmethod
    def of(like: Tensor) -> Adam:
        """Return the state before the first step, for points of shape (n, ...)."""
        flat = like.flatten(1)
        return Adam(torch.zeros_like(flat), torch.zeros_like(flat), torch.zeros_like(flat))

    def at(self, rows: Tensor) -> Adam:
        """Return the state of some examples."""
        return Adam(self.m[rows], self.v[rows], self.t[rows])

    def direction(self, g: Tensor, chosen: Tensor | None = None) -> Tensor:
        """Return the step of length about 1 along some of the gradient's entries, both of shape (n, m); None: along all."""
        if chosen is not None:
            part = Adam(self.m.gather(1, chosen), self.v.gather(1, chosen), self.t.gather(1, chosen))
            step = part.direction(g)
            for mine, its in ((self.m, part.m), (self.v, part.v), (self.t, part.t)):
                mine.scatter_(1, chosen, its)
            return step
        self.t += 1
        self.m.mul_(0.9).add_(g, alpha=0.1)
        self.v.mul_(0.999).addcmul_(g, g, value=0.001)
        return (self.m / (1 - 0.9**self.t)) / ((self.v / (1 - 0.999**self.t)).sqrt_().add_(1e-8))
