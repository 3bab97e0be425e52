"""What a bare machine lacks, in two folders that are small enough to be carried there: wheels, MNIST and CIFAR-10.

``python -m benchmarks.cuda.bundle make --part 1`` makes the folder ``.cuda-bundle``, and ``python -m benchmarks.cuda.bundle
unpack`` on the machine takes it apart. What unpacks needs nothing but the standard library, numpy, Pillow and pip.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.cuda.pieces import DECODERS, ENCODERS, parts

__all__ = ["BundleError", "Piece", "main", "make", "packed", "unpack"]

ROOT = Path(__file__).parents[2]
BUNDLE, WORK, DATA, WHEELS = (ROOT / name for name in (".cuda-bundle", ".cuda-work", "data", ".cuda-wheels"))
CARRIED = 64 << 20
"""Bytes that may be carried at once, the tree included."""
PARTS = 2

PACKAGES = (
    "adversarial-robustness-toolbox", "docstring_parser", "eagerpy", "filelock", "foolbox", "gitdb", "gitpython", "h5netcdf",
    "platformdirs", "pooch", "smmap", "torchattacks", "typeguard", "typing_extensions", "tyro",
)  # fmt: skip
"""Wheels that the machine lacks; none is compiled."""
SPARE = ("h5py",)
"""Wheels that it has, perhaps in an old version: they are carried where there is room."""
FILES = {
    **{f"cifar-10-batches-bin/data_batch_{number}.bin": "records" for number in range(1, 6)},
    "cifar-10-batches-bin/test_batch.bin": "records",
    "mnist/t10k-images-idx3-ubyte": "xz",
    "mnist/t10k-labels-idx1-ubyte": "xz",
    "mnist/train-labels-idx1-ubyte": "xz",
    "mnist/train-images-idx3-ubyte": "xz",
}
"""Files of the data sets, and how they are compressed. Those that must stay whole come last."""


class BundleError(RuntimeError):
    """A bundle cannot be made, or is not what it should be."""


@dataclass(frozen=True)
class Piece:
    """A file of a bundle."""

    name: str
    bytes: int
    sha256: str
    of: str
    """The file of the data that it is a part of; empty for a wheel."""


# Making it.


def make(part: int, out: Path, data: Path, work: Path, tree: int | None = None) -> list[Piece]:
    """Make one part of the bundle, and return what is in it.

    Parameters
    ----------
    part
        1 or 2.
    out
        The folder; one that is there is replaced.
    data
        Folder of the data sets, in their usual formats.
    work
        Folder for what has been compressed and downloaded: it takes minutes, once.
    tree
        Bytes of the tree that is carried with it; default: what git has, and does not ignore.

    Raises
    ------
    BundleError
        If files are missing, or do not fit.
    """
    from benchmarks.cuda import origin

    if part not in range(1, PARTS + 1):
        raise BundleError(f"part = {part} is not allowed: allowed are 1 and 2")
    tree = tree_size() if tree is None else tree
    work.mkdir(exist_ok=True)
    wheels = [(path, "") for path in _wheels(PACKAGES, work)]
    spare = [(path, "") for path in _wheels(SPARE, work)]
    whole, pieces = _compressed(data, work)
    split = packed([*wheels, *pieces], spare, CARRIED - tree)
    chosen = [Piece(path.name, path.stat().st_size, _sha256(path.read_bytes()), of) for path, of in split[part - 1]]
    files = {
        of: {"sha256": whole[of], "kind": FILES[of], "pieces": [p.name for p, o in pieces if o == of]} for of in FILES
    }
    manifest = {
        "part": part,
        "code": {**origin.commit(), "digest": origin.digest()},
        "pieces": [asdict(piece) for piece in chosen],
        "files": files,
    }
    new = out.with_name(f"{out.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    for path, _ in split[part - 1]:
        shutil.copyfile(path, new / path.name)
    (new / "manifest.json").write_text(json.dumps(manifest, indent=1))
    shutil.rmtree(out, ignore_errors=True)
    new.rename(out)
    return chosen


def packed(
    needed: Sequence[tuple[Path, str]], spare: Sequence[tuple[Path, str]], room: int
) -> list[list[tuple[Path, str]]]:
    """Return what goes into each part: the first that has room.

    Raises
    ------
    BundleError
        If something needed does not fit into any.
    """
    split: list[list[tuple[Path, str]]] = [[] for _ in range(PARTS)]
    left = [room - (1 << 17)] * PARTS  # the manifest
    for one in [*needed, *spare]:
        size = one[0].stat().st_size
        for part in range(PARTS):
            if size <= left[part]:
                split[part].append(one)
                left[part] -= size
                break
        else:
            if one in spare:
                print(f"{one[0].name} is left out: there is no room, and the machine's own will do", file=sys.stderr)
                continue
            total = sum(path.stat().st_size for path, _ in needed)
            raise BundleError(
                f"{one[0].name} does not fit: {PARTS} parts have room for {PARTS * room / 2**20:.1f} MiB beside the "
                f"tree, and {total / 2**20:.1f} MiB are needed; a smaller tree helps"
            )
    return split


def tree_size() -> int:
    """Return the bytes of the files that travel: those that git has, and those that it does not ignore."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, check=True).stdout.split(b"\0")
    paths = {ROOT / os.fsdecode(name) for name in names if name}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _compressed(data: Path, work: Path) -> tuple[dict[str, str], list[tuple[Path, str]]]:
    """Return the SHA-256 of each file of the data, and its pieces, which are kept from one time to the next."""
    whole, jobs = {}, []
    for name, kind in FILES.items():
        content = _content(data, name)
        whole[name] = _sha256(content)
        for number, part in enumerate(parts(content, kind)):
            path = work / "pieces" / f"{Path(name).name}.{number}.{_sha256(part)[:12]}.{kind}"
            jobs.append((path, name, kind, part))
    (work / "pieces").mkdir(exist_ok=True)

    def compress(job: tuple[Path, str, str, bytes]) -> tuple[Path, str]:
        path, name, kind, part = job
        if not path.exists():
            small = ENCODERS[kind](part)
            if DECODERS[kind](small) != part:
                raise BundleError(f"{path.name} is not what was compressed: is Pillow's WebP lossless here?")
            path.with_suffix(".new").write_bytes(small)
            path.with_suffix(".new").rename(path)
            print(f"{path.name}: {len(part)} -> {len(small)} bytes", file=sys.stderr, flush=True)
        return path, name

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return whole, list(pool.map(compress, jobs))


