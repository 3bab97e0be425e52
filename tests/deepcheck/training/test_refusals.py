"""Recipes, and one clear error for each training that cannot be."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcheck import checkpoint
from deepcheck.checkpoint import CheckpointError
from deepcheck.data import Images
from deepcheck.training import METHODS, RECIPES, Recipe, recipe, train
from deepcheck.training.methods.standard import Standard
from tests.deepcheck.training.cases import LAST, tiny

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
