"""Multilayer nets side by side, all of one shape, with gradients written out: for learning from one example at a time.

At one example per step nearly all of the time of automatic differentiation is overhead. Here a step of many nets is a
few products of stacked matrices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["StackedNets"]


@dataclass
class StackedNets:
    r"""Nets with the margins :math:`x(\xi) = W_L\,\phi(W_{L-1} \cdots \phi(W_1\xi + c_1)) + c_L`, phi = max(0, .).

    Without hidden layers, this is the seed model's w.xi - b.
    """

    weights: list[Tensor]
    """For each layer, shape (nets, outputs, inputs); the last has one output."""
    biases: list[Tensor]
    """For each layer, shape (nets, 1, outputs); the last is -b."""

    @classmethod
    def random(
        cls, nets: int, widths: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float32
    ) -> StackedNets:
        """Return nets with normal weights of variance 2 / inputs (1 / inputs in the last layer), and zero biases.

        `widths` are the numbers of units from the input to the last hidden layer.
        """
        device, shapes = generator.device, list(zip(widths, (*widths[1:], 1), strict=True))
        weights = [
            torch.randn(nets, outputs, inputs, generator=generator, device=device, dtype=dtype)
            * math.sqrt((1 if outputs == 1 else 2) / inputs)
            for inputs, outputs in shapes
        ]
        return cls(weights, [torch.zeros(nets, 1, outputs, device=device, dtype=dtype) for _, outputs in shapes])

    def __len__(self) -> int:
        """Return the number of nets."""
        return len(self.weights[0])

    @property
    def depth(self) -> int:
        """Number of layers with weights, 1 for a linear classifier."""
        return len(self.weights)

    def forward(self, xi: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the margins, shape (nets, n, 1), at examples (nets, n, N), and what goes into each layer."""
        inputs = [xi]
        for W, c in zip(self.weights[:-1], self.biases[:-1], strict=True):
            inputs.append(torch.baddbmm(c, inputs[-1], W.mT).relu_())
        return torch.baddbmm(self.biases[-1], inputs[-1], self.weights[-1].mT), inputs

    def gradient(self, inputs: list[Tensor]) -> Tensor:
        """Return the gradient of the margin by the example, shape (nets, n, N)."""
        back = self.weights[-1]
        if len(inputs) == 1:
            return back.expand_as(inputs[0])
        for W, activation in zip(self.weights[-2::-1], inputs[:0:-1], strict=True):
            back = torch.bmm(back * (activation > 0), W)
        return back

    def step(self, inputs: list[Tensor], pull: Tensor, rate: float, bias_rate: float) -> None:
        """Move all weights along the gradient of the sum of pull times margin.

        Parameters
        ----------
        inputs
            From `forward`.
        pull
            Shape (nets, n, 1): minus the derivative of the loss by the margin.
        rate, bias_rate
            Learning rates of all weights, and of all biases.
        """
        back = pull
        for layer in reversed(range(self.depth)):
            W, c = self.weights[layer], self.biases[layer]
            below = torch.bmm(back, W) * (inputs[layer] > 0) if layer else None  # with the old weights
            W.baddbmm_(back.mT, inputs[layer], alpha=rate)
            c.add_(back.sum(1, keepdim=True), alpha=bias_rate)
            if below is not None:
                back = below

    def scale(self, factor: Tensor) -> None:
        """Multiply the margins, up to the last bias, by a factor > 0 of each net, shape (nets,); all layers share it."""
        share = factor[:, None, None] ** (1 / self.depth)
        for layer, (W, c) in enumerate(zip(self.weights, self.biases, strict=True)):
            W.mul_(share)
            if layer + 1 < self.depth:
                c.mul_(share ** (layer + 1))

    def net(self, index: int) -> nn.Sequential:
        """Return a copy of one net as a module: from examples, shape (n, N), to margins, shape (n, 1)."""
        layers: list[nn.Module] = []
        for W, c in zip(self.weights, self.biases, strict=True):
            linear = nn.Linear(W.shape[2], W.shape[1], device=W.device, dtype=W.dtype)
            with torch.no_grad():
                linear.weight.copy_(W[index])
                linear.bias.copy_(c[index, 0])
            layers += [linear, nn.ReLU()]
        return nn.Sequential(*layers[:-1]).eval()
