"""The training loop: what it learns, what it leaves behind, and how it goes on after an interruption."""

import copy
import inspect
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from deepcheck import checkpoint, models
from deepcheck.checkpoint import CheckpointError
from deepcheck.data import Images, load
from deepcheck.training import METHODS, RECIPES, Recipe, Trained, loop, recipe, train
from deepcheck.training.averaging import Average
from deepcheck.training.methods.standard import Standard
from deepcheck.training.recipe import threat
from deepcheck.training.schedules import SCHEDULES, constant, cyclic, schedule, step
from deepcheck.training.step import Learner

LAST, BEST, REPORT = "last.safetensors", "best.safetensors", "training.json"
TINY: dict[str, Any] = {
    "model": "linear",
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.05,
    "validation": 100,
}
ATTACK: dict[str, Any] = {"epsilon": 0.1, "attack_steps": 2, "step_size": 0.05}


def tiny(method: str = "standard", **changes: Any) -> Recipe:
    attack = {"test_epsilon": 0.1} if method == "standard" else ATTACK
    return Recipe(method=METHODS[method]()).changed(**(TINY | attack | changes))


@pytest.fixture(scope="module")
def digits() -> Images:
    """The first 500 training images of digits."""
    images = load("digits")
    return replace(images, train_images=images.train_images[:500], train_labels=images.train_labels[:500])


def numbered(n: int = 100, channels: int = 1) -> Images:
    """Images of 8 x 8 random pixels, the first of which is the number of the image, and labels of 4 classes."""
    draw = np.random.default_rng(0)
    pixels = draw.integers(0, 256, (n, channels, 8, 8), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(n)
    labels = draw.integers(0, 4, n)
    return Images("numbered", pixels, labels, pixels[:4], labels[:4], ("a", "b", "c", "d"), "a test")


def weights(trained: Trained) -> dict[str, Tensor]:
    return dict(trained.network.state_dict())


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history]


