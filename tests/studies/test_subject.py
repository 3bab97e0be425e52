"""Studies of other images and nets: names, refusals, settings; the studies as they stand are what they were."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr
from matplotlib.figure import Figure

from deepcheck.data import DataError, Images, load
from deepcheck.training import loop
from odeflow import load as load_result
from studies import STUDIES, collapse, confidence, deep_on_mnist
from studies.__main__ import main
from studies.collapse import plan as collapse_plan
from studies.collapse import study as collapse_study
from studies.common import images, nets
from studies.common.subject import OWN, Subject
from studies.confidence import plan as confidence_plan
from studies.confidence import study as confidence_study
from studies.deep_on_mnist import plan as deep_plan
from studies.deep_on_mnist import study as deep_study
from studies.deep_on_mnist.measure import MEASURED
from studies.registry import Outcome, Study, run_study
from studies.report.results import read_result

PAIR = Subject("cifar10", ("airplane", "ship"))


def test_names_of_files_say_what_they_are_of_and_seeds_share_their_nets() -> None:
    assert (OWN.suffix, OWN.folder) == ("", "")
    assert PAIR.suffix == "_cifar10_airplane_ship"
    five = replace(PAIR, seeds=5, net="resnet_ccat")
    assert five.suffix == "_cifar10_airplane_ship_resnet_ccat_5_seeds"
    assert five.folder == "_cifar10_airplane_ship_resnet_ccat"
    assert Subject(seeds=4).suffix == "_4_seeds"
    assert Subject(seeds=4).folder == ""
    assert Subject(seeds=4).is_own
    assert not Subject(classes=("7", "3")).is_own


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": "svhn"}, "dataset = 'svhn' is unknown: allowed is one of mnist, cifar10, digits"),
        ({"classes": ("3", "3")}, "classes = 3 3 is not allowed: two different classes are"),
        ({"seeds": 1}, "seeds = 1 is out of range: allowed is a whole number >= 2"),
        ({"net": "vgg"}, "net = 'vgg' is unknown: allowed is one of conv_small"),
    ],
)
def test_bad_subjects_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Subject(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tradeoff", "--seeds", "3"), "tradeoff takes no dataset, classes, seeds or net, which are for deep_on_mnist, collapse, confidence"),
        (("deep_on_mnist", "tradeoff_deep", "--dataset", "cifar10"), "tradeoff_deep takes no dataset"),
        (("deep_on_mnist", "--dataset", "cifar10"), "classes is missing: dataset = cifar10 has no 3 and 7"),
        (("collapse", "--quick", "--classes", "3", "11"), "classes = '11' is unknown (did you mean '1'?): allowed is one of 0, 1"),
        (("confidence", "--seeds", "1"), "seeds = 1 is out of range"),
    ],
)  # fmt: skip
def test_the_command_refuses_in_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", *arguments, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_without_options_the_settings_are_those_of_the_studies() -> None:
    for name in ("mnist", "digits"):
        assert deep_plan.setting_of(OWN, name) == deep_plan.SETTINGS[name]
    assert deep_plan.SETTINGS["mnist"].classes == ("3", "7")
    assert deep_plan.SETTINGS["mnist"].models == {"convolutional": "conv_small", "residual": "resnet_ccat"}
    assert confidence_plan.setting_of(OWN, "mnist") == confidence_plan.FULL
    assert confidence_plan.setting_of(OWN, "digits", quick=True) == confidence_plan.DIGITS
    assert list(confidence_plan.FULL.nets) == [
        "linear, standard",
        "linear, AT",
        "conv, standard",
        "conv, AT",
        "conv, CCAT",
    ]
    assert collapse_plan.plan_of(OWN, "mnist") == collapse_plan.FULL
    assert collapse_plan.plan_of(OWN, "digits", quick=True) == collapse_plan.QUICK
    assert all(one.classes == ("3", "7") and one.model == "conv_small" and not one.recipe for one in collapse_plan.FULL.convolutional)  # fmt: skip


def test_other_settings_have_what_was_asked_for() -> None:
    five = replace(PAIR, seeds=5, net="resnet_ccat")
    deep = deep_plan.setting_of(five, "cifar10")
    assert deep.classes == ("airplane", "ship")
    assert deep.runs == {"linear": 20, "resnet_ccat": 5}
    assert deep.models == {"resnet_ccat": "resnet_ccat"}
    assert "width" not in deep.recipes["resnet_ccat"]
    assert (deep.within, deep.theory_within) == (0.03, 0.06)  # as on MNIST
    wide = deep_plan.setting_of(Subject(net="resnet_ccat"), "mnist")
    assert wide.nets == {"resnet_ccat": {"linf": (0.1,), "l2": (1.0,)}}
    assert "width" not in wide.recipes["resnet_ccat"]
    assert wide.counts == {}
    for setting in deep_plan.SETTINGS.values():  # PGD attacks at the training epsilons
        for norm, epsilons in setting.trainings.items():
            tests = np.linspace(0, setting.largest[norm], 33)[MEASURED]
            assert all(np.isclose(tests, epsilon).any() for epsilon in epsilons)
    plan = collapse_plan.plan_of(five, "cifar10")
    assert plan.nets == ()
    assert [(one.positive, one.negative, one.norm) for one in plan.pairs] == [("airplane", "ship", "l2"), ("airplane", "ship", "linf")]  # fmt: skip
    assert all(one.seeds == 5 and one.model == "resnet_ccat" for one in plan.convolutional)
    assert list(confidence_plan.setting_of(five, "cifar10").nets)[2:] == [f"resnet_ccat, {name}" for name in ("standard", "AT", "CCAT")]  # fmt: skip


def test_only_mnist_is_stood_in_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, *, download: bool = True) -> Images:
        if name == "cifar10":
            raise DataError("there is none")
        return load(name)

    monkeypatch.setattr(images, "load", missing)
    with pytest.raises(DataError, match="there is none"):
        images.images_of(PAIR, quick=True)
    assert images.images_of(Subject("digits", ("4", "9")), quick=False)[1] == ""


def run(name: str, *, quick: bool, folder: Path, subject: Subject) -> Outcome:
    """Be a study."""
    return Outcome(xr.Dataset(attrs={"folder": folder.name, "classes": " ".join(subject.classes)}), Figure(), "", ())


def test_a_study_of_another_subject_has_files_of_its_own(tmp_path: Path) -> None:
    one = Study("deep_on_mnist", "it", __name__, long=True, subjects=True)
    run_study(one, out=tmp_path, subject=replace(PAIR, seeds=5), quick=True)
    files = {path.name for path in tmp_path.iterdir()}
    stem = "deep_on_mnist_cifar10_airplane_ship_5_seeds"
    assert files == {f"{stem}{suffix}" for suffix in (".nc", ".pdf", ".png", ".svg")}
    attributes = load_result(tmp_path / f"{stem}.nc").attrs
    assert attributes["folder"] == "deep_on_mnist_cifar10_airplane_ship_quick"
    assert attributes["classes"] == "airplane ship"
    assert '"dataset": "cifar10"' in attributes["subject"]
    # the page of the studies as they stand does not take these figures for theirs
    found = read_result(STUDIES["deep_on_mnist"], tmp_path)
    assert found.missing
    assert found.figures == ()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the studies be small, and stay in this process."""
    for study in (deep_study, collapse_study, confidence_study):
        monkeypatch.setattr(study, "in_processes", lambda function, tasks: [function(*task) for task in tasks])
    few: dict[Any, tuple[float, ...]] = {"linf": (0.1,)}
    deep = deep_plan.SETTINGS["digits"]
    net = "convolutional"
    small_deep = replace(
        deep, trainings=few, nets={net: few}, recipes={net: {"epochs": 1}}, examples={"linear": 10, net: 10},
        checked={net: 10}, steps=2, of_linearity=5, images=200, runs={"linear": 2, net: 2},
    )  # fmt: skip
    monkeypatch.setitem(deep_plan.SETTINGS, "digits", small_deep)
    margins = replace(confidence_plan.DIGITS, epochs=1, ccat_epochs=1, examples=30, steps=2, restarts=1)
    monkeypatch.setattr(confidence_plan, "DIGITS", margins)
    quick = collapse_plan.QUICK
    quick = replace(
        quick,
        pairs=tuple(replace(pair, sizes=(0.0, 1.4), examples=500, runs=2) for pair in quick.pairs),
        convolutional=tuple(replace(net, images=150, epochs=1) for net in quick.convolutional),
    )
    monkeypatch.setattr(collapse_plan, "QUICK", quick)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
