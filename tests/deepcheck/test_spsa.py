"""SPSA and NES: the law of their estimates, the optimum on linear models, and what they ask."""

import re

import pytest
import torch
from torch import Tensor

from deepcheck.attacks import SPSA, nes
from deepcheck.attacks.norms import NORMS
from tests.deepcheck.black_box_cases import UNBOUNDED, Asked, Linear, Smooth, classified, examples, generator, normals
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device


def estimates(attack: SPSA, model: Linear, times: int) -> tuple[Tensor, Tensor]:
    """Estimates of the gradient of a linear objective, shape (times, D), and the gradient."""
    images = normals(1, 24).expand(times, 24).clone()
    labels = classified(model, images)
    w = (model.W[1 - labels[0]] - model.W[labels[0]]).detach()
    return attack.gradient(examples(Asked(model), images, labels), images, 3), w


@pytest.mark.parametrize(("directions", "sign"), [("signs", -1.0), ("normal", 1.0)])
def test_estimates_of_a_linear_objective_have_its_gradient_as_mean_and_the_variance_that_theory_says(
    directions: str, sign: float
) -> None:
    """Variance of entry k: (|w|^2 -+ w_k^2) / m, with + for normal directions."""
    times, m = 4000, 5
    g, w = estimates(SPSA(samples=m, directions=directions, bounds=UNBOUNDED), Linear(), times)  # type: ignore[arg-type]
    variance = (w.square().sum() + sign * w.square()) / m
    z = (g.mean(0) - w) / (variance / times).sqrt()
    assert z.abs().max() < 4.5
    assert z.square().mean() < 2
    torch.testing.assert_close(g.var(0), variance, rtol=0.15, atol=0)
    assert abs(float(g.var(0).mean() / variance.mean()) - 1) < 0.03


def test_the_difference_does_not_matter_for_a_linear_objective() -> None:
    one, _ = estimates(SPSA(samples=5, difference=0.5), Linear(), 20)
    other, _ = estimates(SPSA(samples=5, difference=1e-3), Linear(), 20)
    torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("samples", [3, 200])
def test_an_estimate_does_not_depend_on_the_batches(samples: int) -> None:
    model, images = Linear(3), normals(5, 2, 3, 4)
    labels = classified(model, images)
    attack = SPSA(samples=samples)
    whole = attack.gradient(examples(model, images, labels, 10_000), images, 1)
    for size in (700, 64, 7):
        part = attack.gradient(examples(model, images, labels, size), images, 1)
        torch.testing.assert_close(part, whole, rtol=1e-9, atol=1e-9)  # matrix products round as the batch is cut
    again = attack.gradient(examples(model, images, labels, 10_000), images, 2)
    assert not torch.isclose(again, whole).any()


@pytest.mark.parametrize("attack", [SPSA, nes])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_on_a_linear_model_it_reaches_the_optimum(attack: type[SPSA], norm: str) -> None:
    """The margin at the end is that of the image and epsilon |w|_q more, to 2 %."""
    model, images = Linear(), normals(4, 2, 3, 4)
    labels = classified(model, images)
    with torch.no_grad():
        model.b[labels[0]] += 100.0  # nothing is reached
    labels = classified(model, images)
    tried = attack(norm, steps=120, samples=100, restarts=1)
    tried = SPSA(**{**vars(tried), "bounds": UNBOUNDED})
    found = tried(Asked(model), images, labels, epsilon=0.3, generator=generator())
    w = (model.W[1 - labels[0]] - model.W[labels[0]]).detach()
    most = 0.3 * float(w.abs().sum() if norm == "linf" else w.square().sum().sqrt())
    with torch.no_grad():
        before = tried._objective(model(images), labels)
    gained = found.objective - before
    assert (gained <= most * (1 + 1e-9)).all()
    assert (gained >= 0.98 * most).all()


def test_more_samples_are_a_stronger_attack() -> None:
    model, images = Smooth(), torch.rand(60, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    right = []
    for samples in (1, 8, 128):
        found = SPSA(steps=20, samples=samples)(model, images, labels, epsilon=0.12, generator=generator())
        right.append(int((found.prediction[0] == labels).sum()))
    assert right[2] < right[0] - 6
    assert right[2] <= right[1] <= right[0]


def test_what_is_asked() -> None:
    """At most 2 m + 1 for a step, nothing of what is wrong already, in batches of the size that was given."""
    model, images = Linear(), torch.rand(6, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    with torch.no_grad():
        model.b[0] = 1000.0
    labels = classified(model, images)
    labels[:2] = 1
    for batch_size in (100, 7):
        asked = Asked(model)
        attack = SPSA(steps=3, samples=9, difference=0.03)
        found = attack(asked, images, labels, epsilon=0.2, generator=generator(), batch_size=batch_size)
        assert max(asked.sizes) <= batch_size
        assert sum(asked.sizes) == 1 + 6 + 4 * 3 * (2 * 9 + 1)
        assert -0.03 <= asked.low < asked.high <= 1.03
        assert torch.equal(found.images[:2], images[:2])
        assert (NORMS["linf"].length(found.images - images) <= 0.2).all()


def test_an_example_that_is_turned_is_not_asked_again() -> None:
    model, images = Smooth(), torch.rand(40, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    sums = []
    for stop in (True, False):
        asked = Asked(model)
        tried = SPSA(steps=20, samples=8, stop_when_reached=stop, learning_rate=0.02)
        found = tried(asked, images, labels, epsilon=0.3, generator=generator())
        sums.append(sum(asked.sizes))
        if stop:
            assert (found.prediction[0] != labels).double().mean() > 0.8
    assert sums[0] < 0.6 * sums[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps = 0 is out of range: allowed is a whole number >= 1"),
        ({"samples": 0}, "samples = 0 is out of range: allowed is a whole number >= 1"),
        ({"difference": 0.0}, "difference = 0.0 is out of range"),
        ({"learning_rate": 0.0}, "learning_rate = 0.0 is out of range"),
        ({"directions": "cauchy"}, "directions = 'cauchy' is unknown"),
        ({"update": "sign"}, "update = 'sign' is unknown"),
        ({"norm": "l0"}, "is not allowed for SPSA: linf or l2 is"),
    ],
)
def test_bad_configurations(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        SPSA(**options)  # type: ignore[arg-type]
