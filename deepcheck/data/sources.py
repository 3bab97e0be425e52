"""Where images come from: MNIST and CIFAR-10 in a folder, the cache or the network, and scikit-learn's digits."""

from __future__ import annotations

import gzip
import io
import logging
import math
import os
import struct
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deepcheck.data.images import DataError, Images, guess
from odeflow.provenance import write_bytes

__all__ = ["load"]

_LOG = logging.getLogger(__name__)

NAMES = ("mnist", "cifar10", "digits")
DIGITS = tuple("0123456789")
CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

_MNIST_URLS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
_MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
_CIFAR10_URLS = ("https://www.cs.toronto.edu/~kriz/",)
_CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
_CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"

_FOLDERS = {"mnist": "mnist", "cifar10": "cifar-10-batches-bin"}
_FILES = {
    "mnist": tuple(_MNIST_SHA256),
    "cifar10": (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
}
_LARGEST = 1 << 28
"""Bytes of a file; the largest of MNIST unpacks to 47 million."""
_CIFAR10_RECORD = 1 + 3 * 32 * 32  # bytes: the label, then the red, green and blue planes


def load(name: str, *, data_dir: str | os.PathLike[str] | None = None, download: bool = True) -> Images:
    """Load a data set: from a folder, else from the cache, else from the network.

    The folder is `data_dir`, or the environment variable DEEPCHECK_DATA. In a folder DIR, MNIST is its four IDX files,
    compressed (.gz) or not, in DIR/mnist or DIR; CIFAR-10 is the six .bin files of its binary version, in
    DIR/cifar-10-batches-bin or DIR. What the folder of DEEPCHECK_DATA lacks is taken from the cache of this user
    (`pooch.os_cache("deepcheck")`); what the cache lacks is downloaded into it, and its SHA-256 compared with the
    published one.

    The digits are part of scikit-learn and always there: 1797 images of 8 x 8 pixels, whose 17 grey levels are
    stretched to 0..255. They come without a test set, so every fifth image (the indices 4, 9, 14, ...) is taken. As
    much of their order is periodic in ten, the shares of the classes differ between the two sets.

    Parameters
    ----------
    name
        "mnist": 60,000 + 10,000 images of shape (1, 28, 28); "cifar10": 50,000 + 10,000 of shape (3, 32, 32);
        "digits": 1438 + 359 of shape (1, 8, 8). Each has 10 classes.
    data_dir
        Look in this folder, and nowhere else. The digits do not need it.
    download
        Whether a data set that is nowhere on this machine may be downloaded.

    Returns
    -------
    Images
        Training and test images in the order of the files.

    Raises
    ------
    ValueError, TypeError
        If the name is unknown, or an argument of the wrong type.
    DataError
        If files are missing and cannot be downloaded, or are truncated or corrupt.
    ImportError
        If scikit-learn (for the digits) or pooch (for the cache) is not installed.

    Examples
    --------
    >>> digits = load("digits")
    >>> digits
    Images('digits': 1438 training and 359 test images of shape (1, 8, 8), 10 classes, from 'scikit-learn')
    >>> digits.train_images.dtype, digits.train_images.max()
    (dtype('uint8'), np.uint8(255))
    """
    name = _checked_name(name)
    if data_dir is not None and not isinstance(data_dir, str | os.PathLike):
        raise TypeError(f"data_dir = {data_dir!r} is of the wrong type: allowed is the path of a folder, or None")
    if name == "digits":
        return _digits()
    try:
        files = _find(name, download=download) if data_dir is None else _find_in(Path(data_dir).expanduser(), name)
        return _read_mnist(files) if name == "mnist" else _read_cifar10(files)
    except OSError as error:
        raise DataError(f"{name} could not be loaded: {error}") from error


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name = {name!r} is of the wrong type: allowed is one of {', '.join(NAMES)}")
    if name not in NAMES:
        raise ValueError(f"name = {name!r} is unknown{guess(name, NAMES)}: allowed is one of {', '.join(NAMES)}")
    return name


# --- where the files are ---


def _find(name: str, *, download: bool) -> list[Path]:
    """Return the files of a data set: from DEEPCHECK_DATA, from the cache, or downloaded."""
    looked = []
    if folder := os.environ.get("DEEPCHECK_DATA"):
        files, missing = _look(Path(folder).expanduser(), name)
        if not missing:
            return files
        looked.append(f"DEEPCHECK_DATA = {folder!r}")
        _LOG.info("%s lacks %s of %s: going on to the cache", looked[0], ", ".join(missing), name)
    cache = _cache(name)
    files, missing = _look(cache, name)
    if not missing:
        return files
    looked.append(f"the cache {str(cache)!r}")
    if not download:
        raise DataError(f"{name} is not in {' or in '.join(looked)}; {_advice(name)}")
    try:
        return _download(name, cache)
    except DataError as error:
        raise DataError(f"{name} is not in {' or in '.join(looked)}, and {error}; {_advice(name)}") from None


def _find_in(root: Path, name: str) -> list[Path]:
    """Return the files of a data set in a folder that must have them."""
    if not root.is_dir():
        raise DataError(f"data_dir = {str(root)!r} is not a folder; {_advice(name)}")
    files, missing = _look(root, name)
    if missing:
        raise DataError(
            f"{name} is not whole in data_dir = {str(root)!r} or its folder {_FOLDERS[name]!r}: "
            f"{', '.join(missing)} missing; {_advice(name)}"
        )
    return files


def _look(root: Path, name: str) -> tuple[list[Path], list[str]]:
    """Return the files of a data set below `root`, and the names of those that are missing."""

    def look_in(folder: Path) -> tuple[list[Path], list[str]]:
        found = {file: _present(folder / file) for file in _FILES[name]}
        return [path for path in found.values() if path], [file for file, path in found.items() if not path]

    return min((look_in(folder) for folder in (root / _FOLDERS[name], root)), key=lambda result: len(result[1]))


def _present(path: Path) -> Path | None:
    """Return `path`, or `path` without its .gz, if there is such a file."""
    candidates = (path, path.with_suffix("")) if path.suffix == ".gz" else (path,)
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def _advice(name: str) -> str:
    if name == "mnist":
        get = f"download the four files, {_MNIST_URLS[0]}{_FILES['mnist'][0]} and so on, into DIR/mnist"
    else:
        get = f"download {_CIFAR10_URLS[0]}{_CIFAR10_ARCHIVE} and unpack it in DIR"
    return f"{get}, and give data_dir=DIR or set DEEPCHECK_DATA=DIR; or use 'digits', which needs no files"


def _missing_package(package: str, purpose: str) -> ImportError:
    return ImportError(f"{package} is needed {purpose}: pip install 'odeflow[data]'", name=package)


# --- the network ---


def _cache(name: str) -> Path:
    try:
        import pooch  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise _missing_package("pooch", f"to find {name} in the cache or to download it") from None
    return Path(pooch.os_cache("deepcheck"))


def _download(name: str, cache: Path) -> list[Path]:
    """Download a data set into the cache and return its files."""
    folder = cache / _FOLDERS[name]
    if name == "mnist":
        return [_fetch(file, sha256, _MNIST_URLS, folder) for file, sha256 in _MNIST_SHA256.items()]
    _unpack(_fetch(_CIFAR10_ARCHIVE, _CIFAR10_SHA256, _CIFAR10_URLS, cache), folder)
    return [folder / file for file in _FILES["cifar10"]]


def _fetch(file: str, sha256: str, urls: Sequence[str], folder: Path) -> Path:
    """Return a file in `folder` that has this SHA-256; where it is not there yet, download it from the first that can."""
    import pooch
    import requests

    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), chunk_size=1 << 16, timeout=30)
    failures = []
    for url in urls:
        try:
            return Path(pooch.retrieve(url + file, f"sha256:{sha256}", fname=file, path=folder, downloader=downloader))
        except requests.HTTPError as error:
            failures.append(str(error))
        except requests.RequestException as error:
            failures.append(f"{url} could not be reached, or the connection broke ({type(error).__name__})")
            _LOG.info("%s", error)
        except ValueError:  # pooch's word for a wrong hash; it has deleted the file
            failures.append(f"{url} gave a file with another SHA-256 than the published {sha256}")
    raise DataError(f"{file} could not be downloaded: {'; '.join(failures)}")


