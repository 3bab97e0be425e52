"""Nets with softplus in the place of their ReLUs: what an attack on maps follows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from deepcheck.attacks.base import Model
from odeflow.model import checked_number

__all__ = ["Smoothed"]

_RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, F.relu_)
_LEAKY = (F.leaky_relu, F.leaky_relu_, torch._C._nn.leaky_relu, torch._C._nn.leaky_relu_)


@dataclass(frozen=True, eq=False)
class Smoothed:
    r"""A model with the softplus :math:`\log(1 + e^{\beta u}) / \beta` in the place of each ReLU, also of a leaky one.

    The gradient of a net of ReLUs by its image is constant in pieces: it has no second derivative that would say how a map
    moves. The softplus has one, and goes to the ReLU with :math:`\beta \to \infty` (the error is :math:`\log 2/\beta` at
    most a unit), as in Ghorbani, Abid, Zou (AAAI 2019) and Dombrowski et al. (NeurIPS 2019).

    It exchanges the calls of torch while the model runs: a compiled model does not notice.
    """

    model: Model
    beta: float
    """Steepness, > 0."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "beta", checked_number("beta", self.beta, above=0))

    def __call__(self, images: Tensor) -> Tensor:
        """Return the logits."""
        with _Softplus(self.beta):
            return self.model(images)


class _Softplus(TorchFunctionMode):
    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _RELUS:
            return F.softplus(_first(args, given), beta=self.beta)
        if func in _LEAKY:
            u = _first(args, given)
            slope = args[1] if len(args) > 1 else given.get("negative_slope", 0.01)
            return slope * u + (1 - slope) * F.softplus(u, beta=self.beta)
        return func(*args, **given)


def _first(args: Sequence[Any], given: Mapping[str, Any]) -> Tensor:
    u: Tensor = args[0] if args else given["input"]
    return u
