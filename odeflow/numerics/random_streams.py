"""Random streams for the kernels: xoshiro256++ in every lane, uniform and normal numbers without branches.

Generator: D. Blackman and S. Vigna, Scrambled linear pseudorandom number generators, ACM TOMS 47 (2021) 36. Its state
is seeded by NumPy's `SeedSequence`; each run has a spawned one, so that a run's numbers depend on nothing but the seed
and the run's index.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from odeflow.numerics.compilation import inlined
from odeflow.numerics.elementary import as_float64, cos_sin_turns, log

__all__ = ["WORDS", "box_muller", "from_table", "rng_states", "uniform"]

WORDS = 4
"""64-bit words of one stream's state."""

_ONE = np.uint64(0x3FF0000000000000)  # the bits of 1.0
_11, _12, _17, _19, _23, _41, _45 = (np.uint64(k) for k in (11, 12, 17, 19, 23, 41, 45))


def rng_states(seed: np.random.SeedSequence, runs: int, streams: int) -> npt.NDArray[np.uint64]:
    """Return the states of `streams` streams for each of `runs` runs, shape (runs, 4, streams)."""
    # a child is what seed.spawn gives, without changing the caller's sequence
    children = (
        np.random.SeedSequence(seed.entropy, spawn_key=(*seed.spawn_key, run), pool_size=seed.pool_size)
        for run in range(runs)
    )
    states = [child.generate_state(WORDS * streams, np.uint64).reshape(WORDS, streams) for child in children]
    return np.stack(states)


@inlined
def uniform(s0, s1, s2, s3):
    """Return a uniform number in (0, 1], a multiple of 2**-52, and the stream's next state."""
    total = s0 + s3
    bits = ((total << _23) | (total >> _41)) + s0
    t = s1 << _17
    s2 ^= s0
    s3 ^= s1
    s1 ^= s2
    s0 ^= s3
    s2 ^= t
    s3 = (s3 << _45) | (s3 >> _19)
    return 2.0 - as_float64((bits >> _12) | _ONE), s0, s1, s2, s3


@inlined
def box_muller(u1, u2):
    """Return two independent standard normal numbers from two uniform ones in (0, 1]; exact to 8.5 sigma."""
    radius = math.sqrt(-2.0 * log(u1))
    cos, sin = cos_sin_turns(u2)
    return radius * cos, radius * sin


@inlined
def from_table(u, levels, values):
    """Return the value at the level u in (0, 1] of a cumulative distribution, between the entries of its table."""
    low, high = 0, levels.size - 1
    while high - low > 1:
        middle = (low + high) // 2
        if levels[middle] < u:
            low = middle
        else:
            high = middle
    if levels[high] == levels[low]:
        return values[low]
    return values[low] + (values[high] - values[low]) * (u - levels[low]) / (levels[high] - levels[low])
