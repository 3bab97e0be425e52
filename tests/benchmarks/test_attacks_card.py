"""The card of all attacks: whole in its quick form on a CPU, on the net of another card, and going on where it stopped."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from benchmarks.cuda.card import Work
from benchmarks.cuda.cards import attacks_cifar10, card
from deepcheck import checkpoint
from deepcheck.attacks import registry
from deepcheck.data import load
from deepcheck.models import build
from odeflow import load as load_result
from studies.attacks import study
from studies.attacks.measure import measured
from studies.attacks.plan import cases, setting_of

FEW = ("fgsm", "pgd", "deepfool", "square", "rotation")


def _net_of_the_other_card(out: Path) -> None:
    """Write what the card at_cifar10 leaves of its net, here a linear one."""
    images = load("digits")
    network = build("linear", 10, images.shape, generator=torch.Generator().manual_seed(0))
    checkpoint.write_shards(out / "at_cifar10_net", network, {"finished": True})


def _done(out: Path, seconds: float = 1000.0) -> dict[str, Any]:
    file = out / "attacks_cifar10.json"
    earlier = json.loads(file.read_text())["found"] if file.exists() else None
    one = card("attacks_cifar10")
    one.run(Work(one, torch.device("cpu"), seconds, out, quick=True, earlier=earlier))
    said: dict[str, Any] = json.loads(file.read_text())
    return said


@pytest.fixture
def attacked(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Count the attacks that are run, of a few."""
    monkeypatch.setattr(registry, "ATTACKS", {name: registry.ATTACKS[name] for name in FEW})
    counted = Mock(wraps=measured, __module__=measured.__module__)
    monkeypatch.setattr(study, "measured", counted)
    torch.set_num_threads(1)
    return counted


@pytest.mark.slow
def test_it_attacks_the_net_that_is_there_and_no_attack_twice(tmp_path: Path, attacked: Mock) -> None:
    _net_of_the_other_card(tmp_path)
    first = _done(tmp_path)
    found = first["found"]
    assert first["complete"]
    assert first["notes"] == ["the net is that of the card at_cifar10"]
    assert {row["attack"] for row in found["attacks"]} == {*FEW, "pgd_confidence"}
    assert attacked.call_count == len(FEW) + 1
    kinds = [row["kind"] for row in found["attacks"]]
    assert kinds[-1] == "by queries"
    assert all(row["seconds"] > 0 and 0 <= row["robust_accuracy"] <= 1 for row in found["attacks"])
    assert max(row["seconds"] for row in found["attacks"]) == found["headline"]["seconds an image of the slowest"]
    assert {aim["at_least"] for aim in found["aims"]} == {attacks_cifar10.ENOUGH}
    for aim in found["aims"]:
        assert aim["held"] == (aim["found"] >= aim["at_least"])
    assert "fgsm" in found["table"]
    assert (tmp_path / "attacks_cifar10.png").stat().st_size > 1000
    records = load_result(tmp_path / "attacks_cifar10.nc")
    assert records.sizes["row"] == len(found["attacks"])
    second = _done(tmp_path)
    assert attacked.call_count == len(FEW) + 1
    assert [row["robust_accuracy"] for row in second["found"]["attacks"]] == [
        row["robust_accuracy"] for row in found["attacks"]
    ]


@pytest.mark.slow
def test_without_time_it_says_what_is_missing(tmp_path: Path, attacked: Mock) -> None:
    _net_of_the_other_card(tmp_path)
    said = _done(tmp_path, seconds=-1.0)
    assert not said["complete"]
    assert attacked.call_count == 0
    assert len(said["found"]["missing"]) == len(FEW) + 1


def test_without_a_net_it_trains_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(attacks_cifar10, "trained", lambda *arguments, **options: asked.append((arguments, options)))
    said = _done(tmp_path)
    assert said["found"] == {"state": "in training"}
    ((work, name, recipe, images), options) = asked[0]
    assert (name, recipe.model, images.name) == ("net", "preact_resnet18", "digits")
    assert options["seconds"] <= work.left()
    assert options["most"] == 2


def test_the_whole_plan_has_every_attack_in_every_norm_with_more_images() -> None:
    setting = setting_of("cifar10", quick=False)
    found = attacks_cifar10.planned(setting, quick=False)
    expected = {case.name: case for case in cases(setting)}
    assert {case.name for case in found} == set(expected)
    for case in found:
        assert case.images == attacks_cifar10.TIMES * expected[case.name].images
        assert case.options == expected[case.name].options
    quick = attacks_cifar10.planned(setting_of("digits", quick=True), quick=True)
    assert sorted(case.attack for case in quick) == sorted({case.attack for case in found})
