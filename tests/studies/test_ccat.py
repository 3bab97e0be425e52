"""The studies of confidence-calibrated training: on what stands in for the data, resumed, and refused without a GPU."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from deepcheck.data import DataError, Images, load
from deepcheck.evaluation import evaluate, false_positive_rate, roc_auc
from odeflow import load as load_result
from studies import STUDIES, ccat
from studies.__main__ import main
from studies.ccat import claims, measure, plan, study
from studies.ccat.measure import Setting
from studies.common import images
from studies.registry import run_study

FIGURES = {"errors", "roc", "confidences", "distal"}


def _missing(name: str, *, download: bool = True) -> Images:
    if name in ("mnist", "cifar10"):
        raise DataError("there is none")
    return load(name)


def _short(name: str, dataset: str, *, quick: bool) -> Setting:
    """Return the quick setting on the digits with few epochs."""
    setting = _REAL(name, dataset, quick=quick)
    recipes = {
        training: one.changed(epochs=3, **({} if training == "standard" else {"attack_steps": 2}))
        for training, one in setting.recipes.items()
    }
    return replace(setting, recipes=recipes, examples=40, validation=100, steps=10, restarts=1, queries=50)


_REAL = plan.setting_of


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return what a short run leaves, and a folder with it."""
    folder = tmp_path_factory.mktemp("ccat")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "load", _missing)
        patch.setattr(study, "setting_of", _short)
        outcome, files = run_study(STUDIES["ccat_mnist"], out=folder, quick=True)
    return SimpleNamespace(outcome=outcome, files=files, folder=folder, data=load_result(folder / "ccat_mnist.nc"))


def test_without_mnist_it_takes_the_digits_and_says_so(short: SimpleNamespace) -> None:
    expected = {"ccat_mnist.nc"} | {
        f"ccat_mnist_{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png", "svg")
    }
    assert {path.name for path in short.files} == expected
    assert short.outcome.table.startswith("Not MNIST, but scikit-learn's digits of 8 x 8 pixels, because there is none")
    assert short.data.attrs["data_set"] == "digits"
    for name, figure in short.outcome.figure.items():
        texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
        assert any("not the data set of the study, but digits" in text for text in texts), name


def test_the_robust_error_is_a_running_maximum(short: SimpleNamespace) -> None:
    """By construction, so that it is no claim: over sizes it does not fall, and it is not below the test error."""
    assert float(short.data.curve.sel(rule="all").diff("size").min()) >= 0
    assert (short.data.robust_error >= short.data.test_error).all()


def test_every_variable_says_what_it_is(short: SimpleNamespace) -> None:
    for name, variable in short.data.variables.items():
        assert variable.attrs.get("long_name"), name
        assert variable.attrs.get("units"), name


def test_the_numbers_are_those_of_the_confidences_beside_them(short: SimpleNamespace) -> None:
    data = short.data
    for training in plan.TRAININGS:
        one = data.sel(training=training)
        tau = one.tau.item()
        for kind in one.noise.values:
            part = one.sel(noise=kind)
            assert part.noise_fpr.item() == false_positive_rate(part.noise_confidence.values, tau)
            assert part.distal_fpr.item() == false_positive_rate(part.distal_confidence.values, tau)
        correct = one.clean_correct.values == 1
        assert one.test_error.item() == pytest.approx(1 - correct.mean())
        for threat in range(one.sizes["threat"]):
            minus = one.adversarial_confidence.isel(threat=threat).values
            turned = ~np.isnan(minus)
            assert not np.any(turned & ~correct)
            assert one.robust_error[threat].item() == pytest.approx(1 - correct.mean() + turned.mean())
            if turned.any():
                auc = roc_auc(one.clean_confidence.values[correct], minus[turned])
                assert one.auc[threat].item() == pytest.approx(auc)


