"""Tests on a device: what a test makes is there, as if the test had said so each time.

A test, or a file of them, that takes the fixture `device` runs on the CPU and, where there is one, on the GPU:
`pytest -m cuda tests/deepcheck` runs what there is to run on it. `DEEPCHECK_TEST_DEVICES="cpu pretended"` names other devices;
on the pretended one (`tests.deepcheck.pretended`) a machine without a GPU runs what a machine with one would.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._device import _device_constructors

from deepcheck import checkpoint, evaluation, models
from deepcheck.device import exact_float32
from deepcheck.training import loop
from tests.deepcheck.pretended import NAME, pretended

__all__ = ["DEVICES", "NAMES", "here", "on", "on_every_device", "on_the_cpu", "rounding"]

NAMES = os.environ.get("DEEPCHECK_TEST_DEVICES", "cpu cuda" if torch.cuda.is_available() else "cpu").split()
DEVICES = [pytest.param(name, marks=() if name == "cpu" else pytest.mark.cuda) for name in NAMES]
"""Names of the devices, for `pytest.mark.parametrize`."""
on_every_device = pytest.mark.usefixtures("device")
"""Mark of a test, or as `pytestmark` of all tests of a file."""
on_the_cpu = pytest.mark.parametrize("device", ["cpu"], indirect=True)
"""Mark of a test in such a file that says nothing of devices."""

_HERE = [torch.device("cpu")]
_TESTS = str(Path(__file__).parents[1])
_TORCH = str(Path(torch.__file__).parent)
_ON_THE_CPU_UNLESS_ASKED = (evaluation.evaluate, evaluation.distal, evaluation.with_score, checkpoint.load_model)
_TO_NUMPY: set[Any] = {Tensor.numpy, Tensor.__array__}


def here() -> str:
    """Return the name of the device of the test that runs."""
    return str(_HERE[-1])


def rounding(dtype: torch.dtype = torch.float64) -> float:
    """Return by how much numbers of order 1 may differ that are exactly the same on a CPU.

    There a sum over the pixels of an example has an order of its own. On a GPU the order depends on the shape of the
    whole batch; in double precision that has moved results by 1e-16 (NVIDIA H200, torch 2.11).
    """
    return 0.0 if torch.device(here()).type in ("cpu", NAME) else 1024 * torch.finfo(dtype).eps


@contextmanager
def on(name: str) -> Iterator[torch.device]:
    """Let all be on a device that a test makes: tensors, by whatever generator, and the networks of `models.build`.

    `evaluate` and its like, which look for the net on the CPU unless another device is named, look here. What the package makes
    is where the package says. On a GPU float32 is not TF32: a test looks at a net by itself, outside of attacks and trainings,
    and compares.
    """
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        device = stack.enter_context(pretended()) if name == NAME else torch.device({"cuda": "cuda:0"}.get(name, name))
        if name != "cpu":
            stack.enter_context(exact_float32())
            stack.enter_context(_Placing(device))
            built = models.build
            patch.setattr(
                models, "build", lambda *a, **k: built(*a, **k).to(device) if _by_a_test() else built(*a, **k)
            )
            for function in _ON_THE_CPU_UNLESS_ASKED:
                patch.setitem(inspect.unwrap(function).__kwdefaults__, "device", device)
            if name == NAME:
                patch.setattr(loop, "choose", torch.device)
        _HERE.append(device)
        try:
            yield device
        finally:
            _HERE.pop()


class _Placing(TorchFunctionMode):
    """What `torch.set_default_device` does, for tests alone, and for random numbers of a generator on the CPU too."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _device_constructors() and kwargs.get("device") is None and _by_a_test():
            source = kwargs.get("generator")
            if source is not None and source.device.type != self.device.type:
                return func(*args, **kwargs).to(self.device)
            return func(*args, **{**kwargs, "device": self.device})
        if func in _TO_NUMPY and _by_a_test():
            return func(args[0].cpu(), *args[1:], **kwargs)
        return func(*args, **kwargs)


def _by_a_test() -> bool:
    """Return whether a test calls: itself, or through torch or NumPy, but not through the package."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        path = frame.f_code.co_filename
        if path.startswith(_TESTS):
            return True
        if not path.startswith(_TORCH) and "/numpy/" not in path:
            return False
        frame = frame.f_back
    return False
