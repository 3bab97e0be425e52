"""No data but a test's own."""

import socket
from pathlib import Path

import pytest

from deepcheck.data import sources


@pytest.fixture(autouse=True)
def nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test find no data but its own, and no network."""
    pooch = pytest.importorskip("pooch")
    monkeypatch.delenv("DEEPCHECK_DATA", raising=False)
    monkeypatch.setattr(pooch, "os_cache", lambda _: tmp_path / "cache")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}/"
    monkeypatch.setattr(sources, "_MNIST_URLS", (nobody, nobody))
    monkeypatch.setattr(sources, "_CIFAR10_URLS", (nobody,))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
