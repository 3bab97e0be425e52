"""Command lines from dataclasses, whose errors are one line each."""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import tyro

from odeflow.cli.program import say
from odeflow.cli.values import registry

__all__ = ["parsed", "unknown"]


def parsed(
    types: Any,
    arguments: list[str],
    *,
    prog: str,
    commands: tuple[str, ...],
    description: str,
    examples: Mapping[str, Sequence[str]],
    choices: Mapping[str, Sequence[str]] = {},
    elsewhere: Callable[[], Mapping[str, Any]] = dict,
) -> Any:
    """Return the command that the arguments stand for.

    Parameters
    ----------
    types
        A union of dataclasses, each annotated as a subcommand of tyro.
    arguments
        What follows the program's name.
    prog, commands
        Names of the program and of its subcommands.
    description
        What `--help` says first.
    examples
        By command, what `--help` says last; of the program by the name "".
    choices
        Flags that decide which others there are, and the words that each allows.
    elsewhere
        Returns the types with other choices by how they are chosen, such as ``--network committee``.

    Raises
    ------
    SystemExit
        After `--help` (status 0); after bad arguments, with one line on stderr (status 2).
    """
    arguments = arguments or ["--help"]
    command = next((one for one in commands if one == arguments[0].replace("_", "-")), "")
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return _parse(types, arguments, prog, description)
    except SystemExit as end:
        if not end.code:
            if "--help" in arguments or "-h" in arguments:
                print("examples:", *(f"  {prog} {example}" for example in examples[command]), sep="\n")
            raise
    message = (
        _wrong_choice(arguments, choices)
        or _wrong_name(types, arguments, command, prog, commands, elsewhere)
        or _said(_unboxed(boxed.getvalue()), arguments)
    )
    say(f"{prog}: {message} ({f'{prog} {command}'.rstrip()} --help says more)", sys.stderr)
    sys.exit(2)


def unknown(name: str, value: object, allowed: Iterable[str], what: str = "is unknown") -> str:
    """Return a message on a word that is none of those allowed, with the nearest that is."""
    words = list(allowed)
    return f"{name} = {value!r} {what}{_hint(str(value), words)}: allowed is one of {', '.join(words)}"


def _hint(word: str, words: Iterable[str]) -> str:
    """Return a guess at what was meant, in brackets, or nothing."""
    by_key = {_key(one): one for one in words}
    key = _key(word)
    near = (
        [one for other, one in by_key.items() if other == key]
        or [one for other, one in by_key.items() if key and other.startswith(key)]
        or [by_key[one] for one in difflib.get_close_matches(key, by_key, 2)]
    )
    return f" (did you mean {' or '.join(near[:3])}?)" if near else ""


def _key(word: str) -> str:
    return word.lstrip("-").replace("_", "-").lower()


def _parse(types: Any, arguments: list[str], prog: str, description: str) -> Any:
    return tyro.cli(
        types,
        prog=prog,
        description=description,
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.AvoidSubcommands),
        registry=registry(),
    )


# What is wrong with the arguments: a name that is not one, or what tyro says.


def _wrong_choice(arguments: list[str], choices: Mapping[str, Sequence[str]]) -> str | None:
    """Return what is wrong with a word that decides which flags there are, or None."""
    for flag, words in choices.items():
        for argument, following in itertools.pairwise([*arguments, ""]):
            name, equals, word = argument.partition("=")
            word = word if equals else following
            if name == flag and word and not word.startswith("-") and word not in words:
                return unknown(flag.lstrip("-"), word, words)
    return None


def _wrong_name(
    types: Any,
    arguments: list[str],
    command: str,
    prog: str,
    commands: tuple[str, ...],
    elsewhere: Callable[[], Mapping[str, Any]],
) -> str | None:
    """Return what is wrong with the first name that is no command or no option, or None if all are."""
    if not command:
        if arguments[0].startswith("-"):
            return f"COMMAND is missing before {arguments[0]}: allowed is one of {', '.join(commands)}"
        return unknown("COMMAND", arguments[0], commands)
    flags = _flags(types, command, prog)
    for argument in arguments[1:]:
        name = argument.partition("=")[0]
        if not re.match(r"--?[A-Za-z]", name) or re.fullmatch(r"-(inf|nan)", name, re.IGNORECASE):
            continue
        if name not in flags and name.replace("_", "-") not in flags:
            others = [how for how, these in elsewhere().items() if name in _flags(these, command, prog)]
            others = others or [one for one in commands if one != command and name in _flags(types, one, prog)]
            where = f" (it belongs to {', '.join(others)})" if others else _hint(name, flags)
            return f"{name} is no option of {prog} {command}{where}"
    return None


def _flags(types: Any, command: str, prog: str) -> list[str]:
    """Return the options of a command: those that begin a line of its help, which any version of tyro has."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.suppress(SystemExit):
        _parse(types, [command, "--help"], prog, "")
    rows = re.findall(r"^[│ ] (-\S.*?)(?:  |│|$)", text.getvalue(), re.MULTILINE)
    return [flag for row in rows for flag in re.findall(r"(?:^|, )(--?[\w-]+)", row)]


def _unboxed(text: str) -> str:
    """Return what one of tyro's messages says as a line: a box, or plain text under a title and a rule."""
    lines = [line.strip("│ ") for line in text.splitlines() if not line.startswith(("╭", "╰"))]
    blocks = re.split(r"(?:^|\n)[-─]{5,}(?:\n|$)", "\n".join(lines))
    message = " ".join((blocks[0] if "╭" in text or len(blocks) == 1 else blocks[1]).split())
    return re.sub(r"^Error parsing __tyro\S*: ", "", message) or text


def _said(message: str, arguments: list[str]) -> str:
    """Return one of tyro's messages as this package says it: the argument, its value, what is allowed."""
    if match := re.match(r"Error parsing (?:-\w/)?(\S+): (.*)", message):
        name = match[1].lstrip("-").replace("-", "_") if match[1].startswith("--") else match[1]
        return f"{name} = {match[2]}"
    if match := re.match(r"Missing value for argument '(?:-\w/)?(\S+)'", message):
        return f"{match[1]} has no value: allowed is one after it"
    if match := re.match(r"Missing from (.*?): (\S+) (.*?)\.? \(required\)", message):
        return f"{match[2]} is missing from {match[1]}: allowed is {match[3][:1].lower()}{match[3][1:]}"
    if match := re.match(r"Unrecognized (?:or misplaced )?options: *(.*)", message):
        rest = re.sub(r"\(applied to [^)]*\)|Arguments are applied to.*", " ", match[1]).replace(", ", " ")
        word = rest.split()[0]
        before = arguments[arguments.index(word) - 1] if word in arguments else ""
        if before.startswith("--") and "=" not in before:
            return f"{word!r} is not expected after {before}, which takes no value"
        return f"{word!r} is not expected: allowed are options, each as --NAME VALUE"
    return message
