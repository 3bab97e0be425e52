"""Gaussian noise before the convolutions of a network, in training and at test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from odeflow.model import checked_count, checked_number

if TYPE_CHECKING:
    from deepcheck.attacks.draws import Draws

__all__ = ["Noise", "checked_noise", "noises_in"]


class Noise(nn.Module):
    """The source of the noise of a network's layers (Liu et al., ECCV 2018): x + sigma N(0, 1) goes into each, in any mode.

    Of the layers the convolutions get it; in a network without any the last layer does. Every call of a layer draws new numbers,
    from the seed, the number of calls so far, and the place of the image in its batch. Both are buffers: they are saved with the
    weights and copied with the network, and a network that is loaded goes on where it was. The numbers are the same on every
    device, and the random numbers of the process are not used.

    Parameters
    ----------
    first
        Standard deviation before the first layer, >= 0, in the units of what goes into it.
    inner
        Standard deviation before the others, >= 0.
    """

    seed: Tensor
    calls: Tensor

    def __init__(self, first: float, inner: float) -> None:
        super().__init__()
        self.first, self.inner = first, inner
        self._draws: Draws | None = None
        for name in ("seed", "calls"):
            self.register_buffer(name, torch.zeros((), dtype=torch.int64, device="cpu"))

    def put_into(self, body: nn.Module, head: nn.Linear) -> None:
        """Let the layers of a network take what they get with noise."""
        convolutions: list[nn.Module] = [layer for layer in body.modules() if isinstance(layer, nn.Conv2d)]
        for index, layer in enumerate(convolutions or [head]):
            layer.register_forward_pre_hook(_Before(self, self.inner if index else self.first))

    def added(self, x: Tensor, sigma: float) -> Tensor:
        """Return x + sigma xi with xi ~ N(0, 1), shape (n, ...)."""
        from deepcheck.attacks.draws import Draws, mixed

        draws = self._draws
        if draws is None:
            draws = Draws(mixed(mixed(self.seed, self.calls), torch.arange(len(x), device=x.device)))
            self.calls += 1
        return x + sigma * draws.normal(x)

    @contextmanager
    def drawn_from(self, draws: Draws) -> Iterator[None]:
        """Take all numbers from streams of the examples of one batch, in the place of those of the network."""
        self._draws = draws
        try:
            yield
        finally:
            self._draws = None

    def reseed(self, seed: int) -> None:
        """Start the random numbers from a seed, >= 0."""
        self.seed.fill_(checked_count("seed", seed, 0, most=2**63 - 1))
        self.calls.zero_()

    def extra_repr(self) -> str:
        """Return the standard deviations, for `repr`."""
        return f"first={self.first}, inner={self.inner}"


class _Before:
    """What is done before a layer. An object, so that a copy of a network has one that belongs to the copy."""

    def __init__(self, noise: Noise, sigma: float) -> None:
        self.noise, self.sigma = noise, sigma

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        del layer
        return self.noise.added(inputs[0], self.sigma)


def noises_in(model: object) -> list[Noise]:
    """Return the sources of noise in a model, one for each network in it; of what is no module none."""
    return [one for one in model.modules() if isinstance(one, Noise)] if isinstance(model, nn.Module) else []


def checked_noise(value: object) -> list[float]:
    """Return two standard deviations, >= 0; or raise an error that says what is allowed."""
    allowed = "allowed are two numbers >= 0, [first, inner]"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"noise = {value!r} is of the wrong type: {allowed}")
    numbers = list(value)
    if len(numbers) != 2:
        raise ValueError(f"noise = {value!r} has {len(numbers)} numbers: {allowed}")
    return [checked_number(f"noise[{index}]", number, least=0) for index, number in enumerate(numbers)]
