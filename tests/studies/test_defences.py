"""The study of defences: a short run on the digits, what it keeps, and claims that can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck.attacks.gradient.pgd import fgsm, pgd
from deepcheck.data import load
from deepcheck.defences.base import Defence
from deepcheck.defences.gaussian_noise import GaussianNoise
from deepcheck.defences.registry import DEFENCES
from deepcheck.models import build
from deepcheck.training import METHODS, train
from odeflow import load as load_result
from odeflow import save
from studies import STUDIES
from studies.common.sources import sources
from studies.defences import attempts, plan, study
from studies.defences.attempts import attack_of, effort_of, modules_of
from studies.defences.claims import claims
from studies.defences.found import Found, described, summarised, table
from studies.defences.measure import Probability, attacked, clean
from studies.defences.plan import COLUMNS, Setting, cases, setting_of, subjects
from studies.hcnn.plan import EMBEDDINGS
from tests.odeflow.figure_checks import outside, small

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = ("standard", "at", "bit_depth", "gaussian_noise")
_REAL = setting_of


def _short(dataset: str, *, quick: bool) -> Setting:
    """Return the quick setting with nets that have hardly learned."""
    setting = _REAL(dataset, quick=quick)
    efforts = {name: replace(one, images=8) for name, one in setting.efforts.items()}
    return replace(setting, epochs=2, train_images=400, efforts=efforts)


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return what a short run leaves, and a folder with it."""
    folder = tmp_path_factory.mktemp("defences")
    few = [subject for subject in subjects() if subject.name in FEW]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "setting_of", _short)
        patch.setattr(study, "subjects", lambda: few)
        outcome = STUDIES["defences"].run(quick=True, folder=folder / "defences_quick")
    data = load_result(save(outcome.data, folder / "defences.nc"))
    return SimpleNamespace(outcome=outcome, folder=folder, data=data, few=few)


@pytest.mark.slow
def test_a_short_run_has_every_evaluation_of_every_subject(short: SimpleNamespace) -> None:
    data = short.data
    assert data.subject.values.tolist() == list(FEW)
    for name in FEW:
        one = Found(data, name)
        assert set(one.rows.evaluation.values.tolist()) == set(COLUMNS)
        assert one.random == (name == "gaussian_noise")
        shares = [one.about[column].item() for column in COLUMNS]
        assert shares == sorted(shares, reverse=True)
        assert shares[0] <= one.about.accuracy.item()
        assert one.about.gap.item() == pytest.approx(shares[0] - shares[-1])
    for variable in data.variables.values():
        assert variable.attrs.get("long_name")
        assert variable.attrs.get("units")
    assert (data.corrupted.sizes["corruption"], float(data.corrupted.max()) <= 1) == (15, True)
    assert (data.seconds > 0).all()


@pytest.mark.slow
def test_figures_and_table(short: SimpleNamespace) -> None:
    assert set(short.outcome.figure) == {"gap", "corruptions", "pictures_1"}
    figure: Figure
    for name, figure in short.outcome.figure.items():
        assert small(figure) == {}, name
        assert outside(figure) == [], name
    lines = short.outcome.table.splitlines()
    assert lines[0].startswith("Not MNIST, but scikit-learn's digits")
    assert sum("claimed: " in line for line in lines) == len(FEW)
    assert sum("standard: standard suite" in line for line in lines) == len(FEW)
    order = [label.get_text() for label in short.outcome.figure["gap"].axes[0].get_yticklabels()]
    gaps = {Found(short.data, name).title: short.data.gap.sel(subject=name).item() for name in FEW}
    assert [gaps[title] for title in order] == sorted(gaps.values())


