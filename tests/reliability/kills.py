"""Kills a process at each call that changes the disk, one after the other, and looks at what comes of it.

    python -m tests.reliability.kills SCENARIO SUFFIX FOLDER EVERY

A scenario is a piece of work on one target. Each time it is done in a fork of this process, which ends itself by
SIGKILL right before its k-th call of open for writing, mkdir, rename, unlink, rmdir or fsync, k = 0, EVERY, 2 EVERY, ...,
and before the last four; before fsync half of the file is lost as well. The last line printed is JSON: how many calls there were, and what was wrong.
"""

import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, load, save, sweep
from odeflow.provenance import attributes

DONE, REFUSED, FAILED = 0, 3, 4
OVER = {"rho": np.linspace(0.5, 4, 4), "epsilon": np.array([0.0, 1.0])}
LARGER = {"rho": np.linspace(0.5, 8, 8), "epsilon": np.array([0.0, 1.0])}
LARGER["rho"][:4] = OVER["rho"]


class Clock(datetime):
    @classmethod
    def now(cls, zone: Any = None) -> Any:
        return cls(2000, 1, 1, tzinfo=zone)


def swept(target: Path, over: dict[str, Any] = OVER, p: float = 0.7) -> None:
    parts = GaussianMixture(p=p), LearningRule(), Adversary()
    sweep(*parts, over=over, alpha=[0.0, 1.0, 10.0], store=target, chunk=3).close()


def result(k: int) -> Any:
    return integrate(GaussianMixture(), LearningRule(), Adversary(), alpha=np.arange(1.0, 4 + k))


def in_a_fork(work: Callable[[], None]) -> int:
    """Do `work` in a fork, and return how it ended: a status, or minus a signal."""
    child = os.fork()
    if child == 0:
        status = FAILED
        try:
            work()
            status = DONE
        except ValueError as error:
            status = REFUSED if "is of another sweep" in str(error) else FAILED
            if status == FAILED:
                traceback.print_exc()
        except Exception:  # noqa: BLE001 -- it is shown
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watched(folder: Path, work: Callable[[], None], at: Callable[[int, int | None], object]) -> None:
    """Do `work`, and call `at` with the number of each call that changes `folder`, and with the file that is synced."""
    numbers = count()
    below = os.fspath(folder)
    kinds = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            is_below = isinstance(path, str | os.PathLike) and os.fspath(path).startswith(below)
            if is_below and (flags & writing or (isinstance(mode, str) and set(mode) & set("wax+"))):
                at(next(numbers), None)
        elif event in kinds:
            # shutil.rmtree gives names in an open folder
            at(next(numbers), None)

    fsync = os.fsync

    def synced(file: Any) -> None:
        at(next(numbers), file)
        fsync(file)

    setattr(os, "fsync", synced)  # noqa: B010
    sys.addaudithook(hook)
    work()


