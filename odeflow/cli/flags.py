"""Flags that follow from the network that learns and from its data: their fields, and the order parameters' initial values."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
import tyro

from odeflow.cli.data import DATA, MIXTURE
from odeflow.model import Adversary, Data, GaussianMixture, LearningRule
from odeflow.order_parameters import NETWORKS, Network, random_start
from odeflow.order_parameters.base import DEFAULT, OrderParameter
from odeflow.parameters import parameter_of

__all__ = ["CHOICES", "Learner", "chosen", "with_choices"]

_START_N = 1000


@dataclass(frozen=True)
class Learner:
    """What every command that learns begins with. `with_choices` adds the flags of the network and of the data."""

    mixture: GaussianMixture
    rule: LearningRule
    adversary: Adversary

    def parts(self) -> tuple[Data, LearningRule, Adversary]:
        """Return the data, the rule and the adversary that the flags describe."""
        given: Any = self
        return DATA[given.data].make(**_values(self.mixture)), LearningRule(**_values(self.rule)), self.adversary

    def learner(self) -> Network:
        """Return the network that the flags describe."""
        given: Any = self
        return NETWORKS[given.network](**_values(given.network_flags))

    def initial(self, N: int | None = None, runs: int | None = None) -> dict[str, Any]:
        """Return the initial values by name; those drawn at random of dimension N, and of each run if there are runs."""
        flags: Any = self
        mixture, rule, _ = self.parts()
        network, given = self.learner(), _values(flags.start_flags)
        size, start_N, seed = (given.pop(f"start_{name}", None) for name in ("size", "N", "seed"))
        found = {
            variable.start_name: _entries(variable, given[variable.start_name])
            for variable in network.starts(rule, mixture)
            if variable.start_name in given
        }
        if size is None:
            for name, value in (("start_N", start_N), ("start_seed", seed)):
                if value is not None:
                    raise ValueError(f"{name} = {value!r} has no meaning without start_size: leave it out")
            return found
        if seed is not None and seed < 0:
            raise ValueError(f"start_seed = {seed!r} is out of range: allowed is a whole number >= 0")
        if start_N is None:
            start_N = _START_N if N is None else N
        default = type(flags.start_flags)()
        for name, drawn in random_start(network, mixture, size=size, N=start_N, rng=seed, runs=runs).items():
            if given[f"{name}0"] != getattr(default, f"{name}0"):
                raise ValueError(f"start_size = {size!r} and {name}0 are both given: allowed is one of them")
            found[f"{name}0"] = drawn
        return found


def _values(flags: Any) -> dict[str, Any]:
    return {item.name: getattr(flags, item.name) for item in fields(flags)}


def _entries(variable: OrderParameter, given: Any) -> Any:
    """Return what the numbers of a flag stand for: one for all, or each entry."""
    if not variable.dims:
        return given
    if len(given) == 1:
        return given[0]
    if len(given) != variable.size:
        sizes = " x ".join(f"{size} ({dim})" for dim, size in zip(variable.dims, variable.sizes, strict=True))
        raise ValueError(
            f"{variable.start_name} has {len(given)} numbers: allowed is one, or {variable.size}: {sizes}, row by row"
        )
    return np.reshape(given, variable.sizes)


CHOICES: dict[str, tuple[str, ...]] = {"--network": tuple(NETWORKS), "--data": tuple(DATA)}
"""Flags that decide which others there are, and what they allow."""


def chosen(arguments: list[str]) -> tuple[str, str]:
    """Return the names after ``--network`` and ``--data``, which decide what other flags there are; the defaults if none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--network", default=DEFAULT)
    parser.add_argument("--data", default=MIXTURE)
    try:
        found = parser.parse_known_args(arguments)[0]
    except argparse.ArgumentError:
        return DEFAULT, MIXTURE
    return (
        found.network if found.network in NETWORKS else DEFAULT,
        found.data if found.data in DATA else MIXTURE,
    )


