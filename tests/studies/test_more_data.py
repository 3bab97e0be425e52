"""The study of more data: what it measures is what it says, and each claim fails where its statement is false."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import xarray as xr
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

from deepcheck import models
from deepcheck.data import Images, load, two_classes
from deepcheck.training import Recipe, Trained
from odeflow import adversarial_error, classification_error
from studies.common.bounds import TOO_LARGE, bounds, none_below
from studies.common.nets import kept_training
from studies.common.parallel import one_thread
from studies.more_data import attacked, learn, linear
from studies.more_data.claims import claims, table, with_gaps
from studies.more_data.figures import figures
from studies.more_data.plan import Deep, Linear, plan_of
from studies.more_data.study import _described, _row
from studies.more_data.theory import MIXTURE, known_ends, theory_of

Array = npt.NDArray[np.float64]


# --- linear classifiers ---


@pytest.fixture(scope="module")
def examples() -> tuple[Array, Array]:
    rng = np.random.default_rng(1)
    y = rng.choice([-1.0, 1.0], 80)
    return rng.standard_normal((80, 5)) + 0.5 * y[:, None], y


def test_without_an_attack_it_is_logistic_regression(examples: tuple[Array, Array]) -> None:
    X, y = examples
    w, b = linear.learned(X, y, 0.0)
    other = LogisticRegression(tol=1e-10, max_iter=10_000).fit(X, y)
    np.testing.assert_allclose(w, other.coef_[0], rtol=1e-4)
    assert b == pytest.approx(-other.intercept_[0], rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.3, 0.8])
def test_no_other_weights_have_a_smaller_attacked_loss(examples: tuple[Array, Array], epsilon: float) -> None:
    """The loss of images that are moved one by one along -y w/|w|, and not by the formula."""
    X, y = examples

    def loss(w: Array, b: float) -> float:
        moved = X - epsilon * y[:, None] * w / np.linalg.norm(w)
        return float(np.log1p(np.exp(-y * (moved @ w - b))).sum() + w @ w / 2)

    w, b = linear.learned(X, y, epsilon)
    least = loss(w, b)
    rng = np.random.default_rng(2)
    steps = 10.0 ** rng.uniform(-3, 0, 200)
    others = [loss(w + step * rng.standard_normal(5), b + step * rng.standard_normal()) for step in steps]
    assert min(others) > least
    standard = linear.learned(X, y, 0.0)
    assert loss(*standard) > least + 1e-3


def test_an_attack_beyond_what_the_means_allow_leaves_no_weights(examples: tuple[Array, Array]) -> None:
    w, _ = linear.learned(*examples, 3.0)
    assert np.linalg.norm(w) < 1e-3


def test_errors_over_sizes_are_those_of_nested_sets() -> None:
    pair = two_classes(load("digits"), 3, 7)
    found = linear.measured(pair, (0.0, 0.8), (20, 100), seed=5)
    alone = linear.measured(pair, (0.0, 0.8), (100,), seed=5)
    xr.testing.assert_identical(found.isel(size=[1]), alone)
    assert (found.adversarial_error >= found.error).all()
    np.testing.assert_array_equal(found.adversarial_error.sel(epsilon=0.0), found.error.sel(epsilon=0.0))
    np.testing.assert_array_equal(found.standard.sel(epsilon=0.0), found.error.sel(epsilon=0.0))


# --- deep nets ---


SMALL = Deep(
    "digits", "digits", (0.0, 0.1, 0.2), (60, 120), (2, 1), (1, 1), attack_steps=2, attacked=40,
    changes={"model": "conv_small", "width": 1, "optimiser": "adam", "learning_rate": 1e-3, "batch_size": 20},
)  # fmt: skip


def test_a_net_learns_the_first_images_of_its_order_and_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Images] = []

    def watched(recipe: Recipe, images: Images, *rest: Any, **options: Any) -> Trained:
        seen.append(images)
        return kept_training(recipe, images, *rest, **options)

    monkeypatch.setattr("studies.more_data.learn.kept_training", watched)
    with one_thread():
        found = [learn.of_net(SMALL, 0.1, size, 3, tmp_path) for size in SMALL.sizes]
        again = learn.of_net(SMALL, 0.1, 60, 3, tmp_path)
    xr.testing.assert_equal(found[0], again)
    few, more = (one.train_images for one in seen[:2])
    assert (len(few), len(more)) == (70, 130)
    np.testing.assert_array_equal(more[:70], few)
    assert found[0].epsilon.values.tolist() == [0.1]
    recipe = learn.recipe_of(SMALL, 0.1, 60, 3)
    assert (recipe.epochs, recipe.method.name, recipe.threat) == (2, "at", ("linf", 0.1))
    assert learn.recipe_of(SMALL, 0.0, 120, 3).method.name == "standard"


def test_what_an_attack_turns_is_worst_cased() -> None:
    images = load("digits")
    x, y = learn.attacked_images(images, 60)
    network = models.build("linear", 10, (1, 8, 8), generator=torch.Generator().manual_seed(0))
    found = attacked.measured(network, x, y, (0.05, 0.2))
    wrong, turned = found.wrong.values.astype(bool), found.turned.values.astype(bool)
    assert (turned | ~wrong).all()
    assert (turned[1] | ~turned[0]).all()
    assert wrong.mean() < turned[1].mean()
    with torch.no_grad():
        np.testing.assert_array_equal(wrong, (network(x).argmax(1) != y).numpy())


# --- theory ---


def test_both_ends_are_errors_of_the_mixture() -> None:
    epsilon = np.linspace(0, 2, 5)
    for R, gap in zip((0.0, 1.0), known_ends(epsilon), strict=True):
        expected = [adversarial_error(R, 0.0, MIXTURE, e) - classification_error(R, 0.0, MIXTURE) for e in epsilon]
        np.testing.assert_allclose(gap, expected, atol=1e-15)
    without, everything = known_ends(np.array([0.9, 1.0, 1.1]))
    assert everything[0] < without[0]
    assert everything[1] == pytest.approx(without[1], abs=1e-15)
    assert everything[2] > without[2]


# --- what is claimed ---


def found(plans: dict[str, Linear | Deep]) -> xr.Dataset:
    """Return what might have been measured, of which every claim holds."""
    rows = []
    for world, plan in plans.items():
        sizes = np.arange(len(plan.sizes))
        for epsilon in plan.epsilons:
            E = 0.3 - 0.02 * sizes
            closes = isinstance(plan, Linear) or plan.images == "mnist"
            grows = -0.1 if closes else 0.05
            cost = 0.0 if closes else 0.05 * sizes
            S = E + cost + (epsilon > 0) * (0.4 + grows * sizes)
            standard = E + (epsilon > 0) * (0.4 + 0.02 * sizes)
            runs = 1e-3 * np.array([-1, 1])
            errors = [(("size", "run"), one[:, None] + runs) for one in (E + cost * (epsilon > 0), S, standard)]
            below = np.array([0.1, 0.6])
            rows.append(_row(world, plan, epsilon, 2000, below, errors=errors))
    data = xr.concat(rows, "row", join="outer", coords="all", data_vars="all").merge(theory_of())
    return _described(with_gaps(data)).assign_attrs(note="")


PLANS = plan_of(["mnist", "cifar10"])
PLANS = {name: replace(plan, sizes=plan.sizes[:4]) for name, plan in PLANS.items()}


@pytest.fixture(scope="module")
def measured() -> xr.Dataset:
    return found(PLANS)


def test_claims_hold_of_what_they_say(measured: xr.Dataset) -> None:
    made = list(claims(measured, PLANS))
    assert [claim.statement for claim in made if not claim.holds] == []
    assert len(made) == 2 + 4 + 2 + 2 + 2
    assert all(claim.rival_measured for claim in made)
    lines = table(measured).splitlines()
    assert "MNIST, 3 against 7" in "".join(lines)
    assert max(map(len, lines)) <= 125


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        ({"standard_adversarial_error": "adversarial_error"}, "is smaller with"),  # standard training closes it, too
        ({"adversarial_error": "standard_adversarial_error"}, "is smaller with"),
        ({"bound": "bound_at_larger"}, "no adversarial error that was measured is below"),
    ],
)
def test_claims_fail_where_they_are_false(measured: xr.Dataset, change: dict[str, str], failing: str) -> None:
    data = measured.assign({name: measured[other] for name, other in change.items()})
    data = with_gaps(
        data[["error", "adversarial_error", "standard_adversarial_error", "bound", "bound_at_larger", "examples"]]
    )
    failed = [claim.statement for claim in claims(data.merge(theory_of()), PLANS) if not claim.holds]
    assert any(failing in statement for statement in failed)


def test_where_more_data_closes_every_gap_the_claims_on_cifar10_fail(measured: xr.Dataset) -> None:
    data = measured.copy(deep=True)
    own = (data.world == "cifar10 deep").values
    mnist = (data.world == "mnist deep").values
    for name in ("gap", "gap_se", "cost", "cost_se"):
        data[name].values[own] = data[name].values[mnist]
    failed = [claim.statement for claim in claims(data, PLANS) if not claim.holds]
    assert len(failed) == 2
    assert all(statement.startswith("CIFAR-10, deep") for statement in failed)


def test_standard_errors_of_a_gap() -> None:
    """A share of 0.2 of 100 images, and two runs that differ by 0.02; one net alone has that of the images."""
    plan = replace(PLANS["mnist linear"], epsilons=(0.0, 1.0), sizes=(10, 20))
    E = np.full((2, 2), 0.1)
    S = E + np.array([[0.19, 0.21], [0.2, np.nan]])
    errors = [(("size", "run"), one) for one in (E, E, E)], [(("size", "run"), one) for one in (E, S, S)]
    rows = [_row("w", plan, e, 100, np.zeros(2), errors=one) for e, one in zip((0.0, 1.0), errors, strict=True)]
    data = with_gaps(xr.concat(rows, "row", join="outer", coords="all", data_vars="all"))
    np.testing.assert_allclose(data.gap[1], [0.2, 0.2])
    np.testing.assert_allclose(data.gap_se[1], [np.sqrt(0.0016 + 0.0001), 0.04])
    np.testing.assert_allclose(data.gap_se[0], 0.0)


def test_figures_have_a_panel_for_each_world(measured: xr.Dataset) -> None:
    drawn = figures(measured)
    assert {name: len(figure.axes) for name, figure in drawn.items()} == {"gap": 6, "errors": 4, "cost": 4}


# --- what no classifier can avoid ---


def test_bounds_and_their_claim() -> None:
    X = np.array([[[0.0]], [[1.0]], [[3.0]]])
    below, larger = bounds(X, [True, False, False], [0.3, 0.5], "linf")
    np.testing.assert_allclose(below, [0, 1 / 3])
    np.testing.assert_allclose(larger, [1 / 3, 1 / 3])
    assert TOO_LARGE * 0.3 * 2 >= 1
    names = ["0.3", "0.5"]
    held = none_below(np.array([0.1, 0.4]), below, larger, names)
    assert held.holds
    assert "+0.067, 0.5" in held.measured
    assert not none_below(np.array([0.1, 0.3]), below, larger, names).holds  # below the bound
    assert not none_below(np.array([0.4, 0.4]), below, larger, names).holds  # the rival passes, too
