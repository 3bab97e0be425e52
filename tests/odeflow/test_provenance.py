"""Results say what made them; files are whole or not there."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, SaveError, integrate, load, save, simulate
from odeflow.plot import plot, save_figure

MODEL = (GaussianMixture(p=0.6), LearningRule(), Adversary(0.5))


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return integrate(*MODEL, alpha=np.linspace(0, 10, 50))


@contextmanager
def full_disk(size: int = 1000) -> Iterator[None]:
    """Let no file grow beyond `size` bytes: a write fails as it does on a full disk."""
    resource = pytest.importorskip("resource")  # not on Windows
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_attributes_say_what_made_a_result(result: xr.Dataset) -> None:
    assert all(isinstance(value, str) for value in result.attrs.values())
    assert json.loads(result.attrs["configuration"])["function"] == "integrate"
    for name in ("odeflow", "numpy", "scipy", "numba", "torch"):
        assert result.attrs[f"{name}_version"]
    assert result.attrs["git_commit"] == "unknown" or len(result.attrs["git_commit"]) == 40
    assert result.attrs["git_dirty"] in ("true", "false", "unknown")
    assert result.attrs["device"].startswith("cpu: ")
    assert result.attrs["created"].endswith("+00:00")


def test_a_fresh_seed_is_recorded_and_repeats_the_result() -> None:
    first = simulate(*MODEL, N=10, alpha=[1.0], runs=2)
    entropy = int(first.attrs["seed"].split("entropy=")[1].split(",")[0])
    again = simulate(*MODEL, N=10, alpha=[1.0], runs=2, rng=np.random.SeedSequence(entropy))
    np.testing.assert_array_equal(first.R, again.R)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_what_is_saved_is_loaded(result: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    assert save(result, path) == path
    assert load(path).identical(result)
    other = result.isel(alpha=slice(3))
    save(other, path)  # in place of the old one
    assert load(path).identical(other)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_bits_survive(result: xr.Dataset, tmp_path: Path) -> None:
    odd = result.assign(R=result.R.where(result.alpha > 1, np.nan), b=result.b * 0 - np.inf)
    assert load(save(odd, tmp_path / "odd.nc")).identical(odd)


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_full_disk_leaves_the_old_file(result: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"run{suffix}"
    save(result, path)
    longer = integrate(*MODEL, alpha=np.linspace(0, 10, 5000))
    longer["R"] += np.random.default_rng(1).random(5000)  # nothing that compresses away
    with full_disk(), pytest.raises(SaveError, match=rf"run{suffix}' could not be saved"):
        save(longer, path)
    assert load(path).identical(result)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".pdf", ".png", ".svg"])
def test_a_full_disk_leaves_no_half_figure(result: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    figure = plot(result)
    with full_disk(), pytest.raises(SaveError, match="could not be saved"):
        save_figure(figure, tmp_path / f"figure{suffix}")
    assert not list(tmp_path.iterdir())


def test_bad_targets(result: xr.Dataset, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'\.txt'.*\.nc, \.zarr"):
        save(result, tmp_path / "run.txt")
    with pytest.raises(FileNotFoundError, match="nowhere' does not exist"):
        save(result, tmp_path / "nowhere" / "run.nc")


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_a_missing_file(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"none{suffix}'.*no such file"):
        load(tmp_path / f"none{suffix}")


@pytest.mark.parametrize("keep", [0, 100, 2000])
def test_a_truncated_file(result: xr.Dataset, tmp_path: Path, keep: int) -> None:
    path = save(result, tmp_path / "run.nc")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"run\.nc' is not a netCDF file that can be read: "):
        load(path)


def test_a_store_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "run.zarr").mkdir()
    with pytest.raises(ValueError, match=r"run\.zarr' is not a Zarr store"):
        load(tmp_path / "run.zarr")
    with pytest.raises(ValueError, match=r"suffix '\.csv'"):
        load(tmp_path / "run.csv")


def test_the_core_never_imports_what_only_others_need() -> None:
    import subprocess

    code = "import sys, odeflow; print(sorted({'torch', 'numba', 'xarray', 'matplotlib', 'tyro'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_what_is_not_a_result_is_not_replaced(result: xr.Dataset, tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / f"folder{suffix}"
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="it is not replaced"):
        save(result, folder)
    assert (folder / "thesis.tex").read_text() == "years of work"


def test_a_store_survives_a_failed_replacement(
    result: xr.Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(result, tmp_path / "run.zarr")
    real = Path.replace

    def fails_on_the_new(self: Path, target: Path) -> Path:
        if target == path and self.name == "new.zarr":
            raise OSError("no space left on device")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", fails_on_the_new)
    with pytest.raises(SaveError, match="no space"):
        save(result.isel(alpha=slice(3)), path)
    monkeypatch.undo()
    assert load(path).identical(result)
