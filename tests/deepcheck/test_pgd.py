"""Projected gradient ascent: closed forms on linear models, and plain loops on a net."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.norms import L1, L2, NORMS, LInf, Norm
from deepcheck.attacks.pgd import PGD, fgsm, mim, pgd
from deepcheck.attacks.starts import UniformBall, Zero
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.pgd_cases import ATTACKS, CONVEX, EPSILON, UNBOUNDED, Linear, Smooth, generator, margin, pictures

pytestmark = on_every_device


def dual_length(norm: str, w: Tensor) -> float:
    return float(torch.linalg.vector_norm(w.detach(), ord={"linf": 1, "l2": 2, "l1": math.inf}[norm]))


# --- closed forms ---


@pytest.mark.parametrize("norm", CONVEX)
@pytest.mark.parametrize("name", ATTACKS)
def test_without_a_box_a_linear_model_loses_epsilon_times_the_dual_norm(name: str, norm: str) -> None:
    """The margin z_y - z_k of two classes goes down by epsilon |w_k - w_y|_q, and by no more."""
    model, epsilon = Linear(24), EPSILON[norm]
    images = torch.randn(40, 2, 3, 4, generator=generator(1), dtype=torch.float64)
    labels = torch.randint(2, (40,), generator=generator(2))
    attack = replace(ATTACKS[name](norm), bounds=UNBOUNDED, stop_when_reached=False)
    attacked = attack(model, images, labels, epsilon=epsilon, generator=generator())
    largest = margin(model, images, labels) + epsilon * dual_length(norm, model.W[1] - model.W[0])
    # log p changes by less than its rounding where the margin m changes by less than that over e^-m
    rounding = 8 * torch.finfo(torch.float64).eps * largest.clamp(min=0).exp() if name == "confidence" else 0.0
    assert ((margin(model, attacked.images, labels) - largest).abs() < 1e-6 + rounding).all()
    assert (attacked.length <= epsilon * (1 + 1e-12)).all()


@pytest.mark.parametrize("name", ATTACKS)
def test_with_a_box_every_pixel_of_a_linear_model_goes_as_far_as_it_can(name: str) -> None:
    model, epsilon = Linear(24), EPSILON["linf"]
    images, labels = pictures(40, K=2)
    attack = replace(ATTACKS[name]("linf"), stop_when_reached=False)
    attacked = attack(model, images, labels, epsilon=epsilon, generator=generator())
    uphill = (1 - 2 * labels)[:, None] * (model.W[1] - model.W[0]).detach().sign()
    expected = (images + epsilon * uphill.view_as(images)).clamp(0, 1)
    torch.testing.assert_close(attacked.images, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["bim", "mim", "pgd", "restarts", "last", "backtracking"])
def test_with_few_entries_a_linear_model_loses_its_largest_gains(name: str) -> None:
    """Where pixels are 0 or 1, one can gain |w| if the box lets it move uphill, else nothing."""
    model, k = Linear(24), 4
    images = torch.randint(2, (40, 2, 3, 4), generator=generator(1)).double()
    labels = torch.randint(2, (40,), generator=generator(2))
    attack = replace(ATTACKS[name]("l0"), relative_step_size=None, step_size=1.0, stop_when_reached=False)
    if attack.keep == "last":  # of steps as good as each other it would go on
        attack = replace(attack, keep="best")
    attacked = attack(model, images, labels, epsilon=k, generator=generator())
    uphill = (1 - 2 * labels)[:, None] * (model.W[1] - model.W[0]).detach()
    x = images.flatten(1)
    gains = torch.where(uphill > 0, uphill * (1 - x), -uphill * x).sort(dim=1, descending=True).values
    largest = margin(model, images, labels) + gains[:, :k].sum(1)
    torch.testing.assert_close(margin(model, attacked.images, labels), largest, rtol=0, atol=1e-6)
    assert ((attacked.images != images).flatten(1).sum(1) <= k).all()


@pytest.mark.parametrize(("norm", "share"), [(L2(), 0.99), (L1(shares=(0.3, 0.1)), 0.99)])
def test_with_a_box_no_attack_finds_more_than_there_is(norm: Norm, share: float) -> None:
    """Ball and box together: the best change is t w, or the largest slopes first, each at most up to the box's edge.

    Projection onto ball and box together finds nearly all of it; onto the ball, then the box, loses most of it in L1.
    """
    model, epsilon = Linear(24), EPSILON[norm.name]
    images, labels = pictures(40, K=2)
    slope, x = ((1 - 2 * labels)[:, None] * (model.W[1] - model.W[0]).detach()), images.flatten(1)
    size, room = slope.abs(), torch.where(slope > 0, 1 - x, x)
    if norm.name == "l1":
        order = size.argsort(dim=1, descending=True)
        size, room = size.gather(1, order), room.gather(1, order)
        best = (epsilon - (room.cumsum(1) - room)).clamp(min=0).minimum(room)
    else:
        low, high = torch.zeros(40, 1, dtype=torch.float64), torch.full((40, 1), 1e3, dtype=torch.float64)
        for _ in range(100):
            t = (low + high) / 2
            outside = (t * size).minimum(room).norm(dim=1, keepdim=True) > epsilon
            low, high = torch.where(outside, low, t), torch.where(outside, t, high)
        best = (low * size).minimum(room)
    largest = (best * size).sum(1)
    attack = PGD(norm, "margin", steps=150, relative_step_size=0.05, stop_when_reached=False)
    attacked = attack(model, images, labels, epsilon=epsilon, generator=generator())
    gain = margin(model, attacked.images, labels) - margin(model, images, labels)
    assert (gain <= largest + 1e-10).all()
    assert (gain > share * largest).all()


# --- plain loops ---


def gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return g


def test_one_step_is_the_fast_gradient_sign_method() -> None:
    images, labels = pictures(30)
    model = Smooth(24)
    attack = replace(fgsm(), keep="last")
    attacked = attack(model, images, labels, epsilon=0.1, generator=generator())
    expected = (images + 0.1 * gradient(model, images, labels).sign()).clamp(0, 1)
    torch.testing.assert_close(attacked.images, expected, rtol=0, atol=1e-15)


def test_signs_from_random_starts_are_madrys_attack() -> None:
    images, labels = pictures(30)
    model = Smooth(24)
    attack = replace(pgd(steps=7, relative_step_size=0.3), keep="last")
    attacked = attack(model, images, labels, epsilon=0.1, generator=generator())
    z = images + UniformBall()(LInf(), images, 0.1, generator())
    z = z.clamp(0, 1)
    for _ in range(7):
        z = z + 0.03 * gradient(model, z, labels).sign()
        z = (images + (z - images).clamp(-0.1, 0.1)).clamp(0, 1)
    torch.testing.assert_close(attacked.images, z, rtol=0, atol=1e-14)


def test_gradients_with_momentum_are_the_momentum_iterative_method() -> None:
    images, labels = pictures(30)
    model = Smooth(24)
    attack = replace(mim(steps=7, relative_step_size=0.3, momentum=0.7), keep="last")
    attacked = attack(model, images, labels, epsilon=0.1, generator=generator())
    z, m = images, torch.zeros_like(images)
    for _ in range(7):
        g = gradient(model, z, labels)
        m = 0.7 * m + g / g.abs().sum((1, 2, 3), keepdim=True)
        z = z + 0.03 * m.sign()
        z = (images + (z - images).clamp(-0.1, 0.1)).clamp(0, 1)
    torch.testing.assert_close(attacked.images, z, rtol=0, atol=1e-14)


@pytest.mark.parametrize("norm", CONVEX)
def test_directions_with_momentum_and_backtracking_one_example_at_a_time(norm: str) -> None:
    """m <- 0.9 m + 0.1 d, then a step along m, undone and 1.5 times shorter next time where it was worse."""
    images, labels = pictures(12)
    model, epsilon, of = Smooth(24), 5 * EPSILON[norm], NORMS[norm]
    attack = PGD(
        norm,
        steps=25,
        relative_step_size=4.0,
        momentum=0.9,
        backtracking=1.5,
        start=Zero(),
        keep="last",
        bounds=UNBOUNDED,
    )
    attacked = attack(model, images, labels, epsilon=epsilon, generator=generator())
    shorter = 0
    for row in range(12):
        x, y = images[row : row + 1], labels[row : row + 1]
        z, m, step = x, torch.zeros_like(x), 4 * epsilon
        for _ in range(25):
            m = 0.9 * m + 0.1 * of.steepest(gradient(model, z, y))
            new = x + of.project(z + step * m - x, epsilon)
            with torch.no_grad():
                worse = F.cross_entropy(model(new), y) < F.cross_entropy(model(z), y)
            if worse:
                step /= 1.5
                shorter += 1
            else:
                z = new
        torch.testing.assert_close(attacked.images[row : row + 1], z, rtol=0, atol=1e-9)
    assert shorter > 10  # or this would test nothing


def test_training_gets_the_images_of_one_start_in_the_mode_of_the_model() -> None:
    images, labels = pictures(30)
    model = Smooth(24)
    seen: list[bool] = []
    model.register_forward_hook(lambda module, *_: seen.append(module.training))
    for keep in ("best", "last"):
        attack = PGD("linf", steps=5, relative_step_size=0.3, keep=keep, stop_when_reached=False)
        model.eval()
        expected = attack(model, images, labels, epsilon=0.1, generator=generator()).images
        model.train()
        seen.clear()
        assert torch.equal(attack.perturb(model, images, labels, 0.1, generator()), expected)
        assert all(seen)
