"""Universal perturbations: closed forms on linear nets, the paper's loop, held-out images, and the call."""

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import DeepFool, Universal, UniversalPerturbation
from deepcheck.attacks.norms import NORMS
from deepcheck.data import load
from deepcheck.evaluation import Planned, evaluate, robust_error, suite
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net

pytestmark = on_every_device

DUAL = {"l2": 2.0, "linf": 1.0, "l1": math.inf}
UNBOUNDED = (-math.inf, math.inf)
METHODS = ("gradient", "deepfool")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Two(nn.Module):
    """Logits -f/2 and f/2 with f = w x."""

    def __init__(self, D: int = 12) -> None:
        super().__init__()
        size = 0.5 + torch.rand(D, generator=generator(1), dtype=torch.float64)
        self.w = nn.Parameter(size * torch.randn(D, generator=generator(2), dtype=torch.float64).sign())

    def forward(self, x: Tensor) -> Tensor:
        f = x.flatten(1) @ self.w
        return torch.stack([-f / 2, f / 2], 1)


def with_margins(model: Two, margins: Tensor) -> Tensor:
    """Images of which f is what is wanted, with much else in them."""
    w = model.w.detach()
    x = torch.randn(len(margins), len(w), generator=generator(3), dtype=torch.float64)
    x += ((margins - x @ w) / (w @ w))[:, None] * w
    return x.view(len(margins), 1, 3, 4)


def prepared(model: nn.Module, images: Tensor, attack: UniversalPerturbation, **options: Any) -> Universal:
    given: dict[str, Any] = {"epsilon": 0.2, "generator": generator(), **options}
    return attack.prepare(model, images, torch.zeros(len(images), dtype=torch.int64), **given)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("norm", DUAL)
def test_of_one_linear_class_all_are_fooled_that_a_perturbation_of_this_length_can_fool(norm: str, method: str) -> None:
    """Those of margin below epsilon |w|_*, and the direction is that of steepest descent."""
    model = Two()
    images = with_margins(model, torch.linspace(0.01, 1, 100, dtype=torch.float64))
    reach = float(torch.linalg.vector_norm(model.w.detach(), ord=DUAL[norm]))
    attack = UniversalPerturbation(norm, method=method, passes=40, bounds=UNBOUNDED)  # type: ignore[arg-type]
    found = prepared(model, images, attack, epsilon=0.605 / reach)
    assert found.rates == (0.6,)
    expected = -0.605 / reach * NORMS[norm].steepest(model.w.detach().view(1, 1, 3, 4))[0]
    # once 60 are fooled, which takes 0.60 of 0.605, nothing pulls any more
    torch.testing.assert_close(found.perturbation, expected, rtol=1e-2, atol=1e-2 * 0.605 / reach)
    assert found.fooling_rate(model, images) == 0.6
    # of half the size the same, scaled
    assert found.fooling_rate(model, images, epsilon=0.405 / reach) == 0.4


@pytest.mark.parametrize("method", METHODS)
def test_of_two_linear_classes_one_is_given_up(method: str) -> None:
    """The best that any perturbation can do is the better of the two signs: 70 of 120 here."""
    model = Two()
    margins = torch.cat([torch.linspace(0.01, 1, 100), -torch.linspace(0.05, 1, 20)]).double()
    images = with_margins(model, margins)
    attack = UniversalPerturbation(method=method, passes=20, group=30, bounds=UNBOUNDED)  # type: ignore[arg-type]
    found = prepared(model, images, attack, epsilon=0.705 / float(model.w.detach().abs().sum()))
    assert found.rates[0] <= 70 / 120
    assert found.rates[0] == pytest.approx(70 / 120, abs=1.5 / 120)


