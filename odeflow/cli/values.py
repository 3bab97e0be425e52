"""How the values of flags are read, and what is said of those that cannot be."""

from __future__ import annotations

import difflib
import math
import types
from collections.abc import Callable
from typing import Any, Literal, Union, get_args, get_origin

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from odeflow.schedule import Schedule, Scheduled

__all__ = ["number_of", "registry", "scheduled_of", "whole_number_of"]

_NUMBER_OR_SCHEDULE = "a number, or by learning time steps:0=0.3,10=0.1 or linear:0=0,20=1, whose last value holds"


def number_of(text: str) -> float:
    """Return the number that a text stands for, or raise a ValueError that says what is allowed."""
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number: allowed is one such as 3, 0.5 or 1e-3") from None


def whole_number_of(text: str) -> int:
    """Return the whole number that a text stands for, 1000 or 1e3, or raise a ValueError that says what is allowed."""
    try:
        return int(text)
    except ValueError:
        pass
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number.is_integer():  # nor nan, nor inf
        raise ValueError(f"{text!r} is not a whole number: allowed is one such as 1000 or 1e3")
    return int(number)


def scheduled_of(text: str) -> float | Schedule:
    """Return a number, or the schedule that a text such as steps:0=0.3,10=0.1 or linear:0=0,20=1 stands for.

    The last value of either holds.
    """
    kind, colon, rest = text.partition(":")
    if not colon:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a number: allowed is {_NUMBER_OR_SCHEDULE}") from None
    entries = [entry.partition("=") for entry in rest.split(",")]
    if kind not in ("steps", "linear") or not all(sign for _, sign, _ in entries):
        raise ValueError(f"{text!r} is no schedule: allowed is {_NUMBER_OR_SCHEDULE}")
    times, values = [number_of(time) for time, _, _ in entries], [number_of(value) for _, _, value in entries]
    return Schedule.steps(values, times) if kind == "steps" else Schedule.linear(values, times, hold=True)


def _word_of(text: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        near = difflib.get_close_matches(text.lower(), allowed, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise ValueError(f"{text!r} is unknown{hint}: allowed is one of {', '.join(allowed)}")
    return text


def registry() -> ConstructorRegistry:
    """Return the rules by which tyro reads int, float, words of a Literal, and each of them or None."""
    rules = ConstructorRegistry()
    rules.primitive_rule(_rule)
    return rules


def _rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    kind, or_none = info.type, False
    if kind == Scheduled:
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar="FLOAT|SCHEDULE",
            instance_from_str=lambda texts: scheduled_of(texts[0]),
            is_instance=lambda value: isinstance(value, float | int | Schedule),
            str_from_instance=lambda value: [str(value)],
        )
    if get_origin(kind) in (Union, types.UnionType) and len(get_args(kind)) == 2 and type(None) in get_args(kind):
        kind, or_none = next(one for one in get_args(kind) if one is not type(None)), True
    if get_origin(kind) is tuple and set(get_args(kind)) <= {float, ...}:
        return _numbers("*" if ... in get_args(kind) else len(get_args(kind)), or_none=or_none)
    read: Callable[[str], Any]
    if kind is int:
        read, metavar = whole_number_of, "INT"
    elif kind is float:
        read, metavar = number_of, "FLOAT"
    elif get_origin(kind) is Literal and all(isinstance(word, str) for word in get_args(kind)):
        words = get_args(kind)
        read, metavar = (lambda text: _word_of(text, words)), "{" + ",".join(words) + "}"
    else:
        return None

    def is_instance(value: Any) -> bool:
        if value is None:
            return or_none
        if kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, float | int) if kind is float else value in get_args(kind)

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda texts: None if or_none and texts[0] == "None" else read(texts[0]),
        is_instance=is_instance,
        str_from_instance=lambda value: [str(value)],
    )


def _numbers(count: int | Literal["*"], *, or_none: bool) -> PrimitiveConstructorSpec[Any]:
    """Return how so many numbers are read; "*": those to the next flag."""

    def read(texts: list[str]) -> tuple[float, ...]:
        for text in texts:
            try:
                number_of(text)
            except ValueError:
                raise ValueError(
                    f"{text!r} is not a number: allowed are numbers, and what is none of them stands before the flag"
                ) from None
        return tuple(map(float, texts))

    return PrimitiveConstructorSpec(
        nargs=count,
        metavar="[FLOAT [FLOAT ...]]" if count == "*" else " ".join(["FLOAT"] * count),
        instance_from_str=read,
        is_instance=lambda value: or_none if value is None else isinstance(value, tuple),
        str_from_instance=lambda value: ["None"] if value is None else [str(one) for one in value],
    )
