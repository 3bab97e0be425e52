"""The standard evaluation of the field: four attacks without settings to choose, and the robust accuracy that they leave."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from deepcheck.attacks import registry
from deepcheck.attacks.in_order import InOrder
from deepcheck.checks import checked_choice
from deepcheck.evaluation.schema import checked, texts
from deepcheck.evaluation.thresholds import standard_error
from odeflow.model import checked_count

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["CUSTOMARY", "entry", "line", "stages", "standard_attack"]

CUSTOMARY: dict[str, float] = {"linf": 8 / 255, "l2": 0.5, "l1": 12.0}
"""Sizes of the perturbations at which nets for CIFAR-10 are compared, by norm."""
_THREATS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


def standard_attack(norm: str = "linf", *, steps: int = 100, queries: int = 5000, state: str | None = None) -> InOrder:
    """Return APGD on cross-entropy, targeted APGD, targeted FAB and the Square Attack as one attack (Croce and Hein, ICML 2020).

    Each takes only the examples that those before it have left. In L1 APGD has 5 restarts and 5 targets, with steps of
    growing sparsity from larger balls (Croce and Hein, ICML 2021); else one restart and 9 targets. Of K classes there are at
    most K - 1 targets; of two or three classes the margin stands for the difference of logits ratio, which needs more.

    Parameters
    ----------
    norm
        linf, l2 or l1.
    steps
        Of APGD and FAB, >= 1. The standard has 100.
    queries
        Of the Square Attack, >= 1. The standard has 5000.
    state
        A folder in which it is written, after each attack, what has been found: the same call goes on from there.

    Raises
    ------
    ValueError
        If the norm is another, or a number is out of range.
    """
    checked_choice("norm", norm, CUSTOMARY)
    checked_count("steps", steps, 1)
    l1 = norm == "l1"
    attacks: dict[str, dict[str, Any]] = {
        "apgd_ce": {"steps": steps, "restarts": 5 if l1 else 1},
        "apgd_t": {"steps": steps, "restarts": 5 if l1 else 9},
        "fab_t": {"steps": steps, "restarts": 9},
        "square": {"queries": queries},
    }
    made = ((name, registry.within_budget(registry.make(name, norm, **options))) for name, options in attacks.items())
    return InOrder(tuple(made), name="standard", state=state)


def stages(records: xr.Dataset, attack: str, epsilon: float) -> dict[str, float]:
    """Return the robust accuracy that each attack of an `InOrder` and all before it leave, by name.

    Parameters
    ----------
    records
        See `deepcheck.evaluation.schema`.
    attack
        Its name in the records.
    epsilon
        The size of the perturbation.

    Raises
    ------
    ValueError, TypeError
        If there is none of this name in the records.
    """
    records = checked(records)
    names = texts(records, "attack")
    checked_choice("attack", attack, dict.fromkeys(names))
    of_attack = records.isel(attack=names.index(attack))
    run = records["epsilon"].values[(of_attack["prediction"].values >= 0).any((1, 2))]
    if not np.isclose(run, epsilon, rtol=1e-9, atol=0).any():
        raise ValueError(f"epsilon = {epsilon!r} was not run with {attack}: allowed is one of {run.tolist()}")
    one = of_attack.sel(epsilon=epsilon, method="nearest")
    right = one["prediction"].values == records["label"].values
    parts = str(one["effort"].item()).split(", ")
    return {part: float(right[: k + 1].all(0).mean()) for k, part in enumerate(parts)}


def line(records: xr.Dataset, attack: str, epsilon: float, name: str) -> str:
    """Return one line that says how accurate a net is without an attack, and after each attack of the standard evaluation."""
    records = checked(records)
    n = records.sizes["example"]
    clean = float((records["clean_prediction"].values == records["label"].values).mean())
    left = stages(records, attack, epsilon)
    norm = attack.rpartition("_")[2]
    steps = ", ".join(f"{part} {100 * accuracy:.2f}" for part, accuracy in left.items())
    robust = list(left.values())[-1]
    return (
        f"{name}: {_THREATS.get(norm, norm)} {epsilon:.4g}, {n} images: clean {100 * clean:.2f}, {steps}; robust accuracy "
        f"{100 * robust:.2f} +- {100 * standard_error(robust, n):.2f} %"
    )


def entry(
    records: xr.Dataset,
    attack: str,
    epsilon: float,
    *,
    name: str,
    dataset: str,
    about: Mapping[str, Any] | None = None,
    warned: Sequence[str] = (),
) -> str:
    """Return a JSON text with the keys that the entries of RobustBench have, and the protocol beside them.

    Parameters
    ----------
    records, attack, epsilon
        See `stages`.
    name, dataset
        Of the net, and of the images.
    about
        What is known of the net; its "model" or "recipe" name the architecture.
    warned
        Names of the warnings, see the page on them.
    """
    records = checked(records)
    left = stages(records, attack, epsilon)
    norm = attack.rpartition("_")[2]
    clean = float((records["clean_prediction"].values == records["label"].values).mean())
    index = texts(records, "attack").index(attack)
    planned = json.loads(records.attrs["configuration"])["options"]["attacks"].get(attack, {})
    model = (about or {}).get("model")
    content = {
        "name": name,
        "dataset": dataset,
        "architecture": model.get("name") if isinstance(model, Mapping) else model,
        "threat_model": _THREATS.get(norm, norm),
        "eps": epsilon,
        "clean_acc": f"{100 * clean:.2f}",
        "autoattack_acc": f"{100 * list(left.values())[-1]:.2f}",
        "unreliable": bool(warned),
        "protocol": {
            "attack": planned.get("attack"),
            "robust_accuracy_after": {part: round(100 * accuracy, 4) for part, accuracy in left.items()},
            "examples": int(records.sizes["example"]),
            "standard_error": round(100 * standard_error(list(left.values())[-1], records.sizes["example"]), 4),
            "evaluations_an_image": float(np.sum(_queries(records, index), dtype=float) / records.sizes["example"]),
            "seed": records.attrs.get("seed"),
            "warnings": list(warned),
            "device": records.attrs.get("device"),
            "versions": {key: value for key, value in records.attrs.items() if key.endswith("_version")},
        },
    }
    return json.dumps(content, indent=2)


def _queries(records: xr.Dataset, index: int) -> Any:
    """Return the evaluations of the model by one attack, or NaN where the records do not have them."""
    return records["queries"].isel(attack=index).values if "queries" in records else np.nan
