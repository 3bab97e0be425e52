"""The studies run, keep their claims, and say so when they do not."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from odeflow import GaussianMixture, LearningRule, integrate, load
from odeflow.model import Adversary
from studies import STUDIES, Claim
from studies.__main__ import main
from studies.registry import Outcome, Study


@pytest.mark.parametrize("name", STUDIES)
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
