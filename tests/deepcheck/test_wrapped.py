"""Every kind of attack on nets that are random or have no gradient, through EOT and BPDA."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import (
    DeepFool,
    PreparedAttack,
    Square,
    Substitute,
    Transfer,
    UniversalPerturbation,
    bim,
    registry,
)
from deepcheck.attacks.base import Attack
from deepcheck.defences import BPDA, EOT, Behind
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device

D = 24
KINDS: dict[str, Any] = {
    "gradient": bim("l2", steps=5),
    "minimal": DeepFool("l2", steps=10),
    "queries": Square("l2", queries=40),
    "universal": UniversalPerturbation("l2", passes=5),
    "substitute": Substitute("l2", net="linear", epochs=20, group=40, learning_rate=0.1),
}
BY_GRADIENT = ("gradient", "minimal", "universal")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Plain(nn.Module):
    """Logits -f/2 and f/2 with f = w (x - 1/2)."""

    def __init__(self) -> None:
        super().__init__()
        w = torch.randn(D, generator=generator(1), dtype=torch.float64)
        self.w = nn.Parameter(w / torch.linalg.vector_norm(w))

    def forward(self, x: Tensor) -> Tensor:
        f = 4 * (x.flatten(1) - 0.5) @ self.w
        return torch.stack([-f / 2, f / 2], 1)


class Rough(Plain):
    """The same net, of which each call has another large slope that says nothing: a smooth wave of a random phase."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = generator(2)
        waves = torch.randn(D, 2 * D, generator=generator(3), dtype=torch.float64)
        self.waves = nn.Parameter(2000 * waves / torch.linalg.vector_norm(waves, dim=0))

    def forward(self, x: Tensor) -> Tensor:
        phase = 6.2832 * torch.rand(2 * D, generator=self.draw, dtype=torch.float64).to(x.device)
        wave = 0.1 * torch.sin(x.flatten(1) @ self.waves + phase).mean(1)
        return super().forward(x) + torch.stack([-wave / 2, wave / 2], 1)


class Steps(Plain):
    """The same net behind 256 levels, which have no gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(levels(x))


def levels(x: Tensor) -> Tensor:
    return (255 * x).round() / 255


def images(count: int = 60, seed: int = 4) -> tuple[Tensor, Tensor]:
    """Images of the class 1 for the plain net, at distances of 0.1 to 0.3 from its boundary."""
    w = Plain().w.detach()
    x = 0.5 + 0.05 * torch.randn(count, D, generator=generator(seed), dtype=torch.float64)
    distance = 0.1 + 0.2 * torch.rand(count, generator=generator(seed + 1), dtype=torch.float64)
    x += (distance - (x - 0.5) @ w)[:, None] * w
    return x.view(count, 2, 3, 4).clamp(0, 1), torch.ones(count, dtype=torch.int64, device=x.device)


def prepared(attack: PreparedAttack[Attack], net: nn.Module, epsilon: float) -> Attack:
    """Return the attack: a universal one made on images as those that are attacked, a substitute on images of both classes."""
    x, y = images(seed=8)
    if isinstance(attack, Substitute):
        x = (0.5 + 0.2 * torch.randn(400, 2, 3, 4, generator=generator(9), dtype=torch.float64)).clamp(0, 1)
        y = torch.zeros(400, dtype=torch.int64, device=x.device)
    return attack.prepare(net, x, y, epsilon=epsilon, generator=generator(5))


def broken(kind: str, followed: nn.Module, epsilon: float = 0.35) -> float:
    """Return the share of the images that the plain net gets wrong after an attack on another one.

    One that looks for the nearest ends at the boundary: there noise of the logits, of 0.01 in a draw, decides, so that up to
    0.02 from it counts as wrong.
    """
    attack: Attack = KINDS[kind]
    if isinstance(attack, PreparedAttack):
        attack = prepared(attack, followed, epsilon)
    x, y = images()
    judged = Transfer(attack, followed)
    found = judged(Plain(), x, y, epsilon=epsilon, generator=generator(6))
    wrong = found.prediction[0] != y
    return float((wrong | (found.objective > -0.02) if kind == "minimal" else wrong).double().mean())


def test_what_the_tests_are_about() -> None:
    """Most of a gradient is noise: one draw of the rough net points anywhere, and the plain net is broken by its own gradient."""
    x, _ = images(10)
    slopes = []
    for net in (Rough(), EOT(Rough(), 200), Plain()):
        z = x.clone().requires_grad_()
        logits = net(z)
        (g,) = torch.autograd.grad((logits[:, 0] - logits[:, 1]).sum(), z)
        cosine = -(g.flatten(1) @ Plain().w.detach()) / torch.linalg.vector_norm(g.flatten(1), dim=1)
        slopes.append(float(cosine.detach().mean()))
    assert slopes[0] < 0.5
    assert 0.85 < slopes[1] <= slopes[2] + 1e-9


@pytest.mark.parametrize("kind", ["gradient", "minimal"])  # a universal one is a mean over many images already
def test_the_mean_of_draws_is_broken_where_one_draw_is_not(kind: str) -> None:
    one, mean = broken(kind, Rough(), 0.34), broken(kind, EOT(Rough(), 100), 0.34)
    assert mean > 0.9
    assert mean > one + 0.15


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_attack_breaks_a_random_net_through_eot(kind: str) -> None:
    assert broken(kind, EOT(Rough(), 30), 0.6) > 0.9


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backward", [None, lambda x: x + 0.01 * torch.sin(x)], ids=["identity", "given"])
def test_every_kind_of_attack_breaks_a_net_of_steps_through_bpda(kind: str, backward: Any) -> None:
    followed = Behind(BPDA(levels, backward), Plain())
    x, y = images()
    attack: Attack = KINDS[kind]
    if isinstance(attack, PreparedAttack):
        attack = prepared(attack, followed, 0.6)
    found = registry.within_budget(attack)(followed, x, y, epsilon=0.6, generator=generator(6))  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(found.prediction[0], Steps()(found.images).argmax(1))  # forward it is the net itself
    assert float((found.prediction[0] != y).double().mean()) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_without_it_gradients_are_zero_or_refused_and_queries_do_not_care(kind: str) -> None:
    x, y = images()
    attack: Attack = KINDS[kind]
    net = Steps()
    if isinstance(attack, PreparedAttack):
        attack = prepared(attack, net, 0.6)
    found = registry.within_budget(attack)(net, x, y, epsilon=0.6, generator=generator(6))  # type: ignore[arg-type]
    share = float((found.prediction[0] != y).double().mean())
    assert share == 0 if kind in BY_GRADIENT else share > 0.9


@pytest.mark.parametrize("kind", BY_GRADIENT)
def test_a_given_backward_that_points_the_wrong_way_is_followed(kind: str) -> None:
    """So it is the gradient that is given, and not another one, that leads the attack."""
    away = Behind(BPDA(levels, lambda x: 1 - x), Plain())
    right = Behind(BPDA(levels), Plain())
    assert broken(kind, right, 0.35) > 0.9
    assert broken(kind, away, 0.35) == 0
