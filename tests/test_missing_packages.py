"""On a machine that lacks packages, what does not need them works, and what does names them in one line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
LACKING = """
import sys
from importlib.machinery import PathFinder

there = PathFinder.find_spec
PathFinder.find_spec = lambda name, *rest: None if name.partition(".")[0] in {packages!r} else there(name, *rest)
"""


def said(packages: list[str], script: str, folder: Path) -> Any:
    """What a program prints, as JSON, on a machine that lacks some packages."""
    text = LACKING.format(packages=packages) + script
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], cwd=folder, env=None, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


WITHOUT_STORES = ["zarr", "numcodecs", "pooch", "dask", "distributed"]
ALL_MODULES = f"""
import importlib, json, pkgutil
sys.path.insert(0, {str(ROOT)!r})
names = []
for room in ("odeflow", "deepcheck", "studies"):
    package = importlib.import_module(room)
    names += [room, *(one.name for one in pkgutil.walk_packages(package.__path__, room + "."))]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(json.dumps(names))
"""


@pytest.mark.slow
def test_every_module_loads_without_zarr_and_pooch(tmp_path: Path) -> None:
    names = said(WITHOUT_STORES, ALL_MODULES, tmp_path)
    assert {"odeflow.sweeps.store", "deepcheck.data.sources", "studies.ccat.study"} <= set(names)


RESULTS = f"""
import json
sys.path.insert(0, {str(ROOT)!r})
import numpy as np, xarray as xr
import odeflow

def error(function, *arguments):
    try:
        function(*arguments)
    except ModuleNotFoundError as error:
        return [str(error), error.name]
    except ValueError:  # that is no store
        return None

result = xr.Dataset({{"a": ("x", np.arange(3.0))}})
saved = None if error(odeflow.save, result, "a.nc") else odeflow.load("a.nc").a.values.tolist()
from pathlib import Path
Path("old.zarr").mkdir()
print(json.dumps([saved, error(odeflow.save, result, "a.zarr"), error(odeflow.load, "old.zarr"), error(odeflow.save, result, "b.nc")]))
"""


def test_a_zarr_store_needs_zarr_and_nothing_else_does(tmp_path: Path) -> None:
    saved, storing, loading, file = said(WITHOUT_STORES, RESULTS, tmp_path)
    assert saved == [0, 1, 2]
    assert storing == ["path = 'a.zarr' needs zarr, which is not installed: pip install zarr", "zarr"]
    assert loading == ["path = 'old.zarr' needs zarr, which is not installed: pip install zarr", "zarr"]
    assert file is None
    assert {path.name for path in tmp_path.iterdir()} == {"a.nc", "b.nc", "old.zarr"}


def test_a_netcdf_file_needs_h5netcdf(tmp_path: Path) -> None:
    *_, file = said(["h5netcdf"], RESULTS, tmp_path)
    assert file == ["path = 'b.nc' needs h5netcdf, which is not installed: pip install h5netcdf", "h5netcdf"]


DATA = f"""
import json, os
sys.path.insert(0, {str(ROOT)!r})
from deepcheck.data import load
try:
    load("mnist")
except ImportError as error:
    print(json.dumps(str(error)))
"""


def test_data_that_would_be_fetched_need_pooch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DEEPCHECK_DATA", raising=False)
    said_ = said(["pooch"], DATA, tmp_path)
    assert said_ == "pooch is needed to find mnist in the cache or to download it: pip install 'odeflow[data]'"
