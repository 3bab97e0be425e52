"""Losses of the training methods, on models where they are known."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.norms import norm
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import Gaussian, OneOf, UniformLength, Zero
from deepcheck.training.adversarial import AdversarialTraining
from deepcheck.training.ccat import CCAT, ccat_attack, soft_targets, true_class_weight
from deepcheck.training.methods import Method
from deepcheck.training.recipe import Recipe
from deepcheck.training.standard import Standard

EPSILON = 0.1


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, classes: int = 4) -> tuple[Tensor, Tensor]:
    images = torch.rand(n, 2, 4, 3, generator=generator(5), dtype=torch.float64)
    return images, torch.randint(classes, (n,), generator=generator(6))


class Recording(nn.Module):
    """A linear model, behind a batch norm or not, that keeps what it sees in train mode and in eval mode."""

    def __init__(self, classes: int = 4, *, batch_norm: bool = False) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.randn(classes, 24, generator=generator(7), dtype=torch.float64))
        self.b = nn.Parameter(torch.randn(classes, generator=generator(8), dtype=torch.float64))
        self.norm = nn.BatchNorm2d(2, dtype=torch.float64) if batch_norm else nn.Identity()
        self.trained: list[Tensor] = []
        self.evaluated: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        (self.trained if self.training else self.evaluated).append(x.detach().clone())
        assert self.norm.training == self.training
        return F.linear(self.norm(x).flatten(1), self.W, self.b)


def methods() -> list[Method]:
    attack = PGD("linf", steps=3, step_size=0.05, keep="last", stop_when_reached=False)
    return [
        AdversarialTraining(attack, EPSILON),
        AdversarialTraining(attack, EPSILON, 0.5),
        CCAT(ccat_attack(steps=3, step_size=0.05), EPSILON),
    ]


# --- what all methods have in common ---


def named(method: Method) -> str:
    return type(method).__name__ + str(getattr(method, "share", ""))


@pytest.mark.parametrize("method", [Standard(), *methods()], ids=named)
def test_one_forward_pass_in_train_mode(method: Method) -> None:
    images, labels = pictures(10)
    model = Recording().train()
    method.loss(model, images, labels, progress=0.5, generator=generator())
    assert model.training
    assert [len(x) for x in model.trained] == [10]
    assert len(model.evaluated) == (0 if isinstance(method, Standard) else model_calls(method))


def model_calls(method: Method) -> int:
    """Calls of the attack: one at each iterate whose value or gradient is needed."""
    assert isinstance(method, AdversarialTraining | CCAT)
    return method.attack.steps + (method.attack.keep == "best")


@pytest.mark.parametrize("method", methods(), ids=named)
def test_batch_statistics_are_those_of_the_training_forward_alone(method: Method) -> None:
    images, labels = pictures(10)
    model = Recording(batch_norm=True).train()
    method.loss(model, images, labels, progress=0.5, generator=generator())
    (joint,) = model.trained
    assert isinstance(model.norm, nn.BatchNorm2d)
    assert model.norm.num_batches_tracked == 1
    mean = joint.mean((0, 2, 3))
    torch.testing.assert_close(model.norm.running_mean, 0.1 * mean)
    variance = joint.transpose(0, 1).flatten(1).var(1)
    torch.testing.assert_close(model.norm.running_var, 1 - 0.1 + 0.1 * variance)


@pytest.mark.parametrize("method", methods(), ids=named)
def test_the_attack_leaves_no_gradient_and_stays_in_ball_and_box(method: Method) -> None:
    images, labels = pictures(10)
    model = Recording().train()
    before = torch.get_rng_state()
    loss = method.loss(model, images, labels, progress=0.5, generator=generator())
    gradients = [model.W.grad]
    assert torch.equal(before, torch.get_rng_state())
    (joint,) = model.trained
    assert (joint - images).abs().max() <= EPSILON * (1 + 1e-12)
    assert joint.min() >= 0
    assert joint.max() <= 1
    loss.backward()
    gradients.append(model.W.grad)
    assert [gradient is None for gradient in gradients] == [True, False]


@pytest.mark.parametrize("method", [Standard(), *methods()], ids=named)
def test_losses_depend_on_the_generator_alone(method: Method) -> None:
    images, labels = pictures(10)
    first, again, other = (
        method.loss(Recording().train(), images, labels, progress=0.5, generator=generator(seed)).item()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert (first == other) == isinstance(method, Standard)


def test_standard_is_the_mean_of_minus_log_p() -> None:
    images, labels = pictures(10)
    model = Recording()
    loss = Standard().loss(model, images, labels, progress=0.0, generator=generator())
    p = (images.flatten(1) @ model.W.T + model.b).softmax(1)
    torch.testing.assert_close(loss.double(), -p.log()[torch.arange(10), labels].mean(), rtol=1e-6, atol=0)


# --- CCAT: weights and targets ---


def test_weight_of_the_true_class() -> None:
    length = torch.tensor([0.0, 0.025, 0.05, 0.1, 0.2], dtype=torch.float64)
    for rho in (0.5, 1.0, 10.0):
        expected = [1.0, 0.75**rho, 0.5**rho, 0.0, 0.0]
        torch.testing.assert_close(true_class_weight(length, 0.1, rho), torch.tensor(expected, dtype=torch.float64))


def test_targets_go_over_from_the_label_to_the_uniform_distribution() -> None:
    K = 4
    labels = torch.tensor([2, 0, 3])
    targets = soft_targets(labels, torch.tensor([1.0, 0.0, 0.25], dtype=torch.float64), K)
    torch.testing.assert_close(
        targets,
        torch.tensor(
            [[0, 0, 1, 0], [0.25] * 4, [0.1875, 0.1875, 0.1875, 0.25 + 0.1875]],
            dtype=torch.float64,
        ),
    )


def test_targets_are_probabilities() -> None:
    weight = torch.rand(50, generator=generator(), dtype=torch.float64)
    labels = torch.randint(10, (50,), generator=generator())
    targets = soft_targets(labels, weight, 10)
    torch.testing.assert_close(targets.sum(1), torch.ones(50, dtype=torch.float64))
    assert (targets >= 0).all()
    assert (targets.argmax(1) == labels).all()
    # the further away, the less for the label
    order = weight.argsort()
    at_label = targets.gather(1, labels[:, None])[order, 0]
    assert (at_label.diff() >= 0).all()


# --- CCAT: the loss ---


@pytest.mark.parametrize("n", [10, 11])
@pytest.mark.parametrize("rho", [1.0, 10.0])
def test_loss_of_ccat(n: int, rho: float) -> None:
    images, labels = pictures(n)
    model = Recording().train()
    method = CCAT(ccat_attack(steps=5, step_size=0.02), EPSILON, rho)
    loss = method.loss(model, images, labels, progress=0.0, generator=generator())
    (joint,) = model.trained
    half = n // 2
    assert torch.equal(joint[:half], images[:half])
    delta = (joint - images)[half:].flatten(1).abs().amax(1)
    assert (delta > 0).any()
    log_p = (joint.flatten(1) @ model.W.T + model.b).log_softmax(1)
    clean = -log_p[torch.arange(half), labels[:half]].mean()
    attacked = torch.zeros((), dtype=torch.float64)
    for length, y, one in zip(delta, labels[half:], log_p[half:], strict=True):
        weight = (1 - min(1.0, float(length) / EPSILON)) ** rho
        target = [weight * (k == int(y)) + (1 - weight) / 4 for k in range(4)]
        attacked = attacked - sum(t * one[k] for k, t in enumerate(target)) / (n - half)
    torch.testing.assert_close(loss.double(), 0.5 * clean + 0.5 * attacked, rtol=1e-6, atol=0)


def test_ccat_attacks_the_second_half_by_its_attack() -> None:
    images, labels = pictures(10)
    model, attack = Recording().train(), ccat_attack(steps=5, step_size=0.02)
    CCAT(attack, EPSILON).loss(model, images, labels, progress=0.0, generator=generator())
    expected = attack.perturb(model.eval(), images[5:], labels[5:], EPSILON, generator())
    assert torch.equal(model.trained[0][5:], expected)


class Unmoved:
    """An attack that does nothing, or takes every pixel to the edge of the ball."""

    norm = norm("linf")

    def __init__(self, length: float) -> None:
        self.length = length

    def perturb(self, _: object, images: Tensor, *__: object) -> Tensor:
        return images + self.length


@pytest.mark.parametrize(("length", "share"), [(0.0, 0.0), (EPSILON, 1.0), (2 * EPSILON, 1.0)])
def test_limits_of_the_loss_of_ccat(length: float, share: float) -> None:
    images, labels = pictures(10)
    model = Recording().train()
    attack: Any = Unmoved(length)
    loss = CCAT(attack, EPSILON, rho=3.0).loss(model, images, labels, progress=0.0, generator=generator())
    log_p = (model.trained[0].flatten(1) @ model.W.T + model.b).log_softmax(1)
    right = -log_p[torch.arange(10), labels]
    uniform = -log_p.mean(1)
    expected = right[:5].mean() / 2 + ((1 - share) * right[5:] + share * uniform[5:]).mean() / 2
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)


def test_attack_of_ccat_is_the_published_one() -> None:
    attack = ccat_attack(steps=40, step_size=0.01)
    assert (attack.steps, attack.step_size, attack.relative_step_size) == (40, 0.01, None)
    assert (attack.momentum, attack.momentum_of, attack.backtracking) == (0.9, "direction", 1.5)
    assert attack.norm == norm("linf")
    assert repr(attack.objective) == "WrongConfidence()"
    assert attack.start == OneOf((Gaussian(), UniformLength(), Zero()))
    assert (attack.keep, attack.stop_when_reached, attack.restarts) == ("best", False, 1)
    images, labels = pictures(20)
    model = Recording().eval()

    def confidence(x: Tensor) -> Tensor:
        p = (x.flatten(1) @ model.W.T + model.b).softmax(1)
        p[torch.arange(20), labels] = 0
        return p.amax(1)

    found = attack.perturb(model, images, labels, EPSILON, generator())
    assert (confidence(found) >= confidence(images)).double().mean() > 0.9
    assert confidence(found).mean() > confidence(images).mean() + 0.05


# --- adversarial training ---


def two_classes() -> tuple[Recording, Callable[[Tensor, Tensor, float], Tensor]]:
    """A linear model of two classes, and its exact largest cross-entropy in an L-infinity ball, per example."""
    model = Recording(2)
    w, b = model.W[1] - model.W[0], model.b[1] - model.b[0]

    def largest(images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
        margin = (2 * labels - 1) * (images.flatten(1) @ w + b)
        return F.softplus(-(margin - epsilon * w.abs().sum()))

    return model, largest


EDGE = PGD(
    "linf", steps=2, step_size=1.0, keep="last", stop_when_reached=False, bounds=(-math.inf, math.inf)
)  # it reaches the maximum of a linear model


@pytest.mark.parametrize(("share", "clean"), [(1.0, 0), (0.5, 5), (0.3, 7), (0.01, 9)])
def test_loss_of_adversarial_training(share: float, clean: int) -> None:
    images, labels = pictures(10, classes=2)
    model, largest = two_classes()
    loss = AdversarialTraining(EDGE, EPSILON, share).loss(
        model.train(), images, labels, progress=0.0, generator=generator()
    )
    expected = torch.cat([largest(images[:clean], labels[:clean], 0.0), largest(images[clean:], labels[clean:], 0.1)])
    torch.testing.assert_close(loss.double(), expected.mean(), rtol=1e-6, atol=0)
    changed = (model.trained[0] != images).flatten(1).any(1)
    assert changed.tolist() == [False] * clean + [True] * (10 - clean)


@pytest.mark.parametrize(
    ("ramp", "progress", "factor"),
    [(0.0, 0.0, 1), (0.4, 0.0, 0), (0.4, 0.1, 0.25), (0.4, 0.4, 1), (0.4, 0.9, 1), (1.0, 0.75, 0.75)],
)
def test_the_radius_grows(ramp: float, progress: float, factor: float) -> None:
    images, labels = pictures(10, classes=2)
    model, largest = two_classes()
    method = AdversarialTraining(EDGE, EPSILON, ramp=ramp)
    loss = method.loss(model.train(), images, labels, progress=progress, generator=generator())
    torch.testing.assert_close(loss.double(), largest(images, labels, factor * EPSILON).mean(), rtol=1e-6, atol=0)


def test_without_a_radius_all_methods_are_standard() -> None:
    images, labels = pictures(10)
    plain = Standard().loss(Recording(), images, labels, progress=0.0, generator=generator())
    for share in (0.5, 1.0):
        attack = PGD("linf", steps=2, step_size=0.1, keep="last", stop_when_reached=False)
        loss = AdversarialTraining(attack, 0.0, share).loss(
            Recording(), images, labels, progress=0.0, generator=generator()
        )
        torch.testing.assert_close(loss, plain)


# --- from recipes ---


def test_recipes_make_their_methods() -> None:
    options: dict[str, Any] = {"epsilon": 0.2, "attack_steps": 7, "step_size": 0.03}
    assert Recipe(method="standard", **options).training_method() == Standard()
    at = Recipe(method="at", ramp=0.4, attacked_share=0.5, **options).training_method()
    assert isinstance(at, AdversarialTraining)
    assert (at.epsilon, at.share, at.ramp) == (0.2, 0.5, 0.4)
    assert (at.attack.steps, at.attack.step_size, at.attack.momentum) == (7, 0.03, 0.0)
    assert repr(at.attack.objective) == "CrossEntropy()"
    ccat = Recipe(method="ccat", rho=3.0, **options).training_method()
    assert ccat == CCAT(ccat_attack(steps=7, step_size=0.03), 0.2, 3.0)
