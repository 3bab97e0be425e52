"""A process that is killed at any of its calls that change the disk leaves nothing that another one could mistake."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")


def kill(scenario: str, suffix: str, folder: Path, every: int) -> int:
    """Kill a scenario at every `every`-th call and at its last; return how many calls there are."""
    command = [sys.executable, "-m", "tests.reliability.kills", scenario, suffix, str(folder), str(every)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    report = json.loads(run.stdout.splitlines()[-1])
    assert report["wrong"] == [], run.stderr
    calls: int = report["calls"]
    return calls


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scenario", "suffix", "every"),
    [("sweep", ".nc", 9), ("sweep", ".zarr", 130), ("extension", ".nc", 20), ("save", ".nc", 4), ("save", ".zarr", 40)],
)
def test_some_kills(tmp_path: Path, scenario: str, suffix: str, every: int) -> None:
    assert kill(scenario, suffix, tmp_path, every) > every


@pytest.mark.whole
@pytest.mark.parametrize("suffix", [".nc", ".zarr"])
@pytest.mark.parametrize("scenario", ["sweep", "extension", "save"])
def test_every_kill(tmp_path: Path, scenario: str, suffix: str) -> None:
    kill(scenario, suffix, tmp_path, 1)
