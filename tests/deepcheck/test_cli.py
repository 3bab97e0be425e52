"""The command line as people use it, and as they misuse it: one line, the right status, nothing half-written."""

import json
import logging
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepcheck import checkpoint, cli
from deepcheck.attacks import ATTACKS
from deepcheck.commands import common
from deepcheck.data import DataError, load
from deepcheck.evaluation import (
    attack_table,
    checked,
    format_attack_table,
    format_summary,
    robust_error,
    standard_error,
    summary,
)
from deepcheck.training import METHODS, RECIPES, AttackingMethod
from deepcheck.training.loop import BEST, LAST, REPORT, _Run
from odeflow import load as load_result
from odeflow.provenance import SaveError

TRAIN = "train --dataset digits --model linear --device cpu"


def status_of(arguments: str) -> int:
    try:
        return cli.main(arguments.split())
    except SystemExit as end:
        return int(end.code or 0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a net after three epochs."""
    folder = tmp_path_factory.mktemp("trained") / "net"
    assert status_of(f"{TRAIN} --epochs 3 --out {folder}") == 0
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def net(trained: Path) -> str:
    """The folder, copied to where the test runs."""
    shutil.copytree(trained, "net")
    return "net"


def files() -> set[str]:
    return {path.name for path in Path().iterdir()}


# what it does


def test_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"{TRAIN} --epochs 2 --out net") == 0
    report = json.loads(Path("net", REPORT).read_text())
    last = report["history"][-1]
    printed = capsys.readouterr().out
    assert re.fullmatch(
        r"2 epochs in \d+ s; on 200 training images kept apart: "
        rf"accuracy {last['clean_accuracy']:.4f}, under PGD-10 at epsilon = 0.2 {last['robust_accuracy']:.4f}\n"
        rf"net/{LAST}\n",
        printed,
    )
    assert {path.name for path in Path("net").iterdir()} == {LAST, REPORT}
    assert report["recipe"]["model"] == "linear"
    assert report["recipe"]["batch_size"] == RECIPES["digits", "standard"].batch_size
    assert last["clean_accuracy"] > 0.5


def test_every_method_trains_on_few_images_into_the_default_folder(capsys: pytest.CaptureFixture[str]) -> None:
    few = "--examples 60 --validation 20 --epochs 1 --batch-size 20"
    for method in METHODS:
        steps = "--attack-steps 2" if "attack_steps" in METHODS[method].settings() else ""
        assert status_of(f"{TRAIN} --method {method} {few} {steps}") == 0
        report = json.loads(Path("runs", f"digits_{method}", REPORT).read_text())
        assert report["recipe"]["method"]["name"] == method
        assert report["train_images"] == 60
        assert f"runs/digits_{method}/{LAST}" in capsys.readouterr().out
    assert status_of(f"{TRAIN} --method at {few} --patience 1 --out early") == 0
    assert capsys.readouterr().out.endswith(f"early/{BEST}\n")


def test_attack(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"attack {net} --device cpu --steps 5 --epsilon 0.1 0.05 --restarts 2 --examples 50 --out a.nc --seed 1"
    assert status_of(command) == 0
    records = load_result("a.nc")
    checked(records)
    assert records.sizes["example"] == 50
    assert records.sizes["restart"] == 2
    assert records.attrs["seed"] == "1"
    options = json.loads(records.attrs["configuration"])["options"]
    assert options["checkpoint"] == f"net/{LAST}"
    assert options["recipe"]["model"] == "linear"
    assert options["epoch"] == 3
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "accuracy on the first 50 test images of digits, with standard errors"
    assert lines[-1] == "a.nc"
    errors = [float(np.mean(records.clean_prediction.values != records.label.values))]
    errors += [robust_error(records, epsilon=epsilon, smaller=False) for epsilon in (0.1, 0.05)]
    for line, name, error in zip(lines[1:-1], ("no attack", "linf 0.1", "linf 0.05"), errors, strict=True):
        assert line == f"{name:>12}: {1 - error:.4f} +- {standard_error(error, 50):.4f}"
    assert errors[1] > errors[2] > errors[0]


def test_an_attack_is_by_default_of_the_size_of_the_training_attack(
    net: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert status_of(f"attack {net}/{LAST} --device cpu --steps 1 --objective margin") == 0
    assert "linf 0.2: " in capsys.readouterr().out
    assert "examples = 1000: digits has 359 to attack" in caplog.text
    assert files() == {"net"}
    assert status_of(f"attack {net} --device cpu --steps 1 --norm l2 --epsilon 1 --step-size 0.5 --momentum 0.5") == 0
    assert "l2 1: " in capsys.readouterr().out


def test_attacks_by_name(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("attack --list") == 0
    text = capsys.readouterr().out
    for name in ATTACKS:
        assert re.search(rf"^{name} \(linf", text, re.MULTILINE)
    few = f"attack {net} --device cpu --examples 20 --norm l2 --epsilon 0.5"
    for name, options, steps in (
        ("deepfool", "--option overshoot=0.1 candidates=3", "overshoot=0.1, candidates=3"),
        ("square", "--objective wrong_confidence --option queries=7", "queries=7"),
        ("mim", "--steps 3 --momentum 0.5", "steps=3"),
    ):
        assert status_of(f"{few} --attack {name} {options} --out {name}.nc") == 0
        assert "l2 0.5: " in capsys.readouterr().out
        records = load_result(f"{name}.nc")
        assert records.attack.values.tolist() == [f"{name}_l2"]
        assert steps in json.loads(records.attrs["configuration"])["options"]["attacks"][f"{name}_l2"]["attack"]


EVALUATE = "evaluate net --device cpu --steps 10 --restarts 1 --queries 50 --examples 25"


def test_evaluation(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"{EVALUATE} --validation 60 --out records.nc --tpr 0.9") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "first 25 test images of digits, tau from 90% of the last 60"
    records = load_result("records.nc")
    assert (records.sizes["example"], records.sizes["validation"]) == (25, 60)
    expected = format_summary(summary(records, tpr=0.9)).splitlines()
    assert lines[1 : 1 + len(expected)] == expected
    rest = lines[1 + len(expected) : -2]
    assert [line.split(":")[0] for line in rest[:2]] == ["uniform noise", "smooth noise"]
    assert rest[2:] == format_attack_table(attack_table(records)).splitlines()
    assert lines[-2:] == ["checks against false robustness: 6 of 6 passed", "records.nc"]


def test_an_evaluation_with_a_suite_images_and_a_figure(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"{EVALUATE} --suite gradient --keep-images --plot a.pdf --out records.nc") == 0
    records = load_result("records.nc")
    assert not {"square_linf", "noise_linf"} & set(records.attack.values)
    assert records.attacked_image.sizes["kept"] == 16
    assert capsys.readouterr().out.splitlines()[-2:] == ["records.nc", "a.pdf"]
    assert Path("a.pdf").read_bytes().startswith(b"%PDF")


def test_a_failed_check_against_false_robustness_is_status_1(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(net, LAST)
    tensors, information = checkpoint.read(path)
    tensors = {name: 1e6 * tensor if ".head." in name else tensor for name, tensor in tensors.items()}
    checkpoint.write(path, tensors, information)
    assert status_of(EVALUATE) == 1
    printed = capsys.readouterr()
    assert "checks against false robustness: 5 of 6 passed\nFAILED  gradients are not zero: " in printed.out
    assert "of the last 334\n" in printed.out  # what 25 examples leave of 359
    assert printed.err == ""


def test_distal(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"distal {net} --device cpu --count 5 --steps 3 --plot a.pdf --out a.zarr") == 0
    assert Path("a.pdf").read_bytes().startswith(b"%PDF")
    records = load_result("a.zarr")
    best = records.confidence.values[0, 0].max(0).reshape(2, 5).mean(1)
    before = records.clean_confidence.values.reshape(2, 5).mean(1)
    assert capsys.readouterr().out.splitlines() == [
        "mean confidence in noise, and in distal adversarial examples at epsilon = 0.2",
        f" uniform noise: {before[0]:.4f} -> {best[0]:.4f}",
        f"  smooth noise: {before[1]:.4f} -> {best[1]:.4f}",
        "a.zarr",
        "a.pdf",
    ]
    assert status_of(f"distal {net} --device cpu --count 2 --steps 1 --epsilon 0.05") == 0
    assert "at epsilon = 0.05\n" in capsys.readouterr().out


# resuming


def test_an_interrupted_training_says_how_to_go_on_and_loses_nothing(
    trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_epoch = _Run.run_epoch

    def interrupted(self: _Run, *arguments: Any, **options: Any) -> None:
        if self.epoch == 2:
            raise KeyboardInterrupt
        run_epoch(self, *arguments, **options)

    command = f"{TRAIN} --epochs 3 --out net"
    with monkeypatch.context() as patch:
        patch.setattr(_Run, "run_epoch", interrupted)
        assert status_of(command) == 1
    message = "interrupted; the last whole epoch, if there was one, is saved: run the same command with --resume"
    assert capsys.readouterr().err == f"deepcheck: {message}\n"
    assert len(json.loads(Path("net", REPORT).read_text())["history"]) == 2
    assert status_of(f"{command} --resume") == 0
    assert capsys.readouterr().out.startswith("3 epochs in ")
    whole, resumed = (checkpoint.read(folder / LAST)[0] for folder in (trained, Path("net")))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_ctrl_c_in_an_attack_is_status_1(
    net: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deepcheck.evaluation.run.record", interrupt)
    assert status_of(f"attack {net} --device cpu --out a.nc") == 1
    assert capsys.readouterr().err == "deepcheck: interrupted\n"
    assert files() == {"net"}


# what it says


@pytest.mark.parametrize("arguments", ["--help", "train --help", "attack --help", "evaluate --help", "distal -h", ""])
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
    assert status_of(f"train --dataset {dataset} --method={method} --help") == 0
    text = plain(capsys.readouterr().out)
    assert f"The data set. (default: {dataset})" in text
    assert f"(confidence-calibrated adversarial training). (default: {method})" in text
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
    assert status_of(f"{TRAIN} --method at {few} --epsilon 0.07 --attack-steps 3 --norm l2 --seed 5 --out net") == 0
    recipe = json.loads(Path("net", REPORT).read_text())["recipe"]
    assert (recipe["seed"], recipe["method"]) == (
        5,
        {
            "name": "at",
            "norm": "l2",
            "epsilon": 0.07,
            "attack_steps": 3,
            "step_size": 0.05,
            "ramp": 0.4,
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
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
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


# bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "train --dataset digits --method adv",
            f"'adv' for argument '--method'. Expected one of {tuple(METHODS)}",
        ),
        ("train --dataset digitz", "'digitz' for argument '--dataset'. Expected one of ('mnist', 'cifar10', 'digits')"),
        (f"{TRAIN} --model resnet", "'resnet' for argument '--model'"),
        (f"{TRAIN} --method at --epsilon -1", "epsilon = -1.0 is out of range: allowed is a finite number and >= 0"),
        (f"{TRAIN} --method at --epsilon nan", "epsilon = nan is out of range"),
        (f"{TRAIN} --method at --rho 3", "method = 'at' has no setting rho: it belongs to ccat"),
        (f"{TRAIN} --epsilon 0.1", "method = 'standard' has no setting epsilon: it belongs to at, ccat"),
        (f"{TRAIN} --test-epsilon -1", "test_epsilon = -1.0 is out of range"),
        (f"{TRAIN} --method ccat --epsilon 0", "epsilon = 0.0 is out of range: allowed is a finite number and > 0"),
        (f"{TRAIN} --epochs 0", "epochs = 0 is out of range: allowed is a whole number >= 1"),
        (f"{TRAIN} --epochs many", "--epochs"),
        (f"{TRAIN} --batch-size 0", "batch_size = 0 is out of range: allowed is a whole number >= 2"),
        (f"{TRAIN} --examples 0", "examples = 0 is out of range: allowed is a whole number >= 1"),
        (f"{TRAIN} --learning-rate 0", "learning_rate = 0.0 is out of range"),
        (f"{TRAIN} --sigma 1", "--sigma"),
        (f"{TRAIN} --out nowhere/net", "out = 'nowhere/net' cannot be made: its folder 'nowhere' does not exist"),
        ("attack", "missing from deepcheck attack"),
        ("attack none --device cpu", "'none' does not exist: allowed is a checkpoint that `deepcheck train` has left"),
        ("attack none --norm l3", "norm = 'l3' is unknown: allowed is one of linf, l2, l1, l0"),
        ("attack none --attack pgt", "attack = 'pgt' is unknown (did you mean 'pgd'?): allowed is one of pgd, fgsm"),
        ("attack none --attack fgsm --steps 3", "option of fgsm = 'steps' is unknown: allowed is one of objective"),
        ("attack none --attack square --norm l1", "is not allowed for the Square Attack: linf or l2 is"),
        ("attack none --option overshoot", "option = 'overshoot' is not allowed: NAME=VALUE is, each name once"),
        ("attack none --steps 3 --option steps=4", "option = 'steps=4' is not allowed: NAME=VALUE is, each name once"),
        ("attack none --attack deepfool --option overshoot=0", "overshoot = 0.0 is out of range"),
        ("attack none --out nowhere/a.nc", "path = 'nowhere/a.nc': the folder"),
        ("attack none --out a.txt", "'.txt': allowed is one of .nc, .zarr"),
        ("attack none --steps 0", "steps = 0 is out of range: allowed is a whole number >= 1"),
        ("attack none --step-size 0", "step_size = 0.0 is out of range"),
        ("attack none --restarts 0", "restarts = 0 is out of range: allowed is a whole number >= 1"),
        ("attack none --momentum 1", "momentum = 1.0 is"),
        ("attack none --backtracking 1", "backtracking = 1.0 is"),
        ("attack none --batch-size 0", "batch_size = 0 is out of range: allowed is a whole number >= 1"),
        ("evaluate none --device cpu", "'none' does not exist"),
        ("evaluate none --tpr 2", "tpr = 2.0 is out of range: allowed is a finite number and > 0 and <= 1"),
        ("evaluate none --tpr 0", "tpr = 0.0 is out of range"),
        ("evaluate none --suite all", "suite = 'all' is unknown: allowed is one of standard, gradient, linf"),
        ("evaluate none --plot a.bmp", "'.bmp': allowed is one of .pdf, .png, .svg"),
        ("distal none --device cpu", "'none' does not exist"),
        ("distal none --plot a.bmp", "'.bmp': allowed is one of .pdf, .png, .svg"),
        ("frobnicate", "frobnicate"),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message.lower() in printed.err.lower()
    assert printed.err.startswith("deepcheck: ")
    assert printed.err.count("\n") == 1
    assert files() <= {"runs"}
    assert not list(Path().glob("runs/*/*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("attack net --examples 0", "examples = 0 is out of range: allowed is a whole number >= 1"),
        ("attack net --epsilon -1", "epsilon = -1.0 is not allowed: a finite number >= 0 is"),
        ("attack net --epsilon 0.1 0.1", "epsilon = [0.1, 0.1] is not allowed: different numbers are"),
        ("attack net --norm l2", "epsilon is missing: there is no default for norm = l2"),
        ("attack net --seed -1", "seed = -1 is out of range: allowed is a whole number >= 0"),
        ("attack net --device gpu", "device = 'gpu' is not available"),
        ("evaluate net --examples 0", "examples = 0 is out of range"),
        ("evaluate net --validation 0", "validation = 0 is out of range: allowed is a whole number >= 1"),
        ("evaluate net --validation 500", "validation = 500 are more than the 359 test images of digits"),
        ("evaluate net --steps 9", "steps = 9 is out of range: allowed is a whole number >= 10"),
        ("evaluate net --queries 49", "queries = 49 is out of range: allowed is a whole number >= 50"),
        ("distal net --epsilon 0", "epsilon = 0.0 is out of range: allowed is a finite number > 0"),
        ("distal net --count 0", "count = 0 is out of range: allowed is a whole number >= 1"),
        ("distal net --steps 0", "steps = 0 is out of range: allowed is a whole number >= 1"),
        (f"{TRAIN} --epochs 3 --out net", "out = 'net' holds a training already: allowed is another folder, or resume"),
        (f"{TRAIN} --epochs 3 --out net --resume --seed 1", "cannot be resumed: it has seed = 0 and not 1"),
        (f"{TRAIN} --epochs 3 --out net --resume --examples 500", "it has train_images = 1438 and not 500"),
        (f"{TRAIN} --out net/last.safetensors", "out = 'net/last.safetensors' is a file: allowed is a folder"),
        (f"{TRAIN} --out net/last.safetensors/net", "its folder 'net/last.safetensors' does not exist"),
    ],
)
def test_bad_input_with_a_checkpoint(
    arguments: str,
    message: str,
    net: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = {path: path.read_bytes() for path in Path(net).iterdir()}
    assert status_of(arguments if "--device" in arguments else f"{arguments} --device cpu") == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.startswith("deepcheck: ")
    assert printed.err.count("\n") == 1
    assert "attacking" not in caplog.text  # not after hours
    assert {path: path.read_bytes() for path in Path(net).iterdir()} == before
    assert files() == {"net"}


@pytest.mark.parametrize(
    "command", ["attack net", "evaluate net", "distal net", f"{TRAIN} --epochs 3 --out net --resume"]
)
def test_a_truncated_checkpoint_is_status_2(command: str, net: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(net, LAST)
    path.write_bytes(path.read_bytes()[:-100])
    assert status_of(command if "--device" in command else f"{command} --device cpu") == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("deepcheck: 'net/last.safetensors' is no whole safetensors file (truncated?)")
    assert printed.err.count("\n") == 1
    assert printed.out == ""


def test_a_checkpoint_of_an_unknown_data_set_is_status_2(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    tensors, information = checkpoint.read(Path(net, LAST))
    for dataset, message in ((None, "the checkpoint does not say which data set"), ("svhn", "svhn")):
        checkpoint.write("net/other.safetensors", tensors, {**information, "dataset": dataset or ""})
        assert status_of("attack net/other.safetensors --device cpu") == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


# what fails that is nobody's fault


def test_records_that_cannot_be_saved_are_status_1(
    net: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise SaveError("'a.nc' could not be saved: no space left")

    monkeypatch.setattr(common, "save", fail)
    assert status_of(f"attack {net} --device cpu --steps 1 --examples 2 --out a.nc") == 1
    assert capsys.readouterr().err == "deepcheck: 'a.nc' could not be saved: no space left\n"


def test_a_data_set_that_cannot_be_read_is_status_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise DataError("cannot be downloaded")

    assert load("digits").name == "digits"
    monkeypatch.setattr("deepcheck.data.load", fail)
    assert status_of(TRAIN) == 1
    assert capsys.readouterr().err == "deepcheck: cannot be downloaded\n"
    assert not files()


def test_too_little_memory_is_status_1_with_advice(
    net: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("deepcheck.evaluation.run.record", fail)
    assert status_of(f"attack {net} --device cpu --batch-size 300") == 1
    message = "batch_size = 300 needs more memory than the GPU has: try 150"
    assert capsys.readouterr().err == f"deepcheck: {message}\n"


def test_no_traceback_from_the_installed_command() -> None:
    command = [sys.executable, "-m", "deepcheck.cli", "attack", "none", "--device", "cpu"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert run.stderr.startswith("deepcheck: 'none' does not exist")
    assert run.stderr.count("\n") == 1
