"""Chunks of a sweep, one after the other in this process or many at once on an executor."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Executor, Future, wait
from typing import Any

from odeflow.sweeps.computations import Computation, Rows, on_one_thread
from odeflow.sweeps.grid import Grid, Index

__all__ = ["SweepError", "computed", "workers"]

_LOGGER = logging.getLogger(__name__)
_AHEAD = 2  # chunks submitted a worker, so that none waits and memory stays bounded
_RETRIES = 3  # of a chunk whose worker died


class SweepError(RuntimeError):
    """A sweep could not be computed to its end; the message says why."""


def workers(executor: Executor | None) -> int:
    """Return how many chunks are computed at the same time."""
    if executor is None:
        return 1
    client: Any = getattr(executor, "_client", None)  # Dask's
    if client is not None:
        threads: dict[str, int] = client.nthreads()
        return max(1, sum(threads.values()))
    most: int | None = getattr(executor, "_max_workers", None)  # that of concurrent.futures
    return most or os.cpu_count() or 1


def computed(
    computation: Computation, grid: Grid, chunks: list[Index], executor: Executor | None
) -> Generator[tuple[Index, Rows], None, None]:
    """Yield the indices and the variables of each chunk of points, in any order.

    Raises
    ------
    SweepError
        If the executor's workers die, and go on to.
    """
    if executor is None:
        for index in chunks:
            yield index, computation(grid.points(index))
        return
    pending: dict[Future[Rows], int] = {}
    retries = [0] * len(chunks)

    def submit(chunk: int) -> None:
        pending[executor.submit(on_one_thread, computation, grid.points(chunks[chunk]))] = chunk

    ahead = _AHEAD * workers(executor)
    coming = 0
    try:
        while coming < len(chunks) or pending:
            while coming < len(chunks) and len(pending) < ahead:
                submit(coming)
                coming += 1
            for future in wait(pending, return_when=FIRST_COMPLETED).done:
                chunk = pending.pop(future)
                rows = _result(future, retries[chunk])
                if rows is None:
                    retries[chunk] += 1
                    submit(chunk)
                else:
                    yield chunks[chunk], rows
    except BrokenExecutor as error:
        raise SweepError(f"a worker process of the executor died: {error}") from error
    finally:
        for future in pending:
            future.cancel()


def _result(future: Future[Rows], retries: int) -> Rows | None:
    """Return a chunk's variables, or None if it is to be computed again because its worker died."""
    try:
        return future.result()
    except (Exception, CancelledError) as error:
        if not isinstance(error, CancelledError) and type(error).__name__ != "KilledWorker":  # Dask's
            raise
        if retries >= _RETRIES:
            raise SweepError(f"the workers of a chunk of points died {retries + 1} times: {error}") from error
        _LOGGER.warning("the worker of a chunk of points died (%s): the chunk is computed again", error)
        return None
