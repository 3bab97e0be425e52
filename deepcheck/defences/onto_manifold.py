"""What attacks on a `DefenseGAN` follow: the net behind the projection, with the gradient of a projection."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import Model

__all__ = ["OntoManifold", "along_manifold"]


class Projecting(Protocol):
    """A `DefenseGAN` as far as its surrogate needs it."""

    net: Model
    G: Any
    """The generator."""

    def nearest(self, images: Tensor) -> Tensor:
        """Return the latent vectors of the nearest images, shape (n, latent)."""


class OntoManifold(nn.Module):
    r"""The surrogate of a `DefenseGAN`: the net behind the projection, with the gradient of a projection.

    Where G(z*) is a nearest image, a small change of the image moves it along the manifold alone. With the Jacobian J of G at z*,

    .. math:: G(z^*(x + \delta)) = G(z^*(x)) + J (J^T J + \lambda I)^{-1} J^T \delta + \ldots,

    to first order in :math:`\delta` and but for the curvature of the manifold; so BPDA with the projection to the tangent space in
    place of the identity. :math:`\lambda` is `DAMPING` times the mean eigenvalue of :math:`J^T J`. Attacks in latent space find
    the defence in it.
    """

    def __init__(self, defence: Projecting) -> None:
        super().__init__()
        self.defence = defence
        self.model = defence.net

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, shape (n, K)."""
        z = self.defence.nearest(images)
        with torch.no_grad():
            made = self.defence.G(z).to(images.dtype)
        if torch.is_grad_enabled() and images.requires_grad:
            made = made + along_manifold(self.defence.G, z, images - images.detach())
        logits: Tensor = self.model(made)
        return logits


DAMPING = 1e-3


def along_manifold(G: nn.Module, z: Tensor, change: Tensor) -> Tensor:
    """Return how far G(z) moves, to first order, if the image it is nearest to changes: J (J^T J + lambda)^-1 J^T change.

    Parameters
    ----------
    G
        Makes images, shape (n, ...), of latent vectors, each by itself.
    z
        Shape (n, latent).
    change
        Of the images, shape (n, ...).
    """
    J = _jacobian(G, z).to(change.dtype)
    A = J.transpose(1, 2) @ J
    damping = DAMPING * A.diagonal(dim1=1, dim2=2).mean(1)
    A = A + damping[:, None, None] * torch.eye(z.shape[1], dtype=A.dtype, device=A.device)
    step: Tensor = torch.linalg.solve(A, J.transpose(1, 2) @ change.flatten(1).unsqueeze(2))
    return (J @ step).view_as(change)


def _jacobian(G: nn.Module, z: Tensor) -> Tensor:
    """Return the derivatives of all images by their latent vectors, shape (n, pixels, latent): those of w -> J^T w, at any w."""
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        made: Tensor = G(z)
        w = torch.zeros_like(made, requires_grad=True)
        (pulled,) = torch.autograd.grad(made, z, w, create_graph=True)
        columns = [torch.autograd.grad(one.sum(), w, retain_graph=True)[0] for one in pulled.unbind(1)]
    return torch.stack([one.flatten(1) for one in columns], 2)
