"""The data sets are what the literature says they are; files that are not are refused, each with its reason."""

import gzip
import hashlib
import os
import socket
import struct
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import FrozenInstanceError
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcheck.data import DataError, Images, load, sources, two_classes

MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR10 = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")


# --- tiny data sets, written byte by byte ---


def pixels(count: int, *shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(count).integers(0, 256, (count, *shape), dtype=np.uint8)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder: Path, *, compress: bool = True) -> Path:
    """Write 20 training and 10 test images; image k has the label k % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = (pixels(20, 28, 28), np.arange(20) % 10, pixels(10, 28, 28), np.arange(10))
    for name, content in zip(MNIST, [idx(array) for array in contents], strict=True):
        if compress:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)
    return folder


def write_cifar10(folder: Path) -> Path:
    """Write 4 images into each file; image k of the data_batch files has the label k % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    images = pixels(20, 3072)
    for batch, name in enumerate(CIFAR10[:5]):
        records = [bytes([k % 10]) + images[k].tobytes() for k in range(4 * batch, 4 * batch + 4)]
        (folder / name).write_bytes(b"".join(records))
    (folder / CIFAR10[5]).write_bytes(b"".join(bytes([label]) + bytes([label] * 3072) for label in range(4)))
    return folder


WRITERS: dict[str, Callable[[Path], Path]] = {"mnist": write_mnist, "cifar10": write_cifar10}
FOLDERS = {"mnist": "mnist", "cifar10": "cifar-10-batches-bin"}


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


# --- the real data ---

REAL = os.environ.get("DEEPCHECK_DATA", "")


def real(name: str) -> Images:
    if not REAL:
        pytest.skip("DEEPCHECK_DATA is not set: the real data are missing")
    if sources._look(Path(REAL), name)[1]:
        pytest.skip(f"DEEPCHECK_DATA has no {name}")
    return load(name, data_dir=REAL)


@pytest.fixture(scope="module")
def mnist() -> Images:
    return real("mnist")


@pytest.fixture(scope="module")
def cifar10() -> Images:
    return real("cifar10")


def test_mnist_is_the_published_data_set(mnist: Images) -> None:
    assert mnist.train_images.shape == (60_000, 1, 28, 28)
    assert mnist.test_images.shape == (10_000, 1, 28, 28)
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    np.testing.assert_array_equal(np.bincount(mnist.train_labels), train)
    np.testing.assert_array_equal(np.bincount(mnist.test_labels), test)
    np.testing.assert_array_equal(mnist.train_labels[:8], [5, 0, 4, 1, 9, 2, 1, 3])
    histogram = np.bincount(mnist.train_images.ravel(), minlength=256) / mnist.train_images.size
    grey = np.arange(256) / 255
    mean = histogram @ grey
    assert mean == pytest.approx(0.1307, abs=5e-5)
    assert np.sqrt(histogram @ (grey - mean) ** 2) == pytest.approx(0.3081, abs=5e-5)


def test_cifar10_is_the_published_data_set(cifar10: Images) -> None:
    assert cifar10.train_images.shape == (50_000, 3, 32, 32)
    assert cifar10.test_images.shape == (10_000, 3, 32, 32)
    np.testing.assert_array_equal(np.bincount(cifar10.train_labels), [5000] * 10)
    np.testing.assert_array_equal(np.bincount(cifar10.test_labels), [1000] * 10)
    channels = cifar10.train_images.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(channels, [0.4914, 0.4822, 0.4465], atol=5e-5)


def test_cifar10_has_the_channels_and_classes_where_they_belong(cifar10: Images) -> None:
    means = {
        name: cifar10.train_images[cifar10.train_labels == label].mean(axis=(0, 2, 3))
        for label, name in enumerate(cifar10.class_names)
    }
    for name in ("airplane", "ship"):  # sky and sea
        assert means[name].argmax() == 2
    for name in ("deer", "frog", "horse"):  # earth and leaves
        assert means[name].argmin() == 2


def test_three_against_seven(mnist: Images) -> None:
    pair = two_classes(mnist, 3, 7)
    assert pair.name == "mnist 3 vs 7"
    assert pair.X_train.shape == (6131 + 6265, 784)
    assert pair.X_test.shape == (1010 + 1028, 784)
    assert pair.y_train.sum() == 6131 - 6265
    np.testing.assert_allclose(pair.X_train.mean(axis=0), 0, atol=1e-12)


def test_airplane_against_cat(cifar10: Images) -> None:
    pair = two_classes(cifar10, "airplane", "cat", centre=False)
    assert (pair.positive, pair.negative, pair.N) == (0, 3, 3072)
    assert pair.X_train.shape == (10_000, 3072)
    first = np.flatnonzero(np.isin(cifar10.train_labels, [0, 3]))[0]
    np.testing.assert_array_equal(pair.X_train[0].reshape(3, 32, 32) * 255, cifar10.train_images[first])


