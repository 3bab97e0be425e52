"""Losses of the training methods, on models where they are known."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.norms import norm
from deepcheck.attacks.pgd import PGD
from deepcheck.attacks.starts import Gaussian, OneOf, Tiles, UniformLength, Zero
from deepcheck.training import METHODS, Method, Recipe, recipe
from deepcheck.training.methods.at import AdversarialTraining
from deepcheck.training.methods.ccat import CCAT, ccat_attack, soft_targets, true_class_weight
from deepcheck.training.methods.standard import Standard
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device

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
    attack: dict[str, Any] = {"epsilon": EPSILON, "attack_steps": 3, "step_size": 0.05}
    return [AdversarialTraining(**attack), AdversarialTraining(**attack, attacked_share=0.5), CCAT(**attack)]


def attacking(method: Method, attack: Any) -> Method:
    """Give a method another attack than its fields say: where the cached property keeps it."""
    vars(method)["attack"] = attack
    return method


# --- what all methods have in common ---


def named(method: Method) -> str:
    return type(method).__name__ + str(getattr(method, "attacked_share", ""))


@pytest.mark.parametrize("method", [Standard(), *methods()], ids=named)
def test_one_forward_pass_in_train_mode(method: Method) -> None:
    images, labels = pictures(10)
    model = Recording().train()
    method.loss(model, images, labels, progress=0.5, generator=generator(), state=None)
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
    method.loss(model, images, labels, progress=0.5, generator=generator(), state=None)
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
    loss = method.loss(model, images, labels, progress=0.5, generator=generator(), state=None)
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
        method.loss(Recording().train(), images, labels, progress=0.5, generator=generator(seed), state=None).item()
        for seed in (1, 1, 2)
    )
    assert first == again
    assert (first == other) == isinstance(method, Standard)


def test_standard_is_the_mean_of_minus_log_p() -> None:
    images, labels = pictures(10)
    model = Recording()
    loss = Standard().loss(model, images, labels, progress=0.0, generator=generator(), state=None)
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


@pytest.mark.parametrize("of", ["linf", "l2"])
@pytest.mark.parametrize("n", [10, 11])
@pytest.mark.parametrize("rho", [1.0, 10.0])
def test_loss_of_ccat(n: int, rho: float, of: Literal["linf", "l2"]) -> None:
    images, labels = pictures(n)
    model = Recording().train()
    method = CCAT(norm=of, epsilon=EPSILON, attack_steps=5, step_size=0.02, rho=rho)
    loss = method.loss(model, images, labels, progress=0.0, generator=generator(), state=None)
    (joint,) = model.trained
    half = n // 2
    assert torch.equal(joint[:half], images[:half])
    delta = torch.linalg.vector_norm((joint - images)[half:].flatten(1), ord=2 if of == "l2" else math.inf, dim=1)
    assert (delta > 0).any()
    assert delta.max() <= EPSILON * (1 + 1e-12)
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
    CCAT(epsilon=EPSILON, attack_steps=5, step_size=0.02).loss(
        model, images, labels, progress=0.0, generator=generator(), state=None
    )
    expected = attack.perturb(model.eval(), images[5:], labels[5:], EPSILON, generator())
    assert torch.equal(model.trained[0][5:], expected)


def test_the_steps_of_the_attack_of_ccat_grow() -> None:
    method = CCAT(epsilon=EPSILON, attack_steps=8, first_steps=2, growth=0.5)
    assert [method.steps_at(progress) for progress in (0.0, 0.1, 0.25, 0.4, 0.5, 0.9)] == [2, 3, 5, 7, 8, 8]
    assert CCAT(attack_steps=8).steps_at(0.0) == 8
    images, labels = pictures(10)
    for progress, steps in ((0.0, 2), (0.25, 5), (0.75, 8)):
        model = Recording().train()
        method.loss(model, images, labels, progress=progress, generator=generator(), state=None)
        assert len(model.evaluated) == steps + 1


class Unmoved:
    """An attack that does nothing, or takes every pixel to the edge of the ball."""

    norm = norm("linf")

    def __init__(self, length: float) -> None:
        self.length = length

    def perturb_with(self, _: object, images: Tensor, *__: object, **___: object) -> Tensor:
        return images + self.length


@pytest.mark.parametrize(("length", "share"), [(0.0, 0.0), (EPSILON, 1.0), (2 * EPSILON, 1.0)])
def test_limits_of_the_loss_of_ccat(length: float, share: float) -> None:
    images, labels = pictures(10)
    model = Recording().train()
    method = attacking(CCAT(epsilon=EPSILON, rho=3.0), Unmoved(length))
    loss = method.loss(model, images, labels, progress=0.0, generator=generator(), state=None)
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
    method = attacking(AdversarialTraining(epsilon=EPSILON, attacked_share=share), EDGE)
    loss = method.loss(model.train(), images, labels, progress=0.0, generator=generator(), state=None)
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
    method = attacking(AdversarialTraining(epsilon=EPSILON, ramp=ramp), EDGE)
    loss = method.loss(model.train(), images, labels, progress=progress, generator=generator(), state=None)
    torch.testing.assert_close(loss.double(), largest(images, labels, factor * EPSILON).mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("schedule", "progress", "factor"),
    [
        ((0.0, 1.0), 0.25, 0.25),
        ((1.0, 0.0), 0.25, 0.75),  # it may fall
        ((0.0, 1.0, 1.0, 0.5), 1 / 6, 0.5),
        ((0.0, 1.0, 1.0, 0.5), 0.5, 1.0),
        ((0.0, 1.0, 1.0, 0.5), 5 / 6, 0.75),
        ((0.0, 1.2), 0.999, 1.1988),  # and be above epsilon
    ],
)
def test_the_radius_follows_a_schedule(schedule: tuple[float, ...], progress: float, factor: float) -> None:
    images, labels = pictures(10, classes=2)
    model, largest = two_classes()
    radii = tuple(EPSILON * one for one in schedule)
    method = attacking(AdversarialTraining(epsilon=EPSILON, ramp=0.4, epsilon_schedule=radii), EDGE)
    loss = method.loss(model.train(), images, labels, progress=progress, generator=generator(), state=None)
    torch.testing.assert_close(loss.double(), largest(images, labels, factor * EPSILON).mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("first", "growth", "steps"),
    [
        (None, 0.5, [10, 10, 10, 10, 10]),
        (10, 0.5, [10, 10, 10, 10, 10]),
        (2, 0.5, [2, 6, 10, 10, 10]),
        (1, 1.0, [1, 3, 6, 8, 10]),
        (3, 0.0, [10, 10, 10, 10, 10]),
    ],
)
def test_the_attack_takes_more_steps_in_the_course_of_training(
    first: int | None, growth: float, steps: list[int]
) -> None:
    images, labels = pictures(6)
    method = AdversarialTraining(epsilon=EPSILON, attack_steps=10, step_size=0.025, first_steps=first, growth=growth)
    for progress, expected in zip((0.0, 0.25, 0.5, 0.75, 0.999), steps, strict=True):
        model = Recording().train()
        method.loss(model, images, labels, progress=progress, generator=generator(), state=None)
        assert len(model.evaluated) == expected  # the last point is not looked at, the start is
        assert len(model.trained) == 1
        # few steps still lead from the image to the edge of the ball
        attack = method.attack_at(progress)
        assert attack.steps == expected
        assert attack.step_size == pytest.approx(max(0.025, EPSILON / expected))
        plain = replace(method.attack, steps=expected, step_size=attack.step_size)
        found = plain.perturb(model.eval(), images, labels, EPSILON, generator())
        assert torch.equal(model.trained[0], found)


def test_few_steps_keep_to_the_radius_of_the_moment() -> None:
    method = AdversarialTraining(epsilon=0.4, attack_steps=8, step_size=0.01, first_steps=2, ramp=1.0)
    assert method.attack_at(0.0).step_size == 0.01
    assert method.attack_at(0.1).steps == 3
    assert method.attack_at(0.1).step_size == pytest.approx(0.04 / 3)
    assert method.attack_at(0.5) == method.attack


def test_without_a_radius_all_methods_are_standard() -> None:
    images, labels = pictures(10)
    plain = Standard().loss(Recording(), images, labels, progress=0.0, generator=generator(), state=None)
    for share in (0.5, 1.0):
        method = AdversarialTraining(epsilon=0.0, attack_steps=2, step_size=0.1, attacked_share=share)
        loss = method.loss(Recording(), images, labels, progress=0.0, generator=generator(), state=None)
        torch.testing.assert_close(loss, plain)


# --- fields, attacks and names ---


def test_a_method_makes_its_attack_of_its_fields() -> None:
    at = AdversarialTraining(norm="l2", attack_steps=7, step_size=0.03).attack
    assert at == PGD("l2", "cross_entropy", steps=7, step_size=0.03, keep="last", stop_when_reached=False)
    assert CCAT(attack_steps=7, step_size=0.03).attack == ccat_attack(steps=7, step_size=0.03)
    with_tiles = CCAT(starts="tiles", backtracking=None).attack
    assert with_tiles.start == OneOf((Gaussian(), UniformLength(), Zero(), Tiles()))
    assert with_tiles.backtracking is None
    at_the_image = CCAT(starts="image").attack.start
    assert isinstance(at_the_image, OneOf)
    assert [at_the_image.starts.count(one) for one in (Zero(), Gaussian(), UniformLength(), Tiles())] == [3, 1, 1, 1]


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (AdversarialTraining, {"norm": "l1"}, "norm = 'l1' is unknown"),
        (AdversarialTraining, {"epsilon": -0.1}, "epsilon = -0.1 is out of range: allowed is a finite number and >= 0"),
        (AdversarialTraining, {"epsilon": math.nan}, "epsilon = nan is out of range"),
        (AdversarialTraining, {"attack_steps": 0}, "attack_steps = 0 is out of range"),
        (AdversarialTraining, {"step_size": -0.1}, "step_size = -0.1 is out of range"),
        (AdversarialTraining, {"ramp": 1.1}, "ramp = 1.1 is out of range"),
        (AdversarialTraining, {"epsilon_schedule": (0.1, -0.1)}, "epsilon_schedule = -0.1 is out of range"),
        (AdversarialTraining, {"epsilon_schedule": (0.1,)}, "epsilon_schedule = (0.1,) is not allowed: two values"),
        (AdversarialTraining, {"first_steps": 0}, "first_steps = 0 is out of range"),
        (AdversarialTraining, {"growth": -0.1}, "growth = -0.1 is out of range"),
        (AdversarialTraining, {"attacked_share": 0.0}, "attacked_share = 0.0 is out of range"),
        (CCAT, {"norm": "l1"}, "norm = 'l1' is unknown"),
        (CCAT, {"epsilon": 0.0}, "epsilon = 0.0 is out of range: allowed is a finite number and > 0"),
        (CCAT, {"attack_steps": 0}, "attack_steps = 0 is out of range"),
        (CCAT, {"step_size": 0.0}, "step_size = 0.0 is out of range"),
        (CCAT, {"rho": 0.0}, "rho = 0.0 is out of range"),
        (
            CCAT,
            {"starts": "tile"},
            "starts = 'tile' is unknown (did you mean 'tiles'?): allowed is one of published, tiles, image",
        ),
        (CCAT, {"growth": 1.5}, "growth = 1.5 is out of range"),
        (CCAT, {"backtracking": 1.0}, "backtracking = 1.0 is out of range: allowed is a finite number and > 1"),
    ],
    ids=str,
)
def test_bad_fields_of_methods(kind: type[Method], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        kind(**changes)
    if kind is METHODS["at"]:
        with pytest.raises(ValueError, match=re.escape(message)):
            recipe("digits", "at", **changes)


def test_fields_belong_to_one_method() -> None:
    assert Standard.settings() == ()
    assert set(AdversarialTraining.settings()) - set(CCAT.settings()) == {"ramp", "epsilon_schedule", "attacked_share"}
    assert set(CCAT.settings()) - set(AdversarialTraining.settings()) == {"rho", "starts", "backtracking"}
    for method, name in (("standard", "epsilon"), ("at", "rho"), ("ccat", "ramp")):
        with pytest.raises(ValueError, match=f"field of a recipe = '{name}' is unknown"):
            recipe("digits", method, **{name: 0.1})


def test_a_name_cannot_be_set() -> None:
    with pytest.raises(TypeError, match="name"):
        AdversarialTraining(name="ccat")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=re.escape("method = 'at' is of the wrong type: allowed is a Method")):
        Recipe(method="at")  # type: ignore[arg-type]


def test_former_places() -> None:
    from deepcheck.training import adversarial, ccat, standard

    assert adversarial.AdversarialTraining is AdversarialTraining
    assert (ccat.CCAT, ccat.ccat_attack, standard.Standard) == (CCAT, ccat_attack, Standard)
