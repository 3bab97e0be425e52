"""Models, images and attacks to test projected gradient ascent with."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from deepcheck.attacks.objectives import Margin
from deepcheck.attacks.pgd import PGD, bim, fgsm, mim, pgd
from deepcheck.attacks.starts import Gaussian, OneOf, UniformLength, Zero

UNBOUNDED = (-math.inf, math.inf)
EPSILON = {"linf": 0.1, "l2": 0.8, "l1": 3.0, "l0": 4.0}
CONVEX = ["linf", "l2", "l1"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Logits W x + b, every example on its own: the arithmetic for one does not depend on the others."""

    def __init__(self, D: int, K: int = 2, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(K, D, generator=generator(11), dtype=dtype))
        self.b = nn.Parameter(torch.randn(K, generator=generator(12), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        rows = [(x.flatten(1) * w).sum(1) + b for w, b in zip(self.W, self.b, strict=True)]
        return torch.stack(rows, 1)


class Smooth(nn.Module):
    """A net of one hidden layer."""

    def __init__(self, D: int, K: int = 4, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.W1 = nn.Parameter(2 * torch.randn(D, 20, generator=generator(7), dtype=dtype) / D**0.5)
        self.W2 = nn.Parameter(torch.randn(20, K, generator=generator(8), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 0.5).flatten(1) @ self.W1).tanh() @ self.W2


def pictures(n: int, dtype: torch.dtype = torch.float64, *, K: int = 4) -> tuple[Tensor, Tensor]:
    """Images of 2 x 3 x 4 pixels, many at the edges of the box, and labels."""
    images = (1.6 * torch.rand(n, 2, 3, 4, generator=generator(5), dtype=dtype) - 0.3).clamp(0, 1)
    return images, torch.randint(K, (n,), generator=generator(6))


def classified(model: nn.Module, images: Tensor) -> Tensor:
    """The classes that the model gives: labels that are all right at the start."""
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(1))


ATTACKS: dict[str, Callable[[str], PGD]] = {
    "fgsm": fgsm,
    "bim": lambda norm: bim(norm, steps=40, relative_step_size=0.3),
    "mim": lambda norm: mim(norm, steps=40, relative_step_size=0.3),
    "pgd": lambda norm: pgd(norm, steps=60, relative_step_size=0.5),
    "restarts": lambda norm: pgd(norm, steps=60, relative_step_size=0.5, restarts=3),
    "last": lambda norm: PGD(norm, "margin", steps=60, relative_step_size=0.5, keep="last"),
    "absolute": lambda norm: PGD(norm, "margin", steps=60, step_size=0.5 * EPSILON[norm], start=Gaussian()),
    "backtracking": lambda norm: PGD(norm, "margin", steps=60, relative_step_size=0.5, backtracking=2.0),
    "momentum": lambda norm: PGD(norm, "margin", steps=150, relative_step_size=0.5, momentum=0.9),
    "confidence": lambda norm: PGD(
        norm,
        "wrong_confidence",
        steps=200,
        relative_step_size=0.5,
        momentum=0.9,
        backtracking=1.5,
        start=OneOf((Zero(), UniformLength())),
        restarts=2,
    ),
}


def margin(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return Margin()(model(images), labels)
