"""Random numbers by example: each example of an attack has a stream of its own.

What an example draws depends on the seed, on the example's index, on the restart and the query, and on nothing else: not
on the other examples, on the batch size, or on the device. No state is kept but a counter, so that any number can be
had without those before it.

Two hashes make the numbers. Keys of 64 bits, one for each example, are mixed from seed, index, restart, query and
counter by the finaliser of SplitMix64 (Steele, Lea, Flood, OOPSLA 2014), here `mixed`. A key and the position of an entry
then give a word of 32 bits: half the key is added to the position, half after a first round of xors, shifts and
multiplications. Uniform numbers are words, or pairs of them in double precision, times a power of 2: exactly the same on
every device. Normal numbers are those through the inverse of the normal law, the same but for rounding.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["Draws", "Source", "checked_generator", "keys", "mixed"]


def _signed(value: int, bits: int) -> int:
    """Return the signed number of so many bits that has the bits of `value`."""
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio
_GOLDEN_32 = 0x9E3779B9
_ROUNDS_64 = ((30, _signed(0xBF58476D1CE4E5B9, 64)), (27, _signed(0x94D049BB133111EB, 64)))
_ROUNDS_32 = ((16, _signed(0x7FEB352D, 32)), (15, _signed(0x846CA68B, 32)))


def _scrambled(z: Tensor, bits: int, rounds: tuple[tuple[int, int], ...], last: int) -> Tensor:
    """Return integers, in place, after rounds of z <- (z ^ z >> shift) * factor, and a last z ^ z >> shift."""
    for shift, factor in (*rounds, (last, 1)):
        # torch shifts in copies of the sign, which are masked
        z ^= (z >> shift).bitwise_and_((1 << (bits - shift)) - 1)
        if factor != 1:
            z *= factor
    return z


def mixed(key: Tensor, number: int | Tensor) -> Tensor:
    """Return the key, int64, of a stream within the stream of another key: its `number`-th, 0, 1, ..."""
    if isinstance(number, Tensor):
        step = (number + 1) * _signed(_GOLDEN, 64)
        return _scrambled(key + step, 64, _ROUNDS_64, 31)
    return _scrambled(key + _signed((number + 1) * _GOLDEN, 64), 64, _ROUNDS_64, 31)


def checked_generator(generator: object) -> None:
    """Raise TypeError if this is no torch.Generator."""
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"generator = {generator!r} is of the wrong type: allowed is a torch.Generator")


def keys(generator: torch.Generator, indices: Tensor) -> Tensor:
    """Return the keys of some examples, shape (n,), int64, on their device. It takes one number from the generator.

    Parameters
    ----------
    generator
        Source of the seed, on any device: on another device the same generator gives another seed.
    indices
        Indices of the examples, >= 0, shape (n,), int64.

    Raises
    ------
    TypeError
        If the generator is none.
    """
    checked_generator(generator)
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device)
    # one number on the CPU goes along with a kernel on the GPU; a copy would wait for all kernels before it
    return mixed(seed if seed.device.type == "cpu" else seed.to(indices.device), indices)


class Draws:
    """Random numbers for n examples, from a key for each. Every call counts on, and gives new ones.

    Parameters
    ----------
    key
        Shape (n,), int64.
    """

    def __init__(self, key: Tensor) -> None:
        self._key = key
        self._count = 0

    @staticmethod
    def of(source: Source, like: Tensor) -> Draws:
        """Return a source of random numbers for examples as in `like`, shape (n, ...).

        A torch.Generator gives the numbers that examples with the indices 0, ..., n - 1 get in an attack's first restart.
        """
        if isinstance(source, Draws):
            return source
        key = keys(source, torch.arange(len(like), device=like.device))
        return Draws(mixed(mixed(key, 0), 0))

    def words(self, *shape: int) -> Tensor:
        """Return uniform integers of 32 bits, shape ``(n, *shape)``, int32."""
        key = mixed(self._key, self._count)
        self._count += 1
        low, high = key.to(torch.int32), (key >> 32).to(torch.int32)
        position = torch.arange(math.prod(shape), dtype=torch.int32, device=key.device)
        z = low[:, None] + position.mul_(_signed(_GOLDEN_32, 32))
        _scrambled(z, 32, _ROUNDS_32, 16).add_(high[:, None])
        return _scrambled(z, 32, _ROUNDS_32, 16).view(len(key), *shape)

    def symmetric(self, like: Tensor) -> Tensor:
        """Return numbers from U(-1, 1), in the shape and precision of `like`, shape (n, ...); never 0, -1 or 1."""
        return self._symmetric(like.shape[1:], like.dtype)

    def normal(self, like: Tensor) -> Tensor:
        """Return normal numbers, in the shape and precision of `like`. They end where the uniform ones do: at 5.4."""
        wide = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
        return self._symmetric(like.shape[1:], wide).erfinv_().mul_(math.sqrt(2)).to(like.dtype)

    def uniform(self, like: Tensor) -> Tensor:
        """Return one number from U(0, 1) for each example, shape (n,), in the precision of `like`; never 0 or 1."""
        return self._symmetric((), like.dtype).abs_()

    def below(self, *ends: int) -> list[Tensor]:
        """Return for each of some ends one integer in 0, ..., end - 1 per example, shape (n,), int64."""
        words = self.words(len(ends)).long().bitwise_and_(2**32 - 1)
        return [(words[:, k] * end) >> 32 for k, end in enumerate(ends)]

    def signs(self, like: Tensor, *shape: int) -> Tensor:
        """Return +1 or -1, shape ``(n, *shape)``, in the precision of `like`."""
        return (self.words(*shape) >> 31).mul_(2).add_(1).to(like.dtype)

    def _symmetric(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return (2 k + 1) / 2^d, where d is the number of digits of the precision, and k has d bits and a sign."""
        digits = 1 - round(math.log2(torch.finfo(dtype).eps))
        if digits <= 32:
            wide, k = torch.float32, self.words(*shape) >> (32 - digits)
        else:
            rest = (self.words(*shape).long() & (2**32 - 1)) >> (64 - digits)
            wide, k = torch.float64, (self.words(*shape).long() << (digits - 32)) + rest
        return k.mul_(2).add_(1).to(wide).mul_(2.0**-digits).to(dtype)


Source = Draws | torch.Generator
"""Where random numbers come from: streams by example, or a generator that gives the seed of such."""
