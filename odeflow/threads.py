"""Threads for compiled kernels that release the interpreter lock.

Blocks of independent work are handed to plain Python threads. That needs no threading layer of numba's, works after
fork and from several threads at once, and leaves room for Ctrl-C between blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

__all__ = ["map_blocks", "threads"]


def threads() -> int:
    """Return the number of threads to use: numba's (NUMBA_NUM_THREADS, `numba.set_num_threads`; default all cores)."""
    import numba

    return int(numba.get_num_threads())


def map_blocks(work: Callable[[int, int], None], count: int, *, least: int) -> None:
    """Call ``work(first, last)`` for consecutive blocks that cover ``range(count)``.

    Parameters
    ----------
    work
        Does the indices first <= i < last; must release the interpreter lock to gain from threads.
    count
        Number of indices, >= 0.
    least
        Fewest indices worth a block of their own, >= 1.
    """
    n_threads = min(threads(), -(-count // least))
    if n_threads <= 1:
        work(0, count)
        return
    # several blocks a thread, so that none waits long for the last
    size = max(least, -(-count // (4 * n_threads)))
    with ThreadPoolExecutor(n_threads) as pool:
        for future in [pool.submit(work, first, min(first + size, count)) for first in range(0, count, size)]:
            future.result()
