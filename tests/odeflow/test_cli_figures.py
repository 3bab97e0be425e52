"""``odeflow plot``, and --plot, --width and --table of other commands: every kind of file is drawn, or refused in one line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import xarray as xr
from matplotlib.image import imread

from odeflow import Adversary, LearningRule, anisotropic, latex, load, save
from odeflow.cli import main
from tests.odeflow.test_latex import KINDS
from tests.odeflow.test_latex import result as result_of

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status_of(command: str) -> int:
    try:
        return main(command.split())
    except SystemExit as end:
        return int(end.code or 0)


def saved(kind: str, folder: Path) -> Path:
    found = result_of(kind)
    return save(found if isinstance(found, xr.Dataset) else found.to_dataset(), folder / f"{kind.replace(' ', '_')}.nc")


REFUSED = ("bifurcations", "classifier", "times")  # a few numbers are no picture


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_result_is_drawn_or_refused_in_a_line(
    kind: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = saved(kind, folder)
    status = status_of(f"plot {file.name} --save a.png --width single --dpi 50")
    printed, complaint = capsys.readouterr()
    if kind in REFUSED:
        assert status == 2
        assert complaint.count("\n") == 1
        assert complaint.startswith(f"odeflow: {file.name}: no picture is known")
    else:
        assert (status, printed, complaint) == (0, "a.png\n", "")
        assert imread(folder / "a.png").shape[1] == 170


def strange() -> dict[str, xr.Dataset]:
    """Files that are none of odeflow's results, of other rooms and of the studies."""
    curve = xr.Dataset({"robust_error": ("epsilon", [0.1, 0.2])}, {"epsilon": [0.0, 0.1]})
    words = xr.Dataset({"name": ("x", ["a", "b"])})
    records = xr.Dataset({f"v{i}": (("attack", "example"), np.zeros((2, 3))) for i in range(12)})
    hostile = xr.Dataset({"R": ("alpha", [0.0, 1.0])}, {"alpha": [0.0, 1.0]}, {"configuration": "{not json"})
    nan = xr.Dataset({"R": ("alpha", [np.nan, np.nan])}, {"alpha": [0.0, 1.0]})
    return {
        "curve": curve,
        "words": words,
        "records": records,
        "hostile": hostile,
        "nan": nan,
        "empty": xr.Dataset(),
        "one point": xr.Dataset({"R": ("alpha", [0.5])}, {"alpha": [1.0]}),
        "text dim": xr.Dataset({"R": (("training", "alpha"), np.ones((2, 3)))}, {"training": ["a", "b"], "alpha": [1.0, 2, 3]}),
        "five dims": xr.Dataset({"R": (tuple("abcde"), np.ones((2,) * 5))}, {d: [0.0, 1.0] for d in "abcde"}),
        "map of one colour": xr.Dataset({"R": (("x", "y"), np.ones((9, 9)))}, {"x": np.arange(9.0), "y": np.arange(9.0)}),
        "infinite": xr.Dataset({"b": ("alpha", [np.inf, -np.inf, 1.0])}, {"alpha": [0.0, 1.0, 2.0]}),
        "a number beside a curve": xr.Dataset({"x": ("e", [0.1, 0.2]), "y": ((), 1.0)}, {"e": [0.0, 1.0]}),
        "names of entries": xr.Dataset(
            {"R": (("net", "alpha"), np.ones((2, 3))), "b": (("case", "alpha"), np.ones((2, 3)))},
            {"alpha": [0.0, 1.0, 2.0], "kind": ("net", ["a", "b"]), "size": ("net", [1, 2])},
        ),
        "two unlike dims": xr.Dataset({"R": ("x", np.ones(9)), "b": ("y", np.ones(9))}, {"x": np.arange(9.0), "y": np.arange(9.0)}),
        "study": hostile.assign_attrs(study="scenario2"),
    }  # fmt: skip


