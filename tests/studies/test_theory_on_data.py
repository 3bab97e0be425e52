"""Theory on real images: what is there is studied, what is missing is named, and the curves fit together."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from deepcheck.data import DataError, Images, load
from odeflow import load as load_result
from studies.__main__ import main
from studies.theory_on_data import study

QUICK = ["run", "theory_on_data", "--quick", "--out"]


def only_digits(name: str, *, download: bool = True) -> Images:
    if name != "digits":
        raise DataError(f"{name} is not on this shelf")
    return load(name, download=download)


@pytest.fixture(scope="module")
def digits_alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Return the folder that the quick study writes to, and what it prints, if there are only the digits."""
    out, printed = tmp_path_factory.mktemp("theory_on_data"), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed):
        patch.setattr(study, "load", only_digits)
        assert main([*QUICK, str(out)]) == 0
    return out, printed.getvalue()


def test_without_data_sets_it_studies_the_digits_and_says_what_is_missing(digits_alone: tuple[Path, str]) -> None:
    out, printed = digits_alone
    assert printed.count("MISSING, and so left out: mnist: mnist is not on this shelf") == 1
    assert "FAIL" not in printed
    figures = {f"theory_on_data_digits_3_vs_7{suffix}" for suffix in (".pdf", ".png", ".svg")}
    assert {path.name for path in out.iterdir()} == {"theory_on_data.nc"} | figures
    data = load_result(out / "theory_on_data.nc")
    assert set(data.pair.values) == {"digits 3 vs 7"}
    assert data.attrs["missing"] == "mnist: mnist is not on this shelf"
    assert all(claim["holds"] for claim in json.loads(data.attrs["claims"]))


def test_with_no_data_set_at_all_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str, *, download: bool = True) -> Images:
        raise DataError(f"no {name}")

    monkeypatch.setattr(study, "load", nothing)
    with pytest.raises(DataError, match=r"no data set is there.*no digits.*no mnist"):
        study.run("theory_on_data", quick=True)


def test_the_file_is_labelled_and_its_curves_fit_together(digits_alone: tuple[Path, str]) -> None:
    data = load_result(digits_alone[0] / "theory_on_data.nc")
    for variable in data.variables.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"] == "1"

    one = data.sel(setting="digits 3 vs 7, linf 0.1, eta 0.1")
    assert one.test_epsilon.dims == ("test",)
    assert one.examples[-1] == one.simulated_examples[-1] == 2000
    np.testing.assert_allclose(one.test_epsilon[::5], one.simulated_test_epsilon, rtol=1e-12)
    np.testing.assert_allclose(one.examples[3::4], one.simulated_examples, rtol=1e-12)

    # S without an attack is E; S grows with epsilon
    np.testing.assert_allclose(one.adversarial_error.isel(test=0), one.error.isel(time=-1), rtol=1e-9)
    np.testing.assert_allclose(
        one.simulated_adversarial_error.isel(simulated_test=0), one.simulated_error.isel(simulated_time=-1), atol=1e-12
    )
    for S, dim in ((one.adversarial_error, "test"), (one.simulated_adversarial_error, "simulated_test")):
        assert (S.diff(dim) >= 0).all()

    # the noise of SGD makes the weights longer
    assert (data.dual_norm.sel(theory="with noise") > data.dual_norm.sel(theory="eta -> 0")).all()
    # the parts of the difference from the images are not less than the whole (triangle inequality)
    whole = data.difference.sel(theory="with noise", sample="images")
    assert (whole <= data.part.sum("cause") + 1e-12).all()
