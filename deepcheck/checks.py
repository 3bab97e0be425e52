"""Checks of arguments and files."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["CheckpointError", "checked_choice"]


class CheckpointError(RuntimeError):
    """A checkpoint cannot be used: it is missing, truncated, no checkpoint, or one of another network."""


def checked_choice(name: str, value: object, allowed: Iterable[str]) -> str:
    """Return `value`, one of some words.

    Raises
    ------
    TypeError
        If it is not a string.
    ValueError
        If it is another word; the message has the nearest allowed one.
    """
    words = list(allowed)
    if not isinstance(value, str):
        raise TypeError(f"{name} = {value!r} is of the wrong type: allowed is one of {', '.join(words)}")
    if value not in words:
        close = difflib.get_close_matches(value.lower(), words, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"{name} = {value!r} is unknown{hint}: allowed is one of {', '.join(words)}")
    return value
