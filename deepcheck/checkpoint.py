"""Networks and the state of their training in files: safetensors, with JSON in its header. Nothing is pickled.

A training leaves one file (`write`). Weights alone that are to travel are written in shards (`write_shards`), each of
which is small; what reads a checkpoint takes their folder, or one of them, for the whole.
"""

from __future__ import annotations

import deepcheck._torch  # noqa: F401

# isort: split

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepcheck import models
from deepcheck.checks import CheckpointError, checked_choice
from odeflow.model import checked_count
from odeflow.provenance import write_bytes

__all__ = [
    "BEST",
    "LAST",
    "CheckpointError",
    "check_finite",
    "load_into",
    "load_model",
    "read",
    "read_tensors",
    "result_in",
    "shards_in",
    "write",
    "write_shards",
]

_VERSION = 1
LAST, BEST = "last.safetensors", "best.safetensors"
"""Names of the files that a training leaves in its folder."""
MODEL = "model."
"""Prefix of the names of a network's tensors."""
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""Precisions of weights that travel."""
SHARD = "weights-{}-of-{}.safetensors"
"""Name of the k-th of n shards, k = 1, ..., n."""
_HEADER, _ENTRY = 512, 160
"""Bytes of a shard that are neither numbers nor the text of its information: for all, and at most for each tensor."""


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> Path:
    """Write tensors and what JSON can hold to one file; a killed run leaves either the old file or the new one."""
    header = {"deepcheck": json.dumps({"version": _VERSION, **info})}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path = Path(path)
    write_bytes(path, to_bytes(plain, metadata=header))
    return path


def write_shards(
    folder: str | os.PathLike[str],
    network: models.Network,
    info: Mapping[str, Any],
    *,
    dtype: str = "bfloat16",
    most: int = 16 * 2**20,
    overwrite: bool = False,
) -> list[Path]:
    """Write the weights of a network alone, to files that are small: weights-1-of-n.safetensors and so on.

    Parameters
    ----------
    folder
        Where the files go; it is made if only it, and not its parent, is missing.
    network
        Its parameters are rounded to `dtype`; its buffers, such as the running statistics of norms, stay as they are.
    info
        What JSON can hold: that of the checkpoint, if a training is to go on from the weights. All shards have it, and the
        network's `spec` as model.
    dtype
        Precision of the parameters, out of DTYPES.
    most
        Largest size of a file in bytes.
    overwrite
        Replace shards that are in the folder.

    Raises
    ------
    ValueError
        If there are shards in the folder, a tensor alone is larger than a file may be, or a weight is beyond the range of
        float16. Nothing is written then.
    """
    folder, precision = Path(folder), DTYPES[checked_choice("dtype", dtype, DTYPES)]
    checked_count("most", most, 1)
    if not folder.parent.is_dir():
        raise FileNotFoundError(
            f"folder = {str(folder)!r} cannot be made: its folder {str(folder.parent)!r} does not exist"
        )
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"folder = {str(folder)!r} is a file: allowed is a folder")
    former = shards_in(folder)
    if former and not overwrite:
        raise ValueError(
            f"folder = {str(folder)!r} holds {former[0].name} already: allowed is another folder, or overwrite=True "
            "(--overwrite)"
        )
    weights = {name for name, _ in network.named_parameters()}
    tensors = {
        MODEL + name: tensor.detach().to(precision if name in weights else tensor.dtype).cpu().contiguous()
        for name, tensor in network.state_dict().items()
    }
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"dtype = {dtype!r} cannot hold {name}: allowed for this network is bfloat16 or float32")
    about = {**info, "model": network.spec, "dtype": dtype}
    parts = _shared_out(tensors, most, len(json.dumps(json.dumps(about))))
    digests = [_digest(part, about) for part in parts]
    whole = _joint(digests)
    folder.mkdir(exist_ok=True)
    written = []
    for k, (part, digest) in enumerate(zip(parts, digests, strict=True), 1):
        shard = {"number": k, "count": len(parts), "digest": digest, "whole": whole}
        written.append(write(folder / SHARD.format(k, len(parts)), part, {**about, "shard": shard}))
    for path in set(former) - set(written):
        path.unlink()
    return written


def shards_in(folder: Path) -> list[Path]:
    """Return the files in a folder that have the name of a shard."""
    return sorted(folder.glob(SHARD.format("*", "*")))


def result_in(path: Path) -> Path:
    """Return the checkpoint with the result of a training in a folder: the best, else the last, else its shards."""
    if not path.is_dir():
        return path
    default = path if shards_in(path) else path / LAST
    return next((path / name for name in (BEST, LAST) if (path / name).exists()), default)


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the information of a checkpoint: of a file, or of the shards in a folder.

    A file that is one of several shards stands for all of them.

    Raises
    ------
    CheckpointError
        If it is missing, truncated, or no checkpoint of this package; or a shard is missing, or does not belong to the
        others.
    """
    path = Path(path)
    if path.is_dir():
        path = min(shards_in(path), default=path)
    tensors, info = _read_file(path)
    if "shard" not in info:
        return tensors, info
    count, whole = (_said(info, name, path) for name in ("count", "whole"))
    tensors, digests = {}, []
    for k in range(1, count + 1):
        shard = path.with_name(SHARD.format(k, count))
        if not shard.is_file():
            raise CheckpointError(f"{str(shard)!r} does not exist: it is one of the {count} shards of {str(path)!r}")
        part, its = _read_file(shard)
        if (_said(its, "number", shard), _said(its, "count", shard), _said(its, "whole", shard)) != (k, count, whole):
            raise CheckpointError(f"{str(shard)!r} is a shard of other weights than {str(path)!r}")
        digests.append(_digest(part, its))
        if digests[-1] != its["shard"].get("digest"):
            raise CheckpointError(f"{str(shard)!r} is damaged: it does not have its checksum")
        tensors |= part
    if _joint(digests) != whole:
        raise CheckpointError(f"{str(path)!r} is damaged: the shards beside it are not those that it was written with")
    return tensors, info


