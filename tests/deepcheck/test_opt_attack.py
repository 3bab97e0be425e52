"""Opt-Attack: closed forms on linear models, and what it may ask."""

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from deepcheck.attacks import DeepFool, OptAttack
from deepcheck.attacks.black_box.boundary import Labels, Rays, bisected
from deepcheck.attacks.black_box.opt_attack import _distances
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


def test_of_two_linear_classes_it_tends_to_the_distance() -> None:
    model, images = Linear(), normals(30, 2, 3, 4)
    labels = classified(model, images)
    exact = model.distances(images, "l2")
    ratios = [
        lengths(OptAttack(queries=queries, bounds=WIDE), model, images, labels) / exact for queries in (100, 400, 1600)
    ]
    assert all((ratio >= 1 - 1e-9).all() for ratio in ratios)
    excess = [float(ratio.median()) - 1 for ratio in ratios]
    assert excess[0] > 2 * excess[1] > 4 * excess[2]
    assert (ratios[-1] < 1.02).all()


def asked_about(model: Linear, images: Tensor, queries: int = 10_000) -> Labels:
    key = keys(generator(), torch.arange(len(images)))
    examples = Examples.of(model, images, classified(model, images), None, key, 500)
    return Labels(examples, Margin(), L2(), WIDE, queries)


@pytest.mark.parametrize(("factor", "most"), [(0.5, 34), (0.999, 18), (1.0, 18), (1.001, 18), (2.5, 34)])
def test_the_distance_along_a_ray_is_found_from_where_it_is_looked_for(factor: float, most: int) -> None:
    model, images = Linear(), normals(30, 24)
    labels = asked_about(model, images)
    w = (model.W[1] - model.W[0]).detach() * (1 - 2 * classified(model, images))[:, None]
    v = w / w.norm(dim=1, keepdim=True) + 0.3 * normals(30, 24, seed=8) / 24**0.5
    v = v / v.norm(dim=1, keepdim=True)
    exact = model.distances(images, "l2") * w.norm(dim=1) / (v * w).sum(1)
    width, tolerance = torch.full_like(exact, 1e-3), 1e-6 * exact
    g = _distances(labels, Rays(labels, torch.arange(30), v), factor * exact, width, tolerance)
    assert ((g - exact >= -1e-12) & (g - exact <= 2e-6 * exact)).all()
    assert (10_000 - labels.left < most).all()


def test_a_ray_away_from_the_boundary_is_given_up() -> None:
    model, images = Linear(), normals(30, 24)
    labels = asked_about(model, images)
    w = (model.W[1] - model.W[0]).detach() * (1 - 2 * classified(model, images))[:, None]
    one = torch.ones(30, dtype=torch.float64)
    g = _distances(labels, Rays(labels, torch.arange(30), -w), one, 1e-3 * one, 1e-6 * one)
    assert g.isinf().all()
    assert (labels.left > 10_000 - 20).all()


def test_of_several_lines_those_that_cannot_be_nearest_are_given_up() -> None:
    """The nearest is found as if they were not, for fewer queries."""
    model, images = Linear(), normals(30, 24)
    w = (model.W[1] - model.W[0]).detach() * (1 - 2 * classified(model, images))[:, None]
    rows = torch.arange(30).repeat_interleave(8)
    v = w[rows] / w.norm() + normals(240, 24, seed=9) / 24**0.5
    v = v / v.norm(dim=1, keepdim=True)
    s = 2 * model.distances(images, "l2")[rows] * w.norm(dim=1)[rows] / (v * w[rows]).sum(1)
    keep = (s > 0) & (s < 15)
    rows, v, s = rows[keep], v[keep], s[keep]
    found = []
    for nearest in (True, False):
        labels = asked_about(model, images)
        bisected(labels, rows, Rays(labels, rows, v), 0 * s, s, 1e-6 * s, nearest=nearest)
        found.append(labels)
    assert torch.equal(found[0].length, found[1].length)
    assert (10_000 - found[0].left.double()).sum() < 0.5 * (10_000 - found[1].left.double()).sum()


@pytest.mark.parametrize("kind", [OneHot, Distorted])
def test_it_sees_labels_alone(kind: type[OneHot]) -> None:
    images = torch.rand(12, 2, 3, 4, generator=generator(), dtype=torch.float64)
    labels = classified(Smooth(), images)
    attack = OptAttack(queries=400, starts=20, directions=5)
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
    found = OptAttack(queries=queries)(model, images, labels, generator=generator())
    assert int(found.queries.sum()) == model.seen - 1
    assert int(found.queries[0, 3]) == 1
    assert found.queries.max() <= queries
    assert (found.queries[0] == queries)[found.length[0].isfinite() & (torch.arange(12) != 3)].all()


def test_in_the_box_pixels_at_its_edge_do_not_count() -> None:
    """Images of zeros and ones and a linear model: the distance is that of the pixels that can move."""
    model, images = Linear(), torch.randint(2, (30, 24), generator=generator(6)).double()
    labels = classified(model, images)
    w = (model.W[1] - model.W[0]).detach() * (1 - 2 * labels)[:, None]
    free = torch.where(w > 0, images < 1, images > 0)
    inside = torch.linalg.vector_norm(w * free, dim=1)
    margin = model.distances(images, "l2") * torch.linalg.vector_norm(w, dim=1)
    exact = margin / inside
    easy = (exact[:, None] * (w * free).abs() / inside[:, None]).amax(1) < 1  # none of them meets the other edge
    found = lengths(OptAttack(queries=3000), model, images, labels)
    assert int(easy.sum()) > 8
    assert float((found / exact)[easy].median()) < 1.03
    assert (found >= exact * (1 - 1e-9)).all()


def test_it_is_near_what_gradients_find() -> None:
    model, images = Smooth(), torch.rand(30, 2, 3, 4, generator=generator(), dtype=torch.float64)
    labels = classified(model, images)
    rival = DeepFool("l2")(model, images, labels, generator=generator()).length[0]
    found = lengths(OptAttack(queries=3000), model, images, labels)
    assert float((found / rival).median()) < 1.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 0}, "queries = 0 is out of range: allowed is a whole number >= 1"),
        ({"directions": 0}, "directions = 0 is out of range: allowed is a whole number >= 1"),
        ({"starts": 0}, "starts = 0 is out of range: allowed is a whole number >= 1"),
        ({"smoothing": 0.0}, "smoothing = 0.0 is out of range"),
        ({"step_size": -1.0}, "step_size = -1.0 is out of range"),
        ({"norm": "linf"}, "is not allowed for Opt-Attack: l2 is"),
        ({"bounds": (-math.inf, 1.0)}, "bounds = (-inf, 1.0) is not allowed for Opt-Attack: finite ones are"),
    ],
)
def test_bad_configurations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        OptAttack(**options)
