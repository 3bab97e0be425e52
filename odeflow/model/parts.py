"""What is asked of the parts of a model together: whether they are what their names say, and their fields by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from odeflow.model.adversary import Adversary
from odeflow.model.clusters import GaussianClusters
from odeflow.model.mixture import GaussianMixture
from odeflow.model.rule import LearningRule
from odeflow.model.teacher import TeacherStudent
from odeflow.parameters import a, parameter_of
from odeflow.schedule import schedules_of

__all__ = ["COMMON", "Data", "check_constant", "check_known", "check_parts", "numeric_parameters", "parameters"]

Data = GaussianMixture | GaussianClusters | TeacherStudent
"""What a network may learn from: each says which of these it knows."""


COMMON = frozenset(
    {
        "eta_w", "eta_b", "second_order", "loss", "activation", "update", "normalised",
        "epsilon", "fraction", "law", "norm", "attack", "attack_steps", "attack_step",
    }
)  # fmt: skip
"""Fields of rule and adversary that are not the perceptron's alone: of these each says itself what it allows."""


def check_known(who: str, *parts: object, points: Mapping[str, Any] | None = None) -> None:
    """Raise a ValueError if a field that is the perceptron's alone does not have its default, for all others who learn.

    Parameters
    ----------
    who
        Who learns, for the message.
    *parts
        Rule and adversary.
    points
        Fields by name, or arrays of them, that stand instead of those of the parts.
    """
    owners = parts or (LearningRule, Adversary)
    for owner in owners:
        for field in fields(owner):  # type: ignore[arg-type]
            value = getattr(owner, field.name) if points is None else points.get(field.name, field.default)
            assert field.default is not MISSING
            if field.name not in COMMON and not (value is field.default or np.all(value == field.default)):
                bad = np.asarray(value)[np.asarray(value) != field.default].flat[0] if np.ndim(value) else value
                raise ValueError(
                    f"{field.name} = {bad!r}: allowed for {who} is {field.default!r}, its default; the perceptron of the seed's "
                    "mixture knows others"
                )
            if field.name == "attack" and value == "blind":
                raise ValueError(f"attack = 'blind': allowed for {who} are the others; it is the perceptron's alone")


def check_parts(*, data: tuple[type, ...] = (GaussianMixture,), schedules: bool = False, **parts: object) -> None:
    """Raise a TypeError if an argument named mixture, rule or adversary is not what its name says.

    `data` are the kinds of data that are allowed as `mixture`; `schedules` says whether parameters may change with time.
    """
    kinds = {"mixture": data, "rule": (LearningRule,), "adversary": (Adversary,)}
    for name, part in parts.items():
        if not isinstance(part, kinds[name]):
            allowed = " or ".join(a(kind.__name__) for kind in kinds[name])
            hint = "; for this one there is odeflow.anisotropic" if type(part).__name__ == "Mixture" else ""
            if isinstance(part, Data):
                hint = "; for this one there is network=Committee(...)"
            raise TypeError(f"{name} = {part!r} is of the wrong type: allowed is {allowed}{hint}")
        if not schedules:
            check_constant(part)
        if isinstance(part, Adversary) and part.norm != "l2":
            raise ValueError(
                f"norm = {part.norm!r}: allowed is 'l2', because the seed model's data have no axes; "
                "odeflow.anisotropic has both"
            )


def check_constant(*parts: object) -> None:
    """Raise a ValueError if a parameter of some parts changes with learning time."""
    for name, schedule in schedules_of(*parts).items():
        raise ValueError(
            f"{name} = {schedule!r}: allowed here is a number, because this is a property of one right-hand side; "
            "odeflow.schedule.at_time gives the parts at one time"
        )


def parameters(*parts: Any) -> dict[str, Any]:
    """Return the fields of some parts of the model by name, in order."""
    return {field.name: getattr(part, field.name) for part in parts for field in fields(part)}


def numeric_parameters(*parts: Any) -> dict[str, float]:
    """Return those fields that are numbers: the ones that stand as coordinates in a result."""
    return {
        name: getattr(part, name)
        for part in parts
        for name, parameter in parameter_of(part).items()
        if parameter.range is not None
    }
