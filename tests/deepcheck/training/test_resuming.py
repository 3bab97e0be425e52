"""What a training leaves behind, how it goes on after an interruption, and when it stops."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from deepcheck import checkpoint
from deepcheck.checkpoint import CheckpointError
from deepcheck.data import Images
from deepcheck.training import Recipe, loop, train
from deepcheck.training.recipe import threat
from tests.deepcheck.devices import here, on_every_device, on_the_cpu
from tests.deepcheck.training.cases import BEST, LAST, REPORT, Seen, interrupt, same, saved, tiny, weights

pytestmark = on_every_device


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


def assert_same_history(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    """On the CPU number by number; sums on a GPU have no fixed order."""
    off = 0.0 if here() == "cpu" else 1e-5
    assert timeless(ours) == [pytest.approx(row, rel=off, abs=off) for row in timeless(theirs)]


# --- files ---


def test_what_is_left_behind(digits: Images, tmp_path: Path) -> None:
    options = tiny(method="ccat", average=0.9)
    trained = train(options, digits, out=tmp_path / "new", device=here())
    out = tmp_path / "new"
    assert sorted(path.name for path in out.iterdir()) == [LAST, REPORT]
    assert trained.checkpoint == out / LAST
    assert same(weights(trained), dict(checkpoint.load_model(out / LAST).state_dict()))
    report = json.loads((out / REPORT).read_bytes())
    assert Recipe.from_json(report["recipe"]) == options
    assert report["history"] == trained.history
    assert (report["dataset"], report["train_images"], report["epoch"], report["seed"]) == ("digits", 500, 3, "0")
    assert {"torch_version", "git_commit", "device", "created"} <= report.keys()
    content = (out / LAST).read_bytes()  # a header in JSON, and numbers: no pickle
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    del header["__metadata__"]
    assert max(value["data_offsets"][1] for value in header.values()) == len(content) - 8 - size
    assert repr(trained) == f"Trained('linear', 3 epochs, {str(out / LAST)!r})"


# --- interruptions ---

RESUMED = {
    "standard": tiny(epochs=4, average=0.9, augmentation="crop_flip", padding=1),
    "conv": tiny(epochs=4, model="conv_small", patience=4),
    "at": tiny(epochs=4, method="at", optimiser="adam", learning_rate=0.01, ramp=0.5),
    "ccat": tiny(epochs=4, method="ccat", precision="bfloat16"),
    "no momentum": tiny(epochs=4, method="ccat", momentum=0.0),
    "batch norm": tiny(epochs=3, model="preact_resnet18", width=2, average=0.9),
}


@pytest.mark.parametrize("name", list(RESUMED))
def test_a_resumed_training_is_the_same(
    name: str, digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RESUMED[name]
    whole = train(options, digits, out=tmp_path / "whole", device=here())
    out, steps = tmp_path / "parts", 400 // 32
    interrupt(monkeypatch, after=2 * steps + 3)
    with pytest.raises(KeyboardInterrupt):
        train(options, digits, out=out, device=here())
    _, information = checkpoint.read(out / LAST)
    assert information["epoch"] == 2
    checkpoint.load_model(out / LAST)
    resumed = train(options, digits, out=out, device=here(), resume=True)
    assert same(weights(resumed), weights(whole))
    assert_same_history(resumed.history, whole.history)
    (ours, _), (theirs, _) = (checkpoint.read(folder / LAST) for folder in (out, tmp_path / "whole"))
    assert same(ours, theirs)  # and so are optimiser and random numbers


def test_a_training_ends_with_its_time_and_is_the_same_when_it_goes_on(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which an epoch takes 10 seconds: the third would end after 30."""
    options, now, plain = tiny(epochs=4), [0.0], loop._Run.run_epoch
    whole = train(options, digits, out=tmp_path / "whole", device="cpu")

    def slow(*arguments: Any, **options: Any) -> None:
        plain(*arguments, **options)
        now[0] += 10.0

    monkeypatch.setattr(loop._Run, "run_epoch", slow)
    monkeypatch.setattr("deepcheck.training.loop.time.perf_counter", lambda: now[0])
    options_of_train: dict[str, Any] = {"out": tmp_path / "parts", "device": "cpu", "resume": True}
    epochs = []
    for seconds in (29.0, 1.0, 1.0):
        trained = train(options, digits, seconds=seconds, **options_of_train)
        epochs.append((len(trained.history), trained.finished))
    assert epochs == [(2, False), (3, False), (4, True)]
    assert same(weights(trained), weights(whole))
    with pytest.raises(ValueError, match=r"seconds = 0"):
        train(options, digits, seconds=0, **options_of_train)


