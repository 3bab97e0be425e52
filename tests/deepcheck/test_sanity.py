"""Each check against false robustness fails for a net that was built to fail it, and it alone."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deepcheck import models
from deepcheck.attacks import PGD, NotFiniteWarning
from deepcheck.data import load
from deepcheck.defences import EOT
from deepcheck.evaluation import Planned, evaluate
from deepcheck.evaluation.run import split
from deepcheck.evaluation.sanity import Check, sanity_checks
from tests.deepcheck.devices import here, on_every_device, on_the_cpu

pytestmark = on_every_device

CROSS, LEFT = "steps can cross the ball", "a longer attack finds no more"
EVAL, REPEATS, GRADIENTS, LARGE, STEPS, BLACK = (
    "the model is in eval mode",
    "the output repeats",
    "gradients are not zero",
    "error rises to 1 at a large epsilon",
    "more iterations do not help",
    "white box beats black box",
)
PIXELS = 64


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def grey(n: int = 20) -> tuple[Tensor, Tensor]:
    """Images near the middle of the box, all of class 0."""
    return 0.5 + 0.002 * (torch.rand((n, 1, 8, 8), generator=generator(1)) - 0.5), torch.zeros(n, dtype=torch.int64)


class Planes(nn.Module):
    """A linear net of 31 classes; class 0 wins near the middle of the box.

    The others have the logits w_k (x - 1/2) with random signs w_k. An attack of size epsilon gains 64 epsilon, so that
    0.6 of what is possible at epsilon = 0.1 is enough to turn an image. Random perturbations of that size do not do it
    (eight standard deviations), but of those of size 1 nearly every one does for some class.
    """

    def __init__(self) -> None:
        super().__init__()
        signs = torch.randint(0, 2, (PIXELS, 30), generator=generator(2)) * 2.0 - 1
        self.W = nn.Parameter(signs)

    def forward(self, x: Tensor) -> Tensor:
        others = (x - 0.5).flatten(1) @ self.W
        return torch.cat([torch.full_like(others[:, :1], 0.6 * 0.1 * PIXELS), others], 1)


class Random(Planes):
    """A net whose logits change a little from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.draw = generator(3)

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits + 1e-3 * torch.randn(logits.shape, generator=self.draw)


class Saturated(Planes):
    """A net so sure that the probability of its class is 1 in single precision."""

    def forward(self, x: Tensor) -> Tensor:
        return 1e4 * super().forward(x)


class Stuck(Planes):
    """A net whose class 0 cannot be beaten, at any epsilon."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return torch.cat([logits[:, :1], 0.5 * torch.tanh(logits[:, 1:])], 1)


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, *gradients: Any) -> Any:
        return -gradients[0]


class Misleading(Planes):
    """A net whose gradients point the wrong way."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(_Reversed.apply(x))  # type: ignore[no-untyped-call]


class Narrow(nn.Module):
    """A net of two classes that errs only near one point, too near for long steps.

    The mean distance from that point, at 0.7 in every pixel, must be below 0.08. Steps of 0.25 end on either side of
    it, at a mean distance of 0.125, those of 0.05 at 0.025.
    """

    def forward(self, x: Tensor) -> Tensor:
        distance = (x - 0.7).flatten(1).abs().mean(1, keepdim=True)
        return torch.cat([torch.full_like(distance, -0.08), -distance], 1)