class Seen:
    """Batches and weights at every step of a standard training."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.weights: list[dict[str, Tensor]] = []
        self.progress: list[float] = []
        plain = Standard.loss

        def watched(method: Standard, model: Any, images: Tensor, labels: Tensor, **options: Any) -> Tensor:
            assert model.training
            self.images.append(images.clone())
            self.labels.append(labels.clone())
            self.weights.append(copy.deepcopy(dict(model.state_dict())))
            self.progress.append(options["progress"])
            return plain(method, model, images, labels, **options)

        monkeypatch.setattr(Standard, "loss", watched)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    return Seen(monkeypatch)


# --- learning rates ---


def test_schedules() -> None:
    progress = [0.0, 0.1, 0.2, 0.49, 0.5, 0.6, 0.74, 0.75, 0.99, 1.0]
    expected = {
        constant: [1.0] * 10,
        cyclic: [0, 0.5, 1, 0.6375, 0.625, 0.5, 0.325, 0.3125, 0.0125, 0],
        step: [1, 1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.01],
    }
    for function, values in expected.items():
        np.testing.assert_allclose([function(p) for p in progress], values, atol=1e-15)
    assert {name: schedule(name) for name in SCHEDULES} == {"constant": constant, "cyclic": cyclic, "step": step}
    with pytest.raises(ValueError, match=re.escape("schedule = 'cyclc' is unknown (did you mean 'cyclic'?)")):
        schedule("cyclc")


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_the_learning_rate_follows_the_schedule(name: str, digits: Images, tmp_path: Path) -> None:
    history = train(tiny(schedule=name), digits, out=tmp_path, device="cpu").history
    steps = 400 // 32
    last = [((epoch + 1) * steps - 1) / (3 * steps) for epoch in range(3)]
    np.testing.assert_allclose(
        [row["learning_rate"] for row in history], [0.05 * SCHEDULES[name](progress) for progress in last]
    )


# --- the loop against plain formulas ---


def test_each_epoch_is_a_new_order_of_the_training_images(tmp_path: Path, seen: Seen) -> None:
    train(tiny(batch_size=15, validation=20), numbered(), out=tmp_path, device="cpu")
    numbers = torch.stack([(x[:, 0, 0, 0] * 255).round().int() for x in seen.images]).view(3, 5, 15)
    for epoch in numbers:  # 75 of the 80 images, none twice, and none of those kept apart
        assert len(set(epoch.flatten().tolist())) == 75
        assert epoch.max() < 80
    assert not torch.equal(numbers[0], numbers[1])
    labels = torch.tensor(numbered().train_labels)
    for number, y in zip(numbers.flatten(0, 1), seen.labels, strict=True):
        assert torch.equal(labels[number.long()], y)
    np.testing.assert_allclose(seen.progress, np.arange(15) / 15)


def test_steps_are_those_of_nesterov_momentum(digits: Images, tmp_path: Path, seen: Seen) -> None:
    options = tiny(momentum=0.8, weight_decay=0.01, schedule="step", epochs=2)
    trained = train(options, digits, out=tmp_path, device="cpu")
    w = {name: tensor.double() for name, tensor in seen.weights[0].items()}
    v = {name: torch.zeros_like(tensor) for name, tensor in w.items()}
    losses = []
    for x, y, progress in zip(seen.images, seen.labels, seen.progress, strict=True):
        W, b = w["head.weight"].requires_grad_(), w["head.bias"].requires_grad_()
        loss = F.cross_entropy(x.double().flatten(1) @ W.T + b, y)
        gradients = torch.autograd.grad(loss, (W, b))
        losses.append(float(loss.detach()))
        for name, gradient in zip(("head.weight", "head.bias"), gradients, strict=True):
            g = gradient + 0.01 * w[name].detach()
            v[name] = 0.8 * v[name] + g
            w[name] = w[name].detach() - 0.05 * step(progress) * (g + 0.8 * v[name])
    for name, tensor in weights(trained).items():
        torch.testing.assert_close(tensor.double(), w[name].detach(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose([row["loss"] for row in trained.history], np.mean(np.reshape(losses, (2, 12)), 1), 1e-5)


def test_adam_moves_every_weight_by_the_learning_rate_first(digits: Images, tmp_path: Path, seen: Seen) -> None:
    train(tiny(optimiser="adam", schedule="constant", learning_rate=1e-3), digits, out=tmp_path, device="cpu")
    first = (seen.weights[1]["head.bias"] - seen.weights[0]["head.bias"]).abs()
    torch.testing.assert_close(first, torch.full_like(first, 1e-3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("average", [0.5, 0.9])
def test_averaged_weights(average: float, digits: Images, tmp_path: Path, seen: Seen) -> None:
    trained = train(tiny(average=average), digits, out=tmp_path, device="cpu")
    tensors, _ = checkpoint.read(tmp_path / LAST)
    expected = {name: tensor.double() for name, tensor in seen.weights[0].items()}
    after = [*seen.weights[1:], {name: tensors["current." + name] for name in expected}]
    for k, current in enumerate(after, 1):
        decay = min(average, (1 + k) / (10 + k))
        expected = {name: decay * mean + (1 - decay) * current[name].double() for name, mean in expected.items()}
    for name, tensor in weights(trained).items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-6)
        assert not torch.equal(tensor, after[-1][name])


def test_averages_of_weights_and_running_statistics_are_those_of_torch_bit_by_bit() -> None:
    network = models.build("preact_resnet18", 4, (1, 8, 8), generator=torch.Generator().manual_seed(1), channels=2)

    def follow(means: Any, current: Any, n: Any) -> None:  # n networks are in the average already
        decay = min(0.6, (int(n) + 1) / (int(n) + 10))
        for mean, tensor in zip(means, current, strict=True):
            mean.copy_(torch.lerp(mean, tensor, 1 - decay) if mean.is_floating_point() else tensor)

    average, theirs = Average(network, 0.6), AveragedModel(network, multi_avg_fn=follow, use_buffers=True)
    theirs.update_parameters(network)  # the first time, it copies
    assert same(dict(average.network.state_dict()), dict(network.state_dict()))
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    for n in range(1, 8):
        network(x * n)  # moves the statistics, and counts
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(1.1)
        average.update(network)
        theirs.update_parameters(network)
        assert same(dict(average.network.state_dict()), dict(theirs.module.state_dict()))
    assert not same(dict(average.network.state_dict()), dict(network.state_dict()))
    counts = {int(tensor) for name, tensor in average.network.state_dict().items() if "num_batches" in name}
    assert counts == {7}


@pytest.mark.parametrize("average", [0.0, 0.9])
def test_the_accuracy_shown_is_that_of_the_network_returned(average: float, digits: Images, tmp_path: Path) -> None:
    trained = train(tiny(average=average), digits, out=tmp_path, device="cpu")
    assert not trained.network.training
    with torch.no_grad():
        right = trained.network(torch.tensor(digits.train_images[-100:]) / 255).argmax(1) == torch.tensor(
            digits.train_labels[-100:]
        )
    assert trained.history[-1]["clean_accuracy"] == float(right.double().mean())


def test_augmentation_is_used(tmp_path: Path, seen: Seen) -> None:
    images = numbered()
    originals = torch.tensor(images.train_images).float() / 255
    for augmentation, share in (("none", 1.0), ("crop", 1 / 25), ("crop_flip", 1 / 50)):
        seen.images.clear()
        options = tiny(augmentation=augmentation, padding=2, validation=20, batch_size=16)
        train(options, images, out=tmp_path / augmentation, device="cpu")
        x = torch.cat(seen.images)
        untouched = (x[:, None] == originals[None]).flatten(2).all(2).any(1)
        n = len(x)
        # shares of images that are not changed: binomial, within 4 standard errors
        assert abs(int(untouched.sum()) - n * share) <= 4 * math.sqrt(n * share * (1 - share))
        assert x.amin() >= 0


# --- what is learned ---


@pytest.mark.parametrize(
    ("changes", "least_clean", "least_robust"),
    [
        ({"model": "conv_small", "epochs": 10}, 0.6, 0.0),
        ({"learning_rate": 0.2}, 0.6, 0.0),
        ({"optimiser": "adam", "learning_rate": 0.01, "augmentation": "crop", "padding": 1, "epochs": 6}, 0.4, 0.0),
        ({"method": "at", "epochs": 6}, 0.6, 0.3),
        ({"method": "at", "attacked_share": 0.5, "ramp": 0.5, "epochs": 6}, 0.6, 0.3),
        ({"method": "ccat", "epochs": 6}, 0.6, 0.0),
        ({"learning_rate": 0.2, "precision": "bfloat16"}, 0.6, 0.0),
        ({"method": "at", "epochs": 6, "precision": "bfloat16"}, 0.6, 0.3),
        ({"method": "ccat", "epochs": 6, "precision": "bfloat16"}, 0.6, 0.0),
    ],
    ids=lambda value: "_".join(map(str, value.values())) if isinstance(value, dict) else str(value),
)
def test_every_method_learns(
    changes: dict[str, Any], least_clean: float, least_robust: float, digits: Images, tmp_path: Path
) -> None:
    trained = train(tiny(**changes), digits, out=tmp_path, device="cpu")
    history = trained.history
    assert [row["epoch"] for row in history] == list(range(1, len(history) + 1))
    assert history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["clean_accuracy"] >= least_clean  # by chance 0.1, within a standard error of 0.03
    assert history[-1]["clean_accuracy"] >= history[-1]["robust_accuracy"] >= least_robust
    assert all(tensor.dtype == torch.float32 for tensor in weights(trained).values())


def test_adversarial_training_is_more_robust(digits: Images, tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 10, "learning_rate": 0.5, "test_epsilon": 0.2}
    attack = {"epsilon": 0.2, "attack_steps": 4, "step_size": 0.1}
    standard, at = (
        train(one, digits, out=tmp_path / one.method.name, device="cpu").history[-1]
        for one in (tiny(**options), tiny("at", **options, **attack))
    )
    assert at["robust_accuracy"] > standard["robust_accuracy"] + 0.1


def test_bfloat16_is_used(digits: Images, tmp_path: Path) -> None:
    losses = [
        train(tiny(precision=precision, epochs=1), digits, out=tmp_path / precision, device="cpu").history[0]["loss"]
        for precision in ("float32", "bfloat16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2**-8 * 10)


# --- the same again, and random numbers ---


def test_the_seed_determines_everything(digits: Images, tmp_path: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    first, again, other = (
        weights(train(tiny(method="ccat", seed=seed), digits, out=tmp_path / name, device="cpu"))
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    assert same(first, again)
    assert not same(first, other)
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # type: ignore[index]  # noqa: NPY002


def test_global_random_numbers_do_not_matter(digits: Images, tmp_path: Path) -> None:
    results = []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            results.append(weights(train(tiny(method="at"), digits, out=tmp_path / str(seed), device="cpu")))
    assert same(*results)


# --- options of speed ---


def test_channels_last_changes_the_layout_alone(tmp_path: Path, seen: Seen) -> None:
    images = numbered(channels=3)
    results = []
    for channels_last in (False, True):
        seen.images.clear()
        out, options = tmp_path / str(channels_last), tiny(model="conv_small", validation=20, augmentation="crop_flip")
        results.append(weights(train(options, images, out=out, device="cpu", channels_last=channels_last)))
        assert all(x.is_contiguous(memory_format=torch.channels_last) == channels_last for x in seen.images)
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_networks_are_compiled_on_request_alone(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspect.signature(train).parameters["compiled"].default is False
    compiled: list[object] = []

    def record(network: object) -> object:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", record)
    plain = train(tiny(), digits, out=tmp_path / "plain", device="cpu")
    assert not compiled
    fast = train(tiny(), digits, out=tmp_path / "fast", device="cpu", compiled=True)
    assert len(compiled) == 1
    assert same(weights(plain), weights(fast))


# --- files ---


def test_what_is_left_behind(digits: Images, tmp_path: Path) -> None:
    options = tiny(method="ccat", average=0.9)
    trained = train(options, digits, out=tmp_path / "new", device="cpu")
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


def interrupt(monkeypatch: pytest.MonkeyPatch, *, after: int) -> None:
    """Press Ctrl-C after so many steps, once."""
    plain = Learner.step
    steps = 0

    def interrupted(learner: Learner, *arguments: Any) -> Tensor:
        nonlocal steps
        steps += 1
        if steps == after:
            monkeypatch.setattr(Learner, "step", plain)
            raise KeyboardInterrupt
        return plain(learner, *arguments)

    monkeypatch.setattr(Learner, "step", interrupted)


@pytest.mark.parametrize("name", list(RESUMED))
def test_a_resumed_training_is_the_same(
    name: str, digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RESUMED[name]
    whole = train(options, digits, out=tmp_path / "whole", device="cpu")
    out, steps = tmp_path / "parts", 400 // 32
    interrupt(monkeypatch, after=2 * steps + 3)
    with pytest.raises(KeyboardInterrupt):
        train(options, digits, out=out, device="cpu")
    _, information = checkpoint.read(out / LAST)
    assert information["epoch"] == 2
    checkpoint.load_model(out / LAST)
    resumed = train(options, digits, out=out, device="cpu", resume=True)
    assert same(weights(resumed), weights(whole))
    assert timeless(resumed.history) == timeless(whole.history)
    (ours, _), (theirs, _) = (checkpoint.read(folder / LAST) for folder in (out, tmp_path / "whole"))
    assert same(ours, theirs)  # and so are optimiser and random numbers


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
    whole = train(options, digits, out=tmp_path / "whole", device="cpu")
    interrupt(monkeypatch, after=12 + 3)
    with pytest.raises(KeyboardInterrupt):
        train(options, digits, out=out, device="cpu")
    tensors, information = checkpoint.read(out / LAST)
    checkpoint.write(out / LAST, tensors, {**information, "recipe": FORMER[method]})
    assert Recipe.from_json(FORMER[method]) == options
    assert threat(FORMER[method]) == options.threat == ("linf", 0.1)
    with pytest.raises(CheckpointError, match=re.escape("cannot be resumed: it has average = 0.9 and not 0.8")):
        train(replace(options, average=0.8), digits, out=out, device="cpu", resume=True)
    resumed = train(options, digits, out=out, device="cpu", resume=True)
    assert same(weights(resumed), weights(whole))


def test_former_recipes_of_no_known_method_are_refused(digits: Images, tmp_path: Path) -> None:
    train(tiny(epochs=1), digits, out=tmp_path, device="cpu")
    tensors, information = checkpoint.read(tmp_path / LAST)
    checkpoint.write(tmp_path / LAST, tensors, {**information, "recipe": {"method": "mart"}})
    with pytest.raises(ValueError, match="method = 'mart' is unknown"):
        train(tiny(epochs=1), digits, out=tmp_path, device="cpu", resume=True)
    for recipe_of_an_early_version in ({"seed": 3}, {"method": "standard", "seed": 3}):
        checkpoint.write(tmp_path / LAST, tensors, {**information, "recipe": recipe_of_an_early_version})
        with pytest.raises(CheckpointError, match="seed = 3 and not 0"):
            train(tiny(epochs=1), digits, out=tmp_path, device="cpu", resume=True)


def test_interrupted_before_the_first_checkpoint(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt(monkeypatch, after=5)
    out = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        train(tiny(), digits, out=out, device="cpu")
    assert not list(out.iterdir())
    resumed = train(tiny(), digits, out=out, device="cpu", resume=True)
    assert same(weights(resumed), weights(train(tiny(), digits, out=tmp_path / "whole", device="cpu")))


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
        train(tiny(), digits, out=out, device="cpu")
    monkeypatch.undo()
    assert sorted(path.name for path in out.iterdir()) == [LAST, REPORT]
    _, information = checkpoint.read(out / LAST)
    assert information["epoch"] == 1
    resumed = train(tiny(), digits, out=out, device="cpu", resume=True)
    assert same(weights(resumed), weights(train(tiny(), digits, out=tmp_path / "whole", device="cpu")))


ENDLESS = """
    import sys

    import numpy as np
    from deepcheck.data import Images
    from deepcheck.training import Recipe, train

    data = np.load(sys.argv[2])
    images = Images("digits", data["x"], data["y"], data["x"][:1], data["y"][:1], tuple("0123456789"), "a test")
    train(Recipe(model="linear", epochs=100_000, validation=100), images, out=sys.argv[1], device="cpu")
