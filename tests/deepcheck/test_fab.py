"""FAB: the shortest way to a hyperplane in a box, closed forms on linear models, starts, and the rival that it beats."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import Tensor

from deepcheck.attacks import FAB, DeepFool, WithinBudget, fab_t
from deepcheck.attacks.calls import NotFiniteWarning
from deepcheck.attacks.minimal.hyperplane import shortest
from deepcheck.attacks.norms import NORMS
from deepcheck.attacks.objectives import TargetedMargin
from tests.deepcheck.devices import on_every_device, on_the_cpu
from tests.deepcheck.test_minimal import UNBOUNDED, Linear, Smooth, classified, distances, generator, normals

pytestmark = on_every_device

CASES = ["linf", "l2", "l1"]
WITHIN = 1e-4  # of the distance: the final search aims at 2e-5 of the image's margin


def solved(w: Tensor, gap: float, x: Tensor, norm: str) -> float:
    """The distance from x to <w, delta> = gap in the unit box: linear programs, and bisection for the factor of w in L2."""
    low, high, normal = -x.numpy(), (1 - x).numpy(), w.numpy()
    D = len(normal)
    if norm == "l2":
        small, large = 0.0, 1e6
        for _ in range(200):
            middle = (small + large) / 2
            reached = np.clip(math.copysign(middle, gap) * normal, low, high) @ normal / gap >= 1
            small, large = (small, middle) if reached else (middle, large)
        return float(np.linalg.norm(np.clip(math.copysign(large, gap) * normal, low, high)))
    sizes = D if norm == "l1" else 1  # variables: delta, and the sizes that bound it
    spread = np.eye(D) if norm == "l1" else np.ones((D, 1))
    found = linprog(
        np.concatenate([np.zeros(D), np.ones(sizes)]),
        A_ub=np.block([[np.eye(D), -spread], [-np.eye(D), -spread]]),
        b_ub=np.zeros(2 * D),
        A_eq=np.concatenate([normal, np.zeros(sizes)])[None],
        b_eq=[gap],
        bounds=[*zip(low, high, strict=True), *[(0, None)] * sizes],
    )
    assert found.success
    return float(found.fun)


# --- the shortest way to a hyperplane ---


@st.composite
def hyperplanes(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Weights with zeros and ties, gaps that can be met or not, points with entries at the edges: normal, gap, points."""
    n, D = draw(st.integers(1, 3)), draw(st.integers(1, 45))
    weights = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 2.0]), st.floats(-100, 100).filter(lambda v: abs(v) > 1e-3))
    places = st.one_of(st.sampled_from([0.0, 1.0, 0.5]), st.floats(0, 1))
    each = n * D
    normal = torch.tensor(draw(st.lists(weights, min_size=each, max_size=each)), dtype=torch.float64).view(n, D)
    points = torch.tensor(draw(st.lists(places, min_size=each, max_size=each)), dtype=torch.float64).view(n, D)
    gap = torch.tensor(draw(st.lists(st.floats(-300, 300), min_size=n, max_size=n)), dtype=torch.float64)
    return normal, gap, points


@on_the_cpu
@pytest.mark.parametrize("norm", CASES)
@given(case=hyperplanes())
def test_the_way_is_the_shortest_by_its_conditions(norm: str, case: tuple[Tensor, Tensor, Tensor]) -> None:
    """It is in the box, meets the hyperplane or goes to the corner, and no entry could go farther in the place of another."""
    normal, gap, points = case
    delta = shortest(NORMS[norm], normal, gap, points, (0.0, 1.0))
    for w, c, x, d in zip(normal, gap, points, delta, strict=True):
        assert (x + d >= -1e-12).all()
        assert (x + d <= 1 + 1e-12).all()
        assert (d * w * c.sign() >= 0).all()  # no entry moves away
        uphill = w * (-1.0 if c < 0 else 1.0)
        room = torch.where(uphill > 0, 1 - x, x)
        most = float((w.abs() * room).sum())
        met = min(abs(float(c)), most)
        assert float((d * uphill).sum()) == pytest.approx(met, rel=1e-9, abs=1e-9)
        assert (d[w == 0] == 0).all()
        size, weight = d.abs(), w.abs()
        free = (size < room - 1e-9) & (weight > 0)
        if abs(float(c)) > most or not bool(free.any()):
            continue
        if norm == "linf":  # what is free has the largest size
            assert (size[free] >= size.max() - 1e-9).all()
        elif norm == "l2":  # what is free goes as its weight says, the rest would go farther
            factor = (size / weight)[free]
            assert float(factor.max() - factor.min()) < 1e-9 * max(1.0, float(factor.max()))
            assert (size <= float(factor.max()) * weight + 1e-9).all()
        else:  # the larger weights are at the edge, the smaller do not move
            last = weight[free].max()
            assert (size[weight < last - 1e-12] <= 1e-9).all()