def _unpack(archive: Path, folder: Path) -> None:
    """Unpack CIFAR-10, one whole file after the other. The archive stays, for the case that this is interrupted."""
    folder.mkdir(exist_ok=True)
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            file = Path(member.name).name
            content = tar.extractfile(member) if file in _FILES["cifar10"] else None
            if content is not None:
                write_bytes(folder / file, content.read())


# --- what is in the files ---


def _read_mnist(files: Sequence[Path]) -> Images:
    train_images, train_labels, test_images, test_labels = files
    return Images(
        "mnist",
        *_mnist_part(train_images, train_labels),
        *_mnist_part(test_images, test_labels),
        class_names=DIGITS,
        source=str(train_images.parent),
    )


def _mnist_part(image_file: Path, label_file: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    images = _read_idx(image_file, (28, 28))
    labels = _read_idx(label_file, ())
    if len(images) != len(labels):
        raise DataError(
            f"{str(image_file)!r} has {len(images)} images, but {str(label_file)!r} has {len(labels)} labels: "
            "they do not belong together"
        )
    return images[:, np.newaxis], _checked_labels(labels, label_file)


def _read_idx(path: Path, item: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return what an IDX file of bytes holds: items of a given shape.

    The header is big-endian: 0x0800 + the number of dimensions, then the size of each. The items follow in C order.
    """
    content = _content(path)
    dimensions = 1 + len(item)
    header = struct.Struct(f">{1 + dimensions}I")
    if len(content) < header.size:
        raise _bad(
            path, f"has {len(content)} bytes, less than the header of an IDX file ({header.size}): is it truncated?"
        )
    magic, count, *found = header.unpack_from(content)
    if magic != 0x0800 + dimensions:
        raise _bad(
            path, f"has the magic number 0x{magic:08x} and not 0x{0x0800 + dimensions:08x}: it is another kind of file"
        )
    if tuple(found) != item:
        raise _bad(path, f"has images of shape {tuple(found)}: MNIST's is {item}")
    size = len(content) - header.size
    if size != count * math.prod(item) or count == 0:
        raise _bad(path, f"has {size} bytes of data, but its header says {count} x {math.prod(item)}: is it truncated?")
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(count, *item)


def _content(path: Path) -> bytes:
    """Return what a file holds, decompressed; no more than a data set can have."""
    if path.stat().st_size > _LARGEST:
        raise _bad(path, f"has {path.stat().st_size} bytes: allowed are {_LARGEST}")
    return _decompressed(path) if path.suffix == ".gz" else path.read_bytes()


def _decompressed(path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(path.read_bytes())) as file:
            content = file.read(_LARGEST + 1)
        if len(content) > _LARGEST:
            raise _bad(path, f"unpacks to more than {_LARGEST} bytes: it is no file of MNIST")
        return content
    except EOFError:
        raise _bad(path, "is truncated: its compressed data have no end") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise _bad(path, f"is no gzip file, or a corrupt one: {error}") from None


def _read_cifar10(files: Sequence[Path]) -> Images:
    *train, test = files
    return Images(
        "cifar10",
        *_cifar10_part(train),
        *_cifar10_part([test]),
        class_names=CIFAR10_CLASSES,
        source=str(test.parent),
    )


def _cifar10_part(paths: Sequence[Path]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    batches = [_read_records(path) for path in paths]
    labels = [_checked_labels(batch[:, 0], path) for batch, path in zip(batches, paths, strict=True)]
    images = np.concatenate([batch[:, 1:] for batch in batches])
    return images.reshape(-1, 3, 32, 32), np.concatenate(labels)


def _read_records(path: Path) -> npt.NDArray[np.uint8]:
    """Return the records of a file of CIFAR-10, shape (n, 3073), mapped and not read: the images are copied only once."""
    size = path.stat().st_size
    if size > _LARGEST:
        raise _bad(path, f"has {size} bytes: allowed are {_LARGEST}")
    if size == 0 or size % _CIFAR10_RECORD:
        raise _bad(path, f"has {size} bytes, not a multiple of {_CIFAR10_RECORD} (a label, an image): is it truncated?")
    return np.asarray(np.memmap(path, np.uint8, mode="r")).reshape(-1, _CIFAR10_RECORD)


def _checked_labels(labels: npt.NDArray[np.uint8], path: Path) -> npt.NDArray[np.int64]:
    wrong = np.flatnonzero(labels > 9)
    if wrong.size:
        raise _bad(path, f"is corrupt: example {wrong[0]} has the label {labels[wrong[0]]}, which is not in 0..9")
    return labels.astype(np.int64)


def _bad(path: Path, what: str) -> DataError:
    return DataError(f"{str(path)!r} {what}; replace it by a whole copy (one in the cache: delete it)")


def _digits() -> Images:
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ModuleNotFoundError:
        raise _missing_package("scikit-learn", "for the digits") from None
    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
    labels = digits.target.astype(np.int64)
    test = np.arange(len(labels)) % 5 == 4
    return Images(
        "digits", images[~test], labels[~test], images[test], labels[test], class_names=DIGITS, source="scikit-learn"
    )
