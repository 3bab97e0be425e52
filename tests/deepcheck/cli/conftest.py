"""A net to run commands on, and an empty folder to run them in."""

import shutil
from pathlib import Path

import pytest

from tests.deepcheck.cli.commands import TRAIN, status_of


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a net after three epochs."""
    folder = tmp_path_factory.mktemp("trained") / "net"
    assert status_of(f"{TRAIN} --epochs 3 --out {folder}") == 0
    return folder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def net(trained: Path) -> str:
    """The folder, copied to where the test runs."""
    shutil.copytree(trained, "net")
    return "net"
