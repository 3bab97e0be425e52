"""APGD: closed forms on linear models, with and without a box; its schedule; and models of few classes."""

import math
import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import APGD, apgd_ce, apgd_t
from deepcheck.attacks.gradient.apgd import _balls, _checkpoints, _Climb, _every, _of_free_length, _sparse_signs
from deepcheck.attacks.objectives import Margin, TargetedMargin
from deepcheck.attacks.points import Points
from tests.deepcheck.devices import on_every_device, on_the_cpu
from tests.deepcheck.test_minimal import UNBOUNDED, Linear, Smooth, classified, generator, normals

pytestmark = on_every_device

DUAL = {"linf": 1.0, "l2": 2.0, "l1": math.inf}
EPSILON = {"linf": 0.1, "l2": 0.5, "l1": 1.5}


def slopes(model: Linear, labels: Tensor) -> Tensor:
    """Gradient of the margin of two classes, shape (n, D)."""
    return ((1 - 2 * labels)[:, None] * (model.W[1] - model.W[0])).detach()


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("objective", ["cross_entropy", "margin", "dlr"])
def test_of_two_linear_classes_all_is_gained_that_the_ball_allows(norm: str, objective: str) -> None:
    """Epsilon times the dual norm of the slope, to 1e-4."""
    model, images = Linear(2), normals(40, 2, 3, 4)
    labels = classified(model, images)
    attack = APGD(norm, objective, bounds=UNBOUNDED, stop_when_reached=False)
    found = attack(model, images, labels, epsilon=EPSILON[norm], generator=generator())
    with torch.no_grad():
        gained = Margin()(model(found.images), labels) - Margin()(model(images), labels)
    most = EPSILON[norm] * torch.linalg.vector_norm(slopes(model, labels), ord=DUAL[norm], dim=1)
    assert (gained <= most * (1 + 1e-9)).all()
    assert (gained >= most * (1 - 1e-4)).all()


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("K", [2, 4])
def test_images_at_a_distance_are_broken_from_that_epsilon_on(norm: str, K: int) -> None:
    """With a target after the other; distances are those to the nearest of K - 1 planes, all alike by a shift of images."""
    model = Linear(K)
    images = normals(200, 2, 3, 4)
    labels = classified(model, images)
    f = model(images).gather(1, labels[:, None]).detach() - model(images).detach()
    lengths = torch.linalg.vector_norm((model.W[None] - model.W[labels][:, None]).detach(), ord=DUAL[norm], dim=2)
    distance = torch.where(f == 0, math.inf, f / lengths).amin(1)
    for row in distance.argsort()[40:200:100]:
        one = slice(int(row), int(row) + 1)
        epsilons = [(1 - 1e-4) * float(distance[row]), (1 + 1e-4) * float(distance[row])]
        attack = replace(apgd_t(norm, restarts=K - 1), bounds=UNBOUNDED)
        found = attack(model, images[one], labels[one], epsilon=epsilons, generator=generator())
        assert (found.prediction != labels[one]).any(1).squeeze(1).tolist() == [False, True]


def gained_in_the_box(norm: str, w: Tensor, images: Tensor, epsilon: float) -> Tensor:
    """The largest <w, delta> in ball and box, shape (n,): entries are clipped; filled by slope; or clip(s w)."""
    x = images.flatten(1)
    room = torch.where(w > 0, 1 - x, x)
    if norm == "linf":
        return (w.abs() * room.clamp(max=epsilon)).sum(1)
    if norm == "l1":
        order = w.abs().argsort(1, descending=True)
        room, steep = room.gather(1, order), w.abs().gather(1, order)
        return (steep * torch.minimum(room, (epsilon - (room.cumsum(1) - room)).clamp(min=0))).sum(1)
    low, high = torch.zeros(len(x), 1, dtype=x.dtype), torch.full((len(x), 1), 1e6, dtype=x.dtype)
    for _ in range(200):
        s = (low + high) / 2
        inside = torch.minimum(s * w.abs(), room).square().sum(1, keepdim=True) <= epsilon**2
        low, high = torch.where(inside, s, low), torch.where(inside, high, s)
    return (w.abs() * torch.minimum(low * w.abs(), room)).sum(1)