"""


def saved(images: Images, folder: Path) -> Path:
    """Images in a file, for other processes: scikit-learn takes its time to load."""
    np.savez(folder / "images.npz", x=images.train_images, y=images.train_labels)
    return folder / "images.npz"


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT there")
def test_a_signal_leaves_whole_files(digits: Images, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-c", textwrap.dedent(ENDLESS), str(out), str(saved(digits, tmp_path))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            for _ in range(600):
                if (out / REPORT).exists():
                    break
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.05)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode not in (0, None)
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert sorted(path.name for path in out.iterdir()) == [LAST, REPORT]  # no scratch files
    _, information = checkpoint.read(out / LAST)
    assert information["epoch"] >= 1
    checkpoint.load_model(out / LAST)


def test_a_finished_training_is_resumed_at_once(digits: Images, tmp_path: Path, seen: Seen) -> None:
    first = train(tiny(), digits, out=tmp_path, device="cpu")
    seen.images.clear()
    again = train(tiny(), digits, out=tmp_path, device="cpu", resume=True)
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
            train(options, digits, out=out, device="cpu")
    stopped = train(options, digits, out=out, device="cpu", resume=interrupted)
    assert len(stopped.history) == 5  # the second was the best, and then 3 were no better
    assert stopped.checkpoint == out / BEST
    assert sorted(path.name for path in out.iterdir()) == [BEST, LAST, REPORT]
    two = train(replace(options, epochs=2, patience=None), digits, out=tmp_path / "two", device="cpu")
    assert same(weights(stopped), weights(two))
    assert not same(weights(stopped), dict(checkpoint.load_model(out / LAST).state_dict()))


def test_no_early_stopping_while_it_gets_better(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted(monkeypatch, [0.0, 0.1, 0.1, 0.2])
    trained = train(tiny(epochs=4, patience=2), digits, out=tmp_path, device="cpu")
    assert len(trained.history) == 4
    assert same(weights(trained), dict(checkpoint.load_model(tmp_path / LAST).state_dict()))


# --- one clear error each ---


@pytest.fixture(scope="module")
def finished(digits: Images, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The checkpoint of a training."""
    out = tmp_path_factory.mktemp("finished")
    train(tiny(epochs=1), digits, out=out, device="cpu")
    return (out / LAST).read_bytes()


