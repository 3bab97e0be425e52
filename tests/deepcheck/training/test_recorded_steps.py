"""Steps that are played back have the weights of steps that are taken one by one, bit by bit.

On the CPU `Captured` keeps the buffers of a CUDA graph, and calls the function where CUDA plays the recording back.
"""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcheck import models
from deepcheck.data import Images
from deepcheck.graphs import Captured
from deepcheck.training import METHODS, Recipe, train
from deepcheck.training.checkpointing import packed
from deepcheck.training.parallel import Group
from deepcheck.training.step import Learner
from tests.deepcheck.more_methods import MORE
from tests.deepcheck.training.cases import REPORT, interrupt, same, tiny, weights

RECIPES: dict[str, dict[str, Any]] = {
    "standard": {"augmentation": "crop_flip", "padding": 1},
    "at": {"average": 0.9},
    "at half": {"attacked_share": 0.5, "optimiser": "adam", "learning_rate": 0.01},
    "at ramp": {"ramp": 0.5, "precision": "bfloat16"},
    "at steps": {"attack_steps": 4, "first_steps": 1, "growth": 0.7},
    "ccat": {"average": 0.9},
    "ccat bfloat16": {"precision": "bfloat16", "momentum": 0.0},
    "trades": {"average": 0.9},
    "trades bfloat16": {"precision": "bfloat16"},
    "alp": {},
    "interpolated_at": {},
    "vertex_mixup": {"precision": "bfloat16"},
    "fast_at": {},
    "random_at": {"augmentation": "crop", "padding": 1},
    "non_robust_at": {},
    "cure": {"gamma": 0.1, "ramp": 0.5},
    "llr": {"average": 0.9},
}


STEPS = 8


def learnt(name: str, *, graphs: bool) -> tuple[dict[str, Tensor], list[float]]:
    """Some steps on batches of a net with batch norm: all that a checkpoint would have, and the losses."""
    source = torch.Generator().manual_seed(0)
    recipe = tiny(name.split()[0], batch_size=8, **RECIPES[name])
    network = models.build("preact_resnet18", 10, (1, 8, 8), generator=source, channels=2).train()
    noise = torch.Generator().manual_seed(1)
    learner = Learner(recipe, network, noise, Group(), graphs=graphs)
    losses = []
    for k in range(STEPS):
        x, y = learner.augmented(torch.rand(8, 1, 8, 8, generator=source)), torch.randint(10, (8,), generator=source)
        losses.append(float(learner.step(network, x, y, k / STEPS)))
    return packed(learner, {"noise": noise}), losses


@pytest.fixture
def playbacks(monkeypatch: pytest.MonkeyPatch) -> list[Captured]:
    """What was recorded, once for each playback."""
    from deepcheck import graphs

    seen: list[Captured] = []
    plain = graphs._Recording.__call__

    def counted(self: Any, arguments: Any) -> Any:
        seen.append(self)
        return plain(self, arguments)

    monkeypatch.setattr(graphs._Recording, "__call__", counted)
    return seen


@pytest.mark.parametrize("name", list(RECIPES))
def test_the_weights_are_the_same(name: str, playbacks: list[Captured]) -> None:
    expected, one_by_one = learnt(name, graphs=False)
    assert not playbacks
    found, played = learnt(name, graphs=True)
    assert same(found, expected)  # momenta, running statistics, averages and random numbers among them
    assert played == one_by_one
    # the first step of each kind is no playback; while the radius grows every step is of its own kind
    kinds = {"at ramp": 1 + STEPS // 2, "at steps": 4}.get(name, 1)
    assert len(playbacks) == STEPS - kinds


def test_a_training_is_played_back(
    digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, playbacks: list[Captured]
) -> None:
    recipe = tiny("at", epochs=2, average=0.9)
    whole = train(recipe, digits, out=tmp_path / "whole", device="cpu")
    assert not playbacks
    interrupt(monkeypatch, after=12 + 3)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, digits, out=tmp_path / "parts", device="cpu", graphs=True)
    resumed = train(recipe, digits, out=tmp_path / "parts", device="cpu", graphs=True, resume=True)
    assert len(playbacks) == 13 + 11  # after each beginning one step is no playback
    assert same(weights(resumed), weights(whole))
    reports = [json.loads((tmp_path / folder / REPORT).read_bytes())["how"]["graphs"] for folder in ("parts", "whole")]
    assert reports == [True, False]


@pytest.mark.parametrize("name", [*MORE, "free_at"])
def test_a_method_that_cannot_be_recorded_takes_its_steps(
    name: str, digits: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for one, kind in MORE.items():
        monkeypatch.setitem(METHODS, one, kind)
    recipe = Recipe(method=METHODS[name](), model="linear", epochs=1, batch_size=32, validation=100)
    caplog.set_level(logging.INFO)
    one_by_one = train(recipe, digits, out=tmp_path / "plain", device="cpu")
    assert "cannot be recorded" not in caplog.text
    played = train(recipe, digits, out=tmp_path / "played", device="cpu", graphs=True)
    assert same(weights(played), weights(one_by_one))
    line = f"the method {name} cannot be recorded as a CUDA graph: its steps are taken one by one"
    assert caplog.messages.count(line) == 1


def test_gradients_stay_where_they_were_recorded() -> None:
    """A CUDA graph writes to addresses: the optimiser must find the gradients there at every step."""
    source = torch.Generator().manual_seed(0)
    network = models.build("preact_resnet18", 10, (1, 8, 8), generator=source, channels=2).to(
        memory_format=torch.channels_last  # type: ignore[call-overload]
    )
    network.head.bias.requires_grad_(False)  # a weight that is not learnt
    learner = Learner(tiny("at", batch_size=8), network.train(), source, Group(), graphs=True)
    x, y = torch.rand(8, 1, 8, 8, generator=source), torch.randint(10, (8,), generator=source)
    seen: list[list[Tensor]] = []
    for k in range(4):
        learner.step(network, x, y, 0.1 * k)
        seen.append([weight.grad for weight in network.parameters() if weight.grad is not None])
    assert network.head.bias.grad is None
    assert len(seen[0]) == len(list(network.parameters())) - 1
    for gradients in seen[1:]:
        assert all(one is first for one, first in zip(gradients, seen[0], strict=True))
    trained = [weight for weight in network.parameters() if weight.grad is not None]
    assert all(one.stride() == weight.stride() for one, weight in zip(seen[0], trained, strict=True))
