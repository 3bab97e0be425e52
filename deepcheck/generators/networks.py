"""The two networks of a GAN: a generator, from latent vectors to images, and the critic that it learns from."""

from __future__ import annotations

import deepcheck._torch  # noqa: F401

# isort: split

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deepcheck.attacks.draws import checked_generator
from odeflow.model import checked_count

__all__ = ["Critic", "Generator"]


class Generator(nn.Module):
    """A generator, G(z): a linear layer and two transposed convolutions of 4 x 4 pixels, each of which doubles the image.

    After Radford, Metz and Chintala (ICLR 2016), smaller and without batch norm, so that an image depends on its own latent
    vector alone. A sigmoid at the end: pixels are in (0, 1).

    Parameters
    ----------
    out_shape
        Channels, height, width of an image; height and width are multiples of 4, as 8, 28 and 32 are.
    latent
        Dimension of the latent vectors, >= 1.
    width
        Channels of the second last layer, >= 1; the layer before it has twice as many.
    generator
        Source of the first weights.

    Raises
    ------
    ValueError, TypeError
        If a number is out of range.

    Examples
    --------
    >>> draw = torch.Generator().manual_seed(0)
    >>> G = Generator((1, 28, 28), latent=16, width=8, generator=draw)
    >>> G(G.latents(5, draw)).shape
    torch.Size([5, 1, 28, 28])
    """

    def __init__(
        self, out_shape: Sequence[int], *, latent: int = 64, width: int = 32, generator: torch.Generator
    ) -> None:
        super().__init__()
        channels, height, columns = self.out_shape = checked_shape(out_shape)
        self.latent = checked_count("latent", latent, 1)
        self.width = checked_count("width", width, 1)
        with torch.device("meta"):  # no weights yet: PyTorch would draw them from the global random numbers
            self.layers = nn.Sequential(
                nn.Linear(latent, 2 * width * (height // 4) * (columns // 4)),
                nn.ReLU(),
                nn.Unflatten(1, (2 * width, height // 4, columns // 4)),
                nn.ConvTranspose2d(2 * width, width, 4, stride=2, padding=1),
                nn.ReLU(),
                nn.ConvTranspose2d(width, channels, 4, stride=2, padding=1),
                nn.Sigmoid(),
            )
        _initialise(self, generator)

    @property
    def spec(self) -> dict[str, Any]:
        """The arguments, but for the source of the weights, as JSON can hold them."""
        return {"out_shape": list(self.out_shape), "latent": self.latent, "width": self.width}

    def latents(self, count: int, generator: torch.Generator) -> Tensor:
        """Return latent vectors from N(0, 1), shape (count, latent), on the device of the source of random numbers."""
        return torch.randn(count, self.latent, generator=generator, device=generator.device)

    def forward(self, z: Tensor) -> Tensor:
        """Return images, shape (n, channels, height, width), for latent vectors, shape (n, latent)."""
        images: Tensor = self.layers(z)
        return images

    if TYPE_CHECKING:

        def __call__(self, z: Tensor) -> Tensor:
            """Return images; nn.Module declares Any."""


class Critic(nn.Module):
    """A critic, D(x): two convolutions of 4 x 4 pixels, each of which halves the image, and a linear layer to one number.

    Leaky ReLUs of slope 0.2, and no batch norm: the gradient penalty is one of each image alone (Gulrajani et al., NeurIPS
    2017, section 4).

    Parameters
    ----------
    in_shape, width, generator
        As of `Generator`; its first layer has `width` channels, the second twice as many.
    """

    def __init__(self, in_shape: Sequence[int], *, width: int = 32, generator: torch.Generator) -> None:
        super().__init__()
        channels, height, columns = checked_shape(in_shape)
        checked_count("width", width, 1)
        with torch.device("meta"):
            self.layers = nn.Sequential(
                nn.Conv2d(channels, width, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.LeakyReLU(0.2),
                nn.Flatten(),
                nn.Linear(2 * width * (height // 4) * (columns // 4), 1),
            )
        _initialise(self, generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return one number for each image, shape (n,); large for what looks real."""
        values: Tensor = self.layers(x)
        return values.squeeze(1)

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor:
            """Return numbers; nn.Module declares Any."""


def checked_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return channels, height and width, or raise ValueError or TypeError."""
    sizes = [checked_count(f"out_shape[{index}]", size, 1) for index, size in enumerate(shape)]
    if len(sizes) != 3 or sizes[1] % 4 or sizes[2] % 4:
        raise ValueError(
            f"out_shape = {tuple(shape)} is not allowed: (channels, height, width) is, height and width multiples of 4"
        )
    channels, height, columns = sizes
    return channels, height, columns


@torch.no_grad()
def _initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases uniform in +-1 / sqrt(fan-in): of a transposed convolution of stride s the fan-in over s^2."""
    checked_generator(generator)
    network.to_empty(device=generator.device)
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
            fan_in: float = layer.weight[0].numel()
            if isinstance(layer, nn.ConvTranspose2d):
                fan_in = layer.weight[:, 0].numel() / math.prod(layer.stride)
            bound = 1 / math.sqrt(fan_in)
            for parameter in layer.parameters():
                parameter.uniform_(-bound, bound, generator=generator)