def test_a_training_is_not_overwritten(finished: bytes, digits: Images, tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes(finished)
    message = f"out = {str(tmp_path)!r} holds a training already: allowed is another folder, or resume=True"
    with pytest.raises(ValueError, match=re.escape(message)):
        train(tiny(epochs=1), digits, out=tmp_path, device="cpu")
    assert (tmp_path / LAST).read_bytes() == finished


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda options, images: (replace(options, test_epsilon=0.2), images), "test_epsilon = 0.1 and not 0.2"),
        (lambda options, images: (replace(options, epochs=5), images), "epochs = 1 and not 5"),
        (lambda options, images: (replace(options, model="conv_small"), images), "model = 'linear' and not 'conv_"),
        (
            lambda options, images: (replace(options, method=METHODS["at"](), seed=1), images),
            "method = 'standard' and not 'at', seed = 0 and not 1",
        ),
        (lambda options, images: (options, replace(images, name="mnist")), "dataset = 'digits' and not 'mnist'"),
        (
            lambda options, images: (
                options,
                replace(images, train_images=images.train_images[:400], train_labels=images.train_labels[:400]),
            ),
            "train_images = 500 and not 400",
        ),
    ],
    ids=["epsilon", "epochs", "model", "two", "dataset", "count"],
)
def test_resuming_with_something_else(
    change: Callable[[Recipe, Images], tuple[Recipe, Images]],
    message: str,
    finished: bytes,
    digits: Images,
    tmp_path: Path,
) -> None:
    (tmp_path / LAST).write_bytes(finished)
    options, images = change(tiny(epochs=1), digits)
    whole = f"{str(tmp_path / LAST)!r} cannot be resumed: it has {message}"
    with pytest.raises(CheckpointError, match=re.escape(whole)):
        train(options, images, out=tmp_path, device="cpu", resume=True)
    assert (tmp_path / LAST).read_bytes() == finished


