"""Data sets in pieces of a few megabytes, smaller than gzip makes them, and back to the byte.

A piece of CIFAR-10 is 2500 records: their labels, and the images as lossless WebP, 100 in a column. That takes 4.27 bits for
each byte; single images take 4.63, sheets of 10 x 10 images 4.30, PNG 5.9. Other files are compressed by xz.
"""

from __future__ import annotations

import io
import lzma
import zipfile
from collections.abc import Callable

import numpy as np

__all__ = ["DECODERS", "ENCODERS", "RECORDS", "parts"]

RECORD = 1 + 3 * 32 * 32
RECORDS = 2500
"""Of a piece."""
COLUMN = 100


def parts(content: bytes, kind: str) -> list[bytes]:
    """Return the parts of a file, each of which becomes a piece."""
    size = RECORDS * RECORD if kind == "records" else max(len(content), 1)
    return [content[start : start + size] for start in range(0, len(content), size)]


def _pack_records(content: bytes) -> bytes:
    from PIL import Image

    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("labels"), records[:, 0].tobytes())
        for start in range(0, len(images), COLUMN):
            column = np.ascontiguousarray(images[start : start + COLUMN].reshape(-1, 32, 3))
            webp = io.BytesIO()
            Image.fromarray(column).save(webp, "WEBP", lossless=True, exact=True, method=4, quality=60)
            archive.writestr(zipfile.ZipInfo(f"{start:05}.webp"), webp.getvalue())
    return packed.getvalue()


def _unpack_records(packed: bytes) -> bytes:
    from PIL import Image

    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        labels = np.frombuffer(archive.read("labels"), np.uint8)
        columns = [
            np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            for name in sorted(archive.namelist())
            if name != "labels"
        ]
    images = np.concatenate(columns).reshape(-1, 32, 32, 3).transpose(0, 3, 1, 2)
    return np.concatenate([labels[:, None], images.reshape(len(labels), -1)], axis=1).tobytes()


def _pack_xz(content: bytes) -> bytes:
    return lzma.compress(content, preset=9 | lzma.PRESET_EXTREME)


ENCODERS: dict[str, Callable[[bytes], bytes]] = {"records": _pack_records, "xz": _pack_xz}
"""From the part of a file to a piece, by its kind."""
DECODERS: dict[str, Callable[[bytes], bytes]] = {"records": _unpack_records, "xz": lzma.decompress}
"""And back."""
