"""How the kernels are compiled: lanes, inlining, and a cache that notices every change of the sources."""

from __future__ import annotations

import hashlib
from pathlib import Path

from numba import njit

__all__ = ["LANES", "inlined", "sources_digest"]

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
