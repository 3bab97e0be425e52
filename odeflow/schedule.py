"""Schedules: a parameter that changes with learning time, where else a number stands.

A schedule is given to `Adversary.epsilon`, `LearningRule.eta_w` or `LearningRule.eta_b`. It is a polynomial on each of some
pieces of learning time, so that the theory's solver and the simulations follow it exactly.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

__all__ = ["Schedule", "Scheduled", "at_time", "from_record", "largest", "record", "schedules_of"]

Scheduled = float | Any
"""What a field holds that takes a number or a `Schedule`."""

_DEGREE = 7  # of the pieces of a smooth function
_FIRST, _MOST_PIECES = 8, 4096
_SEEN, _GOLDEN = 1024, 0.6180339887498949  # points that are looked at beside those of the pieces, and their step
_SHOWN = 8  # pieces that are written out in a repr


@dataclass(frozen=True, repr=False)
class Schedule:
    """A number that changes with learning time alpha: a polynomial on each piece, right-continuous where it jumps.

    Mostly made by one of its constructors: `steps`, `linear`, `warm_up`, `stopped`, `smooth`. It ends at the last edge, inf
    where it goes on for ever; learning beyond its end is an error.

    Raises
    ------
    TypeError, ValueError
        If the edges do not begin at 0 and increase, or a coefficient is not a finite number.

    Examples
    --------
    >>> ramp = Schedule.warm_up(1.0, over=20.0)
    >>> ramp
    Schedule.linear({0: 0, 20: 1}, hold=True)
    >>> ramp([0.0, 5.0, 30.0]).tolist()
    [0.0, 0.25, 1.0]
    """

    edges: tuple[float, ...]
    """Where the pieces begin, and the end: increasing from 0, shape (pieces + 1,)."""
    coefficients: tuple[tuple[float, ...], ...]
    """Of the powers of alpha minus the piece's beginning, lowest first, shape (pieces, degree + 1)."""

    def __post_init__(self) -> None:
        edges = _numbers("edges", self.edges)
        rows = tuple(_numbers("coefficients", row) for row in self.coefficients)
        if len(edges) < 2 or len(rows) != len(edges) - 1:
            raise ValueError(
                f"a schedule with {len(edges)} edges has {len(rows)} pieces: allowed is one piece less, at least one"
            )
        if edges[0] != 0 or not all(low < high for low, high in pairwise(edges)):
            raise ValueError(
                f"edges = {edges!r}: allowed are increasing numbers from 0 on, the last of which may be inf"
            )
        if not all(math.isfinite(edge) for edge in edges[:-1]):
            raise ValueError(f"edges = {edges!r}: allowed are finite numbers, but for the last")
        if not all(row and all(map(math.isfinite, row)) for row in rows):
            raise ValueError(f"coefficients = {self.coefficients!r}: allowed are finite numbers, at least one a piece")
        if math.isinf(edges[-1]) and any(rows[-1][1:]):
            raise ValueError(
                "a schedule that goes on for ever has a last piece that changes: allowed is a constant one"
            )
        degree = max(map(len, rows))
        object.__setattr__(self, "edges", edges)
        object.__setattr__(self, "coefficients", tuple(row + (0.0,) * (degree - len(row)) for row in rows))

    @classmethod
    def steps(
        cls,
        values: Mapping[float, float] | Sequence[float],
        times: Sequence[float] | None = None,
        *,
        end: float = math.inf,
    ) -> Schedule:
        """Return a piecewise constant schedule: each value holds from its time to the next, the last to `end`.

        Parameters
        ----------
        values
            By time, such as ``{0: 0.5, 20: 1.0}``; or the values alone, with `times` beside them. The first time is 0.
        times
            Shape as that of the values.
        end
            Where it ends, > the last time.

        Examples
        --------
        >>> Schedule.steps({0: 0.5, 20: 1.0})(20.0)
        1.0
        """
        times, numbers = _by_time(values, times)
        end = _number("end", end)
        if end <= times[-1]:
            raise ValueError(f"end = {end!r} is out of range: allowed is beyond the last time, {times[-1]:g}")
        return cls((*times, end), tuple((value,) for value in numbers))

    @classmethod
    def linear(
        cls,
        values: Mapping[float, float] | Sequence[float],
        times: Sequence[float] | None = None,
        *,
        hold: bool = False,
    ) -> Schedule:
        """Return a piecewise linear schedule through values at some times.

        Parameters
        ----------
        values, times
            As for `steps`, at least two.
        hold
            Whether the last value holds for ever after; else the schedule ends at the last time.

        Examples
        --------
        >>> Schedule.linear({0: 0.0, 50: 1.0})(25.0)
        0.5
        """
        if not isinstance(hold, bool):
            raise TypeError(f"hold = {hold!r} is not a bool: allowed is True or False")
        times, numbers = _by_time(values, times)
        if len(times) < 2:
            raise ValueError(f"a linear schedule has {len(times)} times: allowed are at least two")
        pieces = list(zip(times, times[1:], numbers, numbers[1:], strict=False))
        rows = [(low, (high - low) / (end - begin)) for begin, end, low, high in pieces]
        if hold:
            return cls((*times, math.inf), (*rows, (numbers[-1], 0.0)))
        return cls(times, tuple(rows))

    @classmethod
    def warm_up(cls, value: float, *, over: float, start: float = 0.0) -> Schedule:
        """Return the linear ramp from `start` at alpha = 0 to `value` at alpha = `over`, > 0, which then holds."""
        over = _number("over", over)
        if not 0 < over < math.inf:
            raise ValueError(f"over = {over!r} is out of range: allowed is a finite number > 0")
        return cls.linear({0.0: start, over: value}, hold=True)

    @classmethod
    def stopped(cls, value: float | Schedule, *, at: float) -> Schedule:
        """Return a value, or another schedule, that is 0 from alpha = `at` on: of a learning rate, early stopping.

        Examples
        --------
        >>> Schedule.stopped(0.04, at=50.0)
        Schedule.steps({0: 0.04, 50: 0})
        """
        at = _number("at", at)
        if not 0 < at < math.inf:
            raise ValueError(f"at = {at!r} is out of range: allowed is a finite number > 0")
        whole = value if isinstance(value, Schedule) else cls.steps({0.0: value})
        if whole.end < at:
            raise ValueError(f"at = {at!r} is beyond the end of the schedule, {whole.end!r}: allowed is at most that")
        kept = [i for i, edge in enumerate(whole.edges[:-1]) if edge < at]
        edges = tuple(whole.edges[i] for i in kept)
        return cls((*edges, at, math.inf), (*(whole.coefficients[i] for i in kept), (0.0,)))

    @classmethod
    def smooth(cls, function: Callable[[Any], Any], *, until: float, tolerance: float = 1e-9) -> Schedule:
        """Return a smooth function of alpha, sampled to a tolerance by polynomials of degree 7 (approximate).

        Parameters
        ----------
        function
            Of arrays of alpha, shape (...), to numbers of the same shape.
        until
            Where it ends, a finite number > 0.
        tolerance
            Largest error aimed at, as a fraction of the largest value; looked for at points between the nodes and at 1,000
            more, so that only what is narrower than a thousandth of the time can be missed.

        Raises
        ------
        ValueError
            If 4096 pieces do not reach the tolerance: the function jumps, or has a pole.

        Examples
        --------
        >>> import numpy as np
        >>> wave = Schedule.smooth(lambda alpha: 1 + np.cos(alpha), until=10.0)
        >>> float(abs(wave(3.0) - (1 + np.cos(3.0)))) < 1e-8
        True
        """
        import numpy as np

        until, tolerance = _number("until", until), _number("tolerance", tolerance)
        if not (0 < until < math.inf and tolerance > 0):
            raise ValueError(f"until = {until!r}, tolerance = {tolerance!r}: allowed are finite numbers > 0")
        if not callable(function):
            raise TypeError(f"function = {function!r}: allowed is a function of alpha")
        nodes = (1 - np.cos(np.pi * np.arange(_DEGREE + 1) / _DEGREE)) / 2  # the ends among them: no jumps
        between = (nodes[1:] + nodes[:-1]) / 2
        inverse = np.linalg.inv(np.vander(nodes, increasing=True))
        seen = until * np.asarray(np.arange(1, _SEEN) * _GOLDEN % 1.0, np.float64)  # in no step with the pieces
        values = _sampled(function, seen)
        allowed = tolerance * max(float(np.max(np.abs(values))), 1e-300)
        done: list[tuple[float, tuple[float, ...]]] = []
        open_pieces = [(until * i / _FIRST, until * (i + 1) / _FIRST) for i in reversed(range(_FIRST))]
        while open_pieces:
            low, high = open_pieces.pop()
            length = high - low
            monomials = inverse @ _sampled(function, low + length * nodes)
            inside = (seen >= low) & (seen < high)
            at = np.concatenate([between, (seen[inside] - low) / length])
            expected = np.concatenate([_sampled(function, low + length * between), values[inside]])
            error = np.polynomial.polynomial.polyval(at, monomials) - expected
            if np.max(np.abs(error)) <= allowed:
                done.append((low, tuple((monomials / length ** np.arange(_DEGREE + 1)).tolist())))
            elif len(done) + len(open_pieces) >= _MOST_PIECES or length < 1e-12 * until:
                raise ValueError(
                    f"the function is not sampled to tolerance = {tolerance:g} near alpha = {low:g} by {_MOST_PIECES} pieces: "
                    "allowed is a smooth function; for jumps there is Schedule.steps"
                )
            else:
                middle = low + length / 2
                open_pieces += [(middle, high), (low, middle)]
        return cls((*(low for low, _ in done), until), tuple(row for _, row in done))

    @property
    def end(self) -> float:
        """Where it ends."""
        return self.edges[-1]

    def __call__(self, alpha: npt.ArrayLike) -> Any:
        """Return the values at alpha, of any shape: a float, or an array.

        Raises
        ------
        ValueError
            If an alpha is below 0 or beyond the end.
        """
        import numpy as np

        times = np.asarray(alpha, np.float64)
        if not np.all((times >= 0) & (times <= self.end)):
            bad = float(times[~((times >= 0) & (times <= self.end))].flat[0])
            raise ValueError(
                f"alpha = {bad!r} is out of range: allowed is in [0, {self.end:g}], where the schedule ends"
            )
        piece = np.clip(np.searchsorted(self.edges, times, side="right") - 1, 0, len(self.coefficients) - 1)
        x = times - np.array(self.edges)[piece]
        rows = np.array(self.coefficients)[piece]
        value = rows[..., -1]
        for power in range(rows.shape[-1] - 2, -1, -1):
            value = value * x + rows[..., power]
        return float(value) if value.ndim == 0 else value

    @property
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value, of the pieces with their left limits (exact up to rounding)."""
        import numpy as np

        found: list[float] = []
        for begin, end, row in zip(self.edges, self.edges[1:], self.coefficients, strict=False):
            length = end - begin
            polynomial = np.polynomial.Polynomial(row).trim()
            at = [0.0] if math.isinf(length) else [0.0, length]
            if polynomial.degree() > 1:
                turns = [complex(x) for x in polynomial.deriv().roots()]
                at += [x.real for x in turns if abs(x.imag) < 1e-9 and 0 < x.real < length]
            found += [float(polynomial(x)) for x in at]
        return min(found), max(found)

    def later(self, alpha: float) -> Schedule:
        """Return what is left of the schedule from `alpha` on, counted from there: to go on with a simulation."""
        alpha = _number("alpha", alpha)
        if not 0 <= alpha < self.end:
            raise ValueError(f"alpha = {alpha!r} is out of range: allowed is in [0, {self.end:g})")
        first = self._piece(alpha)
        rest = tuple(edge - alpha for edge in self.edges[first + 1 :])
        return Schedule((0.0, *rest), (self.powers_from(alpha), *self.coefficients[first + 1 :]))

    def _piece(self, alpha: float) -> int:
        return bisect.bisect_right(self.edges, alpha, hi=len(self.edges) - 1) - 1

    def powers_from(self, alpha: float) -> tuple[float, ...]:
        """Return the coefficients of the piece that holds alpha, by powers of the time from there on, lowest first."""
        import numpy as np

        piece = self._piece(alpha)
        shift = np.polynomial.Polynomial([alpha - self.edges[piece], 1.0])
        powers: list[float] = np.polynomial.Polynomial(self.coefficients[piece])(shift).coef.tolist()
        return tuple(powers)

    def __repr__(self) -> str:
        pieces, lengths = len(self.coefficients), [b - a for a, b in pairwise(self.edges)]
        flat = all(not any(row[1:]) for row in self.coefficients)
        if pieces <= _SHOWN and flat:
            inside = ", ".join(
                f"{edge:g}: {row[0]:g}" for edge, row in zip(self.edges, self.coefficients, strict=False)
            )
            return f"Schedule.steps({{{inside}}}{'' if math.isinf(self.end) else f', end={self.end:g}'})"
        last = pieces - 1 if math.isinf(self.end) else pieces
        ends = [
            row[0] + row[1] * length
            for row, length in zip(self.coefficients[:last], lengths, strict=False)
            if len(row) > 1
        ]
        starts = [row[0] for row in self.coefficients[1:]]
        joined = len(ends) == last and all(
            math.isclose(end, start, rel_tol=1e-12, abs_tol=1e-12) for end, start in zip(ends, starts, strict=False)
        )
        if pieces <= _SHOWN and joined and all(not any(row[2:]) for row in self.coefficients):
            values = [*(row[0] for row in self.coefficients[:last]), ends[-1]]
            inside = ", ".join(f"{edge:g}: {value:g}" for edge, value in zip(self.edges, values, strict=False))
            return f"Schedule.linear({{{inside}}}{', hold=True' if math.isinf(self.end) else ''})"
        low, high = self.bounds
        degree = len(self.coefficients[0]) - 1
        return f"<Schedule of {pieces} pieces of degree {degree} to alpha = {self.end:g}, in [{low:g}, {high:g}]>"


def _number(name: str, value: object) -> float:
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} = {value!r} is not a number")
    number = float(value)
    if math.isnan(number):
        raise ValueError(f"{name} = {number!r}: allowed are numbers")
    return number


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    try:
        return tuple(_number(name, value) for value in values)
    except TypeError:
        raise TypeError(f"{name} = {values!r}: allowed are numbers") from None


def _by_time(values: Any, times: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return increasing times and their values."""
    if isinstance(values, Mapping):
        if times is not None:
            raise TypeError(f"values by time and times = {times!r} are both given: allowed is one of them")
        times, values = list(values.keys()), list(values.values())
    elif times is None:
        raise TypeError(f"values = {values!r} without times: allowed are values by time, such as {{0: 0.5, 20: 1.0}}")
    found, numbers = _numbers("times", times), _numbers("values", values)
    if len(found) != len(numbers) or not found:
        raise ValueError(f"there are {len(found)} times and {len(numbers)} values: allowed are as many, at least one")
    if found[0] != 0:
        raise ValueError(f"the schedule begins at alpha = {found[0]:g}: allowed is 0, for there it is needed first")
    if not all(low < high < math.inf for low, high in pairwise(found)):
        raise ValueError(f"times = {found!r}: allowed are increasing finite numbers")
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"values = {numbers!r}: allowed are finite numbers")
    return found, numbers


