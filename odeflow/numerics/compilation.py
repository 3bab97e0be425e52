"""How the kernels are compiled: lanes, inlining, and a cache that notices every change of the sources."""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numba
from numba import njit, types
from numba.extending import intrinsic

__all__ = ["LANES", "inlined", "is_set", "sources_digest"]

LANES = 32
"""Trajectories (or runs) that a kernel advances together: four AVX-512 or eight AVX2 vectors of float64."""

inlined = njit(forceinline=True, error_model="numpy")
"""Decorator: compile, and always inline into the caller.

No kernel leaves the choice of fused multiply-adds to the compiler (fastmath "contract"): it chooses differently in the
process that compiles and in those that load its code from the cache, and so would the last digits. They are written
down where they matter (`odeflow.numerics.elementary.fma`), and every process gives the same bits.
"""


def sources_digest() -> str:
    """Return a digest of the sources of all compiled code.

    numba's cache on disk sees only the file of the outermost function. A kernel that has this digest in its closure is
    compiled anew when any of the files it is made of has changed.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        source = path.read_bytes()
        if b"numba" in source or b"odeflow.numerics.compilation" in source or path.stem == "dop853":
            digest.update(source)
    return digest.hexdigest()


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
