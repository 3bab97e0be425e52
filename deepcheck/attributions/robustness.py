"""How robust the explanations of a net are: maps before and after an attack on them, and after noise of the same size."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from deepcheck.attacks.base import Model
from deepcheck.attacks.draws import Draws, keys, mixed
from deepcheck.attacks.norms import Norm
from deepcheck.attributions.attack import AttributionAttack
from deepcheck.attributions.maps import pixel_sizes
from deepcheck.attributions.metrics import kendall_tau, spearman_rho, top_pixels_shared
from deepcheck.data import Images
from deepcheck.device import describe, memory_advice
from deepcheck.evaluation.run import Tensors, predictions, split, stream
from deepcheck.evaluation.schema import text_array
from odeflow.model import checked_count, checked_number
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["METRICS", "attribution_robustness", "attribution_summary"]

METRICS = ("top_pixels_shared", "kendall", "spearman")
"""Names of the variables that say how alike two maps are."""
CHANGES = ("noise", "attack")

LONG_NAMES = {
    "label": "true class, which is explained",
    "clean_prediction": "predicted class of the image",
    "prediction": "predicted class of the changed image",
    "top_pixels_shared": "share of the k largest pixels of the map that stay among them",
    "kendall": "Kendall's tau-b of the two maps",
    "spearman": "Spearman's rank correlation of the two maps",
    "length": "norm of the perturbation",
    "change": "how the image was changed",
    "epsilon": "largest norm of the perturbation",
    "k": "pixels that are compared",
    "shown": "index of the example that is shown",
    "image": "pixels of the image",
    "attacked_image": "pixels of the attacked image",
    "map": "map of the image",
    "attacked_map": "map of the attacked image",
}


def attribution_robustness(
    model: Model,
    images: Images | Tensors,
    *,
    epsilon: float,
    attack: AttributionAttack | None = None,
    examples: int = 200,
    shown: int = 0,
    seed: int = 0,
    device: torch.device | str = "cpu",
    batch_size: int = 500,
    configuration: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> xr.Dataset:
    """Attack the maps of the first test images, and say how alike they are to those of the images.

    Parameters
    ----------
    model
        A function from images to logits, on `device`. A module is put into eval mode, and back afterwards.
    images
        The data set, of which test images alone are used; or a pair of tensors, see `deepcheck.evaluation.evaluate`.
    epsilon
        Radius of the ball, >= 0.
    attack
        With the map, the norm and k; default: `AttributionAttack()`.
    examples
        Test images, the first ones, >= 1. Those that the model gets wrong are not attacked, as published.
    shown
        Pictures and maps of so many of the attacked images are kept, >= 0, the first ones.
    seed, device, batch_size, configuration, progress
        See `deepcheck.evaluation.evaluate`.

    Returns
    -------
    Dataset
        By example: label, clean_prediction; with the dim change (noise, uniform in the ball, or attack) also prediction,
        length, and of the maps top_pixels_shared, kendall and spearman: NaN where the image was wrong already, and of a map
        that is constant the correlations. The attack leaves every prediction as it is; noise need not.
        With `shown` also image, attacked_image, map and attacked_map (shown, channel, row, column).

    Raises
    ------
    ValueError, TypeError
        If an argument is not allowed; before any attack.
    MemoryError
        If a batch does not fit into the memory of the GPU.
    """
    import xarray as xr

    epsilon = checked_number("epsilon", epsilon, least=0)
    checked_count("seed", seed, 0)
    checked_count("shown", shown, 0)
    checked_count("batch_size", batch_size, 1)
    chosen = AttributionAttack() if attack is None else attack
    if not isinstance(chosen, AttributionAttack):
        raise TypeError(f"attack = {attack!r} is of the wrong type: allowed is an AttributionAttack")
    device = torch.device(device)
    (x, y), _ = split(images, examples, 0, device)
    with memory_advice(batch_size):
        clean = predictions(model, x, batch_size)[0]
        index = torch.tensor(np.flatnonzero(clean == y.cpu().numpy()), device=device)
        found = chosen(
            model,
            x[index],
            y[index],
            epsilon=epsilon,
            generator=stream(seed, "attributions"),
            indices=index,
            batch_size=batch_size,
            progress=progress,
        )
        changed = {"noise": _noise(chosen, x[index], epsilon, index, stream(seed, "noise")), "attack": found.images}
        maps = chosen.map(model, x[index], y[index], batch_size=batch_size)
        after = {name: chosen.map(model, z, y[index], batch_size=batch_size) for name, z in changed.items()}
        said = {name: predictions(model, z, batch_size)[0] for name, z in changed.items()}
    assert isinstance(chosen.norm, Norm)
    columns: dict[str, list[Any]] = {name: [] for name in (*METRICS, "length", "prediction")}
    for name, z in changed.items():
        a, b = pixel_sizes(maps), pixel_sizes(after[name])
        columns["top_pixels_shared"].append(top_pixels_shared(a, b, chosen.k).cpu().numpy() if len(a) else [])
        columns["kendall"].append(kendall_tau(a, b))
        columns["spearman"].append(spearman_rho(a, b))
        columns["length"].append(chosen.norm.length(z - x[index]).cpu().numpy())
        columns["prediction"].append(said[name])
    rows = index.cpu().numpy()
    pixels = ("shown", "channel", "row", "column")
    pictures = {"image": x[index], "attacked_image": found.images, "map": maps, "attacked_map": after["attack"]}
    result = xr.Dataset(
        {
            "label": ("example", y.cpu().numpy()),
            "clean_prediction": ("example", clean),
            **{
                name: (("change", "example"), _spread(values, rows, len(x), -1 if name == "prediction" else math.nan))
                for name, values in columns.items()
            },
            **{name: (pixels, one[:shown].cpu().numpy()) for name, one in pictures.items() if shown},
        },
        coords={
            "change": text_array(CHANGES),
            "example": np.arange(len(x)),
            "epsilon": epsilon,
            "k": chosen.k,
            **({"shown": rows[:shown]} if shown else {}),
        },
        attrs=provenance(
            "attribution_robustness",
            seed=str(seed),
            device=describe(device),
            attack=repr(chosen),
            examples=len(x),
            data=images.name if isinstance(images, Images) else "tensors",
            **(configuration or {}),
        ),
    )
    for variable in result.variables.keys() & LONG_NAMES.keys():
        result[variable].attrs.update(long_name=LONG_NAMES[str(variable)], units="1")
    return result


def attribution_summary(records: xr.Dataset) -> xr.Dataset:
    """Return the means of what `attribution_robustness` found, with standard errors.

    Returns
    -------
    Dataset
        By change (noise, attack): each of METRICS and its ``NAME_standard_error``, over the examples that were right and whose
        prediction stayed; `kept`, their share of those that were right, and `examples`, their number. `accuracy` is that on
        the images.

    Raises
    ------
    ValueError
        If `records` are none of these.
    """
    import xarray as xr

    missing = [name for name in (*METRICS, "prediction", "clean_prediction", "label") if name not in records]
    if missing:
        raise ValueError(f"records lack {', '.join(missing)}: allowed is what attribution_robustness returns")
    right = (records["clean_prediction"] == records["label"]).values
    kept = right & (records["prediction"] == records["label"]).values
    columns: dict[str, list[float]] = {name: [] for one in METRICS for name in (one, f"{one}_standard_error")}
    for row, chosen in enumerate(kept):
        for name in METRICS:
            values = records[name].values[row, chosen]
            values = values[np.isfinite(values)]
            n = len(values)
            columns[name].append(float(values.mean()) if n else math.nan)
            columns[f"{name}_standard_error"].append(float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan)
    share = kept.sum(1) / right.sum() if right.any() else np.full(len(kept), math.nan)
    return xr.Dataset(
        {
            **{name: ("change", np.array(values)) for name, values in columns.items()},
            "kept": ("change", share),
            "examples": ("change", kept.sum(1)),
            "accuracy": right.mean(),
        },
        coords={name: records[name] for name in ("change", "epsilon", "k")},
        attrs=dict(records.attrs),
    )


def _noise(attack: AttributionAttack, x: Tensor, epsilon: float, index: Tensor, generator: torch.Generator) -> Tensor:
    """Return images that are moved to points that are uniform in the ball, within the box."""
    assert isinstance(attack.norm, Norm)
    draws = Draws(mixed(keys(generator, index), 0))
    return attack.norm.confinement(x, epsilon, attack.bounds)(x + attack.norm.uniform(x, epsilon, draws))


def _spread(values: list[Any], rows: Any, n: int, empty: float) -> Any:
    """Return rows of values at their places among n examples, and `empty` elsewhere."""
    whole = np.full((len(values), n), empty, np.float64 if math.isnan(empty) else np.int64)
    whole[:, rows] = np.array(values)
    return whole
