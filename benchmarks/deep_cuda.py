"""Images per second of PGD and AT steps on a GPU, and how far that is from the arithmetic limit of the device."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.timing import table
from deepcheck import models
from deepcheck.attacks.base import frozen

CASES = (("preact_resnet18", (3, 32, 32), 512), ("resnet_ccat", (3, 32, 32), 512), ("conv_small", (1, 28, 28), 4096))


def throughput() -> str:
    """Measure passes forward and backward, as attacks do them, and return a section of Markdown."""
    limits = {dtype: _matmul_limit(dtype) for dtype in (torch.float32, torch.bfloat16)}
    rows = []
    for name, shape, batch in CASES:
        net = models.build(name, 10, shape, generator=torch.Generator().manual_seed(0)).cuda().eval()
        x, y = torch.rand((batch, *shape), device="cuda"), torch.randint(10, (batch,), device="cuda")
        flops = _flops(net, x, y)
        for text, dtype, work in _alternatives(net, x, y):
            seconds = _seconds(work)
            rows.append(
                [
                    name,
                    text,
                    f"{batch / seconds:.0f}",
                    f"{flops / seconds / 1e12:.1f}",
                    f"{flops / seconds / limits[dtype]:.0%}",
                ]
            )
    head = ["net", "how", "images/s", "TFLOP/s", "share of the largest matrix product's"]
    versions = f"torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"
    text = ", ".join(
        f"{limit / 1e12:.0f} TFLOP/s in {str(dtype).removeprefix('torch.')}" for dtype, limit in limits.items()
    )
    return f"## On a GPU\n\nForward and backward passes to the images; {versions}; limit: {text}.\n\n" + table(
        head, rows
    )


def _flops(net: nn.Module, x: Tensor, y: Tensor) -> int:
    """Return the operations of a pass forward and backward to the images."""
    z = x.detach().requires_grad_()
    # by backward: the counter's hooks refuse torch.autograd.grad by a leaf
    with frozen(net), FlopCounterMode(display=False) as counter:
        F.cross_entropy(net(z), y, reduction="sum").backward()
    return int(counter.get_total_flops())


def _alternatives(net: nn.Module, x: Tensor, y: Tensor) -> list[tuple[str, torch.dtype, Callable[[], None]]]:
    nhwc = x.contiguous(memory_format=torch.channels_last)

    def bf16(work: Callable[[], None]) -> Callable[[], None]:
        def inside() -> None:
            with torch.autocast("cuda", torch.bfloat16):
                work()

        return inside

    def eager() -> None:
        _passes(net, x, y, 1)

    def last() -> None:
        _passes(net, nhwc, y, 1)

    compiled = torch.compile(net)

    def fused() -> None:
        _passes(compiled, x, y, 1)

    graph = _captured(net, x, y)
    return [
        ("eager, float32", torch.float32, eager),
        ("eager, bfloat16", torch.bfloat16, bf16(eager)),
        ("channels_last, bfloat16", torch.bfloat16, bf16(last)),
        ("compiled, float32", torch.float32, fused),
        ("compiled, bfloat16", torch.bfloat16, bf16(fused)),
        ("CUDA graph, float32", torch.float32, graph),
    ]


def _passes(net: nn.Module | Callable[[Tensor], Tensor], x: Tensor, y: Tensor, steps: int) -> None:
    for _ in range(steps):
        z = x.detach().requires_grad_()
        torch.autograd.grad(F.cross_entropy(net(z).float(), y, reduction="sum"), z)


def _captured(net: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Return a pass that is recorded once and replayed."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        _passes(net, x, y, 3)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        _passes(net, x, y, 1)
    return graph.replay


def _seconds(work: Callable[[], object], least: float = 1.0) -> float:
    """Return the time of one call, over about a second after a warm-up."""
    for _ in range(5):
        work()
    torch.cuda.synchronize()
    start, calls = time.perf_counter(), 0
    while time.perf_counter() - start < least:
        for _ in range(5):
            work()
        torch.cuda.synchronize()
        calls += 5
    return (time.perf_counter() - start) / calls


def _matmul_limit(dtype: torch.dtype, size: int = 8192) -> float:
    """Return the FLOP/s of a large product of square matrices, what arithmetic the device can do in practice."""
    a = torch.rand((size, size), device="cuda", dtype=dtype)
    return 2 * size**3 / _seconds(lambda: a @ a)
