"""A user's own factor of the update in the kernels: called by its address, and averaged by quadrature in panels."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numba
import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import njit, types
from numba.core.errors import NumbaError
from numba.extending import intrinsic

from odeflow.model import Factor
from odeflow.numerics.compilation import LANES, called, kept
from odeflow.numerics.elementary import exp

__all__ = ["OwnFactor", "evaluated", "lane_own_averages", "lane_own_factors", "own_breaks", "own_factor", "own_value"]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_SIGMAS = np.array([-8.5, -6.0, -4.0, -2.5, -1.0, 0.0, 1.0, 2.5, 4.0, 6.0, 8.5])
_OCTAVES = 12  # of distances from 0


class OwnFactor(NamedTuple):
    """How a user's factor is called and averaged."""

    address: int
    """Of a C function of a double."""
    breaks: npt.NDArray[np.float64]
    """Rising places between which f is smooth."""
    cut: float
    """f = 0 beyond; inf if there is no such place."""
    twice: bool
    """Whether the loss on examples without attack has a weight."""


def own_breaks(factor: Factor, cut: float) -> npt.NDArray[np.float64]:
    """Return places between which f is smooth, in panels that grow away from 0."""
    graded = factor.scale * 2.0 ** np.arange(_OCTAVES)
    return np.unique([*factor.kinks, 0.0, *graded, *-graded, *([cut] if math.isfinite(cut) else [])])


def own_factor(factor: Factor, *, non_robust: bool, twice: bool) -> OwnFactor:
    """Return a factor as the kernels take it.

    Raises
    ------
    ValueError
        If numba cannot compile it, or if it is not finite near 0.
    """
    cut = 0.0 if non_robust else math.inf
    return OwnFactor(_compiled(factor).address, own_breaks(factor, cut), cut, twice)


@cache  # the compiled function lives as long as the process
def _compiled(factor: Factor) -> Any:
    function: Any = factor.function
    inner = function if hasattr(function, "py_func") else njit(error_model="numpy")(function)
    try:
        compiled = numba.cfunc("float64(float64)")(lambda u: inner(u))
        values = [compiled.ctypes(u) for u in (-1.0, 0.0, 1.0)]
    except (NumbaError, TypeError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"function = {factor.function!r}: allowed is a function of one float that numba can compile and that returns a float "
            f"({first})"
        ) from None
    if not all(map(math.isfinite, values)):
        raise ValueError(
            f"function = {factor.function!r} has the values {values} at -1, 0 and 1: allowed are finite ones"
        )
    return compiled


@intrinsic
def _call(_: Any, address: Any, u: Any) -> Any:
    """Return the value of the C function at an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.DoubleType(), [ir.DoubleType()]).as_pointer()
        return builder.call(builder.inttoptr(arguments[0], kind), [arguments[1]])

    return types.float64(types.int64, types.float64), generate


@called
def own_value(own, u):
    """Return f(u)."""
    return _call(own.address, u) if u < own.cut else 0.0


@called
def lane_own_factors(own, u, out):
    """Set out = f(u) in every lane."""
    for lane in range(LANES):
        out[lane] = own_value(own, u[lane])


@called
def _insert(edges, count, edge):
    """Put an edge into its place among the first `count`, which rise."""
    i = count
    while i > 0 and edges[i - 1] > edge:
        edges[i] = edges[i - 1]
        i -= 1
    edges[i] = edge
    return count + 1


@called
def lane_own_averages(own, weight, shift, m, v, D1, attacked, D2, slope):
    """Set <F>, its part from the attacked example, <F^2> and <F'> of F(u) = (1 - weight) f(u) + weight f(u + shift)."""
    edges = np.empty(_SIGMAS.size + 2 * own.breaks.size)
    for lane in range(LANES):
        s = math.sqrt(v[lane])
        count = np.int64(0)
        for sigma in _SIGMAS:
            count = _insert(edges, count, m[lane] + s * sigma)
        low, high = edges[0], edges[count - 1]
        for copy in range(2 if own.twice else 1):
            for place in own.breaks:
                edge = place - copy * shift[lane]
                if low < edge < high:
                    count = _insert(edges, count, edge)
        D1[lane], D2[lane], slope[lane], attacked[lane] = 0.0, 0.0, 0.0, 0.0
        for panel in range(count - 1):
            half = 0.5 * (edges[panel + 1] - edges[panel])
            if half <= 0.0:
                continue
            for node in range(_NODES.size):
                u = edges[panel] + half * (1.0 + _NODES[node])
                z = u - m[lane]
                measure = _WEIGHTS[node] * half * exp(-0.5 * z * z / v[lane]) / math.sqrt(2 * math.pi * v[lane])
                part = own_value(own, u)
                F = part
                if own.twice:
                    part *= 1.0 - weight[lane]
                    F = part + weight[lane] * own_value(own, u + shift[lane])
                D1[lane] += measure * F
                attacked[lane] += measure * part
                D2[lane] += measure * F * F
                slope[lane] += measure * F * z / v[lane]


@kept
def _evaluate(own, u, out):
    for i in range(u.size):
        out[i] = own_value(own, u[i])


def evaluated(factor: Factor, u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return f at some places."""
    flat, out = np.ascontiguousarray(u, np.float64).ravel(), np.empty(np.size(u))
    _evaluate(own_factor(factor, non_robust=False, twice=False), flat, out)
    return out.reshape(np.shape(u))
