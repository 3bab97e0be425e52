"""ZOO: the distance of linear models, differences where rounding would eat them, and what it asks."""

import math
import re

import pytest
import torch
from torch import Tensor

from deepcheck.attacks import ZOO, DeepFool
from tests.deepcheck.black_box_cases import UNBOUNDED, Asked, Linear, Smooth, classified, examples, generator, normals
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device


@pytest.mark.parametrize(
    ("K", "coordinates", "steps"),
    [(2, 24, 150), pytest.param(6, 24, 400, marks=pytest.mark.slow), pytest.param(2, 8, 250, marks=pytest.mark.slow)],
)
def test_the_distance_of_linear_models(K: int, coordinates: int, steps: int) -> None:
    """Within 5 % of |margin| / |w|, or one step of Adam where that is more, and not below.

    Of several classes the descent may end at a boundary that is not the nearest: then most are.
    """
    model, images = Linear(K), normals(12, 2, 3, 4)
    labels = classified(model, images)
    attack = ZOO(coordinates=coordinates, steps=steps, bisections=4, c=1.0, learning_rate=0.02, bounds=UNBOUNDED)
    found = attack(model, images, labels, generator=generator())
    distance = model.distances(images, labels)
    assert (distance > 0.3).sum() > 2
    assert (found.length[0] >= distance * (1 - 1e-9)).all()
    near = found.length[0] <= torch.maximum(1.05 * distance, distance + 0.02)
    assert near.double().mean() > (0.7 if K > 2 else 0.99)
    assert (classified(model, found.images) != labels).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_where_the_probability_rounds_to_1(dtype: torch.dtype) -> None:
    """Logits a hundred times as large: p_y is 1 exactly, and log p_y does not change with the image."""
    model, images = Linear(2, scale=100.0), (0.5 + 0.1 * normals(12, 2, 3, 4)).clamp(0, 1).to(dtype)
    labels = classified(model, images)
    distance = model.distances(images, labels)
    far = distance > 0.02
    images, labels, distance = images[far], labels[far], distance[far]
    with torch.no_grad():
        assert (model(images.float()).softmax(1).amax(1) == 1).any()
    found = ZOO(steps=80, bisections=4, c=1e-4, learning_rate=0.003)(model, images, labels, generator=generator())
    assert found.images.dtype is dtype
    within = 0.05 if dtype is torch.float32 else 0.25  # a pixel of half precision is rounded by up to 0.004
    assert found.length[0].isfinite().all()
    assert float((found.length[0] / distance.float()).median()) < 1 + within