@on_the_cpu
@pytest.mark.parametrize("norm", CASES)
def test_the_way_is_that_of_a_solver(norm: str) -> None:
    normal, points = normals(20, 60), normals(20, 60, seed=2).clamp(0, 1)
    room = torch.where(normal > 0, 1 - points, points)
    share = torch.linspace(0.02, 0.95, 20, dtype=torch.float64)
    gap = share * (normal.abs() * room).sum(1)
    gap[::2] *= 0.05
    delta = shortest(NORMS[norm], normal, gap, points, (0.0, 1.0))
    expected = [solved(w, float(c), x, norm) for w, c, x in zip(normal, gap, points, strict=True)]
    np.testing.assert_allclose(NORMS[norm].length(delta), expected, rtol=1e-8)
    single = shortest(NORMS[norm], normal.float(), gap, points.float(), (0.0, 1.0))
    np.testing.assert_allclose(NORMS[norm].length(single), expected, rtol=1e-5)
    alone = shortest(NORMS[norm], normal[3:4], gap[3:4], points[3:4], (0.0, 1.0))
    assert torch.equal(alone[0], delta[3])


@pytest.mark.parametrize("norm", CASES)
def test_without_a_box_the_way_is_the_gap_over_the_dual_norm(norm: str) -> None:
    normal, gap = normals(30, 2, 3, 4), normals(30, seed=2)
    delta = shortest(NORMS[norm], normal, gap, torch.zeros_like(normal), UNBOUNDED)
    dual = NORMS[str(NORMS[norm].dual)]
    torch.testing.assert_close(NORMS[norm].length(delta), gap.abs() / dual.length(normal))
    torch.testing.assert_close((delta * normal).flatten(1).sum(1), gap)
    nothing = shortest(NORMS[norm], torch.zeros_like(normal), gap, torch.zeros_like(normal), UNBOUNDED)
    assert torch.equal(nothing, torch.zeros_like(normal))


# --- linear models ---


@pytest.mark.parametrize("norm", CASES)
@pytest.mark.parametrize("K", [2, 6])
def test_on_linear_models_it_meets_the_closed_form(norm: str, K: int) -> None:
    images = normals(60, 2, 3, 4)
    for dtype in (torch.float64, torch.float32):
        model = Linear(K).to(dtype)
        labels = classified(Linear(K), images)
        found = FAB(norm, steps=10, bounds=UNBOUNDED)(model, images.to(dtype), labels, generator=generator())
        exact = distances(Linear(K), images, labels, norm)
        with torch.no_grad():
            logits = Linear(K)(images)
            two = logits.topk(2, dim=1).values
        # the search keeps away from the boundary by 32 roundings of the logits
        rounded = 40 * torch.finfo(dtype).eps * logits.abs().amax(1) / (two[:, 0] - two[:, 1])
        excess = found.length[0].double() / exact - 1
        assert (excess < WITHIN + rounded).all()
        assert (excess > -rounded).all()
        assert (found.prediction[0] != labels).all()


@pytest.mark.parametrize("norm", CASES)
def test_targeted_it_finds_the_nearest_of_all_classes_in_turn(norm: str) -> None:
    model, images = Linear(6), normals(40, 2, 3, 4)
    labels = classified(model, images)
    attack = replace(fab_t(norm, steps=10, restarts=5), bounds=UNBOUNDED)
    found = attack(model, images, labels, generator=generator())
    torch.testing.assert_close(found.length.amin(0), distances(model, images, labels, norm), rtol=WITHIN, atol=0)
    # each restart goes to a class of its own: not all of them are the nearest
    assert (found.length.amax(0) > 1.1 * found.length.amin(0)).double().mean() > 0.9


