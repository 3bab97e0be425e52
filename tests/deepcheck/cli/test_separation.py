"""``deepcheck separation``: what it prints is what the functions say of what it saves, and what it refuses."""

import json
from typing import Any

import numpy as np
import pytest
import torch

from deepcheck import checkpoint
from deepcheck.data import load
from deepcheck.evaluation import loss_bounds, rejection, separation, split, wrong_confidences
from deepcheck.training.loop import LAST
from odeflow import load as load_result
from tests.deepcheck.cli.commands import files, status_of

FEW = "--device cpu --examples 20 --starts 1 --steps 3"


def test_it_prints_what_was_found(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"separation {net} {FEW} --delta 0.2 0.05 --level 0.5 0.9 --seed 3 --out a.nc") == 0
    title, head, *lines, saved = capsys.readouterr().out.splitlines()
    assert title == "first 20 test images of digits, linf, 3 steps x 1 for each class"
    assert head.split() == [
        "delta",
        "level",
        "share",
        "bounds",
        "at",
        "90%",
        "by",
        "loss",
        "AWPR",
        "rejecting",
        "recall",
    ]
    assert saved == "a.nc"
    assert [line.split()[:2] for line in lines] == [["0.05", "0.5"], ["0.05", "0.9"], ["0.2", "0.5"], ["0.2", "0.9"]]
    found = load_result("a.nc")
    (x, y), _ = split(load("digits"), 20, 0)
    network = checkpoint.load_model(f"{net}/{LAST}")
    draw = torch.Generator().manual_seed(3)
    again = wrong_confidences(network, x, y, delta=[0.05, 0.2], starts=1, steps=3, generator=draw)
    np.testing.assert_allclose(found.wrong_confidence, again.wrong_confidence, rtol=1e-6)
    shares, answers = separation(found, level=[0.5, 0.9]), rejection(found, level=[0.5, 0.9])
    bounds = loss_bounds(found, level=[0.5, 0.9]).separation_bound[0, 0]
    for line, (i, k) in zip(lines, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        expected: list[Any] = [shares[name][k, i] for name in ("share", "lower", "upper")]
        expected += [bounds[k, i], answers.awpr_without_rejection[i], answers.awpr[k, i], answers.recall[k]]
        np.testing.assert_allclose([float(word) for word in line.split()[2:]], expected, atol=5.1e-5)
    assert json.loads(found.attrs["configuration"])["options"]["net"]["checkpoint"] == f"net/{LAST}"


def test_defaults_are_those_of_the_training_attack(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"separation {net} {FEW} --level 0.9") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == ["0.2", "0.9"]
    assert files() == {"net"}


def test_carlini_and_wagner_and_a_defence(net: str) -> None:
    few = f"separation {net} --device cpu --examples 3 --starts 1 --steps 1 --level 0.9 --delta 0.1"
    assert status_of(f"{few} --carlini-wagner 0.9 --out a.nc") == 0
    attacks = json.loads(load_result("a.nc").attrs["configuration"])["options"]["attacks"]
    assert list(attacks) == ["confident_pgd", "carlini_wagner", "loss"]
    assert "TargetedOdds(goal='target', level=0.9)" in attacks["carlini_wagner"]
    for flags, word in (("", "Adaptive"), (" --oblivious", "Oblivious")):
        assert status_of(f"{few} --defence bit_depth --precision bfloat16{flags} --out {word}.nc") == 0
        attacks = json.loads(load_result(f"{word}.nc").attrs["configuration"])["options"]["attacks"]
        assert all(attack.startswith(f"{word}(") and "bfloat16" in attack for attack in attacks.values())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--level 0.1",
            "level = 0.1 is out of range: allowed is a number > 0.1 and <= 1, as one of 10 classes always has 1/10",
        ),
        ("--level 0.9 1.2", "level = 1.2 is out of range"),
        ("--delta -0.1", "delta = -0.1 is not allowed: a finite number >= 0 is"),
        ("--norm l2", "delta is missing with norm = 'l2': there is no default for it, the net's is linf"),
        ("--norm l3", "norm = 'l3' is unknown"),
        ("--starts 0", "starts = 0 is out of range: allowed is a whole number >= 1"),
        ("--steps 0", "steps = 0 is out of range: allowed is a whole number >= 1"),
        ("--examples 0", "examples = 0 is out of range: allowed is a whole number >= 1"),
        ("--confidence 1", "confidence = 1.0 is out of range"),
        ("--carlini-wagner 1", "carlini_wagner = 1.0 is out of range"),
        ("--oblivious", "oblivious = True without --defence is not allowed"),
    ],
)
def test_what_it_refuses(flags: str, message: str, net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"separation {net} --device cpu {flags}") == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert printed.out == ""
    assert files() == {"net"}
