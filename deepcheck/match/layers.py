"""What a layer of a net makes of examples, as data for the theory of linear classifiers."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from deepcheck.attacks.base import checked_images, evaluating
from deepcheck.device import memory_advice
from deepcheck.match.margins import UNBOUNDED, to_array
from odeflow.model import checked_count

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["layer_features"]


def layer_features(
    model: nn.Module, x: Tensor, layer: str | None = None, *, batch_size: int = 500
) -> npt.NDArray[np.float64]:
    """Return the activations of a layer, one row per example: data for `odeflow.anisotropic.Mixture.from_samples`.

    Exact. What an attack of size epsilon on x does to the features is not known to the theory of their mixture.

    Parameters
    ----------
    model
        A module. It is put into eval mode, and back afterwards.
    x
        Examples, shape (n, ...), n >= 1, of a floating type.
    layer
        Name of the module whose output is wanted, as in `model.named_modules()`; "" is the model itself. None: the
        activations before the logits, of a net with a method `features`, such as those of `deepcheck.models.build`.
    batch_size
        Examples that the model sees at once, >= 1. The result does not depend on it.

    Returns
    -------
    ndarray
        Shape (n, d), float64: every output of the layer, flattened.

    Raises
    ------
    TypeError, ValueError
        If there is no such layer, it is not used exactly once per call, or does not give a tensor with one row for each
        example.
    MemoryError
        If a batch does not fit into the memory of the GPU.

    Examples
    --------
    >>> from deepcheck.models import build
    >>> network = build("conv_small", 2, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    >>> layer_features(network, torch.rand(5, 1, 8, 8)).shape
    (5, 100)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model = {model!r} is of the wrong type: allowed is a torch.nn.Module")
    batch_size = checked_count("batch_size", batch_size, 1)
    n = len(x) if getattr(x, "ndim", 0) else 0
    checked_images(x, torch.zeros(n, dtype=torch.int64, device=getattr(x, "device", None)), UNBOUNDED)
    if not n:
        raise ValueError("x has 0 examples: allowed is 1 or more")
    features = getattr(model, "features", None)
    if layer is None and not callable(features):
        raise ValueError(f"layer = None needs a model with a method features: allowed is {_allowed(model, '')}")

    caught: list[Any] = []
    handle = None
    if layer is not None:
        handle = _module(model, layer).register_forward_hook(lambda _module, _inputs, output: caught.append(output))
    parts: list[Tensor] = []
    try:
        with evaluating(model), torch.no_grad(), memory_advice(batch_size):
            for part in torch.split(x, batch_size):
                caught.clear()
                if layer is None:
                    assert callable(features)
                    caught.append(features(part.clone()))  # which it may overwrite
                else:
                    model(part.clone())
                if len(caught) != 1:
                    raise ValueError(f"layer = {layer!r} is used {len(caught)} times per call: allowed is once")
                (output,) = caught
                if not isinstance(output, Tensor) or output.ndim < 1 or len(output) != len(part):
                    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
                    raise ValueError(
                        f"layer = {layer!r} gives {shape} for {len(part)} examples: allowed is a tensor with a row for "
                        "each"
                    )
                parts.append(output.reshape(len(part), -1).clone())
    finally:
        if handle is not None:
            handle.remove()
    return to_array(parts)


def _module(model: nn.Module, layer: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules())
    if layer not in modules:
        raise ValueError(f"layer = {layer!r} is unknown: allowed is {_allowed(model, layer)}")
    return modules[layer]


def _allowed(model: nn.Module, layer: object) -> str:
    names = [name for name, _ in model.named_modules() if name]
    close = difflib.get_close_matches(str(layer), names, 1)
    shown = ", ".join(repr(name) for name in names[:10]) + (", ..." if len(names) > 10 else "")
    return f"one of {shown or repr('')}" + (f" (did you mean {close[0]!r}?)" if close else "")
