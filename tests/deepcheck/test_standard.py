"""The standard evaluation: its attacks and settings, the accuracy after each, its line, its entry, and its command."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deepcheck.attacks.minimal.base import WithinBudget
from deepcheck.evaluation import THREATS, Planned, evaluate, planned_suite, standard_attack, standard_suite, suite
from deepcheck.evaluation.standard import entry, line, stages
from tests.deepcheck.attack_cases import Rowwise, classified, generator, pictures
from tests.deepcheck.cli.commands import status_of

NAMES = ["apgd_ce", "apgd_t", "fab_t", "square"]


@pytest.mark.parametrize(("norm", "restarts"), [("linf", [1, 9, 9, 1]), ("l2", [1, 9, 9, 1]), ("l1", [5, 5, 9, 1])])
def test_the_settings_are_those_of_autoattack(norm: str, restarts: list[int]) -> None:
    attack = standard_attack(norm)
    assert [name for name, _ in attack.attacks] == NAMES
    inner: list[Any] = [one.attack if isinstance(one, WithinBudget) else one for _, one in attack.attacks]
    assert [one.restarts for one in inner] == restarts
    assert [getattr(one, "steps", None) for one in inner] == [100, 100, 100, None]
    assert inner[3].queries == 5000
    assert [one.objective.name for one in inner[:3]] == ["cross_entropy", "targeted_dlr", "targeted_margin"]
    assert attack.norm.name == norm
    assert attack.name == "standard"


def test_the_suite_by_its_name() -> None:
    """At the sizes that are customary for CIFAR-10, or those of a data set."""
    customary = suite("standard")
    assert customary == standard_suite()
    assert {name: one.epsilons for name, one in customary.items()} == {
        "standard_linf": (8 / 255,),
        "standard_l2": (0.5,),
        "standard_l1": (12.0,),
    }
    mnist = planned_suite("standard", "mnist", norms=("l2",), steps=7)
    assert mnist == {"standard_l2": Planned(standard_attack("l2", steps=7), (THREATS["mnist"].l2,))}
    with pytest.raises(ValueError, match="norm = 'l0' is unknown: allowed is one of linf, l2, l1"):
        standard_attack("l0")
    with pytest.raises(ValueError, match="queries = 0 is out of range"):
        standard_attack(queries=0)


@pytest.mark.parametrize("K", [2, 3, 4])
@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_any_number_of_classes(K: int, norm: str) -> None:
    model, images = Rowwise(K), pictures(12)
    labels = classified(model, images)
    epsilon = {"linf": 0.1, "l2": 0.4, "l1": 1.5}[norm]
    found = standard_attack(norm, steps=8, queries=20)(model, images, labels, epsilon=epsilon, generator=generator())
    right = (found.prediction == labels).double().mean(1)
    assert right[0] < 0.8
    assert (right.diff() <= 0).all()


def test_accuracies_line_and_entry() -> None:
    model, images = Rowwise(), pictures(30).float()
    labels = classified(model, images)
    attack = standard_attack("linf", steps=6, queries=15)
    records = evaluate(model, (images, labels), {"standard_linf": Planned(attack, (0.05, 0.1))}, seed=3)
    left = stages(records, "standard_linf", 0.1)
    assert list(left) == NAMES
    rows = records["prediction"].sel(epsilon=0.1).isel(attack=0).values == labels.numpy()
    assert list(left.values()) == rows.mean(1).tolist()
    assert sorted(left.values(), reverse=True) == list(left.values())
    clean, robust = float((model(images).argmax(1) == labels).double().mean()), left["square"]
    text = line(records, "standard_linf", 0.1, "net")
    assert text.startswith(f"net: Linf 0.1, 30 images: clean {100 * clean:.2f}, apgd_ce {100 * left['apgd_ce']:.2f}, ")
    assert re.search(rf"robust accuracy {100 * robust:.2f} \+- \d+\.\d+ %$", text)
    content = json.loads(entry(records, "standard_linf", 0.1, name="net", dataset="drawn", warned=["softmax"]))
    assert (content["clean_acc"], content["autoattack_acc"]) == (f"{100 * clean:.2f}", f"{100 * robust:.2f}")
    assert (content["threat_model"], content["eps"], content["unreliable"]) == ("Linf", 0.1, True)
    protocol = content["protocol"]
    assert protocol["attack"] == repr(attack)
    assert protocol["warnings"] == ["softmax"]
    assert protocol["evaluations_an_image"] > 6
    assert {"torch_version", "odeflow_version"} & set(protocol["versions"])
    with pytest.raises(
        ValueError, match=r"epsilon = 0.3 was not run with standard_linf: allowed is one of \[0.05, 0.1\]"
    ):
        line(records, "standard_linf", 0.3, "net")
    with pytest.raises(ValueError, match="attack = 'other' is unknown"):
        stages(records, "other", 0.1)


def test_the_command_goes_on_and_writes_an_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    train = "train --dataset digits --method standard --model linear --device cpu --epochs 2 --out net"
    assert status_of(train) == 0
    capsys.readouterr()
    command = (
        "evaluate net --device cpu --suite standard --epsilon 0.1 --examples 20 --steps 5 --queries 10 --state kept "
        "--entry net.json --overwrite"
    )
    assert status_of(command) == 0
    first = capsys.readouterr().out.splitlines()
    assert first[0].startswith("net: Linf 0.1, 20 images: clean ")
    assert first[1] == "net.json"
    kept = {path.name: path.stat().st_mtime_ns for path in Path("kept").iterdir()}
    assert list(kept) == ["standard_linf_0.1.npz"]
    assert status_of(command) == 0
    assert capsys.readouterr().out.splitlines() == first
    assert {path.name: path.stat().st_mtime_ns for path in Path("kept").iterdir()} == kept
    assert json.loads(Path("net.json").read_text())["name"] == "net"
    assert status_of(command.replace("--steps 5", "--steps 6")) == 2
    assert "is of another evaluation: allowed is one of the same attacks" in capsys.readouterr().err


def test_a_state_is_no_part_of_what_the_attack_is() -> None:
    assert repr(standard_attack(state="somewhere")) == repr(standard_attack())
    assert "somewhere" not in repr(replace(standard_attack(), state="somewhere"))
    assert torch.equal(torch.tensor(standard_attack().restarts), torch.tensor(4))
