"""Projected gradient ascent: closed forms on linear models, plain loops on a net, and what a caller relies on."""

import math
import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.norms import L0, L1, NORMS, LInf
from deepcheck.attacks.objectives import Margin, Objective
from deepcheck.attacks.pgd import PGD, bim, fgsm, mim, pgd
from deepcheck.attacks.starts import Gaussian, OneOf, Start, UniformBall, UniformLength, Zero
from deepcheck.models import build

UNBOUNDED = (-math.inf, math.inf)
EPSILON = {"linf": 0.1, "l2": 0.8, "l1": 3.0, "l0": 4.0}
CONVEX = ["linf", "l2", "l1"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(nn.Module):
    """Logits W x + b, every example on its own: the arithmetic for one does not depend on the others."""

    def __init__(self, D: int, K: int = 2, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(K, D, generator=generator(11), dtype=dtype))
        self.b = nn.Parameter(torch.randn(K, generator=generator(12), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        rows = [(x.flatten(1) * w).sum(1) + b for w, b in zip(self.W, self.b, strict=True)]
        return torch.stack(rows, 1)


class Smooth(nn.Module):
    """A net of one hidden layer."""

    def __init__(self, D: int, K: int = 4, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.W1 = nn.Parameter(2 * torch.randn(D, 20, generator=generator(7), dtype=dtype) / D**0.5)
        self.W2 = nn.Parameter(torch.randn(20, K, generator=generator(8), dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 0.5).flatten(1) @ self.W1).tanh() @ self.W2


def pictures(n: int, dtype: torch.dtype = torch.float64, *, K: int = 4) -> tuple[Tensor, Tensor]:
    """Images of 2 x 3 x 4 pixels, many at the edges of the box, and labels."""
    images = (1.6 * torch.rand(n, 2, 3, 4, generator=generator(5), dtype=dtype) - 0.3).clamp(0, 1)
    return images, torch.randint(K, (n,), generator=generator(6))


def classified(model: nn.Module, images: Tensor) -> Tensor:
    """The classes that the model gives: labels that are all right at the start."""
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(1))


ATTACKS: dict[str, Callable[[str], PGD]] = {
    "fgsm": fgsm,
    "bim": lambda norm: bim(norm, steps=40, relative_step_size=0.3),
    "mim": lambda norm: mim(norm, steps=40, relative_step_size=0.3),
    "pgd": lambda norm: pgd(norm, steps=60, relative_step_size=0.5),
    "restarts": lambda norm: pgd(norm, steps=60, relative_step_size=0.5, restarts=3),
    "last": lambda norm: PGD(norm, "margin", steps=60, relative_step_size=0.5, keep="last"),
    "absolute": lambda norm: PGD(norm, "margin", steps=60, step_size=0.5 * EPSILON[norm], start=Gaussian()),
    "backtracking": lambda norm: PGD(norm, "margin", steps=60, relative_step_size=0.5, backtracking=2.0),
    "momentum": lambda norm: PGD(norm, "margin", steps=150, relative_step_size=0.5, momentum=0.9),
    "confidence": lambda norm: PGD(
        norm,
        "wrong_confidence",
        steps=200,
        relative_step_size=0.5,
        momentum=0.9,
        backtracking=1.5,
        start=OneOf((Zero(), UniformLength())),
        restarts=2,
    ),
}


def margin(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    with torch.no_grad():
        return Margin()(model(images), labels)


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


@pytest.mark.parametrize(("norm", "share"), [("l2", 0.99), ("l1", 0.0)])
def test_with_a_box_no_attack_finds_more_than_there_is(norm: str, share: float) -> None:
    """Ball and box together: the best change is t w, or the largest slopes first, each at most up to the box's edge.

    Projection onto the ball, then the box, is not projection onto both: what is found is less, for L2 not much.
    """
    model, epsilon = Linear(24), EPSILON[norm]
    images, labels = pictures(40, K=2)
    slope, x = ((1 - 2 * labels)[:, None] * (model.W[1] - model.W[0]).detach()), images.flatten(1)
    size, room = slope.abs(), torch.where(slope > 0, 1 - x, x)
    if norm == "l1":
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


# --- batches, generators, epsilons ---


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_the_result_does_not_depend_on_the_batch_size(name: str, norm: str) -> None:
    images, labels = pictures(23)
    model = Linear(24, 4)
    attack = replace(ATTACKS[name](norm), steps=6)
    results = [
        attack(model, images, labels, epsilon=EPSILON[norm] / 4, generator=generator(), batch_size=size)
        for size in (500, 23, 7, 1)
    ]
    for other in results[1:]:
        for field in results[0].__dataclass_fields__:
            assert torch.equal(getattr(other, field), getattr(results[0], field))


@pytest.mark.parametrize("name", ["pgd", "confidence"])
def test_random_numbers_come_from_the_generator_alone(name: str) -> None:
    images, labels = pictures(10)
    model, attack = Smooth(24), replace(ATTACKS[name]("l2"), steps=3)
    state = torch.get_rng_state()
    first, again, other = (
        attack(model, images, labels, epsilon=0.3, generator=generator(seed)).images for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_several_epsilons_get_a_first_axis() -> None:
    images, labels = pictures(10)
    model, attack = Smooth(24), pgd("l2", steps=4, relative_step_size=0.5, restarts=2)
    several = attack(model, images, labels, epsilon=[0.3, 0.0, 0.6], generator=generator())
    one = attack(model, images, labels, epsilon=0.3, generator=generator())
    listed = attack(model, images, labels, epsilon=[0.3], generator=generator())
    assert several.images.shape == (3, *images.shape)
    assert several.objective.shape == (3, 10)
    assert several.restart_objective.shape == several.prediction.shape == (3, 2, 10)
    assert several.confidence.shape == several.length.shape == (3, 2, 10)
    assert one.images.shape == images.shape
    assert one.prediction.shape == (2, 10)
    for field in one.__dataclass_fields__:
        assert torch.equal(getattr(several, field)[0], getattr(one, field))
        assert torch.equal(getattr(listed, field)[0], getattr(one, field))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_epsilon_zero_returns_the_images(name: str, norm: str) -> None:
    images, labels = pictures(10)
    attack = replace(ATTACKS[name](norm), steps=3)
    if attack.step_size is not None:
        attack = replace(attack, step_size=0.1)
    attacked = attack(Smooth(24), images, labels, epsilon=0, generator=generator())
    assert torch.equal(attacked.images, images)
    assert (attacked.length == 0).all()


def test_no_images_give_no_results() -> None:
    images, labels = pictures(10)
    attacked = pgd(steps=3, relative_step_size=0.5, restarts=2)(
        Smooth(24), images[:0], labels[:0], epsilon=[0.1, 0.2], generator=generator()
    )
    assert attacked.images.shape == (2, 0, 2, 3, 4)
    assert attacked.prediction.shape == (2, 2, 0)


# --- what is found ---


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", ATTACKS)
def test_images_are_in_ball_and_box_and_are_what_the_model_says(name: str, norm: str) -> None:
    """In single precision."""
    images, labels = pictures(40, torch.float32)
    model, epsilon = Smooth(24, dtype=torch.float32), EPSILON[norm]
    attack = replace(ATTACKS[name](norm), steps=8)
    original = images.clone()
    attacked = attack(model, images, labels, epsilon=epsilon, generator=generator())
    assert torch.equal(images, original)
    assert attacked.images.dtype is torch.float32
    assert attacked.images.min() >= 0
    assert attacked.images.max() <= 1
    length = NORMS[norm].length(attacked.images - images)
    assert (length <= epsilon * (1 + 1e-5)).all()
    assert isinstance(attack.objective, Objective)
    with torch.no_grad():
        logits = model(attacked.images)
    torch.testing.assert_close(attacked.objective, attack.objective(logits, labels), rtol=1e-5, atol=1e-5)
    confidence, prediction = logits.softmax(1).max(1)
    if attack.restarts == 1:
        assert torch.equal(attacked.prediction[0], prediction)
        torch.testing.assert_close(attacked.confidence[0], confidence)
        torch.testing.assert_close(attacked.length[0], length)


@pytest.mark.parametrize("keep", ["best", "last"])
def test_of_all_restarts_the_worst_counts_for_each_example(keep: str) -> None:
    images, labels = pictures(60)
    attack = PGD("linf", "wrong_confidence", steps=3, relative_step_size=0.5, stop_when_reached=False, keep=keep)  # type: ignore[arg-type]
    before = torch.full((60,), -math.inf, dtype=torch.float64)
    gained = 0
    for restarts in (1, 2, 5):
        attacked = replace(attack, restarts=restarts)(Smooth(24), images, labels, epsilon=0.2, generator=generator())
        assert attacked.restart_objective.shape == (restarts, 60)
        assert torch.equal(attacked.objective, attacked.restart_objective.amax(0))
        assert (attacked.objective >= before).all()
        gained += int((attacked.objective > before).sum())
        before = attacked.objective
    assert gained > 60  # some examples are better off with more


def test_a_restart_that_misclassifies_counts_before_one_with_a_larger_objective() -> None:
    """One pixel in [0, 1]; at its left end the class is wrong, at its right end the cross-entropy is larger."""

    class Valley(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            left = x[:, 0] < 0.3
            zero = torch.zeros_like(x[:, 0])
            # left: the two wrong classes share little; right: three classes, the true one barely on top
            wrong = torch.stack([zero, zero + 0.01 + 0 * x[:, 0], zero - 9], 1)
            right = torch.stack([zero, zero - 0.01, zero - 0.01 + 0 * x[:, 0]], 1)
            return torch.where(left[:, None], wrong, right)

    images, labels = torch.full((200, 1), 0.5, dtype=torch.float64), torch.zeros(200, dtype=torch.int64)
    attack = PGD("linf", steps=1, step_size=1e-9, restarts=60, stop_when_reached=False)
    attacked = attack(Valley(), images, labels, epsilon=0.5, generator=generator())
    assert (attacked.images < 0.3).all()
    assert (attacked.restart_objective.amax(0) > attacked.objective + 0.3).any()


@pytest.mark.parametrize("stop", [True, False])
@pytest.mark.parametrize("name", ["cross_entropy", "margin", "wrong_confidence", "dlr"])
def test_the_best_iterate_is_no_worse_than_the_last(name: str, stop: bool) -> None:
    images, labels = pictures(80)
    model = Smooth(24)
    attack = PGD("l2", name, steps=12, relative_step_size=0.8, stop_when_reached=stop)
    best = attack(model, images, labels, epsilon=1.2, generator=generator())
    last = replace(attack, keep="last")(model, images, labels, epsilon=1.2, generator=generator())
    failed = [classified(model, result.images) != labels for result in (best, last)]
    assert (failed[0] >= failed[1]).all()
    same = (failed[0] == failed[1]) & ~(failed[0] & (stop and name != "wrong_confidence"))
    assert (best.objective >= last.objective)[same].all()
    if not stop:
        assert (best.objective > last.objective).any()  # the steps are too long to end at the top


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("norm", NORMS)
def test_with_backtracking_the_objective_never_falls(norm: str, momentum: float) -> None:
    """The first t steps of an attack with more are the attack with t steps."""
    images, labels = pictures(40)
    attack = PGD(norm, "margin", steps=1, step_size=EPSILON[norm], momentum=momentum, backtracking=1.5, keep="last")
    path = torch.stack(
        [
            replace(attack, steps=steps)(
                Smooth(24), images, labels, epsilon=EPSILON[norm], generator=generator()
            ).objective
            for steps in range(1, 16)
        ]
    )
    assert (path.diff(dim=0) >= 0).all()
    assert (path[-1] > path[0]).any()
    free = replace(attack, backtracking=None)
    falls = [
        replace(free, steps=steps)(Smooth(24), images, labels, epsilon=EPSILON[norm], generator=generator()).objective
        for steps in range(1, 16)
    ]
    assert (torch.stack(falls).diff(dim=0) < 0).any()  # steps this long do overshoot


@pytest.mark.parametrize("restarts", [1, 4])
def test_stopping_early_finds_the_same_examples(restarts: int) -> None:
    images, labels = pictures(200)
    model = Smooth(24)
    labels = torch.where(torch.arange(200) < 190, classified(model, images), labels)
    attack = pgd(steps=10, relative_step_size=0.3, restarts=restarts)
    stopped, full = (
        replace(attack, stop_when_reached=stop)(model, images, labels, epsilon=0.1, generator=generator())
        for stop in (True, False)
    )
    found, all_found = (classified(model, result.images) != labels for result in (stopped, full))
    assert torch.equal(found, all_found)
    assert 20 < int(found.sum()) < 180
    # what was not found was attacked in the same way
    torch.testing.assert_close(stopped.images[~found], full.images[~found], rtol=0, atol=1e-13)
    assert torch.equal((stopped.prediction[-1] != labels), found)  # later restarts repeat what was found


@pytest.mark.parametrize("restarts", [1, 3])
def test_stopping_early_gives_the_same_predictions_of_two_classes(restarts: int) -> None:
    images, labels = pictures(100, K=2)
    attack = pgd("l2", steps=10, relative_step_size=0.3, restarts=restarts)
    predictions = [
        classified(
            (model := Linear(24)),
            replace(attack, stop_when_reached=stop)(model, images, labels, epsilon=0.4, generator=generator()).images,
        )
        for stop in (True, False)
    ]
    assert torch.equal(*predictions)
    assert 0 < int((predictions[0] != labels).sum()) < 100


def test_stopping_early_asks_the_model_less() -> None:
    images, labels = pictures(100)
    seen = {True: 0, False: 0}
    for stop in seen:
        model = Smooth(24)

        def count(module: nn.Module, inputs: tuple[Tensor], stop: bool = stop) -> None:
            seen[stop] += len(inputs[0])

        model.register_forward_pre_hook(count)
        attack = replace(pgd(steps=20, relative_step_size=0.3, restarts=3), stop_when_reached=stop)
        attack(model, images, labels, epsilon=0.3, generator=generator())
    assert seen[False] == 1 + 3 * 21 * 100
    assert seen[True] < seen[False] / 4


# --- targets ---


@pytest.mark.parametrize("norm", CONVEX)
@pytest.mark.parametrize("name", ["targeted_cross_entropy", "targeted_margin"])
def test_targets_are_reached(name: str, norm: str) -> None:
    model = Linear(24, 5)
    images = torch.randn(40, 2, 3, 4, generator=generator(1), dtype=torch.float64)
    labels = classified(model, images)
    targets = (labels + torch.randint(1, 5, (40,), generator=generator(2))) % 5
    attack = PGD(norm, name, steps=200, relative_step_size=0.05, bounds=UNBOUNDED)
    epsilon = {"linf": 3.0, "l2": 15.0, "l1": 40.0}[norm]
    for size in (500, 7):  # the targets stay with their examples
        attacked = attack(
            model, images, labels, epsilon=epsilon, generator=generator(), targets=targets, batch_size=size
        )
        assert torch.equal(attacked.prediction[0], targets)
        assert torch.equal(classified(model, attacked.images), targets)


def test_the_least_likely_class_is_that_of_the_clean_image() -> None:
    model = Linear(24, 5)
    images = torch.randn(40, 2, 3, 4, generator=generator(1), dtype=torch.float64)
    labels = classified(model, images)
    with torch.no_grad():
        least = model(images).argmin(1)
    attack = PGD(
        "linf", "targeted_cross_entropy", steps=60, relative_step_size=0.05, targets="least_likely", bounds=UNBOUNDED
    )
    for size in (500, 7):
        attacked = attack(model, images, labels, epsilon=4.0, generator=generator(), batch_size=size)
        assert torch.equal(attacked.prediction[0], least)


# --- the model ---


@pytest.mark.parametrize("fails", [False, True])
def test_every_module_gets_its_mode_back(fails: bool) -> None:
    draw = generator(3)
    net = build("resnet_ccat", 4, (2, 8, 8), generator=draw, channels=4, blocks=1)
    net.train()
    for index, module in enumerate(net.modules()):
        if index % 3 == 1:
            module.training = False
    modes = [module.training for module in net.modules()]
    assert {True, False} <= set(modes)
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    seen: list[bool] = []
    calls = 0

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        nonlocal calls
        calls += 1
        seen.append(any(each.training for each in net.modules()))
        if fails and calls == 3:
            raise RuntimeError("the device is gone")

    net.register_forward_pre_hook(look)
    images, labels = torch.rand(6, 2, 8, 8, generator=draw), torch.zeros(6, dtype=torch.int64)
    attack = replace(pgd(steps=3, relative_step_size=0.5), stop_when_reached=False)
    if fails:
        with pytest.raises(RuntimeError, match="the device is gone"):
            attack(net, images, labels, epsilon=0.1, generator=generator())
    else:
        attack(net, images, labels, epsilon=0.1, generator=generator())
    assert [module.training for module in net.modules()] == modes
    assert seen
    assert not any(seen)
    for name, value in net.named_buffers():
        assert torch.equal(value, buffers[name])


def test_the_model_keeps_its_gradients() -> None:
    images, labels = pictures(5)
    model = Smooth(24)
    model.W1.grad = torch.ones_like(model.W1)
    with torch.no_grad():  # whatever the caller is in
        attacked = pgd(steps=2, relative_step_size=0.5)(model, images, labels, epsilon=0.1, generator=generator())
    assert not attacked.images.requires_grad
    assert model.W1.grad is not None
    assert (model.W1.grad == 1).all()
    assert model.W2.grad is None
    assert model.W1.requires_grad


def test_the_result_says_how_much_it_is() -> None:
    for shape in ((7, 2), (7, 1, 2, 3)):
        images, labels = torch.rand(shape, generator=generator()), torch.zeros(7, dtype=torch.int64)
        attack = pgd(steps=1, relative_step_size=0.5, restarts=2)
        for epsilon in (0.1, [0.1, 0.2]):
            attacked = attack(lambda x: x.flatten(1)[:, :2], images, labels, epsilon=epsilon, generator=generator())
            assert repr(attacked) == "Attacked(7 images, 2 restarts)"


def test_a_function_is_a_model_and_half_precision_is_widened() -> None:
    images, labels = pictures(20, torch.float32)
    model = Smooth(24, dtype=torch.float32)
    attacked = pgd(steps=3, relative_step_size=0.5)(
        lambda x: model(x).bfloat16(), images, labels, epsilon=0.1, generator=generator()
    )
    assert attacked.objective.dtype is torch.float32
    assert attacked.confidence.dtype is torch.float32


def test_constant_models_do_no_harm() -> None:
    """All gradients are zero: nothing is NaN, and every image stays where it starts."""
    images, labels = pictures(5)
    for norm in NORMS:
        for attack in (
            fgsm(norm),
            mim(norm, steps=3, relative_step_size=0.5),
            bim(norm, steps=3, relative_step_size=1),
        ):
            attacked = attack(
                lambda x: 0 * x.flatten(1)[:, :3], images, torch.zeros_like(labels), epsilon=2.0, generator=generator()
            )
            assert torch.equal(attacked.images, images)
            assert attacked.objective.isfinite().all()


# --- starts ---

STARTS = [Zero(), UniformBall(), Gaussian(), UniformLength(), OneOf((Zero(), UniformBall()))]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("start", STARTS, ids=repr)
def test_starts_follow_the_generator_alone(start: Start, norm: str) -> None:
    like = torch.empty(50, 2, 3, 4, dtype=torch.float64)
    state = torch.get_rng_state()
    first, again, other = (start(NORMS[norm], like, 3.0, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == like.shape
    assert first.dtype is like.dtype
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (start == Zero())
    assert (start(NORMS[norm], like, 0.0, generator()) == 0).all() or norm == "l0"


@pytest.mark.parametrize("norm", CONVEX)
def test_a_uniform_length_is_uniform(norm: str) -> None:
    delta = UniformLength()(NORMS[norm], torch.empty(4000, 2, 3, 4, dtype=torch.float64), 0.6, generator())
    assert stats.kstest(NORMS[norm].length(delta).numpy() / 0.6, "uniform").pvalue > 0.01


def test_one_of_several_starts_for_each_example() -> None:
    like = torch.empty(6000, 1, 2, 2, dtype=torch.float64)
    delta = OneOf((Zero(), UniformBall(), Gaussian()))(LInf(), like, 0.5, generator())
    zero = float((delta == 0).flatten(1).all(1).double().mean())
    assert abs(zero - 1 / 3) < 4 * math.sqrt(2 / 9 / 6000)


def test_gaussian_starts_have_their_deviation() -> None:
    delta = Gaussian()(LInf(), torch.empty(4000, 24, dtype=torch.float64), 0.6, generator())
    assert float(delta.std()) == pytest.approx(0.6 / (2 * math.log(24)), rel=4 / math.sqrt(2 * 4000 * 24))


# --- bad input ---


def test_norms_may_be_given_by_name() -> None:
    assert PGD("l1", "margin", steps=1, step_size=1) == PGD(L1(), Margin(), steps=1, step_size=1)
    assert PGD("l0", steps=1, step_size=1) != PGD(L0(coordinates=3), steps=1, step_size=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "lin"}, "norm = 'lin' is unknown (did you mean 'linf'?): allowed is one of linf, l2, l1, l0"),
        (
            {"objective": "margins"},
            "objective = 'margins' is unknown (did you mean 'margin'?): allowed is one of cross",
        ),
        ({"steps": 0}, "steps = 0 is out of range: allowed is a whole number >= 1"),
        ({"steps": 2.5}, "steps = 2.5 is out of range: allowed is a whole number >= 1"),
        ({"restarts": 0}, "restarts = 0 is out of range: allowed is a whole number >= 1"),
        ({"relative_step_size": None}, "step_size = None and relative_step_size = None: allowed is one of the two"),
        ({"step_size": 0.1}, "step_size = 0.1 and relative_step_size = 0.5: allowed is one of the two"),
        ({"relative_step_size": 0.0}, "relative_step_size = 0.0 is out of range: allowed is a finite number and > 0"),
        (
            {"relative_step_size": math.nan},
            "relative_step_size = nan is out of range: allowed is a finite number and > 0",
        ),
        (
            {"relative_step_size": None, "step_size": -1.0},
            "step_size = -1.0 is out of range: allowed is a finite number and > 0",
        ),
        (
            {"relative_step_size": None, "step_size": math.inf},
            "step_size = inf is out of range: allowed is a finite number and > 0",
        ),
        ({"momentum": 1.0}, "momentum = 1.0 is out of range: allowed is a finite number and >= 0 and < 1"),
        ({"momentum": -0.1}, "momentum = -0.1 is out of range: allowed is a finite number and >= 0 and < 1"),
        (
            {"momentum": -0.1, "momentum_of": "gradient"},
            "momentum = -0.1 is out of range: allowed is a finite number and >= 0",
        ),
        ({"momentum_of": "velocity"}, "momentum_of = 'velocity' is not allowed: direction or gradient is"),
        ({"backtracking": 1.0}, "backtracking = 1.0 is out of range: allowed is a finite number and > 1"),
        ({"start": "zero"}, "start = 'zero' is not allowed: a Start, say Zero() or UniformBall() is"),
        ({"keep": "first"}, "keep = 'first' is not allowed: best or last is"),
        ({"targets": "random"}, "targets = 'random' is not allowed: given or least_likely is"),
        ({"bounds": (1.0, 0.0)}, "bounds = (1.0, 0.0) is not allowed: two numbers, the lower first, are"),
        ({"bounds": (0.0, math.nan)}, "bounds = (0.0, nan) is not allowed: two numbers, the lower first, are"),
        ({"bounds": (0.0, 0.5, 1.0)}, "bounds = (0.0, 0.5, 1.0) is not allowed: two numbers, the lower first, are"),
        ({"bounds": 1.0}, "bounds = 1.0 is not allowed: two numbers, the lower first, are"),
        ({"keep": "last", "restarts": 2}, "stop_when_reached = True is not allowed: False where the last iterate of"),
    ],
)
def test_bad_configurations(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"norm": "linf", "steps": 3, "relative_step_size": 0.5}
    with pytest.raises(ValueError, match=re.escape(message)):
        PGD(**(arguments | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": 2}, "norm = 2 is of the wrong type: allowed is one of linf, l2, l1, l0"),
        ({"objective": None}, "objective = None is of the wrong type: allowed is one of cross_entropy, margin"),
        ({"steps": "10"}, "steps = '10' is not a number"),
        ({"relative_step_size": "0.5"}, "relative_step_size = '0.5' is not a number"),
        ({"momentum": "0.9"}, "momentum = '0.9' is not a number"),
        ({"backtracking": "2"}, "backtracking = '2' is not a number"),
        ({"stop_when_reached": "no"}, "stop_when_reached = 'no' is not a bool: allowed is True or False"),
    ],
)
def test_configurations_of_the_wrong_type(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {"norm": "linf", "steps": 3, "relative_step_size": 0.5}
    with pytest.raises(TypeError, match=re.escape(message)):
        PGD(**(arguments | change))  # type: ignore[arg-type]


def test_whole_numbers_may_be_floats() -> None:
    images, labels = pictures(5)
    results = [
        PGD("l1", steps=steps, relative_step_size=0.5, restarts=restarts)(  # type: ignore[arg-type]
            Smooth(24),
            images,
            labels,
            epsilon=1.0,
            generator=generator(),
            batch_size=batch_size,  # type: ignore[arg-type]
        ).images
        for steps, restarts, batch_size in ((3, 2, 4), (3.0, 2.0, 4.0))  # as they come out of a division
    ]
    assert torch.equal(*results)


def arguments_of_a_call() -> dict[str, object]:
    net = build("conv_small", 4, (1, 8, 8), generator=generator(3))
    images, labels = torch.rand(5, 1, 8, 8, generator=generator(4)), torch.tensor([0, 1, 2, 3, 0])
    return {"model": net, "images": images, "labels": labels, "epsilon": 0.1, "generator": generator()}


NAN = torch.rand(5, 1, 8, 8)
NAN[3, 0, 2, 1] = math.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"images": torch.full((5, 1, 8, 8), 255.0)},
            "images have pixels in [255, 255]: allowed is [0.0, 1.0]; divide bytes by 255",
        ),
        ({"images": torch.full((5, 1, 8, 8), -0.25)}, "images have pixels in [-0.25, -0.25]: allowed is [0.0, 1.0]"),
        ({"images": NAN}, "images[3] has NaN pixels: allowed are numbers in [0.0, 1.0]"),
        ({"images": torch.rand(5, 3, 8, 8)}, "x has the shape (1, 3, 8, 8): allowed is (n, 1, 8, 8)"),
        (
            {"images": torch.rand(5)},
            "images of shape (5,) and labels of shape (5,) do not go together: allowed are (n,",
        ),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, "images of shape (5, 1, 8, 8) and labels of shape (4,) do not"),
        (
            {"labels": torch.tensor([0, 1, 2, 3, 4])},
            "labels have the value 4, but the model has 4 classes: allowed is 0",
        ),
        ({"labels": torch.tensor([0, 1, 2, 3, -1])}, "labels have the value -1: allowed is a class, 0 or more"),
        ({"epsilon": -0.1}, "epsilon = -0.1 is not allowed: a finite number >= 0 is"),
        ({"epsilon": [0.1, math.nan]}, "epsilon = nan is not allowed: a finite number >= 0 is"),
        ({"epsilon": math.inf}, "epsilon = inf is not allowed: a finite number >= 0 is"),
        ({"epsilon": []}, "epsilon = [] is not allowed: at least one number is"),
        ({"batch_size": 0}, "batch_size = 0 is out of range: allowed is a whole number >= 1"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, "targets are not allowed: the objective has none"),
        (
            {"model": lambda x: x.flatten(1)[:, 0]},
            "model returned logits of shape (1,) for 1 images: allowed is (n, K)",
        ),
        ({"model": lambda x: x.flatten(1)[:, :1]}, "model returned logits of shape (1, 1) for 1 images: allowed is"),
        ({"model": lambda x: x.flatten(1)[:, :4] / 0}, "model returned logits that are not finite"),
        ({"model": lambda x: x.detach().flatten(1)[:, :4]}, "model has no gradient by its images: allowed is one that"),
        (
            {"model": lambda x: torch.zeros(len(x), 4, requires_grad=True)},
            "model has no gradient by its images: allowed is one that",
        ),
    ],
)
def test_bad_input(change: dict[str, object], message: str) -> None:
    attack = pgd(steps=2, relative_step_size=0.5)
    with pytest.raises(ValueError, match=re.escape(message)):
        attack(**(arguments_of_a_call() | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": [[0.5]]}, "images are of the wrong type list: allowed is a tensor of a floating type"),
        (
            {"images": torch.zeros(5, 1, 8, 8, dtype=torch.uint8)},
            "images are of the wrong type torch.uint8: allowed is a tensor of a floating type",
        ),
        ({"labels": torch.zeros(5)}, "labels are of the wrong type torch.float32: allowed is a tensor of torch.int64"),
        ({"labels": [0] * 5}, "labels are of the wrong type list: allowed is a tensor of torch.int64"),
        ({"epsilon": "12"}, "epsilon = '12' is of the wrong type: allowed is a number or a list of them"),
        ({"epsilon": None}, "epsilon = None is of the wrong type: allowed is a number or a list of them"),
        ({"batch_size": "all"}, "batch_size = 'all' is not a number"),
    ],
)
def test_input_of_the_wrong_type(change: dict[str, object], message: str) -> None:
    attack = pgd(steps=2, relative_step_size=0.5)
    with pytest.raises(TypeError, match=re.escape(message)):
        attack(**(arguments_of_a_call() | change))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (None, "targets = None is not allowed: a torch.int64 tensor of shape (5,) is"),
        (torch.zeros(5), "targets = torch.float32 of shape (5,) is not allowed: a torch.int64 tensor of shape (5,) is"),
        (
            torch.zeros(4, dtype=torch.int64),
            "targets = torch.int64 of shape (4,) is not allowed: a torch.int64 tensor of shape (5,) is",
        ),
        (torch.full((5,), 4), "targets have the value 4, but the model has 4 classes: allowed is 0..3"),
        (torch.full((5,), -1), "targets have the value -1: allowed is a class, 0 or more"),
    ],
)
def test_bad_targets(targets: Tensor | None, message: str) -> None:
    attack = PGD("linf", "targeted_margin", steps=2, relative_step_size=0.5)
    with pytest.raises(ValueError, match=re.escape(message)):
        attack(**arguments_of_a_call(), targets=targets)  # type: ignore[arg-type]


def test_the_least_likely_class_needs_a_targeted_objective_and_no_targets() -> None:
    attack = PGD("linf", steps=2, relative_step_size=0.5, targets="least_likely")
    with pytest.raises(ValueError, match="the objective has no target"):
        attack(**arguments_of_a_call())  # type: ignore[arg-type]
    attack = replace(attack, objective="targeted_margin")
    with pytest.raises(ValueError, match="the attack takes the least likely class"):
        attack(**arguments_of_a_call(), targets=torch.zeros(5, dtype=torch.int64))  # type: ignore[arg-type]


def test_no_start_at_all() -> None:
    with pytest.raises(ValueError, match=re.escape("starts = () is not allowed: at least one start is")):
        OneOf(())
