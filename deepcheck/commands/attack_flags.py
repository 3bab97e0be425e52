"""The flags of an attack: its options, with the text that stands below each in its class."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import typing
from typing import Annotated, Any

import tyro

from deepcheck.commands.attack import Attack, PGDAttack

__all__ = ["DEFAULT", "command_of", "named_attack"]

DEFAULT = "pgd"
"""The attack whose flags are there without --attack."""
_SIMPLE: tuple[Any, ...] = (bool, int, float, str)


def named_attack(arguments: list[str]) -> str:
    """Return the attack that the arguments name by --attack NAME or --attack=NAME."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == "--attack":
            return following
        if argument.startswith("--attack="):
            return argument.partition("=")[2]
    return DEFAULT


def command_of(name: str) -> type[Attack]:
    """Return the command with the flags of an attack; of a name that is none, as without --attack.

    Those of the attack that is the default are written down, so that the help needs no torch.
    """
    if name == DEFAULT:
        return PGDAttack
    from deepcheck.attacks import registry

    return _made(name) if name in registry.ATTACKS else PGDAttack


@functools.cache
def _made(name: str) -> type[Attack]:
    """Return a subclass of the command that has a field for each option of the attack that a word can set."""
    from deepcheck.attacks import registry

    maker = registry.ATTACKS[name]
    kinds = typing.get_type_hints(maker)
    texts = _texts(maker if inspect.isclass(maker) else kinds["return"])
    fields: list[tuple[str, Any, Any]] = []
    for option, default in registry.options_of(name).items():
        kind = _of_a_word(kinds.get(option), default)
        if kind is None:
            continue
        about = texts.get(option, "")
        value = default if isinstance(default, (*_SIMPLE, type(None))) else getattr(default, "name", None)
        fields.append((option, Annotated[kind, tyro.conf.arg(help=about)], dataclasses.field(default=value)))
    usual = dataclasses.field(default=registry.norms_of(name)[0])
    norm = ("norm", Annotated[str, tyro.conf.arg(help=f"Norm: {', '.join(registry.norms_of(name))}.")], usual)
    made: type[Attack] = dataclasses.make_dataclass(
        "Attack", [*fields, norm, ("attack", str, dataclasses.field(default=name))], bases=(Attack,), frozen=True
    )
    made.__doc__ = inspect.getdoc(maker)
    return made


def _of_a_word(kind: Any, default: Any) -> Any | None:
    """Return the type that a flag has for an option of this type, or None where no word can set it."""
    if kind in _SIMPLE:
        return kind
    if typing.get_origin(kind) is typing.Literal:
        return kind
    parts = [one for one in typing.get_args(kind) if one is not type(None)]
    optional = len(parts) < len(typing.get_args(kind))
    if optional and len(parts) == 1 and (parts[0] in _SIMPLE or typing.get_origin(parts[0]) is typing.Literal):
        return parts[0] | None
    if str in parts and (isinstance(default, str) or hasattr(default, "name")):
        return str  # by name, such as an objective
    return None


def _texts(kind: Any) -> dict[str, str]:
    """Return the text below each field in the source of a class and of those that it is made from."""
    texts: dict[str, str] = {}
    for one in reversed(inspect.getmro(kind)):
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        except (OSError, TypeError, SyntaxError):
            continue
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for first, second in itertools.pairwise(body):
            if isinstance(first, ast.AnnAssign) and isinstance(first.target, ast.Name):
                value = second.value if isinstance(second, ast.Expr) else None
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    texts[first.target.id] = " ".join(value.value.split())
    return texts
