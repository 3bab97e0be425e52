"""The attack for high confidence on embeddings: a net with a pocket, and what is within the budget."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.attacks.norms import NORMS
from deepcheck.defences import MCN, Adaptive, Oblivious, PulledBack
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import Digits, digits_as_tensors, trained_net

pytestmark = on_every_device
norms = pytest.mark.parametrize("norm", ["linf", "l2", "l1"])


@pytest.fixture(scope="module")
def digits() -> Digits:
    return digits_as_tensors()


@pytest.fixture(scope="module")
def net() -> models.Network:
    return trained_net()


def draw(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Pocket(nn.Module):
    """Class 1 is sure where both entries are large, beyond 0.25 in the second; nearer it is likeliest where the first is small."""

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.unbind(1)
        odds = -2 + second - 0.1 * first + 40 * first * (second - 0.25).relu()
        return torch.stack([-odds / 2, odds / 2], 1)


def test_a_pocket_that_only_the_attack_for_high_confidence_finds() -> None:
    """It is between eta and eta + xi from the image, and the most wrong point within eta is not on the way to it."""
    x, y = torch.tensor([[0.35, 0.0]]).repeat(5, 1), torch.zeros(5, dtype=torch.int64)
    defence, eta = MCN(Pocket(), xi=0.2, bounds=(-1.0, 1.0)), 0.2
    assert torch.equal(defence(x).argmax(1), y)
    pgd = PGD("linf", "margin", steps=20, relative_step_size=0.2, restarts=10, bounds=(-1.0, 1.0))
    for attack, broken in ((Oblivious(pgd), False), (Adaptive(PulledBack("linf", bounds=(-1.0, 1.0))), True)):
        found = attack(defence, x, y, epsilon=eta, generator=draw())
        assert bool((found.prediction != y).all()) is broken
        assert bool((found.length <= eta).all())
    assert torch.equal(Pocket()(found.images).argmax(1), y)  # the net itself is right there


@norms
@pytest.mark.parametrize("objective", ["margin", "wrong_confidence", "targeted_margin"])
def test_pulled_back_points_are_within_the_budget(
    norm: str, objective: str, net: models.Network, digits: Digits
) -> None:
    x, y = digits.test[:6], digits.labels[:6]
    epsilon = {"linf": 0.1, "l2": 0.7, "l1": 3.0}[norm]
    defence = MCN(net, xi=epsilon / 2, norm=norm, steps=3, attack_steps=2)
    attack = PulledBack(norm, objective, steps=5, polish=1, restarts=2)
    targets: Any = {"targets": (y + 1) % 10} if "targeted" in objective else {}
    found = Adaptive(attack)(defence, x, y, epsilon=[epsilon, 0.0], generator=draw(), **targets)
    z = found.images
    assert bool(((z >= 0) & (z <= 1)).all())
    length = torch.stack([NORMS[norm].length((one - x).double()) for one in z])
    assert bool((length[0] <= epsilon * (1 + 1e-6)).all())
    assert torch.equal(z[1], x)
    assert bool((length[0] > 0.5 * epsilon).any())
    plain = attack(defence.surrogate(), x, y, epsilon=epsilon, generator=draw(), batch_size=3, **targets)
    torch.testing.assert_close(plain.objective, found.objective[0], rtol=1e-3, atol=1e-3)
    fewer = PulledBack(norm, objective, steps=5)
    worse = fewer(defence.surrogate(), x, y, epsilon=epsilon, generator=draw(), **targets)
    if objective == "wrong_confidence":  # which is never reached, so that all is tried
        assert bool((plain.objective >= worse.objective - 1e-5).all())


def test_from_a_pulled_back_point_the_confident_one_is_within_reach(net: models.Network, digits: Digits) -> None:
    """The surrogate there has as much for the label as the net's ascent found in the larger ball."""
    x, y = digits.test[:12], digits.labels[:12]
    defence = MCN(net, xi=0.1, attack_steps=40)
    targets = (y + 1) % 10
    attack = PulledBack("linf", "targeted_cross_entropy", steps=40, stop_when_reached=False)
    found = attack(defence.surrogate(), x, y, epsilon=0.1, generator=draw(), targets=targets)
    far = MCN(net, xi=0.2, steps=40).neighbours(x).score[targets, torch.arange(12)]
    near = defence.surrogate()(found.images)[torch.arange(12), targets]
    assert float((near - far).median()) > -0.5
    assert float((near - defence.surrogate()(x)[torch.arange(12), targets]).median()) > 1.0


def test_what_the_attack_cannot_be(net: models.Network, digits: Digits) -> None:
    x, y = digits.test[:4], digits.labels[:4]
    with pytest.raises(TypeError, match="model is of the wrong type Network: allowed is the surrogate of an embedding"):
        PulledBack()(net, x, y, epsilon=0.1, generator=draw())
    with pytest.raises(ValueError, match="norm = l2 is not allowed: the defence looks within linf"):
        Adaptive(PulledBack("l2"))(MCN(net), x, y, epsilon=0.1, generator=draw())
    with pytest.raises(ValueError, match="objective = divergence is not allowed"):
        PulledBack("linf", "divergence")
    with pytest.raises(ValueError, match="polish = -1 is out of range"):
        PulledBack(polish=-1)
