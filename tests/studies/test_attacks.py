"""The study of all attacks: a short run on the digits, what it keeps, and claims that can fail."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import xarray as xr

from deepcheck.attacks import registry
from deepcheck.attacks.black_box.zoo import ZOO
from deepcheck.attacks.gradient.pgd import fgsm, pgd
from deepcheck.attacks.minimal.deepfool import DeepFool
from deepcheck.data import DataError, Images, load
from deepcheck.models import build
from odeflow import load as load_result
from odeflow import save
from studies import STUDIES, attacks
from studies.attacks import plan, study
from studies.attacks.claims import claims
from studies.attacks.found import Net, described, summarised, table
from studies.attacks.measure import Scaled, measured
from studies.attacks.plan import Setting, cases, setting_of
from tests.odeflow.figure_checks import outside, small

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FEW = ("fgsm", "pgd", "deepfool", "square", "uniform_noise")


def _short(dataset: str, *, quick: bool) -> Setting:
    """Return the quick setting with nets that have hardly learned."""
    setting = _REAL(dataset, quick=quick)
    recipes = {net: one.changed(epochs=3) for net, one in setting.recipes.items()}
    return replace(setting, recipes=recipes, train_images=400)


_REAL = setting_of


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return what a short run leaves, and a folder with it."""
    folder = tmp_path_factory.mktemp("attacks")
    few = {name: registry.ATTACKS[name] for name in FEW}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "setting_of", _short)
        patch.setattr(registry, "ATTACKS", few)
        outcome = STUDIES["attacks"].run(quick=True, folder=folder / "attacks_quick")
    data = load_result(save(outcome.data, folder / "attacks.nc"))
    return SimpleNamespace(outcome=outcome, folder=folder, data=data, few=few)


