"""The card of the defences: whole in its quick form on a CPU, and going on where it stopped."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from benchmarks.cuda.card import Work
from benchmarks.cuda.cards import card, defences_cifar10
from odeflow import load as load_result
from studies.defences import attempts
from studies.defences.measure import attacked
from studies.defences.plan import COLUMNS, setting_of, subjects

FEW = ("standard", "at", "gaussian_noise")


def _done(out: Path, seconds: float = 1000.0) -> dict[str, Any]:
    file = out / "defences_cifar10.json"
    earlier = json.loads(file.read_text())["found"] if file.exists() else None
    one = card("defences_cifar10")
    one.run(Work(one, torch.device("cpu"), seconds, out, quick=True, earlier=earlier))
    said: dict[str, Any] = json.loads(file.read_text())
    return said


@pytest.fixture
def met(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Count the attacks that are run, on a few subjects."""
    monkeypatch.setattr(defences_cifar10, "ORDER", FEW)
    counted = Mock(wraps=attacked, __module__=attacked.__module__)
    monkeypatch.setattr(attempts, "attacked", counted)
    torch.set_num_threads(1)
    return counted


@pytest.mark.slow
def test_it_attacks_each_subject_and_nothing_twice(tmp_path: Path, met: Mock) -> None:
    first = _done(tmp_path)
    found = first["found"]
    assert first["complete"]
    assert [row["subject"] for row in found["subjects"]] == list(FEW)
    assert len(found["nets"]) == 2
    assert met.call_count == 4 * len(FEW)
    for row in found["subjects"]:
        shares = [row[column] for column in ("accuracy", *COLUMNS)]
        assert shares == sorted(shares, reverse=True)
        assert row["gap"] == pytest.approx(row["claimed"] - row["adaptive"])
    assert [one["at_least"] for one in found["aims"]] == [defences_cifar10.AIMS["at"][1]]
    for one in found["aims"]:
        assert one["held"] == (one["found"] >= one["at_least"])
    assert (tmp_path / "defences_cifar10.png").stat().st_size > 1000
    assert load_result(tmp_path / "defences_cifar10.nc").sizes["subject"] == len(FEW)
    second = _done(tmp_path)
    assert met.call_count == 4 * len(FEW)
    assert second["found"]["subjects"] == found["subjects"]


@pytest.mark.slow
def test_without_time_it_says_what_is_missing(tmp_path: Path, met: Mock) -> None:
    said = _done(tmp_path, seconds=-1.0)
    assert not said["complete"]
    assert said["found"]["missing"] == list(FEW)
    assert met.call_count == 0


def test_the_order_has_the_subjects_of_the_study_and_the_aims_are_among_them() -> None:
    every = {subject.name for subject in subjects()}
    assert every - set(defences_cifar10.ORDER) == {"defense_gan", "ig_norm", "ig_sum_norm"}
    assert set(defences_cifar10.ORDER) <= every
    assert set(defences_cifar10.AIMS) <= set(defences_cifar10.ORDER)
    setting = setting_of("cifar10", quick=False)
    for subject in defences_cifar10.planned():
        recipe = setting.recipe_of(subject)
        assert (recipe.model, recipe.precision) == ("preact_resnet18", "bfloat16")
        assert subject.effort in setting.efforts
