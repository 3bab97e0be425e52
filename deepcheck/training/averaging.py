"""An exponential average of weights over the steps of a training."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

__all__ = ["Average"]

Net = TypeVar("Net", bound=nn.Module)


class Average(Generic[Net]):
    """The average of a network's weights, and of the running statistics of its norms; whole numbers are the latest.

    After the n-th step, mean <- d mean + (1 - d) current with d = min(decay, (n + 1) / (n + 10)): faster at the
    beginning, when there is little to average. The mean of no step is the network as it was.

    `torch.optim.swa_utils.AveragedModel` gives the same numbers and takes two to three times as long for small networks.
    """

    def __init__(self, network: Net, decay: float) -> None:
        self.network = copy.deepcopy(network)
        """The network with the averaged weights."""
        self.decay = decay
        self.steps = 0
        """Number of steps, n."""
        self._means = _tensors(self.network)

    @torch.no_grad()
    def update(self, network: Net) -> None:
        """Let the average follow after a step."""
        self.steps += 1
        decay = min(self.decay, (self.steps + 1) / (self.steps + 10))
        means, counts = self._means
        current, latest = _tensors(network)
        torch._foreach_lerp_(means, current, 1 - decay)  # each mean.lerp_(tensor, 1 - decay), in a few kernels
        if counts:
            torch._foreach_copy_(counts, latest)


def _tensors(network: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the very tensors of a network: numbers, and whole numbers."""
    tensors = [*network.parameters(), *network.buffers()]
    return [one for one in tensors if one.is_floating_point()], [one for one in tensors if not one.is_floating_point()]
