"""EAD: the closed form on linear nets, the shrinkage, and its two rules."""

import re

import pytest
import torch

from deepcheck.attacks import EAD, CarliniWagner
from deepcheck.attacks.norms import NORMS
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net
from tests.deepcheck.linear_nets import least, near, reach

pytestmark = on_every_device


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("confidence", [0.0, 0.1])
def test_on_a_linear_net_it_meets_the_closed_form(confidence: float) -> None:
    """|margin| / |w|_inf within 1e-4: one pixel changes, where the weight of L1 is large and the box far."""
    net, images, labels = near(20, edges=False, width=0.05)
    m, w, room = reach(net, images, labels, confidence)
    expected = m / w.amax(1)
    rows = (expected < 0.3) & (expected > 0.01)
    assert rows.sum() > 10
    attack = EAD(beta=0.1, steps=150, initial_c=0.1, line_search=20, confidence=confidence)
    found = attack(net, images[rows], labels[rows], generator=generator())
    torch.testing.assert_close(found.length[0], expected[rows], rtol=1e-4, atol=0)
    assert (found.length[0] >= expected[rows] * (1 - 1e-9)).all()
    assert (found.objective >= confidence).all()
    assert (NORMS["l0"].length(found.images - images[rows]) == 1).all()
    torch.testing.assert_close(least("l1", m, w, room)[rows], expected[rows])  # the box does not matter


def test_in_the_box_it_is_close_to_the_closed_form_and_never_below() -> None:
    net, images, labels = near(20, edges=True)
    expected = least("l1", *reach(net, images, labels))
    found = EAD(beta=0.1, steps=150, initial_c=0.1)(net, images, labels, generator=generator())
    there = expected.isfinite()
    ratio = (found.length[0] / expected)[there]
    assert (ratio >= 1 - 1e-9).all()
    assert ratio.median() < 1.02
    assert ratio.mean() < 1.05


def test_pixels_are_shrunk_towards_the_image_into_the_box() -> None:
    x = torch.tensor([[0.0, 0.5, 1.0, 0.5, 0.5, 0.5]])
    z = torch.tensor([[-0.3, 0.7, 1.4, 0.45, 0.2, 0.61]])
    expected = torch.tensor([[0.0, 0.6, 1.0, 0.5, 0.3, 0.51]])
    torch.testing.assert_close(EAD(beta=0.1)._shrunk(z, x), expected)
    assert EAD(beta=0.1)._shrunk(z, x)[0, 3] == 0.5


def test_one_step_is_the_formula() -> None:
    """From the image: x + alpha c w, shrunk by beta; it is the last try where it does not reach the goal."""
    net, images, labels = near(8, edges=False, width=0.4)
    rows = reach(net, images, labels)[0] > 0.3
    assert rows.sum() > 3
    images, labels = images[rows], labels[rows]
    attack = EAD(beta=0.002, steps=1, searches=1, initial_c=1.0)
    found = attack(net, images, labels, generator=generator())
    assert found.length.isinf().all()
    w = (net.w.detach() * torch.where(labels == 0, 1.0, -1.0)[:, None].double()).view_as(images)
    torch.testing.assert_close(found.images, images + torch.nn.functional.softshrink(0.01 * w, 0.002))


@pytest.mark.slow
def test_each_rule_is_least_in_its_own_measure_and_l1_is_shorter_than_in_carlini_wagner() -> None:
    net, digits = trained_net(), digits_as_tensors()
    images, labels = digits.test[:12], digits.labels[:12]
    options = {"steps": 100, "initial_c": 0.1, "searches": 5}

    def measures(attack: EAD | CarliniWagner) -> tuple[float, float]:
        found = attack(net, images, labels, generator=generator())
        assert found.length.isfinite().all()
        delta = (found.images - images).flatten(1).double()
        l1, square = delta.abs().sum(1), delta.square().sum(1)
        return float(l1.mean()), float((square + 0.05 * l1).mean())

    l1 = measures(EAD(beta=0.05, decision="l1", **options))  # type: ignore[arg-type]
    net_ = measures(EAD(beta=0.05, decision="elastic_net", **options))  # type: ignore[arg-type]
    rival = measures(CarliniWagner(**options))  # type: ignore[arg-type]
    assert l1[0] < net_[0]
    assert net_[1] < l1[1]
    assert l1[0] < 0.85 * rival[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"norm": "l2"}, "is not allowed for EAD: l1 is"),
        ({"beta": -1.0}, "beta = -1.0 is out of range"),
        ({"decision": "en"}, "decision = 'en' is unknown"),
        ({"objective": "cross_entropy"}, "is not allowed: one that is positive where its goal is reached and nowhere"),
    ],
)
def test_bad_configurations(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        EAD(**options)  # type: ignore[arg-type]