def test_slopes_are_those_of_the_objective() -> None:
    model, images = Smooth(), torch.rand(7, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    images[:, 0] = images[:, 0].round()  # one-sided there
    labels = classified(model, images)
    attack = ZOO()
    z = images.clone().requires_grad_()
    (exact,) = torch.autograd.grad(attack._objective(model(z), labels).sum(), z)
    chosen = torch.rand(7, 24, generator=generator(8)).argsort(1)[:, :9]
    slopes = attack._slopes(examples(Asked(model), images, labels, 5), images, chosen)
    torch.testing.assert_close(slopes, exact.flatten(1).gather(1, chosen), rtol=0, atol=1e-3)
    inside = (images.flatten(1).gather(1, chosen) % 1) > 0
    torch.testing.assert_close(slopes[inside], exact.flatten(1).gather(1, chosen)[inside], rtol=0, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_slopes_of_a_linear_model_have_no_error_of_rounded_pixels(dtype: torch.dtype) -> None:
    """They are over the distance that the model saw: pixels are rounded, by much in half precision."""
    model = Linear()
    images = torch.rand(9, 2, 3, 4, generator=generator(7)).to(dtype)
    labels = classified(model, images)
    some = examples(lambda x: model(x.double()), images, labels)  # type: ignore[arg-type]
    chosen = torch.arange(24).expand(9, 24)
    slopes = ZOO()._slopes(some, some.images, chosen)
    w = model.W.detach().float()
    torch.testing.assert_close(slopes, (w[1 - labels] - w[labels]), rtol=1e-3, atol=1e-3)


def test_what_is_asked_is_in_the_box_and_the_batch_and_no_more_than_it_says() -> None:
    model, images = Linear(), torch.rand(6, 2, 3, 4, generator=generator(7), dtype=torch.float64).round()
    with torch.no_grad():
        model.b[0] = 1000.0
    labels = classified(model, images)
    for batch_size in (100, 7):
        asked = Asked(model)
        attack = ZOO(steps=5, coordinates=4, bisections=2, abort=False)
        found = attack(asked, images, labels, generator=generator(), batch_size=batch_size)
        assert found.length.isinf().all()
        assert max(asked.sizes) <= batch_size
        assert 0 <= asked.low < asked.high <= 1
        # one more for the check of the model
        assert sum(asked.sizes) == 1 + 6 * (1 + 2 * 5 * (2 * 4 + 1))


def test_where_the_objective_is_flat_one_evaluation_is_enough() -> None:
    """With a c that never needs more than one step to cross, differences are asked for at every other step at most."""
    model, images = Linear(), normals(6, 2, 3, 4)
    labels = classified(model, images)
    asked = Asked(model)
    attack = ZOO(steps=200, coordinates=24, bisections=1, c=100.0, abort=False, bounds=UNBOUNDED)
    found = attack(asked, images, labels, generator=generator())
    assert found.length.isfinite().all()
    assert sum(asked.sizes) < 0.8 * 6 * 200 * (2 * 24 + 1)
    everything = 6 * (1 + 200 * (2 * 24 + 1))
    assert sum(asked.sizes) < everything


def test_a_descent_that_gains_nothing_ends() -> None:
    def flat(x: Tensor) -> Tensor:
        asked.append(len(x))
        return torch.stack([x.flatten(1)[:, 0] * 0 + 3, x.flatten(1)[:, 0] * 0], 1)

    images, asked = torch.full((3, 8), 0.5), []  # type: ignore[var-annotated]
    attack = ZOO(steps=100, coordinates=2, bisections=3)
    found = attack(flat, images, torch.zeros(3, dtype=torch.int64), generator=generator())
    assert found.length.isinf().all()
    assert torch.equal(found.images, images)
    assert sum(asked) == 1 + 3 * (1 + 3 * 20 * 5)  # two looks, at steps 10 and 20


@pytest.mark.slow
def test_on_a_net_it_is_nearer_than_deepfool() -> None:
    """Where the same class is reached, as nearly always: the nearest point of the boundary, to a step of Adam."""
    model, images = Smooth(), torch.rand(20, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    attack = ZOO(coordinates=24, steps=150, bisections=4, c=1.0, learning_rate=0.005)
    mine = attack(Asked(model), images, labels, generator=generator())
    its = DeepFool()(model, images, labels, generator=generator())
    assert mine.length.isfinite().all()
    same = mine.prediction[0] == its.prediction[0]
    assert same.double().mean() > 0.8
    a, b = mine.length[0, same], its.length[0, same]
    assert (a < b + 0.005).all()
    assert a.mean() < 0.99 * b.mean()


def test_targets_and_margins_are_reached() -> None:
    model, images = Smooth(), torch.rand(10, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    targets = (labels + 2) % 5
    found = ZOO(objective="targeted_margin", steps=60, bisections=3, c=1.0, learning_rate=0.03)(
        model, images, labels, targets=targets, generator=generator()
    )
    assert (classified(model, found.images) == targets).double().mean() > 0.8
    plain = ZOO(steps=60, bisections=3, c=1.0)(model, images, labels, generator=generator())
    sure = ZOO(steps=60, bisections=3, c=1.0, kappa=0.3)(model, images, labels, generator=generator())
    assert (plain.objective < 0.1).all()
    assert (sure.objective >= 0.3).all()
    assert (sure.length > plain.length).all()


def test_what_is_wrong_already_is_not_asked_again() -> None:
    model, images = Linear(3), normals(20, 2, 3, 4)
    labels = (classified(model, images) + 1) % 3
    asked = Asked(model)
    found = ZOO(bounds=UNBOUNDED)(asked, images, labels, generator=generator())
    assert (found.length == 0).all()
    assert torch.equal(found.images, images)
    assert sum(asked.sizes) == 1 + 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps = 0 is out of range: allowed is a whole number >= 1"),
        ({"coordinates": 0}, "coordinates = 0 is out of range"),
        ({"bisections": 0}, "bisections = 0 is out of range"),
        ({"difference": 0.0}, "difference = 0.0 is out of range"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0 is out of range"),
        ({"c": 0.0}, "c = 0.0 is out of range"),
        ({"kappa": -1.0}, "kappa = -1.0 is out of range"),
        ({"kappa": math.nan}, "kappa = nan is out of range"),
        ({"abort": 1}, "abort = 1 is not a bool"),
        ({"norm": "linf"}, "norm = LInf() is not allowed for ZOO: l2 is"),
        ({"objective": "cross_entropy"}, "is not allowed for ZOO: margin or targeted_margin is"),
    ],
)
def test_bad_configurations(options: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        ZOO(**options)  # type: ignore[arg-type]
