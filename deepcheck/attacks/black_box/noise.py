"""The best of some noise: the baseline of every attack."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from torch import Tensor

from deepcheck.attacks.black_box.search import RandomSearch
from deepcheck.attacks.draws import Draws
from odeflow.model import checked_count

__all__ = ["UniformNoise"]


@dataclass(frozen=True)
class UniformNoise(RandomSearch):
    """Perturbations uniform in the ball: the best of some draws, for each example.

    The baseline of every attack, for any norm. What leaves the box is clipped to it.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    >>> images, labels = torch.rand(5, 1, 8, 8), torch.tensor([0, 1, 2, 3, 4])
    >>> attack = UniformNoise("l2", "wrong_confidence", draws=20)
    >>> attacked = attack(model, images, labels, epsilon=[0.1, 0.2], generator=torch.Generator().manual_seed(1))
    >>> attacked.images.shape, attacked.prediction.shape
    (torch.Size([2, 5, 1, 8, 8]), torch.Size([2, 1, 5]))
    """

    _: KW_ONLY
    draws: int = 1
    """Perturbations per restart, >= 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "draws", checked_count("draws", self.draws, 1))

    @property
    def _queries(self) -> int:
        return self.draws

    def _propose(self, query: int, x: Tensor, now: Tensor, epsilon: float, draws: Draws) -> Tensor:
        del query, now
        return self._norm.uniform(x, epsilon, draws).add_(x)
