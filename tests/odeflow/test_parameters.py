"""Parameters are described once: the table feeds checks, docstrings, labels, and old module paths lead to the new ones."""

import importlib
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import odeflow
from odeflow import Adversary, Committee, GaussianMixture, LearningRule
from odeflow._moved import MOVED
from odeflow.parameters import LABELS, Range, a, checked, described, number, parameter_of

PARTS: list[Any] = [GaussianMixture, LearningRule, Adversary, Committee]
WITH = {"beta": {"surrogate": "trades"}}  # what a field is a part of


@pytest.mark.parametrize("part", PARTS)
def test_every_field_has_a_range_or_choices_that_its_checks_hold_to(part: Any) -> None:
    for name, parameter in parameter_of(part).items():
        if parameter.range is None:
            continue
        low, high = max(parameter.range.above, parameter.range.least), min(parameter.range.below, parameter.range.most)
        for bound, inside in ((low, parameter.range.least == low), (high, parameter.range.most == high)):
            if math.isfinite(bound) and inside:
                assert getattr(part(**{name: bound}, **WITH.get(name, {})), name) == bound
            elif math.isfinite(bound):
                with pytest.raises(ValueError, match=f"{name} = .* is out of range: allowed is a finite number"):
                    part(**{name: bound})
        with pytest.raises(ValueError, match=f"{name} = inf is out of range"):
            part(**{name: math.inf})
        with pytest.raises(TypeError, match=f"{name} = 'wide' is not a number"):
            part(**{name: "wide"})


@pytest.mark.parametrize("part", PARTS)
def test_the_docstring_and_the_labels_come_from_the_table(part: Any) -> None:
    for field in fields(part):
        parameter = parameter_of(part)[field.name]
        assert f"{field.name}\n    {parameter}\n" in f"{part.__doc__}\n"
        assert LABELS[field.name][0]
        if parameter.range is not None:
            assert parameter.symbol


def test_a_new_field_is_checked_described_and_labelled_by_one_line() -> None:
    @described
    @dataclass(frozen=True)
    class Part:
        """A part.

        Raises
        ------
        ValueError
            Sometimes.
        """

        reach: float = number(0.5, "how far it goes", "r", above=0, most=1)

        def __post_init__(self) -> None:
            checked(self)

    try:
        assert "reach\n    How far it goes, in (0, 1].\n\nRaises\n" in str(Part.__doc__)
        assert LABELS["reach"] == ("how far it goes", "r")
        with pytest.raises(
            ValueError, match=r"reach = 2\.0 is out of range: allowed is a finite number and > 0 and <= 1"
        ):
            Part(2)
    finally:
        del LABELS["reach"]


@pytest.mark.parametrize(
    ("interval", "text", "inside", "outside"),
    [
        (Range(above=0), "> 0", [1e-9, 5.0], [0.0, -1.0, math.inf, math.nan]),
        (Range(least=0, most=1), "in [0, 1]", [0.0, 1.0], [-1e-9, 1.1]),
        (Range(above=0, below=1), "in (0, 1)", [0.5], [0.0, 1.0]),
        (Range(), "finite", [-1e300, 0.0], [math.inf, math.nan]),
        (Range(most=3), "<= 3", [3.0], [3.1]),
    ],
)
def test_ranges(interval: Range, text: str, inside: list[float], outside: list[float]) -> None:
    assert str(interval) == text
    assert np.all(interval.contains(inside))
    assert not np.any(interval.contains(outside))


@pytest.mark.parametrize("old", MOVED)
def test_old_paths_lead_to_the_same_modules(old: str) -> None:
    module = importlib.import_module(f"odeflow.{old}")
    new = importlib.import_module(f"odeflow.{MOVED[old]}")
    assert module is new
    assert new.__spec__ is not None
    assert new.__spec__.name == new.__name__ == f"odeflow.{MOVED[old]}"
    assert getattr(odeflow, old) is new or callable(getattr(odeflow, old))


def test_articles() -> None:
    """Nothing says "a Adversary": a name that is filled in has its article from the one function."""
    assert (a("Adversary"), a("Committee"), a("int"), a("ndarray")) == (
        "an Adversary",
        "a Committee",
        "an int",
        "a ndarray",
    )
    root = Path(odeflow.__file__).parents[1]
    files = [path for package in ("odeflow", "deepcheck", "studies") for path in (root / package).rglob("*.py")]
    bare = [str(path) for path in files if re.search(r"\ban? \{[^}]*__name__", path.read_text(encoding="utf-8"))]
    assert not bare
    with pytest.raises(TypeError, match="allowed is an Adversary"):
        odeflow.integrate(odeflow.GaussianMixture(), odeflow.LearningRule(), 1.0, alpha=[1.0])  # type: ignore[arg-type]
