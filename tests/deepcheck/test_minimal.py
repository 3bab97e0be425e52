"""Attacks that find the nearest adversarial example: closed forms on linear models, and what they give within a budget."""

import math
import re

import pytest
import torch
from torch import Tensor, nn

from deepcheck.attacks import DeepFool, MinimalAttack, WithinBudget, pgd
from deepcheck.attacks.base import Examples
from deepcheck.attacks.norms import LInf
from deepcheck.attacks.points import Points
from tests.deepcheck.devices import on_every_device

pytestmark = on_every_device

DUAL = {"l2": 2.0, "linf": 1.0, "l1": math.inf}
UNBOUNDED = (-math.inf, math.inf)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normals(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


class Linear(nn.Module):
    """Logits W x + b."""

    def __init__(self, K: int, D: int = 24) -> None:
        super().__init__()
        self.W = nn.Parameter(normals(K, D, seed=2))
        self.b = nn.Parameter(normals(K, seed=3))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.W.T + self.b


class Smooth(nn.Module):
    """A net of one hidden layer."""

    def __init__(self, K: int = 5, D: int = 24) -> None:
        super().__init__()
        self.W1 = nn.Parameter(2 * normals(D, 20, seed=4) / D**0.5)
        self.W2 = nn.Parameter(normals(20, K, seed=5))

    def forward(self, x: Tensor) -> Tensor:
        return ((x - 0.5).flatten(1) @ self.W1).tanh() @ self.W2


def classified(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.as_tensor(model(images).argmax(1))


def distances(model: Linear, images: Tensor, labels: Tensor, norm: str) -> Tensor:
    """Distance to the nearest boundary of a linear model, shape (n,)."""
    with torch.no_grad():
        logits = model(images)
        f = logits.gather(1, labels[:, None]) - logits
        w = model.W[None] - model.W[labels][:, None]
        length = torch.linalg.vector_norm(w, ord=DUAL[norm], dim=2)
    return torch.where(f == 0, torch.inf, f / length).amin(1)


@pytest.mark.parametrize("norm", DUAL)
@pytest.mark.parametrize("overshoot", [0.02, 0.3])
def test_of_two_linear_classes_one_step_goes_to_the_boundary_and_a_share_beyond(norm: str, overshoot: float) -> None:
    model, images = Linear(2), normals(50, 2, 3, 4)
    labels = classified(model, images)
    attack = DeepFool(norm, steps=1, overshoot=overshoot, bounds=UNBOUNDED)
    found = attack(model, images, labels, generator=generator())
    expected = (1 + overshoot) * distances(model, images, labels, norm)
    torch.testing.assert_close(found.length[0], expected, rtol=1e-10, atol=0)
    assert torch.equal(classified(model, found.images), 1 - labels)
    w = (model.W[1] - model.W[0]).detach()
    change = (found.images - images).flatten(1)
    cosine = (change @ w).abs() / torch.linalg.vector_norm(change, ord=2 if norm == "l2" else float(norm[1:]), dim=1)
    torch.testing.assert_close(cosine, torch.full_like(cosine, torch.linalg.vector_norm(w, ord=DUAL[norm])))


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_of_several_linear_classes_the_nearest_boundary_is_crossed_first(norm: str) -> None:
    """The first step ends beyond the nearest boundary, unless it crosses into a third class on the way: still the least."""
    model, images = Linear(6), normals(200, 2, 3, 4)
    labels = classified(model, images)
    found = DeepFool(norm, bounds=UNBOUNDED)(model, images, labels, generator=generator())
    expected = 1.02 * distances(model, images, labels, norm)
    torch.testing.assert_close(found.length[0], expected, rtol=1e-10, atol=0)


def test_candidates_are_the_largest_logits() -> None:
    model, images = Linear(6), normals(200, 2, 3, 4)
    labels = classified(model, images)
    with torch.no_grad():
        second = model(images).scatter(1, labels[:, None], -math.inf).argmax(1)
    found = DeepFool("l2", candidates=2, overshoot=1e-3, bounds=UNBOUNDED)(model, images, labels, generator=generator())
    best = DeepFool("l2", overshoot=1e-3, bounds=UNBOUNDED)(model, images, labels, generator=generator())
    assert (found.length >= best.length * (1 - 1e-9)).all()
    assert (found.length > best.length * 1.01).any()
    assert (found.prediction[0] == second).double().mean() > 0.8


@pytest.mark.parametrize("norm", DUAL)
def test_in_the_box_pixels_that_cannot_move_are_left_out(norm: str) -> None:
    """Images of zeros and ones: of a linear model, only the pixels that can move towards the boundary do."""
    model = Linear(2)
    images = torch.randint(2, (60, 2, 3, 4), generator=generator(6)).double()
    labels = classified(model, images)
    found = DeepFool(norm, steps=200)(model, images, labels, generator=generator())
    reached = found.length[0].isfinite()
    assert reached.sum() > 30
    assert found.images.min() >= 0
    assert found.images.max() <= 1
    assert torch.equal(classified(model, found.images) != labels, reached)
    uphill = ((1 - 2 * labels)[:, None] * (model.W[1] - model.W[0]).detach()).view_as(images)
    free = torch.where(uphill > 0, images < 1, images > 0)
    change = found.images - images
    assert (change[~free] == 0).all()
    assert (change * uphill >= 0).all()
    # where no pixel met the opposite edge the steps together end between the boundary and 1.02 times its distance, which
    # is f over the dual norm of what is free; one step suffices in L1, where what cannot move is left out of it
    inside = ((found.images > 0) & (found.images < 1) | ~free | (change == 0)).flatten(1).all(1) & reached
    with torch.no_grad():
        f = (model(images)[:, 0] - model(images)[:, 1]).abs()
    length = torch.linalg.vector_norm((uphill * free).flatten(1), ord=DUAL[norm], dim=1)
    assert inside.any()
    ratio = (found.length[0] * length / f)[inside]
    assert (ratio >= 1 - 1e-10).all()
    assert (ratio <= 1.02 + 1e-3).all()  # a last step closes 1e-4 of the logits at least
    if norm == "l1":
        assert (ratio >= 1.02 - 1e-10).all()


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_on_a_net_it_is_an_upper_bound_that_pgd_hardly_lowers(norm: str) -> None:
    """Within 0.6 of the distances that were found PGD finds few examples, within 1.1 times nearly all."""
    model, images = Smooth(), 0.2 + 0.6 * torch.rand(60, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    found = DeepFool(norm)(model, images, labels, generator=generator())
    assert found.length.isfinite().all()
    assert (found.prediction[0] != labels).all()
    shares = []
    for factor in (0.6, 1.1):
        wrong = [
            pgd(norm, "margin", steps=40)(
                model, images[k : k + 1], labels[k : k + 1], epsilon=factor * float(length), generator=generator()
            ).prediction[0]
            != labels[k]
            for k, length in enumerate(found.length[0])
        ]
        shares.append(float(torch.stack(wrong).double().mean()))
    assert shares[0] < 0.2
    assert shares[1] > 0.9


def test_what_is_wrong_already_has_the_distance_0_and_a_tie_is_left() -> None:
    model, images = Linear(3), normals(20, 2, 3, 4)
    labels = (classified(model, images) + 1) % 3
    found = DeepFool(bounds=UNBOUNDED)(model, images, labels, generator=generator())
    assert torch.equal(found.images, images)
    assert (found.length == 0).all()
    zero = torch.zeros(1, 24, dtype=torch.float64)
    with torch.no_grad():
        model.b.zero_()
    found = DeepFool(bounds=UNBOUNDED)(model, zero, torch.tensor([0]), generator=generator())
    assert 0 < float(found.length) < 1e-4


def test_what_is_not_found_is_infinitely_far() -> None:
    found = DeepFool(steps=5)(
        lambda x: torch.stack([2 + 0 * x.flatten(1).sum(1), 0 * x.flatten(1).sum(1)], 1),
        torch.full((4, 3), 0.5),
        torch.tensor([0, 1, 0, 0]),
        generator=generator(),
    )
    assert found.length.tolist() == [[math.inf, 0.0, math.inf, math.inf]]
    assert found.images.isfinite().all()


@pytest.mark.parametrize("norm", DUAL)
def test_within_a_budget(norm: str) -> None:
    """What was found within epsilon counts as it is; the rest is as far as the ball allows, and the model is asked again."""
    model, images = Smooth(), torch.rand(60, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    labels[:5] = (labels[:5] + 1) % 5
    attack = DeepFool(norm)
    found = attack(model, images, labels, generator=generator())
    middle = float(found.length.median())
    epsilons = [0.0, middle, 100.0]
    budget = WithinBudget(attack)(model, images, labels, epsilon=epsilons, generator=generator())
    assert budget.prediction.shape == (3, 1, 60)
    for k, epsilon in enumerate(epsilons):
        inside = found.length[0] <= epsilon
        assert torch.equal(budget.images[k, inside], found.images[inside])
        assert torch.equal(budget.prediction[k, 0, inside], found.prediction[0, inside])
        assert torch.equal(budget.prediction[k, 0], classified(model, budget.images[k]))
        assert (budget.length[k] <= epsilon * (1 + 1e-12)).all()
        outside = budget.length[k, 0, ~inside]
        if norm != "l1":  # projection in L1 goes to the nearest point, which is shorter where pixels were clipped
            torch.testing.assert_close(outside, torch.full_like(outside, epsilon), rtol=1e-9, atol=1e-12)
    assert budget.objective[1].ge(budget.objective[0] - 1e-12).all()
    assert torch.equal(budget.images[2], found.images)


class Guess(MinimalAttack):
    """One random point a restart."""

    def _nearest(self, examples: Examples) -> Points:
        z = self._norm.uniform(examples.images, 0.4, examples.draws()).add_(examples.images)
        return examples.points(z.clamp_(0, 1), self._objective)


def test_of_several_restarts_the_nearest_counts() -> None:
    model, images = Smooth(), torch.rand(80, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    found = Guess(LInf(), restarts=6)(model, images, labels, generator=generator())
    reached = found.prediction != labels
    assert torch.equal(found.length.isfinite(), reached)
    assert 5 < int(reached.any(0).sum()) < 75
    nearest = found.length.amin(0)
    length = LInf().length(found.images - images)
    assert torch.equal(length[reached.any(0)], nearest[reached.any(0)])
    assert torch.equal(classified(model, found.images) != labels, reached.any(0))
    # within a budget every restart has a row of its own
    middle = float(nearest[nearest.isfinite()].median())
    budget = WithinBudget(Guess(LInf(), restarts=6))(model, images, labels, epsilon=middle, generator=generator())
    assert ((budget.prediction != labels) >= (found.length <= middle)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps = 0 is out of range: allowed is a whole number >= 1"),
        ({"candidates": 1}, "candidates = 1 is out of range: allowed is a whole number >= 2"),
        ({"overshoot": 0.0}, "overshoot = 0.0 is out of range"),
        ({"norm": "l0"}, "norm = L0(coordinates=1, shares=None) is not allowed for DeepFool: one that has a dual is"),
        ({"objective": "targeted_margin"}, "is not allowed for DeepFool: one without targets is"),
        ({"objective": "wrong_confidence"}, "objective = WrongConfidence() is not allowed: one that has a goal is"),
        ({"restarts": 0}, "restarts = 0 is out of range"),
    ],
)
def test_bad_configurations(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        DeepFool(**options)  # type: ignore[arg-type]


def test_a_model_without_gradient_is_refused() -> None:
    images = torch.rand(5, 6, generator=generator(3))
    images[:, 0] = 1.0  # the class 0 is right for both
    for model in (lambda x: x.detach().flatten(1)[:, :4], lambda x: torch.ones(len(x), 4, requires_grad=True) * 1):
        with pytest.raises(ValueError, match="model has no gradient by its images: allowed is one that is differenti"):
            DeepFool()(model, images, torch.zeros(5, dtype=torch.int64), generator=generator())
