"""Where projected gradient ascent starts, and what it finds."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from deepcheck.attacks.norms import NORMS, LInf
from deepcheck.attacks.objectives import Objective
from deepcheck.attacks.pgd import PGD, pgd
from deepcheck.attacks.starts import Gaussian, Nearby, OneOf, Start, Tiles, UniformBall, UniformLength, Zero
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.pgd_cases import (
    ATTACKS,
    CONVEX,
    EPSILON,
    UNBOUNDED,
    Linear,
    Smooth,
    classified,
    generator,
    pictures,
)

pytestmark = on_every_device

# --- starts ---

STARTS = [Zero(), UniformBall(), Gaussian(), Nearby(), UniformLength(), Tiles(), OneOf((Zero(), UniformBall()))]


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


def test_tiles_are_of_one_size_in_an_example_and_a_uniform_share_of_them_is_changed() -> None:
    n = 4000
    delta = Tiles()(LInf(), torch.empty(n, 1, 32, 32, dtype=torch.float64), 0.5, generator())[:, 0]
    assert set(delta.unique().tolist()) == {-0.5, 0.0, 0.5}
    assert abs(float(delta.mean())) < 4 * 0.5 / math.sqrt(n)
    assert abs(float((delta != 0).double().mean()) - 0.5) < 4 * 0.5 / math.sqrt(n)
    sizes = []
    for turned in (delta, delta.mT):  # the edges between rows, then those between columns
        edges = (turned[:, 1:] != turned[:, :-1]).any(2).numpy()
        sizes.append(np.array([np.gcd.reduce(np.diff(np.flatnonzero(one))) if one.sum() > 1 else 0 for one in edges]))
        finest = float((sizes[-1] == 1).mean())
        assert (
            abs(finest - 1 / 6) < 4 * math.sqrt(5 / 36 / n) + 0.02
        )  # of tiles of 1, 2, 4, ..., 32 pixels; some show none
        assert (np.log2(sizes[-1][sizes[-1] > 0]) % 1 == 0).mean() > 0.9
    fine = torch.tensor((sizes[0] == 1) & (sizes[1] == 1))
    share = (delta[fine] != 0).double().mean((1, 2)).numpy()
    assert stats.kstest(share, "uniform").pvalue > 0.01


def test_tiles_of_channels_have_signs_of_their_own_and_those_of_vectors_are_intervals() -> None:
    delta = Tiles()(LInf(), torch.empty(500, 3, 8, 8), 1.0, generator())
    assert (delta[:, 0] != delta[:, 1]).flatten(1).any(1).double().mean() > 0.5
    vectors = Tiles()(LInf(), torch.empty(500, 64), 1.0, generator())
    few = (vectors.diff(dim=1) != 0).sum(1) <= 1
    assert 0 < few.double().mean() < 1


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