def killed(folder: Path, work: Callable[[], None], k: int) -> int:
    def at(number: int, file: int | None) -> None:
        if number == k:
            if file is not None:
                os.ftruncate(file, os.fstat(file).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    return in_a_fork(lambda: watched(folder, work, at))


def content(target: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of the files in a folder, by name."""
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


def assert_identical(one: Path, other: Path) -> None:
    assert load(one).identical(load(other))


class Check:
    """Work on the target in `folder` that is killed, and what must hold afterwards."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.folder, self.calm = folder / "killed", folder / "calm"
        self.calm.mkdir()
        self.target, self.expected = self.folder / f"it{suffix}", self.calm / f"it{suffix}"

    def prepare(self) -> None:
        """Make what stands there before the work."""

    def work(self) -> None:
        raise NotImplementedError

    def faults(self, k: int) -> Iterator[str]:
        """Yield what is wrong after a kill."""
        raise NotImplementedError

    def leftovers(self) -> Iterator[str]:
        names = sorted(path.name for path in self.folder.iterdir())
        if names != [self.target.name]:
            yield f"the folder has {names}"


class Sweep(Check):
    """A sweep that is resumed, killed again and resumed; and one of another model in its place."""

    first: dict[str, Any] | None = None
    over = OVER

    def prepare(self) -> None:
        if self.first is not None:
            assert in_a_fork(lambda: swept(self.target, self.first or {})) == DONE

    def work(self) -> None:
        swept(self.target, self.over)

    def is_same(self, expected: Path) -> bool:
        if self.first is None:
            return content(self.target) == content(expected)
        return in_a_fork(lambda: assert_identical(self.target, expected)) == DONE

    def faults(self, k: int) -> Iterator[str]:
        other = self.calm / f"other{self.target.suffix}"
        if not other.exists():
            assert in_a_fork(lambda: swept(other, self.over, p=0.6)) == DONE
        before = self.folder.with_name("before")
        shutil.rmtree(before, ignore_errors=True)
        shutil.copytree(self.folder, before)

        moved = self.folder.with_name("moved") / self.target.name
        for is_moved in (False, True):  # somebody takes a finished result, and sees nothing of the journal
            if is_moved and self.target.exists():
                moved.parent.mkdir()
                self.target.rename(moved)
            status = in_a_fork(lambda: swept(self.target, self.over, p=0.6))
            if status == DONE and content(self.target) != content(other):
                yield "a sweep of another model has other numbers than its own"
            elif status not in (DONE, REFUSED):
                yield f"a sweep of another model ended with {status}"
            shutil.rmtree(moved.parent, ignore_errors=True)
            shutil.rmtree(self.folder)
            shutil.copytree(before, self.folder)

        killed(self.folder, self.work, 7 * k % 31)
        if in_a_fork(self.work) != DONE:
            yield "it cannot be resumed"
        elif not self.is_same(self.expected):
            yield "it is not what it is when nobody kills it"
        yield from self.leftovers()


class Extension(Sweep):
    """A finished sweep whose grid grows."""

    first = OVER
    over = LARGER


class Save(Check):
    """A file that is saved in the place of another."""

    def prepare(self) -> None:
        assert in_a_fork(lambda: self.save(0)) == DONE

    def work(self) -> None:
        self.save(1)

    def save(self, k: int) -> None:
        save(result(k), self.target)

    def is_one_of_both(self) -> None:
        found = load(self.target)
        assert any(found.identical(result(k)) for k in range(2))

    def is_the_next(self) -> None:
        self.save(2)
        assert load(self.target).identical(result(2))

    def faults(self, k: int) -> Iterator[str]:
        del k
        if in_a_fork(self.is_one_of_both) != DONE:
            yield "neither the old file nor the new one is there"
        if in_a_fork(self.is_the_next) != DONE:
            yield "nothing can be saved there"
        yield from self.leftovers()


def main(scenario: str, suffix: str, where: str, every: str) -> None:
    setattr(attributes, "datetime", Clock)  # noqa: B010
    for name in ("h5netcdf", "zarr"):
        import_module(name)
    parts = GaussianMixture(), LearningRule(), Adversary()
    sweep(*parts, over=OVER, alpha=[1.0])  # compiles

    check = {"sweep": Sweep, "extension": Extension, "save": Save}[scenario](Path(where), suffix)
    check.folder.mkdir()
    check.prepare()
    calls: list[int] = []
    numbers = check.folder.with_name("numbers")
    with numbers.open("wb", buffering=0) as file:
        status = in_a_fork(lambda: watched(check.folder, check.work, lambda *_: file.write(b".")))
    calls = [*range(numbers.stat().st_size)]
    assert status == DONE
    shutil.copytree(check.folder, check.calm, dirs_exist_ok=True)

    wrong = []
    for k in sorted({*calls[:: int(every)], *calls[-4:]}):
        shutil.rmtree(check.folder)
        check.folder.mkdir()
        check.prepare()
        status = killed(check.folder, check.work, k)
        if status != -signal.SIGKILL:
            wrong.append(f"call {k}: ended with {status}")
        wrong += [f"call {k}: {fault}" for fault in check.faults(k)]
    sys.stdout.write(json.dumps({"calls": len(calls), "wrong": wrong}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
