r"""Two-layer nets in R^N that learn one example at a time by automatic differentiation, many side by side.

The rule is that of `odeflow.order_parameters.Committee`, and nothing of its code: phi = b + sum_k c_k g(w_k.xi - theta_k) and
the squared loss as PyTorch has them, gradients by autograd, the attack by gradients in R^N. Exact at any N in what it does;
the independent check of the theory's reduction to order parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["Clusters", "Nets", "fgsm", "pgd", "sgd"]

Array = npt.NDArray[np.float64]
Attack = Callable[["Nets", Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Clusters:
    """The law of the examples; the centres are in the first coordinates of R^N."""

    centres: Array
    """Shape (clusters, n0)."""
    weights: Array
    variances: Array
    labels: Array

    def draw(self, nets: int, N: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return an example and its label for each net, shapes (nets, N) and (nets,)."""
        chosen = torch.multinomial(torch.from_numpy(self.weights), nets, replacement=True, generator=generator)
        xi = torch.randn(nets, N, generator=generator, dtype=torch.float64)
        xi *= torch.from_numpy(np.sqrt(self.variances))[chosen, None]
        xi[:, : self.centres.shape[1]] += torch.from_numpy(self.centres)[chosen]
        return xi, torch.from_numpy(self.labels)[chosen]


@dataclass
class Nets:
    """Nets of one shape, side by side."""

    w: Tensor
    """Shape (nets, K, N)."""
    c: Tensor
    """Shape (nets, K)."""
    theta: Tensor
    """Shape (nets, K)."""
    b: Tensor
    """Shape (nets,)."""
    relu: bool
    """Units max(0, x), or erf(x / sqrt(2))."""

    @classmethod
    def with_overlaps(
        cls, along: Array, Q: Array, c: Array, theta: Array, b: float, *, nets: int, N: int, relu: bool
    ) -> Nets:
        """Return nets whose weights are `along` in the first n0 coordinates, shape (..., K, n0), and have the products Q.

        The rest is in the next K coordinates, which are as good as any: the examples are isotropic there.
        """
        K, n0 = along.shape[-2:]
        values, vectors = np.linalg.eigh(Q - along @ np.swapaxes(along, -1, -2))
        rest = vectors * np.sqrt(np.maximum(values, 0.0))[..., None, :]
        w = np.zeros((nets, K, N))
        w[..., :n0], w[..., n0 : n0 + K] = along, rest
        c_all, theta_all = (torch.tensor(np.broadcast_to(one, (nets, K))) for one in (c, theta))
        return cls(torch.from_numpy(w), c_all, theta_all, torch.full((nets,), float(b), dtype=torch.float64), relu)

    def output(self, xi: Tensor) -> Tensor:
        """Return phi, shape (..., nets), at examples of shape (..., nets, N)."""
        if xi.dim() == 2:
            x = torch.bmm(self.w, xi[:, :, None])[:, :, 0] - self.theta
        else:
            x = torch.einsum("rkn,...rn->...rk", self.w, xi) - self.theta
        g = x.relu() if self.relu else torch.erf(x / math.sqrt(2))
        return self.b + (self.c * g).sum(-1)

    def overlaps(self, along: Array) -> tuple[Array, Array]:
        """Return w_k.mu_a for vectors mu in the first coordinates, shape (nets, K, vectors), and w_k.w_l."""
        w = self.w.numpy()
        return w[..., : along.shape[1]] @ along.T, w @ np.swapaxes(w, -1, -2)


def _direction(nets: Nets, xi: Tensor, tau: Tensor) -> Tensor:
    """Return the gradient of the loss by the example, of length 1 where it is not 0."""
    at = xi.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(((nets.output(at) - tau) ** 2).sum() / 2, at)
    length = gradient.norm(dim=-1, keepdim=True)
    return torch.where(length > 0, gradient / length, 0.0)


def fgsm(epsilon: float) -> Attack:
    """Return the attack of one step of length epsilon along the gradient of the loss."""
    return lambda nets, xi, tau: xi + epsilon * _direction(nets, xi, tau)


def pgd(epsilon: float, steps: int, step: float) -> Attack:
    """Return the attack of steps of length step * epsilon, each projected onto the ball of radius epsilon."""

    def attack(nets: Nets, xi: Tensor, tau: Tensor) -> Tensor:
        moved = xi
        for _ in range(steps):
            moved = moved + step * epsilon * _direction(nets, moved, tau)
            delta = moved - xi
            length = delta.norm(dim=-1, keepdim=True)
            moved = xi + delta * torch.clamp(epsilon / length.clamp(min=1e-300), max=1.0)
        return moved

    return attack


def sgd(
    nets: Nets,
    data: Clusters,
    attack: Attack,
    *,
    eta: float,
    eta_b: float = 0.0,
    eta_c: float = 0.0,
    eta_theta: float = 0.0,
    examples: Sequence[int],
    generator: torch.Generator,
    alone: float | None = None,
) -> Iterator[Nets]:
    """Let the nets learn, each from examples of its own, and hand them out after so many examples.

    They are changed in place. With `alone`, each unit meets an attack of its own in the place of the net's: xi - tau alone
    sgn(c_k) w_k / |w_k|, of that length, which no other unit has a part in.
    """
    N = nets.w.shape[2]
    rates = {"w": eta / N, "c": eta_c / N, "theta": eta_theta / N, "b": eta_b / N}
    trained = {name: getattr(nets, name) for name, rate in rates.items() if rate}
    done = 0
    for count in examples:
        for _ in range(count - done):
            xi, tau = data.draw(len(nets.w), N, generator)
            if alone is None:
                moved = attack(nets, xi, tau)
            for parameter in trained.values():
                parameter.requires_grad_()
            if alone is None:
                output = nets.output(moved)
            else:
                unit = (nets.w / nets.w.norm(dim=-1, keepdim=True)).detach()
                each = xi[:, None] - alone * tau[:, None, None] * nets.c.sign()[..., None] * unit
                x = (nets.w * each).sum(-1) - nets.theta
                output = nets.b + (nets.c * (x.relu() if nets.relu else torch.erf(x / math.sqrt(2)))).sum(-1)
            gradients = torch.autograd.grad(((output - tau) ** 2).sum() / 2, list(trained.values()))
            with torch.no_grad():
                for (name, parameter), gradient in zip(trained.items(), gradients, strict=True):
                    parameter.requires_grad_(requires_grad=False)
                    parameter.sub_(gradient, alpha=rates[name])
        done = count
        yield nets
