"""Attacks that only look at outputs: the Square Attack, and the best of some noise."""

import math
import re

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

from deepcheck.attacks.base import Attack, Attacked
from deepcheck.attacks.black_box.square import Square
from deepcheck.attacks.noise import RandomSearch, UniformNoise
from deepcheck.attacks.objectives import objective
from deepcheck.attacks.pgd import PGD
from deepcheck.data import load
from tests.deepcheck.devices import on_every_device, on_the_cpu

pytestmark = on_every_device

ATTACKS = [
    Square("linf", queries=60),
    Square("l2", queries=60),
    Square("l1", queries=60),
    Square("linf", "wrong_confidence", queries=60, restarts=2),
    Square("l2", "cross_entropy", queries=60, restarts=2, stop_when_reached=False),
    UniformNoise("linf", draws=5),
    UniformNoise("l2", draws=5, restarts=2),
    UniformNoise("l1", "wrong_confidence", draws=5),
    UniformNoise("l0", draws=5),
]
EPSILON = {"linf": 0.1, "l2": 0.8, "l1": 3.0, "l0": 4.0}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, channels: int = 3, height: int = 9, width: int = 7) -> tuple[Tensor, Tensor]:
    """Images with many pixels at the edges of the box, and labels of 4 classes."""
    images = (1.6 * torch.rand(n, channels, height, width, generator=generator(5), dtype=torch.float64) - 0.3).clamp(
        0, 1
    )
    return images, torch.randint(4, (n,), generator=generator(6))


class Smooth(nn.Module):
    """A net of one hidden layer, in double precision, that counts what it sees."""

    def __init__(self, entries: int, classes: int = 4) -> None:
        super().__init__()
        draw = generator(7)
        self.W1 = nn.Parameter(torch.randn(entries, 20, generator=draw, dtype=torch.float64) / entries**0.5)
        self.W2 = nn.Parameter(torch.randn(20, classes, generator=draw, dtype=torch.float64))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.seen += len(x)
        return (x.flatten(1) @ self.W1).tanh() @ self.W2


def linear(w: Tensor, bias: float) -> nn.Sequential:
    """Logits (0, w x + b) of two classes: for label 0 the margin is w x + b."""
    layer = nn.Linear(len(w), 2, dtype=w.dtype)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros_like(w), w]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return nn.Sequential(nn.Flatten(), layer)


@pytest.fixture(scope="module")
def digits() -> tuple[nn.Module, Tensor, Tensor]:
    """A convolutional net, trained on digits, and test images."""
    data = load("digits")
    X, y = torch.tensor(data.train_images).float() / 255, torch.tensor(data.train_labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, 10),
        )
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    order = generator(1)
    for _epoch in range(8):
        for batch in torch.randperm(len(X), generator=order).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(X[batch]), y[batch]).backward()
            optimizer.step()
    return net.eval(), torch.tensor(data.test_images).float() / 255, torch.tensor(data.test_labels)


