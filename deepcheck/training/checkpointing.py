"""What a training leaves in its folder, and how it goes on from there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepcheck import checkpoint
from deepcheck.checkpoint import CheckpointError
from deepcheck.training.recipe import Recipe, recorded
from deepcheck.training.step import Learner

__all__ = ["BEST", "LAST", "REPORT", "check_same", "drawn_on_gpu", "packed", "progress_of", "unpack"]

LAST, BEST, REPORT = checkpoint.LAST, checkpoint.BEST, "training.json"
CURRENT, STATE, OPTIMISER, GENERATOR = "current.", "method.", "optimiser.", "generator."
"""Prefixes of tensors: weights that are not the result, because it is an average; what the method remembers; momenta;
and sources of random numbers. The result's are those of any network, `checkpoint.MODEL`."""


def packed(learner: Learner, generators: Mapping[str, torch.Generator]) -> dict[str, Tensor]:
    """Return all tensors that a training needs to go on, by name."""
    parts: dict[str, Mapping[str, Tensor]] = {checkpoint.MODEL: learner.result.state_dict()}
    if learner.average is not None:
        parts[CURRENT] = learner.network.state_dict()
    if learner.state is not None:
        parts[STATE] = learner.state.state_dict()
    momenta = learner.optimiser.state_dict()["state"]
    parts[OPTIMISER] = {
        f"{index}.{name}": torch.as_tensor(value) for index, values in momenta.items() for name, value in values.items()
    }
    parts[GENERATOR] = {name: generator.get_state() for name, generator in generators.items()}
    return {prefix + name: tensor for prefix, tensors in parts.items() for name, tensor in tensors.items()}


def unpack(
    tensors: Mapping[str, Tensor], learner: Learner, generators: Mapping[str, torch.Generator], path: Path
) -> None:
    """Give a learner what `packed` has made of another one; the number of its steps is not among it.

    Raises
    ------
    CheckpointError
        If something is missing, or of another shape; `path` is named.
    """

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

    current = checkpoint.MODEL if learner.average is None else CURRENT
    needed = {current: learner.network.state_dict(), GENERATOR: generators}
    if learner.state is not None:
        needed[STATE] = learner.state.state_dict()
    missing = {prefix + name for prefix, names in needed.items() for name in names} - tensors.keys()
    if missing:
        raise CheckpointError(
            f"{str(path)!r} cannot be resumed: it lacks {', '.join(sorted(missing))} (are they weights alone?)"
        )
    momenta: dict[int, dict[str, Tensor]] = {}
    groups = learner.optimiser.state_dict()["param_groups"]
    try:
        for name, tensor in part(OPTIMISER).items():
            index, key = name.split(".", 1)
            momenta.setdefault(int(index), {})[key] = tensor
        learner.network.load_state_dict(part(current))
        if learner.average is not None:
            learner.average.network.load_state_dict(part(checkpoint.MODEL))
        if learner.state is not None:
            learner.state.load_state_dict(part(STATE))
        learner.optimiser.load_state_dict({"state": momenta, "param_groups": groups})
        for name, generator in generators.items():
            generator.set_state(tensors[GENERATOR + name])
    except (RuntimeError, ValueError, TypeError) as error:
        raise CheckpointError(f"{str(path)!r} cannot be resumed: {' '.join(str(error).split())}") from None


def drawn_on_gpu(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a checkpoint is of a former version that drew its random numbers on a GPU: a state of 16 bytes."""
    state = tensors.get(GENERATOR + "noise")
    return state is not None and tuple(state.shape) == (16,)


def progress_of(information: Mapping[str, Any], path: Path) -> tuple[int, float, int, list[Any], list[int]]:
    """Return what a checkpoint says of its training.

    These are the epochs that are done, the best score, the epoch of that, the history, and the epochs after which the
    optimiser began anew.

    Raises
    ------
    CheckpointError
        If one is missing, or of another type.
    """
    kinds: dict[str, Any] = {"epoch": int, "best": (int, float), "best_epoch": int, "history": list}
    kinds["optimiser_restarted_after"] = list
    found = {"optimiser_restarted_after": [], **information}  # files of former versions are of one piece
    for name, kind in kinds.items():
        value = found.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise CheckpointError(f"{str(path)!r} cannot be resumed: it has {name} = {value!r}"[:300])
    epoch, best, best_epoch, history, restarted = (found[name] for name in kinds)
    return epoch, best, best_epoch, history, restarted


def check_same(information: Mapping[str, Any], recipe: Recipe, source: Mapping[str, Any], path: Path) -> None:
    """Raise if a checkpoint is of another recipe, or of other images.

    A field that an earlier version did not have has the default.

    Raises
    ------
    CheckpointError
        The message has the fields that differ, what they are in the checkpoint, and what they should be.
    """
    given = {**_flat(asdict(recipe)), **source}
    found: dict[str, Any] = dict.fromkeys(given)
    if information.get("recipe"):
        theirs = information["recipe"]
        try:
            found |= _flat(asdict(Recipe(method=type(recipe.method)()))) | _flat(recorded(dict(theirs.items())))
        except (TypeError, KeyError, AttributeError):
            raise CheckpointError(f"{str(path)!r} cannot be resumed: its recipe is none: {theirs!r}"[:300]) from None
    found |= {name: information.get(name) for name in source}
    names = list(given) if given["method"] == found["method"] else [*Recipe.__dataclass_fields__, *source]
    different = [
        f"{name} = {found.get(name)!r} and not {given[name]!r}" for name in names if found.get(name) != given[name]
    ]
    if different:
        raise CheckpointError(f"{str(path)!r} cannot be resumed: it has {', '.join(different)}")


def _flat(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe as JSON has them, those of its method among them, and as `method` its name."""
    own = json.loads(json.dumps(recipe))
    method = own.pop("method")
    return {"method": method.pop("name"), **own, **method}