def with_choices(command: type[Learner], network: str, data: str, *, starts: bool = True) -> Any:
    """Return a command with the flags of one network and of one kind of data."""
    kind, known = NETWORKS[network], DATA[data]
    mixture = known.fields_of
    rule = _flags(LearningRule, {*kind.without, "factor"}, {})  # a function is no flag
    if known.without or known.names:
        mixture = _flags(known.fields_of, {*known.without}, known.names)
    elif data != MIXTURE:
        mixture = _flags(known.fields_of, set(), {})
    taken = {item.name for part in (rule, Adversary) for item in fields(part)}
    # a flag that the other parts have too gets the network's name; what once had it keeps it as a second name
    names = {item.name: f"{network}-{item.name}" for item in fields(kind) if item.name in taken}  # type: ignore[arg-type]
    aliases = {name: f"--{network}-{name}" for name in kind.without}
    more: list[Any] = [
        ("mixture", mixture),
        ("rule", rule),
        ("network", _choice(NETWORKS, "What learns. The other networks have other flags."), field(default=network)),
        ("data", _choice(DATA, "What is learned from. Other data have other flags."), field(default=data)),
    ]
    for name, flags in (
        ("network_flags", _flags(kind, set(), names, aliases)),
        ("start_flags", _start_flags(kind, known.like) if starts else make_dataclass("start", (), frozen=True)),
    ):
        flags.__doc__ = ""
        more.append((name, flags, field(default_factory=flags)))
    made = make_dataclass(command.__name__, more, bases=(command,), frozen=True)
    made.__doc__ = command.__doc__
    return made


def _choice(names: Iterable[str], text: str) -> Any:
    literal: Any = Literal
    annotated: Any = Annotated
    return annotated[literal[tuple(names)], tyro.conf.arg(help=text)]


def _flags(kind: Any, without: set[str], names: Mapping[str, str], aliases: Mapping[str, str] | None = None) -> Any:
    """Return a dataclass with the fields of another; those that may be arrays are lists of numbers."""
    hints, texts = get_type_hints(kind), parameter_of(kind)
    flags: list[Any] = []
    for item in fields(kind):
        if item.name in without:
            continue
        assert item.default is not MISSING
        alias = (aliases or {}).get(item.name)
        about = tyro.conf.arg(
            name=names.get(item.name), help=str(texts[item.name]), aliases=[alias] if alias is not None else None
        )
        hint = hints[item.name]
        flags.append(
            (
                item.name,
                Annotated[tuple[float, ...] | None if hint is Any else hint, about],
                field(default=item.default),
            )
        )
    made = make_dataclass(kind.__name__, flags, frozen=True)
    made.__doc__ = (kind.__doc__ or "").partition("\n\n")[0]
    return made


def _start_flags(kind: type[Network], mixture: Data) -> Any:
    flags: list[Any] = []
    for variable in kind().starts(LearningRule(), mixture):
        where = "" if str(variable.range) == "finite" else f", {variable.range}"
        text = f"Initial {variable.label}{where}."
        hint: Any = float
        default: Any = variable.start
        if variable.dims:
            hint, default = tuple[float, ...], (variable.start,)
            text += (
                f" One number{' on the diagonal' if variable.diagonal else ', the same of all'}, or each, row by row."
            )
        flags.append((variable.start_name, Annotated[hint, tyro.conf.arg(help=text)], field(default=default)))
    if kind.random_starts:
        for name, kind_of, text in (
            ("start_size", float, "Draw the weights' initial overlaps at random, of weights of this length, > 0."),
            ("start_N", int, f"Dimension in which they are drawn; default: N of a simulation, else {_START_N}."),
            ("start_seed", int, "Seed of the drawing, >= 0; default: fresh. The result has what was drawn."),
        ):
            flags.append((name, Annotated[kind_of | None, tyro.conf.arg(help=text)], field(default=None)))
    return make_dataclass("start", flags, frozen=True)