def _content(data: Path, name: str) -> bytes:
    """Return a file of the data, decompressed; it may be in its folder or not, compressed or not."""
    for path in (data / name, data / Path(name).name):
        if path.is_file():
            return path.read_bytes()
        if (zipped := path.with_name(f"{path.name}.gz")).is_file():
            return gzip.decompress(zipped.read_bytes())
    raise BundleError(f"{name} is not in {str(data)!r}: set DEEPCHECK_DATA, or give --data, see deepcheck.data.load")


def _wheels(packages: Sequence[str], work: Path) -> list[Path]:
    """Return wheels of the versions in constraints.txt, else of the newest, for CPython 3.12; compressed by LZMA."""
    large, small = work / "wheels", work / "small-wheels"
    for folder in (large, small):
        folder.mkdir(exist_ok=True)
    found = []
    for package in packages:
        pattern = f"{package.replace('-', '_')}-*.whl"
        if not list(large.glob(pattern)):
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            command += ["--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp"]
            for platform in ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64", "any"):
                command += ["--platform", platform]
            command += ["--constraint", str(ROOT / "constraints.txt"), "--dest", str(large), package]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode or not list(large.glob(pattern)):
                raise BundleError(f"{package} could not be downloaded: {done.stderr.strip().splitlines()[-1:]}")
        (wheel,) = large.glob(pattern)
        target = small / wheel.name
        if not target.exists():
            with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(target.with_suffix(".new"), "w") as new:
                for info in old.infolist():
                    content = old.read(info)
                    info.compress_type = zipfile.ZIP_LZMA
                    new.writestr(info, content)
            target.with_suffix(".new").rename(target)
        found.append(target)
    return found


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


# Taking it apart.


