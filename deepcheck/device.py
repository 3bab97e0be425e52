"""Where tensors live, and what to say when there is no room for them."""

from __future__ import annotations

import deepcheck._torch  # noqa: F401

# isort: split

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["choose", "describe", "memory_advice"]

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
    """Return the name of a GPU for the provenance of a result; None for the CPU, which is recorded by default."""
    return f"cuda: {torch.cuda.get_device_name(device)}" if device.type == "cuda" else None


@contextmanager
def memory_advice(batch_size: int) -> Iterator[None]:
    """Turn the failure to get memory on a GPU into a MemoryError that says which batch size to try."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        advice = batch_size // 2 or "device = 'cpu'"
        raise MemoryError(f"batch_size = {batch_size} needs more memory than the GPU has: try {advice}") from error
