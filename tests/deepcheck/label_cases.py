"""What tests of attacks share that see labels alone."""

import math
from typing import Any

import torch
from torch import Tensor, nn

WIDE = (-20.0, 20.0)
"""A box that no pixel of these tests meets on the way to the boundary."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


class Linear(nn.Module):
    """Logits W x + b."""

    def __init__(self, K: int = 2, D: int = 24) -> None:
        super().__init__()
        self.W = nn.Parameter(normals(K, D, seed=2))
        self.b = nn.Parameter(normals(K, seed=3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = x.flatten(1).double() @ self.W.T + self.b
        return logits

    def distances(self, images: Tensor, norm: str) -> Tensor:
        """Of two classes, the distance to the boundary, shape (n,)."""
        logits = self(images).detach()
        w = (self.W[1] - self.W[0]).detach()
        dual: Tensor = torch.linalg.vector_norm(w, ord=2 if norm == "l2" else 1)
        margin: Tensor = (logits[:, 1] - logits[:, 0]).abs()
        return margin / dual


class Smooth(nn.Module):
    """A net of one hidden layer."""

    def __init__(self, K: int = 5, D: int = 24) -> None:
        super().__init__()
        self.W1 = nn.Parameter(2 * normals(D, 20, seed=4) / D**0.5)
        self.W2 = nn.Parameter(normals(20, K, seed=5))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 0.5).flatten(1) @ self.W1).tanh() @ self.W2


class OneHot(nn.Module):
    """The class of another model and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return 3 * nn.functional.one_hot(logits.argmax(1), logits.shape[1]).to(logits.dtype)


class Distorted(OneHot):
    """Other logits at every call, in the same order."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        logits: Tensor = self.model(x)
        return (logits * math.sin(self.calls) ** 2 / 3).exp() * self.calls - 5 * self.calls


class Counting(OneHot):
    """Counts the images that it sees."""

    seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += len(x)
        return self.model(x)  # type: ignore[no-any-return]


def classified(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(1))


def lengths(attack: Any, model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    found = attack(model, images, labels, generator=generator())
    assert torch.equal(classified(model, found.images) != labels, found.length[0].isfinite())
    return torch.as_tensor(found.length[0])
