"""What is missing is downloaded, once and whole."""

import hashlib
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from deepcheck.data import DataError, load, sources
from tests.deepcheck.data.tiny import FOLDERS, MNIST, WRITERS, write_cifar10, write_mnist


class Server(ThreadingHTTPServer):
    """A web server of one folder; it counts what it is asked for."""

    asked: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(SimpleHTTPRequestHandler):
    def log_request(self, *_: object) -> None:
        assert isinstance(self.server, Server)
        self.server.asked.append(self.path)

    def log_error(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "site").mkdir()
    with Server(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path / "site"))) as server:
        server.asked = []
        thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def site(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Publish the two tiny data sets, with their hashes."""
    folder = write_mnist(tmp_path / "site")
    batches = write_cifar10(tmp_path / "batches")
    (batches / "batches.meta.txt").write_text("airplane\n")
    archive = folder / "cifar-10-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(batches, "cifar-10-batches-bin")
    monkeypatch.setattr(sources, "_MNIST_URLS", (server.url,))
    monkeypatch.setattr(sources, "_MNIST_SHA256", {f"{name}.gz": sha256(folder / f"{name}.gz") for name in MNIST})
    monkeypatch.setattr(sources, "_CIFAR10_URLS", (server.url,))
    monkeypatch.setattr(sources, "_CIFAR10_SHA256", sha256(archive))
    return folder


@pytest.mark.parametrize("name", WRITERS)
def test_a_data_set_is_downloaded_once(tmp_path: Path, site: Path, server: Server, name: str) -> None:
    first = load(name)
    asked = list(server.asked)
    assert len(asked) == {"mnist": 4, "cifar10": 1}[name]
    assert first.source == str(tmp_path / "cache" / FOLDERS[name])
    expected = load(name, data_dir=WRITERS[name](tmp_path / "expected"))
    again = load(name)
    for images in (first, again):
        np.testing.assert_array_equal(images.train_images, expected.train_images)
        np.testing.assert_array_equal(images.test_labels, expected.test_labels)
    assert server.asked == asked


def test_only_missing_files_are_downloaded(tmp_path: Path, site: Path, server: Server) -> None:
    load("mnist")
    (tmp_path / "cache" / "mnist" / f"{MNIST[2]}.gz").unlink()
    server.asked.clear()
    load("mnist")
    assert server.asked == [f"/{MNIST[2]}.gz"]


def test_an_interrupted_unpacking_is_made_whole(tmp_path: Path, site: Path, server: Server) -> None:
    load("cifar10")
    (tmp_path / "cache" / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    server.asked.clear()
    load("cifar10")
    assert server.asked == []


@pytest.mark.parametrize("name", WRITERS)
def test_a_download_with_a_wrong_hash_is_thrown_away(tmp_path: Path, site: Path, server: Server, name: str) -> None:
    file = {"mnist": f"{MNIST[1]}.gz", "cifar10": "cifar-10-binary.tar.gz"}[name]
    (site / file).write_bytes((site / file).read_bytes() + b"\0")
    says = rf"{name} is not in the cache '.*', and {file} could not be downloaded: .*gave a file with another SHA-256"
    with pytest.raises(DataError, match=says) as failure:
        load(name)
    assert failure.value.__suppress_context__
    assert not list((tmp_path / "cache").rglob(f"*{file}*"))


def test_the_mirror_helps_out(site: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (site / "mirror").mkdir()
    for name in MNIST:
        (site / f"{name}.gz").rename(site / "mirror" / f"{name}.gz")
    (site / f"{MNIST[1]}.gz").write_text("not what was published")
    monkeypatch.setattr(sources, "_MNIST_URLS", (server.url, server.url + "mirror/"))
    assert len(load("mnist").train_images) == 20


def test_a_server_that_lacks_the_file(site: Path, server: Server) -> None:
    (site / f"{MNIST[0]}.gz").unlink()
    with pytest.raises(DataError, match=rf"could not be downloaded: 404 .*{MNIST[0]}"):
        load("mnist")


@pytest.mark.parametrize("name", WRITERS)
def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DEEPCHECK_DATA", str(tmp_path / "mine"))
    says = (
        rf"{name} is not in DEEPCHECK_DATA = '.*mine' or in the cache '.*cache', and .* could not be downloaded: "
        r"http://.* could not be reached.*\(ConnectionError\).*; download .*http.* set DEEPCHECK_DATA=DIR; or use 'digits'"
    )
    with pytest.raises(DataError, match=says) as failure:
        load(name)
    assert failure.value.__suppress_context__
    assert "\n" not in str(failure.value)


def test_a_cache_that_cannot_be_written(tmp_path: Path, site: Path) -> None:
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(DataError, match=r"mnist could not be loaded: .*cache"):
        load("mnist")


def test_without_download_a_missing_data_set_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DEEPCHECK_DATA", raising=False)
    monkeypatch.setattr(sources, "_cache", lambda _: tmp_path)
    monkeypatch.setattr(sources, "_download", lambda *_: pytest.fail("downloads"))
    with pytest.raises(DataError, match=r"mnist is not in the cache .*; download the four files"):
        load("mnist", download=False)
