"""The card comparison: its quick form runs whole and goes on where it was left; what is left out is said."""

import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

from benchmarks.cuda.card import Work
from benchmarks.cuda.cards import _summary, comparison
from benchmarks.cuda.cards._records import packed, restored, unpacked, written
from benchmarks.cuda.cards.comparison import CARD, COST, Unit
from deepcheck.data import Images, load
from deepcheck.training import Recipe
from studies.common import nets
from studies.common.images import place, placed
from studies.common.parallel import one_thread


def _work(out: Path, seconds: float = 36_000.0, *, quick: bool = True, earlier: dict[str, Any] | None = None) -> Work:
    out.mkdir(exist_ok=True)
    return Work(CARD, torch.device("cpu"), seconds, out, quick=quick, earlier=earlier)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return the folder and the file of a quick run."""
    out = tmp_path_factory.mktemp("whole")
    with one_thread():
        CARD.run(_work(out))
    return out, json.loads((out / "comparison.json").read_text())


@pytest.mark.slow
def test_the_quick_form_has_every_measure_with_its_error_over_seeds(whole: tuple[Path, dict[str, Any]]) -> None:
    out, content = whole
    found = content["found"]
    assert content["complete"] is True
    assert content["notes"] == []
    assert found["headline"]["units"] == "40 of 40"
    assert (out / "comparison.png").stat().st_size > 5000
    assert list(found["summary"]) == ["digits 3 7", "digits 4 9"]
    for of_pair in found["summary"].values():
        assert set(of_pair) == {"deep_on_mnist", "confidence", "collapse"}
        cases = of_pair["deep_on_mnist"]["cases"]
        assert list(cases) == ["linear, linf 0", "linear, linf 0.1", "conv_small, linf 0", "conv_small, linf 0.1"]
        for case in cases.values():
            assert case["seeds"] == 2
            assert case["radius"] == 0.1
            for name in ("error", "measured", "locally_linear", "R_eff", "coherence", "nonlinearity", "miss"):
                assert math.isfinite(case[name][0]), name
            assert case["error"][0] <= case["measured"][0] <= case["curve"][-1][0]
        assert cases["linear, linf 0"]["coherence"][0] == pytest.approx(1)
        assert [net["seeds"] for net in of_pair["confidence"]["nets"].values()] == [2] * 5
        assert of_pair["collapse"]["kinds"]["l2, ramp 0"]["seeds"] == 2
        assert set(of_pair["collapse"]["linear"]["l2"]["critical_in_theory"]) == {"eta -> 0", "with noise"}
        for study, one in of_pair.items():
            assert one["claims"], study
    # seeds are seeds: the nets of a pair differ
    first, second = (
        found["units"][f"digits 4 9/deep_on_mnist/standard/seed {seed}"]["data"][0]["data"]["b_eff"] for seed in (0, 1)
    )
    assert first != second


def close(a: Any, b: Any) -> bool:
    """Return whether what JSON has of two units is the same, numbers but for the rounding of single precision."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(close(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(close, a, b))
    if isinstance(a, str) and a != b:
        return np.allclose(np.array(a.split(), float), np.array(b.split(), float), 1e-5, 1e-6, equal_nan=True)
    return bool(a == b)


