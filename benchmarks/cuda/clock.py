"""How long something takes on a device, how much of that the processor needs to start it, and how much memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

__all__ = ["Timed", "timed"]


@dataclass(frozen=True)
class Timed:
    """Medians over samples."""

    seconds: float
    """Of one call, from its start to the end of all that it has started on the device."""
    host: float
    """Share of that after which the processor is free again: near 1, the device waits for the processor."""
    peak_bytes: int | None
    """Memory at most, with what was there before; None on the CPU."""
    samples: int


def timed(
    work: Callable[[], object], device: torch.device, *, seconds: float = 0.4, sample: float = 0.02, least: int = 3
) -> Timed:
    """Return how long a call takes: after a warm-up, in samples of several calls.

    Parameters
    ----------
    work
        What is called.
    device
        Where it runs.
    seconds
        Time for all samples, about.
    sample
        Time of a sample, about: short against it is what the clock itself takes.
    least
        Samples at least, in any case.
    """
    wait = (lambda: torch.cuda.synchronize(device)) if device.type == "cuda" else (lambda: None)
    for _ in range(2):  # what is done once: cuDNN's choice, a recording
        work()
    wait()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    work()
    wait()
    one = max(time.perf_counter() - start, 1e-7)
    calls = max(1, round(sample / one))
    count = max(least, min(25, round(seconds / (calls * one))))
    times, hosts = [], []
    for _ in range(count):
        start = time.perf_counter()
        for _ in range(calls):
            work()
        free = time.perf_counter()
        wait()
        end = time.perf_counter()
        times.append((end - start) / calls)
        hosts.append((free - start) / (end - start))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
    return Timed(statistics.median(times), statistics.median(hosts), peak, count)
