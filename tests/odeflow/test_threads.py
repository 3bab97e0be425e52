"""Blocks cover the work once, and an exception stops what has not begun."""

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


def test_progress_is_off_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    map_blocks(lambda *_: None, 100, least=1, progress=" runs")
    assert capsys.readouterr().err == ""
