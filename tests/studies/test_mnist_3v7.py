"""The study of MNIST, 3 against 7, and of what stands in for it; and files of a study with several figures."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import Mock

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr

from deepcheck.data import DataError, Images, load, two_classes
from odeflow import load as load_result
from odeflow.plot import new_figure
from studies import STUDIES
from studies.__main__ import main
from studies.common import images
from studies.mnist_3v7 import study
from studies.registry import Outcome, Study, run_study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = {"outputs", "errors", "weights", "digits"}


def _no_mnist(name: str, *, download: bool = True) -> Images:
    if name == "mnist":
        raise DataError("there is none")
    return load(name)


@pytest.fixture(scope="module")
def without_mnist(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Return what the quick run leaves where there is no MNIST."""
    folder = tmp_path_factory.mktemp("without_mnist")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DEEPCHECK_DATA", raising=False)
        patch.setattr(images, "load", _no_mnist)
        outcome, files = run_study(STUDIES["mnist_3v7"], out=folder, quick=True)
    return SimpleNamespace(outcome=outcome, files=files, data=load_result(folder / "mnist_3v7.nc"))


def test_without_mnist_it_takes_the_digits_and_says_so(without_mnist: SimpleNamespace) -> None:
    expected = {"mnist_3v7.nc"} | {f"mnist_3v7_{name}.{suffix}" for name in FIGURES for suffix in ("pdf", "png", "svg")}
    assert {path.name for path in without_mnist.files} == expected
    assert all(path.stat().st_size > 5000 for path in without_mnist.files)
    # adversarial training costs nothing on the digits, so that what should be its rival passes too
    failed = [claim for claim in without_mnist.outcome.claims if not claim.holds]
    assert [claim.statement for claim in failed if "but the rival passes, too" not in claim.measured] == []
    assert {claim.statement.split(",")[0] for claim in failed} <= {"without an attack"}
    assert all(claim.rival_measured for claim in without_mnist.outcome.claims)
    assert (without_mnist.data.exceptions == 0).all()
    assert without_mnist.outcome.table.startswith(
        "Not MNIST, but scikit-learn's digits of 8 x 8 pixels, because there is"
    )
    attributes = without_mnist.data.attrs
    assert attributes["data_set"] == "digits"
    assert "Not MNIST" in attributes["note"]
    assert "not MNIST" in attributes["title"]
    for name, figure in without_mnist.outcome.figure.items():
        assert figure.get_size_inches()[0] == 7.0
        texts = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
        assert any("not MNIST" in text for text in texts), name


def test_every_variable_says_what_it_is(without_mnist: SimpleNamespace) -> None:
    for name, variable in without_mnist.data.variables.items():
        assert variable.attrs.get("long_name"), name
        assert variable.attrs.get("units") == "1", name
    assert json.loads(without_mnist.data.attrs["configuration"])["options"]["runs"] == without_mnist.data.sizes["run"]


def test_the_data_hold_together(without_mnist: SimpleNamespace) -> None:
    """The lines of the errors are those of the Gaussian outputs, the points those of the outputs of the test images."""
    data = without_mnist.data
    test = two_classes(load("digits"), 3, 7)
    p = float((test.y_train == 1).mean())
    first = data.isel(run=0, simulated_examples=-1)
    for attack, norm, level in (("none", "l2", 0), ("none", "linf", 0), ("l2", "l2", 1), ("linf", "linf", 1)):
        at = {"norm": norm, "level": level}
        margins = data["class"] * data.output_mean.sel(attack=attack) / data.output_sd
        prior = xr.DataArray([p, 1 - p], dims="class")
        line = (prior * xr.apply_ufunc(ndtr, -margins)).sum("class")
        np.testing.assert_allclose(line, data.adversarial_error.isel(examples=-1).sel(at), atol=1e-12)
        wrong = (data.label * data.simulated_output.sel(attack=attack) <= 0).mean("image")
        point = first.simulated_adversarial_error.sel(norm=norm, simulated_level=level)
        np.testing.assert_allclose(wrong, point, atol=1e-12)
    shown = test.X_test[data.shown] + test.mean
    np.testing.assert_allclose(data.shown_image.sel(attack="none", training="l2"), shown, atol=1e-12)
    moved = abs(data.shown_image.sel(attack="linf") - data.shown_image.sel(attack="none")).max(["shown", "feature"])
    np.testing.assert_allclose(moved, data.test_epsilon.sel(norm="linf", level=1), rtol=1e-9)


def test_attacks_in_another_direction_break_the_rule_of_the_margins() -> None:
    rng = np.random.default_rng(1)
    w, X, y = rng.standard_normal(20), rng.standard_normal((500, 20)), rng.choice([-1.0, 1.0], 500)
    for norm in ("l2", "linf"):
        assert study._exceptions(w, 0.3, X, y, 0.5, norm) == 0  # an identity, and no claim of the study
        with pytest.MonkeyPatch.context() as patch:
            other = rng.permutation(study._direction(w, norm))
            patch.setattr(study, "_direction", Mock(return_value=other))
            assert study._exceptions(w, 0.3, X, y, 0.5, norm) > 100


def test_a_study_with_several_figures_saves_each(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(self: Study, **_: object) -> Outcome:
        figures: dict[str, Figure] = {"one": new_figure()[0], "two": new_figure()[0]}
        return Outcome(xr.Dataset(), figures, "table", ())

    monkeypatch.setattr(Study, "run", run)
    assert main(["run", "mnist_3v7", "--out", str(tmp_path)]) == 0
    names = [
        "mnist_3v7.nc",
        *(f"mnist_3v7_{key}.{suffix}" for key in ("one", "two") for suffix in ("pdf", "png", "svg")),
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    printed = capsys.readouterr().out
    assert all(str(tmp_path / name) in printed for name in names)