@pytest.mark.slow
def test_what_is_there_is_not_done_again_and_what_is_missing_comes_out_the_same(
    whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = whole[1]["found"]
    lost = ["digits 3 7/confidence/conv, AT/seed 1", "digits 4 9/deep_on_mnist/linf 0.1/seed 0"]
    stale = "digits 3 7/collapse/linear, l2/seed 0"  # of other settings
    earlier = json.loads(json.dumps(found))
    for name in lost:
        del earlier["units"][name]
    earlier["units"][stale]["settings"] = "00000000"
    done: list[str] = []
    real: Callable[..., bool] = comparison._do

    def counted(work: Work, unit: Unit, there: dict[str, Any]) -> bool:
        done.append(unit.name)
        return real(work, unit, there)

    monkeypatch.setattr(comparison, "_do", counted)
    with one_thread():
        CARD.run(_work(tmp_path, earlier=earlier))
    again = json.loads((tmp_path / "comparison.json").read_text())
    assert sorted(done) == sorted([*lost, stale])
    assert again["complete"] is True
    for name, unit in found["units"].items():
        assert close(again["found"]["units"][name]["data"], unit["data"]), name
    assert again["found"]["table"] == found["table"]


def test_what_does_not_fit_into_the_time_is_left_out_and_said(tmp_path: Path) -> None:
    CARD.run(_work(tmp_path, seconds=0.0))
    content = json.loads((tmp_path / "comparison.json").read_text())
    assert content["complete"] is False
    (note,) = content["notes"]
    assert note.startswith("left out for want of time or memory: 40 of 40 units: digits 3 7 deep_on_mnist (5), ")
    assert content["found"]["headline"]["units"] == "0 of 40"
    assert not (tmp_path / "comparison.png").exists()


def test_a_unit_costs_what_its_kind_took_and_a_cheaper_one_may_still_fit(tmp_path: Path) -> None:
    images = load("digits")
    pair = comparison._quick_pair(("3", "7"), images)
    ran: list[str] = []

    def unit(what: str) -> Unit:
        def measured() -> list[xr.Dataset]:
            ran.append(what)
            return [xr.Dataset({"x": 1.0})]

        return Unit(pair, "confidence", what, 1, "x", measured)

    done = {"a": {"kind": "digits/confidence/dear", "seconds": 100.0, "settings": "x", "data": []}}
    assert comparison._cost(unit("dear"), done, quick=False) == 100
    assert comparison._cost(unit("new"), done, quick=False) == COST["confidence"]
    work = _work(tmp_path, seconds=50)
    assert not comparison._do(work, unit("dear"), done)
    assert comparison._do(work, unit("new"), done)
    assert ran == ["new"]
    assert comparison._is_done(unit("new"), done)

    def full() -> list[xr.Dataset]:
        raise MemoryError("batch_size = 500 needs more memory than the GPU has: try 250")

    assert not comparison._do(work, replace(unit("large"), run=full), done)
    assert work.notes == [
        "digits 3 7/confidence/large/seed 1: batch_size = 500 needs more memory than the GPU has: try 250"
    ]


def test_units_of_another_machine_are_the_same() -> None:
    here = comparison._quick_pair(("3", "7"), load("digits"))
    there = replace(here, images=replace(here.images, source="/elsewhere"))
    assert comparison._digest(here, here.deep) == comparison._digest(there, there.deep)
    longer = replace(here.deep, steps=4)
    assert comparison._digest(here, here.deep) != comparison._digest(here, longer)


class _SeenError(Exception):
    pass


def test_the_full_form_trains_nets_of_full_width_on_all_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every net of the full form has a recipe that its images suffice for; CIFAR-10 comes first, seed by seed."""
    labels = np.repeat(np.arange(10), 2).astype(np.int64)
    names = load("digits").class_names, ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")  # fmt: skip
    sets = {
        name: Images(
            name, np.zeros((20, *shape), np.uint8), labels, np.zeros((20, *shape), np.uint8), labels, classes, ""
        )
        for name, shape, classes in (("mnist", (1, 28, 28), names[0]), ("cifar10", (3, 32, 32), names[1]))
    }
    monkeypatch.setattr(Work, "images", lambda _, name: sets[name])
    recipes: list[tuple[Recipe, str]] = []

    def seen(recipe: Recipe, images: Images, **options: Any) -> None:
        assert options["device"] == "cpu"
        recipes.append((recipe, images.name))
        raise _SeenError

    monkeypatch.setattr(nets, "train", seen)
    monkeypatch.setattr(seen, "__module__", "deepcheck.training.loop", raising=False)
    work = _work(tmp_path, quick=False)
    monkeypatch.setattr(Work, "folder", tmp_path)
    monkeypatch.setattr(comparison.Theory, "begin", lambda _: None)
    pairs = comparison.pairs_of(work)
    with ThreadPoolExecutor(1) as pool:
        units = list(comparison.units_of(work, pairs, pool))
    assert len({unit.name for unit in units}) == len(units)
    datasets = [unit.pair.subject.dataset for unit in units]
    assert datasets == sorted(datasets)
    first = [unit for unit in units if unit.pair.subject.dataset == "cifar10"]
    assert [unit.seed for unit in first] == sorted(unit.seed for unit in first)
    assert [unit.what for unit in first[:5]] == ["standard", "linf 0.032", "linf 0.008", "l2 0.5", "linear"]
    with placed(torch.device("cpu")):
        for unit in units:
            if "linear" not in unit.what and unit.seed == 4:
                with pytest.raises(_SeenError):
                    unit.run()
    assert len(recipes) == 2 * (4 + 3 + 9) + 3 * (3 + 3 + 9)
    for recipe, name in recipes:
        assert recipe.model == "resnet_ccat"
        assert recipe.width is None
        assert recipe.precision == "bfloat16"
        assert recipe.batch_size + recipe.validation < 7000, name
    attacked = {(getattr(one.method, "epsilon", 0), getattr(one.method, "norm", "")) for one, _ in recipes}
    assert {(0.032, "linf"), (0.008, "linf"), (0.5, "l2"), (0.1, "linf"), (1.0, "l2"), (0.016, "linf")} <= attacked


def test_nets_are_where_the_card_says() -> None:
    with placed(torch.device("meta")):
        assert place().type == "meta"
    assert place().type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_records_are_restored_as_they_were() -> None:
    data = xr.Dataset(
        {"x": (("a", "b"), [[1.5, np.nan], [np.inf, -2e-9]]), "n": ("a", [3, 4]), "alone": 0.25, "yes": ("a", [True, False])},
        {"a": ["one, of two", "two"], "case": "linear, linf 0", "run": 2},
    )  # fmt: skip
    again = restored(json.loads(json.dumps(written(data), allow_nan=False)))
    xr.testing.assert_equal(again, data)
    assert again.run.item() == 2
    assert again.n.dtype == np.int64
    values = np.random.default_rng(1).standard_normal(10)
    np.testing.assert_allclose(unpacked(packed(values)), values, rtol=1e-6)


def test_means_and_standard_errors() -> None:
    assert _summary.mean_and_error([1.0, 3.0, np.nan]) == [2.0, 1.0]  # s.d. 1.414 over the root of 2
    assert _summary.mean_and_error([1.0, np.nan]) == [1.0, None]
    assert _summary.mean_and_error([np.nan]) == [None, None]


@pytest.mark.slow
def test_one_seed_has_no_errors_and_claims_nothing(whole: tuple[Path, dict[str, Any]]) -> None:
    units = whole[1]["found"]["units"]
    pair = comparison._quick_pair(("3", "7"), load("digits"))
    parts: dict[str, list[Any]] = {}
    for name, unit in units.items():
        of_pair, study, what, seed = name.split("/")
        if of_pair == pair.name and seed == "seed 0":
            parts.setdefault(study, []).append((what, 0, [restored(one) for one in unit["data"]]))

    def summarised(**some: Any) -> dict[str, Any]:
        return _summary.summarised("digits", parts | some, pair.deep, pair.confidence, pair.collapse, quick=True)

    found = summarised()
    assert all("claims" not in one for one in found.values())
    trained = found["deep_on_mnist"]["cases"]["conv_small, linf 0.1"]
    assert trained["measured"][1] is None
    # standard nets alone have nothing to be set beside, nor has a pair without its linear classifiers
    for lacking in ("linf 0.1", "linear"):
        assert "deep_on_mnist" not in summarised(
            deep_on_mnist=[one for one in parts["deep_on_mnist"] if one[0] != lacking]
        )
    # a seed that lacks a size has no critical epsilon, and one that lacks a net no place among the margins
    assert "collapse" not in summarised(collapse=parts["collapse"][1:])
    assert "confidence" not in summarised(confidence=parts["confidence"][1:])
    drawn = _summary.figure({str(k): found for k in range(5)})
    assert drawn is not None
    assert len(drawn.axes) == 6
    assert _summary.figure({"none": {}}) is None
    assert max(map(len, _summary.table({"one": found}))) < 400
