"""The command line as people use it: what it does, what it prints, and how it goes on after an interruption."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepcheck import checkpoint
from deepcheck.attacks import ATTACKS
from deepcheck.corruptions import CORRUPTIONS
from deepcheck.evaluation import (
    attack_table,
    checked,
    format_attack_table,
    format_corruption_table,
    format_summary,
    robust_error,
    standard_error,
    summary,
)
from deepcheck.training import METHODS, RECIPES
from deepcheck.training.loop import BEST, LAST, REPORT, _Run
from odeflow import load as load_result
from tests.deepcheck.cli.commands import TRAIN, files, status_of

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


def test_a_generator_is_trained_and_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    command = (
        "generator --dataset digits --latent 3 --width 2 --steps 4 --every 2 --batch-size 4 --examples 60 --validation 10 "
        "--device cpu"
    )
    assert status_of(f"{command} --pictures made.png") == 0
    report = json.loads(Path("runs", "digits_generator", REPORT).read_text())
    error = report["history"][-1]["reconstruction_error"]
    assert re.fullmatch(
        r"4 steps in \d+ s; mean squared error of a pixel on training images kept apart, of the nearest image that it makes: "
        rf"{error:.5f}\nruns/digits_generator/{LAST}\nmade.png\n",
        capsys.readouterr().out,
    )
    assert report["recipe"]["latent"] == 3
    assert report["train_images"] == 60
    assert status_of(command) == 2
    assert "holds a training already" in capsys.readouterr().err
    assert status_of(f"{command} --resume") == 0
    assert json.loads(Path("runs", "digits_generator", REPORT).read_text())["history"] == report["history"]


def test_every_method_trains_on_few_images_into_the_default_folder(capsys: pytest.CaptureFixture[str]) -> None:
    few = "--examples 60 --validation 20 --epochs 1 --batch-size 20"
    for method in METHODS:
        steps = "--attack-steps 2" if "attack_steps" in METHODS[method].settings() else ""
        assert status_of(f"{TRAIN} --method {method} {few} {steps}") == 0
        report = json.loads(Path("runs", f"digits_{method}", REPORT).read_text())
        assert report["recipe"]["method"]["name"] == method
        assert report["train_images"] == 60
        assert f"runs/digits_{method}/{LAST}" in capsys.readouterr().out
    assert status_of(f"train digits at --model linear --device cpu {few} --patience 1 --out early") == 0
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
    for line, name, error in zip(lines[1:4], ("no attack", "linf 0.1", "linf 0.05"), errors, strict=True):
        assert line == f"{name:>12}: {1 - error:.4f} +- {standard_error(error, 50):.4f}"
    assert errors[1] > errors[2] > errors[0]
    turned = (records.success.values[0] == 1).any((0, 1)) & (records.clean_prediction == records.label).values
    assert lines[4].startswith(f"      turned: {turned.sum()} of {round(50 * (1 - errors[0]))}, length 0.")


def test_flags_and_pictures_of_an_attack(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("attack --attack square --help") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--p-init FLOAT Share of the image's area" in text
    assert "--momentum" not in text
    command = f"attack {net} --device cpu --attack square --queries 9 --p-init 0.5 --examples 30 --pictures a.png"
    assert status_of(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "a.png"
    assert Path("a.png").read_bytes()[:4] == b"\x89PNG"


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
        assert re.search(rf"^{name} +[a-z0-9 ]+ \w", text, re.MULTILINE)
    few = f"attack {net} --device cpu --examples 20 --norm l2 --epsilon 0.5"
    for name, options, steps in (
        ("deepfool", "--option overshoot=0.1 candidates=3", "overshoot=0.1, candidates=3"),
        ("square", "--objective wrong_confidence --queries 7", "queries=7"),
        ("mim", "--steps 3 --momentum 0.5", "steps=3"),
        ("universal", "--passes 2 --prepare-on 30", "30 images"),
        ("substitute", "--rounds 1 --epochs 2 --prepare-on 30", "queries=60"),
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
    assert lines[-2:] == ["checks against false robustness: 8 of 8 passed", "records.nc"]


def test_an_evaluation_with_a_suite_images_and_a_figure(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"{EVALUATE} --suite gradient --keep-images --plot a.pdf --out records.nc") == 0
    records = load_result("records.nc")
    assert not {"square_linf", "noise_linf"} & set(records.attack.values)
    assert records.attacked_image.sizes["kept"] == 26
    assert capsys.readouterr().out.splitlines()[-2:] == ["records.nc", "a.pdf"]
    assert Path("a.pdf").read_bytes().startswith(b"%PDF")


def test_a_failed_check_against_false_robustness_is_status_1(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(net, LAST)
    tensors, information = checkpoint.read(path)
    tensors = {name: 1e6 * tensor if ".head." in name else tensor for name, tensor in tensors.items()}
    checkpoint.write(path, tensors, information)
    assert status_of(EVALUATE) == 1
    printed = capsys.readouterr()
    assert "checks against false robustness: 7 of 8 passed\nFAILED  gradients are not zero: " in printed.out
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


def test_corruptions(net: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("corrupt --list") == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["name", *CORRUPTIONS]
    few = f"corrupt {net} --device cpu --examples 40 --corruptions fog shot_noise --severities 1 5"
    assert status_of(f"{few} --out a.nc --plot a.pdf --pictures b.png") == 0
    errors = load_result("a.nc")
    assert errors["error"].shape == (2, 2)
    assert json.loads(errors.attrs["configuration"])["options"]["checkpoint"] == f"net/{LAST}"
    expected = [
        "first 40 test images of digits",
        *format_corruption_table(errors).splitlines(),
        "a.nc",
        "a.pdf",
        "b.png",
    ]
    assert capsys.readouterr().out.splitlines() == expected
    assert Path("a.pdf").read_bytes().startswith(b"%PDF")
    assert Path("b.png").read_bytes()[:4] == b"\x89PNG"
    assert status_of(f"{few} --baseline a.nc") == 0
    assert capsys.readouterr().out.splitlines()[-2].startswith("mCE 100.00 +- ")
    assert status_of(f"corrupt {net} --device cpu --examples 40 --corruptions snow --baseline a.nc") == 2
    assert "baseline lacks the corruption snow" in capsys.readouterr().err


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
