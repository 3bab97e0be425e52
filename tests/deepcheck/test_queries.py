"""Queries are counted, kept in records and files, and drawn: the share of the examples that is turned within so many."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.attacks import SPSA, ZOO, LocalSearch, WithinBudget
from deepcheck.evaluation import (
    AttackRecord,
    Planned,
    assemble,
    checked,
    evaluate,
    joined,
    queries_needed,
    success_over_queries,
)
from deepcheck.plot_queries import plot_queries
from odeflow.provenance import load, save
from tests.deepcheck.black_box_cases import Asked, Linear, Smooth, classified, generator
from tests.deepcheck.evaluation_cases import SUFFIXES, random_attack, random_records


def counted(seed: int, n: int = 30, epsilons: tuple[float, ...] = (0.1,), restarts: int = 3) -> AttackRecord:
    rng = np.random.default_rng(seed)
    one = random_attack(rng, n, epsilons, restarts)
    queries = np.where(one.prediction < 0, -1, rng.integers(0, 50, one.prediction.shape))
    return AttackRecord(**{**vars(one), "queries": queries})


def some(n: int = 30) -> xr.Dataset:
    return random_records(3, n, {"a": counted(0, n), "b": counted(1, n, (0.1, 0.2), 1)})


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(SPSA(steps=6, samples=5, restarts=2), id="spsa"),
        pytest.param(WithinBudget(ZOO(steps=8, bisections=2, coordinates=5)), id="zoo"),
        pytest.param(WithinBudget(LocalSearch(rounds=3, seeds=0.5)), id="local_search"),
    ],
)
@pytest.mark.parametrize("batch_size", [100, 7])
def test_what_is_counted_is_what_the_model_was_asked(attack: Any, batch_size: int) -> None:
    """Of examples that nothing turns; one evaluation more is the look at what the model returns."""
    model, images = Linear(), torch.rand(9, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    with torch.no_grad():
        model.b[0] += 1000.0
    labels = torch.zeros(9, dtype=torch.int64)
    asked = Asked(model)
    found = attack(asked, images, labels, epsilon=2.0, generator=generator(), batch_size=batch_size)
    assert int(found.queries.sum()) == sum(asked.sizes) - 1
    assert len(found.queries.unique()) == 1 or isinstance(attack, WithinBudget)


def test_a_probe_that_crosses_the_boundary_does_not_end_the_count() -> None:
    """The points of a difference are outside of the ball: here they are misclassified, and the ball has none that is."""
    images = torch.full((3, 4), 0.5, dtype=torch.float64)

    def model(x: Tensor) -> Tensor:
        far = (x - 0.5).abs().amax(1) - 0.15
        return torch.stack([torch.zeros_like(far), far], 1)

    attack = SPSA(steps=5, samples=4, difference=0.2)
    found = attack(model, images, torch.zeros(3, dtype=torch.int64), epsilon=0.1, generator=generator())
    assert (found.prediction == 0).all()
    assert (found.queries == 1 + 5 * (2 * 4 + 1)).all()


def test_the_count_ends_where_the_goal_is_reached() -> None:
    """As many as an attack of so few steps that it is just not reached asks, and one step more."""
    model, images = Smooth(), torch.rand(40, 2, 3, 4, generator=generator(7), dtype=torch.float64)
    labels = classified(model, images)
    attack = SPSA(steps=20, samples=6)
    found = attack(model, images, labels, epsilon=0.2, generator=generator())
    turned = found.prediction[0] != labels
    assert int(turned.sum()) > 5
    steps = (found.queries[0] - 1) / (2 * 6 + 1)
    assert torch.equal(steps, steps.round())
    assert len(steps[turned].unique()) > 3
    for step in range(1, 5):
        fewer = SPSA(steps=step, samples=6)(model, images, labels, epsilon=0.2, generator=generator())
        assert torch.equal(fewer.prediction[0] != labels, turned & (steps <= step))


def test_queries_needed_is_the_sum_up_to_the_first_success() -> None:
    rng = np.random.default_rng(0)
    success, queries = rng.random((4, 200)) < 0.3, rng.integers(0, 100, (4, 200))
    needed = queries_needed(success, queries)
    for n in range(200):
        total, expected = 0, np.inf
        for restart in range(4):
            total += queries[restart, n]
            if success[restart, n]:
                expected = total
                break
        assert needed[n] == expected
    queries[1, 5], success[:, 5] = -1, [False, False, True, False]
    assert np.isnan(queries_needed(success, queries)[5])
    assert queries_needed(np.zeros((0, 3)), np.zeros((0, 3))).tolist() == [np.inf] * 3


def test_the_share_of_the_right_examples_that_is_turned_by_hand() -> None:
    records = some()
    curve = success_over_queries(records, epsilon=0.1)
    assert curve.dims == ("attack", "queries")
    right = (records.clean_prediction == records.label).values
    assert int(curve.examples) == right.sum() < 30
    for a, name in enumerate(("a", "b")):
        for q in curve["queries"].values:
            turned = 0
            for n in np.flatnonzero(right):
                total = 0
                for restart in range(3):
                    if records["queries"].values[a, 0, restart, n] < 0:
                        continue
                    total += records["queries"].values[a, 0, restart, n]
                    if records.success.values[a, 0, restart, n] == 1:
                        # a hole before the first success leaves the number unknown
                        holes = records["queries"].values[a, 0, :restart, n] < 0
                        turned += total <= q and not holes.any()
                        break
            assert curve.sel(attack=name, queries=q) == pytest.approx(turned / right.sum())
    assert (curve.diff("queries") >= 0).all()
    assert "success_over_queries" in str(curve.attrs)
    few = success_over_queries(records, epsilon=0.1, attacks="b", queries=[0, 20])
    np.testing.assert_array_equal(few.values[0], curve.sel(attack="b", queries=slice(0, 20)).values[[0, -1]])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_keep_queries_and_those_without_are_read(suffix: str, tmp_path: Path) -> None:
    for k, records in enumerate((some(), random_records(0, 5))):
        save(records, tmp_path / f"records{k}{suffix}")
        again = checked(load(tmp_path / f"records{k}{suffix}"))
        xr.testing.assert_identical(again, checked(records))
        assert ("queries" in again) == (k == 0)
        assert again.attrs["schema"] == "2"


def test_joined_records_keep_the_queries_of_those_that_have_them() -> None:
    rng = np.random.default_rng(9)
    options: dict[str, Any] = {"label": [0, 1, 2], "clean_prediction": [0, 1, 2], "clean_confidence": [0.5, 0.5, 0.5]}
    with_queries = assemble({"a": counted(0, 3)}, **options)
    without = assemble({"b": random_attack(rng, 3, (0.1, 0.3), 2)}, **options)
    whole = joined([with_queries, without])
    np.testing.assert_array_equal(
        whole["queries"].sel(attack="a", epsilon=0.1), with_queries["queries"].sel(attack="a", epsilon=0.1)
    )
    assert (whole["queries"].sel(attack="b") == -1).all()
    assert success_over_queries(whole, epsilon=0.1).attack.values.tolist() == ["a"]
    with pytest.raises(ValueError, match=re.escape("attacks = ['b'] were not run at epsilon = 0.1, or their queries")):
        success_over_queries(whole, epsilon=0.1, attacks=["a", "b"])


def test_an_evaluation_records_them_and_they_are_drawn() -> None:
    model, images = Smooth(), torch.rand(40, 2, 3, 4, generator=generator(7))
    labels = classified(model, images)
    labels[:4] = (labels[:4] + 1) % 5
    planned = {
        "spsa": Planned(SPSA(steps=10, samples=4, restarts=2), (0.1, 0.2)),
        "local": Planned(WithinBudget(LocalSearch(rounds=5)), (6.0,)),
    }
    records = evaluate(nn.Sequential(model), (images, labels), planned)
    found = SPSA(steps=10, samples=4, restarts=2)
    assert (records["queries"].sel(attack="spsa", epsilon=[0.1, 0.2]) >= 0).all()
    assert (records["queries"].sel(attack="spsa", epsilon=6.0) == -1).all()
    curve = success_over_queries(records, epsilon=0.2)
    assert curve.attack.values.tolist() == ["spsa"]
    assert int(curve.examples) == 36
    last = float(curve.isel(queries=-1, attack=0))
    prediction = records.prediction.sel(attack="spsa", epsilon=0.2).values
    assert last == pytest.approx((prediction[:, 4:] != labels[4:].numpy()).any(0).mean())
    assert last > 0
    assert int(curve["queries"].max()) <= found.restarts * (1 + 10 * 9)
    (ax,) = plot_queries(curve).axes
    (line,) = ax.lines
    np.testing.assert_array_equal(line.get_xdata(), curve["queries"].values[1:])
    np.testing.assert_array_equal(line.get_ydata(), curve.values[0, 1:])
    assert line.get_drawstyle() == "steps-post"
    assert ax.get_xscale() == "log"
    assert ax.get_legend_handles_labels()[1] == ["spsa"]
    assert json.loads(curve.attrs["records"])["schema"] == "2"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "epsilon = None is not allowed: one of [0.1, 0.2] is, as there are several"),
        ({"epsilon": 0.3}, "epsilon = 0.3 is not allowed: one of [0.1, 0.2] is"),
        ({"epsilon": 0.1, "attacks": "c"}, "attack = 'c' is unknown"),
        ({"epsilon": 0.1, "attacks": []}, "attacks = [] were not run"),
        ({"epsilon": 0.2, "attacks": "a"}, "attacks = ['a'] were not run at epsilon = 0.2"),
        ({"epsilon": 0.1, "queries": [3, 3]}, "queries = [3, 3] are not allowed: rising whole numbers >= 0 are"),
        ({"epsilon": 0.1, "queries": [0.5]}, "queries = [0.5] are not allowed"),
        ({"epsilon": 0.1, "queries": [-1, 3]}, "queries = [-1, 3] are not allowed"),
    ],
)
def test_what_is_asked_for_must_be_there(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        success_over_queries(some(), **options)


def test_bad_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="records have no queries: allowed are those of attacks that count them"):
        success_over_queries(random_records(0, 5))
    good = counted(0, 5, (0.1,), 1)
    assert good.queries is not None
    for queries, message in (
        (good.queries[:, :, :3], "queries has the shape (1, 1, 3): allowed is prediction's, (1, 1, 5)"),
        (good.queries - 60, "queries has values in"),
        (good.queries + 0.5, "queries has the type float64: allowed are integers"),
    ):
        with pytest.raises((ValueError, TypeError), match=re.escape(message)):
            AttackRecord(**{**vars(good), "queries": queries})
    records = some()
    broken = records.assign(queries=records["queries"].where(records.prediction >= 0, 3).astype(np.int32))
    with pytest.raises(ValueError, match="queries is not -1 where prediction is -1"):
        checked(broken)
    with pytest.raises(ValueError, match=re.escape("records['queries'] has the dims")):
        checked(records.assign(queries=records["queries"].isel(restart=0, drop=True)))
    with pytest.raises(ValueError, match=r"success has the dims \('example',\): allowed is what"):
        plot_queries(records["label"])
    curve = success_over_queries(records, epsilon=0.1, queries=[0])
    with pytest.raises(ValueError, match="success has no queries above 0"):
        plot_queries(curve)
    with pytest.raises(ValueError, match=re.escape("shapes (3,) and (3,): allowed is (restarts, n) for both")):
        queries_needed([True] * 3, [1] * 3)
