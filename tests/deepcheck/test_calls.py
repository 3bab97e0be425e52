"""How models are asked: they get a copy wherever that is, and answer with logits."""

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import PGD
from deepcheck.attacks.calls import ProbabilityWarning, decided, logits_of
from deepcheck.defences.wrappers import BPDA, EOT
from deepcheck.detectors import Confidence, Mahalanobis
from deepcheck.evaluation import evaluate
from deepcheck.evaluation.run import predictions
from deepcheck.evaluation.suites import Planned
from deepcheck.own_model import tried
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device


class InPlace(nn.Module):
    """A linear net that normalises in the memory that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(12, 5, generator=torch.Generator().manual_seed(0)))

    def forward(self, x: Tensor) -> Tensor:
        return x.sub_(0.5).mul_(3.0).flatten(1) @ self.W


def test_no_use_of_a_net_changes_the_images() -> None:
    x, y = torch.rand(20, 3, 2, 2, generator=torch.Generator().manual_seed(1)), torch.arange(20) % 5
    before, net = x.clone(), InPlace()
    expected = (3 * (x - 0.5)).flatten(1) @ net.W
    torch.testing.assert_close(logits_of(net, x), expected)
    assert (predictions(net, x)[0] == expected.argmax(1).numpy()).all()
    torch.testing.assert_close(EOT(net, 3)(x), expected.log_softmax(1))
    torch.testing.assert_close(BPDA(lambda z: z.round_())(x), x.round())
    Confidence().fit(net, x, y).score(net, x)
    Mahalanobis(of="logits").fit(net, x, y).score(net, x)
    tried(net, x, 5, name="in place")
    records = evaluate(net, (x, y), {"pgd": Planned(PGD("l1", steps=2, relative_step_size=1.0), (0.5,))})
    assert (records.clean_prediction.values == expected.argmax(1).numpy()).all()
    assert torch.equal(x, before)


def test_what_logits_are() -> None:
    rows = [[0.0, 1.0], [-torch.inf, 1.0], [torch.nan, 1.0], [torch.inf, 1.0], [-torch.inf, -torch.inf]]
    assert decided(torch.tensor(rows)).tolist() == [True, True, False, False, False]
    x = torch.rand(4, 3)
    assert logits_of(lambda z: z.half(), x).dtype is torch.float32
    with pytest.raises(TypeError, match="model returned a tuple for images of shape"):
        logits_of(lambda z: (z, z), x)  # type: ignore[arg-type, return-value]
    with pytest.raises(ValueError, match=r"model returned logits of shape \(4, 1\) for 4 images"):
        logits_of(lambda z: z[:, :1], x)


def test_a_net_of_ones_own_may_mask_classes_and_is_warned_of_a_softmax() -> None:
    x = torch.rand(4, 3)
    tried(lambda z: torch.cat([z, torch.full((len(z), 1), -torch.inf)], 1), x, 3, name="masked")
    with pytest.warns(ProbabilityWarning):
        tried(lambda z: z.softmax(1), x, 3, name="softmax")