# --- the digits ---


def test_digits_are_always_there() -> None:
    digits = load("digits")
    assert digits.shape == (1, 8, 8)
    assert digits.class_names == tuple("0123456789")
    assert digits.source == "scikit-learn"
    assert {array.dtype.name for array in (digits.train_images, digits.test_images)} == {"uint8"}


def test_digits_are_scikit_learns() -> None:
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    original, digits = load_digits(), load("digits")
    test = list(range(4, 1797, 5))
    train = sorted(set(range(1797)) - set(test))
    np.testing.assert_array_equal(digits.test_labels, original.target[test])
    np.testing.assert_array_equal(digits.train_labels, original.target[train])
    for images, chosen in ((digits.train_images, train), (digits.test_images, test)):
        assert len(np.unique(images)) == 17
        np.testing.assert_allclose(images[:, 0] / 255, original.images[chosen] / 16, atol=0.5 / 255 + 1e-12)


# --- formats and places ---


@pytest.mark.parametrize("compress", [True, False])
def test_mnist_files_are_read(tmp_path: Path, compress: bool) -> None:
    images = load("mnist", data_dir=write_mnist(tmp_path, compress=compress))
    np.testing.assert_array_equal(images.train_images[:, 0], pixels(20, 28, 28))
    np.testing.assert_array_equal(images.train_labels, np.arange(20) % 10)
    np.testing.assert_array_equal(images.test_images[:, 0], pixels(10, 28, 28))
    np.testing.assert_array_equal(images.test_labels, np.arange(10))
    assert images.shape == (1, 28, 28)
    assert images.class_names == tuple("0123456789")


def test_cifar10_files_are_read(tmp_path: Path) -> None:
    images = load("cifar10", data_dir=write_cifar10(tmp_path))
    np.testing.assert_array_equal(images.train_images, pixels(20, 3072).reshape(20, 3, 32, 32))
    np.testing.assert_array_equal(images.train_labels, np.arange(20) % 10)
    np.testing.assert_array_equal(images.test_images[:, 2, 31, 31], [0, 1, 2, 3])
    np.testing.assert_array_equal(images.test_labels, [0, 1, 2, 3])
    assert images.class_names[3] == "cat"


@pytest.mark.parametrize("name", WRITERS)
def test_the_folder_is_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    write, folder = WRITERS[name], FOLDERS[name]
    cache = write(tmp_path / "cache" / folder)
    assert load(name).source == str(cache)

    monkeypatch.setenv("DEEPCHECK_DATA", str(tmp_path / "mine"))  # which is not there: go on to the cache
    assert load(name).source == str(cache)

    mine = write(tmp_path / "mine")
    assert load(name).source == str(mine)
    inner = write(tmp_path / "mine" / folder)
    assert load(name).source == str(inner)

    given = write(tmp_path / "given")
    assert load(name, data_dir=given).source == str(given)
    assert load(name, data_dir=str(given)).source == str(given)


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_that_is_given_must_have_the_files(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / "cache" / FOLDERS[name])
    given = WRITERS[name](tmp_path / "given")
    last = max(given.iterdir())
    last.unlink()
    with pytest.raises(
        DataError, match=rf"{name} is not whole in .*given'.*: {last.name} missing; download .*http.*'digits'"
    ):
        load(name, data_dir=given)
    with pytest.raises(DataError, match=r"nowhere' is not a folder; download .*http"):
        load(name, data_dir=tmp_path / "nowhere")


def test_images_are_read_only(tmp_path: Path) -> None:
    for images in (load("digits"), load("mnist", data_dir=write_mnist(tmp_path))):
        for array in (images.train_images, images.train_labels, images.test_images, images.test_labels):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 0
        with pytest.raises(FrozenInstanceError):
            images.name = "other"  # type: ignore[misc]


def test_a_repr_is_one_line() -> None:
    digits = load("digits")
    assert repr(digits).startswith("Images('digits': 1438 training and 359 test images of shape (1, 8, 8)")
    assert repr(two_classes(digits, 0, 1)).startswith("TwoClasses('digits 0 vs 1': ")


# --- files that are not what they should be ---


def mnist_with(folder: Path, position: int, content: bytes, *, compress: bool = True) -> Path:
    """Write MNIST with another content of one of its files."""
    write_mnist(folder)
    (folder / f"{MNIST[position]}.gz").write_bytes(gzip.compress(content) if compress else content)
    return folder