@pytest.mark.parametrize("norm", CASES)
def test_a_given_target_is_reached_as_near_as_its_region_is(norm: str) -> None:
    """In L-infinity beside the linear program: the nearest point at which the target's logit is the largest."""
    model, images = Linear(4), normals(20, 2, 3, 4)
    labels = classified(model, images)
    targets = (labels + 1) % 4
    found = FAB(norm, "targeted_margin", bounds=UNBOUNDED)(
        model, images, labels, targets=targets, generator=generator()
    )
    # in L1 a step to one boundary may cross back over another, for ever
    reached = found.prediction[0] == targets
    assert reached.all() if norm != "l1" else reached.double().mean() > 0.7
    assert torch.equal(found.length[0].isfinite(), reached)
    if norm != "linf":
        return
    W, b = model.W.detach(), model.b.detach()
    for x, t, length in zip(images.flatten(1), targets, found.length[0], strict=True):
        others = [k for k in range(4) if k != int(t)]
        gain = W[others] - W[t]
        program = linprog(
            np.append(np.zeros(24), 1),
            A_ub=np.block(
                [
                    [gain.numpy(), np.zeros((3, 1))],
                    [np.eye(24), -np.ones((24, 1))],
                    [-np.eye(24), -np.ones((24, 1))],
                ]
            ),
            b_ub=np.append((b[t] - b[others] - gain @ x).numpy(), np.zeros(48)),
            bounds=[*[(None, None)] * 24, (0, None)],
        )
        assert program.fun * (1 - 1e-9) <= float(length) <= 1.5 * program.fun


@pytest.mark.parametrize("norm", CASES)
def test_in_the_box_it_meets_a_solver(norm: str) -> None:
    model = Linear(2)
    images = (1.6 * torch.rand(25, 2, 3, 4, generator=generator(5), dtype=torch.float64) - 0.3).clamp(0, 1)
    labels = classified(model, images)
    found = FAB(norm, steps=10)(model, images, labels, generator=generator())
    w = (model.W[1] - model.W[0]).detach()
    with torch.no_grad():
        logits = model(images)
    reached = found.length[0].isfinite()
    for x, f, length, is_reached in zip(
        images.flatten(1), logits[:, 0] - logits[:, 1], found.length[0], reached, strict=True
    ):
        room = torch.where(w * f > 0, 1 - x, x)
        assert bool(is_reached) == bool((w.abs() * room).sum() > abs(float(f)))
        if is_reached:
            expected = solved(w, float(f), x, norm)
            assert expected * (1 - 1e-9) <= float(length) <= expected * (1 + WITHIN)
    assert reached.sum() > 15
    assert found.images.min() >= 0
    assert found.images.max() <= 1


# --- on a net ---


