"""A compiled net is compiled for each way in which a training uses it, and never again."""

from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounter

from deepcheck.models import Network
from deepcheck.training import loop
from deepcheck.training.parallel import Group
from tests.deepcheck.training.cases import numbered, tiny


def small() -> Network:
    """A net with batch norm, which is another function in eval mode."""
    body = nn.Sequential(nn.Conv2d(1, 2, 3, stride=4), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten())
    return Network({"name": "small", "num_classes": 4, "in_shape": [1, 8, 8]}, nn.Identity(), body, nn.Linear(8, 4))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks for one
@pytest.mark.parametrize(
    ("method", "graphs"),
    [
        ("standard", 1),  # in train mode
        ("at", 2),  # and in eval mode with a gradient by the images
        ("ccat", 3),  # and without, for the last point of the attack
    ],
)
def test_changes_of_mode_compile_nothing_anew(method: str, graphs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counter, compile_plainly = CompileCounter(), torch.compile
    monkeypatch.setattr(torch, "compile", lambda net, **options: compile_plainly(net, backend=counter, **options))
    monkeypatch.setattr(loop._Run, "_network", lambda *_: small())
    monkeypatch.setattr(loop._Run, "_accuracies", lambda _: (0.5, 0.5))
    torch._dynamo.reset()
    options: dict[str, Any] = {"batch_size": 16, "validation": 20, "epochs": 2, "average": 0.9}
    run = loop._Run(tiny(method, **options), numbered(), torch.device("cpu"), Group(), compiled=True)
    counts = []
    for _ in range(2):
        run.run_epoch(progress=False)
        counts.append(counter.frame_count)
    torch._dynamo.reset()
    assert counts == [graphs, graphs]