def papers_loop(model: nn.Module, images: Tensor, epsilon: float, passes: int) -> float:
    """The algorithm of the paper, image after image; returns the best share that is fooled after a pass."""
    with torch.no_grad():
        classes = model(images).argmax(1)
    deepfool = DeepFool("l2", steps=10)
    v, best, order = torch.zeros_like(images[:1]), 0.0, generator(7)
    for _ in range(passes):
        for k in torch.randperm(len(images), generator=order).tolist():
            z = (images[k : k + 1] + v).clamp(0, 1)
            found = deepfool(model, z, classes[k : k + 1], generator=generator())
            if 0 < float(found.length) < math.inf:
                v = (v + found.images - z).clamp(-epsilon, epsilon)
        with torch.no_grad():
            best = max(best, float((model((images + v).clamp(0, 1)).argmax(1) != classes).double().mean()))
    return best


@pytest.mark.whole
def test_groups_and_the_gradient_are_as_good_as_the_papers_loop() -> None:
    net, digits = trained_net(), digits_as_tensors()
    images, epsilon = digits.x[:50], 0.2
    reference = papers_loop(net, images, epsilon, passes=2)
    rates = {}
    for method, group in (("deepfool", 1), ("deepfool", 10), ("gradient", 10)):
        attack = UniversalPerturbation(method=method, passes=2, group=group)  # type: ignore[arg-type]
        rates[method, group] = prepared(net, images, attack, epsilon=epsilon).rates[0]
    assert reference > 0.15
    error = math.sqrt(reference * (1 - reference) / len(images))
    assert all(rate > reference - 2 * error for rate in rates.values()), (reference, rates)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_held_out_images_are_fooled_as_well(norm: str) -> None:
    """Many times as many as by noise of the same length."""
    net, digits = trained_net(), digits_as_tensors()
    epsilon = {"linf": 0.25, "l2": 1.6}[norm]
    found = prepared(net, digits.x[:400], UniversalPerturbation(norm), epsilon=epsilon)
    rate = found.fooling_rate(net, digits.test)
    assert rate > 0.5
    assert rate > found.rates[0] - 0.1
    noise = torch.randn(digits.test[0].shape, generator=generator(4)).sign()
    noise *= epsilon / NORMS[norm].length(noise[None])
    with torch.no_grad():
        moved = net((digits.test + noise).clamp(0, 1)).argmax(1) != net(digits.test).argmax(1)
    assert rate > 3 * float(moved.double().mean())
    attacked = found(net, digits.test, digits.labels, epsilon=epsilon, generator=generator())
    # every image has had the same, but for the box
    torch.testing.assert_close(attacked.images, (digits.test + found.perturbation).clamp(0, 1), rtol=0, atol=1e-5)
    assert float((attacked.prediction[0] != digits.labels).double().mean()) > 0.5


