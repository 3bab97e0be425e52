"""Tiny data sets, written byte by byte."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MNIST = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
CIFAR10 = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")


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


def mnist_with(folder: Path, position: int, content: bytes, *, compress: bool = True) -> Path:
    """Write MNIST with another content of one of its files."""
    write_mnist(folder)
    (folder / f"{MNIST[position]}.gz").write_bytes(gzip.compress(content) if compress else content)
    return folder