REFUSED_TOO = ("words", "records", "empty", "five dims", "two unlike dims", "study")


@pytest.mark.parametrize("name", strange())
def test_other_files_are_drawn_or_refused_in_a_line(
    name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(strange()[name], folder / "x.nc")
    status = status_of("plot x.nc --save a.svg")
    printed, complaint = capsys.readouterr()
    assert (status, printed, complaint.count("\n")) in ((0, "a.svg\n", 0), (2, "", 1))
    assert status == (2 if name in REFUSED_TOO else 0)
    assert complaint.startswith("odeflow: x.nc: ") == (status == 2)


@pytest.mark.parametrize("path", [".", "..", "/", "a"])
def test_what_is_no_file_is_refused_in_a_line(path: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of(f"plot {path}") == 2
    assert capsys.readouterr().err == f"odeflow: path = {path!r} has the suffix '': allowed is one of .nc, .zarr\n"


@pytest.mark.slow
def test_theory_on_data_is_drawn(folder: Path) -> None:
    mixture = anisotropic.Mixture(0.5, np.array([[1.0, 0.5], [-1.0, -0.5]]), np.ones((2, 2)))
    rule = LearningRule(loss="logistic", activation="linear", normalised=False, eta_w=0.1, eta_b=0.1)
    run = anisotropic.integrate(mixture, rule, Adversary(0.1), examples=[0, 50, 100], test_epsilon=[0.0, 0.1])
    save(run, folder / "x.nc")
    assert status_of("plot x.nc --save a.pdf") == 0


def test_several_files_and_the_looks_of_the_figure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status_of("integrate --p 0.7 --epsilon 1 --alpha-max 10 --points 5 --out a.nc --plot a.png --width 5 --dpi 40 --title") == 0  # fmt: skip
    assert imread(folder / "a.png").shape[1] == 200
    assert status_of("simulate --p 0.7 --epsilon 1 --alpha-max 10 --points 3 --N 20 --runs 3 --seed 1 --out b.nc") == 0
    capsys.readouterr()
    assert status_of("plot a.nc b.nc --save ab.svg --width double --table a.tex") == 0
    assert capsys.readouterr().out.split() == ["ab.svg", "a.tex"]
    assert "simulation, " in (folder / "ab.svg").read_text(encoding="utf-8")
    assert (folder / "a.tex").read_text(encoding="utf-8") == latex(load(folder / "a.nc"))


@pytest.mark.parametrize(
    "command",
    [
        "integrate --alpha-max 2 --points 3",
        "simulate --alpha-max 2 --points 3 --N 10 --runs 3 --seed 1",
        "fixed-points --p 0.6",
        "sweep --over epsilon=0,1 --alpha-max 2 --points 2 --out s.nc",
    ],
)
def test_every_command_makes_figures_and_tables(command: str, folder: Path) -> None:
    assert status_of(f"{command} --table t.tex --plot f.png --width single --dpi 50") == 0
    assert imread(folder / "f.png").shape[1] == 170
    assert (folder / "t.tex").read_text(encoding="utf-8").startswith(r"\begin{table}")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--width wide", "width = 'wide' is unknown: allowed is single, double or a number of inches"),
        ("--width 0.1", "width = 0.1 is out of range"),
        ("--dpi 1e9", "dpi = 1000000000.0 is out of range"),
        ("--table t.txt", "'.txt': allowed is one of .tex"),
        ("--table none/t.tex", "does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["integrate", "sweep --over epsilon=0,1 --out s.nc", "plot a.nc", "fixed-points"])
def test_what_cannot_be_is_refused_before_any_work(
    command: str, flags: str, message: str, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    for name in ("integrate", "sweep", "fixed_points"):
        monkeypatch.setattr(sys.modules[f"odeflow.{name}"], name, lambda *_, **__: pytest.fail("work was done"))
    save(result_of("trajectory"), folder / "a.nc")
    assert status_of(f"{command} {flags}") == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == {"a.nc"}
