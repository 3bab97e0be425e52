"""The command line as people misuse it: one line, the right status, nothing half-written."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from deepcheck import checkpoint
from deepcheck.cli import COMMANDS
from deepcheck.commands import common
from deepcheck.data import DataError, load
from deepcheck.training import METHODS
from deepcheck.training.loop import LAST
from odeflow.provenance import SaveError
from tests.deepcheck.cli.commands import TRAIN, files, status_of

# bad input


def owners(setting: str) -> str:
    """The methods that have a setting."""
    return ", ".join(name for name, kind in METHODS.items() if setting in kind.settings())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "train digits adv",
            f"method = 'adv' is unknown: allowed is one of {', '.join(METHODS)}",
        ),
        (
            "train --dataset digitz",
            "dataset = 'digitz' is unknown (did you mean digits?): allowed is one of mnist, cifar10, digits",
        ),
        (
            f"{TRAIN} --model resnet",
            "model = 'resnet' is unknown (did you mean resnet_ccat?): allowed is one of linear",
        ),
        (f"{TRAIN} --method at --epsilon -1", "epsilon = -1.0 is out of range: allowed is a finite number and >= 0"),
        (f"{TRAIN} --method at --epsilon nan", "epsilon = nan is out of range"),
        (f"{TRAIN} --method at --rho 3", f"method = 'at' has no setting rho: it belongs to {owners('rho')}"),
        (
            f"{TRAIN} --epsilon 0.1",
            f"method = 'standard' has no setting epsilon: it belongs to {owners('epsilon')}",
        ),
        ("train digits at ccat", "train digits at ccat: allowed are a data set and a method, as in train mnist at"),
        ("train digits --dataset mnist", "train digits with --dataset is not allowed: one of the two is"),
        (f"{TRAIN} --test-epsilon -1", "test_epsilon = -1.0 is out of range"),
        (f"{TRAIN} --method ccat --epsilon 0", "epsilon = 0.0 is out of range: allowed is a finite number and > 0"),
        (f"{TRAIN} --epochs 0", "epochs = 0 is out of range: allowed is a whole number >= 1"),
        (f"{TRAIN} --epochs many", "epochs = 'many' is not a whole number: allowed is one such as 1000 or 1e3"),
        (f"{TRAIN} --batch-size 0", "batch_size = 0 is out of range: allowed is a whole number >= 2"),
        (f"{TRAIN} --examples 0", "examples = 0 is out of range: allowed is a whole number >= 1"),
        (f"{TRAIN} --learning-rate 0", "learning_rate = 0.0 is out of range"),
        (f"{TRAIN} --sigma 1", "--sigma is no option of deepcheck train"),
        (f"{TRAIN} --epoch 3", "--epoch is no option of deepcheck train (did you mean --epochs?)"),
        (f"{TRAIN} --out nowhere/net", "out = 'nowhere/net' cannot be made: its folder 'nowhere' does not exist"),
        ("attack", "missing from deepcheck attack"),
        ("attack none --device cpu", "'none' does not exist: allowed is a checkpoint that `deepcheck train` has left"),
        ("attack none --norm l3", "norm = 'l3' is unknown: allowed is one of linf, l2, l1, l0"),
        ("attack none --attack pgt", "attack = 'pgt' is unknown (did you mean 'pgd'?): allowed is one of pgd, fgsm"),
        (
            "attack none --attack fgsm --steps 3",
            "--steps is no option of deepcheck attack (it belongs to --attack pgd, --attack bim",
        ),
        ("attack none --attack square --norm l0", "norm = 'l0' is unknown: allowed is one of linf, l2, l1"),
        ("attack none --option overshoot", "option = 'overshoot' is not allowed: NAME=VALUE is, each name once"),
        ("attack none --steps 3 --option steps=4", "option = 'steps=4' is not allowed: NAME=VALUE is, each name once"),
        (
            "attack none --objective targeted_dlr",
            "objective = targeted_dlr needs classes to reach: allowed are attacks",
        ),
        ("attack none --attack stadv --norm linf", "norm = 'linf' is unknown: allowed is one of flow"),
        ("attack none --attack square --queries 0", "queries = 0 is out of range: allowed is a whole number >= 1"),
        ("evaluate none --epsilon 0.1", "epsilon = 0.1 with suite = 'wide' is not allowed: it goes with the standard"),
        ("evaluate none --suite standard --restarts 3", "restarts = 3 with suite = 'standard' is not allowed: it goes"),
        ("evaluate none --suite standard --norms l2 linf --entry a.json", "entry with norms = l2 linf is not allowed"),
        ("evaluate none --suite standard --plot a.pdf", "plot = a.pdf with suite = 'standard' is not allowed: it goes"),
        ("evaluate none --suite standard --norms l2 l2", "norms = ['l2', 'l2'] is not allowed: one or more of linf"),
        ("evaluate none --suite standard --entry a.txt", "'.txt': allowed is"),
        ("attack none --attack deepfool --option overshoot=0", "overshoot = 0.0 is out of range"),
        ("attack none --defence jpg", "defence = 'jpg' is unknown (did you mean 'jpeg'?): allowed is one of bit_depth"),
        (
            "attack none --defence jpeg --defence-option q=3",
            "option of jpeg = 'q' is unknown: allowed is one of quality",
        ),
        ("attack none --defence jpeg --defence-option quality=0", "quality = 0 is out of range: allowed is a whole"),
        ("attack none --oblivious", "oblivious = True without --defence is not allowed: it goes with one"),
        ("evaluate none --defence-option a=1", "defence_option = ('a=1',) without --defence is not allowed"),
        (f"{TRAIN} --method distillation --temperature 0", "temperature = 0.0 is out of range: allowed is a finite"),
        (
            f"{TRAIN} --method distillation --patience 3",
            "patience = 3 with method = 'distillation' is not allowed: its",
        ),
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
        ("evaluate none --suite all", "suite = 'all' is unknown: allowed is one of standard, wide, gradient, linf"),
        ("evaluate none --plot a.bmp", "'.bmp': allowed is one of .pdf, .png, .svg"),
        ("corrupt none --device cpu", "'none' does not exist"),
        ("corrupt none --corruptions fgo", "corruption = 'fgo' is unknown (did you mean 'fog'?): allowed is one of"),
        ("corrupt none --severities 1 6", "severity = 6 is out of range: allowed is a whole number from 1 to 5"),
        ("corrupt none --severities 0", "severity = 0 is out of range: allowed is a whole number from 1 to 5"),
        (
            "corrupt none --severities 2 2",
            "severities = [2, 2] is not allowed: one or more out of 1 to 5, each once, are",
        ),
        ("corrupt none --baseline b.nc", "'b.nc'"),
        ("corrupt none --pictures a.bmp", "'.bmp': allowed is one of .pdf, .png, .svg"),
        ("distal none --device cpu", "'none' does not exist"),
        ("distal none --plot a.bmp", "'.bmp': allowed is one of .pdf, .png, .svg"),
        ("attack --epsilon 0.1 none", "epsilon = 'none' is not a number: allowed are numbers"),
        ("attack none --bounds 0", "--bounds has no value"),
        ("generator --dataset digits --latent 0", "latent = 0 is out of range: allowed is a whole number >= 1"),
        ("generator --dataset digits --steps 0", "steps = 0 is out of range: allowed is a whole number >= 1"),
        ("generator --dataset digits --batch-size 1", "batch_size = 1 is out of range: allowed is a whole number >= 2"),
        ("generator --dataset digits --penalty -1", "penalty = -1.0 is out of range"),
        ("generator --dataset digits --learning-rate 0", "learning_rate = 0.0 is out of range"),
        ("generator --dataset digits --beta1 1", "beta1 = 1.0 is out of range"),
        ("generator --dataset digits --examples 0", "examples = 0 is out of range"),
        (
            "generator --dataset digits --examples 100",
            "validation = 200 is out of range: digits has 100 training images",
        ),
        ("generator --dataset digits --out nowhere/gan", "out = 'nowhere/gan' cannot be made: its folder 'nowhere'"),
        ("generator --dataset digits --pictures a.bmp", "'.bmp': allowed is one of .pdf, .png, .svg"),
        ("generator --dataset svhn", "dataset = 'svhn' is unknown: allowed is one of mnist, cifar10, digits"),
        (
            "frobnicate",
            f"COMMAND = 'frobnicate' is unknown: allowed is one of {', '.join(COMMANDS)}",
        ),
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
        ("corrupt net --corruptions saturate", "Saturate of grey images is not allowed: it does nothing to them"),
        ("corrupt net --examples 0", "examples = 0 is out of range: allowed is a whole number >= 1"),
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
    "command", ["attack net", "evaluate net", "corrupt net", "distal net", f"{TRAIN} --epochs 3 --out net --resume"]
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