def test_resuming_what_is_truncated_or_lacks_something(finished: bytes, digits: Images, tmp_path: Path) -> None:
    path = tmp_path / LAST
    path.write_bytes(finished[:-10])
    with pytest.raises(CheckpointError, match=re.escape(f"{str(path)!r} is no whole safetensors file")):
        train(tiny(epochs=1), digits, out=tmp_path, device="cpu", resume=True)
    path.write_bytes(finished)
    tensors, information = checkpoint.read(path)
    model = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    checkpoint.write(path, model, information)
    message = f"{str(path)!r} cannot be resumed: it lacks generator.noise, generator.order (are they weights alone?)"
    with pytest.raises(CheckpointError, match=re.escape(message)):
        train(tiny(epochs=1), digits, out=tmp_path, device="cpu", resume=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"validation": 500}, "digits has 500 training images, too few for validation = 500 and batch_size = 32"),
        ({"validation": 469}, "digits has 500 training images, too few for validation = 469 and batch_size = 32"),
        ({"validation": 1000}, "too few for validation = 1000"),
    ],
)
def test_too_few_images(changes: dict[str, Any], message: str, digits: Images, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        train(tiny(**changes), digits, out=tmp_path, device="cpu")


def test_bad_places(digits: Images, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with pytest.raises(FileNotFoundError, match=re.escape(f"out = {str(out)!r} cannot be made: its folder")):
        train(tiny(), digits, out=out, device="cpu")
    with pytest.raises(ValueError, match="device = 'gpu' is not available"):
        train(tiny(), digits, out=tmp_path / "c", device="gpu")
    assert not list(tmp_path.iterdir())


def test_short_memory(digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Standard, "loss", fail)
    with pytest.raises(MemoryError, match="batch_size = 32 needs more memory than the GPU has: try 16"):
        train(tiny(), digits, out=tmp_path, device="cpu")


# --- recipes ---


def test_there_is_a_recipe_for_every_data_set_and_method() -> None:
    assert set(RECIPES) == {(dataset, method) for dataset in ("mnist", "cifar10", "digits") for method in METHODS}
    for (dataset, method), value in RECIPES.items():
        assert value.method.name == method
        assert recipe(dataset, method) == value
        changed = recipe(dataset, method, seed=7, epochs=2)
        assert changed == replace(value, seed=7, epochs=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "linaer"}, "model = 'linaer' is unknown (did you mean 'linear'?)"),
        ({"optimiser": "adamw"}, "optimiser = 'adamw' is unknown (did you mean 'adam'?)"),
        ({"schedule": "cos"}, "schedule = 'cos' is unknown"),
        ({"augmentation": "flip"}, "augmentation = 'flip' is unknown"),
        ({"precision": "float16"}, "precision = 'float16' is unknown"),
        ({"epochs": 0}, "epochs = 0 is out of range: allowed is a whole number >= 1"),
        ({"batch_size": 1}, "batch_size = 1 is out of range: allowed is a whole number >= 2"),
        ({"validation": 0}, "validation = 0 is out of range"),
        ({"patience": 0}, "patience = 0 is out of range"),
        ({"width": 0}, "width = 0 is out of range"),
        ({"seed": -1}, "seed = -1 is out of range"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 is out of range: allowed is a finite number and > 0"),
        ({"learning_rate": math.nan}, "learning_rate = nan is out of range"),
        ({"momentum": 1.0}, "momentum = 1.0 is out of range"),
        ({"average": 1.0}, "average = 1.0 is out of range"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0 is out of range"),
        ({"test_epsilon": -0.1}, "test_epsilon = -0.1 is out of range"),
        ({"test_norm": "l1"}, "test_norm = 'l1' is unknown"),
    ],
    ids=str,
)
def test_bad_recipes(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Recipe(**changes)
    with pytest.raises(ValueError, match=re.escape(message)):
        recipe("mnist", "at", **changes)


def test_bad_choices_of_a_recipe() -> None:
    with pytest.raises(ValueError, match=re.escape("dataset = 'mnits' is unknown (did you mean 'mnist'?)")):
        recipe("mnits", "at")
    with pytest.raises(
        ValueError, match=re.escape("method = 'att' is unknown (did you mean 'at'?): allowed is one of st")
    ):
        recipe("mnist", "att")
    with pytest.raises(ValueError, match=re.escape("method = 'cat' is unknown (did you mean 'ccat'?)")):
        recipe("mnist", "cat")
    with pytest.raises(ValueError, match=re.escape("'epoch' is unknown (did you mean 'epochs'?)")):
        recipe("mnist", "at", epoch=3)
    with pytest.raises(TypeError, match="method = 'at' is of the wrong type"):
        recipe("mnist", "at").changed(method="at", epsilon=0.1)
    with pytest.raises(ValueError, match=r"epochs = 2\.5 is out of range"):
        recipe("mnist", "at", epochs=2.5)
    with pytest.raises(TypeError, match="epochs = 'two' is not a number"):
        recipe("mnist", "at", epochs="two")


def test_an_epsilon_of_zero_is_allowed_for_adversarial_training() -> None:
    assert recipe("mnist", "at", epsilon=0.0).threat == ("linf", 0.0)


# --- several processes ---

WORKER = """
    import json
    import os
    import sys
    from dataclasses import replace
    from pathlib import Path

    import numpy as np
    import torch
    from deepcheck import checkpoint
    from deepcheck.data import Images
    from deepcheck.training import loop, recipe, train

    torch.set_num_threads(1)
    out, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    data = np.load(sys.argv[2])
    images = Images("digits", data["x"], data["y"], data["x"][:1], data["y"][:1], tuple("0123456789"), "a test")
    common = {"model": "linear", "epochs": 2, "batch_size": 32, "learning_rate": 0.05, "validation": 100}
    attack = {"epsilon": 0.1, "attack_steps": 2, "step_size": 0.06}
    recipes = {"standard": recipe("digits", "standard", **common), "ccat": recipe("digits", "ccat", **common, **attack)}
    options = recipes["standard"]
    write, runs, result = checkpoint.write, [], {"written": []}

    def recorded(path, *arguments):
        result["written"].append(str(path))
        return write(path, *arguments)

    class Kept(loop._Run):
        def __init__(self, *arguments, **more):
            super().__init__(*arguments, **more)
            runs.append(self)

    checkpoint.write, loop._Run = recorded, Kept
    for method in ("standard", "ccat"):
        trained = train(recipes[method], images, out=out / method, device="cpu")
        weights = runs[-1].learner.network.state_dict()
        result[method] = {name: tensor.double().sum().item() for name, tensor in weights.items()}
        returned = trained.network.state_dict()
        assert all(torch.equal(returned[name], weights[name]) for name in weights), "another network came back"
        noise = runs[-1].noise.get_state()
    result["noise"] = sum(noise.tolist())
    again = train(recipes["ccat"], images, out=out / "ccat", device="cpu", resume=True)
    result["epochs"] = len(again.history)

    # processes that see different accuracies decide the same, and none waits for the others for ever
    Kept._accuracies = lambda run: (0.5, 0.5 if rank == 0 else 0.1 * run.epoch)
    stopped = train(replace(options, epochs=9, patience=2), images, out=out / "stopped", device="cpu")
    result["stopped"] = len(stopped.history)
    try:
        train(replace(options, batch_size=2), images, out=out / "small", device="cpu")
    except ValueError as error:
        result["error"] = str(error)
    (out / f"{rank}.json").write_text(json.dumps(result))
"""


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(), reason="gloo is not available"
)
def test_two_processes(digits: Images, tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(textwrap.dedent(WORKER))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(worker), str(tmp_path), str(saved(digits, tmp_path))]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as run:
        try:
            _, errors = run.communicate(timeout=60)
        finally:
            run.terminate()  # and it ends the two
    assert run.returncode == 0, errors
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert len(first["written"]) == 2 + 2 + 4  # last of each epoch; when it stops, of 3 epochs, and best of the first
    assert not second["written"]
    for method in ("standard", "ccat"):
        assert first[method] == second[method]
        assert all(map(math.isfinite, first[method].values()))
    assert first["noise"] != second["noise"]  # each attacks with its own random numbers
    assert first["epochs"] == second["epochs"] == 2
    assert first["stopped"] == second["stopped"] == 3
    message = "batch_size = 2 cannot be shared by 2 processes: allowed is 4 or a larger multiple of 2"
    assert first["error"] == second["error"] == message
    # the mean of the gradients of two halves is the gradient of the whole batch
    options = Recipe(model="linear", epochs=2, batch_size=32, validation=100)
    alone = train(options, digits, out=tmp_path / "alone", device="cpu")
    together = checkpoint.load_model(tmp_path / "standard" / LAST).state_dict()
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(together[name], tensor, rtol=1e-3, atol=1e-4)
