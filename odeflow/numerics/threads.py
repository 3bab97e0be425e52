"""Threads for compiled kernels that release the interpreter lock.

Blocks of independent work are handed to plain Python threads. That needs no threading layer of numba's, works after
fork and from several threads at once, and leaves room for Ctrl-C and a progress bar: the calling thread only waits, and
a flag in memory tells kernels that run for long to return.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Flag", "blas_threads", "map_blocks", "threads"]

Flag = npt.NDArray[np.uint8]
"""One byte, shape (1,): not 0 when the work is to end, whose results nobody will read."""

# Below, threads of BLAS gain little, and where other work keeps the cores busy they wait for each other tenfold longer.
_BLAS_THREADS_FROM = 2000
_BLOCKS = 8  # a thread: none waits long for the last, and progress is seen


def threads() -> int:
    """Return the number of threads to use: numba's (NUMBA_NUM_THREADS, `numba.set_num_threads`; default all cores)."""
    import numba

    return int(numba.get_num_threads())


def blas_threads(N: int) -> Any:
    """Return a context in which BLAS has one thread if its matrices have fewer than 2000 rows, and otherwise as before."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    return threadpool_limits(1 if N < _BLAS_THREADS_FROM else None, "blas")


def map_blocks(work: Callable[[int, int, Flag], None], count: int, *, least: int, progress: str | None = None) -> None:
    """Call ``work(first, last, stop)`` for consecutive blocks that cover ``range(count)``.

    An exception in a block, or Ctrl-C, sets the flag `stop` and ends it after the blocks that are already running.

    Parameters
    ----------
    work
        Does the indices first <= i < last; must release the interpreter lock to gain from threads. Where a block can
        take more than a second it must look at the flag, and return when it is set. It is first called with no indices,
        so that kernels are compiled where Ctrl-C ends it.
    count
        Number of indices, >= 0.
    least
        Fewest indices worth a block of their own, >= 1.
    progress
        What an index is called, for a progress bar on a terminal; None for no bar.
    """
    from tqdm import tqdm

    stop: Flag = np.zeros(1, np.uint8)
    n_threads = min(threads(), -(-count // least))
    size = max(least, -(-count // (_BLOCKS * max(n_threads, 1))))
    blocks = [(first, min(first + size, count)) for first in range(0, count, size)]
    with _heard():
        work(0, 0, stop)
    # disable=None: off where stderr is not a terminal
    with tqdm(total=count, unit=progress or "", delay=1, disable=None if progress else True) as bar:
        if n_threads <= 1 and threading.current_thread() is not threading.main_thread():
            for first, last in blocks:  # Ctrl-C never comes here, and another thread would not help
                work(first, last, stop)
                bar.update(last - first)
            return
        with ThreadPoolExecutor(max(n_threads, 1)) as pool:
            try:
                futures = {pool.submit(work, first, last, stop): last - first for first, last in blocks}
                for future in as_completed(futures):
                    future.result()
                    bar.update(futures[future])
            finally:
                stop[0] = 1
                pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _heard() -> Iterator[None]:
    """Make sure that Ctrl-C in a block ends it, at the latest where the block ends.

    Python drops an exception inside a callback from C, and LLVM calls back whenever it has compiled a module: without
    this, Ctrl-C while a kernel is compiled is lost, and the work of hours begins.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield  # the other threads never hear of a signal
        return
    raised: list[BaseException] = []

    def remember(number: int, frame: Any) -> None:
        try:
            before(number, frame)
        except BaseException as interrupt:
            raised.append(interrupt)
            raise

    signal.signal(signal.SIGINT, remember)
    try:
        yield
    except Exception:
        if not raised:  # otherwise it may be what numba makes of the interrupt
            raise
    finally:
        signal.signal(signal.SIGINT, before)
    if raised:
        raise raised[0]