@pytest.mark.parametrize("norm", CASES)
def test_it_is_nearer_than_deepfool(norm: str) -> None:
    model, images = Smooth(), torch.rand(60, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    theirs = DeepFool(norm)(model, images, labels, generator=generator()).length[0]
    ours = FAB(norm, steps=30)(model, images, labels, generator=generator()).length[0]
    assert ours.isfinite().all()
    assert (ours <= theirs * (1 + 1e-3)).double().mean() > 0.9
    assert float((ours / theirs)[theirs.isfinite()].median()) < 0.99


@pytest.mark.parametrize("norm", CASES)
def test_the_final_search_takes_away_what_the_steps_went_too_far(norm: str) -> None:
    model, images = Smooth(), torch.rand(60, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    lengths = [
        FAB(norm, steps=15, final_steps=k)(model, images, labels, generator=generator()).length[0] for k in (0, 1, 3)
    ]
    assert (lengths[1] <= lengths[0]).all()
    assert (lengths[2] <= lengths[0]).all()
    assert float((lengths[2] / lengths[1]).mean()) < 1
    assert float((lengths[2] / lengths[0]).median()) < 0.9995
    found = FAB(norm, steps=15)(model, images, labels, generator=generator())
    nearer = images + (1 - 1e-3) * (found.images - images)
    assert (classified(model, nearer) == labels).double().mean() > 0.95


def test_the_first_start_is_the_image_and_later_ones_are_within_half_the_distance_found() -> None:
    model, images = Smooth(), torch.rand(8, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    for attack, turns in ((FAB("l2", steps=6, restarts=3), 1), (fab_t("l2", steps=6, restarts=5), 4)):
        seen: list[Tensor] = []

        def watched(x: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(x.clone())
            return torch.as_tensor(model(x))

        found = attack(watched, images, labels, generator=generator())
        other = attack(model, images, labels, generator=generator(1))
        assert torch.equal(found.length[:turns], other.length[:turns])  # nothing is random
        assert not torch.equal(found.length[turns], other.length[turns])
        last = next(k for k in range(len(seen)) if len(seen[k]) == 8 and not torch.equal(seen[k], images))
        assert last > 0
        # of the restart after those: the images themselves, twice, and then the start
        queries = found.queries[:, 0].tolist()
        first = len(seen) - sum(queries) + sum(queries[:turns])
        assert torch.equal(seen[first], images)
        assert torch.equal(seen[first + 1], images)
        away = NORMS["l2"].length(seen[first + 2] - images)
        assert (away <= 0.5 * found.length[:turns].amin(0) * (1 + 1e-12)).all()
        assert (away > 0.2 * found.length[:turns].amin(0)).all()  # but for what the box cuts off


def test_within_a_budget_restarts_are_for_those_that_are_left() -> None:
    model, images = Smooth(), torch.rand(40, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    attack = fab_t("l2", steps=8, restarts=4)
    nearest = attack(model, images, labels, generator=generator())
    middle = float(nearest.length[0].median())
    budget = WithinBudget(attack)(model, images, labels, epsilon=[middle, 2 * middle], generator=generator())
    for k in range(2):
        wrong = budget.prediction[k] != labels
        before = torch.cat([torch.zeros(1, 40, dtype=torch.bool), wrong[:-1]]).cummax(0).values
        assert torch.equal(budget.queries[k] == 0, before)
        assert 5 < int((budget.queries[k, 1] > 0).sum()) <= 20 * (2 - k)
        assert torch.equal(budget.prediction[k, 1:][before[1:]], budget.prediction[k, :-1][before[1:]])
    # what is found for those that are left is what it is without a budget
    least = nearest.length.amin(0)
    assert ((budget.prediction[0] != labels).any(0) >= (least <= middle)).all()


# --- limits and bad input ---


def test_what_is_wrong_already_stays_and_what_cannot_be_reached_is_infinitely_far() -> None:
    def model(x: Tensor) -> Tensor:
        x = x.flatten(1)
        return torch.stack([2 + 0 * x.sum(1), x.sum(1)], 1)  # class 1 needs a sum of 2, which the box does not have

    labels = torch.tensor([0, 1, 0])
    found = FAB(steps=4, bounds=(0.0, 0.6))(model, torch.full((3, 3), 0.5), labels, generator=generator())
    assert found.length.tolist() == [[math.inf, 0.0, math.inf]]
    torch.testing.assert_close(found.images[0], torch.full((3,), 0.6))  # the corner is the last try


@pytest.mark.filterwarnings(f"ignore::{NotFiniteWarning.__module__}.{NotFiniteWarning.__name__}")
def test_it_comes_back_from_where_the_model_has_no_finite_logits() -> None:
    """Logits are lost from 3 % beyond the boundary, where the first step goes to."""
    linear, images = Linear(2), normals(20, 2, 3, 4)
    labels = classified(linear, images)
    with torch.no_grad():
        limit = 0.03 * (linear(images)[:, 0] - linear(images)[:, 1]).abs().min()

    def model(x: Tensor) -> Tensor:
        logits = linear(x)
        y = labels[: len(x)]
        beyond = logits.gather(1, 1 - y[:, None]) - logits.gather(1, y[:, None])
        return torch.as_tensor(logits.masked_fill(beyond > limit, torch.nan))

    one = (linear(images)[:, 0] - linear(images)[:, 1]).abs().argmin()
    images, labels = images[one : one + 1], labels[one : one + 1]
    found = FAB("l2", steps=10, bounds=UNBOUNDED)(model, images, labels, generator=generator())
    expected = distances(linear, images, labels, "l2")
    torch.testing.assert_close(found.length[0], expected, rtol=WITHIN, atol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps = 0 is out of range: allowed is a whole number >= 1"),
        ({"final_steps": -1}, "final_steps = -1 is out of range: allowed is a whole number >= 0"),
        ({"alpha_max": 1.5}, "alpha_max = 1.5 is out of range"),
        ({"eta": 0.9}, "eta = 0.9 is out of range"),
        ({"beta": 1.0}, "beta = 1.0 is out of range"),
        ({"norm": "l0"}, "norm = L0(coordinates=1, shares=None) is not allowed for FAB: linf, l2, l1 are"),
        ({"objective": "wrong_confidence"}, "objective = WrongConfidence() is not allowed: one that has a goal is"),
    ],
)
def test_bad_configurations(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        FAB(**options)  # type: ignore[arg-type]


def test_fab_t_needs_a_targeted_objective() -> None:
    with pytest.raises(ValueError, match="objective = 'margin' is not allowed: a targeted one is"):
        fab_t("l2", "margin")
    assert fab_t("l2").objective == TargetedMargin(goal="wrong")
