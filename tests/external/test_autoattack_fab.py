"""FAB and the Square Attack in pyautoattack: no better with the same steps and queries, on the same net."""

from typing import Any

import pytest
import torch
from torch import Tensor

from deepcheck.attacks import FAB, Square, WithinBudget, fab_t
from deepcheck.attacks.minimal.hyperplane import shortest
from deepcheck.attacks.norms import NORMS
from tests.external.conftest import Case

REASON = "compares with pyautoattack: make external"
fab_pt = pytest.importorskip("pyautoattack.fab_pt", reason=REASON)
fab_projections = pytest.importorskip("pyautoattack.fab_projections", reason=REASON)
square = pytest.importorskip("pyautoattack.square", reason=REASON)

pytestmark = pytest.mark.filterwarnings("ignore")  # what it does is not ours to repair

NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
EPSILON = {"linf": 0.1, "l2": 0.5, "l1": 1.5}
IMAGES = 150


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def theirs(attack: Any, images: Tensor, labels: Tensor) -> Tensor:
    with torch.random.fork_rng(devices=[]):
        found = attack.perturb(images, labels)
    assert isinstance(found, Tensor)
    return found


def distances(case: Case, norm: str, images: Tensor) -> Tensor:
    """Length of the perturbations of the first images, infinite where the net is right."""
    some = slice(len(images))
    wrong = case.net(images).argmax(1) != case.labels[some]
    return NORMS[norm].length(images - case.images[some]).masked_fill(~wrong, torch.inf)


@pytest.mark.parametrize("norm", NAMES)
def test_the_ways_to_a_hyperplane_are_the_same(norm: str) -> None:
    draw = torch.Generator().manual_seed(1)
    w = torch.randn(40, 60, generator=draw, dtype=torch.float64)
    x = (1.6 * torch.rand(40, 60, generator=draw, dtype=torch.float64) - 0.3).clamp(0, 1)
    gap = 3 * torch.randn(40, generator=draw, dtype=torch.float64)
    other = getattr(fab_projections, f"projection_{norm}")(x, w, (w * x).sum(1) + gap)
    ours = shortest(NORMS[norm], w, gap, x, (0.0, 1.0))
    torch.testing.assert_close((ours * w).sum(1), (other * w).sum(1))
    torch.testing.assert_close(NORMS[norm].length(ours), NORMS[norm].length(other))


@pytest.mark.parametrize("norm", NAMES)
def test_fab_finds_points_as_near(norm: str, case: Case) -> None:
    images, labels = case.images[:IMAGES], case.labels[:IMAGES]
    found = FAB(norm, steps=50)(case.net, images, labels, generator=generator())
    other = fab_pt.FABAttack_PT(case.net, norm=NAMES[norm], n_iter=50, eps=1e9, device="cpu")
    ours, its = found.length[0], distances(case, norm, theirs(other, images, labels))
    assert ours.isfinite().sum() >= its.isfinite().sum()
    right = case.right(case.images)[:IMAGES]
    assert float(ours[right].median()) <= 1.02 * float(its[right].median())
    assert float((ours / its)[right].median()) < 1.001


@pytest.mark.parametrize("norm", NAMES)
def test_targeted_fab_turns_as_many_within_epsilon(norm: str, case: Case) -> None:
    images, labels = case.images[:60], case.labels[:60]
    found = WithinBudget(fab_t(norm, steps=20))(
        case.net, images, labels, epsilon=EPSILON[norm], generator=generator()
    ).images
    other = fab_pt.FABAttack_PT(
        case.net, norm=NAMES[norm], n_iter=20, eps=EPSILON[norm], device="cpu", targeted=True, n_target_classes=9
    )
    ours, its = distances(case, norm, found), distances(case, norm, theirs(other, images, labels))
    assert 5 < int(ours.isfinite().sum()) < 55
    assert ours.isfinite().sum() >= its.isfinite().sum()


@pytest.mark.parametrize("norm", NAMES)
def test_square_turns_as_many(norm: str, case: Case) -> None:
    """With three seeds each, within three standard errors of the difference of paired counts."""
    images, labels = case.images[:IMAGES], case.labels[:IMAGES]
    ours = its = torch.zeros(IMAGES)
    for seed in range(3):
        draw = torch.Generator().manual_seed(seed)
        found = Square(norm, queries=300)(case.net, images, labels, epsilon=EPSILON[norm], generator=draw).images
        other = square.SquareAttack(
            case.net, norm=NAMES[norm], eps=EPSILON[norm], n_queries=300, seed=seed, device="cpu"
        )
        with torch.no_grad():
            ours = ours + distances(case, norm, found).isfinite()
            its = its + distances(case, norm, theirs(other, images, labels)).isfinite()
    difference = ours - its
    assert float(difference.sum()) >= -3 * float(difference.square().sum().sqrt())
    assert float(ours.sum()) > 30
