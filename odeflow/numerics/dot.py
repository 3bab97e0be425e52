"""The sum of products of two rows, in SIMD code and in an order of additions that every processor keeps.

A compiler may not vectorise a sum: it would add in another order. Here the order is written down: eight partial sums of a
fused multiply-add each, then these from the first to the last.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["WIDTH", "dot"]

WIDTH = 8
"""The number of products is a multiple of this."""


@intrinsic
def dot(typingctx: Any, rows: Any, a: Any, b: Any, n: Any) -> Any:
    """Return sum_i rows[a, i] rows[b, i] over i < n, a multiple of WIDTH, for rows in C order. Bounds are not checked."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        _, length = cgutils.unpack_tuple(builder, array.shape, 2)
        vector = ir.VectorType(ir.DoubleType(), WIDTH)
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{WIDTH}f64"
        )
        total = cgutils.alloca_once_value(builder, ir.Constant(vector, [0.0] * WIDTH))

        def load(row: Any, start: Any) -> Any:
            place = builder.gep(array.data, [builder.add(builder.mul(row, length), start)])
            return builder.load(builder.bitcast(place, vector.as_pointer()), align=8)

        steps = builder.udiv(arguments[3], ir.Constant(ir.IntType(64), WIDTH))
        with cgutils.for_range(builder, steps) as loop:
            start = builder.mul(loop.index, ir.Constant(ir.IntType(64), WIDTH))
            x, y = load(arguments[1], start), load(arguments[2], start)
            builder.store(builder.call(fma, [x, y, builder.load(total)]), total)
        parts = builder.load(total)
        result = builder.extract_element(parts, ir.Constant(ir.IntType(32), 0))
        for lane in range(1, WIDTH):
            result = builder.fadd(result, builder.extract_element(parts, ir.Constant(ir.IntType(32), lane)))
        return result

    return types.float64(rows, types.int64, types.int64, types.int64), codegen
