"""Files are found and read; those that are not what they should be are refused, each with its reason."""

import gzip
import os
import struct
import sys
import tracemalloc
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepcheck.data import DataError, load, two_classes
from tests.deepcheck.data.tiny import FOLDERS, MNIST, WRITERS, idx, mnist_with, pixels, write_cifar10, write_mnist

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


def test_a_small_file_that_unpacks_to_much_is_refused(tmp_path: Path) -> None:
    """A file of some kilobytes with 256 MiB of zeros, and one that is as large itself: not more than the limit is read."""
    zeros = gzip.compress(bytes(1 << 20), mtime=0)
    bomb = zeros * 300  # members of one stream
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"{MNIST[0]}\.gz' unpacks to more than 268435456 bytes"):
        load("mnist", data_dir=mnist_with(tmp_path, 0, bomb, compress=False))
    assert tracemalloc.get_traced_memory()[1] < 700e6
    tracemalloc.stop()
    os.truncate(write_mnist(tmp_path / "plain", compress=False) / MNIST[2], 1 << 40)
    with pytest.raises(DataError, match=rf"{MNIST[2]}' has 1099511627776 bytes: allowed are 268435456"):
        load("mnist", data_dir=tmp_path / "plain")
    os.truncate(write_cifar10(tmp_path / "cifar") / "test_batch.bin", 1 << 40)
    with pytest.raises(DataError, match=r"test_batch\.bin' has 1099511627776 bytes: allowed are"):
        load("cifar10", data_dir=tmp_path / "cifar")


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
