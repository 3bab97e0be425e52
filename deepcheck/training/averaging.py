"""An exponential average of weights over the steps of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.optim.swa_utils import AveragedModel

if TYPE_CHECKING:
    from deepcheck.models import Network

__all__ = ["Average"]


class Average:
    """The average of a network's weights, and of the running statistics of its norms; whole numbers are the latest.

    After the n-th step, mean <- d mean + (1 - d) current with d = min(decay, (n + 1) / (n + 10)): faster at the
    beginning, when there is little to average.
    """

    def __init__(self, network: Network, decay: float) -> None:
        self.decay = decay
        self.count = 0
        """Number of networks in the average, the first one included."""
        self._model = AveragedModel(network, multi_avg_fn=self._follow, use_buffers=True)
        self.update(network)

    @property
    def network(self) -> Network:
        """The network with the averaged weights."""
        network: Network = self._model.module  # type: ignore[assignment]
        return network

    def update(self, network: Network) -> None:
        """Let the average follow: the first time, be the network."""
        self._model.update_parameters(network)
        self.count += 1

    def _follow(
        self, means: tuple[Tensor, ...] | list[Tensor], current: tuple[Tensor, ...] | list[Tensor], n: object
    ) -> None:
        del n  # on the GPU: reading it would wait for all that is going on there
        decay = min(self.decay, (self.count + 1) / (self.count + 10))
        for mean, tensor in zip(means, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(tensor, 1 - decay)
            else:
                mean.copy_(tensor)
