"""The nearest image of a generator: gradient descent in its latent space."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["MakesImages", "nearest"]

_ROWS = 2000
"""Latent vectors that are followed at once: memory, and nothing else, depends on it."""


class MakesImages(Protocol):
    """A generator: a function from latent vectors to images, that says their dimension and shape."""

    @property
    def latent(self) -> int:
        """Dimension of the latent vectors."""

    @property
    def out_shape(self) -> tuple[int, ...]:
        """Shape of an image."""

    def __call__(self, z: Tensor, /) -> Tensor:
        """Return images, shape (n, *out_shape), for latent vectors, shape (n, latent)."""


def nearest(
    G: MakesImages, images: Tensor, starts: Tensor, *, steps: int = 200, rate: float = 10.0, momentum: float = 0.7
) -> tuple[Tensor, Tensor]:
    r"""Return the latent vectors that make the images that are nearest to some images, and how far these are.

    From each start z descends on the squared error, :math:`e(z) = |G(z) - x|^2 / D`, the mean over the D pixels:

        v <- momentum v + grad e(z),    z <- z - rate v

    Of all points of all starts of an image the one of the least error counts. Approximate: a local minimum.

    Parameters
    ----------
    G
        Makes images, shape (m, ...), of latent vectors, shape (m, latent), each by itself.
    images
        Shape (n, ...).
    starts
        Shape (n, R, latent).
    steps
        Gradient steps, >= 1.
    rate, momentum
        Of the descent.

    Returns
    -------
    z
        Shape (n, latent).
    errors
        Mean squared error of a pixel, shape (n,).
    """
    n, R, latent = starts.shape
    size = max(1, _ROWS // R)
    if n > size:
        parts = [
            nearest(G, x, z, steps=steps, rate=rate, momentum=momentum)
            for x, z in zip(images.split(size), starts.split(size), strict=True)
        ]
        return torch.cat([z for z, _ in parts]), torch.cat([error for _, error in parts])
    x = images.detach().repeat_interleave(R, 0)
    z = starts.detach().reshape(n * R, latent).clone()
    v = torch.zeros_like(z)
    best, least = z.clone(), z.new_full((n * R,), torch.inf)
    for step in range(steps + 1):
        with torch.enable_grad():
            error = (G(z.requires_grad_()) - x).square().flatten(1).mean(1)
            gradient = torch.autograd.grad(error.sum(), z)[0] if step < steps else None
        z, error = z.detach(), error.detach()
        better = error < least
        best, least = torch.where(better[:, None], z, best), torch.where(better, error, least)
        if gradient is not None:
            v = momentum * v + gradient
            z = z - rate * v
    chosen = least.view(n, R).argmin(1)
    rows = torch.arange(n, device=z.device)
    return best.view(n, R, latent)[rows, chosen], least.view(n, R)[rows, chosen]
