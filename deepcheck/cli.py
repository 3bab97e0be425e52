"""Command line ``deepcheck``: train, attack, evaluate, distal, methods. Its flags are generated from dataclasses."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
from typing import Annotated, Any

import tyro

from deepcheck.commands.attack import Attack
from deepcheck.commands.distal import Distal
from deepcheck.commands.evaluate import Evaluate
from deepcheck.commands.methods import Methods
from deepcheck.commands.train import Train
from deepcheck.training.recipe import DEFAULTS, METHODS, recipe
from odeflow.cli.parsing import parsed
from odeflow.provenance import SaveError, package_version

__all__ = ["main"]

COMMANDS = ("train", "attack", "evaluate", "distal", "methods")


def _commands(arguments: list[str]) -> Any:
    """Return the commands; the flags of `train` and their defaults are the recipe of its data set and method."""
    train = Train()
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--dataset", choices=DEFAULTS, default=train.dataset)
    first.add_argument("--method", choices=METHODS, default=train.method)
    with contextlib.suppress(argparse.ArgumentError):  # the real parser will say what is wrong
        chosen, _ = first.parse_known_args(arguments)
        train = Train(recipe(chosen.dataset, chosen.method), chosen.dataset, chosen.method)
    if arguments[:1] == ["train"]:
        _check_settings(arguments, train.method)
    return (
        Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Attack, tyro.conf.subcommand("attack")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Distal, tyro.conf.subcommand("distal")]
        | Annotated[Methods, tyro.conf.subcommand("methods")]
    )


def _check_settings(arguments: list[str], method: str) -> None:
    """Raise a ValueError if there is a flag of another method."""
    for argument in arguments:
        name = argument.split("=")[0].removeprefix("--").replace("-", "_")
        owners = [one for one, kind in METHODS.items() if name in kind.settings()] if argument[:2] == "--" else []
        if owners and method not in owners:
            raise ValueError(f"method = {method!r} has no setting {name}: it belongs to {', '.join(owners)}")


def main(arguments: list[str] | None = None) -> int:
    """Run ``deepcheck`` and return its exit status: 0 done, 1 a computation, save or check failed, 2 bad input."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"deepcheck {package_version()}")
        return 0
    description = "Deep nets under attack, to be held against the theory. deepcheck --version prints the version."
    try:
        commands = _commands(arguments)
    except ValueError as error:
        return _fail(error, 2)
    command = parsed(commands, arguments, prog="deepcheck", commands=COMMANDS, description=description)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    from deepcheck.checkpoint import CheckpointError
    from deepcheck.data import DataError

    try:
        status: int = command.run()
        sys.stdout.flush()
    except (SaveError, DataError, MemoryError) as error:
        return _fail(error, 1)
    except (CheckpointError, ValueError, TypeError, FileNotFoundError, PermissionError, ImportError) as error:
        return _fail(error, 2)
    except KeyboardInterrupt:
        again = (
            "; the last whole epoch, if there was one, is saved: run the same command with --resume"
            if isinstance(command, Train)
            else ""
        )
        return _fail(f"interrupted{again}", 1)
    except BrokenPipeError:  # nobody reads what is printed, as with `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return status


def _fail(message: object, status: int) -> int:
    print(f"deepcheck: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