class Threshold(Planes):
    """A net that compares the pixels with 1/2, which leaves no gradient at all."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward((x > 0.5).to(x.dtype))


@dataclass(frozen=True)
class Case:
    net: Callable[[], nn.Module]
    failed: set[str]
    epsilon: float = 0.1
    steps: int = 10


CASES = {
    "honest": Case(lambda: Planes().eval(), set()),
    "train mode": Case(Planes, {EVAL}),
    "random": Case(lambda: Random().eval(), {REPEATS}),
    "saturated": Case(lambda: Saturated().eval(), {GRADIENTS}),
    "stuck": Case(lambda: Stuck().eval(), {LARGE}),
    "narrow": Case(lambda: Narrow().eval(), {STEPS}, epsilon=0.4, steps=4),
    "misleading": Case(lambda: Misleading().eval(), {BLACK}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_net_built_to_fail_one_check_fails_that_one(case: Case) -> None:
    net, (images, labels) = case.net(), grey()
    assert bool((net.eval()(images).argmax(1) == labels).all())
    net = case.net()
    training = net.training
    checks = sanity_checks(
        net, images, labels, epsilon=case.epsilon, generator=generator(), steps=case.steps, queries=600
    )
    assert {check.name for check in checks} == {EVAL, REPEATS, GRADIENTS, LARGE, STEPS, BLACK}
    assert {check.name for check in checks if not check.passed} == case.failed
    assert [check.passed for check in checks] == sorted(check.passed for check in checks)
    assert net.training is training


@pytest.mark.parametrize(("draws", "failed"), [(1, {REPEATS}), (5, set())])
def test_a_random_net_is_followed_by_its_mean(draws: int, failed: set[str]) -> None:
    images, labels = grey()
    model = EOT(Random(), draws).eval()
    checks = sanity_checks(model, images, labels, epsilon=0.1, generator=generator(), steps=10, queries=100)
    assert {check.name for check in checks if not check.passed} == failed


def test_a_net_without_any_gradient_fails_and_does_not_stop_the_checks() -> None:
    images = torch.full((10, 1, 8, 8), 0.45)
    net = Threshold().eval()
    labels = net(images).argmax(1)
    checks = sanity_checks(net, images, labels, epsilon=0.1, generator=generator(), steps=5, queries=200)
    failed = {check.name: check.found for check in checks if not check.passed}
    assert failed[GRADIENTS] == "the cross-entropy has no gradient at 1.000 of the images"


@pytest.mark.parametrize("epochs", [3, 50])
def test_a_linear_net_passes_whose_gradients_cannot_mislead(epochs: int) -> None:
    """Also when it is barely trained: random search then finds classes that plain ascent of the margin misses."""
    digits = load("digits")
    (x, y), _ = split(digits, 150, 0, here())
    net = models.build("linear", 10, digits.shape, generator=generator()).eval()
    train = torch.tensor(digits.train_images).float() / 255
    optimiser = torch.optim.Adam(net.parameters(), lr=0.05)
    for _ in range(epochs):
        optimiser.zero_grad()
        nn.functional.cross_entropy(net(train), torch.tensor(digits.train_labels)).backward()
        optimiser.step()
    weights = [parameter.clone() for parameter in net.parameters()]
    checks = sanity_checks(net, x, y, epsilon=0.1, generator=generator(), queries=500)
    assert [str(check) for check in checks if not check.passed] == []
    assert str(checks[-1]).startswith("white box beats black box: 0.000 of the examples")
    assert all(torch.equal(*pair) for pair in zip(weights, net.parameters(), strict=True))


def test_a_function_that_is_no_module_is_in_eval_mode() -> None:
    images, labels = grey(4)
    net = Planes()  # in train mode, but nobody can know
    checks = sanity_checks(
        lambda x: net(x), images, labels, epsilon=0.1, generator=generator(), steps=10, queries=500, batch_size=3
    )
    assert all(check.passed for check in checks)


def test_what_was_measured_is_said() -> None:
    images, labels = grey(10)
    checks = sanity_checks(Misleading(), images, labels, epsilon=0.1, generator=generator(), steps=10, queries=600)
    assert [check.name for check in checks if not check.passed] == [EVAL, BLACK]
    text = {check.name: str(check) for check in checks}
    assert text[EVAL].startswith("the model is in eval mode: modules in train mode: 1 (call model.eval()")
    assert text[BLACK] == (
        "white box beats black box: 1.000 of the examples fall to a random search of 600 queries but not to gradients "
        "(the gradients mislead: do not trust attacks that use them)"
    )
    assert text[STEPS] == "more iterations do not help: error 0.000 after 10 steps, 0.000 after 50"
    assert text[LARGE] == (
        "error rises to 1 at a large epsilon: error 1.000 at epsilon = 1, where every image can become any other"
    )
    assert str(Check("a", True, "b", "c")) == "a: b"
    assert str(Check("a", False, "b", "c")) == "a: b (c)"


def test_the_same_generator_finds_the_same() -> None:
    images, labels = grey(6)

    def checks() -> list[Check]:
        return sanity_checks(
            Narrow().eval(), images, labels, epsilon=0.4, generator=generator(5), steps=4, queries=20, batch_size=4
        )

    assert checks() == checks()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0.0}, "epsilon = 0.0 is out of range: allowed is > 0"),
        ({"epsilon": float("nan")}, "epsilon = nan is out of range"),
        ({"steps": 0}, "steps = 0 is out of range: allowed is a whole number >= 1"),
        ({"queries": 0}, "queries = 0 is out of range: allowed is a whole number >= 1"),
        ({"batch_size": 0}, "batch_size = 0 is out of range: allowed is a whole number >= 1"),
        ({"images": torch.full((20, 1, 8, 8), 2.0)}, r"pixels in \[2, 2\]: allowed is \[0.0, 1.0\]"),
        ({"images": torch.zeros(0, 1, 8, 8), "labels": torch.zeros(0, dtype=torch.int64)}, "images are none: allowed"),
    ],
)
@on_the_cpu
def test_bad_input_is_refused(options: dict[str, Any], message: str) -> None:
    images, labels = grey()
    given = {"model": Planes(), "images": images, "labels": labels, "epsilon": 0.1, "generator": generator(), **options}
    with pytest.raises(ValueError, match=message):
        sanity_checks(**given)


@pytest.mark.parametrize(("share", "failed"), [(0.02, {CROSS, LEFT}), (0.25, set())])
def test_what_is_claimed_by_too_short_steps_fails(share: float, failed: set[str]) -> None:
    """10 steps of a fiftieth of the ball find nothing, and say that a net is robust which is not."""
    images, labels = grey()
    net = Planes().eval()
    planned = {"pgd": Planned(PGD("linf", "margin", steps=10, relative_step_size=share), (0.1,))}
    records = evaluate(net, (images, labels), planned)
    checks = sanity_checks(
        net, images, labels, epsilon=0.1, generator=generator(), steps=10, queries=50, planned=planned, records=records
    )
    assert len(checks) == 8
    assert {check.name for check in checks if not check.passed} == failed
    text = {check.name: check.found for check in checks}
    if failed:
        assert text[CROSS] == "attacks whose steps are too short together: pgd"
        assert text[LEFT].endswith(" more of the examples fall to other attacks")
    with pytest.raises(ValueError, match="records have 20 examples: allowed are those of 40 images, or more"):
        sanity_checks(
            net,
            images.repeat(2, 1, 1, 1),
            labels.repeat(2),
            epsilon=0.1,
            generator=generator(),
            steps=2,
            queries=2,
            records=records,
        )


class Ordinary(Planes):
    """It flattens as most nets do, and normalises in place."""

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.25
        x += 0.25
        return super().forward(x.view(x.size(0), -1))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode], ids=lambda one: one.__name__)
def test_an_ordinary_net_in_whatever_mode_passes_and_changes_nothing(mode: Any) -> None:
    net = Ordinary().eval()
    images, labels = grey()
    with mode():
        mine = images.clone().requires_grad_()
        checks = sanity_checks(net, mine, labels + 0, epsilon=0.1, generator=generator(), steps=10, queries=100)
    assert [str(check) for check in checks if not check.passed] == []
    assert torch.equal(mine, images)


def test_nets_that_are_none_are_refused() -> None:
    images, labels = grey(4)
    for net, error, message in (
        (lambda x: (Planes()(x),), TypeError, "model returned a tuple for images of shape"),
        (lambda x: Planes()(x) / 0, ValueError, "model returned logits that are not finite"),
    ):
        with pytest.raises(error, match=message):
            sanity_checks(net, images, labels, epsilon=0.1, generator=generator(), steps=2, queries=2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="generator = 0 is of the wrong type: allowed is a"):
        sanity_checks(Planes(), images, labels, epsilon=0.1, generator=0)  # type: ignore[arg-type]


def test_a_net_without_numbers_beyond_some_contrast_is_not_broken_by_that() -> None:
    """Where an attack leads to images for which a linear net has no class, they are not misclassified."""

    class Contrast(Planes):
        def forward(self, x: Tensor) -> Tensor:
            lost = (x - 0.5).abs().flatten(1).mean(1, keepdim=True) > 7e-4
            return (super().forward(x) * torch.tensor([1e6] + 30 * [1.0])).masked_fill(lost, torch.nan)

    images, labels = grey()
    attack = PGD("linf", "margin", steps=20, relative_step_size=0.25)
    with pytest.warns(NotFiniteWarning):
        found = attack(Contrast(), images, labels, epsilon=1e-3, generator=generator())
    assert (found.prediction == labels).all()
