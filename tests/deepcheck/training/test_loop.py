"""The training loop: against plain formulas, what it learns, and that nothing but the seed decides."""

import inspect
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from deepcheck import checkpoint, models
from deepcheck.data import Images
from deepcheck.training import train
from deepcheck.training.averaging import Average
from deepcheck.training.schedules import SCHEDULES, constant, cyclic, schedule, step
from tests.deepcheck.devices import here, on_every_device
from tests.deepcheck.training.cases import LAST, Seen, numbered, same, tiny, weights

pytestmark = on_every_device

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
    history = train(tiny(schedule=name), digits, out=tmp_path, device=here()).history
    steps = 400 // 32
    last = [((epoch + 1) * steps - 1) / (3 * steps) for epoch in range(3)]
    np.testing.assert_allclose(
        [row["learning_rate"] for row in history], [0.05 * SCHEDULES[name](progress) for progress in last]
    )


# --- the loop against plain formulas ---


def test_each_epoch_is_a_new_order_of_the_training_images(tmp_path: Path, seen: Seen) -> None:
    train(tiny(batch_size=15, validation=20), numbered(), out=tmp_path, device=here())
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
    trained = train(options, digits, out=tmp_path, device=here())
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
    train(tiny(optimiser="adam", schedule="constant", learning_rate=1e-3), digits, out=tmp_path, device=here())
    first = (seen.weights[1]["head.bias"] - seen.weights[0]["head.bias"]).abs()
    torch.testing.assert_close(first, torch.full_like(first, 1e-3), rtol=1e-3, atol=0)


@pytest.mark.parametrize("average", [0.5, 0.9])
def test_averaged_weights(average: float, digits: Images, tmp_path: Path, seen: Seen) -> None:
    trained = train(tiny(average=average), digits, out=tmp_path, device=here())
    tensors, _ = checkpoint.read(tmp_path / LAST)
    expected = {name: tensor.double() for name, tensor in seen.weights[0].items()}
    after = [*seen.weights[1:], {name: tensors["current." + name].to(here()) for name in expected}]
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
    trained = train(tiny(average=average), digits, out=tmp_path, device=here())
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
        train(options, images, out=tmp_path / augmentation, device=here())
        x = torch.cat(seen.images)
        untouched = (x[:, None] == originals[None]).flatten(2).all(2).any(1)
        n = len(x)
        # shares of images that are not changed: binomial, within 4 standard errors
        assert abs(int(untouched.sum()) - n * share) <= 4 * math.sqrt(n * share * (1 - share))
        assert x.amin() >= 0


def test_random_numbers_are_those_of_one_generator_on_the_cpu(tmp_path: Path, seen: Seen) -> None:
    """Shifts and mirrors of a training, drawn once more: the seed determines them on every device."""
    images = numbered()
    recipe = tiny(augmentation="crop_flip", padding=2, validation=20, batch_size=16, epochs=1, seed=3)
    train(recipe, images, out=tmp_path, device=here())
    order = torch.randperm(80, generator=torch.Generator().manual_seed(3 + 1_000_003)).view(5, 16)
    noise = torch.Generator().manual_seed(3 + 2_000_003)
    originals = torch.tensor(images.train_images).float() / 255
    for x, chosen in zip(seen.images, order, strict=True):
        down, right = torch.randint(5, (2, 16, 1), generator=noise).squeeze(2).tolist()
        mirrored = (torch.rand(16, generator=noise) < 0.5).tolist()
        padded = F.pad(originals[chosen], (2, 2, 2, 2))
        for k, picture in enumerate(x):
            expected = padded[k, :, down[k] : down[k] + 8, right[k] : right[k] + 8]
            assert torch.equal(picture, expected.flip(2) if mirrored[k] else expected)


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
    trained = train(tiny(**changes), digits, out=tmp_path, device=here())
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
        train(one, digits, out=tmp_path / one.method.name, device=here()).history[-1]
        for one in (tiny(**options), tiny("at", **options, **attack))
    )
    assert at["robust_accuracy"] > standard["robust_accuracy"] + 0.1


def test_bfloat16_is_used(digits: Images, tmp_path: Path) -> None:
    losses = [
        train(tiny(precision=precision, epochs=1), digits, out=tmp_path / precision, device=here()).history[0]["loss"]
        for precision in ("float32", "bfloat16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2**-8 * 10)


# --- the same again, and random numbers ---


def test_the_seed_determines_everything(digits: Images, tmp_path: Path) -> None:
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    first, again, other = (
        weights(train(tiny(method="ccat", seed=seed), digits, out=tmp_path / name, device=here()))
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
            results.append(weights(train(tiny(method="at"), digits, out=tmp_path / str(seed), device=here())))
    assert same(*results)


# --- options of speed ---


def test_channels_last_changes_the_layout_alone(tmp_path: Path, seen: Seen) -> None:
    images = numbered(channels=3)
    results = []
    for channels_last in (False, True):
        seen.images.clear()
        out, options = tmp_path / str(channels_last), tiny(model="conv_small", validation=20, augmentation="crop_flip")
        results.append(weights(train(options, images, out=out, device=here(), channels_last=channels_last)))
        assert all(x.is_contiguous(memory_format=torch.channels_last) == channels_last for x in seen.images)
    for name, tensor in results[0].items():
        torch.testing.assert_close(results[1][name], tensor, rtol=1e-3, atol=1e-4)


def test_networks_are_compiled_on_request_alone(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inspect.signature(train).parameters["compiled"].default is False
    compiled: list[object] = []

    def record(network: object, **_: object) -> object:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", record)
    plain = train(tiny(), digits, out=tmp_path / "plain", device=here())
    assert not compiled
    fast = train(tiny(), digits, out=tmp_path / "fast", device=here(), compiled=True)
    assert len(compiled) == 1
    assert same(weights(plain), weights(fast))