def _read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the information of one file."""
    if not path.is_file():
        raise CheckpointError(f"{str(path)!r} does not exist: allowed is a checkpoint that `deepcheck train` has left")
    tensors, header = _opened(path)
    if "deepcheck" not in header:
        raise CheckpointError(f"{str(path)!r} is a safetensors file, but no checkpoint of deepcheck")
    try:
        info: dict[str, Any] = json.loads(header["deepcheck"])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} has information that is no JSON: {error}") from None
    if not isinstance(info, dict):
        raise CheckpointError(f"{str(path)!r} has information that is no object of JSON, but {type(info).__name__}")
    if info.get("version") != _VERSION:
        raise CheckpointError(f"{str(path)!r} has format {info.get('version')}: allowed is {_VERSION}")
    return tensors, info


def read_tensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors (on the CPU) of any safetensors file.

    Raises
    ------
    CheckpointError
        If it is missing, truncated, or of another format, such as a pickle.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{str(path)!r} does not exist: allowed is a safetensors file with the net's state dict")
    return _opened(path)[0]


def load_model(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> models.Network:
    """Return the network of a checkpoint, in eval mode.

    Raises
    ------
    CheckpointError
        If the file is not a whole checkpoint, or its tensors are not those of the network that it describes: these are
        compared before there is such a network, so that a file cannot ask for more memory than it has itself.
    """
    tensors, info = read(path)
    if "model" not in info:
        raise CheckpointError(f"{str(path)!r} holds no network")
    state = _state_in(tensors)
    try:
        shapes = models.shapes_of(info["model"], tensors=len(state))
    except ValueError as error:
        raise CheckpointError(f"{str(path)!r} describes no network of its {len(state)} tensors: {error}") from None
    different = {
        name: f"{name}: {_shape(state, name)} and not {_shape(shapes, name)}"
        for name in sorted(state.keys() | shapes.keys())
        if _shape(state, name) != _shape(shapes, name)
    }
    if different:
        first = "; ".join(list(different.values())[:3])
        raise CheckpointError(
            f"{str(path)!r} does not hold the tensors of its network: {len(different)} differ: {first}"
        )
    network = models.from_spec(info["model"])
    _fill(network, tensors, path)
    return network.to(device).eval()


def load_into(network: models.Network, path: str | os.PathLike[str]) -> None:
    """Give a network the weights of a checkpoint.

    Raises
    ------
    CheckpointError
        If the file is not a whole checkpoint, or one of another architecture.
    """
    tensors, info = read(path)
    theirs, ours = info.get("model"), json.loads(json.dumps(network.spec))
    if theirs != ours:
        raise CheckpointError(f"{str(path)!r} holds a network {theirs}, which does not fit into {ours}")
    _fill(network, tensors, path)


def check_finite(tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    """Raise if weights are complex, infinite or NaN.

    Raises
    ------
    CheckpointError
        It names the first.
    """
    for name, tensor in tensors.items():
        if tensor.is_complex() or not tensor.isfinite().all():
            kind = "complex" if tensor.is_complex() else "not finite"
            raise CheckpointError(f"{os.fspath(path)!r} holds weights that are {kind}: {name}")


def _said(info: Mapping[str, Any], name: str, path: Path) -> Any:
    """Return what a shard says of itself: its number, 1, ..., count, or the checksum of the whole."""
    shard = info.get("shard")
    value = shard.get(name) if isinstance(shard, dict) else None
    if type(value) is not (str if name == "whole" else int):
        raise CheckpointError(f"{str(path)!r} is no shard, or does not say which one: shard = {shard!r}"[:300])
    return value


def _digest(tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> str:
    """Return the SHA-256 of tensors and of their information, but for what says which shard they are."""
    about = {name: value for name, value in info.items() if name not in ("version", "shard")}
    found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        found.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _joint(digests: Sequence[str]) -> str:
    """Return the SHA-256 of several."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _shared_out(tensors: Mapping[str, Tensor], most: int, text: int) -> list[dict[str, Tensor]]:
    """Return the tensors in parts, in their order, each as many as fit into `most` bytes with a text of so many."""
    parts: list[dict[str, Tensor]] = []
    room = most - _HEADER - text
    left = -1
    for name, tensor in tensors.items():
        size = tensor.nbytes + len(name) + _ENTRY
        if size > room:
            least = most - room + size
            raise ValueError(f"most = {most} is out of range: allowed is >= {least} bytes, which {name} alone needs")
        if size > left:
            parts.append({})
            left = room
        parts[-1][name] = tensor
        left -= size
    return parts


def _opened(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, and its header."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(path)!r} is no whole safetensors file (truncated?): {error}") from None


def _state_in(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a network among those of a checkpoint."""
    return {name.removeprefix(MODEL): tensor for name, tensor in tensors.items() if name.startswith(MODEL)}


def _shape(tensors: Mapping[str, Tensor | torch.Size], name: str) -> tuple[int, ...] | None:
    """Return the shape of a tensor, or that of a shape; None if there is none."""
    found = tensors.get(name)
    return None if found is None else tuple(found.shape if isinstance(found, Tensor) else found)


def _fill(network: models.Network, tensors: Mapping[str, Tensor], path: str | os.PathLike[str]) -> None:
    state = _state_in(tensors)
    check_finite(state, path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{str(path)!r} does not hold the tensors of its network: {' '.join(str(error).split())}"
        ) from None