def test_every_size_has_its_own_and_others_are_scaled_from_the_nearest() -> None:
    net, digits = trained_net(), digits_as_tensors()
    attack = UniversalPerturbation(passes=2)
    found = prepared(net, digits.x[:100], attack, epsilon=[0.1, 0.3])
    for k, epsilon in enumerate((0.1, 0.3)):
        alone = prepared(net, digits.x[:100], attack, epsilon=epsilon)
        assert torch.equal(found.at(epsilon), alone.perturbation)
        assert found.rates[k] == alone.rates[0]
    assert torch.equal(found.perturbation, found.at(0.1))
    torch.testing.assert_close(found.at(0.05), 0.5 * found.at(0.1))
    torch.testing.assert_close(found.at(0.6), 2 * found.at(0.3))
    assert (found.at(0) == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_the_labels_the_batch_size_and_the_mode_change_nothing_and_the_seed_does(method: str) -> None:
    model = nn.Sequential(trained_net(), nn.Dropout(0.5)).train()
    digits = digits_as_tensors()
    x, y = digits.x[:60].double(), digits.y[:60]
    model.double()
    attack = UniversalPerturbation(method=method, passes=2, group=20)  # type: ignore[arg-type]
    first = attack.prepare(model, x, y, epsilon=0.2, generator=generator()).perturbation
    assert model.training
    assert all(one.requires_grad for one in model.parameters())
    again = attack.prepare(model, x, 9 - y, epsilon=0.2, generator=generator(), batch_size=13).perturbation
    torch.testing.assert_close(first, again, rtol=0, atol=1e-9)
    other = attack.prepare(model, x, y, epsilon=0.2, generator=generator(1)).perturbation
    assert not torch.allclose(first, other)


def test_it_ends_with_the_goal_and_keeps_the_best_pass_and_restart() -> None:
    net, digits = trained_net(), digits_as_tensors()
    x = digits.x[:100]
    asked = 0

    def counting(z: Tensor) -> Tensor:
        nonlocal asked
        asked += len(z)
        return torch.as_tensor(net(z))

    def cost(**options: Any) -> tuple[float, int]:
        nonlocal asked
        asked = 0
        found = UniversalPerturbation(**options).prepare(
            counting, x, digits.y[:100], epsilon=0.3, generator=generator()
        )
        return found.rates[0], asked

    early, few = cost(goal=0.05, passes=8)
    late, many = cost(passes=8)
    assert early >= 0.05
    assert late > early
    assert few < many == 1 + 100 + 100 + 8 * 200  # a check, the classes, v = 0, and each pass moves and counts
    three, most = cost(passes=8, restarts=3)
    assert three >= late
    assert most == 1 + 100 + 3 * (100 + 8 * 200)


def test_an_evaluation_prepares_it_on_training_images_alone() -> None:
    images, digits, net = load("digits"), digits_as_tensors(), trained_net()
    attack = UniversalPerturbation(passes=3, prepare_on=80)
    planned = {"v": Planned(attack, (0.1, 0.25))}
    records = evaluate(net, images, planned, examples=100, validation=0, device=digits.x.device, seed=5)
    assert "on 80 images" in str(records["effort"].values[0])
    own = prepared(net, digits.x[:80], attack, epsilon=(0.1, 0.25))
    by_hand = evaluate(
        net, images, {"v": Planned(own, (0.1, 0.25))}, examples=100, validation=0, device=digits.x.device
    )
    for epsilon in (0.1, 0.25):
        errors = [robust_error(one, epsilon=epsilon) for one in (records, by_hand)]
        assert errors[0] == pytest.approx(errors[1], abs=0.15)
        assert errors[0] > 0.05
    with pytest.raises(TypeError, match=re.escape("planned['v'] = UniversalPerturbation(")):
        evaluate(net, (digits.test, digits.labels), planned)
    assert "universal_linf" in suite("digits", attacks=["universal"])


def prepare(**options: Any) -> Callable[[], object]:
    return lambda: prepared(Two(), options.pop("images", torch.zeros(3, 12)), UniversalPerturbation(), **options)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (lambda: UniversalPerturbation(method="newton"), "method = 'newton' is unknown"),  # type: ignore[arg-type]
        (lambda: UniversalPerturbation(passes=0), "passes = 0 is out of range: allowed is a whole number >= 1"),
        (lambda: UniversalPerturbation(goal=1.5), "goal = 1.5 is out of range"),
        (lambda: UniversalPerturbation(relative_step_size=0.0), "relative_step_size = 0.0 is out of range"),
        (lambda: UniversalPerturbation(prepare_on=0), "prepare_on = 0 is out of range"),
        (lambda: UniversalPerturbation("l0"), "is not allowed for UniversalPerturbation: one that has a dual is"),
        (
            lambda: UniversalPerturbation(objective="targeted_margin"),
            "is not allowed for UniversalPerturbation: one without targets is",
        ),
        (prepare(images=torch.zeros(0, 12)), "images are none: allowed is one image or more"),
        (prepare(images=torch.full((3, 12), 2.0)), "images have pixels in [2, 2]: allowed is [0.0, 1.0]"),
        (prepare(epsilon=-1.0), "epsilon = -1.0 is not allowed"),
    ],
)
def test_bad_input(what: Callable[[], object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        what()


def test_images_of_another_shape_are_refused() -> None:
    found = prepared(Two(), torch.rand(5, 12, dtype=torch.float64), UniversalPerturbation(passes=1))
    with pytest.raises(
        ValueError, match=re.escape("images have the shape (2, 3): the perturbation was prepared for (n,")
    ):
        found(lambda x: x, torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64), epsilon=0.1, generator=generator())
    with pytest.raises(ValueError, match="images are none"):
        found.fooling_rate(Two(), torch.zeros(0, 12))
