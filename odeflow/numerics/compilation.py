"""How the kernels are compiled: lanes, inlining, and a cache that notices every change of the sources."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["LANES", "called", "inlined", "is_set", "kept", "once", "sources_digest"]

LANES = 32
"""Trajectories (or runs) that a kernel advances together: four AVX-512 or eight AVX2 vectors of float64."""

inlined = njit(forceinline=True, error_model="numpy")
"""Decorator: compile, and always inline into the caller.

No kernel leaves the choice of fused multiply-adds to the compiler (fastmath "contract"): it chooses differently in the
process that compiles and in those that load its code from the cache, and so would the last digits. They are written
down where they matter (`odeflow.numerics.elementary.fma`), and every process gives the same bits.
"""

called = njit(nogil=True, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Decorator of what is called by compiled code alone: without wrappers, which take time to compile. From Python it crashes.

Each function is optimised with all that is below it, so that the compiler sees the bottom of a chain of calls once for
each of its links: keep them few. An argument that is an integer written down, or a variable that began as one, has a type of
its own, for which all is compiled again: `np.int64(0)` has not.
"""

once = njit(nogil=True, error_model="numpy", inline="always")
"""Decorator of what is called in one place, and only cut off for the reader: it is no link of such a chain."""


@cache
def sources_digest() -> str:
    """Return a digest of the sources of all compiled code."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        source = path.read_bytes()
        if b"numba" in source or b"odeflow.numerics.compilation" in source or path.stem == "dop853":
            digest.update(source)
    return digest.hexdigest()


def kept(function: Any) -> Any:
    """Decorator: compile what Python calls, and keep it on disk for these sources of the package.

    numba's cache sees only the file of this function, and keeps its signatures under its name, pickled: where a class of them
    has gone since, it raises an error. With the digest of all sources in the name, other sources have other files.
    """  # noqa: D401 -- a decorator
    function.__qualname__ += f"_{sources_digest()[:16]}"
    return njit(cache=True, nogil=True, error_model="numpy")(function)


@intrinsic
def is_set(_: Any, flag: Any) -> Any:
    """Return whether a flag, one byte in an array of shape (1,), is set by another thread meanwhile.

    The load is atomic: the compiler may not take it out of a loop.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        byte = builder.load_atomic(array.data, "monotonic", 1)
        return builder.icmp_unsigned("!=", byte, byte.type(0))

    return types.boolean(flag), generate


def _one() -> int:
    return 1


def _find_cache() -> None:
    """Warn if there is no folder to keep compiled code in, and keep it for this process and its workers alone.

    numba keeps it beside the sources, else in the user's cache. Where neither can be written to, as for a read-only
    installation in a container without a home, it would refuse to compile.
    """
    try:
        njit(cache=True)(_one)
    except RuntimeError:
        folder = tempfile.mkdtemp(prefix="odeflow-numba-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["NUMBA_CACHE_DIR"] = numba.config.CACHE_DIR = folder
        warnings.warn(
            "there is no folder that can be written to for compiled code: it is compiled in each process anew, which takes "
            "a minute; set NUMBA_CACHE_DIR to a folder to keep it",
            RuntimeWarning,
            stacklevel=2,
        )


_find_cache()