# --- what holds for both ---


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_the_result_is_in_ball_and_box_and_is_what_the_model_says(attack: RandomSearch) -> None:
    images, labels = pictures(40)
    model = Smooth(images[0].numel())
    norm, value = attack._norm, objective(attack.objective)
    epsilons = [0.0, EPSILON[norm.name] / 2, EPSILON[norm.name]]
    result = attack(model, images, labels, epsilon=epsilons, generator=generator())
    assert result.images.shape == (3, *images.shape)
    assert result.restart_objective.shape == result.prediction.shape == (3, attack.restarts, 40)
    with torch.no_grad():
        for epsilon, attacked, worst, each, prediction, confidence, length in zip(
            epsilons,
            result.images,
            result.objective,
            result.restart_objective,
            result.prediction,
            result.confidence,
            result.length,
            strict=True,
        ):
            assert attacked.min() >= 0
            assert attacked.max() <= 1
            assert (norm.length(attacked - images) <= epsilon * (1 + 1e-12)).all()
            assert (length <= epsilon * (1 + 1e-12)).all()
            logits = model.eval()(attacked)
            torch.testing.assert_close(worst, value(logits, labels))
            assert ((worst[None] - each).abs().amin(0) < 1e-12).all()  # the worst restart is one of the restarts
            reached = value.reached(logits, labels)
            if reached is None or value.name == "margin":  # whoever reaches the goal has the larger objective
                torch.testing.assert_close(worst, each.amax(0))
            else:
                assert torch.equal(reached, (prediction != labels).any(0))
            chosen = (worst[None] - each).abs().argmin(0)[None]
            assert (prediction.gather(0, chosen)[0] == logits.argmax(1)).all()
            torch.testing.assert_close(confidence.gather(0, chosen)[0], logits.softmax(1).amax(1))
    torch.testing.assert_close(result.images[0], images, rtol=0, atol=1e-15)


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_the_size_of_batches_does_not_matter(attack: RandomSearch) -> None:
    images, labels = pictures(23)
    model = Smooth(images[0].numel())
    epsilon = [EPSILON[attack._norm.name], EPSILON[attack._norm.name] / 3]
    whole, parts, single = (
        attack(model, images, labels, epsilon=epsilon, generator=generator(), batch_size=size) for size in (500, 7, 1)
    )
    for other in (parts, single):
        for name in Attacked.__dataclass_fields__:
            torch.testing.assert_close(getattr(other, name), getattr(whole, name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_random_numbers_come_from_the_generator_alone(attack: RandomSearch) -> None:
    images, labels = pictures(10)
    model = Smooth(images[0].numel())
    epsilon = EPSILON[attack._norm.name] / 3
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]  # noqa: NPY002
    first, again, other = (
        attack(model, images, labels, epsilon=epsilon, generator=generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(before[0], torch.get_rng_state())
    assert (before[1] == np.random.get_state()[1]).all()  # type: ignore[index]  # noqa: NPY002
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_an_early_end_takes_no_fewer_numbers() -> None:
    images, _labels = pictures(10)
    model = Smooth(images[0].numel())
    with torch.no_grad():
        right = model.eval()(images).argmax(1)
    after = []
    for y in (right, (right + 1) % 4):  # the second are wrong from the start
        draw = generator()
        Square(queries=50, restarts=3)(model, images, y, epsilon=1e-6, generator=draw)
        after.append(draw.get_state())
    assert torch.equal(*after)


@pytest.mark.parametrize("attack", [Square(queries=40), UniformNoise(draws=40)], ids=repr)
def test_the_model_is_asked_no_more_than_allowed_and_put_back(attack: RandomSearch) -> None:
    images, labels = pictures(10)
    model = Smooth(images[0].numel()).train()
    one = 1  # the first image is looked at to check the model
    for stop, epsilon in ((True, 0.0), (True, 0.3), (False, 0.3)):
        model.seen = 0
        configured = type(attack)(**{**vars(attack), "stop_when_reached": stop})
        result = configured(model, images, labels, epsilon=epsilon, generator=generator())
        assert model.training
        if not stop:
            assert model.seen == 40 * 10 + one
        else:
            robust = int((result.prediction[0] == labels).sum())
            assert 40 * robust + 10 - robust <= model.seen - one
            assert model.seen - one < 40 * 10 or robust == 10


def test_a_finished_example_is_left_alone() -> None:
    images, labels = pictures(30)
    result = Square(queries=100, restarts=3)(
        Smooth(images[0].numel()), images, labels, epsilon=0.2, generator=generator()
    )
    done = result.prediction != labels
    assert (done[1:] >= done[:-1]).all()  # once misclassified, so in later restarts
    broken = done[0]
    assert broken.any()
    assert torch.equal(result.restart_objective[0, broken], result.restart_objective[2, broken])


def test_targets_are_reached() -> None:
    images, labels = pictures(40)
    model = Smooth(images[0].numel())
    targets = (labels + 1) % 4
    for attack in (Square("linf", "targeted_margin", queries=400), UniformNoise("linf", "targeted_dlr", draws=5)):
        result = attack(model, images, labels, epsilon=0.3, generator=generator(), targets=targets)
        if isinstance(attack, Square):
            assert (result.prediction[0] == targets).float().mean() > 0.9
        with torch.no_grad():
            logits = model.eval()(result.images)
        torch.testing.assert_close(result.objective, objective(attack.objective)(logits, labels, targets))


@pytest.mark.parametrize(
    "attack", [Square(queries=5), Square("l2", queries=5), Square("l1", queries=5), UniformNoise(draws=5)], ids=repr
)
def test_no_images_and_one_pixel(attack: Attack) -> None:
    for shape in ((0, 2, 3, 4), (0, 6), (3, 1, 1, 1), (3, 1), (3, 2, 1, 5), (3, 1, 2, 2)):
        images = torch.full(shape, 0.5, dtype=torch.float64)
        labels = torch.zeros(len(images), dtype=torch.int64)
        result = attack(Smooth(math.prod(shape[1:])), images, labels, epsilon=0.1, generator=generator())
        assert result.images.shape == shape
        assert result.prediction.shape == (1, len(images))


# --- the Square Attack on linear models: the largest objective is known ---


@pytest.mark.slow
def test_linf_finds_the_closed_form_once_every_pixel_was_tried() -> None:
    # 8/10 of 3000 queries change one of 64 pixels: the probability that one of 50 * 64 is missed is 3200 exp(-37)
    draw = generator(3)
    w = torch.randn(64, generator=draw, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(50, 1, 8, 8, generator=draw, dtype=torch.float64)
    model, labels, epsilon = linear(w, -100.0), torch.zeros(50, dtype=torch.int64), 0.1
    largest = x.flatten(1) @ w - 100 + epsilon * w.abs().sum()
    found = []
    for queries in (1, 10, 100, 1000, 3000):
        value = Square(queries=queries)(model, x, labels, epsilon=epsilon, generator=generator()).objective
        assert (value <= largest + 1e-10).all()
        found.append(float((value - largest).mean()))
    assert found == sorted(found)
    torch.testing.assert_close(value, largest, rtol=0, atol=1e-10)


def test_linf_finds_the_closed_form_in_the_box() -> None:
    draw = generator(3)
    w = torch.randn(16, generator=draw, dtype=torch.float64)
    x = torch.rand(50, 16, generator=draw, dtype=torch.float64)
    x[:10] = x[:10].round()  # corners of the box
    largest = x @ w - 100 + ((x + 0.3 * w.sign()).clamp(0, 1) - x) @ w
    result = Square(queries=1000)(
        linear(w, -100.0), x, torch.zeros(50, dtype=torch.int64), epsilon=0.3, generator=generator()
    )
    torch.testing.assert_close(result.objective, largest, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_l2_comes_close_to_the_closed_form_from_below() -> None:
    draw = generator(3)
    w = torch.randn(64, generator=draw, dtype=torch.float64)
    x = 0.4 + 0.2 * torch.rand(30, 1, 8, 8, generator=draw, dtype=torch.float64)
    model, labels, epsilon = linear(w, -100.0), torch.zeros(30, dtype=torch.int64), 0.3
    clean, gain = x.flatten(1) @ w - 100, epsilon * torch.linalg.vector_norm(w)
    shares = []
    for queries in (1, 10, 100, 1000, 3000):
        result = Square("l2", queries=queries)(model, x, labels, epsilon=epsilon, generator=generator())
        share = (result.objective - clean) / gain
        assert (share <= 1 + 1e-10).all()
        torch.testing.assert_close(result.length, torch.full_like(result.length, epsilon))  # nothing is lost
        shares.append(float(share.mean()))
    assert shares == sorted(shares)
    # the best of 3000 independent directions in 64 dimensions comes to about (2 ln 3000 / 64)^(1/2) = 0.5
    assert shares[-1] > math.sqrt(2 * math.log(3000) / 64)


@pytest.mark.slow
@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.15), ("l2", 0.8), ("l1", 3.0)])
def test_between_noise_and_gradients(norm: str, epsilon: float, digits: tuple[nn.Module, Tensor, Tensor]) -> None:
    model, images, labels = digits
    attacks: dict[str, Attack] = {
        "noise": UniformNoise(norm, "wrong_confidence", draws=300),
        "square": Square(norm, "wrong_confidence", queries=300),
        "pgd": PGD(norm, "wrong_confidence", steps=40, relative_step_size=0.1, restarts=5),
    }
    results = {
        name: attack(model, images, labels, epsilon=epsilon, generator=generator()) for name, attack in attacks.items()
    }
    wrong = {name: (result.prediction != labels).any(0) for name, result in results.items()}
    for weak, strong in (("noise", "square"), ("square", "pgd")):
        # McNemar: of the examples that one attack alone breaks, each falls to the stronger with probability >= 1/2
        weak_alone, strong_alone = int((wrong[weak] & ~wrong[strong]).sum()), int((wrong[strong] & ~wrong[weak]).sum())
        assert weak_alone - strong_alone <= 3 * math.sqrt(weak_alone + strong_alone)
        assert results[weak].objective.mean() < results[strong].objective.mean()


# --- noise ---


@pytest.mark.parametrize("draws", [1, 4])
def test_law_of_the_best_draw(draws: int) -> None:
    # one pixel and logits (0, x): the objective is epsilon U, U uniform in (-1, 1); of K draws P(max < u) = ((1+u)/2)^K
    n, epsilon = 4000, 0.2
    images, labels = torch.full((n, 1), 0.5, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    model = linear(torch.ones(1, dtype=torch.float64), -0.5)
    attack = UniformNoise("linf", draws=draws, stop_when_reached=False, restarts=2)
    result = attack(model, images, labels, epsilon=epsilon, generator=generator())
    for value, K in ((result.restart_objective[0], draws), (result.objective, 2 * draws)):
        law = stats.kstest(value.numpy() / epsilon, lambda u, K=K: ((1 + np.clip(u, -1, 1)) / 2) ** K)
        assert law.pvalue > 1e-3


# --- bad input ---


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Square(queries=0), "queries = 0 is out of range: allowed is a whole number >= 1"),
        (lambda: Square(p_init=0.0), "p_init = 0.0 is out of range: allowed is a finite number and > 0 and <= 1"),
        (lambda: Square(p_init=1.5), "p_init = 1.5 is out of range"),
        (lambda: Square(p_init=math.nan), "p_init = nan is out of range"),
        (
            lambda: Square("l0"),
            "norm = L0(coordinates=1, shares=None) is not allowed for the Square Attack: linf, l2 or l1 is",
        ),
        (lambda: Square("linf2"), "norm = 'linf2' is unknown (did you mean 'linf'?)"),
        (lambda: Square(restarts=0), "restarts = 0 is out of range"),
        (lambda: Square(objective="margins"), "objective = 'margins' is unknown (did you mean 'margin'?)"),
        (lambda: Square(bounds=(1.0, 0.0)), "bounds = (1.0, 0.0) is not allowed"),
        (lambda: UniformNoise(draws=0), "draws = 0 is out of range: allowed is a whole number >= 1"),
    ],
)
def test_bad_configuration(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_bad_types_of_configuration() -> None:
    with pytest.raises(TypeError, match="stop_when_reached = 1 is not a bool"):
        Square(stop_when_reached=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="p_init = 'large' is not a number"):
        Square(p_init="large")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.full((5, 1, 4, 4), 2.0)}, "images have pixels in [2, 2]: allowed is [0.0, 1.0]"),
        ({"images": torch.zeros(5, 4, 4)}, "images of shape (5, 4, 4) are not allowed: (n, channels, height, width)"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, "do not go together"),
        ({"labels": torch.full((5,), 9)}, "labels have the value 9, but the model has 4 classes"),
        ({"epsilon": -0.1}, "epsilon = -0.1 is not allowed"),
        ({"epsilon": []}, "epsilon = [] is not allowed"),
        ({"batch_size": 0}, "batch_size = 0 is out of range"),
        ({"targets": torch.zeros(5, dtype=torch.int64)}, "targets are not allowed: the objective has none"),
    ],
)
@on_the_cpu
def test_bad_input(change: dict[str, object], message: str) -> None:
    arguments: dict[str, object] = {
        "images": torch.zeros(5, 1, 4, 4, dtype=torch.float64),
        "labels": torch.zeros(5, dtype=torch.int64),
        "epsilon": 0.1,
        "generator": generator(),
    }
    with pytest.raises(ValueError, match=re.escape(message)):
        Square()(Smooth(16), **(arguments | change))  # type: ignore[arg-type]


def test_targeted_objectives_need_targets() -> None:
    images, labels = pictures(3)
    with pytest.raises(
        ValueError, match=re.escape("targets = None is not allowed: a torch.int64 tensor of shape (3,)")
    ):
        UniformNoise("linf", "targeted_margin")(
            Smooth(images[0].numel()), images, labels, epsilon=0.1, generator=generator()
        )
