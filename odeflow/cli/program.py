"""What the command lines have in common around their work: exit statuses, and one line for what goes wrong."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

__all__ = ["missing", "run", "say"]

EXTRAS = {
    "dask": "cluster",
    "distributed": "cluster",
    "pooch": "data",
    "safetensors": "deep",
    "sklearn": "data",
    "torch": "deep",
}
"""Packages that the installation may lack, and the extra of odeflow that brings each."""

Kinds = tuple[type[BaseException], ...]


def run(
    program: str,
    work: Callable[[], int],
    *,
    failures: Kinds = (),
    refusals: Kinds = (),
    interrupted: Callable[[KeyboardInterrupt], str] = lambda _: "interrupted",
) -> int:
    """Do the work of a command line and return its exit status, after one line on stderr where something goes wrong.

    Parameters
    ----------
    program
        Its name, with which the line begins.
    work
        Parses and does what is asked, and returns an exit status.
    failures, refusals
        Exceptions, besides those below, that mean that something failed (status 1), or that the input is bad (2).
    interrupted
        What is said after Ctrl-C.

    Returns
    -------
    int
        That of `work`, or 1: the computation, the memory, a disk or stdout failed, or Ctrl-C; or 2: the input is bad
        (ValueError, TypeError, a file that is not there or not allowed), or a package is missing. A reader of stdout
        who leaves early, as with ``| head``, is no failure.

    Raises
    ------
    SystemExit
        That of `work`, as after ``--help``.
    """
    if sys.stderr is None:  # closed: what is said has nowhere to go
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 -- as long as the process
    if sys.stdout is None:
        return _fail(program, "standard output is closed: allowed is a file, a pipe, a terminal or /dev/null", 1)
    status = 0
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _one_line(program)
            try:
                status = work()
            finally:
                _flush()
        return status
    except _OutputError as error:
        _drop_output()
        if isinstance(error.reason, BrokenPipeError):
            return status
        return _fail(program, _unwritten(error.reason), 1)
    except BrokenPipeError:
        _drop_output()
        return status
    except KeyboardInterrupt as interrupt:
        return _fail(program, interrupted(interrupt), 1)
    except refusals as error:
        return _fail(program, error, 2)
    except failures as error:
        return _fail(program, error, 1)
    except MemoryError as error:
        return _fail(program, str(error) or "the memory is used up", 1)
    except RuntimeError as error:
        if not re.search(r"allocate memory|out of memory|Storage size calculation overflowed", str(error)):  # torch's
            raise
        return _fail(program, f"the memory is used up: {str(error).splitlines()[0]}", 1)
    except ImportError as error:
        return _fail(program, missing(error), 2)
    except (ValueError, TypeError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        return _fail(program, error, 2)
    except OSError as error:
        if error.filename is None and error.strerror:
            _drop_output()
            return _fail(program, _unwritten(error), 1)
        return _fail(program, error, 1)


class _OutputError(Exception):
    """What was printed could not be written."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _flush() -> None:
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _OutputError(error) from error


def _unwritten(error: OSError) -> str:
    return f"the output could not be written: {error.strerror}"


def _drop_output() -> None:
    """Let what is still to be written to stdout go nowhere, so that the interpreter's exit does not try again."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def missing(error: ImportError) -> str:
    """Return what is said of an import that failed: the extra that brings the package, where there is one."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS or "pip install" in str(error):
        return str(error)
    return f"{package} is missing, which this needs: pip install 'odeflow[{EXTRAS[package]}]'"


def _one_line(program: str) -> Callable[..., None]:
    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        del category, filename, lineno, line
        say(f"{program}: warning: {message}", file or sys.stderr)

    return show


def _fail(program: str, message: object, status: int) -> int:
    say(f"{program}: {message}", sys.stderr)
    return status


def say(text: Any, file: TextIO) -> None:
    """Print a text as one line, and do without where it cannot be written."""
    with suppress(OSError):  # a full disk, or nobody who reads
        print(" ".join(str(text).splitlines()), file=file, flush=True)
