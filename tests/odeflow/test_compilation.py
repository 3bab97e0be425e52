"""Compiled code gives the same bits in the process that compiles it and in those that load it from the cache."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import odeflow

CODE = """
import numpy as np
from odeflow import integrate_batch
rho, epsilon = np.meshgrid(np.linspace(0.5, 4, 20), np.linspace(0, 2, 20))
y = integrate_batch(alpha=np.linspace(0, 100, 20), p=0.7, rho=rho, epsilon=epsilon).y
print(y.tobytes().hex())
"""


@pytest.mark.slow
def test_the_compiling_process_and_later_ones_give_the_same_bits(tmp_path: Path) -> None:
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    outputs = [
        subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert list(tmp_path.rglob("*.nbc"))
    assert len(outputs[0]) > 1000
    assert outputs[0] == outputs[1]


def test_no_kernel_leaves_rounding_to_the_compiler() -> None:
    sources = list(Path(odeflow.__file__).parent.rglob("*.py"))
    assert len(sources) > 40
    for path in sources:
        assert 'fastmath={"contract"' not in path.read_text(), path.name


HELPER = Path("numerics") / "elementary.py"
PATHS = """
import sys
sys.path.insert(0, sys.argv[1])
import odeflow
assert odeflow.__file__.startswith(sys.argv[1])
"""


@pytest.mark.slow
def test_a_changed_helper_in_any_folder_is_compiled_into_what_uses_it(tmp_path: Path) -> None:
    """numba's cache sees the file of the outermost function alone; the digest of all sources must see the rest.

    A class of an old signature that is no more there does not matter.
    """
    package = tmp_path / "copy" / "odeflow"
    shutil.copytree(Path(odeflow.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache")}

    def output() -> str:
        command = [sys.executable, "-c", PATHS + CODE, str(package.parent)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    before = output()
    helper = package / HELPER
    helper.write_text(helper.read_text().replace("y = fma(y, r, 0.5000000000000019)", "y = fma(y, r, 0.51)"))
    for path in package.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        if "SeedModel" in source:
            path.write_text(source.replace("SeedModel", "OtherModel"), encoding="utf-8")
    assert output() != before
