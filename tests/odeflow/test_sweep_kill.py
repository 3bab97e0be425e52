"""A sweep that is killed again and again leaves the file that an undisturbed one leaves, to the byte."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

SWEEP = """
import sys
import numpy as np
import odeflow.provenance.attributes
from odeflow import Adversary, GaussianMixture, LearningRule, sweep

class Clock(odeflow.provenance.attributes.datetime):
    @classmethod
    def now(cls, zone):
        return cls(2000, 1, 1, tzinfo=zone)

odeflow.provenance.attributes.datetime = Clock  # the time of the start is the one thing in which two sweeps differ
print("ready", flush=True)
sweep(
    GaussianMixture(p=0.7), LearningRule(), Adversary(),
    over={"rho": np.linspace(0.5, 4, 40), "epsilon": np.linspace(0, 2, 30)},
    alpha=np.linspace(0, 100, 50), store=sys.argv[1], chunk=20,
)
"""


def content(target: Path) -> dict[str, bytes]:
    """Return the bytes of a file, or of the files in a folder, by name."""
    files = [target] if target.is_file() else [path for path in target.rglob("*") if path.is_file()]
    return {str(path.relative_to(target)): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
def test_kill_9_at_random_moments(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "killed").mkdir()
    target, calm = tmp_path / "killed" / f"sweep{suffix}", tmp_path / f"sweep{suffix}"
    command = [sys.executable, "-c", SWEEP]
    assert subprocess.run([*command, str(calm)], check=True, capture_output=True).returncode == 0

    rng = np.random.default_rng()
    parts = 0
    for _ in range(4):
        with subprocess.Popen([*command, str(target)], stdout=subprocess.PIPE) as process:
            goal = parts + rng.integers(1, 20)
            while process.poll() is None and len(list(tmp_path.glob("killed/*/*.part"))) < goal:
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.01))  # anywhere in the writing of a part
            process.kill()
        found = len(list(tmp_path.glob("killed/*/*.part")))
        assert found >= parts or target.exists()  # what was finished stays
        parts = found
    assert subprocess.run([*command, str(target)], check=True, capture_output=True).returncode == 0
    assert content(target) == content(calm)
    assert [path.name for path in target.parent.iterdir()] == [target.name]
