"""The passes that the benchmark counts for a method are those that its step makes."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

from benchmarks import methods
from benchmarks.methods import NETS, PASSES, pairs
from deepcheck.training import METHODS


def test_every_method_has_its_passes() -> None:
    assert PASSES.keys() == METHODS.keys()


def images_through(network: nn.Module, work: Callable[[], object]) -> Counter[bool]:
    """Return how many images go through a network in train mode (True) and in eval mode."""
    seen: Counter[bool] = Counter()

    def count(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[module.training] += len(inputs[0])

    handle = network.register_forward_pre_hook(count)
    work()
    handle.remove()
    return seen


@pytest.mark.parametrize("name", list(METHODS))
def test_a_step_makes_these_passes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "BATCH", 8)
    step, passes, learner = pairs(name, next(iter(NETS)))
    made, counted = (images_through(learner.network, work) for work in (step, passes))
    assert made == counted
    assert made[True] >= 8