FORMER = {  # recipes of `tiny(average=0.9)` and `tiny("at", average=0.9)` as they were written before methods had fields
    method: {
        "method": method,
        "model": "linear",
        "width": None,
        "normalised": False,
        "epochs": 3,
        "batch_size": 32,
        "optimiser": "sgd",
        "learning_rate": 0.05,
        "momentum": 0.9,
        "weight_decay": 2e-4,
        "schedule": "cyclic",
        "average": 0.9,
        "augmentation": "none",
        "padding": 4,
        "norm": "linf",
        "epsilon": 0.1,
        "attack_steps": 2,
        "step_size": 0.05,
        "ramp": 0.0,
        "attacked_share": 1.0,
        "rho": 10.0,
        "validation": 100,
        "patience": None,
        "seed": 0,
        "precision": "float32",
    }
    for method in ("standard", "at", "ccat")
}


@pytest.mark.parametrize("method", list(FORMER))
def test_checkpoints_of_former_versions_are_resumed(
    method: str, digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, out = tiny(method, average=0.9), tmp_path / "parts"
    whole = train(options, digits, out=tmp_path / "whole", device=here())
    interrupt(monkeypatch, after=12 + 3)
    with pytest.raises(KeyboardInterrupt):
        train(options, digits, out=out, device=here())
    tensors, information = checkpoint.read(out / LAST)
    checkpoint.write(out / LAST, tensors, {**information, "recipe": FORMER[method]})
    assert Recipe.from_json(FORMER[method]) == options
    assert threat(FORMER[method]) == options.threat == ("linf", 0.1)
    with pytest.raises(CheckpointError, match=re.escape("cannot be resumed: it has average = 0.9 and not 0.8")):
        train(replace(options, average=0.8), digits, out=out, device=here(), resume=True)
    resumed = train(options, digits, out=out, device=here(), resume=True)
    assert same(weights(resumed), weights(whole))


def test_former_recipes_of_no_known_method_are_refused(digits: Images, tmp_path: Path) -> None:
    train(tiny(epochs=1), digits, out=tmp_path, device=here())
    tensors, information = checkpoint.read(tmp_path / LAST)
    checkpoint.write(tmp_path / LAST, tensors, {**information, "recipe": {"method": "mart"}})
    with pytest.raises(ValueError, match="method = 'mart' is unknown"):
        train(tiny(epochs=1), digits, out=tmp_path, device=here(), resume=True)
    for recipe_of_an_early_version in ({"seed": 3}, {"method": "standard", "seed": 3}):
        checkpoint.write(tmp_path / LAST, tensors, {**information, "recipe": recipe_of_an_early_version})
        with pytest.raises(CheckpointError, match="seed = 3 and not 0"):
            train(tiny(epochs=1), digits, out=tmp_path, device=here(), resume=True)


def test_checkpoints_of_other_types_are_refused_in_one_line(digits: Images, tmp_path: Path) -> None:
    options = tiny(epochs=1)
    train(options, digits, out=tmp_path, device=here())
    tensors, information = checkpoint.read(tmp_path / LAST)
    changes: list[tuple[dict[str, Any], dict[str, torch.Tensor], str]] = [
        ({"epoch": "1"}, {}, "it has epoch = '1'"),
        ({"epoch": None}, {}, "it has epoch = None"),
        ({"best": []}, {}, "it has best = "),
        ({"best_epoch": 0.5}, {}, "it has best_epoch = 0.5"),
        ({"history": 3}, {}, "it has history = 3"),
    ]
    recipes: list[Any] = [3, "all", [1], {"method": {}}, {"method": 3}]
    changes += [({"recipe": one}, {}, "its recipe is none") for one in recipes]
    (generator,) = (name for name in tensors if name == "generator.order")
    changes += [
        ({}, {generator: torch.zeros(3, dtype=torch.uint8)}, "cannot be resumed"),
        ({}, {generator: torch.zeros(3)}, "cannot be resumed"),
        ({}, {"optimiser.first": torch.zeros(3)}, "cannot be resumed"),
        ({}, {"optimiser.a.b": torch.zeros(3)}, "cannot be resumed"),
    ]
    for about, others, says in changes:
        checkpoint.write(tmp_path / LAST, tensors | others, information | about)
        with pytest.raises(CheckpointError, match=says) as error:
            train(options, digits, out=tmp_path, device=here(), resume=True)
        assert "\n" not in str(error.value)


def test_random_numbers_of_a_gpu_are_drawn_anew(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seen: Seen
) -> None:
    """Former versions drew them where the training was: 16 bytes of a state that no CPU can go on from."""
    options, out = tiny(augmentation="crop", padding=2, epochs=2), tmp_path / "parts"
    interrupt(monkeypatch, after=12 + 3)
    with pytest.raises(KeyboardInterrupt):
        train(options, digits, out=out, device=here())
    tensors, information = checkpoint.read(out / LAST)
    state = torch.arange(16, dtype=torch.uint8)
    checkpoint.write(out / LAST, {**tensors, "generator.noise": state}, information)
    labels = torch.cat(seen.labels[12:])
    seen.labels.clear()
    assert len(train(options, digits, out=out, device=here(), resume=True).history) == 2
    assert torch.equal(torch.cat(seen.labels)[: len(labels)], labels)  # the order is that of before
    (warning,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert warning.endswith("has random numbers of a GPU, which are drawn on the CPU now: there are new ones")
    assert checkpoint.read(out / LAST)[0]["generator.noise"].shape == torch.Generator().get_state().shape


def test_interrupted_before_the_first_checkpoint(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, after=5)
    out = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), digits, out=out, device=here())
    assert not list(out.iterdir())
    resumed = train(tiny(), digits, out=out, device=here(), resume=True)
    assert same(weights(resumed), weights(train(tiny(), digits, out=tmp_path / "whole", device=here())))


