"""The signed margin of a binary net and its gradient, example by example."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from deepcheck.attacks.base import Model, checked_images, evaluating
from deepcheck.attacks.norms import NORMS, Norm
from deepcheck.attacks.norms import norm as as_norm
from deepcheck.device import describe, memory_advice
from deepcheck.models import Network
from odeflow.model import checked_count
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["gradients", "labelled", "local_dataset", "margins", "norm_with_dual", "signed_margin", "signs"]

_LOG = logging.getLogger(__name__)

UNBOUNDED = (-np.inf, np.inf)


def margins(
    model: Model,
    x: Tensor,
    y: Tensor | npt.ArrayLike,
    *,
    norm: Norm | str = "linf",
    batch_size: int = 500,
) -> xr.Dataset:
    r"""Return the margin of a binary net at each example, its gradient's length, and the distance to the boundary.

    Margin and gradient are exact; the distance is exact for a linear net without bounds on the pixels, and for others
    approximate: that to the boundary of the net's linear approximation at the example.

    Parameters
    ----------
    model
        A function from examples to logits, shape (n, 2): z is the second less the first; or to z itself, shape (n,) or
        (n, 1). A module is put into eval mode, and back afterwards.
    x
        Examples, shape (n, ...), n >= 1, of a floating type.
    y
        Labels, shape (n,): +1 and -1, or the classes 1 and 0. See `deepcheck.match`.
    norm
        Norm of perturbations: "linf", "l2", "l1" or a Norm that has a dual.
    batch_size
        Examples that the model sees at once, >= 1. The result does not depend on it.

    Returns
    -------
    Dataset
        With the dim example: z; gradient_norm, :math:`|\nabla z|_*` in the dual norm, per unit of x; distance,
        :math:`y z/|\nabla z|_*`, in units of x, negative where misclassified; label, +1 or -1. And the number
        zero_gradients.

        Where a gradient is zero the distance is NaN; their number is in zero_gradients, and a warning goes to the log.

    Raises
    ------
    TypeError, ValueError
        If the net has not one or two outputs, an output is not finite, a label is none of the two classes, or another
        argument is not allowed.
    MemoryError
        If a batch does not fit into the memory of the GPU.

    Examples
    --------
    >>> def model(x):
    ...     return 3 * x[:, 0] - 4 * x[:, 1] - 1
    >>> margins(model, torch.tensor([[1.0, 0.0], [0.0, 0.0]]), [1, -1], norm="l2").distance.values
    array([0.4, 0.2])
    """
    x, label, geometry = labelled(x, y, norm)
    batch_size = checked_count("batch_size", batch_size, 1)
    z, gradient_norm = [], []
    with memory_advice(batch_size):
        for values, gradient in gradients(model, x, batch_size):
            z.append(values)
            gradient_norm.append(NORMS[str(geometry.dual)].length(gradient))
    result = local_dataset(to_array(z), to_array(gradient_norm), label)
    return result.assign_attrs(attributes("margins", model, x, norm=geometry.name, batch_size=batch_size))


def local_dataset(
    z: npt.NDArray[np.float64], gradient_norm: npt.NDArray[np.float64], label: npt.NDArray[np.float64]
) -> xr.Dataset:
    """Return the Dataset of `margins`, without attributes."""
    import xarray as xr

    flat = gradient_norm == 0
    if count := int(flat.sum()):
        _LOG.warning("%d of %d examples have a gradient of zero: their distance is NaN", count, len(z))
    with np.errstate(divide="ignore", invalid="ignore"):
        distance = np.where(flat, np.nan, label * z / gradient_norm)
    return xr.Dataset(
        {
            "z": ("example", z, text("margin of the net, positive for the label +1")),
            "gradient_norm": ("example", gradient_norm, text("dual norm of the gradient of the margin")),
            "distance": ("example", distance, text("distance to the boundary if the net were linear")),
            "label": ("example", label.astype(np.int64), text("true label, +1 or -1")),
            "zero_gradients": ((), count, text("number of examples with a gradient of zero")),
        },
        {"example": ("example", np.arange(len(z)), text("index of the example"))},
    )


def signed_margin(model: Model, x: Tensor, *, finite: bool = True) -> Tensor:
    """Return z, shape (n,), of a binary net; or raise ValueError if it is none, or, where that is asked, z is not finite.

    To ask is to wait for the device.
    """
    output: Any = model(x.clone())  # which it may overwrite
    if not isinstance(output, Tensor) or output.shape not in {(len(x),), (len(x), 1), (len(x), 2)}:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"model returned {shape} for {len(x)} examples: allowed are (n, 2), (n, 1) and (n,), a binary net; of a "
            "net with more classes take two, say lambda x: model(x)[:, [negative, positive]]"
        )
    if output.dtype in (torch.bfloat16, torch.float16):
        output = output.float()
    z: Tensor = output[:, 1] - output[:, 0] if output.shape[1:] == (2,) else output.reshape(len(x))
    if finite and not bool(z.isfinite().all()):
        raise ValueError("model returned a margin that is not finite: allowed are finite outputs")
    return z


def gradients(model: Model, x: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield z, shape (batch,), and its gradient, shape (batch, ...), batch by batch, with the model in eval mode."""
    with evaluating(model):
        for part in torch.split(x, batch_size):
            with torch.enable_grad():
                inputs = part.detach().clone().requires_grad_()
                z = signed_margin(model, inputs)
                # a model that does not look at its input has no graph
                gradient = (
                    torch.autograd.grad(z.sum(), inputs, allow_unused=True, materialize_grads=True)[0]
                    if z.requires_grad
                    else torch.zeros_like(part)
                )
            if not bool(gradient.isfinite().all()):
                raise ValueError("model has a gradient that is not finite: allowed are finite gradients")
            yield z.detach(), gradient


