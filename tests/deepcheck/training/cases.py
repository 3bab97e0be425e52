"""Small trainings to test with, and what is seen of them."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from deepcheck.data import Images
from deepcheck.training import METHODS, Recipe, Trained
from deepcheck.training.methods.standard import Standard
from deepcheck.training.step import Learner
from tests.deepcheck.devices import here

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
    kind = METHODS[method]
    attack = {name: value for name, value in ATTACK.items() if name in kind.settings()}
    if "epsilon" not in attack:
        attack["test_epsilon"] = ATTACK["epsilon"]
    return Recipe(method=kind()).changed(**(TINY | attack | changes))


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
    """The same bits on the CPU; sums on a GPU have no fixed order."""
    off = 0.0 if here() == "cpu" else 1e-5
    return ours.keys() == theirs.keys() and all(
        torch.allclose(ours[name].double().cpu(), theirs[name].double().cpu(), rtol=off, atol=off) for name in ours
    )


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


def saved(images: Images, folder: Path) -> Path:
    """Images in a file, for other processes: scikit-learn takes its time to load."""
    np.savez(folder / "images.npz", x=images.train_images, y=images.train_labels)
    return folder / "images.npz"
