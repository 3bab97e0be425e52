"""The passes that the benchmark counts for an embedding are those that its searches make."""

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import nn

from benchmarks import neighbours
from benchmarks.neighbours import CASES, Case, case_net, passes, work


def images_through(network: nn.Module, do: Callable[[], object]) -> Counter[bool]:
    """Return how many images go through a network with gradients (True) and without."""
    seen: Counter[bool] = Counter()

    def count(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen[torch.is_grad_enabled()] += len(inputs[0])

    handle = network.register_forward_pre_hook(count)
    do()
    handle.remove()
    return seen


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name} {case.options}")
def test_a_search_makes_these_passes(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "IMAGES", 3)
    monkeypatch.setattr(neighbours, "STEPS", 4)
    net, x = case_net()
    made, counted = (images_through(net, one(case, net, x)) for one in (work, passes))
    assert made == counted
    assert made[True] == 3 * 4 * case.searches
