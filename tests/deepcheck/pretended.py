"""A device that is not the CPU and computes there all the same: what would fail on a GPU fails here, and is counted.

Its tensors hold real numbers, in the CPU's memory, behind the name of another device. As on a GPU, tensors of two devices do
not go together but for numbers of no dimension, NumPy has no access, and a value must be asked for. Where the program asks
for one (`float(x)`, `if x.any():`, `x[mask]`, `x.cpu()`) a GPU would have to finish its work first, and the processor would
wait: these places are counted, as `Waits`.

    with pretended() as device, waits() as found:
        attack(model.to(device), images.to(device), ...)
    print(found)

Generators on the device do not exist. Speed and rounding are the CPU's.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

NAME = "pretended"
ROOT = Path(__file__).parents[2]
ROOMS = ("deepcheck", "studies", "benchmarks", "tests")
aten: Any = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default: "a value",
    aten.equal.default: "a comparison",
    aten.nonzero.default: "where a mask is true",
    aten.masked_select.default: "what a mask selects",
    aten._unique2.default: "different values",
    aten.bincount.default: "counts",
}
"""Operations after which a GPU must be waited for."""

Waits = Counter[tuple[str, str]]
"""How often the program waited, by the line of code, "file:line", and by what it waited for."""


def exists() -> bool:
    """Return whether this torch can have such a device: version 2.11 can."""
    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


@cache
def _registered() -> torch.device:
    """Return the device, which this process has from now on."""

    class Guard(torch._C._acc.DeviceGuard):  # type: ignore[name-defined, misc]
        def type_(self) -> Any:
            return torch._C._autograd.DeviceType.PrivateUse1

    backend_registration._setup_privateuseone_for_python_backend(NAME, device_guard=Guard())
    return torch.device(NAME, 0)


class OnDevice(Tensor):
    """A tensor of the device, and the one on the CPU that has its numbers."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=_registered(),
        )
        made.inner = inner
        return made

    def __init__(self, inner: Tensor) -> None: ...

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"OnDevice({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Sees what is made on the device without a tensor of the device, such as torch.zeros and Tensor.to."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


_found: list[Waits] = []


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation with the tensors on the CPU, and return its results on the device where they belong there."""
    flat, _ = tree_flatten((args, kwargs))
    tensors = [one for one in flat if isinstance(one, Tensor)]
    ours = [one for one in tensors if isinstance(one, OnDevice)]
    asked = kwargs.get("device")
    here = bool(ours) if asked is None else torch.device(asked).type == NAME
    moves = func in (aten._to_copy.default, aten.copy_.default)
    if ours and not moves:
        _check(func, args, tensors)
    if (ours or here) and (what := _wait(func, args, here)):
        for waits in _found:
            waits[_place(), what] += 1
    known = {id(one.inner): one for one in ours}

    def plain(value: Any) -> Any:
        if isinstance(value, OnDevice):
            return value.inner
        return torch.device("cpu") if isinstance(value, torch.device) and value.type == NAME else value

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in known:  # in-place operations return what they changed
            return known[id(value)]
        return OnDevice(value) if here else value

    args, kwargs = tree_map(plain, (args, kwargs))
    if func is aten._to_copy.default and ours:
        kwargs = {**kwargs, "device": None}
        out = func(*args, **kwargs)
        return OnDevice(out) if here else out
    return tree_map(wrapped, func(*args, **kwargs))


def _check(func: Any, args: Any, tensors: list[Tensor]) -> None:
    """Raise as torch does where tensors are on two devices. Numbers of no dimension go everywhere, but not into lists."""
    listed = {id(one) for arg in args if isinstance(arg, list | tuple) for one in arg}
    lists = func in (aten.cat.default, aten.stack.default)
    indexing = func in (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
    for one in tensors:
        if isinstance(one, OnDevice):
            continue
        if one.ndim and indexing and id(one) in listed:
            continue  # indices may be on the CPU
        if one.ndim or (lists and id(one) in listed):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, but found at least two devices, {NAME} and cpu! ({func})"
            )


def _wait(func: Any, args: Any, here: bool) -> str | None:
    """Return what is waited for, if anything is."""
    if func in WAITS:
        return WAITS[func]
    if func is aten._to_copy.default and isinstance(args[0], OnDevice) != here:
        return "a copy to the device" if here else "a copy from the device"
    if func is aten.copy_.default and isinstance(args[0], OnDevice) != isinstance(args[1], OnDevice):
        return "a copy to the device" if here else "a copy from the device"
    masks = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default)
    if func in masks and any(one is not None and one.dtype in (torch.bool, torch.uint8) for one in args[1]):
        return "where a mask is true"
    return None


def _place() -> str:
    """Return the innermost line of the package that is at work, or of the tests."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if any(path.is_relative_to(ROOT / room) for room in ROOMS) and path != Path(__file__):
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "?"


@contextmanager
def pretended() -> Iterator[torch.device]:
    """Let tensors be on the device, which is given."""
    device = _registered()
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=device) is one on the CPU that is moved
    try:
        with torch.autograd.set_multithreading_enabled(False), _Factories():  # a thread of the device would outlive Python
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


@contextmanager
def waits() -> Iterator[Waits]:
    """Count where the program waits for the device."""
    found: Waits = Counter()
    _found.append(found)
    try:
        yield found
    finally:
        _found.remove(found)
