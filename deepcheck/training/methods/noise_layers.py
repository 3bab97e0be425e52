"""Noise before every convolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from deepcheck.training.methods.base import Name
from deepcheck.training.methods.standard import Standard
from odeflow.model import checked_number

if TYPE_CHECKING:
    from deepcheck.models import Network

__all__ = ["NoiseLayers"]


@dataclass(frozen=True, kw_only=True)
class NoiseLayers(Standard):
    """Noise layers (RSE: Liu et al., ECCV 2018): cross-entropy of a net with Gaussian noise before every convolution.

    One random pass a step. The net keeps its noise at test; the defence `noise_ensemble` is the mean over passes of it. In the
    validation of a training it is asked once.
    """

    name: Name = field(init=False, default="noise_layers", repr=False)
    recipes: ClassVar = {"mnist": {"epochs": 12}}
    first_noise: float = 0.2
    """Standard deviation of the noise before the first convolution, >= 0."""
    inner_noise: float = 0.1
    """Standard deviation of the noise before each of the others, >= 0."""

    def __post_init__(self) -> None:
        checked_number("first_noise", self.first_noise, least=0)
        checked_number("inner_noise", self.inner_noise, least=0)

    def network(self, build: Callable[..., Network]) -> Network:
        """Return the network of the recipe with noise layers."""
        return build(noise=[self.first_noise, self.inner_noise])
