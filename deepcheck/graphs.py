"""Functions of tensors of fixed shapes, recorded once and played back: CUDA graphs.

A GPU that runs a small net waits for the processor, which prepares one kernel after the other. A CUDA graph is a recording
of all kernels of a function, with the addresses of everything that they read and write, which is started as one. So the
inputs are copied to where they were at the recording, and results are copied from where they appear.

On the CPU `Captured` does the same with the same buffers, but calls the function where CUDA plays the recording back. The
results are those of the plain call, bit by bit, and what can go wrong with buffers goes wrong there too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odeflow.model import checked_count

__all__ = ["Captured", "Result"]

_LOG = logging.getLogger(__name__)
_WARM_UP = 3
"""Calls before a recording, on a stream of their own: in them cuDNN and cuBLAS choose and get what may not change later."""
_REMEMBERED = 64
"""Keys that are remembered after one call."""

Result = Tensor | tuple[Tensor, ...]
"""What a function that can be captured returns."""


class Captured:
    """A function of tensors that is recorded at its second call with the same shapes, and from then on played back.

    A recording holds for what it was made with: shape, strides, precision and device of each tensor, the values of all
    other arguments, the addresses and the modes (train or eval) of the nets, autocast, and whether gradients are on. With
    other ones the function is called plainly, and recorded when they come again. So a last, smaller batch, which comes once,
    costs no recording.

    Parameters are read where they are at each playback: an optimiser that changes them in place changes what is found, as
    it should. A net that was moved, or got other parameters, is recorded anew.

    Parameters
    ----------
    function
        Of tensors, and of other arguments that can be hashed, such as a number of steps, by position. It returns a tensor or
        a tuple of tensors, and depends on nothing else that changes, but on the nets. It must not look at values
        (``.item()``, ``if tensor``, boolean indices) nor copy between devices, which no CUDA graph can: then it is called
        plainly, and the log says so. Gradients have to be taken within (``torch.autograd.grad``) and returned, not left in
        ``.grad``: what is returned has no graph. Autocast is best within; a cache of autocast from outside is not used.
        Random numbers must come from tensors, as those of `deepcheck.attacks.draws` do; dropout in train mode draws others
        on CUDA than without a recording.
    nets
        The nets that it uses. What they hold (parameters, running means) is put back after the calls before a recording.
    most
        Number of recordings that are kept, >= 1. Beyond, the one that was not used for longest goes, and its arguments are
        not recorded again. Those of one object share their memory on the GPU.

    Raises
    ------
    ValueError, TypeError
        If `most` is not allowed.

    Examples
    --------
    >>> import torch
    >>> from deepcheck.attacks import PGD
    >>> from deepcheck.attacks.draws import keys
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)).requires_grad_(False)
    >>> attack = PGD("linf", steps=10, relative_step_size=0.25, keep="last", stop_when_reached=False)
    >>> captured = Captured(lambda x, y, key, epsilon: attack.perturb_with(net, x, y, epsilon, key), nets=[net])
    >>> x, y = torch.rand(8, 1, 8, 8), torch.arange(8)
    >>> key = keys(torch.Generator().manual_seed(0), torch.arange(8))
    >>> first, second = captured(x, y, key, 0.1), captured(x, y, key, 0.1)
    >>> bool((first == second).all()), captured
    (True, Captured(1 recording))
    """

    def __init__(self, function: Callable[..., Result], *, nets: Sequence[nn.Module] = (), most: int = 8) -> None:
        self.function = function
        self.nets = tuple(nets)
        self.most = checked_count("most", most, 1)
        self._recordings: dict[Hashable, _Recording] = {}  # the one that was used last is last
        self._seen: dict[Hashable, None] = {}
        self._plain: set[Hashable] = set()
        self._pool: Any = None
        self._told = False

    def __call__(self, *arguments: Any) -> Result:
        """Return what the function makes of the arguments: tensors of their own, which a later call leaves alone."""
        key = self._key(arguments)
        recording = self._recordings.pop(key, None)
        if recording is None:
            if key in self._plain or not self._again(key):
                return _detached(self.function(*arguments))
            recording = self._recorded(key, arguments)
            if recording is None:
                return _detached(self.function(*arguments))
        self._recordings[key] = recording
        return recording(arguments)

    def __repr__(self) -> str:
        count = len(self._recordings)
        return f"Captured({count} recording{'' if count == 1 else 's'})"

    def _again(self, key: Hashable) -> bool:
        """Return whether the key has been seen before, and remember it."""
        if key in self._seen:
            del self._seen[key]
            return True
        self._seen[key] = None
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return False

    def _recorded(self, key: Hashable, arguments: tuple[Any, ...]) -> _Recording | None:
        """Return a recording, or None where none can be made, which is said once."""
        while len(self._recordings) >= self.most:
            oldest = next(iter(self._recordings))
            del self._recordings[oldest]
            self._plain.add(oldest)
        try:
            with _restored(self.nets):
                recording = _Recording.of(self.function, arguments)
                if recording.device.type == "cuda":
                    self._pool = recording.capture(self._pool)
        except RuntimeError as error:  # any other would come without a recording as well
            self._plain.add(key)
            if not self._told:
                _LOG.warning(
                    "%s cannot be recorded, and is called step by step: %s",
                    _name(self.function),
                    str(error).split("\n")[0],
                )
                self._told = True
            return None
        return recording

    def _key(self, arguments: tuple[Any, ...]) -> Hashable:
        """Return what a recording depends on."""
        given = tuple(
            (one.shape, one.stride(), one.dtype, one.device) if isinstance(one, Tensor) else (type(one), one)
            for one in arguments
        )
        held = tuple(tensor.data_ptr() for net in self.nets for tensor in _tensors(net))
        modes = tuple(module.training for net in self.nets for module in net.modules())
        kind = _device(arguments).type
        autocast = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind)
        return given, held, modes, autocast, torch.is_grad_enabled()


@dataclass(eq=False)
class _Recording:
    """A function with its own inputs and outputs, at addresses that do not change."""

    function: Callable[[], Result]
    """Of the inputs as they are."""
    inputs: list[Tensor | None]
    """None where the argument is no tensor."""
    device: torch.device
    outputs: tuple[Tensor, ...] = ()
    single: bool = True
    graph: Any = None

    @staticmethod
    def of(function: Callable[..., Result], arguments: tuple[Any, ...]) -> _Recording:
        """Return a recording for arguments like these, for the CPU ready for use."""
        with torch.inference_mode(False), torch.no_grad():
            inputs = [one.detach().clone() if isinstance(one, Tensor) else None for one in arguments]
        fixed = [one if buffer is None else buffer for one, buffer in zip(arguments, inputs, strict=True)]
        device = _device(arguments)

        def call() -> Result:
            autocast = torch.is_autocast_enabled(device.type)
            kind = torch.get_autocast_dtype(device.type)
            # what a cache of autocast held would be gone at the playback
            with torch.autocast(device.type, kind, enabled=autocast, cache_enabled=False):
                return _detached(function(*fixed))

        recording = _Recording(call, inputs, device)
        if device.type != "cuda":
            first = call()
            recording.single = isinstance(first, Tensor)
            recording.outputs = tuple(one.clone() for one in _several(first))
        return recording

    def capture(self, pool: Any) -> Any:
        """Record on CUDA, and return the pool of memory."""
        here, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        pool = torch.cuda.graph_pool_handle() if pool is None else pool
        graph = torch.cuda.CUDAGraph()
        side.wait_stream(here)
        # the outer block leaves the stream even where a recording fails, which that of torch.cuda.graph does not
        with torch.cuda.device(self.device), torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self.function()
            # other threads, such as that of NCCL, may ask for events meanwhile
            with torch.cuda.graph(graph, pool=pool, stream=side, capture_error_mode="thread_local"):
                found = self.function()
        here.wait_stream(side)
        self.graph, self.single, self.outputs = graph, isinstance(found, Tensor), _several(found)
        return pool

    def __call__(self, arguments: tuple[Any, ...]) -> Result:
        """Play back."""
        with torch.no_grad():
            for buffer, given in zip(self.inputs, arguments, strict=True):
                if buffer is not None:
                    buffer.copy_(given)
        if self.graph is not None:
            self.graph.replay()
        else:
            found = _several(self.function())
            for output, one in zip(self.outputs, found, strict=True):
                output.copy_(one)
        results = tuple(output.clone() for output in self.outputs)
        return results[0] if self.single else results


@contextmanager
def _restored(nets: Sequence[nn.Module]) -> Iterator[None]:
    """Put back afterwards what nets hold, in place."""
    before = [(tensor, tensor.detach().clone()) for net in nets for tensor in _tensors(net)]
    try:
        yield
    finally:
        with torch.no_grad():
            for tensor, was in before:
                if not torch.equal(tensor, was):  # else nothing is touched that a graph of autograd may hold
                    tensor.copy_(was)


def _tensors(net: nn.Module) -> Iterator[Tensor]:
    yield from net.parameters()
    yield from net.buffers()


def _device(arguments: tuple[Any, ...]) -> torch.device:
    """Return the device of the first tensor."""
    return next((one.device for one in arguments if isinstance(one, Tensor)), torch.device("cpu"))


def _several(result: Result) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)


def _detached(result: Result) -> Result:
    return result.detach() if isinstance(result, Tensor) else tuple(one.detach() for one in result)


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__name__)
