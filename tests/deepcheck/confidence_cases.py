"""What tests of confidences are made on: small nets and images, and attacks that miss nothing, or find nothing."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Attacked
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.objectives import TargetedCrossEntropy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


CONFIDENCE = TargetedCrossEntropy(goal="never")


class Small(nn.Module):
    """A net of one hidden layer for images of a few pixels."""

    def __init__(self, K: int = 3, pixels: int = 2, seed: int = 7) -> None:
        super().__init__()
        draw = generator(seed)
        self.W1 = nn.Parameter(6 * torch.randn(pixels, 8, generator=draw, dtype=torch.float64))
        self.b = nn.Parameter(3 * torch.randn(8, generator=draw, dtype=torch.float64))
        self.W2 = nn.Parameter(2 * torch.randn(8, K, generator=draw, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.W1 + self.b).tanh() @ self.W2


def small_images(n: int = 20, pixels: int = 2, seed: int = 3) -> Tensor:
    return torch.rand(n, 1, 1, pixels, generator=generator(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Exhaustive:
    """The best of a grid of points on the line of images of one pixel: nothing is missed but what is finer."""

    points: int = 401
    norm: Any = NORMS["linf"]
    objective: Any = CONFIDENCE
    targets: str = "given"

    def __call__(self, model: Any, images: Tensor, labels: Tensor, **options: Any) -> Attacked:
        del labels
        found = []
        for epsilon in options["epsilon"]:
            side = torch.linspace(-epsilon, epsilon, self.points, dtype=images.dtype).view(-1, 1, 1, 1, 1)
            every = (images + side).clamp(0, 1)
            log_p = model(every.flatten(0, 1)).log_softmax(1).view(len(every), len(images), -1).detach()
            best = log_p[:, torch.arange(len(images)), options["targets"]].argmax(0)
            found.append(every[best, torch.arange(len(images))])
        nothing = torch.zeros(len(found), 1, len(images))
        return Attacked(torch.stack(found), nothing[:, 0], nothing, nothing.long(), nothing, nothing, nothing.long())


@dataclass(frozen=True)
class Stays:
    """An attack that finds something in the smallest ball only, where it moves to its edge."""

    norm: Any = NORMS["linf"]
    moves: bool = True
    objective: str = "nothing"

    def __call__(self, model: Any, images: Tensor, labels: Tensor, **options: Any) -> Attacked:
        del model, labels
        least = min(options["epsilon"])
        found = [
            (images + least).clamp(0, 1) if self.moves and epsilon == least else images
            for epsilon in options["epsilon"]
        ]
        nothing = torch.zeros(len(found), 1, len(images))
        return Attacked(torch.stack(found), nothing[:, 0], nothing, nothing.long(), nothing, nothing, nothing.long())


NOTHING: Any = Stays(moves=False)