def labelled(x: Tensor, y: Tensor | npt.ArrayLike, norm: Norm | str) -> tuple[Tensor, npt.NDArray[np.float64], Norm]:
    """Return the examples, their labels +1 and -1, shape (n,), and the norm; or raise if one is not allowed."""
    geometry = norm_with_dual(norm)
    label = signs(y)
    classes = torch.as_tensor(label > 0, dtype=torch.int64, device=getattr(x, "device", None))
    checked_images(x, classes, UNBOUNDED)
    if not len(x):
        raise ValueError("x has 0 examples: allowed is 1 or more")
    return x, label, geometry


def signs(y: Tensor | npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return labels +1 and -1, from these or from the classes 1 and 0; or raise if there are others.

    Raises
    ------
    TypeError, ValueError
        If they are not numbers, or others than these.
    """
    try:
        values = np.asarray(y.cpu() if isinstance(y, Tensor) else y).astype(np.float64, casting="safe")
    except (TypeError, ValueError):
        raise TypeError(f"y = {y!r} is of the wrong type: allowed are labels +1 and -1, or classes 1 and 0") from None
    found = np.unique(values)
    if not (np.isin(found, (-1, 1)).all() or np.isin(found, (0, 1)).all()):
        shown = ", ".join(f"{value:g}" for value in found[:5]) + (", ..." if len(found) > 5 else "")
        raise ValueError(f"y has the values {shown}: allowed are the labels +1 and -1, or the classes 1 and 0")
    return np.where(values == 1, 1.0, -1.0)


def norm_with_dual(norm: Norm | str) -> Norm:
    """Return a norm, or raise ValueError if it has no dual."""
    geometry = as_norm(norm)
    if geometry.dual is None:
        allowed = ", ".join(name for name, one in NORMS.items() if one.dual)
        raise ValueError(f"norm = {norm!r} has no dual norm: allowed is one of {allowed}")
    return geometry


def to_array(parts: list[Tensor]) -> npt.NDArray[np.float64]:
    """Return tensors of several batches as one array of float64."""
    return np.concatenate([part.double().cpu().numpy() for part in parts])


def text(long_name: str) -> dict[str, str]:
    """Return the attributes of a variable."""
    return {"long_name": long_name, "units": "1"}


def attributes(
    function: str, model: Model, x: Tensor, *, generator: torch.Generator | None = None, **options: Any
) -> dict[str, str]:
    """Return the attributes of a result."""
    name = repr(model) if isinstance(model, Network) else getattr(model, "__name__", type(model).__name__)
    seed = None if generator is None else str(generator.initial_seed())
    return provenance(
        f"deepcheck.match.{function}", seed=seed, device=describe(x.device), model=name, examples=len(x), **options
    )
