"""Many independent computations on all processors."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from studies.common.kept import Part, record, recorded

__all__ = ["in_processes", "one_thread"]

Result = TypeVar("Result")


def in_processes(function: Callable[..., Result], tasks: Iterable[tuple[Any, ...]]) -> list[Result]:
    """Return [function(*task) for task in tasks], computed in one process per processor, each with one thread.

    Small nets gain little from threads. The function must be one of a module, and the tasks and results must be
    picklable; results do not depend on the number of processes. With a CUDA device, or one processor or task, all is
    done in this process.
    """
    import torch

    todo = list(tasks)
    workers = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, len(todo))
    if workers <= 1 or torch.cuda.is_available():
        return [function(*task) for task in todo]
    context = multiprocessing.get_context("spawn")  # forked threads would hang
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        try:
            done = [future.result() for future in [pool.submit(_recording, function, *task) for task in todo]]
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for _, parts in done:
        record(*parts)
    return [result for result, _ in done]


def _recording(function: Callable[..., Result], *task: Any) -> tuple[Result, list[Part]]:
    """Return what a task gives, and the kept parts that it used, for the process that counts them."""
    with recorded() as parts:
        return function(*task), parts


def _one_thread() -> None:
    import numba
    import torch
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    numba.set_num_threads(1)  # first: it starts numba's threads, which changes the number that torch uses
    torch.set_num_threads(1)
    threadpool_limits(1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch use one thread: on a busy machine, threads of small nets wait for each other most of the time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
