"""A user's own factor of the update, in place of that of a loss."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from odeflow.parameters import checked_number

__all__ = ["Factor"]

_MOST_KINKS = 20


@dataclass(frozen=True, repr=False)
class Factor:
    """A factor f(u) of the update delta = tau f(tau x), u = tau x the margin after the attack: `LearningRule(factor=...)`.

    It is compiled by numba once a process. The theory averages f, f^2 and f' over Gaussian margins by quadrature in panels between the
    kinks, 0, and distances of `scale` times 1, 2, 4, ... from 0: accurate to 1e-9 for an f that varies over `scale` or more near 0
    and ever less quickly farther out, and grows no faster than a power.

    Parameters
    ----------
    function
        A function of one float that numba can compile, or one that it has compiled; it returns a float. Names outside of it
        are as they are when it is compiled.
    kinks
        Where f or its derivative jumps, at most 20 numbers. At a jump itself no value matters.
    scale
        Over which length f varies near 0, > 0.

    Raises
    ------
    TypeError, ValueError
        If an argument is not allowed.

    Examples
    --------
    >>> from odeflow import LearningRule
    >>> def ramp(u: float) -> float:
    ...     return min(max(1.0 - u, 0.0), 1.0)
    >>> LearningRule(factor=Factor(ramp, kinks=(0.0, 1.0))).factor.kinks
    (0.0, 1.0)
    """

    function: Callable[[float], float]
    kinks: tuple[float, ...] = ()
    scale: float = 0.5

    def __post_init__(self) -> None:
        if not hasattr(self._plain, "__code__"):
            raise TypeError(f"function = {self.function!r} is of the wrong type: allowed is a function of one number")
        given: Any = self.kinks
        kinks = (given,) if isinstance(given, int | float) else tuple(given)
        if len(kinks) > _MOST_KINKS:
            raise ValueError(f"kinks has {len(kinks)} numbers: allowed are at most {_MOST_KINKS}")
        object.__setattr__(self, "kinks", tuple(sorted(checked_number("kinks", kink) for kink in kinks)))
        object.__setattr__(self, "scale", checked_number("scale", self.scale, least=1e-3, most=1e3))

    @property
    def _plain(self) -> Any:
        """The Python function, of one that numba has compiled too."""
        return getattr(self.function, "py_func", self.function)

    def __repr__(self) -> str:
        code = self._plain.__code__
        digest = hashlib.sha256(repr((code.co_code, code.co_consts, code.co_names)).encode()).hexdigest()[:12]
        return f"Factor({self._plain.__name__}, code {digest}, kinks={self.kinks}, scale={self.scale})"
