"""The study of confidence as a defence: a short run on the digits, places among embedded points, and claims that can fail."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from odeflow import load as load_result
from odeflow import save
from studies import STUDIES
from studies.hcnn import linear, plan, study, two_layers
from studies.hcnn.claims import claims
from studies.hcnn.found import errors_of, table
from studies.hcnn.measure import ATTACKS, PLACES, STATIC, ranks
from studies.hcnn.plan import EMBEDDINGS, LEVELS, NETS, PUBLISHED, Behind, Setting, setting_of
from tests.odeflow.figure_checks import outside, small

if TYPE_CHECKING:
    from collections.abc import Iterable

    from studies.registry import Claim

_REAL = setting_of


def _short(dataset: str, *, quick: bool) -> Setting:
    """Return the quick setting with nets that have hardly learned, and little effort."""
    setting = _REAL(dataset, quick=quick)
    effort = replace(
        setting.effort, images=30, few=20, steps=5, few_steps=6, carlini=2, carlini_steps=20, carlini_searches=1, ranked=20, reduced=10,
        inner=5, outer=3, surrogate=3, many=20,
    )  # fmt: skip
    behind = tuple(Behind("at", name, 0.05, 0.1, 8) for name in EMBEDDINGS)
    return replace(setting, effort=effort, behind=behind, epochs=12, natural_epochs=8, methods=("standard",))


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return what a short run leaves, and a folder with it."""
    folder = tmp_path_factory.mktemp("hcnn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "setting_of", _short)
        patch.setattr(linear, "QUICK", linear.Size(40, 5.0, 3, 60))
        patch.setattr(two_layers, "QUICK", replace(two_layers.QUICK, N=20, runs=2, tests=20, line=3))
        patch.setattr(two_layers, "CASES", two_layers.CASES[:1])
        outcome = STUDIES["hcnn"].run(quick=True, folder=folder / "hcnn_quick")
    data = load_result(save(outcome.data, folder / "hcnn.nc"))
    return SimpleNamespace(outcome=outcome, folder=folder, data=data)


@pytest.mark.slow
def test_a_short_run_has_all_tables_and_figures(short: SimpleNamespace) -> None:
    data = short.data
    assert data.net.values.tolist() == list(NETS)
    assert data.attrs["note"]
    for variable in data.variables.values():
        assert variable.attrs.get("long_name")
        assert variable.attrs.get("units")
    assert (data.awpr_lower <= data.awpr).all()
    assert (data.awpr <= data.awpr_without_rejection).all()
    assert (data.recall.diff("level_curve") <= 0).all()
    assert (data.largest.diff("radius") >= 0).all()
    rows = [data.isel(row=place) for place in range(data.sizes["row"])]
    assert [str(row.row_embedding.item()) for row in rows if float(row.row_xi)] == list(EMBEDDINGS)
    for row in rows:
        known = ATTACKS if float(row.row_xi) else STATIC
        np.testing.assert_array_equal(np.isfinite(row.composed_error), [name in known for name in ATTACKS])
    text = short.outcome.table
    for word in ("table 1", "tables 2 and 3", "table 4", "Carlini and Wagner", "AT, MCN xi 0.05, eta 0.1"):
        assert word in text
    assert set(short.outcome.figure) == {"rejection", "confidence", "embedded", "points", "linear", "two_layers"}
    for figure in short.outcome.figure.values():
        assert small(figure) == {}
        assert outside(figure) == []


@pytest.mark.slow
def test_what_was_made_is_kept(short: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "composed", None)
    monkeypatch.setattr(study, "setting_of", _short)
    names = {path.name.rpartition("_")[0].rpartition("_")[0] for path in (short.folder / "hcnn_quick").glob("*.nc")}
    assert {"at_few", "natural_separated", "at_ranks_0.06", "at_shown", "linear", "two_layers"} <= names


# --- places among the embedded points ---


class Pocket(nn.Module):
    """Three classes over one pixel: 0 below 0.5, above it 1, with less confidence; 2 nowhere."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height

    def forward(self, x: Tensor) -> Tensor:
        z = 40 * (x.flatten(1) - 0.5)
        low = nn.functional.softplus(-z)
        high = self.height * torch.tanh(nn.functional.relu(z))
        return torch.cat([low, high, torch.full_like(z, -9.0)], 1)


@pytest.mark.parametrize(("height", "first"), [(0.8, True), (30.0, False)])
def test_the_true_class_is_first_where_its_point_is_the_most_confident(height: float, *, first: bool) -> None:
    """The attack crosses to the class 1; within the radius the class 0 is more confident, or less, as the pocket is high."""
    x, y = torch.full((4, 1, 1, 1), 0.45), torch.zeros(4, dtype=torch.int64)
    found = ranks(Pocket(height), x, y, 0.1, steps=20, inner=40, reduced=2)
    assert int(found.changes) == 4  # towards the class 1; towards 2 nothing can be done
    changed = found.place.values[found.changed.values == 1]
    assert {PLACES[place] for place in changed} == {"first" if first else "second"}
    assert found.sizes["pair"] == 4 + 2


def test_a_net_that_is_never_right_has_nothing_to_be_looked_at() -> None:
    x, y = torch.full((3, 1, 1, 1), 0.45), torch.full((3,), 2)
    found = ranks(Pocket(1.0), x, y, 0.1, steps=2, inner=2, reduced=2)
    assert (found.sizes["pair"], int(found.changes), int(found.reductions)) == (0, 0, 0)


# --- theory ---


def test_the_theory_of_linear_nets_has_one_curve_for_all_radii_of_the_embedding() -> None:
    theory = linear.theory(linear.QUICK, np.linspace(0.5, 0.99, 200)).transpose("xi", "eta", "level")
    for eta in range(theory.sizes["eta"]):
        plain = theory.isel(xi=0, eta=eta)
        order = np.argsort(plain.recall_of_correct.values)
        for i in range(1, theory.sizes["xi"]):
            one = theory.isel(xi=i, eta=eta)
            inside = one.recall_of_correct.values >= plain.recall_of_correct.values.min()
            expected = np.interp(one.recall_of_correct, plain.recall_of_correct.values[order], plain.awpr.values[order])
            np.testing.assert_allclose(one.awpr.values[inside], expected[inside], atol=2e-3)


@pytest.mark.slow
def test_search_and_ascent_find_the_same_of_a_net_of_one_unit() -> None:
    case = two_layers.CASES[0]
    generator = torch.Generator().manual_seed(0)
    nets, data = two_layers._trained(case, two_layers.Size(40, 1, 0, 0, 0.1), generator)
    xi, tau = data.draw(300, 40, generator)
    by_ascent = two_layers._by_ascent(nets, 0, xi, tau, 1.5, 0.5, generator)
    w = nets.w[0, 0]
    moves = torch.linspace(-1, 1, 201, dtype=xi.dtype) * w.norm()
    net = two_layers.OfOutput(nets, 0)
    fields = (xi @ w)[:, None]
    ends = 1.5 * w.norm() * torch.tensor([[-1.0], [1.0]], dtype=xi.dtype)
    wrong = torch.stack([tau * two_layers._mid_range(net, fields + 0.5 * move, ends) <= 0 for move in moves])
    assert by_ascent[0] == pytest.approx(float(wrong[100].double().mean()))
    assert by_ascent[1] == pytest.approx(float(wrong.any(0).double().mean()))


# --- claims ---


def _by_start(found: Iterable[Claim], start: str) -> Claim:
    (one,) = (claim for claim in found if claim.statement.startswith(start))
    return one


@pytest.mark.slow
def test_claims_fail_where_nets_are_exchanged(short: SimpleNamespace) -> None:
    data = short.data
    starts = ("within delta", "and the natural net's", "rejection at 0.9 at least halves")
    other = data.assign(
        {
            name: one.isel(net=[1, 0]).assign_coords(net=data.net) if "net" in one.dims else one
            for name, one in data.items()
        }
    )
    plain, exchanged = list(claims(data)), list(claims(other))
    for start in starts:
        both = _by_start(plain, start), _by_start(exchanged, start)
        assert both[0].measured.split(";")[0] == both[1].rival_measured
        assert both[0].rival_measured == both[1].measured.split(";")[0]


@pytest.mark.slow
def test_claims_of_the_places_fail_for_a_random_order(short: SimpleNamespace) -> None:
    places = short.data.places.copy(deep=True)
    at = {"ranked_net": "at", "outcome": "label change"}
    places.loc[at] = np.array([10, 10, 80, 0])
    failed = list(claims(short.data.assign(places=places)))
    assert not _by_start(failed, "AT net: where an attack has changed the class").holds
    places.loc[at] = np.array([40, 50, 10, 0])
    places.loc[{"ranked_net": "at", "outcome": "confidence reduction"}] = np.array([99, 1, 0, 0])
    held = list(claims(short.data.assign(places=places)))
    assert _by_start(held, "AT net: where an attack has changed the class").holds
    assert _by_start(held, "and MCN restores").holds


@pytest.mark.slow
def test_proposition_1_fails_where_a_loss_is_halved(short: SimpleNamespace) -> None:
    tight = float((short.data.small_bound / short.data.small_share.where(short.data.small_share > 0)).min())
    worse = short.data.assign(small_bound=short.data.small_bound / (2 * tight))
    assert not _by_start(claims(worse), "Proposition 1").holds


@pytest.mark.slow
def test_the_theory_of_linear_nets_fails_without_its_shift(short: SimpleNamespace) -> None:
    flat = short.data.linear_awpr.sel(xi=[0.0] * short.data.sizes["xi"]).assign_coords(xi=short.data.xi)
    wrong = short.data.assign(linear_awpr=flat, linear_recall=1 - short.data.linear_recall)
    assert not _by_start(claims(wrong), "linear nets that learned").holds


def test_errors_are_over_attacks_and_acceptance() -> None:
    row = xr.Dataset(
        {
            "composed_wrong": (("attack", "image_number"), [[0, 1, 0, -1], [1, 0, 0, -1]]),
            "composed_confidence": (("attack", "image_number"), [[0.9, 0.95, 0.9, np.nan], [0.6, 0.9, 0.9, np.nan]]),
            "composed_clean_wrong": ("image_number", [0, 0, 1, -1]),
            "composed_clean_confidence": ("image_number", [0.9, 0.9, 0.7, np.nan]),
        },
        {"attack": list(STATIC), "row_images": 3},
    )
    assert errors_of(row, STATIC).tolist() == [True, True, True]
    assert errors_of(row, STATIC[:1]).tolist() == [False, True, True]
    assert errors_of(row, STATIC, level=0.9).tolist() == [False, True, False]


def test_the_plan_has_what_the_paper_has() -> None:
    for dataset in ("digits", "mnist", "cifar10"):
        setting = setting_of(dataset, quick=False)
        assert setting.radii == tuple(sorted(setting.radii))
        assert setting.delta in setting.radii
        assert set(setting.etas) <= set(setting.radii)
        assert any(one.xi + one.eta <= setting.delta + 1e-9 for one in setting.behind)
        assert {(one.net, one.eta) for one in setting.behind} == {
            (one.net, one.eta) for one in setting.rows if not one.xi
        }
        assert len({one.key for one in setting.rows}) == len(setting.rows)
        assert setting.recipe_of("at").method.name == "at"
    assert [sum(places) for places in PUBLISHED.values()] == [352, 469]
    assert LEVELS == (0.9, 0.95, 0.99)
    assert 5 * len(plan.METHODS) == 20


def test_the_table_says_what_it_is_of(short: SimpleNamespace) -> None:
    assert "of 20" in table(short.data)


def test_a_run_needs_a_folder() -> None:
    with pytest.raises(ValueError, match="folder = None is not allowed"):
        study.run("hcnn", quick=True, folder=None)
