"""An exponential average of weights over the steps of a training."""

from __future__ import annotations

import copy

import torch

from deepcheck.models import Network

__all__ = ["Average"]


class Average:
    """The average of a network's weights, and of the running statistics of its norms; whole numbers are the latest.

    After the n-th step, mean <- d mean + (1 - d) current with d = min(decay, (n + 1) / (n + 10)): faster at the
    beginning, when there is little to average. The mean of no step is the network as it was.

    `torch.optim.swa_utils.AveragedModel` gives the same numbers and takes two to three times as long for small networks.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.network = copy.deepcopy(network)
        """The network with the averaged weights."""
        self.decay = decay
        self.steps = 0
        """Number of steps, n."""
        self._means = self.network.state_dict()  # these very tensors

    @torch.no_grad()
    def update(self, network: Network) -> None:
        """Let the average follow after a step."""
        self.steps += 1
        decay = min(self.decay, (self.steps + 1) / (self.steps + 10))
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                self._means[name].lerp_(tensor, 1 - decay)
            else:
                self._means[name].copy_(tensor)