@pytest.mark.parametrize("norm", DUAL)
def test_in_the_box_too(norm: str) -> None:
    model = Linear(2)
    images = (1.6 * torch.rand(40, 2, 3, 4, generator=generator(6), dtype=torch.float64) - 0.3).clamp(0, 1)
    labels = classified(model, images)
    attack = APGD(norm, "margin", stop_when_reached=False)
    for epsilon in (EPSILON[norm], 3 * EPSILON[norm]):
        found = attack(model, images, labels, epsilon=epsilon, generator=generator())
        with torch.no_grad():
            gained = Margin()(model(found.images), labels) - Margin()(model(images), labels)
        most = gained_in_the_box(norm, slopes(model, labels), images, epsilon)
        assert (gained <= most * (1 + 1e-9)).all()
        assert (gained >= most * (1 - 1e-4)).all()


class Recorded(nn.Module):
    """Keeps what the model was asked."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        return torch.as_tensor(self.model(x))


@pytest.mark.parametrize("norm", DUAL)
def test_the_best_of_all_points_in_the_ball_is_kept(norm: str) -> None:
    """Of an objective without a goal; in L1 points of the larger balls are not in it."""
    model, images = Recorded(Smooth()), 0.5 + 0.1 * normals(12, 2, 3, 4)
    labels = classified(model.model, images)
    attack = APGD(norm, "wrong_confidence", steps=30)
    found = attack(model, images, labels, epsilon=EPSILON[norm], generator=generator())
    asked = torch.stack([z for z in model.asked if len(z) == 12])
    assert len(asked) == (34 if norm == "l1" else 32)
    length = torch.linalg.vector_norm((asked - images).flatten(2), ord=float(norm[1:]), dim=2)
    with torch.no_grad():
        value = attack._objective(model.model(asked.flatten(0, 1)), labels.repeat(len(asked))).view(len(asked), 12)
    best = value.masked_fill(length > EPSILON[norm] * (1 + 1e-9), -math.inf).amax(0)
    torch.testing.assert_close(found.objective, best, rtol=1e-12, atol=0)
    if norm == "l1":
        assert length[2:11].amax() > 2.9 * EPSILON[norm]
        assert length[2:11].amax() <= 3 * EPSILON[norm] * (1 + 1e-9)


@on_the_cpu
def test_checkpoints_and_balls_are_those_of_the_papers() -> None:
    assert _checkpoints(100) == {22, 41, 57, 70, 80, 87, 93, 99}
    assert _checkpoints(40) == {9, 17, 23, 28, 32, 35, 38, 40}
    assert _checkpoints(1) == {1}
    assert _every(100) == set(range(4, 101, 4))
    assert _every(30) == set(range(1, 31))
    assert _balls(100) == [(3, 30), (2, 30), (1, 40)]
    assert _balls(4) == [(3, 1), (2, 1), (1, 2)]
    assert _balls(3) == [(1, 3)]


def climb(helped: list[int], improved: list[bool], shortened: list[bool]) -> _Climb:
    """Some examples at 0, whose best points are at 1 and have the gradient 2."""
    n = len(helped)
    here, there = (
        Points(torch.full((n, 3), v), torch.zeros(n, 2), torch.full((n,), v), torch.zeros(n, dtype=torch.bool))
        for v in (0.0, 1.0)
    )
    started = _Climb.begun(here, torch.zeros(n, 3), 0.2, torch.full((n,), 3))
    started.best, started.best_gradient = there, torch.full((n, 3), 2.0)
    started.helped, started.improved, started.shortened = (torch.tensor(v) for v in (helped, improved, shortened))
    return started


@on_the_cpu
def test_a_step_is_halved_by_the_examples_own_condition() -> None:
    """Fewer than 0.75 of 20 steps helped; or the step stayed as it was and nothing better was found."""
    helped, improved, shortened = (
        [14, 15, 20, 20, 0],
        [True, True, False, False, True],
        [False, False, True, False, True],
    )
    now = climb(helped, improved, shortened)
    APGD("linf")._check(now, torch.zeros(5, 3), 0.1, 20)
    halved = [True, False, False, True, True]
    torch.testing.assert_close(now.step, torch.tensor([0.1 if one else 0.2 for one in halved]))
    assert now.now.images[:, 0].tolist() == now.now.value.tolist() == [float(one) for one in halved]
    assert now.gradient[:, 0].tolist() == [2.0 * one for one in halved]
    assert now.shortened.tolist() == halved
    assert not now.improved.any()
    assert not now.helped.any()


@on_the_cpu
def test_in_l1_a_step_is_whole_again_where_the_best_point_became_sparser() -> None:
    """It has 3 entries, of 4 before: to the best point. Or of 3 before: the step is divided by 1.5, to 0.1 at the least."""
    now = climb([0] * 3, [True] * 3, [False] * 3)
    now.changed = torch.tensor([4, 3, 3])
    now.step = torch.tensor([0.02, 0.15, 0.011])
    APGD("l1")._check(now, torch.zeros(3, 3), 0.1, 1)
    torch.testing.assert_close(now.step, torch.tensor([0.1, 0.1, 0.01]))
    assert now.changed.tolist() == [3, 3, 3]
    assert now.now.value.tolist() == [1, 0, 0]


def test_sparse_steps_move_the_largest_entries_that_have_room() -> None:
    """Of the last row the first entry has come to the edge, and the second is there in the image."""
    gradient = torch.tensor([[3.0, -2.0, 1.0, 0.0], [1.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0], [4.0, 5.0, -3.0, 2.0]])
    blocked = torch.tensor([[False] * 4] * 3 + [[True, True, False, False]])
    changed = torch.tensor([[False] * 4] * 3 + [[True, False, False, False]])
    signs = _sparse_signs(gradient, blocked, changed, torch.tensor([2, 0, 3, 2]))
    assert signs.tolist() == [[0.5, -0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0, 0], [0.5, 0, -0.5, 0.5]]


def test_the_length_of_a_step_is_that_of_the_entries_that_are_free() -> None:
    gradient = torch.tensor([[3.0, -4.0, 12.0], [0.0, 0.0, 2.0]])
    blocked = torch.tensor([[False, False, True], [False, False, True]])
    step = _of_free_length(gradient, blocked)
    torch.testing.assert_close(step[0], torch.tensor([0.6, -0.8, 2.4]))
    assert step[1].isfinite().all()


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("K", [2, 3, 4])
def test_ratios_of_few_classes_are_differences(norm: str, K: int) -> None:
    """They break what the margin breaks, or more."""
    model, images = Smooth(K), 0.2 + 0.6 * torch.rand(60, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    options: dict[str, Any] = {"epsilon": EPSILON[norm], "generator": generator()}
    broken = [
        float((attack(model, images, labels, **options).prediction != labels).any(0).double().mean())
        for attack in (APGD(norm, "margin", steps=30), APGD(norm, "dlr", steps=30), apgd_t(norm, steps=30, restarts=3))
    ]
    assert min(broken) > 0.05
    assert max(broken) - min(broken) < 0.06
    found = APGD(norm, "targeted_dlr", steps=5)(model, images, labels, targets=(labels + 1) % K, **options)
    assert found.objective.isfinite().all()


def test_images_that_are_wrong_as_they_are_are_left_alone() -> None:
    model, images = Smooth(), 0.2 + 0.6 * torch.rand(20, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    labels[::2] = (labels[::2] + 1) % 5
    found = apgd_ce("l2")(model, images, labels, epsilon=0.01, generator=generator())
    assert torch.equal(found.images[::2], images[::2])
    assert (found.queries[..., ::2] == 1).all()


@on_the_cpu
def test_bad_input() -> None:
    for change, message in (
        ({"norm": "l0"}, "norm = L0(coordinates=1, shares=None) is not allowed for APGD: linf, l2 or l1 is"),
        ({"steps": 0}, "steps = 0"),
        ({"rho": 1.5}, "rho = 1.5"),
        ({"momentum": 0}, "momentum = 0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            APGD(**change)
    with pytest.raises(ValueError, match="objective = 'margin' is not allowed: a targeted one is"):
        apgd_t(objective="margin")
    assert apgd_t(objective="targeted_margin").objective == TargetedMargin(goal="wrong")
