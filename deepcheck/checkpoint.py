"""Networks and the state of their training in files: safetensors, with JSON in its header. Nothing is pickled."""

from __future__ import annotations

import deepcheck._torch  # noqa: F401

# isort: split

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from deepcheck import models
from deepcheck.checks import CheckpointError
from odeflow.provenance import write_bytes

__all__ = ["CheckpointError", "check_finite", "load_into", "load_model", "read", "read_tensors", "write"]

_VERSION = 1
MODEL = "model."
"""Prefix of the names of a network's tensors."""


def write(path: str | os.PathLike[str], tensors: Mapping[str, Tensor], info: Mapping[str, Any]) -> Path:
    """Write tensors and what JSON can hold to one file; a killed run leaves either the old file or the new one."""
    header = {"deepcheck": json.dumps({"version": _VERSION, **info})}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path = Path(path)
    write_bytes(path, to_bytes(plain, metadata=header))
    return path


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors (on the CPU) and the information of a checkpoint.

    Raises
    ------
    CheckpointError
        If it is missing, truncated, or no checkpoint of this package.
    """
    path = Path(path)
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
