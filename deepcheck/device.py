"""Where tensors live, and what to say when there is no room for them."""

from __future__ import annotations

import deepcheck._torch  # noqa: F401

# isort: split

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["choose", "describe", "exact_float32", "memory_advice"]

_LOG = logging.getLogger(__name__)


def choose(name: str) -> torch.device:
    """Return the device of this name.

    Parameters
    ----------
    name
        "auto": CUDA if there is a CUDA device, else the CPU, and the log says so. "cpu", "cuda" or "cuda:N": that one.

    Raises
    ------
    ValueError
        If there is no such device here.

    Examples
    --------
    >>> choose("cpu")
    device(type='cpu')
    """
    available = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if name == "auto":
        if len(available) > 1:
            return torch.device("cuda:0")
        _LOG.info("no CUDA device is available: running on the CPU")
        return torch.device("cpu")
    if name == "cuda" and len(available) > 1:
        return torch.device("cuda:0")
    if name in available:
        return torch.device(name)
    why = "" if torch.backends.cuda.is_built() else f" (torch {torch.__version__} is built without CUDA)"
    raise ValueError(f"device = {name!r} is not available{why}: allowed here are auto, {', '.join(available)}")


def describe(device: torch.device) -> str | None:
    """Return a GPU for the provenance of a result, and how it multiplies float32 at this moment.

    That is "ieee" within `exact_float32`, else torch's words for products of matrices, convolutions and recurrent nets, say
    "none, tf32, tf32". None for the CPU, which is recorded by default.
    """
    if device.type != "cuda":
        return None
    now = [str(getattr(part, name)) for part, name, _ in _float32_settings()]
    exact = all(getattr(part, name) == value for part, name, value in _float32_settings())
    return f"cuda: {torch.cuda.get_device_name(device)}, float32: {'ieee' if exact else ', '.join(now)}"


def _float32_settings(*, exact: bool = True) -> list[tuple[Any, str, object]]:
    """Return where torch keeps how float32 is multiplied on a GPU, under which name, and the value for exactly, or TF32."""
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(cudnn, "conv") and hasattr(cuda, "fp32_precision"):  # torch 2.9 and later
        return [(part, "fp32_precision", "ieee" if exact else "tf32") for part in (cuda, cudnn.conv, cudnn.rnn)]
    return [(part, "allow_tf32", not exact) for part in (cuda, cudnn)]


@contextmanager
def exact_float32(exact: bool = True) -> Iterator[None]:
    """Let float32 be float32 on a GPU: no convolution and no product of matrices in TF32, which has 10 bits.

    Attacks, evaluations and trainings run in it. Elsewhere torch's settings are as the caller has them; by default
    convolutions are TF32 there. Who wants a fast training asks for ``precision="bfloat16"``, which its recipe records.

    With `exact` False it is the opposite: TF32 everywhere, to see what that changes.
    """
    settings = _float32_settings(exact=exact)
    before = [getattr(part, name) for part, name, _ in settings]
    try:
        for part, name, value in settings:
            setattr(part, name, value)
        yield
    finally:
        for (part, name, _), value in zip(settings, before, strict=True):
            setattr(part, name, value)


@contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Turn the failure to get memory on a GPU into a MemoryError that says which batch size to try."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        advice = batch_size // 2 or "device = 'cpu'"
        raise MemoryError(f"batch_size = {batch_size} needs more memory than the GPU has: try {advice}") from error
