"""What the command line says about itself."""

import json
import logging
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch

from deepcheck import cli
from deepcheck.training import METHODS, RECIPES, AttackingMethod
from deepcheck.training.loop import REPORT
from tests.deepcheck.cli.commands import TRAIN, status_of


@pytest.mark.parametrize(
    "arguments",
    [
        "--help",
        "train --help",
        "attack --help",
        "evaluate --help",
        "corrupt --help",
        "distal -h",
        "explain -h",
        "separation -h",
        "",
    ],
)
def test_help(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(arguments) == 0
    assert "usage: deepcheck" in capsys.readouterr().out


def plain(text: str) -> str:
    """Return a help text as one line without boxes."""
    return " ".join(re.sub("[│╭╮╰╯─]", " ", text).split())


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
@pytest.mark.parametrize("method", ["at", "ccat"])
def test_help_shows_the_recipe(dataset: str, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    one = RECIPES[dataset, method]
    assert status_of(f"train {dataset} --method={method} --help") == 0
    text = plain(capsys.readouterr().out)
    assert f"The data set. (default: {dataset})" in text
    assert f"The training method; `deepcheck methods` says what each is. (default: {method})" in text
    assert isinstance(one.method, AttackingMethod)
    assert f"Steps of the training attack, >= 1. (default: {one.method.attack_steps})" in text
    assert f"Step of the training attack, > 0. (default: {one.method.step_size})" in text
    assert f"Passes over the training images, >= 1. (default: {one.epochs})" in text


def test_the_recipes_whose_help_is_looked_at_differ() -> None:
    assert len({(one.method, one.epochs) for one in RECIPES.values()}) > 4


@pytest.mark.parametrize("method", list(METHODS))
def test_help_has_the_flags_of_the_method_alone(method: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"train --method {method} --help") == 0
    shown = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    every = {one: {"--" + name.replace("_", "-") for name in METHODS[one].settings()} for one in METHODS}
    assert shown & set().union(*every.values()) == every[method]
    assert "--name" not in shown


def test_flags_of_a_method_reach_it(capsys: pytest.CaptureFixture[str]) -> None:
    few = "--examples 60 --validation 20 --epochs 1 --batch-size 20"
    assert (
        status_of(
            f"{TRAIN} --method at {few} --epsilon 0.07 --epsilon-schedule 0 0.07 --attack-steps 3 --norm l2 --seed 5 --out net"
        )
        == 0
    )
    recipe = json.loads(Path("net", REPORT).read_text())["recipe"]
    assert (recipe["seed"], recipe["method"]) == (
        5,
        {
            "name": "at",
            "norm": "l2",
            "epsilon": 0.07,
            "attack_steps": 3,
            "step_size": 0.05,
            "first_steps": None,
            "growth": 0.5,
            "ramp": 0.4,
            "epsilon_schedule": [0.0, 0.07],
            "attacked_share": 1.0,
        },
    )
    assert "PGD-10 at epsilon = 0.07" in capsys.readouterr().out
    # and an attack is of that size and norm, unless another is asked for
    assert status_of("attack net --device cpu --steps 1 --norm l2 --examples 20") == 0
    assert "l2 0.07: " in capsys.readouterr().out
    assert status_of("attack net --device cpu --steps 1 --examples 20") == 2
    assert "epsilon is missing: there is no default for norm = linf" in capsys.readouterr().err


def test_help_names_every_parameter(capsys: pytest.CaptureFixture[str]) -> None:
    status_of("attack --help")
    text = capsys.readouterr().out
    for flag in (
        "attack",
        "list",
        "option",
        "norm",
        "epsilon",
        "objective",
        "steps",
        "step-size",
        "restarts",
        "momentum",
        "seed",
        "out",
        "device",
    ):
        assert f"--{flag} " in text


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("--version") == 0
    assert re.fullmatch(r"deepcheck \S.*\n", capsys.readouterr().out)


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from deepcheck.cli import main\n"
        "for arguments in (['--help'], ['train', '--help'], ['train', '--method', 'ccat', '--help'], ['train', '--method', 'at', '--epsilon', '-1']):\n"
        "    try: main(arguments)\n"
        "    except SystemExit: pass\n"
        "print(sorted({'torch', 'numba', 'xarray', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.rstrip().endswith("[]")
    assert "epsilon = -1.0" in run.stderr


def test_it_is_installed_as_a_command() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["deepcheck"].split(":")
    assert (module, getattr(cli, function)) == (cli.__name__, cli.main)


def test_without_a_gpu_auto_says_that_it_takes_the_cpu(
    net: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    caplog.set_level(logging.INFO)
    assert status_of(f"distal {net} --device auto --count 1 --steps 1") == 0
    assert "no CUDA device is available: running on the CPU" in caplog.text
    for command in (f"distal {net}", f"{TRAIN[: -len(' --device cpu')]} --out other"):
        assert status_of(f"{command} --device cuda") == 2
        error = capsys.readouterr().err
        assert re.match(r"deepcheck: device = 'cuda' is not available.*: allowed here are auto, cpu\n$", error)
