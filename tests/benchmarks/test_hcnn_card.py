"""The card of separation and embeddings: whole in its quick form on a CPU, and what it says where its time is over."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.cuda.card import Work
from benchmarks.cuda.cards import card, hcnn_cifar10
from odeflow import load as load_result
from studies.hcnn import plan
from studies.hcnn.plan import LEVELS, NETS, Setting, setting_of
from tests.deepcheck.digits_net import trained_net

_REAL = setting_of


def _short(dataset: str, *, quick: bool) -> Setting:
    """Return the quick setting with little effort and one embedding."""
    setting = _REAL(dataset, quick=quick)
    effort = replace(
        setting.effort, images=30, few=20, steps=4, few_steps=4, few_starts=1, carlini=1, carlini_steps=5, carlini_searches=1,
        ranked=20, reduced=5, inner=3, outer=2, surrogate=2,
    )  # fmt: skip
    return replace(setting, effort=effort, behind=(plan.Behind("at", "mcn", 0.1, 0.1, 8),))


def _done(out: Path, seconds: float = 1000.0) -> dict[str, Any]:
    file = out / "hcnn_cifar10.json"
    one = card("hcnn_cifar10")
    one.run(Work(one, torch.device("cpu"), seconds, out, quick=True))
    said: dict[str, Any] = json.loads(file.read_text())
    return said


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hcnn_cifar10, "setting_of", _short)
    net = trained_net()
    monkeypatch.setattr(hcnn_cifar10, "net_of", lambda *_: net)
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_it_measures_both_nets_and_puts_the_published_numbers_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        hcnn_cifar10, "PUBLISHED", {"at": {0.06: (0.11, (0.022, 0.011, 0.0), (0.867, 0.825, 0.726))}, "natural": {}}
    )
    found = _done(tmp_path)["found"]
    assert found["missing"] == []
    assert [row["net"] for row in found["separation"]] == list(NETS)
    assert len(found["rejection"]) == 2 * 4 * len(LEVELS)
    for row in found["rejection"]:
        assert row["awpr_lower"] <= row["awpr"] <= row["awpr_upper"]
        assert row["awpr"] <= row["awpr_without_rejection"]
        assert ("published_awpr" in row) == (row["net"] == "at" and row["eta"] == 0.06)
    for one in found["aims"]:
        assert one["held"] == (one["found"] >= one["at_least"])
    assert (tmp_path / "hcnn_cifar10.png").stat().st_size > 1000
    assert load_result(tmp_path / "hcnn_cifar10.nc").sizes["net"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("short")
def test_without_time_it_says_what_is_missing(tmp_path: Path) -> None:
    said = _done(tmp_path, seconds=-1.0)
    assert not said["complete"]
    assert "separated at" in said["found"]["missing"]


def test_the_published_numbers_are_those_of_its_radii() -> None:
    setting = setting_of("cifar10", quick=False)
    assert tuple(hcnn_cifar10.PUBLISHED["at"]) == setting.etas
    assert all(before >= max(after) for before, after, _ in hcnn_cifar10.PUBLISHED["at"].values())
    assert setting.recipe_of("natural").model == setting.recipe_of("at").model == "preact_resnet18"
    assert setting.radii[-1] == pytest.approx(8 / 255)
    assert all(one.xi + one.eta <= setting.delta + 1e-9 or one.eta == 0.030 for one in setting.behind)
