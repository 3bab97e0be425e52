"""HopSkipJump: closed forms on linear models, the law of its estimates, and what it may ask."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from deepcheck.attacks import DeepFool, HopSkipJump
from deepcheck.attacks.black_box.boundary import Labels
from deepcheck.attacks.black_box.hop_skip_jump import direction
from deepcheck.attacks.draws import keys
from deepcheck.attacks.examples import Examples
from deepcheck.attacks.norms import L2
from deepcheck.attacks.objectives import Margin
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.label_cases import (
    WIDE,
    Counting,
    Distorted,
    Linear,
    OneHot,
    Smooth,
    classified,
    generator,
    lengths,
    normals,
)

pytestmark = on_every_device


@pytest.mark.parametrize(("norm", "within"), [("l2", 1.03), ("linf", 1.15)])
def test_of_two_linear_classes_it_tends_to_the_distance(norm: str, within: float) -> None:
    """From above, with the number of queries; in L-infinity a step has the signs of the estimate, of which some are wrong."""
    model, images = Linear(), normals(30, 2, 3, 4)
    labels = classified(model, images)
    exact = model.distances(images, norm)
    ratios = [
        lengths(HopSkipJump(norm, queries=queries, bounds=WIDE), model, images, labels) / exact
        for queries in (100, 400, 1600)
    ]
    assert all((ratio >= 1 - 1e-9).all() for ratio in ratios)
    excess = [float(ratio.median()) - 1 for ratio in ratios]
    assert excess[0] > 2 * excess[1] > 4 * excess[2]
    assert (ratios[-1] < within).all()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_with_many_queries_it_is_at_the_distance(norm: str) -> None:
    model, images = Linear(), normals(30, 2, 3, 4)
    labels = classified(model, images)
    found = lengths(HopSkipJump(norm, queries=6400, bounds=WIDE), model, images, labels)
    assert (found < 1.05 * model.distances(images, norm)).all()


def estimates(B: int, offset: float, n: int = 400, D: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Estimates at points `offset` (in units of delta) beyond a flat boundary, the shares of labels, and the normal."""
    model = Linear(2, D)
    w = (model.W[1] - model.W[0]).detach()
    w = w / w.norm()
    images = normals(n, D)
    margin = model.distances(images, "l2")[:, None] * (classified(model, images) * 2 - 1)[:, None]
    images = images - margin * w  # on the boundary
    examples = Examples.of(
        model, images, torch.zeros(n, dtype=torch.int64), None, keys(generator(), torch.arange(n)), 500
    )
    labels = Labels(examples, Margin(), L2(), (-math.inf, math.inf), 10**6)
    delta = torch.full((n,), 1e-3, dtype=torch.float64)
    rows, now = torch.arange(n), images + offset * 1e-3 * w
    before = labels.left.clone()
    v = direction(labels, rows, now, delta, torch.full((n,), B), 1)
    assert torch.equal(before - labels.left, torch.full((n,), B))
    return v, torch.nn.functional.cosine_similarity(v, w.expand_as(v)), w


@pytest.mark.parametrize("B", [60, 250, 1000])
def test_the_direction_is_found_as_the_law_of_signs_says(B: int) -> None:
    """With c = E|u_1| of the sphere, the estimate is c along the normal, and across it D - 1 numbers of variance 1 / D B."""
    D = 24
    v, cosine, w = estimates(B, 0.0)
    c = math.exp(math.lgamma(D / 2) - math.lgamma((D + 1) / 2)) / math.sqrt(math.pi)
    along, across = c**2 + (1 / D - c**2) / B, (D - 1) / (D * B)
    expected = math.sqrt(along / (along + across))
    assert float(cosine.mean()) == pytest.approx(expected, abs=0.015)
    mean = torch.nn.functional.cosine_similarity(v.mean(0), w, dim=0)
    assert float(mean) > 1 - 2 * (1 - c**2) / (c**2 * B * len(v))  # no bias but a factor


def test_the_baseline_takes_away_the_noise_of_labels_that_are_mostly_equal() -> None:
    """At a distance of 1.5 standard deviations 87 % of the labels are equal, and their deviation is 2/3 of what it was."""
    D, B = 24, 2000
    h = 1.5 / math.sqrt(D)
    _, cosine, _ = estimates(B, h)
    u = torch.linspace(-1, 1, 200_001, dtype=torch.float64)[1:-1]
    density = (1 - u**2) ** ((D - 3) / 2)
    density /= density.sum()
    c, m = float((density * u.abs() * (u.abs() > h)).sum()), float(density[u.abs() < h].sum())
    expected = [c / math.sqrt(c**2 + (D - 1) / D * noise / B) for noise in (1 - m**2, 1.0)]
    assert expected[0] > expected[1] + 0.03
    assert float(cosine.mean()) == pytest.approx(expected[0], abs=0.01)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("kind", [OneHot, Distorted])
