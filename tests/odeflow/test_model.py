"""The dataclasses refuse what the model does not allow, and say what they allow."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from odeflow import Adversary, GaussianMixture, LearningRule


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        (GaussianMixture, "p", 1.2),
        (GaussianMixture, "p", 0.0),
        (GaussianMixture, "p", 1.0),
        (GaussianMixture, "rho", -0.1),
        (GaussianMixture, "v1", 0.0),
        (GaussianMixture, "v2", -1.0),
        (GaussianMixture, "rho", math.inf),
        (LearningRule, "eta_w", -0.1),
        (LearningRule, "eta_b", -0.2),
        (Adversary, "epsilon", math.nan),
        (Adversary, "epsilon", -1.0),
        (Adversary, "fraction", 1.5),
    ],
)
def test_out_of_range(part: Any, field: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{field} = {value!r} is out of range: allowed is a finite number"):
        part(**{field: value})


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        (GaussianMixture, "p", "0.5"),
        (GaussianMixture, "rho", None),
        (LearningRule, "eta_w", [0.1, 0.2]),
        (LearningRule, "eta_w", np.array([0.1, 0.2])),
        (LearningRule, "second_order", 1),
        (Adversary, "epsilon", True),
        (Adversary, "law", "uniform"),
        (LearningRule, "normalised", 0),
    ],
)
def test_wrong_type(part: Any, field: str, value: object) -> None:
    with pytest.raises(TypeError, match=field):
        part(**{field: value})


def test_numbers_become_floats_and_fields_are_frozen() -> None:
    mixture = GaussianMixture(p=np.float32(0.5), rho=2)  # type: ignore[arg-type]
    assert mixture == GaussianMixture()
    assert isinstance(mixture.rho, float)
    with pytest.raises(dataclasses.FrozenInstanceError):
        mixture.p = 0.3  # type: ignore[misc]


def test_defaults_are_scenario_1() -> None:
    assert repr(GaussianMixture()) == "GaussianMixture(p=0.5, rho=2.0, v1=1.0, v2=1.0)"
    assert LearningRule() == LearningRule(0.04, 0.2, True, "squared", "erf", "all", True)
    assert Adversary() == Adversary(epsilon=0.0, fraction=1.0, law=None)


def test_unknown_kinds_of_rules() -> None:
    with pytest.raises(ValueError, match="loss = 'cubic' is unknown: allowed is one of squared, hinge"):
        LearningRule(loss="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="activation = 'relu'"):
        LearningRule(activation="relu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="update = 'some'"):
        LearningRule(update="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="activation = 'sign' with loss = 'hinge'"):
        LearningRule(loss="hinge", activation="sign")
