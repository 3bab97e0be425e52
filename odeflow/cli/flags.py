"""Flags that follow from the network that learns: its own fields, and the initial values of its order parameters."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable
from dataclasses import MISSING, dataclass, field, fields, make_dataclass
from typing import Annotated, Any, Literal, get_type_hints

import tyro

from odeflow.model import Adversary, GaussianMixture, LearningRule
from odeflow.order_parameters import NETWORKS, Network
from odeflow.order_parameters.base import DEFAULT, OrderParameter
from odeflow.parameters import parameter_of

__all__ = ["Learner", "chosen_network", "with_network"]


@dataclass(frozen=True)
class Learner:
    """What every command that learns begins with. `with_network` adds the flags of the network."""

    mixture: GaussianMixture
    rule: LearningRule
    adversary: Adversary

    def learner(self) -> Network:
        """Return the network that the flags describe."""
        given: Any = self
        kind = NETWORKS[given.network]
        return kind(**{item.name: getattr(given.network_flags, item.name) for item in fields(kind)})  # type: ignore[arg-type]

    def initial(self) -> dict[str, Any]:
        """Return the initial values by name."""
        given: Any = self
        return {item.name: getattr(given.start_flags, item.name) for item in fields(given.start_flags)}


def chosen_network(arguments: list[str]) -> str:
    """Return the name after ``--network``, which decides what other flags there are; the default's if it is none."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--network", default=DEFAULT)
    try:
        name: str = parser.parse_known_args(arguments)[0].network
    except argparse.ArgumentError:
        return DEFAULT
    return name if name in NETWORKS else DEFAULT


def with_network(command: type[Learner], name: str, *, starts: bool = True) -> Any:
    """Return a command with the flags of one network."""
    kind = NETWORKS[name]
    literal: Any = Literal
    annotated: Any = Annotated
    about = tyro.conf.arg(help="What learns. The other networks have other flags.")
    choice = annotated[literal[tuple(NETWORKS)], about]
    more: list[Any] = [("network", choice, field(default=name))]
    network_flags = _network_flags(kind, {item.name for part in (LearningRule, Adversary) for item in fields(part)})
    more.append(("network_flags", network_flags, field(default_factory=network_flags)))
    start_flags = _start_flags(kind().starts(LearningRule()) if starts else ())
    more.append(("start_flags", start_flags, field(default_factory=start_flags)))
    made = make_dataclass(command.__name__, more, bases=(command,), frozen=True)
    made.__doc__ = command.__doc__
    return made


def _network_flags(kind: type[Network], taken: set[str]) -> Any:
    """Return a dataclass with the network's fields; a flag that the other parts have too gets the network's name."""
    hints, texts = get_type_hints(kind), parameter_of(kind)
    flags: list[Any] = []
    for item in fields(kind):  # type: ignore[arg-type]
        assert item.default is not MISSING
        name = f"{kind().name}-{item.name}" if item.name in taken else None
        about = tyro.conf.arg(name=name, help=str(texts[item.name]))
        flags.append((item.name, Annotated[hints[item.name], about], field(default=item.default)))
    return make_dataclass("network", flags, frozen=True, namespace={"__doc__": ""})


def _start_flags(variables: Iterable[OrderParameter]) -> Any:
    flags: list[Any] = []
    for variable in variables:
        where = "" if str(variable.range) == "finite" else f", {variable.range}"
        text = f"Initial {variable.label}{where}." + (" The same of all." if math.prod(variable.sizes) > 1 else "")
        about = tyro.conf.arg(help=text)
        flags.append((variable.start_name, Annotated[float, about], field(default=variable.start)))
    return make_dataclass("start", flags, frozen=True, namespace={"__doc__": ""})
