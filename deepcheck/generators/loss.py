"""The losses of a Wasserstein GAN with gradient penalty."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["critic_loss", "gradient_penalty"]


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, made: Tensor, t: Tensor) -> Tensor:
    r"""Return the mean of :math:`(|\nabla_x D(\hat x)|_2 - 1)^2` over :math:`\hat x = (1 - t) x + t \tilde x`.

    Gulrajani et al. (NeurIPS 2017), eq. 3. It can be differentiated by the critic's weights.

    Parameters
    ----------
    critic
        From images, shape (n, ...), to numbers, shape (n,).
    real, made
        Images x of the data and of the generator, shape (n, ...).
    t
        Where between the two, in [0, 1], shape (n,).
    """
    between = torch.lerp(real, made, t.view(-1, *[1] * (real.ndim - 1))).detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        sizes: Tensor = gradient.flatten(1).norm(dim=1)
        return (sizes - 1).square().mean()


def critic_loss(
    critic: Callable[[Tensor], Tensor], real: Tensor, made: Tensor, t: Tensor, penalty: float
) -> tuple[Tensor, Tensor]:
    """Return the loss of the critic, mean D(made) - mean D(real) + penalty * gradient penalty, and the distance in it.

    The distance, mean D(real) - mean D(made), is the critic's estimate of the Wasserstein distance, from below.
    """
    values = critic(torch.cat([real, made]))
    distance = values[: len(real)].mean() - values[len(real) :].mean()
    return penalty * gradient_penalty(critic, real, made, t) - distance, distance.detach()
