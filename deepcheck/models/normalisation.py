"""Normalisation of images, as a part of the network: attacks and data see pixels in [0, 1], and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from odeflow.model import checked_number

__all__ = ["Normalisation", "checked_channels"]


class Normalisation(nn.Module):
    """(x - mean) / std, channel by channel. Mean and standard deviation are buffers: saved, moved, never trained.

    Parameters
    ----------
    mean, std
        One number per channel; std > 0.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean, device="cpu").reshape(-1, 1, 1))
        self.register_buffer("std", torch.tensor(std, device="cpu").reshape(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return normalised images, in the shape of `x`."""
        return (x - self.mean) / self.std

    def extra_repr(self) -> str:
        """Return the numbers, for `repr`."""
        return f"mean={self.mean.flatten().tolist()}, std={self.std.flatten().tolist()}"


def checked_channels(name: str, value: object, channels: int, *, positive: bool = False) -> list[float]:
    """Return numbers, one per channel, as floats; or raise an error that names them and what is allowed."""
    allowed = f"allowed is a sequence of {channels} numbers, one per channel"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name} = {value!r} is of the wrong type: {allowed}")
    numbers = list(value)
    if len(numbers) != channels:
        raise ValueError(f"{name} = {value!r} has {len(numbers)} numbers: {allowed}")
    bounds = {"above": 0.0} if positive else {}
    return [checked_number(f"{name}[{channel}]", number, **bounds) for channel, number in enumerate(numbers)]
