"""Where compiled code cannot be kept, it is compiled anew, which is said once."""

import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import odeflow

CODE = """
from odeflow.order_parameters.perceptron import averages
from odeflow.anisotropic import lasso
from odeflow.numerics.compilation import sources_digest
print(round(float(averages.g_prime(0.0, 1.0)), 6))
"""


def copy_that_keeps_nothing(folder: Path) -> Path:
    """Copy the package into a folder where a plain file stands in the place of each cache, which stops even root."""
    package = folder / "odeflow"
    shutil.copytree(Path(odeflow.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for inner in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (inner / "__pycache__").touch()
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="HOME is not where Windows keeps caches")
def test_a_read_only_package_without_a_home_runs_and_warns_once(tmp_path: Path) -> None:
    package = copy_that_keeps_nothing(tmp_path)
    (tmp_path / "home").touch()
    (tmp_path / "temporary").mkdir()
    environment = {
        name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")
    }
    environment |= {"PYTHONPATH": str(package), "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "temporary")}
    command = [sys.executable, "-W", "always::RuntimeWarning", "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert float(done.stdout) == round(2 / (3 * math.pi) ** 0.5, 6)
    assert done.stderr.count("NUMBA_CACHE_DIR") == 1
    assert not list((tmp_path / "temporary").iterdir())  # what was compiled goes with the process

    kept = tmp_path / "kept"
    done = subprocess.run(
        command,
        env={**environment, "NUMBA_CACHE_DIR": str(kept)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stderr == ""
    assert list(kept.rglob("*.nbc"))


def test_every_file_with_compiled_code_that_is_kept_asks_where() -> None:
    files = [path.read_text(encoding="utf-8") for path in Path(odeflow.__file__).parent.rglob("*.py")]
    keeping = [text for text in files if "cache=True" in text or re.search(r"@kept|= kept\(", text)]
    assert len(keeping) > 5
    asks = re.compile(r"odeflow\.numerics\.compilation|from odeflow\.numerics import compilation|def _find_cache")
    assert all(asks.search(text) for text in keeping)
