"""Threads for compiled kernels that release the interpreter lock.

Blocks of independent work are handed to plain Python threads. That needs no threading layer of numba's, works after
fork and from several threads at once, and leaves room for Ctrl-C and a progress bar between blocks.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

__all__ = ["blas_threads", "map_blocks", "threads"]

# Below, threads of BLAS gain little, and where other work keeps the cores busy they wait for each other tenfold longer.
_BLAS_THREADS_FROM = 2000

_BLOCKS = 8  # a thread: none waits long for the last, Ctrl-C is not far, and progress is seen


def threads() -> int:
    """Return the number of threads to use: numba's (NUMBA_NUM_THREADS, `numba.set_num_threads`; default all cores)."""
    import numba

    return int(numba.get_num_threads())


def blas_threads(N: int) -> Any:
    """Return a context in which BLAS has one thread if its matrices have fewer than 2000 rows, and otherwise as before."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1 if N < _BLAS_THREADS_FROM else None, "blas")


def map_blocks(work: Callable[[int, int], None], count: int, *, least: int, progress: str | None = None) -> None:
    """Call ``work(first, last)`` for consecutive blocks that cover ``range(count)``.

    An exception, or Ctrl-C, ends it after the blocks that are already running.

    Parameters
    ----------
    work
        Does the indices first <= i < last; must release the interpreter lock to gain from threads.
    count
        Number of indices, >= 0.
    least
        Fewest indices worth a block of their own, >= 1.
    progress
        What an index is called, for a progress bar on a terminal; None for no bar.
    """
    from tqdm import tqdm

    n_threads = min(threads(), -(-count // least))
    size = max(least, -(-count // (_BLOCKS * max(n_threads, 1))))
    blocks = [(first, min(first + size, count)) for first in range(0, count, size)]
    # disable=None: off where stderr is not a terminal
    with tqdm(total=count, unit=progress or "", delay=1, disable=None if progress else True) as bar:
        if n_threads <= 1:
            for first, last in blocks:
                work(first, last)
                bar.update(last - first)
            return
        with ThreadPoolExecutor(n_threads) as pool:
            futures = {pool.submit(work, first, last): last - first for first, last in blocks}
            try:
                for future in as_completed(futures):
                    future.result()
                    bar.update(futures[future])
            finally:
                pool.shutdown(wait=False, cancel_futures=True)
