"""The studies run, keep their claims, and say so when they do not."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import studies
from odeflow import GaussianMixture, LearningRule, integrate, load
from odeflow.model import Adversary
from studies import STUDIES, Claim
from studies.__main__ import main
from studies.registry import Outcome, Study, find_studies


# Those that train nets take minutes each even so; in small form they are in the tests of each of them.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.whole if study.long else ()) for name, study in STUDIES.items()]
)
def test_every_study_keeps_its_claims(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", name, "--quick", "--out", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "pass  " in printed
    assert "FAIL" not in printed
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".nc", ".pdf", ".png", ".svg"}
    data = load(tmp_path / f"{name}.nc")
    assert data.attrs["study"] == name
    assert json.loads(data.attrs["quick"]) is True
    claims = json.loads(data.attrs["claims"])
    assert claims
    assert all(claim["holds"] for claim in claims)
    assert all(claim["rival"] for claim in claims)
    assert bool(json.loads(data.attrs["parts"])) is STUDIES[name].long
    assert data.attrs["seed"]


def test_a_scenario_holds_what_its_figure_shows(tmp_path: Path) -> None:
    main(["run", "scenario2", "--quick", "--out", str(tmp_path)])
    data = load(tmp_path / "scenario2.nc")
    assert data.R.dims == ("training", "alpha")
    assert data.simulated_R.dims == ("training", "run", "simulated_alpha")
    assert data.robustness.dims == ("training", "test_epsilon")
    expected = integrate(GaussianMixture(p=0.7), LearningRule(), Adversary(1.0), alpha=data.alpha, test_epsilon=1.0)
    np.testing.assert_array_equal(data.R.sel(training="adversarial"), expected.R)
    np.testing.assert_array_equal(data.adversarial_error.sel(training="adversarial"), expected.adversarial_error)
    for variable in data.variables.values():
        assert variable.attrs.get("long_name")


def test_a_claim_that_fails_is_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Study.run

    def doubtful(self: Study, *, quick: bool = False, folder: Path | None = None) -> Outcome:
        outcome = real(self, quick=quick, folder=folder)
        return replace(outcome, claims=(*outcome.claims, Claim("the moon is cheese", "it is not", False)))

    monkeypatch.setattr(Study, "run", doubtful)
    assert main(["run", "scenario1", "--quick", "--out", str(tmp_path)]) == 1
    assert "FAIL  the moon is cheese: it is not" in capsys.readouterr().out


def test_list(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(STUDIES)


def test_a_study_is_found_by_its_file(tmp_path: Path) -> None:
    assert {study.module for study in find_studies().values()} == {study.module for study in STUDIES.values()}
    (tmp_path / "one.py").write_text('"""Doc."""\n\nSTUDIES = [{"name": "late", "title": "t"}]\n')
    text = '"""Doc."""\n\nimport torch_that_is_not_there\n\nSTUDIES = [\n    {"name": "early", "title": "t", "place": 5, "long": True},\n]\n'
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "__init__.py").write_text(text)
    (tmp_path / "two" / "figures.py").write_text("STUDY = 1\n")
    found = find_studies(tmp_path)
    assert list(found) == ["early", "late"]
    assert found["early"] == Study("early", "t", "studies.two", long=True, place=5)
    (tmp_path / "three.py").write_text('\nSTUDIES = [{"name": "late", "title": "again"}]\n')
    with pytest.raises(ValueError, match=r"there is a study 'late' already, in studies\.one"):
        find_studies(tmp_path)


@pytest.mark.parametrize(
    "listed", ["[dict(name='a', title='b')]", "[{'name': 'a'}]", "[{'name': 'a', 'title': 'b', 'tile': 'c'}]", "3"]
)
def test_a_list_of_studies_that_cannot_be_read_is_named(listed: str, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(f"\nSTUDIES = {listed}\n")
    with pytest.raises(ValueError, match=r"one\.py: STUDIES is not written out as a list of dicts with name, title"):
        find_studies(tmp_path)


def _list_in(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m studies list`` in a folder, with the package after the folder on Python's path."""
    environment = os.environ | {"PYTHONPATH": str(Path(studies.__file__).parents[1])}
    command = [sys.executable, *options, "-m", "studies", "list"]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600, check=False
    )


def test_it_works_beside_a_folder_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "registry.py").write_text("raise SystemExit('not this one')\n")
    run = _list_in(tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert [line.split()[0] for line in run.stdout.splitlines()] == list(STUDIES)


def test_a_package_of_the_same_name_hides_it_and_python_says_so(tmp_path: Path) -> None:
    """With an `__init__.py` the folder is what Python runs, and nothing of ours; the docs name the flag that helps."""
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "__init__.py").touch()
    run = _list_in(tmp_path)
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert "No module named studies.__main__" in run.stderr
    run = _list_in(tmp_path, "-P")
    assert (run.returncode, run.stderr) == (0, "")
    assert [line.split()[0] for line in run.stdout.splitlines()] == list(STUDIES)


def test_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["run", "scenaro1", "--out", str(tmp_path)]) == 2
    assert "did you mean 'scenario1'?" in capsys.readouterr().err
    assert main(["run", "scenario1", "--out", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    for arguments in (["run"], ["walk"], ["list", "--fast"], []):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())
