"""Generators in files: safetensors, as the checkpoints of nets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcheck import checkpoint
from deepcheck.checkpoint import CheckpointError
from deepcheck.generators.networks import Generator, checked_shape

__all__ = ["GENERATOR", "LAST", "REPORT", "load_generator"]

LAST, REPORT = "last.safetensors", "training.json"
GENERATOR = "generator."
"""Prefix of the names of a generator's tensors."""


def load_generator(path: str | os.PathLike[str], *, device: torch.device | str = "cpu") -> Generator:
    """Return the generator that a training has left, in eval mode.

    Parameters
    ----------
    path
        The folder of the training, or the file in it.

    Raises
    ------
    CheckpointError
        If there is none, which says the command that trains one; if the file is truncated, or holds something else.
    """
    path = Path(path)
    file = path / LAST if path.is_dir() else path
    if not file.is_file():
        raise CheckpointError(
            f"generator = {str(path)!r} does not exist: train it by `deepcheck generator --dataset mnist --out {path}`"
        )
    tensors, info = checkpoint.read(file)
    return generator_in(tensors, info, file).to(device).eval()


def generator_in(tensors: Mapping[str, Tensor], info: Mapping[str, Any], path: Path) -> Generator:
    """Return the generator of a checkpoint; what its file says is compared before memory is asked for.

    Raises
    ------
    CheckpointError
        If there is none in it, or its tensors are those of another one.
    """
    state = {name.removeprefix(GENERATOR): one for name, one in tensors.items() if name.startswith(GENERATOR)}
    spec = info.get("generator")
    if not isinstance(spec, dict) or not state:
        raise CheckpointError(f"{str(path)!r} holds no generator: allowed is what `deepcheck generator` has left")
    try:
        channels, height, columns = checked_shape(spec["out_shape"])
        latent, width = int(spec["latent"]), int(spec["width"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{str(path)!r} describes no generator: {error}") from None
    hidden = 2 * width * (height // 4) * (columns // 4)
    shapes = {
        "layers.0.weight": (hidden, latent),
        "layers.0.bias": (hidden,),
        "layers.3.weight": (2 * width, width, 4, 4),
        "layers.3.bias": (width,),
        "layers.5.weight": (width, channels, 4, 4),
        "layers.5.bias": (channels,),
    }
    found = {name: tuple(one.shape) for name, one in state.items()}
    if found != shapes:
        raise CheckpointError(f"{str(path)!r} does not hold the tensors of its generator: {found} and not {shapes}")
    checkpoint.check_finite(state, path)
    generator = Generator(spec["out_shape"], latent=latent, width=width, generator=torch.Generator().manual_seed(0))
    generator.load_state_dict(state)
    return generator
