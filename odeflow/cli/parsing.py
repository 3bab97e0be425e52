"""Command lines from dataclasses, whose errors are one line each."""

from __future__ import annotations

import contextlib
import io
import re
import sys
from typing import Any

import tyro

__all__ = ["parsed"]


def parsed(types: Any, arguments: list[str], *, prog: str, commands: tuple[str, ...], description: str) -> Any:
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

    Raises
    ------
    SystemExit
        After `--help` (status 0); after bad arguments, with one line on stderr (status 2).
    """
    boxed = io.StringIO()
    try:
        with contextlib.redirect_stderr(boxed):
            return tyro.cli(
                types,
                prog=prog,
                description=description,
                args=arguments or ["--help"],
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes, tyro.conf.AvoidSubcommands),
            )
    except SystemExit as end:
        if end.code:
            command = f"{prog} {arguments[0]}" if arguments[0] in commands else prog
            print(f"{prog}: {_unboxed(boxed.getvalue())} ({command} --help says more)", file=sys.stderr)
            sys.exit(2)
        raise


def _unboxed(text: str) -> str:
    """Return what one of tyro's messages says as a line: a box, or plain text under a title and a rule."""
    lines = [line.strip("│ ") for line in text.splitlines() if not line.startswith(("╭", "╰"))]
    blocks = re.split(r"(?:^|\n)[-─]{5,}(?:\n|$)", "\n".join(lines))
    message = " ".join((blocks[0] if "╭" in text or len(blocks) == 1 else blocks[1]).split())
    return re.sub(r"^Error parsing __tyro\S*: ", "", message) or text
