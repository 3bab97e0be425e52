"""Command line ``deepcheck``: `COMMANDS`. Its flags are generated from dataclasses."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import sys
from typing import Annotated, Any

import tyro

from deepcheck.checks import CheckpointError
from deepcheck.commands.attack_flags import DEFAULT, command_of, named_attack
from deepcheck.commands.corrupt import Corrupt
from deepcheck.commands.defences import Defences
from deepcheck.commands.distal import Distal
from deepcheck.commands.evaluate import Evaluate
from deepcheck.commands.explain import Explain
from deepcheck.commands.export import Export
from deepcheck.commands.generator import Generator
from deepcheck.commands.methods import Methods
from deepcheck.commands.separation import Separation
from deepcheck.commands.train import Train
from deepcheck.data import DataError
from deepcheck.generators.recipe import RECIPES as GENERATORS
from deepcheck.training.recipe import DEFAULTS, METHODS, recipe
from odeflow.cli.parsing import parsed
from odeflow.cli.program import run
from odeflow.provenance import SaveError, package_version

__all__ = ["main"]

COMMANDS = (
    "train",
    "export",
    "attack",
    "evaluate",
    "corrupt",
    "distal",
    "separation",
    "explain",
    "generator",
    "methods",
    "defences",
)

EXAMPLES = {
    "": (
        "train mnist at",
        "evaluate runs/mnist_at --out records.nc",
        "--tyro-print-completion bash > ~/.local/share/bash-completion/completions/deepcheck  (or zsh, tcsh)",
    ),
    "train": (
        "train mnist at",
        "train digits ccat --epochs 5 --out runs/try",
        "train cifar10 at --model preact_resnet18 --device cuda --resume",
        "train mnist at --help  (the settings of a method)",
        "train cifar10 at --out small --resume  (from weights that deepcheck export has left, say)",
    ),
    "export": (
        "export runs/cifar10_at --out small",
        "export runs/cifar10_at --out small --dtype float32 --most 8",
    ),
    "attack": (
        "attack --list",
        "attack runs/mnist_at --norm l2 --epsilon 1 2 --steps 100 --restarts 5",
        "attack runs/mnist_at --attack square --epsilon 0.3 --queries 500",
        "attack --attack square --help  (the flags of an attack)",
        "attack runs/mnist_at --attack deepfool --norm l2 --epsilon 1 2 --pictures deepfool.pdf",
        "attack runs/mnist_standard --defence resize_pad --defence-option passes=10",
        "attack --model package.module:factory --dataset cifar10 --epsilon 0.0314",
    ),
    "evaluate": (
        "evaluate runs/mnist_at --out records.nc --plot attacks.pdf",
        "evaluate runs/mnist_at --suite standard --epsilon 0.3 --state state --entry mnist_at.json",
        "evaluate runs/mnist_standard --defence jpeg --suite standard",
        "evaluate runs/mnist_at --suite linf --examples 200 --steps 200 --restarts 2",
    ),
    "corrupt": (
        "corrupt --list",
        "corrupt runs/mnist_at --out at.nc --baseline standard.nc",
        "corrupt runs/mnist_at --corruptions fog contrast brightness --severities 1 3 5 --pictures corrupted.pdf",
        "corrupt runs/mnist_at --corruptions all --plot corruptions.pdf",
    ),
    "distal": ("distal runs/mnist_at --plot distal.pdf", "distal runs/mnist_at --epsilon 0.3 --count 200"),
    "separation": (
        "separation runs/mnist_at --delta 0.1 0.2 0.3",
        "separation runs/mnist_at --level 0.9 0.99 --examples 100 --starts 2 --steps 20 --out separation.nc",
        "separation runs/mnist_standard --defence median --norm linf --delta 0.1",
    ),
    "generator": (
        "generator --dataset mnist --out runs/mnist_generator",
        "generator --dataset digits --pictures made.pdf",
        "generator --dataset mnist --out runs/mnist_generator --resume",
    ),
    "explain": (
        "explain runs/mnist_ig_norm --epsilon 0.3 --pictures maps.png",
        "explain runs/mnist_at --map saliency --k 50 --examples 500 --steps 100 --restarts 2 --out maps.nc",
    ),
    "methods": ("methods",),
    "defences": ("defences",),
}
"""What the help of each command ends with."""

AGAIN = "; the last whole epoch, if there was one, is saved: run the same command with --resume"


def named(arguments: list[str]) -> list[str]:
    """Return the arguments with the words that follow `train` as its data set and method: `train mnist at`.

    Raises
    ------
    ValueError
        If there are more than two of them, or one is given by its flag too.
    """
    if arguments[:1] != ["train"]:
        return arguments
    words = list(itertools.takewhile(lambda one: not one.startswith("-"), arguments[1:]))
    rest = arguments[1 + len(words) :]
    if len(words) > 2:
        raise ValueError(f"train {' '.join(words)}: allowed are a data set and a method, as in train mnist at")
    flags = []
    for flag, word in zip(("--dataset", "--method"), words, strict=False):
        if any(one.split("=")[0] == flag for one in rest):
            raise ValueError(f"train {' '.join(words)} with {flag} is not allowed: one of the two is")
        flags += [flag, word]
    return [arguments[0], *flags, *rest]


def types_of(arguments: list[str]) -> Any:
    """Return the commands; the flags of `train` and their defaults are the recipe of its data set and method."""
    train, generator = Train(), Generator()
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--dataset", choices=DEFAULTS, default=train.dataset)
    first.add_argument("--method", choices=METHODS, default=train.method)
    with contextlib.suppress(argparse.ArgumentError):  # the real parser will say what is wrong
        chosen, _ = first.parse_known_args(arguments)
        train = Train(recipe(chosen.dataset, chosen.method), chosen.dataset, chosen.method)
        if chosen.dataset in GENERATORS:
            generator = Generator(GENERATORS[chosen.dataset], chosen.dataset)
    if arguments[:1] == ["train"]:
        _check_settings(arguments, train.method)
    attack = command_of(named_attack(arguments) if arguments[:1] == ["attack"] else DEFAULT)
    return (
        Annotated[Train, tyro.conf.subcommand("train", default=train)]
        | Annotated[Export, tyro.conf.subcommand("export")]
        | Annotated[attack, tyro.conf.subcommand("attack")]
        | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
        | Annotated[Corrupt, tyro.conf.subcommand("corrupt")]
        | Annotated[Distal, tyro.conf.subcommand("distal")]
        | Annotated[Separation, tyro.conf.subcommand("separation")]
        | Annotated[Generator, tyro.conf.subcommand("generator", default=generator)]
        | Annotated[Explain, tyro.conf.subcommand("explain")]
        | Annotated[Methods, tyro.conf.subcommand("methods")]
        | Annotated[Defences, tyro.conf.subcommand("defences")]
    )


def _elsewhere(arguments: list[str]) -> dict[str, Any]:
    """Return the commands with the flags of each of the other attacks, by how it is named."""
    if arguments[:1] != ["attack"]:
        return {}
    from deepcheck.attacks.registry import ATTACKS

    others = (name for name in ATTACKS if name != named_attack(arguments))
    return {f"--attack {name}": types_of(["attack", "--attack", name]) for name in others}


def _check_settings(arguments: list[str], method: str) -> None:
    """Raise a ValueError if there is a flag of another method."""
    for argument in arguments:
        name = argument.split("=")[0].removeprefix("--").replace("-", "_")
        owners = [one for one, kind in METHODS.items() if name in kind.settings()] if argument[:2] == "--" else []
        if owners and method not in owners:
            raise ValueError(f"method = {method!r} has no setting {name}: it belongs to {', '.join(owners)}")


def main(arguments: list[str] | None = None) -> int:
    """Run ``deepcheck`` and return its exit status: 0 done, 1 a computation, save or check failed, 2 bad input."""
    given = sys.argv[1:] if arguments is None else arguments
    return run(
        "deepcheck",
        lambda: _work(given),
        failures=(SaveError, DataError),
        refusals=(CheckpointError,),
        interrupted=lambda _: "interrupted" + (AGAIN if given[:1] == ["train"] else ""),
    )


def _work(arguments: list[str]) -> int:
    if arguments == ["--version"]:
        print(f"deepcheck {package_version()}")
        return 0
    arguments = named(arguments)
    command = parsed(
        types_of(arguments),
        arguments,
        prog="deepcheck",
        commands=COMMANDS,
        description="Deep nets under attack, to be held against the theory. deepcheck --version prints the version.",
        examples=EXAMPLES,
        elsewhere=lambda: _elsewhere(arguments),
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    status: int = command.run()
    return status


if __name__ == "__main__":
    sys.exit(main())