def test_it_goes_on_where_it_stopped(short: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nets and records that are there are not made again, and the numbers stay; other records are not trusted."""
    monkeypatch.setattr(images, "load", _missing)
    monkeypatch.setattr(study, "setting_of", _short)
    evaluated = Mock(wraps=evaluate)
    monkeypatch.setattr(measure, "evaluate", evaluated)
    times = {path: path.stat().st_mtime_ns for path in (short.folder / "ccat_mnist_quick_digits").rglob("*")}
    again = ccat.run("ccat_mnist", quick=True, folder=short.folder / "ccat_mnist_quick")
    assert not evaluated.called
    assert times == {path: path.stat().st_mtime_ns for path in (short.folder / "ccat_mnist_quick_digits").rglob("*")}
    np.testing.assert_array_equal(again.data.robust_error, short.data.robust_error)
    monkeypatch.setattr(study, "SEED", measure.SEED + 1)
    setting = _short("ccat_mnist", "digits", quick=True)
    for calls in (21, 21):
        study._one("at", setting, load("digits"), short.folder / "ccat_mnist_quick_digits", torch.device("cpu"))
        assert evaluated.call_count == calls


def test_the_claims_can_fail(short: SimpleNamespace) -> None:
    setting = _REAL("ccat_mnist", "digits", quick=True)
    good = short.data.copy(deep=True)
    good["distal_fpr"].loc[{"training": "ccat"}] = 0.0
    good["distal_fpr"].loc[{"training": ["standard", "at"]}] = 1.0
    good["robust_error"].loc[{"training": "at"}] = 0.5
    good["robust_error"].loc[{"training": "standard"}] = 1.0
    good["robust_error"].loc[{"training": "ccat"}] = 1.0
    good["test_error"][:] = 0.1
    good["thresholded_robust_error"].loc[{"training": "ccat"}] = 0.2
    good["thresholded_robust_error"].loc[{"training": "at"}] = 0.4
    assert all(claim.holds for claim in claims.claims(good, "ccat_mnist", setting, quick=True))
    for name, training, value in (
        ("test_error", "standard", 1.0),
        ("robust_error", "standard", 0.2),
        ("distal_fpr", "ccat", 0.5),
        ("distal_fpr", "at", 0.1),
        ("thresholded_robust_error", "ccat", 0.5),
    ):
        bad = good.copy(deep=True)
        bad[name].loc[{"training": training}] = value
        held = [claim.holds for claim in claims.claims(bad, "ccat_mnist", setting, quick=True)]
        assert not all(held), name
        assert all(isinstance(one, bool) for one in held)


def test_published_numbers_stand_beside_ours(short: SimpleNamespace) -> None:
    setting = _REAL("ccat_mnist", "mnist", quick=False)
    data = short.data.assign_coords(
        epsilon=("threat", [{0.2: 0.3, 0.3: 0.4}.get(e, e) for e in short.data.epsilon.values])
    )
    lines = claims.table(data, setting).splitlines()
    row = next(line for line in lines if line.startswith("RErr(tau) linf 0.3"))
    assert "(1)" in row
    assert "(7.7)" in row
    assert set(plan.PUBLISHED["mnist"]) - {"RErr(tau) l2 3"} <= set(claims.rows(data, setting))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_whole_of_cifar10_needs_a_gpu(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "ccat_cifar10", "--out", str(tmp_path)]) == 2
    assert "--quick" in capsys.readouterr().err


def test_the_configuration_has_recipes_and_attacks(short: SimpleNamespace) -> None:
    options = json.loads(short.data.attrs["configuration"])["options"]
    assert options["setting"]["recipes"]["ccat"]["method"]["rho"] == 10.0
    file, *_ = (short.folder / "ccat_mnist_quick_digits").glob("at_records_*.nc")  # of two seeds
    records = load_result(file)
    assert "WrongConfidence" in records.attrs["parts"]


def test_nets_of_another_recipe_are_named_and_left_alone(
    short: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(images, "load", _missing)
    (last,) = (short.folder / "ccat_mnist_quick_digits").glob("standard_*/last.safetensors")
    before = last.stat().st_mtime_ns
    assert main(["run", "ccat_mnist", "--quick", "--out", str(short.folder)]) == 2
    message = capsys.readouterr().err
    assert "cannot be resumed: it has epochs = 3 and not 60" in message
    assert "remove " in message
    assert last.stat().st_mtime_ns == before
