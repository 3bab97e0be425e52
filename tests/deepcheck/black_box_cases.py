"""Models and images for the tests of attacks that only ask for outputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Examples
from deepcheck.attacks.draws import keys

UNBOUNDED = (-math.inf, math.inf)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def classified(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(1))


class Linear(nn.Module):
    """Logits s (W x + b), with a margin of 2 between the classes of typical images."""

    def __init__(self, K: int = 2, D: int = 24, scale: float = 1.0) -> None:
        super().__init__()
        self.W = nn.Parameter(normals(K, D, seed=2))
        self.b = nn.Parameter(normals(K, seed=3))
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * (x.flatten(1) @ self.W.T.to(x.dtype) + self.b.to(x.dtype))

    def distances(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the Euclidean distance to the nearest boundary, shape (n,), in double precision."""
        with torch.no_grad():
            logits = self(images.double()) / self.scale
            f = logits.gather(1, labels[:, None]) - logits
            length = torch.linalg.vector_norm(self.W[None] - self.W[labels][:, None], dim=2)
        return torch.where(length > 0, f / length.clamp(min=1e-30), math.inf).amin(1)


class Smooth(nn.Module):
    """A net of one hidden layer."""

    def __init__(self, K: int = 5, D: int = 24) -> None:
        super().__init__()
        self.W1 = nn.Parameter(2 * normals(D, 20, seed=4) / D**0.5)
        self.W2 = nn.Parameter(normals(20, K, seed=5))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 0.5).flatten(1) @ self.W1.to(x.dtype)).tanh() @ self.W2.to(x.dtype)


class Asked(nn.Module):
    """A model without gradient that notes what it is asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.sizes: list[int] = []
        self.low, self.high = math.inf, -math.inf

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        self.low, self.high = min(self.low, float(x.min())), max(self.high, float(x.max()))
        with torch.no_grad():
            return torch.as_tensor(self.model(x))


def examples(model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 500, seed: int = 0) -> Examples:
    key = keys(generator(seed), torch.arange(len(images), device=images.device))
    return Examples.of(model, images, labels, None, key, batch_size).stream(0)
