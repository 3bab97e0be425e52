"""The bundle for a bare machine: what is packed comes back to the byte, and what is missing is named."""

import gzip
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cuda import bundle, pieces
from benchmarks.cuda.bundle import BundleError

COLUMNS = "cifar-10-batches-bin/data_batch_1.bin"
OTHER = "mnist/train-labels-idx1-ubyte"


def records(count: int) -> bytes:
    """Return records of CIFAR-10: images with structure, and with all values there are."""
    rng = np.random.default_rng(0)
    made = rng.integers(0, 256, (count, pieces.RECORD), dtype=np.uint8)
    made[: count // 2, 1:] = np.linspace(0, 255, pieces.RECORD - 1).astype(np.uint8)
    return made.tobytes()


@pytest.mark.parametrize("count", [1, 100, 130])
def test_records_come_back_to_the_byte(count: int) -> None:
    content = records(count)
    packed = pieces.ENCODERS["records"](content)
    assert pieces.DECODERS["records"](packed) == content


def test_xz_comes_back() -> None:
    content = bytes(range(256)) * 40
    packed = pieces.ENCODERS["xz"](content)
    assert pieces.DECODERS["xz"](packed) == content
    assert len(packed) < len(content) / 10


def wheel(folder: Path) -> Path:
    """Make a wheel of one module."""
    path = folder / "toywheel-1.0-py3-none-any.whl"
    info = "toywheel-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("toywheel.py", "value = 7\n")
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: toywheel\nVersion: 1.0\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", f"toywheel.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return path


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both parts of a small bundle, in the folders 1 and 2, of data in the folder from."""
    data = tmp_path / "from"
    (data / "mnist").mkdir(parents=True)
    (data / "data_batch_1.bin").write_bytes(records(30))
    (data / f"{OTHER}.gz").write_bytes(gzip.compress(b"labels" * 100))
    monkeypatch.setattr(bundle, "FILES", {COLUMNS: "records", OTHER: "xz"})
    monkeypatch.setattr(pieces, "RECORDS", 10)
    monkeypatch.setattr(bundle, "_wheels", lambda packages, work: [wheel(work)] if packages is bundle.PACKAGES else [])
    monkeypatch.setattr(bundle, "CARRIED", (1 << 17) + 40_000)  # the pieces have about 1, 16 and 31 kB
    for part in (1, 2):
        bundle.make(part, tmp_path / str(part), data, tmp_path / "work", tree=0)
    return tmp_path


def test_both_parts_give_back_all(made: Path) -> None:
    data, wheels = made / "data", made / "wheels"
    said = bundle.unpack(made / "1", data, wheels)
    assert said[0] == f"{COLUMNS} has 2 of 3 pieces: the others are in the other part"
    assert not (data / COLUMNS).exists()
    assert (wheels / "toywheel.py").read_text() == "value = 7\n"
    said = bundle.unpack(made / "2", data, wheels)
    assert f"{COLUMNS} is unpacked" in said
    assert (data / COLUMNS).read_bytes() == records(30)
    assert (data / OTHER).read_bytes() == b"labels" * 100
    assert list((data / ".pieces").iterdir()) == []
    assert bundle.unpack(made / "1", data, wheels)[0] == f"{COLUMNS} is there"


def test_the_order_of_the_parts_is_free(made: Path) -> None:
    for part in ("2", "1"):
        bundle.unpack(made / part, made / "data", made / "wheels")
    assert (made / "data" / COLUMNS).read_bytes() == records(30)


def test_a_file_that_is_missing_or_damaged_is_named(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = next(
        piece["name"] for piece in json.loads((made / "1" / "manifest.json").read_text())["pieces"] if piece["of"]
    )
    content = bytearray((made / "1" / name).read_bytes())
    content[100] ^= 1
    (made / "1" / name).write_bytes(content)
    with pytest.raises(BundleError, match=f"{name}' is damaged"):
        bundle.unpack(made / "1", made / "data", made / "wheels")
    (made / "file").write_text("")
    with pytest.raises(BundleError, match=r"data = .*file' is a file: allowed is a folder"):
        bundle.unpack(made / "1", made / "file", made / "wheels")
    (made / "1" / name).unlink()
    arguments = ["unpack", "--bundle", str(made / "1"), "--data", str(made / "data")]
    assert bundle.main(arguments) == 2
    said = capsys.readouterr().err
    assert f"lacks {name}: make it anew" in said
    assert said.count("\n") == 1
    for damaged in ("{", "{}", '{"pieces": [1], "files": {}}'):
        (made / "1" / "manifest.json").write_text(damaged)
        with pytest.raises(BundleError, match=r"manifest\.json' is damaged: make it anew"):
            bundle.unpack(made / "1", made / "data", made / "wheels")
    shutil.rmtree(made / "1")
    with pytest.raises(BundleError, match=r"lacks manifest\.json"):
        bundle.unpack(made / "1", made / "data", made / "wheels")
    assert not (made / "data").exists()


def test_data_that_are_missing_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle, "_wheels", lambda *_: [])
    with pytest.raises(BundleError, match=r"data_batch_1\.bin is not in"):
        bundle.make(1, tmp_path / "b", tmp_path, tmp_path / "work", tree=0)


def test_what_is_packed_goes_where_there_is_room(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def file(name: str, size: int) -> tuple[Path, str]:
        (tmp_path / name).write_bytes(bytes(size))
        return tmp_path / name, ""

    room = (1 << 17) + 100
    a, b, c = file("a", 60), file("b", 50), file("c", 40)
    assert bundle.packed([a, b, c], [], room) == [[a, c], [b]]
    assert bundle.packed([a, b], [file("large", 70)], room) == [[a], [b]]
    assert "large is left out" in capsys.readouterr().err
    with pytest.raises(BundleError, match="large does not fit"):
        bundle.packed([a, b, file("large", 70)], [], room)