def unpack(bundle: Path, data: Path, wheels: Path) -> list[str]:
    """Check a bundle, unpack its data and install its wheels; return what is said.

    Files of the data whose pieces are in both parts are whole when both have been unpacked, in any order.

    Raises
    ------
    BundleError
        If a file is missing from the bundle or damaged, or if pip fails.
    """
    try:
        manifest: dict[str, Any] = json.loads((bundle / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise BundleError(f"{str(bundle)!r} lacks manifest.json: make it with make cuda-bundle, and carry it") from None
    except ValueError:
        manifest = {}
    try:
        pieces = [Piece(**piece) for piece in manifest["pieces"]]
        about = {name: dict(of) for name, of in manifest["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BundleError(f"{str(bundle / 'manifest.json')!r} is damaged: make it anew, and carry it again") from None
    for option, folder in (("data", data), ("wheels", wheels)):
        if folder.exists() and not folder.is_dir():
            raise BundleError(f"{option} = {str(folder)!r} is a file: allowed is a folder")
    if missing := [piece.name for piece in pieces if not (bundle / piece.name).is_file()]:
        raise BundleError(f"{str(bundle)!r} lacks {', '.join(missing)}: make it anew, and carry all of it")
    for piece in pieces:
        if _sha256((bundle / piece.name).read_bytes()) != piece.sha256:
            raise BundleError(f"{str(bundle / piece.name)!r} is damaged: make it anew, and carry it again")
    kept = data / ".pieces"
    kept.mkdir(parents=True, exist_ok=True)

    def decode(piece: Piece) -> None:
        content = DECODERS[about[piece.of]["kind"]]((bundle / piece.name).read_bytes())
        (kept / f"{piece.name}.new").write_bytes(content)
        (kept / f"{piece.name}.new").rename(kept / piece.name)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, (piece for piece in pieces if piece.of)))
    said = [_joined(data, kept, name, **of) for name, of in about.items()]
    if installed := [piece.name for piece in pieces if not piece.of]:
        _install([bundle / name for name in installed], wheels)
        said.append(f"{len(installed)} wheels are in {wheels}")
    return said


def _joined(data: Path, kept: Path, name: str, *, sha256: str, kind: str, pieces: list[str]) -> str:
    """Write a file of the data, where all its pieces are there, and return what is said of it."""
    del kind
    target, there = data / name, [kept / piece for piece in pieces if (kept / piece).exists()]
    if target.exists() and _sha256(target.read_bytes()) == sha256:
        for path in there:
            path.unlink()
        return f"{name} is there"
    if len(there) < len(pieces):
        return f"{name} has {len(there)} of {len(pieces)} pieces: the others are in the other part"
    content = b"".join(path.read_bytes() for path in there)
    if _sha256(content) != sha256:
        raise BundleError(f"{name} is not what was packed: unpack both parts of one bundle again")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.with_name(f"{target.name}.new").write_bytes(content)
    target.with_name(f"{target.name}.new").rename(target)
    for path in there:
        path.unlink()
    return f"{name} is unpacked"


def _install(wheels: list[Path], target: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-index",
        "--no-deps",
    ]
    command += ["--upgrade", "--target", str(target), *map(str, wheels)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"pip could not install the wheels: {' '.join(done.stderr.split())[-300:]}")


# The command.


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 2 bad input."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "unpack":
            print("\n".join(unpack(options.bundle, options.data, options.wheels)))
            return 0
        tree = tree_size()
        pieces = make(options.part, options.bundle, options.data, options.work, tree)
    except BundleError as error:
        print(f"benchmarks.cuda.bundle: {error}", file=sys.stderr)
        return 2
    own = sum(piece.bytes for piece in pieces)
    for piece in pieces:
        print(f"{piece.bytes / 2**20:7.2f} MiB  {piece.name}")
    print(
        f"{options.bundle}: part {options.part} of {PARTS}, {own / 2**20:.1f} MiB; with the tree's {tree / 2**20:.1f} MiB "
        f"{(own + tree) / 2**20:.1f} of {CARRIED >> 20} MiB"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda.bundle", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    maker = commands.add_parser("make", help="make one part of it here")
    maker.add_argument("--part", type=int, default=1, choices=range(1, PARTS + 1))
    maker.add_argument(
        "--data", type=Path, default=Path(os.environ.get("DEEPCHECK_DATA", DATA)), help="default: DEEPCHECK_DATA"
    )
    maker.add_argument("--work", type=Path, default=WORK, help="what is compressed and downloaded once")
    taker = commands.add_parser("unpack", help="take it apart on the machine")
    taker.add_argument("--data", type=Path, default=DATA, help="folder for the data sets (default: data)")
    taker.add_argument("--wheels", type=Path, default=WHEELS, help="folder for PYTHONPATH (default: .cuda-wheels)")
    for command in (maker, taker):
        command.add_argument("--bundle", type=Path, default=BUNDLE, help="its folder (default: .cuda-bundle)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