GOOD_LABELS = idx(np.arange(20) % 10)


@pytest.mark.parametrize(
    ("position", "content", "says"),
    [
        (0, idx(np.arange(20)), "has the magic number 0x00000801 and not 0x00000803"),
        (1, struct.pack("<II", 2049, 20) + bytes(20), "has the magic number 0x01080000 and not 0x00000801"),
        (1, b"", "has 0 bytes, less than the header"),
        (1, GOOD_LABELS[:-1], "has 19 bytes of data, but its header says 20 x 1: is it truncated"),
        (1, GOOD_LABELS + b"\0", "has 21 bytes of data, but its header says 20 x 1"),
        (2, idx(pixels(10, 28, 28))[:-1], "has 7839 bytes of data, but its header says 10 x 784"),
        (2, idx(pixels(10, 8, 8)), r"has images of shape \(8, 8\): MNIST's is \(28, 28\)"),
        (3, idx(np.zeros(0)), "has 0 bytes of data, but its header says 0 x 1"),
        (3, idx(np.array([0] * 9 + [10])), r"is corrupt: example 9 has the label 10, which is not in 0\.\.9"),
    ],
)
def test_a_wrong_idx_file(tmp_path: Path, position: int, content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=rf"{MNIST[position]}\.gz' {says}.*replace it"):
        load("mnist", data_dir=mnist_with(tmp_path, position, content))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>404</html>", "is no gzip file, or a corrupt one"),
        (gzip.compress(GOOD_LABELS)[:-9], "is truncated"),
        (gzip.compress(GOOD_LABELS)[:5], "is truncated"),
        (gzip.compress(GOOD_LABELS)[:-8] + bytes(8), "is no gzip file, or a corrupt one: CRC"),
        (gzip.compress(GOOD_LABELS)[:10] + b"\xff" * 30, "is no gzip file, or a corrupt one"),
    ],
)
def test_a_wrong_gzip_file(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=rf"{MNIST[1]}\.gz' {says}"):
        load("mnist", data_dir=mnist_with(tmp_path, 1, content, compress=False))


def test_images_and_labels_that_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has 20 images, but .* has 19 labels"):
        load("mnist", data_dir=mnist_with(tmp_path, 1, idx(np.zeros(19))))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bytes(3072), "has 3072 bytes, not a multiple of 3073"),
        (b"", "has 0 bytes, not a multiple of 3073"),
        (bytes(3073) + b"\x0b" + bytes(3072), r"is corrupt: example 1 has the label 11, which is not in 0\.\.9"),
    ],
)
@pytest.mark.parametrize("file", ["data_batch_3.bin", "test_batch.bin"])
def test_a_wrong_cifar10_file(tmp_path: Path, file: str, content: bytes, says: str) -> None:
    (write_cifar10(tmp_path) / file).write_bytes(content)
    with pytest.raises(DataError, match=rf"{file}' {says}"):
        load("cifar10", data_dir=tmp_path)


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataError, match=r"mnist could not be loaded: .*Permission denied: '.*train-images"):
        load("mnist", data_dir=write_mnist(tmp_path))


# --- downloads ---


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


# --- packages that are not installed ---


@pytest.mark.parametrize(("package", "name"), [("sklearn.datasets", "digits"), ("pooch", "mnist")])
def test_a_package_that_is_missing(monkeypatch: pytest.MonkeyPatch, package: str, name: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=r"is needed .*: pip install 'odeflow\[data\]'"):
        load(name)


def test_a_folder_needs_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    monkeypatch.setenv("DEEPCHECK_DATA", str(write_mnist(tmp_path)))
    assert load("mnist").name == "mnist"