@pytest.mark.filterwarnings("ignore:the theory with noise may be far off")
def test_the_studies_run_on_another_pair_and_say_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject("digits", ("4", "9"), 2, "conv_small")
    trained: list[tuple[str, ...]] = []
    train = loop.train

    def counted(recipe: Any, images: Images, **options: Any) -> Any:
        trained.append(images.class_names)
        return train(recipe, images, **options)

    counted.__module__ = train.__module__
    monkeypatch.setattr(nets, "train", counted)
    simulate = Mock(side_effect=AssertionError)
    monkeypatch.setattr(confidence_study, "simulate", simulate)
    outcomes = {}
    for name, run_it in (
        ("deep_on_mnist", deep_on_mnist.run),
        ("collapse", collapse.run),
        ("confidence", confidence.run),
    ):
        outcomes[name] = run_it(name, quick=True, folder=tmp_path / name, subject=subject)
    assert set(trained) == {("9", "4")}
    assert len(trained) == 2 * 2 + 2 * 2 + 5 * 2
    texts = {name: " ".join(one.statement for one in outcome.claims) for name, outcome in outcomes.items()}
    assert outcomes["deep_on_mnist"].data.attrs["title"] == "scikit-learn's digits, not MNIST: 4 against 9"
    assert "conv_small" in outcomes["deep_on_mnist"].table or "conv." in outcomes["deep_on_mnist"].table
    assert outcomes["collapse"].data.attrs["deep_classes"] == "4 against 9"
    assert "4 against 9, l2, linear" in outcomes["collapse"].table
    assert "4 against 9, l2, ramp 0" in outcomes["collapse"].table
    assert "rho" not in outcomes["collapse"].table
    figures = {
        name: list(one) for name, one in ((name, one.figure) for name, one in outcomes.items()) if isinstance(one, dict)
    }
    assert figures == {"deep_on_mnist": ["curves", "why"], "collapse": ["images"], "confidence": ["images", "margins"]}
    assert "linear classifiers on images" in texts["collapse"]
    assert "rho" not in texts["collapse"]
    assert "seed model, rho" not in outcomes["confidence"].table
    assert outcomes["confidence"].data.attrs["data_set"] == "digits 4 vs 9"
    assert "theory" not in texts["confidence"]
    for outcome in outcomes.values():
        for key, variable in outcome.data.variables.items():
            assert variable.attrs.get("long_name"), key