def test_it_sees_labels_alone(norm: str, kind: type[OneHot]) -> None:
    images = torch.rand(12, 2, 3, 4, generator=generator(), dtype=torch.float64)
    labels = classified(Smooth(), images)
    attack = HopSkipJump(norm, queries=300, directions=30)
    one, other = (attack(model, images, labels, generator=generator()) for model in (Smooth(), kind(Smooth())))
    assert one.length.isfinite().any()
    for field in ("images", "prediction", "length", "queries"):
        assert torch.equal(getattr(one, field), getattr(other, field))


@pytest.mark.parametrize("queries", [1, 2, 9, 57, 300])
def test_a_budget_is_used_and_never_exceeded(queries: int) -> None:
    images = torch.rand(12, 2, 3, 4, generator=generator(), dtype=torch.float64)
    model = Counting(Smooth())
    labels = classified(model, images)
    labels[3] = (labels[3] + 1) % 5  # wrong already
    model.seen = 0
    found = HopSkipJump(queries=queries)(model, images, labels, generator=generator())
    assert int(found.queries.sum()) == model.seen - 1
    assert int(found.queries[0, 3]) == 1
    assert found.queries.max() <= queries
    assert (found.queries[0] == queries)[found.length[0].isfinite() & (torch.arange(12) != 3)].all()


def test_where_no_start_is_found_there_is_none() -> None:
    """It takes as many queries as there are starts, and one."""

    class Sure(Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 0 * super().forward(x) + 2 * torch.eye(2)[0]

    images, labels = torch.rand(5, 2, 3, 4), torch.zeros(5, dtype=torch.int64)
    found = HopSkipJump(starts=7)(Sure(), images, labels, generator=generator())
    assert found.length.isinf().all()
    assert torch.equal(found.images, images)
    assert (found.queries == 8).all()


def test_a_start_is_found_where_all_noise_is_of_one_class() -> None:
    """Class 0 unless most of the upper half is dark: uniform noise never is, tiles are."""

    class Half(Linear):
        def forward(self, x: Tensor) -> Tensor:
            dark = (x.flatten(1)[:, :98] < 0.1).double().mean(1) - 0.5
            return torch.stack([-dark, dark], 1)

    images = torch.rand(20, 1, 14, 14, generator=generator()) * 0.5 + 0.5
    found = HopSkipJump(queries=300)(Half(), images, classified(Half(), images), generator=generator())
    assert found.length.isfinite().double().mean() > 0.9


def test_a_target_is_reached_where_some_start_is_of_its_class() -> None:
    model, images = Linear(3), torch.rand(30, 2, 3, 4, generator=generator(), dtype=torch.float64)
    labels = classified(model, images)
    targets = (labels + 1) % 3
    attack = HopSkipJump("l2", "targeted_margin", queries=800, bounds=(-3.0, 3.0))
    found = attack(model, images, labels, generator=generator(), targets=targets)
    assert (found.prediction[0] == targets).all()
    free = replace(attack, objective="margin")(model, images, labels, generator=generator())
    assert found.length.median() > free.length.median()


def test_it_is_near_what_gradients_find() -> None:
    model, images = Smooth(), torch.rand(30, 2, 3, 4, generator=generator(), dtype=torch.float64)
    labels = classified(model, images)
    rival = DeepFool("l2")(model, images, labels, generator=generator()).length[0]
    found = lengths(HopSkipJump(queries=1500), model, images, labels)
    assert float((found / rival).median()) < 1.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries = 0 is out of range: allowed is a whole number >= 1"),
        ({"directions": 0}, "directions = 0 is out of range: allowed is a whole number >= 1"),
        ({"starts": 0}, "starts = 0 is out of range: allowed is a whole number >= 1"),
        ({"norm": "l1"}, "is not allowed for HopSkipJump: linf or l2 is"),
        ({"bounds": (0.0, math.inf)}, "bounds = (0.0, inf) is not allowed for HopSkipJump: finite ones are"),
        ({"objective": "wrong_confidence"}, "objective = WrongConfidence() is not allowed: one that has a goal is"),
    ],
)
def test_bad_configurations(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        HopSkipJump(**options)  # type: ignore[arg-type]
