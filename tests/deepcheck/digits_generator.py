"""A linear generator for the digits, and the options of the defences in the common tests."""

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Model
from deepcheck.defences import DEFENCES, Defence
from deepcheck.defences.neighbours import Embedding
from tests.deepcheck.digits_net import digits_as_tensors


class LinearGenerator(nn.Module):
    """Probabilistic PCA of images: G(z) = mean + V sqrt(lambda) z, whose nearest image is a projection in closed form.

    Parameters
    ----------
    images
        Shape (n, ...).
    latent
        Number of principal components.
    """

    mean: Tensor
    axes: Tensor
    sizes: Tensor

    def __init__(self, images: Tensor, latent: int) -> None:
        super().__init__()
        self.out_shape, self.latent = tuple(images.shape[1:]), latent
        x = images.flatten(1)
        _, s, rows = torch.linalg.svd(x - x.mean(0), full_matrices=False)
        self.register_buffer("mean", x.mean(0))
        self.register_buffer("axes", rows[:latent])
        self.register_buffer("sizes", s[:latent] / len(x) ** 0.5)

    def forward(self, z: Tensor) -> Tensor:
        rows = self.mean + (z * self.sizes) @ self.axes
        return rows.view(-1, *self.out_shape)

    def projected(self, images: Tensor) -> Tensor:
        """The nearest image that it can make."""
        delta = images.flatten(1) - self.mean
        nearest: Tensor = (self.mean + delta @ self.axes.T @ self.axes).view_as(images)
        return nearest


@cache
def linear_generator(latent: int = 12) -> LinearGenerator:
    """Return one for the digits."""
    return LinearGenerator(digits_as_tensors().x, latent)


def defended(name: str, net: Model, **options: Any) -> Defence:
    """Return a defence out of DEFENCES: with a generator of the digits for one that needs it, and few steps."""
    if name == "defense_gan":
        options = {"generator": linear_generator(), "steps": 40, "restarts": 2, **options}
    if issubclass(DEFENCES[name], Embedding):
        options = {"xi": 0.05, "steps": 6, "attack_steps": 3, **options}
    return DEFENCES[name](net, **options)