@pytest.fixture
def again(short: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Mock:
    """Count the attacks of another run in the same folder."""
    monkeypatch.setattr(study, "setting_of", _short)
    monkeypatch.setattr(registry, "ATTACKS", dict(short.few))
    counted = Mock(wraps=measured, __module__=measured.__module__)
    monkeypatch.setattr(study, "measured", counted)
    monkeypatch.setattr(study, "figures", lambda *_: {})
    return counted


def test_a_short_run_has_every_attack_in_every_norm(short: SimpleNamespace) -> None:
    data = short.data
    assert data.net.values.tolist() == ["standard", "masked", "at", "ccat"]
    expected = {(name, norm) for name in FEW for norm in registry.norms_of(name)}
    expected |= {("pgd_confidence", norm) for norm in ("linf", "l2")}
    for net in ("standard", "at", "ccat"):
        rows = data.isel(row=np.flatnonzero(data.against.values == net))
        assert set(zip(rows.attack.values.tolist(), rows.norm.values.tolist(), strict=True)) == expected
    rows = data.isel(row=np.flatnonzero(data.against.values == "masked"))
    assert set(rows.attack.values.tolist()) == {"pgd", "square"}
    for variable in data.variables.values():
        assert variable.attrs.get("long_name")
        assert variable.attrs.get("units")
    assert (data.queries.values[np.isfinite(data.queries.values)] >= 0).all()
    assert (data.seconds > 0).all()


def test_the_numbers_are_those_of_the_images(short: SimpleNamespace) -> None:
    """Of images that are misclassified as they are, none is robust; and what is near enough is broken."""
    for name in ("standard", "at", "ccat"):
        net = Net(short.data, name)
        for place in range(net.rows.sizes["row"]):
            row = net.rows.isel(row=place)
            count = int(row.images)
            broken, distance = row.broken.values[:count] == 1, row.distance.values[:count]
            assert not np.isfinite(row.broken.values[count:]).any()
            assert (distance[broken] <= row.epsilon.item() + 1e-6).all()
            assert not (net.correct(count) & broken & (distance == 0)).any()
            robust = 1 - np.mean(broken | ~net.correct(count))
            assert row.robust_accuracy.item() == pytest.approx(robust)
            assert row.accepted_error.item() <= 1 - row.robust_accuracy.item() + 1e-9
        every = net.attacks("linf")
        together = net.robust(every, "linf", 10)
        assert together == pytest.approx(1 - net.broken(every, "linf", 10).mean())
        assert together <= min(net.robust([one], "linf", 10) for one in every)
        least = net.distance(["deepfool", "pgd"], "l2", 10)
        assert (least <= net.distance(["deepfool"], "l2", 10)).all()


def test_figures_and_table(short: SimpleNamespace) -> None:
    names = {"time_standard", "time_at", "time_ccat", "queries", "pictures_digits_1"}
    assert set(short.outcome.figure) == names
    figure: Figure
    for name, figure in short.outcome.figure.items():
        assert small(figure) == {}, name
        assert outside(figure) == [], name
    lines = short.outcome.table.splitlines()
    assert lines[0].startswith("Not MNIST, but scikit-learn's digits")
    heads = [line for line in lines if ": accuracy 0." in line]
    assert [line.split(" (")[0] for line in heads] == ["standard", "standard, logits times a million", "AT", "CCAT"]
    assert sum("pgd " in line for line in lines) == 4 * 3 + 1
    assert sum("all of these" in line for line in lines) == 4 * 3 + 1
    texts = [text.get_text() for text in short.outcome.figure["pictures_digits_1"].texts]
    assert texts[0] == "clean"
    assert len(texts) == 1 + len(FEW) + 1


def test_it_goes_on_where_it_stopped(short: SimpleNamespace, again: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = short.folder / "attacks_quick"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    found = attacks.run("attacks", quick=True, folder=folder)
    assert not again.called
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    np.testing.assert_array_equal(found.data.robust_accuracy, short.data.robust_accuracy)
    # another attack is attacked with, and no other
    registry.ATTACKS["bim"] = attacked = registry.ATTACKS["fgsm"]
    assert attacked is fgsm
    monkeypatch.setitem(registry.ATTACKS, "bim", lambda norm="linf", *, steps=3: pgd(norm, steps=steps))
    attacks.run("attacks", quick=True, folder=folder)
    assert again.call_count == 3 * len(registry.norms_of("bim"))


def test_an_attack_that_is_new_takes_part_with_few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def dear(norm: str = "linf", *, steps: int = 5000, queries: int = 10**6, share: float = 0.5) -> Any:
        return pgd(norm, steps=steps)

    monkeypatch.setattr(registry, "ATTACKS", {"dear": dear, "zoo": ZOO, "pgd": pgd})
    found = {case.name: case for case in cases(_REAL("digits", quick=True))}
    assert found["dear_linf"].options == {"steps": plan._QUICK["steps"], "queries": plan._QUICK["queries"]}
    assert found["pgd_confidence_l2"].options["objective"] == "wrong_confidence"
    assert "pgd_confidence_l1" not in found
    full = {case.name: case for case in cases(_REAL("mnist", quick=False))}
    assert full["dear_l0"].options == {}
    assert (full["dear_l0"].epsilons, full["dear_l0"].images) == ((10.0,), 60)
    assert full["zoo_l2"].images == 4


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10"])
def test_every_case_of_the_plan_can_be_made(dataset: str, quick: bool) -> None:
    setting = _REAL(dataset, quick=quick)
    found = cases(setting)
    assert {case.maker for case in found} == set(registry.ATTACKS)
    for case in found:
        registry.make(case.maker, case.norm, **case.options)
    assert set(plan._FULL) <= set(registry.ATTACKS)


# --- one attack on one net ---


def _linear() -> tuple[Any, torch.Tensor, torch.Tensor]:
    network = build("linear", 10, (1, 8, 8), generator=torch.Generator().manual_seed(0)).eval()
    x = 0.4 + 0.2 * torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = network(x).argmax(1)
    y[3] = (y[3] + 1) % 10
    return network, x, y


def test_an_attack_that_looks_for_the_nearest_is_run_once_for_all_sizes() -> None:
    network, x, y = _linear()
    found = measured(network, DeepFool("l2"), (0.01, 100.0), (x, y), (x, y), 0)
    np.testing.assert_array_equal(found.distance[0], found.distance[1])
    assert found.broken.values[1].all()
    assert found.broken.values[:, 3].all()
    assert found.distance.values[0, 3] == 0
    np.testing.assert_array_equal(found.broken.values, found.distance.values <= np.array([[0.01], [100.0]]))
    w, b = network.head.weight.detach(), network.head.bias.detach()
    z = x.flatten(1) @ w.T + b
    gaps = (z.gather(1, y[:, None]) - z) / torch.linalg.vector_norm(w[y][:, None] - w, dim=2)
    expected = gaps.masked_fill(torch.nn.functional.one_hot(y, 10).bool(), torch.inf).amin(1)
    wanted = np.delete(1.02 * expected.numpy(), 3)
    np.testing.assert_allclose(np.delete(found.distance.values[0], 3), wanted, rtol=2e-3)


def test_queries_are_those_of_the_attack_and_pictures_are_the_first() -> None:
    network, x, y = _linear()
    attack = pgd("linf", steps=5, restarts=2)
    found = measured(network, attack, (0.0, 0.3), (x, y), (x, y), 0)
    expected = attack(network, x, y, epsilon=[0.0, 0.3], generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(found.queries, expected.queries.sum(1))
    np.testing.assert_allclose(found.image, expected.images[0, :4])
    assert found.broken.values[0].tolist() == [0, 0, 0, 1] + [0] * 8
    wrong = (expected.prediction[1] != y).any(0)
    np.testing.assert_array_equal(found.broken.values[1], wrong)


class _Prepared:
    """An attack that has to be told what it is prepared on."""

    prepare_on = 5

    def __init__(self) -> None:
        self.given: Any = None

    def prepare(
        self, model: Any, x: torch.Tensor, y: torch.Tensor, *, epsilon: Any, generator: Any, batch_size: int
    ) -> Any:
        del model, generator, batch_size
        self.given = len(x), len(y), epsilon
        return fgsm("linf")


def test_what_has_to_be_prepared_is() -> None:
    network, x, y = _linear()
    attack = _Prepared()
    found = measured(network, attack, (0.1,), (x[:6], y[:6]), (x, y), 0)
    assert attack.given == (5, 5, [0.1])
    assert found.preparing_seconds.item() > 0
    assert found.broken.shape == (1, 6)


def test_a_net_with_larger_logits_is_the_same_and_has_no_gradient() -> None:
    network, x, _ = _linear()
    scaled = Scaled(network, 1e6)
    torch.testing.assert_close(scaled(x), 1e6 * network(x))
    at = x.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(scaled(at), scaled(x).argmax(1))
    (gradient,) = torch.autograd.grad(loss, at)
    assert (gradient == 0).all()


# --- the claims ---


def _row(against: str, attack: str, norm: str, kind: str, broken: Any, **more: Any) -> xr.Dataset:
    count = len(broken)
    values = {"distance": np.where(broken, 0.1, np.inf), "confidence": np.ones(count), "queries": np.ones(count)} | more
    epsilon = values.pop("epsilon", 0.3 if norm == "linf" else 1.5)
    data = {name: ("example", np.asarray(value, float)) for name, value in values.items()}
    data["broken"] = "example", np.asarray(broken, float)
    coordinates = {
        "against": against,
        "attack": attack,
        "norm": norm,
        "kind": kind,
        "epsilon": epsilon,
        "images": count,
    }
    return xr.Dataset(data, coordinates | {"example": np.arange(count)}).assign(seconds=0.1, preparing_seconds=0.0)


N = 40
KIND = {
    "pgd": "by gradient", "apgd_ce": "by gradient", "apgd_t": "by gradient", "fab_t": "nearest", "fab": "nearest",
    "carlini_wagner": "nearest", "deepfool": "nearest", "square": "by queries", "hop_skip_jump": "by queries",
    "zoo": "by queries", "uniform_noise": "by queries", "universal": "prepared elsewhere",
    plan.TRANSFER: "prepared elsewhere",
}  # fmt: skip


def _first(share: float) -> Any:
    return np.arange(N) < round(share * N)


def _found() -> xr.Dataset:
    """Return what might have been found, of which every claim holds."""
    rows = []
    shares = {"standard": 0.9, "at": 0.3, "ccat": 1.0, "cifar10_at": 0.6}
    for net, share in shares.items():
        factor = {"at": 3.0, "ccat": 0.8}.get(net, 1.0)
        for attack, kind in KIND.items():
            for norm in ("linf", "l2"):
                weak = {"square": 0.5, "hop_skip_jump": 0.5, "uniform_noise": 0.1, plan.TRANSFER: 0.2, "universal": 0.8}
                broken = _first(share * weak.get(attack, 1.0))
                if (net, attack) == ("ccat", "pgd"):
                    broken = _first(0.5)
                near = {"hop_skip_jump": 2.0, "deepfool": 1.2, "zoo": 1.02}.get(attack, 1.0)
                distance = (
                    np.full(N, 0.1 * near * factor) if kind == "nearest" or attack in ("zoo", "hop_skip_jump") else None
                )
                more = {} if distance is None else {"distance": distance}
                if net == "ccat":
                    more["confidence"] = np.full(N, 0.2)
                rows.append(_row(net, attack, norm, kind, broken, **more))
        for attack in ("universal", "uniform_noise"):
            broken = _first(0.7 if attack == "universal" else 0.1)
            rows.append(_row(net, attack, "linf", KIND[attack], broken, epsilon=plan.UNIVERSAL))
    rows += [
        _row("masked", "pgd", "linf", "by gradient", _first(0.0)),
        _row("masked", "square", "linf", "by queries", _first(0.8)),
    ]
    names = ["standard", "masked", "at", "ccat", "cifar10_at"]
    nets = xr.Dataset(
        {
            "tau": ("net", np.full(5, 0.5)),
            "accuracy": ("net", np.ones(5)),
            "correct": (("net", "example"), np.ones((5, N))),
        },
        {"net": names, "dataset": ("net", ["mnist"] * 4 + ["cifar10"]), "example": np.arange(N)},
    )
    return xr.merge([xr.concat(rows, "row"), nets]).assign_attrs(note="")


def _place(data: xr.Dataset, net: str, attack: str, norm: str, epsilon: float | None = None) -> Any:
    chosen = (data.against.values == net) & (data.attack.values == attack) & (data.norm.values == norm)
    return np.flatnonzero(chosen & (np.isclose(data.epsilon.values, epsilon) if epsilon else True))


BROKEN: dict[str, Any] = {
    "in L-infinity and L2": [("at", "square", "l2", None, {"broken": 0.4})],
    "CCAT in L-infinity": [("ccat", "apgd_ce", "linf", None, {"confidence": 0.9})],
    "the median of the least": [("at", "fab", "linf", None, {"distance": 0.15})],
    "in L2, the medians": [("at", "carlini_wagner", "l2", None, {"distance": 0.5})],
    "AT in L-infinity: apgd_ce": [("at", "carlini_wagner", "linf", None, {"broken": 0.4})],
    "one universal": [("standard", "universal", "linf", plan.UNIVERSAL, {"broken": 0.4})],
    "AT in L-infinity: attacks that are found on another": [("at", plan.TRANSFER, "linf", None, {"broken": 0.29})],
    "ZOO's mean": [("standard", "zoo", "l2", None, {"distance": 0.11})],
}


def test_every_claim_can_fail() -> None:
    good = {claim.statement: claim for claim in claims(_found(), quick=False)}
    assert len(good) == len(BROKEN)
    assert [claim for claim in good.values() if not claim.holds] == []
    for beginning, changes in BROKEN.items():
        bad = _found()
        for net, attack, norm, epsilon, values in changes:
            places = _place(bad, net, attack, norm, epsilon)
            assert len(places) >= 1, beginning
            for name, value in values.items():
                bad[name][places] = _first(value).astype(float) if name == "broken" else value
        failed = [claim.statement for claim in claims(bad, quick=False) if not claim.holds]
        assert len(failed) == 1, (beginning, failed)
        assert failed[0].startswith(beginning)


def test_without_some_attacks_the_claims_about_them_are_left_out() -> None:
    data = _found()
    data = data.isel(
        row=np.flatnonzero(~np.isin(data.attack.values, ["universal", plan.TRANSFER, "zoo", "apgd_t", "hop_skip_jump"]))
    )
    assert len(list(claims(data, quick=False))) == 3
    assert len(list(claims(_found(), quick=True))) == 2


def test_the_table_says_what_was_found() -> None:
    data = described(summarised(_found()))
    text = table(data)
    line = next(line for line in text.splitlines() if line.startswith("linf") and " universal " in line)
    assert line.split()[:3] == ["linf", "0.3", "universal"]
    assert "72 %" in line  # of 40 images


def test_without_cifar10_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *, download: bool = True) -> Images:
        if name == "cifar10":
            raise DataError("there is none")
        return load("digits")

    monkeypatch.setattr(study, "load", missing)
    monkeypatch.setattr(study, "load_or_digits", lambda: (load("digits"), ""))
    sets, note = study._sets(quick=False)
    assert [images.name for images in sets] == ["digits"]
    assert note == "CIFAR-10 is left out, because there is none"


def test_the_configuration_has_the_efforts(short: SimpleNamespace) -> None:
    options = json.loads(short.data.attrs["configuration"])["options"]
    assert options["efforts"]["digits"]["pgd_linf"]["options"]["steps"] == plan._QUICK["steps"]
    assert options["settings"]["digits"]["recipes"]["ccat"]["method"]["rho"] == 10.0
    assert Path(short.folder / "attacks_quick").is_dir()
