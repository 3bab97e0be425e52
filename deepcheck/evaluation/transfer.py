"""What an attack on one net does to another: every net as the attacker of every other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from deepcheck.attacks.base import Attack, Model, checked_epsilons, checked_images
from deepcheck.attacks.minimal.base import MinimalAttack
from deepcheck.attacks.prepared.transfer import Transfer
from deepcheck.device import describe, exact_float32, memory_advice
from deepcheck.evaluation.predicted import predictions
from deepcheck.evaluation.run import stream
from deepcheck.evaluation.schema import text_array
from odeflow.model import checked_count
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["transfer_matrix"]


@exact_float32()
def transfer_matrix(
    models: Mapping[str, Model],
    images: Tensor,
    labels: Tensor,
    attack: Attack | MinimalAttack,
    epsilon: float | Sequence[float],
    *,
    seed: int = 0,
    batch_size: int = 500,
    progress: bool = False,
) -> xr.Dataset:
    """Attack every net, and ask every other one what it makes of the attacked images.

    Each net is attacked once, without looking at the others, and goes on where it is fooled already (see
    `deepcheck.attacks.Transfer`). All nets are attacked with the same random numbers. The diagonal is the attack on a net
    itself.

    Parameters
    ----------
    models
        Nets by name: functions from images to logits, for the same images and classes.
    images
        Shape (n, ...), n >= 1, pixels in [0, 1], on the device of the nets.
    labels
        Shape (n,), int64.
    attack
        Any attack that needs no preparation. One that finds the nearest is asked for the best within the budget.
    epsilon
        Size of the perturbation, >= 0, or several.
    seed
        Of the attack, >= 0.
    batch_size
        Images that a net sees at once, >= 1.
    progress
        Show progress on a terminal.

    Returns
    -------
    Dataset
        `accuracy` (attacker, target): share of the images that the target still gets right. `success` (attacker, target):
        share that it gets wrong of those that it gets right without an attack, NaN where there are none. With several
        epsilons both have a first dim for them. `standard_error` of the accuracy, and `clean_accuracy` (target).

    Raises
    ------
    ValueError, TypeError
        If there is no net or no image, or an argument is not allowed; before any attack.
    """
    import xarray as xr

    given: object = models
    if not isinstance(given, Mapping):
        raise TypeError(f"models are of the wrong type {type(given).__name__}: allowed is a dict of names to nets")
    chosen: object = attack
    if not callable(chosen):
        raise TypeError(f"attack = {chosen!r} is of the wrong type: allowed is an attack within a budget")
    if not models:
        raise ValueError(f"models = {models!r} is not allowed: a dict of names to nets, one at least, is")
    checked_images(images, labels, (0.0, 1.0))
    checked_count("seed", seed, 0)
    checked_count("batch_size", batch_size, 1)
    epsilons, single = checked_epsilons(epsilon)
    n, names = len(images), [str(name) for name in models]
    if not n:
        raise ValueError("images are none: allowed is one image or more")
    y = labels.cpu().numpy()
    shape = (len(epsilons), len(names), len(names))
    accuracy, success = np.empty(shape), np.full(shape, math.nan)
    with memory_advice(batch_size):
        right = [predictions(model, images, batch_size)[0] == y for model in models.values()]
        for row, attacker in enumerate(models.values()):
            source = stream(seed, "transfer")
            options: dict[str, Any] = {"progress": True} if progress else {}
            found = Transfer(attack, attacker)(
                attacker, images, labels, epsilon=epsilons, generator=source, batch_size=batch_size, **options
            )
            for column, target in enumerate(models.values()):
                for k, z in enumerate(found.images):
                    holds = predictions(target, z, batch_size)[0] == y
                    accuracy[k, row, column] = holds.mean()
                    if right[column].any():
                        success[k, row, column] = 1 - holds[right[column]].mean()
    result = xr.Dataset(
        {
            "accuracy": (("epsilon", "attacker", "target"), accuracy),
            "success": (("epsilon", "attacker", "target"), success),
            "standard_error": (("epsilon", "attacker", "target"), np.sqrt(accuracy * (1 - accuracy) / n)),
            "clean_accuracy": ("target", np.array([one.mean() for one in right])),
        },
        coords={"epsilon": list(epsilons), "attacker": text_array(names), "target": text_array(names)},
        attrs=provenance(
            "transfer_matrix",
            seed=str(seed),
            attack=repr(attack),
            examples=n,
            device=describe(images.device),
            models={name: repr(model) for name, model in models.items()},
        ),
    )
    for name, text in LONG_NAMES.items():
        result[name].attrs.update(long_name=text, units="1")
    return result.isel(epsilon=0) if single else result


LONG_NAMES = {
    "accuracy": "accuracy of the target under the attack on the attacker's net",
    "success": "share of the target's right images that are broken",
    "standard_error": "standard error of the accuracy",
    "clean_accuracy": "accuracy without an attack",
    "epsilon": "largest norm of the perturbation",
    "attacker": "net that the attack follows",
    "target": "net that is asked",
}
