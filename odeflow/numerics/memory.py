"""What memory there is, and whether something fits into it, asked before it is allocated.

Linux gives more memory than there is and kills the process that uses it, so that MemoryError comes too late.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["check_memory", "free_memory"]


_LITTLE = 2**23  # bytes, that are not worth the question


def check_memory(needed: float, what: str, advice: str) -> None:
    """Raise an error if something does not fit into the memory that is free.

    Parameters
    ----------
    needed
        Bytes.
    what
        What needs them, as the beginning of a sentence: "10 runs of 5 output times need".
    advice
        What is allowed instead.

    Raises
    ------
    ValueError
        If so many bytes are not free.
    """
    if needed < _LITTLE:
        return
    free = free_memory()
    if needed > free:
        raise ValueError(f"{what} {needed / 2**30:.3g} GiB of memory, where {free / 2**30:.3g} GiB are free: {advice}")


def free_memory() -> float:
    """Return how many bytes of memory this process can still use: of the machine, its container and its own limit."""
    return max(0.0, min(_limits()))


def _limits() -> Iterator[float]:
    machine = float("inf")
    with suppress(OSError, ValueError, AttributeError):  # no POSIX
        machine = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, StopIteration), open("/proc/meminfo") as lines:
        machine = next(1024.0 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable"))
    yield machine
    for most, used, name in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.stat", "anon"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.stat", "total_rss"),
    ):
        with suppress(OSError, ValueError, KeyError):  # ValueError: "max", that is none
            counts = dict(line.split() for line in Path(used).read_text().splitlines())
            yield float(int(Path(most).read_text()) - int(counts[name]))
    with suppress(ImportError, OSError, ValueError):
        import resource

        most_addresses, _ = resource.getrlimit(resource.RLIMIT_AS)
        if most_addresses != resource.RLIM_INFINITY:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            yield float(most_addresses - pages * os.sysconf("SC_PAGE_SIZE"))