def test_importing_loads_nothing_heavy() -> None:
    import subprocess

    code = "import sys, deepcheck.data; print(sorted({'pooch', 'requests', 'sklearn', 'torch'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- names and types ---


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        (
            "mnits",
            ValueError,
            r"name = 'mnits' is unknown \(did you mean 'mnist'\?\): allowed is one of mnist, cifar10, dig",
        ),
        ("MNIST", ValueError, "did you mean 'mnist'"),
        ("imagenet", ValueError, "name = 'imagenet' is unknown: allowed"),
        (3, TypeError, "name = 3 is of the wrong type"),
        (None, TypeError, "name = None is of the wrong type"),
    ],
)
def test_an_unknown_name(name: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        load(name)


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_a_folder_of_the_wrong_type(name: str) -> None:
    wrong: Any = 3
    with pytest.raises(TypeError, match="data_dir = 3 is of the wrong type"):
        load(name, data_dir=wrong)


# --- two classes ---


@pytest.fixture(scope="module")
def digits() -> Images:
    return load("digits")


def test_two_classes_are_in_the_order_of_the_data_set(digits: Images) -> None:
    pair = two_classes(digits, 3, 7, centre=False)
    expected = [
        (image.ravel() / 255, {3: 1, 7: -1}[label])
        for image, label in zip(digits.test_images, digits.test_labels.tolist(), strict=True)
        if label in (3, 7)
    ]
    np.testing.assert_array_equal(pair.X_test, [image for image, _ in expected])
    np.testing.assert_array_equal(pair.y_test, [label for _, label in expected])
    np.testing.assert_array_equal(pair.mean, np.zeros(64))
    assert pair.X_train.min() == 0
    assert pair.X_train.max() == 1
    assert (pair.name, pair.positive, pair.negative, pair.shape, pair.N) == ("digits 3 vs 7", 3, 7, (1, 8, 8), 64)
    assert {array.dtype.name for array in (pair.X_train, pair.y_train, pair.X_test, pair.y_test)} == {"float64"}


def test_centring_takes_the_training_mean_from_both(digits: Images) -> None:
    plain, centred = two_classes(digits, 3, 7, centre=False), two_classes(digits, 3, 7)
    np.testing.assert_allclose(centred.X_train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(centred.mean, plain.X_train.mean(axis=0), atol=1e-12)
    np.testing.assert_allclose(centred.X_train + centred.mean, plain.X_train, atol=1e-12)
    np.testing.assert_allclose(centred.X_test + centred.mean, plain.X_test, atol=1e-12)
    assert abs(centred.X_test.mean(axis=0)).max() > 1e-3  # its own mean is another


def test_swapping_the_classes_swaps_the_labels(digits: Images) -> None:
    three: Any = np.int64(3)
    one, other = two_classes(digits, 3, 7), two_classes(digits, "7", three)
    np.testing.assert_array_equal(one.X_train, other.X_train)
    np.testing.assert_array_equal(one.y_train, -other.y_train)
    assert other.name == "digits 7 vs 3"


def test_a_pair_is_read_only_and_the_images_are_untouched(digits: Images) -> None:
    before = digits.train_images.copy()
    pair = two_classes(digits, 3, 7)
    with pytest.raises(ValueError, match="read-only"):
        pair.X_train[0] = 0
    np.testing.assert_array_equal(digits.train_images, before)


@pytest.mark.parametrize(
    ("positive", "negative", "error", "says"),
    [
        (3, 3, ValueError, "positive = 3 and negative = 3 are the same class"),
        (3, "3", ValueError, "positive = 3 and negative = '3' are the same class"),
        (
            10,
            3,
            ValueError,
            r"positive = 10 is no class of digits: allowed is an index in 0\.\.9 or a name out of 0, 1",
        ),
        (3, -1, ValueError, "negative = -1 is no class of digits"),
        (3, "seven", ValueError, "negative = 'seven' is no class of digits: allowed"),
        (3.0, 7, TypeError, r"positive = 3\.0 is of the wrong type"),
        (3, True, TypeError, "negative = True is of the wrong type"),
        (None, 7, TypeError, "positive = None is of the wrong type"),
    ],
)
def test_classes_that_do_not_exist(
    digits: Images, positive: Any, negative: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        two_classes(digits, positive, negative)


def test_a_class_name_that_is_almost_right(tmp_path: Path) -> None:
    images = load("cifar10", data_dir=write_cifar10(tmp_path))
    with pytest.raises(
        ValueError, match=r"positive = 'aeroplane' is no class of cifar10 \(did you mean 'airplane'\?\)"
    ):
        two_classes(images, "aeroplane", "cat")


def test_a_class_without_images(tmp_path: Path) -> None:
    images = load("mnist", data_dir=mnist_with(tmp_path, 1, idx(np.arange(20) % 9)))
    with pytest.raises(DataError, match="class '9' has no training image"):
        two_classes(images, 3, 9)


def test_arguments_of_the_wrong_type(digits: Images) -> None:
    wrong: Any = "digits"
    with pytest.raises(TypeError, match="images = 'digits' is of the wrong type"):
        two_classes(wrong, 3, 7)
    with pytest.raises(TypeError, match="centre = 'digits' is not a bool"):
        two_classes(digits, 3, 7, centre=wrong)


def test_without_download_a_missing_data_set_is_an_error_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("DEEPCHECK_DATA", raising=False)
    monkeypatch.setattr(sources, "_cache", lambda _: tmp_path)
    monkeypatch.setattr(sources, "_download", lambda *_: pytest.fail("downloads"))
    with pytest.raises(DataError, match=r"mnist is not in the cache .*; download the four files"):
        load("mnist", download=False)
