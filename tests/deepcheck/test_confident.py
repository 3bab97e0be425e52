"""Attacks on the confidence in a wrong class: closed forms on linear nets, all points of small balls, and the turn of the classes."""

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import EAD, FAB, CarliniWagner, DeepFool, confident_pgd
from deepcheck.attacks.minimal.penalty import PenaltyAttack
from deepcheck.attacks.objectives import TargetedMargin, TargetedOdds, WrongOdds
from deepcheck.attacks.targets import every_other_class
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net
from tests.deepcheck.linear_nets import least, near, reach

pytestmark = on_every_device


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Small(nn.Module):
    """A net of one hidden layer for images of two pixels."""

    def __init__(self, K: int = 4, width: int = 8, seed: int = 1) -> None:
        super().__init__()
        draw = generator(seed)
        self.W1 = nn.Parameter(6 * torch.randn(2, width, generator=draw, dtype=torch.float64))
        self.b = nn.Parameter(3 * torch.randn(width, generator=draw, dtype=torch.float64))
        self.W2 = nn.Parameter(2 * torch.randn(width, K, generator=draw, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.W1 + self.b).tanh() @ self.W2


def in_the_ball(images: Tensor, epsilon: float, steps: int = 201) -> Tensor:
    """All points of a grid in ball and box, shape (steps^2, n, 1, 1, 2)."""
    side = torch.linspace(-epsilon, epsilon, steps, dtype=images.dtype)
    moves = torch.cartesian_prod(side, side).view(-1, 1, 1, 1, 2)
    return (images[None] + moves).clamp(0, 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_net_of_two_classes_it_is_the_closed_form(norm: str) -> None:
    net, images, labels = near(12, edges=False)
    found = confident_pgd(norm, steps=30, restarts=2, relative_step_size=1.0)(
        net, images, labels, epsilon=[0.02, 0.1], generator=generator()
    )
    size = net.w.detach().norm(p=1 if norm == "linf" else 2)
    against = net(images).diff(dim=1).squeeze(1).abs().detach()
    for epsilon, value in zip((0.02, 0.1), found.objective, strict=True):
        expected = torch.nn.functional.logsigmoid(epsilon * size - against)
        torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-6)


def test_of_each_class_it_is_the_best_of_all_points_of_the_ball_and_then_the_best_class_counts() -> None:
    net, K, epsilon = Small(), 4, 0.15
    images = torch.rand(20, 1, 1, 2, generator=generator(3), dtype=torch.float64)
    labels = net(images).argmax(1)
    with torch.no_grad():
        every = in_the_ball(images, epsilon)
        p = net(every.flatten(0, 1)).log_softmax(1).view(len(every), 20, K).amax(0)
    targets = every_other_class(labels, K)
    best = p.T.gather(0, targets)
    attack = confident_pgd(steps=40, restarts=10)
    each = replace(attack, targets="given")(
        net, images, labels, targets=targets, epsilon=epsilon, generator=generator()
    )
    torch.testing.assert_close(each.objective, best, rtol=0, atol=0.02)  # the grid is as coarse as this
    assert (each.objective > best - 1e-3).all()  # it is no worse than the grid anywhere
    assert float((best.amax(0) - best.amin(0)).min()) > 0.1  # the classes differ
    found = replace(attack, restarts=30)(net, images, labels, epsilon=epsilon, generator=generator())
    torch.testing.assert_close(found.objective, best.amax(0), rtol=0, atol=0.02)
    assert not (found.prediction == labels).all()
    assert found.restart_objective.shape == (30, 20)


def test_restarts_go_through_the_wrong_classes_the_likeliest_first() -> None:
    net, K = Small(), 4
    images = torch.rand(20, 1, 1, 2, generator=generator(3), dtype=torch.float64)
    labels = net(images).argmax(1)
    order = net(images).scatter(1, labels[:, None], -torch.inf).argsort(1, descending=True)[:, : K - 1]
    found = confident_pgd(steps=3, restarts=7)(net, images, labels, epsilon=1e-9, generator=generator())
    log_p = net(images).log_softmax(1).detach()
    for restart, value in enumerate(found.restart_objective):  # the points are the images
        of = order[:, restart % (K - 1)]
        torch.testing.assert_close(value, log_p.gather(1, of[:, None]).squeeze(1), rtol=1e-6, atol=1e-6)


# --- the nearest image of so much confidence ---

NEAREST: dict[str, PenaltyAttack] = {
    "linf": CarliniWagner("linf", share=0.95, step_size=0.003, initial_c=0.1, steps=300),
    "l2": CarliniWagner("l2", searches=7, initial_c=0.1, steps=300),
    "l1": EAD("l1", beta=0.1, steps=150, initial_c=0.1),
}


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize(("norm", "above"), [("linf", 1.06), ("l2", 1.01), ("l1", 1.1)])
@pytest.mark.parametrize("level", [0.6, 0.9])
def test_on_a_linear_net_the_nearest_of_a_level_meets_the_closed_form(
    norm: str, above: float, level: float, targeted: bool
) -> None:
    """Log-odds of two classes are the difference of their logits, so that a level is a confidence of log(level / (1 - level))."""
    net, images, labels = near(16, edges=False)
    expected = least(norm, *reach(net, images, labels, float(torch.tensor(level, dtype=torch.float64).logit())))
    rows = expected > {"l2": 0.05, "linf": 0.02, "l1": 0.1}[norm]
    assert rows.sum() >= 8
    images, labels, expected = images[rows], labels[rows], expected[rows]
    attack = replace(NEAREST[norm], objective=TargetedOdds(level) if targeted else WrongOdds(level))
    aim: dict[str, Any] = {"targets": 1 - labels} if targeted else {}
    found = attack(net, images, labels, generator=generator(), **aim)
    length = found.length[0]
    assert length.isfinite().all()
    assert (length >= expected * (1 - 1e-9)).all()
    assert (length <= expected * above).all()
    p = net(found.images).softmax(1).gather(1, 1 - labels[:, None]).squeeze(1)
    assert (p >= level * (1 - 1e-12)).all()
    assert (p < level + 0.05 * (above - 1) * 10).all()  # and not much more than was asked for


@pytest.mark.slow
def test_on_a_net_the_nearest_of_a_level_has_it_in_its_target_and_lies_farther_at_a_higher_level() -> None:
    net, digits = trained_net(), digits_as_tensors()
    x, y = digits.test[:8], digits.labels[:8]
    targets = every_other_class(y, 10)[:2]
    lengths = []
    for level in (0.2, 0.5, 0.95):
        attack = CarliniWagner("linf", TargetedOdds(level), steps=40, searches=4, step_size=0.05, initial_c=0.1)
        found = attack(net, x, y, targets=targets, generator=generator())
        reached = found.length[:, 0].isfinite()
        assert reached.double().mean() > 0.9
        p = net(found.images.flatten(0, 1)).softmax(1).gather(1, targets.view(-1, 1)).view(2, 8)
        assert (p[reached] >= level * (1 - 1e-5)).all()
        lengths.append(found.length[:, 0][reached].mean())
    assert lengths[0] < lengths[1] < lengths[2]


def test_at_a_half_the_odds_say_what_the_margin_says_of_two_classes() -> None:
    net, images, labels = near(10, edges=True)
    options: dict[str, Any] = {"steps": 100, "searches": 4, "initial_c": 0.1}
    odds = CarliniWagner("l2", WrongOdds(), **options)(net, images, labels, generator=generator())
    margin = CarliniWagner("l2", "margin", **options)(net, images, labels, generator=generator())
    torch.testing.assert_close(odds.length, margin.length, rtol=1e-6, atol=1e-9)


def test_bad_configurations() -> None:
    with pytest.raises(ValueError, match=re.escape("is not allowed: one that has a goal is")):
        CarliniWagner("linf", TargetedOdds(0.9, goal="never"))
    with pytest.raises(ValueError, match=re.escape("is not allowed: one that has a goal is")):
        CarliniWagner("linf", TargetedMargin(goal="never"))
    with pytest.raises(ValueError, match=re.escape("is not allowed for DeepFool: one whose goal is a class is")):
        DeepFool("linf", WrongOdds(0.9))
    with pytest.raises(ValueError, match=re.escape("is not allowed for FAB: one whose goal is a class is")):
        FAB("linf", TargetedOdds(0.9))
    for kind in (CarliniWagner("l2", WrongOdds(0.01)), CarliniWagner("l2", TargetedOdds(0.01))):  # any level will do
        assert kind.objective.seeks == "confidence"  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=re.escape("steps = 0 is out of range")):
        confident_pgd(steps=0)
