r"""Elementary functions without branches, for compiled loops over lanes.

A compiled loop ``for lane in range(LANES)`` becomes SIMD code only if its body has no branch and no library call,
so the kernels cannot use ``math.exp`` or ``math.erf``. The functions here are the same mathematics as polynomials
and selects, within a few units in the last place on the ranges they state. They are inlined into their callers.

Each polynomial interpolates its function at Chebyshev nodes (computed with 50 digits); the error of the
interpolation is given beside it.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from odeflow.numerics.compilation import inlined

__all__ = ["as_float64", "as_int64", "cos_sin_turns", "erfcx", "exp", "fma", "log"]

_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, which then stands in the low bits
_LOG2_E = 1.4426950408889634
_LN2_HIGH = 0.6931471805599453
_LN2_LOW = 2.3190468138462996e-17


@intrinsic
def as_float64(typingctx: Any, bits: Any) -> Any:
    """Return the float64 that has these 64 bits (int64 or uint64)."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(bits), codegen


@intrinsic
def as_int64(typingctx: Any, x: Any) -> Any:
    """Return the 64 bits of a float64 as an integer."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def fma(typingctx: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a b + c with one rounding."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), codegen


@inlined
def exp(x):
    """Exponential for x <= 700 (below -708 it stays at exp(-708) = 3e-308); interpolation error 3e-18, relative."""
    x = max(x, -708.0)
    shifted = fma(x, _LOG2_E, _ROUND)
    k = shifted - _ROUND
    r = fma(-k, _LN2_LOW, fma(-k, _LN2_HIGH, x))  # |r| <= ln(2)/2
    y = 2.5114870219497476e-08
    y = fma(y, r, 2.7632640675430235e-07)
    y = fma(y, r, 2.755722495611072e-06)
    y = fma(y, r, 2.480148547921643e-05)
    y = fma(y, r, 0.00019841269909219843)
    y = fma(y, r, 0.0013888888952318045)
    y = fma(y, r, 0.008333333333309526)
    y = fma(y, r, 0.04166666666648808)
    y = fma(y, r, 0.16666666666666702)
    y = fma(y, r, 0.5000000000000019)
    y = fma(y, r, 1.0)
    y = fma(y, r, 1.0)
    return as_float64(as_int64(y) + (as_int64(shifted) << 52))  # y 2^k


@inlined
def log(x):
    """Natural logarithm for normal x > 0; interpolation error 2e-16, relative."""
    bits = as_int64(x)
    # the exponent k for which m = x / 2^k lies in [1/sqrt(2), sqrt(2))
    k = (bits - 0x3FE6A09E667F3BCD) >> 52
    m = as_float64(bits - (k << 52))
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    y = 0.16837659970680488
    y = fma(y, z, 0.18121934431215214)
    y = fma(y, z, 0.22223434547517906)
    y = fma(y, z, 0.2857141602110767)
    y = fma(y, z, 0.40000000061741614)
    y = fma(y, z, 0.6666666666655292)
    y = fma(y, z, 2.0)
    # float(k) without a conversion instruction, which AVX2 does not have for 64-bit integers
    k_float = as_float64(k + as_int64(_ROUND)) - _ROUND
    return fma(k_float, _LN2_HIGH, fma(s, y, k_float * _LN2_LOW))


@inlined
def cos_sin_turns(u):
    """Return cos(2 pi u) and sin(2 pi u) for |u| < 2**50; interpolation error 5e-17."""
    shifted = fma(4.0, u, _ROUND)
    quarter = as_int64(shifted) & 3
    t = u - 0.25 * (shifted - _ROUND)  # |t| <= 1/8
    z = t * t
    s = 3.7808689593022957
    s = fma(s, z, -15.093804209987114)
    s = fma(s, z, 42.058685020160894)
    s = fma(s, z, -76.70585970427454)
    s = fma(s, z, 81.60524927594804)
    s = fma(s, z, -41.341702240399634)
    s = fma(s, z, 6.283185307179586)
    s = s * t
    c = 7.810290968144191
    c = fma(c, z, -26.42425703488269)
    c = fma(c, z, 60.24462008593029)
    c = fma(c, z, -85.45681709034115)
    c = fma(c, z, 64.93939402236538)
    c = fma(c, z, -19.73920880217842)
    c = fma(c, z, 1.0)
    swapped = (quarter & 1) == 1
    cos = s if swapped else c
    sin = c if swapped else s
    cos = -cos if (quarter == 1 or quarter == 2) else cos
    sin = -sin if quarter >= 2 else sin
    return cos, sin


@inlined
def erfcx(x):
    """Return exp(x^2) erfc(x) for x >= 0; interpolation error 4e-16, absolute."""
    t = (x - 3.0) / (x + 3.0)
    y = -3.4812520966333774e-09
    y = fma(y, t, -2.1616492483284326e-09)
    y = fma(y, t, 3.574382596423714e-08)
    y = fma(y, t, 3.3372117416822674e-08)
    y = fma(y, t, -2.208102995112378e-07)
    y = fma(y, t, -2.985227243463459e-07)
    y = fma(y, t, 1.2415210714305528e-06)
    y = fma(y, t, 2.12281761424295e-06)
    y = fma(y, t, -7.972456164964205e-06)
    y = fma(y, t, -1.2861636118628598e-05)
    y = fma(y, t, 6.405465303733037e-05)
    y = fma(y, t, 4.525559908731202e-05)
    y = fma(y, t, -0.0005970615485219845)
    y = fma(y, t, 0.000707746389850488)
    y = fma(y, t, 0.00426913628355844)
    y = fma(y, t, -0.024392499314173)
    y = fma(y, t, 0.07166583720110131)
    y = fma(y, t, -0.1501159365009694)
    y = fma(y, t, 0.24560380171225352)
    y = fma(y, t, -0.3262335600430348)
    return fma(y, t, 0.17900115118139026)