def _sampled(function: Callable[[Any], Any], alpha: Array) -> Array:
    import numpy as np

    try:
        values = np.broadcast_to(np.asarray(function(alpha), np.float64), alpha.shape)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the function of a schedule fails for an array of alpha ({error}): allowed is one of arrays of any shape to numbers "
            "of the same shape (np.where in place of if)"
        ) from None
    if not np.all(np.isfinite(values)):
        bad = float(alpha[~np.isfinite(values)][0])
        raise ValueError(f"the function of a schedule is not finite at alpha = {bad:g}: allowed are finite values")
    return values


def record(schedule: Schedule) -> dict[str, Any]:
    """Return what a result's attributes say of a schedule, in what JSON can hold; the end is None if there is none."""
    edges = [*schedule.edges[:-1], None if math.isinf(schedule.end) else schedule.end]
    return {"kind": "Schedule", "edges": edges, "coefficients": [list(row) for row in schedule.coefficients]}


def from_record(values: Mapping[str, Any]) -> Schedule:
    """Return the schedule that a result's attributes describe."""
    try:
        edges = tuple(math.inf if edge is None else edge for edge in values["edges"])
        return Schedule(edges, tuple(tuple(row) for row in values["coefficients"]))
    except (KeyError, TypeError):
        raise ValueError(
            f"{dict(values)!r} is no record of a schedule: allowed here are those of results; Schedule.steps and Schedule.linear make "
            "one of values by time"
        ) from None


def schedules_of(*parts: Any) -> dict[str, Schedule]:
    """Return the schedules in the fields of some dataclasses, by name."""
    return {name: value for part in parts for name, value in vars(part).items() if isinstance(value, Schedule)}


def at_time(part: Any, alpha: float) -> Any:
    """Return a dataclass with the numbers that its schedules have at alpha."""
    changes = {name: schedule(alpha) for name, schedule in schedules_of(part).items()}
    return replace(part, **changes) if changes else part


def largest(value: Scheduled) -> float:
    """Return a number as it is, and the largest of a schedule."""
    return value.bounds[1] if isinstance(value, Schedule) else float(value)
