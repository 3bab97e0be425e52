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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest
import torch
from torch import Tensor
from torch.utils import backend_registration
from torch.utils._python_dispatch import TorchDispatchMode

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

    class Guard(torch._C._acc.DeviceGuard):
        def type_(self) -> Any:
            return torch._C._autograd.DeviceType.PrivateUse1

    class Module(backend_registration._DummyBackendModule):
        def get_amp_supported_dtype(self) -> list[torch.dtype]:
            return [torch.bfloat16]

    backend_registration._setup_privateuseone_for_python_backend(NAME, backend_module=Module(), device_guard=Guard())
    return torch.device(NAME, 0)


class OnDevice(Tensor):
    """A tensor of the device, and the one on the CPU that has its numbers."""

    numbers: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Self:
        made: Self = Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=_registered(),
        )
        made.numbers = inner
        return made

    def __init__(self, inner: Tensor) -> None: ...

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnDevice({self.numbers!r})"

    def tolist(self) -> Any:
        return self.cpu().tolist()

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if func in (torch.autograd.grad, Tensor.backward):  # a thread of the device would outlive Python
                with torch.autograd.set_multithreading_enabled(False):
                    return func(*args, **(kwargs or {}))
            try:
                return func(*args, **(kwargs or {}))
            except NotImplementedError as error:
                if "Autocast" in str(error):
                    pytest.skip("there is no autocast on the pretended device")
                raise

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {})


class _Factories(TorchDispatchMode):
    """Sees what is made on the device without a tensor of the device, such as torch.zeros and Tensor.to."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


_found: list[Waits] = []


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Do an operation with the tensors on the CPU, and return its results on the device where they belong there."""
    tensors: list[Tensor] = []
    known: dict[int, OnDevice] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            tensors.append(value)
            if isinstance(value, OnDevice):
                known[id(value.numbers)] = value
                return value.numbers
        elif isinstance(value, torch.device) and value.type == NAME:
            return torch.device("cpu")
        return value

    unwrapped = tuple(_mapped(plain, one) for one in args)
    options = {name: _mapped(plain, value) for name, value in kwargs.items()}
    asked = kwargs.get("device")
    here = bool(known) if asked is None else torch.device(asked).type == NAME
    if not known and not here:
        return func(*args, **kwargs)
    if known and func not in (aten._to_copy.default, aten.copy_.default):
        _check(func, args, tensors)
    if _found and (what := _wait(func, args, here)):
        for waits in _found:
            waits[_place(), what] += 1

    def wrapped(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        if id(value) in known:  # in-place operations return what they changed
            return known[id(value)]
        return OnDevice(value) if here else value

    return _mapped(wrapped, func(*unwrapped, **options))


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """Return what a function makes of a value, or of each of a list or tuple."""
    if isinstance(value, list | tuple):
        return [function(one) for one in value] if isinstance(value, list) else tuple(function(one) for one in value)
    return function(value)


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
        # a thread of the device would outlive Python
        with torch.autograd.set_multithreading_enabled(False), _Factories():  # type: ignore[no-untyped-call]
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
