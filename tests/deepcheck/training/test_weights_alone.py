"""A training goes on from weights alone, with a new optimiser, and says so."""

import json
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from deepcheck import checkpoint
from deepcheck.checkpoint import CheckpointError
from deepcheck.data import Images
from deepcheck.training import Recipe, train
from tests.deepcheck.training.cases import BEST, LAST, REPORT, Seen, interrupt, same, tiny, weights


def stopped(
    recipe: Recipe, images: Images, folder: Path, patch: pytest.MonkeyPatch, *, epochs: int, dtype: str = "float32"
) -> Path:
    """Stop a training after so many epochs, and leave its weights alone in another folder, which is returned."""
    interrupt(patch, after=epochs * ((len(images.train_images) - recipe.validation) // recipe.batch_size) + 1)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, images, out=folder / "first", device="cpu")
    path = folder / "first" / LAST
    checkpoint.write_shards(folder / "small", checkpoint.load_model(path), checkpoint.read(path)[1], dtype=dtype)
    return folder / "small"


def test_weights_and_epochs_go_on_and_the_optimiser_begins_anew(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, seen: Seen
) -> None:
    recipe = tiny(epochs=4, schedule="step", average=0.9)
    small = stopped(recipe, digits, tmp_path, monkeypatch, epochs=2)
    result = dict(checkpoint.load_model(small).state_dict())
    before = len(seen.images)
    caplog.set_level(logging.INFO)
    resumed = train(recipe, digits, out=small, device="cpu", resume=True)
    assert "going on after epoch 2 of 4" in caplog.messages
    assert "optimiser restarted after epoch 2" in caplog.messages
    assert same(seen.weights[before], result)  # the average is where both go on from
    assert [row["epoch"] for row in resumed.history] == [1, 2, 3, 4]
    assert seen.progress[before] == 0.5
    report = json.loads((small / REPORT).read_bytes())
    assert report["optimiser_restarted_after"] == [2]
    assert json.loads((tmp_path / "first" / REPORT).read_bytes())["optimiser_restarted_after"] == []
    # the first step has no momentum of before: it is (1 + 0.9) times the gradient
    first, second = (seen.weights[before + k] for k in (0, 1))
    W, b = (first[name].clone().requires_grad_() for name in ("head.weight", "head.bias"))
    loss = torch.nn.functional.cross_entropy(seen.images[before].flatten(1) @ W.T + b, seen.labels[before])
    gradient = torch.autograd.grad(loss, W)[0] + recipe.weight_decay * W.detach()
    expected = W.detach() - 1.9 * resumed.history[2]["learning_rate"] * gradient
    torch.testing.assert_close(second["head.weight"], expected, rtol=1e-4, atol=1e-6)


def test_the_images_come_in_the_order_in_which_they_would_have_come(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: Seen
) -> None:
    recipe = tiny(epochs=3)
    train(recipe, digits, out=tmp_path / "whole", device="cpu")
    whole = list(seen.images)
    small = stopped(recipe, digits, tmp_path, monkeypatch, epochs=1)
    seen.images.clear()
    train(recipe, digits, out=small, device="cpu", resume=True)
    assert len(seen.images) == 2 * 12
    assert all(map(torch.equal, seen.images, whole[12:]))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_weights_in_half_precision_are_as_accurate(
    dtype: str, digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("at", epochs=5, schedule="constant", learning_rate=0.1)
    small = stopped(recipe, digits, tmp_path, monkeypatch, epochs=3, dtype=dtype)
    history = train(recipe, digits, out=small, device="cpu", resume=True).history
    x, y = torch.tensor(digits.train_images[-100:]) / 255, torch.tensor(digits.train_labels[-100:])
    with torch.no_grad():
        right = (checkpoint.load_model(small / "weights-1-of-1.safetensors")(x).argmax(1) == y).double().mean()
    assert abs(float(right) - history[2]["clean_accuracy"]) <= 0.02  # at most two of a hundred are turned by rounding
    assert history[3]["loss"] < history[1]["loss"]  # it goes on from there, not from the beginning


def test_it_is_stopped_again_and_has_the_same_bits(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny("at", epochs=4, average=0.9, augmentation="crop", padding=1)
    small = stopped(recipe, digits, tmp_path, monkeypatch, epochs=1, dtype="bfloat16")
    once, twice, early = (tmp_path / name for name in ("once", "twice", "early"))
    for folder in (once, twice, early):
        folder.mkdir()
        for path in small.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    whole = train(recipe, digits, out=once, device="cpu", resume=True)
    for folder, after in ((twice, 12 + 5), (early, 3)):
        interrupt(monkeypatch, after=after)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, digits, out=folder, device="cpu", resume=True)
        assert checkpoint.read(folder / LAST)[1]["optimiser_restarted_after"] == [1]
        assert same(weights(train(recipe, digits, out=folder, device="cpu", resume=True)), weights(whole))
        assert same(*(checkpoint.read(one / LAST)[0] for one in (folder, once)))
    assert json.loads((twice / REPORT).read_bytes())["optimiser_restarted_after"] == [1]


def test_two_restarts_are_both_recorded(digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny(epochs=4)
    small = stopped(recipe, digits, tmp_path, monkeypatch, epochs=1)
    interrupt(monkeypatch, after=2 * 12 + 1)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, digits, out=small, device="cpu", resume=True)
    again, path = tmp_path / "again", small / LAST
    checkpoint.write_shards(again, checkpoint.load_model(path), checkpoint.read(path)[1])
    train(recipe, digits, out=again, device="cpu", resume=True)
    assert json.loads((again / REPORT).read_bytes())["optimiser_restarted_after"] == [1, 3]


@pytest.mark.parametrize("method", ["at", "ccat"])
def test_weights_of_a_finished_training_are_its_result(method: str, digits: Images, tmp_path: Path) -> None:
    recipe = tiny(method, epochs=2, patience=2)
    trained = train(recipe, digits, out=tmp_path / "first", device="cpu")
    about = checkpoint.read(tmp_path / "first" / LAST)[1]
    checkpoint.write_shards(tmp_path / "small", trained.network, about, dtype="float32")
    again = train(recipe, digits, out=tmp_path / "small", device="cpu", resume=True)
    assert same(weights(again), weights(trained))
    assert again.history == trained.history
    assert again.checkpoint == tmp_path / "small" / BEST


def test_patience_counts_from_the_weights_that_are_there(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(epochs=8, patience=2, learning_rate=1e-9)  # no epoch is better
    small = stopped(recipe, digits, tmp_path, monkeypatch, epochs=1)
    trained = train(recipe, digits, out=small, device="cpu", resume=True)
    assert len(trained.history) == 3
    assert checkpoint.read(small / BEST)[1]["best_epoch"] == 1


def test_what_does_not_fit_is_refused_and_nothing_is_written(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny(epochs=3)
    small = stopped(recipe, digits, tmp_path, monkeypatch, epochs=1)
    with pytest.raises(ValueError, match=re.escape(f"out = {str(small)!r} holds a training already")):
        train(recipe, digits, out=small, device="cpu")
    with pytest.raises(CheckpointError, match=re.escape("cannot be resumed: it has epochs = 3 and not 5")):
        train(replace(recipe, epochs=5), digits, out=small, device="cpu", resume=True)
    with pytest.raises(CheckpointError, match="dataset = 'digits' and not 'other'"):
        train(recipe, replace(digits, name="other"), out=small, device="cpu", resume=True)
    (shard,) = small.iterdir()
    tensors, about = checkpoint.read(small)
    network = checkpoint.load_model(small)
    bare = {name: value for name, value in about.items() if name not in ("history", "recipe")}
    for info, says in (
        (bare, "cannot be resumed: it has"),
        ({**bare, "recipe": about["recipe"]}, "has history = None"),
    ):
        checkpoint.write_shards(small, network, info, overwrite=True)
        with pytest.raises(CheckpointError, match=says):
            train(recipe, digits, out=small, device="cpu", resume=True)
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=re.escape(f"{str(shard)!r} is no whole safetensors file")):
        train(recipe, digits, out=small, device="cpu", resume=True)
    assert list(small.iterdir()) == [shard]
    # and the weights of a training do not pass for the training
    checkpoint.write(small / LAST, tensors, {name: value for name, value in about.items() if name != "shard"})
    with pytest.raises(CheckpointError, match=r"it lacks .* \(are they weights alone\?\)"):
        train(recipe, digits, out=small, device="cpu", resume=True)