@pytest.mark.slow
def test_it_goes_on_where_it_stopped(short: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Mock(wraps=attacked, __module__=attacked.__module__)
    monkeypatch.setattr(attempts, "attacked", counted)
    monkeypatch.setattr(study, "setting_of", _short)
    monkeypatch.setattr(study, "subjects", lambda: short.few)
    monkeypatch.setattr(study, "figures", lambda *_: {})
    folder = short.folder / "defences_quick"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = study.run("defences", quick=True, folder=folder)
    assert not counted.called
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    np.testing.assert_array_equal(again.data.adaptive, short.data.adaptive)
    # another attack is run, and no other
    other = [replace(one, claimed=replace(one.claimed, maker="bim", options={"steps": 3})) for one in short.few[:1]]
    monkeypatch.setattr(study, "subjects", lambda: other + short.few[1:])
    study.run("defences", quick=True, folder=folder)
    assert counted.call_count == 1


# --- the plan ---


def test_every_method_and_every_defence_takes_part() -> None:
    every = subjects()
    assert all(subject.is_here for subject in every)
    assert {subject.method for subject in every} == set(METHODS) - {"ccat"}  # which rejects: the study ccat_mnist
    # embeddings are attacked in a study of their own
    assert {subject.defence for subject in every if subject.defence} == set(DEFENCES) - set(EMBEDDINGS)
    assert len({subject.name for subject in every}) == len(every)


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_every_attack_of_the_plan_can_be_made(dataset: str, quick: bool) -> None:
    setting = setting_of(dataset, quick=quick)
    for subject in [one for one in subjects() if one.is_here]:
        own = cases(subject, setting)
        assert [case.column for case in own][:2] == ["claimed", "standard"]
        assert len({case.name for case in own}) == len(own)
        for case in own:
            assert effort_of(case)
            assert "deepcheck.attacks.registry" not in set(modules_of(attack_of(case)))
        adaptive = [case for case in own if case.column != "claimed"]
        assert {case.meets for case in adaptive} == {"surrogate" if subject.defence else "itself"}
        recipe = setting.recipe_of(subject)
        assert recipe.validation == setting.validation
        if hasattr(recipe.method, "epsilon"):
            assert recipe.method.epsilon == setting.epsilon


def test_the_quick_form_takes_fewer_steps_that_reach_as_far() -> None:
    full, quick = (cases(subjects()[0], setting_of("digits", quick=quick))[0].options for quick in (False, True))
    assert quick["steps"] < full["steps"]
    assert quick["steps"] * quick["relative_step_size"] == pytest.approx(full["steps"] * full["relative_step_size"])


def test_a_net_does_not_depend_on_the_other_methods() -> None:
    """What is kept of a net stays when another method is changed or added."""
    at, ccat = METHODS["at"].__module__, METHODS["ccat"].__module__
    own = sources(train.__module__, at, apart=("deepcheck.training.methods",))
    assert {at, "deepcheck.training.methods.base", train.__module__} <= set(own)
    assert ccat not in own
    assert ccat in sources(train.__module__)


# --- one attack ---


class Constant(Defence):
    """A defence that answers a class by the number of its calls."""

    def __init__(self, net: Any) -> None:
        super().__init__(net)
        self.asked = 0

    def _logits(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return torch.nn.functional.one_hot(torch.full((len(images),), 3), 10).float() + 0 * self.net(images)


def _linear() -> tuple[Any, Tensor, Tensor]:
    network = build("linear", 10, (1, 8, 8), generator=torch.Generator().manual_seed(0)).eval()
    x = 0.4 + 0.2 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return network, x, network(x).argmax(1)


def test_an_attack_on_the_bare_net_is_judged_by_the_defence() -> None:
    network, x, y = _linear()
    defence = Constant(network)
    found = attacked(defence, fgsm("linf"), "net", 0.5, x, y, 0)
    np.testing.assert_array_equal(found.broken, (y != 3).int())
    assert defence.asked == len(x) + len(found.image)  # once each, and those that are shown
    alone = attacked(network, fgsm("linf"), "itself", 0.5, x, y, 0)
    assert alone.broken.all()
    np.testing.assert_allclose(found.image, alone.image)


def test_what_is_random_is_the_same_from_the_same_seed() -> None:
    network, x, y = _linear()
    noise = GaussianNoise(network, sigma=0.5, passes=2)
    first, second = (attacked(noise, pgd("linf", steps=3), "surrogate", 0.1, x, y, 5) for _ in range(2))
    xr.testing.assert_identical(first.drop_vars("seconds"), second.drop_vars("seconds"))
    xr.testing.assert_identical(clean(noise, x, y), clean(noise, x, y))


def _enlarged(network: nn.Module, k: float) -> Callable[[Tensor], Tensor]:
    """The net with logits k times as large."""
    return lambda z: k * network(z)


def test_probabilities_hide_a_gradient_that_the_margin_has() -> None:
    """At logits a thousand times as large the softmax is 0 and 1 to rounding."""
    network, x, y = _linear()
    left = {}
    for name, objective in (("probability", Probability()), ("margin", "margin")):
        attack = pgd("linf", objective, steps=5)
        left[name] = [
            float(1 - attacked(_enlarged(network, k), attack, "itself", 0.3, x, y, 0).broken.mean()) for k in (1.0, 1e6)
        ]
    assert left["margin"] == [0.0, 0.0]
    assert left["probability"][0] == 0.0
    assert left["probability"][1] > 0.9


# --- what was found, and the claims ---

N = 200


def _data(shares: dict[str, tuple[float, ...]], random: tuple[str, ...] = ()) -> xr.Dataset:
    """Return what might have been found: of each subject the shares that the claimed, standard and adaptive attacks leave."""
    rows, known = [], []
    for name, left in shares.items():
        for column, share in zip(COLUMNS, left, strict=True):
            broken = (np.arange(N) >= round(share * N)).astype(float)
            about = {
                "against": name,
                "evaluation": column,
                "attack": column,
                "meets": "itself",
                "attacked": N,
                "attack_effort": "1",
            }
            rows.append(
                xr.Dataset(
                    {"broken": ("example", broken), "queries": ("example", np.ones(N)), "seconds": 0.1},
                    {"example": np.arange(N), **about},
                )
            )
        bright = 0.6 if name == "at" else 0.1
        wrong = np.stack([np.full(N, bright), np.full(N, bright), np.full(N, 0.2)])
        wrong += 0.01 * np.random.default_rng(0).standard_normal(wrong.shape)
        known.append(
            xr.Dataset(
                {"correct": ("example", np.ones(N)), "corrupted": (("corruption", "example"), wrong)},
                {
                    "example": np.arange(N), "corruption": ["fog", "brightness", "shot_noise"], "subject": name,
                    "title": next((one.title for one in subjects() if one.name == name), name), "source": "", "images": N,
                    "random": name in random,
                },
            )
        )  # fmt: skip
    each = len(COLUMNS)
    data = study.joined([(one, rows[each * k : each * (k + 1)]) for k, one in enumerate(known)])
    return summarised(data).assign_attrs(note="", epsilon=0.3)


GOOD: dict[str, tuple[float, ...]] = {
    "standard": (0.0, 0.0, 0.0), "at": (0.9, 0.9, 0.9), "trades": (0.9, 0.895, 0.895), "alp": (0.9, 0.8, 0.7),
    "vertex_mixup": (0.9, 0.8, 0.7), "distillation": (0.9, 0.2, 0.0), "resize_pad": (0.6, 0.1, 0.05),
    "noise_layers": (0.6, 0.1, 0.05), "gaussian_noise": (0.6, 0.1, 0.05), "defense_gan": (0.6, 0.3, 0.2),
}  # fmt: skip
"""Of which every claim holds."""
BROKEN: dict[str, tuple[float, ...]] = {
    "distillation leaves": (0.9, 0.3, 0.1),
    "resize and pad loses": (0.6, 0.5, 0.4),
    "noise layers loses": (0.6, 0.5, 0.4),
    "noise on the image loses": (0.04, 0.0, 0.0),
    "Defense-GAN loses": (0.6, 0.5, 0.4),
    "ALP: the accuracy": (0.9, 0.9, 0.89),
    "vertex mixup: the accuracy": (0.9, 0.9, 0.89),
    "TRADES loses": (0.4, 0.4, 0.4),
}
WHOSE = ("distillation", "resize_pad", "noise_layers", "gaussian_noise", "defense_gan", "alp", "vertex_mixup", "trades")


def test_every_claim_can_fail() -> None:
    good = {claim.statement: claim for claim in claims(_data(GOOD), quick=False)}
    assert len(good) == len(BROKEN) + 3
    assert [claim for claim in good.values() if not claim.holds] == []
    for (beginning, shares), name in zip(BROKEN.items(), WHOSE, strict=True):
        failed = [claim for claim in claims(_data(GOOD | {name: shares}), quick=False) if not claim.holds]
        assert len(failed) == 1, (beginning, failed)
        assert failed[0].statement.startswith(beginning)


def test_the_suite_and_the_corruptions_can_fail_their_claims() -> None:
    bad = {claim.statement: claim for claim in claims(_data(GOOD | {"at": (0.9, 0.9, 0.85)}), quick=False)}
    failed = [statement for statement, claim in bad.items() if not claim.holds]
    assert any(statement.startswith("the standard suite is enough") for statement in failed)
    assert any(statement.startswith("AT loses at most") for statement in failed)
    data = _data(GOOD)
    data["corrupted"] = data.corrupted * 0 + 0.1
    failed = [claim.statement for claim in claims(data, quick=False) if not claim.holds]
    assert len(failed) == 1
    assert failed[0].startswith("AT errs more")


def test_the_worst_case_is_of_each_image_unless_the_defence_is_random() -> None:
    data = _data({"standard": (0.5, 0.5, 0.5), "noise": (0.5, 0.5, 0.5)}, random=("noise",))
    other = (np.arange(N) < N // 2).astype(float)  # the other half
    for name in ("standard", "noise"):
        (place,) = np.flatnonzero((data.against.values == name) & (data.evaluation.values == "adaptive"))
        data["broken"][place] = other
    plain, random = Found(data, "standard"), Found(data, "noise")
    assert (plain.right("standard").mean(), plain.right("adaptive").mean()) == (0.5, 0.0)
    assert (random.right("standard").mean(), random.right("adaptive").mean()) == (0.5, 0.5)
    gap, error = plain.lost("claimed", "adaptive")
    assert gap == 0.5
    assert error == pytest.approx((0.25 / (N - 1)) ** 0.5)


def test_the_table_has_a_line_for_each_subject_and_attack() -> None:
    lines = table(described(_data(GOOD))).splitlines()
    (line,) = [line for line in lines if line.startswith("TRADES") and "+-" in line]
    assert line.split()[1:6] == ["200", "100.0", "90.0", "89.5", "89.5"]
    assert sum(": standard" in line for line in lines) == len(GOOD)


def test_where_there_is_no_mnist_the_digits_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "load_or_digits", lambda: (load("digits"), "Not MNIST"))
    images, note = study._images(quick=False)
    assert (images.name, note) == ("digits", "Not MNIST")
    assert plan.setting_of(images.name, quick=False).epochs > plan.setting_of(images.name, quick=True).epochs


def test_the_folder_has_the_nets_by_method_and_recipe(short: SimpleNamespace) -> None:
    names = {path.name.rsplit("_", 1)[0] for path in Path(short.folder / "defences_quick").glob("net_*")}
    setting = _short("digits", quick=True)
    assert names == {attempts.net_name(one, setting.recipe_of(one)) for one in short.few}
    assert len(names) == 2
