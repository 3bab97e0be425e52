"""A file that is not what was written is one clear error that names it; none is read for ever."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import h5netcdf  # type: ignore[import-untyped]
import numpy as np
import pytest
import xarray as xr

from odeflow import Adversary, GaussianMixture, LearningRule, integrate, load, save, sweep
from odeflow.provenance import results

PARTS = (GaussianMixture(p=0.7), LearningRule(), Adversary(0.3))
OVER = {"rho": [1.0, 2.0, 3.0], "epsilon": [0.0, 0.5]}


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return sweep(*PARTS, over=OVER, alpha=[0.0, 1.0, 10.0])


def plain(result: xr.Dataset) -> bytes:
    """Return a netCDF file as other programs, and odeflow until now, write it."""
    return bytes(result.to_netcdf(engine="h5netcdf"))


def assert_damaged(path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{path.name}' is not .* that can be read: ") as error:
        load(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("by_sweep", [True, False])
def test_every_damage_of_a_file_is_found(tmp_path: Path, result: xr.Dataset, by_sweep: bool) -> None:
    """Of a file without a checksum, zeros hang HDF5 in one block of twelve and change numbers silently in others."""
    path = tmp_path / "run.nc"
    if by_sweep:
        sweep(*PARTS, over=OVER, alpha=[0.0, 1.0, 10.0], store=path).close()
    else:
        save(result, path)
    whole = path.read_bytes()
    damaged = tmp_path / "damaged.nc"
    for first in range(0, len(whole), 512):
        zeroed = bytearray(whole)
        zeroed[first : first + 512] = bytes(len(whole[first : first + 512]))
        damaged.write_bytes(zeroed)
        if zeroed != whole:
            assert_damaged(damaged)
        flipped = bytearray(whole)
        flipped[first + 11] ^= 1 << (first // 512 % 8)
        damaged.write_bytes(flipped)
        assert_damaged(damaged)
        damaged.write_bytes(whole[:first])
        if len(whole) - first > 80:
            assert_damaged(damaged)
    damaged.write_bytes(whole)
    assert load(damaged).equals(result)


def test_a_file_without_checksum_is_loaded(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "old.nc"
    path.write_bytes(plain(result))
    assert load(path).identical(result)
    path.write_bytes(plain(result) + b"what others put there")
    assert load(path).identical(result)


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ("while True:\n    pass", "takes more than 1 s to read it"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "crashes on it"),
    ],
)
def test_a_file_without_checksum_is_not_read_for_ever(
    tmp_path: Path, result: xr.Dataset, monkeypatch: pytest.MonkeyPatch, reading: str, message: str
) -> None:
    monkeypatch.setattr(results, "_READ", reading)
    monkeypatch.setattr(results, "_PATIENCE", 1.0)
    path = tmp_path / "old.nc"
    path.write_bytes(plain(result))
    with pytest.raises(ValueError, match=rf"old\.nc' is not a netCDF file .*{message}"):
        load(path)
    with pytest.raises(ValueError, match=rf"old\.nc' cannot be continued: .*{message}"):
        sweep(*PARTS, over=OVER, alpha=[1.0], store=path)


def test_other_programs_do_not_see_the_checksum(tmp_path: Path, result: xr.Dataset) -> None:
    path = save(result, tmp_path / "run.nc")
    with xr.open_dataset(path, engine="h5netcdf") as opened:
        assert opened.load().identical(result)
    with xr.open_dataset(io.BytesIO(path.read_bytes()), engine="h5netcdf") as opened:
        assert opened.load().identical(result)
    with h5netcdf.File(path, "a") as file:
        file.attrs["note"] = "mine"
        file["R"][0] = 0.5
    changed = load(path)  # what a program changes has no checksum any more
    assert changed.attrs["note"] == "mine"
    assert np.all(changed.R[0] == 0.5)


def test_every_damage_of_a_zarr_store_is_found(tmp_path: Path, result: xr.Dataset) -> None:
    path = tmp_path / "run.zarr"
    sweep(*PARTS, over=OVER, alpha=[0.0, 1.0, 10.0], store=path).close()
    damages: list[Callable[[Path], object]] = [
        Path.unlink,
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.write_bytes(bytes(len(file.read_bytes()))),
        lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
    ]
    files = [file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file()]
    assert len(files) > 20
    assert any(file.parts[0] == "status" and file.name != "zarr.json" for file in files)  # 0 is written too
    copy = tmp_path / "damaged.zarr"
    for k, file in enumerate(files):
        for damage in damages if "R" in file.parts else [damages[k % len(damages)]]:
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(path, copy)
            damage(copy / file)
            if file.parts[0] == "odeflow_checksums" and not (copy / file).exists():
                continue  # the numbers are whole, and nothing says that there was a checksum
            assert_damaged(copy)
    assert load(path).equals(result)


def test_a_zarr_store_without_checksums_is_loaded(tmp_path: Path, result: xr.Dataset) -> None:
    path = save(result, tmp_path / "run.zarr")
    with xr.open_zarr(path, consolidated=False) as opened:  # other programs do not see them
        assert opened.load().identical(result)
    shutil.rmtree(path / "odeflow_checksums")
    assert load(path).identical(result)
    (path / "R" / "zarr.json").write_text("{}")
    assert_damaged(path)
    (path / "zarr.json").write_bytes(b"\xff")
    assert_damaged(path)


def test_a_lost_chunk_of_status_is_not_done(tmp_path: Path) -> None:
    """To a program that knows of no checksum, a point whose status is lost is not a point that is done."""
    path = tmp_path / "run.zarr"
    sweep(*PARTS, over=OVER, alpha=[1.0], store=path).close()
    for chunk in (path / "status" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    with xr.open_zarr(path, consolidated=False) as opened:
        assert np.all(opened.status != 0)


def test_what_is_no_result_names_the_file(tmp_path: Path) -> None:
    result = integrate(*PARTS, alpha=[1.0])
    for content in (b"", b"\x89HDF\r\n\x1a\n", b"CDF\x01" + bytes(100), bytes(5000), b"<html>", plain(result)[:48]):
        path = tmp_path / "run.nc"
        path.write_bytes(content)
        assert_damaged(path)
    for folder in ("run.zarr", "folder.nc"):
        (tmp_path / folder).mkdir()
        assert_damaged(tmp_path / folder)
    (tmp_path / "file.zarr").write_bytes(b"no folder")
    assert_damaged(tmp_path / "file.zarr")
