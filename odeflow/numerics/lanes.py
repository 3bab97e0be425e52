"""Sums with written-out coefficients, and 512-bit vectors, for kernels whose loops over lanes are as fast as they can be.

A loop over the terms of a Runge-Kutta stage or of a polynomial inside a loop over lanes keeps it from becoming SIMD code.
`combination` and `polynomial` write such a sum down term by term, as one would by hand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

__all__ = ["ALIGNMENT", "aligned", "combination", "polynomial", "prefer_512_bits"]

ALIGNMENT = 8
"""Numbers in a line of the cache, which a vector should not straddle."""


def aligned(size: int) -> npt.NDArray[np.float64]:
    """Return zeros that begin with a line of the cache."""
    zeros = np.zeros(size + ALIGNMENT)
    first = -(zeros.ctypes.data // zeros.itemsize) % ALIGNMENT
    return zeros[first : first + size]


@intrinsic
def prefer_512_bits(_: Any) -> Any:
    """Ask the compiler for vectors of 512 bits in the calling function, where the processor has them.

    By itself it takes 256 bits on processors whose clock once slowed down with more. The results are the same bits. The
    attribute is none of those that llvmlite knows: where it cannot be added, the function keeps shorter vectors.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        attributes = builder.function.attributes
        if isinstance(attributes, set):
            set.add(attributes, '"prefer-vector-width"="512"')
        return context.get_dummy_value()

    return types.void(), generate


def _sum(context: Any, builder: Any, array: Any, terms: list[tuple[Any, Any]]) -> Any:
    """Return sum_j weight_j array[index_j], fused."""
    total = None
    for weight, index in terms:
        value = builder.load(builder.gep(array.data, [index]))
        total = builder.fmul(weight, value) if total is None else builder.fma(weight, value, total)
    return total


def combination(rows: npt.NDArray[np.float64], stride: int) -> Callable[..., float]:
    """Return ``combine(row, values, at)``: sum_j rows[row, j] values[at + j stride] over what is not zero, fused.

    `row` must be written down as an integer where it is compiled.
    """

    @intrinsic(prefer_literal=True)
    def combine(_: Any, row: Any, values: Any, at: Any) -> Any:
        if not isinstance(row, types.IntegerLiteral):
            return None
        weights = rows[row.literal_value]

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _, values, at = arguments
            array = context.make_array(signature.args[1])(context, builder, values)
            terms = [
                (ir.DoubleType()(float(weights[j])), builder.add(at, ir.IntType(64)(int(j) * stride)))
                for j in np.flatnonzero(weights)
            ]
            return _sum(context, builder, array, terms)

        return types.float64(row, values, types.int64), generate

    return combine  # type: ignore[no-any-return]


def polynomial(terms: int, stride: int) -> Callable[..., float]:
    """Return ``evaluate(x, values, at)``: sum_k values[at + k stride] x^k of so many terms, by Horner's rule, fused."""

    @intrinsic
    def evaluate(_: Any, x: Any, values: Any, at: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            x, values, at = arguments
            array = context.make_array(signature.args[1])(context, builder, values)
            total = None
            for k in reversed(range(terms)):
                value = builder.load(builder.gep(array.data, [builder.add(at, ir.IntType(64)(k * stride))]))
                total = value if total is None else builder.fma(total, x, value)
            return total

        return types.float64(types.float64, values, types.int64), generate

    return evaluate  # type: ignore[no-any-return]
