"""Blocks cover the work once, and an exception stops what has not begun."""

import ctypes
import signal
import threading

import numba
import pytest

from odeflow.numerics.threads import Flag, map_blocks


@pytest.mark.parametrize("count", [0, 1, 7, 64, 1000])
@pytest.mark.parametrize("least", [1, 32])
def test_blocks_cover_every_index_once(count: int, least: int) -> None:
    lock = threading.Lock()
    done: list[int] = []

    def work(first: int, last: int, stop: Flag) -> None:
        with lock:
            done.extend(range(first, last))

    map_blocks(work, count, least=least)
    assert sorted(done) == list(range(count))


@pytest.mark.parametrize("threads", sorted({1, numba.config.NUMBA_NUM_THREADS}))
def test_an_exception_ends_it(threads: int) -> None:
    before = numba.get_num_threads()
    done: list[int] = []

    def work(first: int, last: int, stop: Flag) -> None:
        if first == 0 < last:
            raise KeyboardInterrupt
        done.append(first)

    numba.set_num_threads(threads)
    try:
        with pytest.raises(KeyboardInterrupt):
            map_blocks(work, 10_000, least=1)
    finally:
        numba.set_num_threads(before)
    assert len(done) < 8 * threads


@ctypes.CFUNCTYPE(None)
def interrupted_in_a_callback() -> None:
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("then", ["goes on", "fails"])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_a_kernel_is_compiled_is_not_lost(then: str) -> None:
    """LLVM calls back into Python, which drops what is raised there."""
    done: list[int] = []

    def work(first: int, last: int, stop: Flag) -> None:
        if first == last == 0:
            interrupted_in_a_callback()
            if then == "fails":
                raise RuntimeError("no compiled object")
        done.append(last)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        map_blocks(work, 100, least=1)
    assert done in ([], [0])
    assert signal.getsignal(signal.SIGINT) is before


def test_a_handler_of_ctrl_c_that_raises_nothing_ends_nothing() -> None:
    done: list[int] = []

    def work(first: int, last: int, stop: Flag) -> None:
        if first == last == 0:
            signal.raise_signal(signal.SIGINT)
        done.append(last)

    seen: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: seen.append(number))
    try:
        map_blocks(work, 1, least=1)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]
    assert done == [0, 1]


def test_progress_is_off_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    map_blocks(lambda *_: None, 100, least=1, progress=" runs")
    assert capsys.readouterr().err == ""