def test_interrupted_while_writing(digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, fsync, calls = tmp_path / "parts", os.fsync, 0

    def interrupted(file: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:  # the checkpoint of the second epoch, after that of the first and its report
            raise KeyboardInterrupt
        fsync(file)

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), digits, out=out, device=here())
    monkeypatch.undo()
    assert sorted(path.name for path in out.iterdir()) == [LAST, REPORT]
    _, information = checkpoint.read(out / LAST)
    assert information["epoch"] == 1
    resumed = train(tiny(), digits, out=out, device=here(), resume=True)
    assert same(weights(resumed), weights(train(tiny(), digits, out=tmp_path / "whole", device=here())))


ENDLESS = """
    import sys

    import numpy as np
    from deepcheck.data import Images
    from deepcheck.training import Recipe, train

    data = np.load(sys.argv[2])
    images = Images("digits", data["x"], data["y"], data["x"][:1], data["y"][:1], tuple("0123456789"), "a test")
    train(Recipe(model="linear", epochs=100_000, validation=100), images, out=sys.argv[1], device="cpu")
"""


@on_the_cpu
@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT there")
def test_a_signal_leaves_whole_files(digits: Images, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(ENDLESS), str(out), str(saved(digits, tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while not (out / REPORT).exists():
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.05)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=600)
        finally:
            process.kill()
    assert process.returncode not in (0, None)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert sorted(path.name for path in out.iterdir()) == [LAST, REPORT]  # no scratch files
    _, information = checkpoint.read(out / LAST)
    assert information["epoch"] >= 1
    checkpoint.load_model(out / LAST)


def test_a_finished_training_is_resumed_at_once(digits: Images, tmp_path: Path, seen: Seen) -> None:
    first = train(tiny(), digits, out=tmp_path, device=here())
    seen.images.clear()
    again = train(tiny(), digits, out=tmp_path, device=here(), resume=True)
    assert not seen.images
    assert same(weights(first), weights(again))
    assert again.history == first.history


# --- early stopping ---


def scripted(monkeypatch: pytest.MonkeyPatch, robust: list[float]) -> None:
    """Let the robust accuracies be these."""
    monkeypatch.setattr(loop._Run, "_accuracies", lambda run: (0.5, robust[run.epoch - 1]))


@pytest.mark.parametrize("interrupted", [False, True])
def test_early_stopping_returns_the_best_weights(
    interrupted: bool, digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.1, 0.5, 0.3, 0.5, 0.4, 0.9, 0.9, 0.9])
    options = tiny(schedule="constant", epochs=8, patience=3, method="at")
    out = tmp_path / "stopped"
    if interrupted:
        interrupt(monkeypatch, after=12 * 3 + 1)
        with pytest.raises(KeyboardInterrupt):
            train(options, digits, out=out, device=here())
    stopped = train(options, digits, out=out, device=here(), resume=interrupted)
    assert len(stopped.history) == 5  # the second was the best, and then 3 were no better
    assert stopped.checkpoint == out / BEST
    assert sorted(path.name for path in out.iterdir()) == [BEST, LAST, REPORT]
    two = train(replace(options, epochs=2, patience=None), digits, out=tmp_path / "two", device=here())
    assert same(weights(stopped), weights(two))
    assert not same(weights(stopped), dict(checkpoint.load_model(out / LAST).state_dict()))


def test_no_early_stopping_while_it_gets_better(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.0, 0.1, 0.1, 0.2])
    trained = train(tiny(epochs=4, patience=2), digits, out=tmp_path, device=here())
    assert len(trained.history) == 4
    assert same(weights(trained), dict(checkpoint.load_model(tmp_path / LAST).state_dict()))
