"""From what attacks did to records of it: see `deepcheck.evaluation.schema` for what records are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from deepcheck.evaluation.schema import (
    ATTACKED,
    SCHEMA,
    VARIABLES,
    check_attacked,
    check_queries,
    checked,
    checked_integers,
    checked_predictions,
    labelled,
    successes,
    text_array,
    texts,
)
from deepcheck.evaluation.scores import with_parts_of
from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["VARIABLES", "AttackRecord", "assemble", "checked", "joined"]


@dataclass(frozen=True, eq=False, repr=False)
class AttackRecord:
    """What one attack did to n examples, at E epsilons, with several restarts each."""

    norm: str
    """Name of the norm that bounds the perturbation, say "linf"."""
    epsilons: tuple[float, ...]
    """The E sizes of the perturbation, different and not negative, in any order."""
    prediction: npt.NDArray[Any]
    """Predicted class of the attacked example, shape (E, restarts, n), kept as int16; -1 where it was not attacked."""
    confidence: npt.NDArray[Any]
    """Largest class probability there, in [0, 1], kept as float32; NaN where the prediction is -1."""
    length: npt.NDArray[Any]
    """Norm of the perturbation, kept as float32; NaN where the prediction is -1."""
    objective: str = ""
    """Name of what the attack maximised, say "cross_entropy"."""
    success: npt.NDArray[Any] | None = None
    """1 where the attack reached its goal, else 0, and -1 where the prediction is -1, kept as int8. None: its goal is any
    wrong class, and a finite length."""
    effort: str = ""
    """How hard it tried, say "40 steps x 10 restarts"."""
    queries: npt.NDArray[Any] | None = None
    """Evaluations of the model in each restart, until the goal was reached where the attack stops then; -1 where they are
    not known, or the prediction is -1; kept as int32. None: they were not counted."""

    def __post_init__(self) -> None:
        for name in ("norm", "objective", "effort"):
            text = getattr(self, name)
            if not isinstance(text, str) or not (text or name != "norm"):
                raise TypeError(f"{name} = {text!r} is of the wrong type: allowed is a name")
        epsilons = np.atleast_1d(np.asarray(self.epsilons, np.float64))
        valid = epsilons.ndim == 1 and epsilons.size > 0 and bool(np.all(np.isfinite(epsilons) & (epsilons >= 0)))
        if not valid or len(_union(epsilons)) < len(epsilons):
            raise ValueError(f"epsilons = {self.epsilons!r} are not allowed: different finite numbers >= 0 are")
        object.__setattr__(self, "epsilons", tuple(epsilons.tolist()))
        prediction = checked_integers("prediction", self.prediction, least=-1)
        if prediction.ndim != 3 or len(prediction) != len(epsilons) or 0 in prediction.shape:
            raise ValueError(
                f"prediction has the shape {prediction.shape}: allowed is ({len(epsilons)}, restarts, n) "
                f"for {len(epsilons)} epsilons, with one restart and one example at least"
            )
        object.__setattr__(self, "prediction", prediction.astype(np.int16))
        for name in ("confidence", "length"):
            values = np.asarray(getattr(self, name), np.float32)
            if values.shape != prediction.shape:
                raise ValueError(f"{name} has the shape {values.shape}: allowed is prediction's, {prediction.shape}")
            object.__setattr__(self, name, values)
        success = np.where(self.prediction < 0, -1, 0) if self.success is None else np.asarray(self.success)
        if success.shape != prediction.shape:
            raise ValueError(f"success has the shape {success.shape}: allowed is prediction's, {prediction.shape}")
        check_attacked(self.prediction, self.confidence, self.length, success)
        if self.queries is not None:
            queries = checked_integers("queries", self.queries, least=-1, most=np.iinfo(np.int32).max)
            if queries.shape != prediction.shape:
                raise ValueError(f"queries has the shape {queries.shape}: allowed is prediction's, {prediction.shape}")
            check_queries(queries, self.prediction)
            object.__setattr__(self, "queries", queries.astype(np.int32))

    def __repr__(self) -> str:
        _, restarts, examples = self.prediction.shape
        return f"AttackRecord({self.norm} <= {self.epsilons}, {restarts} restarts, {examples} examples)"


def assemble(
    attacks: Mapping[str, AttackRecord],
    *,
    label: npt.ArrayLike,
    clean_prediction: npt.ArrayLike,
    clean_confidence: npt.ArrayLike,
    validation_label: npt.ArrayLike = (),
    validation_prediction: npt.ArrayLike = (),
    validation_confidence: npt.ArrayLike = (),
    seed: str | None = None,
    device: str | None = None,
    configuration: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """Return records: the Dataset of the module's schema, from plain arrays.

    Parameters
    ----------
    attacks
        Name to what the attack did. Attacks may have different epsilons and numbers of restarts. Epsilons that agree
        to nine digits are one. The name "clean" is taken.
    label
        Classes of the n examples, shape (n,): 0 or more, or -1 for images of no class.
    clean_prediction, clean_confidence
        Predicted classes of the images themselves, and their probabilities, shape (n,).
    validation_label, validation_prediction, validation_confidence
        The same for images kept apart to set the confidence threshold, shape (m,).
    seed, device
        For the attributes: the seed as text, and what it was computed on (default: this processor).
    configuration
        For the attributes: anything that JSON holds, such as the attacks' settings and the net's.

    Returns
    -------
    Dataset
        Dims attack, epsilon, restart, example and validation.

    Raises
    ------
    ValueError, TypeError
        If shapes, types or values are not those of the schema.

    Examples
    --------
    >>> pgd = AttackRecord("linf", (0.1, 0.3), prediction=[[[0, 1]], [[1, 1]]], confidence=[[[0.9, 0.8]], [[0.6, 0.9]]],
    ...                    length=[[[0.1, 0.1]], [[0.3, 0.3]]])
    >>> noise = AttackRecord("l2", (1.0,), prediction=[[[0, 1]]], confidence=[[[0.8, 0.9]]], length=[[[1.0, 0.9]]])
    >>> records = assemble({"pgd": pgd, "noise": noise}, label=[0, 1], clean_prediction=[0, 1],
    ...                    clean_confidence=[0.99, 0.95])
    >>> records.sizes["attack"], records.epsilon.values.tolist()
    (2, [0.1, 0.3, 1.0])
    >>> records.prediction.sel(attack="noise", restart=0).values.tolist()
    [[-1, -1], [-1, -1], [0, 1]]
    """
    import xarray as xr

    _check_attacks(attacks)
    clean = checked_predictions("", label, clean_prediction, clean_confidence)
    apart = checked_predictions("validation_", validation_label, validation_prediction, validation_confidence)
    examples = len(clean["label"])
    epsilons = _union(np.concatenate([attack.epsilons for attack in attacks.values()]))
    restarts = max(attack.prediction.shape[1] for attack in attacks.values())
    shape = (len(attacks), len(epsilons), restarts, examples)
    attacked = {
        "prediction": np.full(shape, -1, np.int16),
        "confidence": np.full(shape, np.nan, np.float32),
        "length": np.full(shape, np.nan, np.float32),
        "success": np.full(shape, -1, np.int8),
    }
    if any(attack.queries is not None for attack in attacks.values()):
        attacked["queries"] = np.full(shape, -1, np.int32)
    for index, (name, attack) in enumerate(attacks.items()):
        if attack.prediction.shape[2] != examples:
            raise ValueError(
                f"attacks[{name!r}] is of {attack.prediction.shape[2]} examples: allowed is {examples}, as label has"
            )
        rows = np.abs(np.subtract.outer(attack.epsilons, epsilons)).argmin(axis=1)
        success = attack.success
        if success is None:
            success = successes(attack.prediction, clean["label"], attack.length)
        found = {name: getattr(attack, name) for name in attacked} | {"success": success}
        for variable, values in attacked.items():
            values[index, rows, : attack.prediction.shape[1]] = -1 if found[variable] is None else found[variable]
    records = xr.Dataset(
        {
            **{name: ("example", values) for name, values in clean.items()},
            **{name: (ATTACKED, values) for name, values in attacked.items()},
            **{name: ("validation", values) for name, values in apart.items()},
        },
        coords={
            "attack": text_array(attacks),
            "epsilon": epsilons,
            "restart": np.arange(restarts),
            "norm": ("attack", text_array(attack.norm for attack in attacks.values())),
            "objective": ("attack", text_array(attack.objective for attack in attacks.values())),
            "effort": ("attack", text_array(attack.effort for attack in attacks.values())),
        },
        attrs={**provenance("assemble", seed=seed, device=device, **(configuration or {})), "schema": SCHEMA},
    )
    return labelled(records)


def joined(parts: Iterable[xr.Dataset]) -> xr.Dataset:
    """Return the records of several evaluations of the same net on the same examples as one.

    Parameters
    ----------
    parts
        Records, whose attacks have different names; all with scores of the same detectors, or all without.

    Returns
    -------
    Dataset
        Records with all attacks, in the order given, their scores, and the images that were kept. The attributes are the
        first one's; "parts" holds those of all.

    Raises
    ------
    ValueError, TypeError
        If there is none, if a name is there twice, or if the parts are of other examples, another net or other
        detectors.
    """
    every = [checked(part) for part in parts]
    if not every:
        raise ValueError("parts = [] is not allowed: at least one Dataset of records is")
    same = [name for name, (dims, _) in VARIABLES.items() if dims != ATTACKED]
    detectors = [texts(part, "detector") if "score" in part else [] for part in every]
    attacks: dict[str, AttackRecord] = {}
    for part, scored in zip(every, detectors, strict=True):
        if scored != detectors[0]:
            raise ValueError(f"parts have the detectors {detectors[0]} and {scored}: allowed are the same in all parts")
        for name in (*same, *(("clean_score", "validation_score") if scored else ())):
            if not np.array_equal(part[name].values, every[0][name].values):
                raise ValueError(f"parts differ in {name}: allowed are records of the same net on the same examples")
        for index, name in enumerate(texts(part, "attack")):
            if name in attacks:
                raise ValueError(f"parts have the attack {name!r} twice: allowed are different names")
            attacks[name] = _attack_record(part.isel(attack=index))
    clean: dict[str, Any] = {name: every[0][name].values for name in same}
    sources = [{str(key): str(value) for key, value in part.attrs.items()} for part in every]
    whole = with_parts_of(assemble(attacks, **clean), every)
    return whole.assign_attrs({**every[0].attrs, "parts": json.dumps(sources)})


def _attack_record(one: xr.Dataset) -> AttackRecord:
    """Return what one attack did, without the epsilons at which it was not run. Restarts stay, also those that none needed."""
    rows = (one["prediction"].values >= 0).any(axis=(1, 2))
    names = ["prediction", "confidence", "length", "success", *(["queries"] if "queries" in one else [])]
    found: dict[str, Any] = {name: one[name].values[rows] for name in names}
    found |= {name: str(one[name].item()) for name in ("norm", "objective", "effort")}
    return AttackRecord(epsilons=tuple(one["epsilon"].values[rows].tolist()), **found)


def _union(epsilons: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the different values in rising order; those that agree to nine digits are one."""
    ordered = np.unique(epsilons)
    new: npt.NDArray[np.bool_] = np.diff(ordered, prepend=-np.inf) > 1e-9 * ordered
    new[:1] = True
    return ordered[new]


def _check_attacks(attacks: object) -> None:
    if not isinstance(attacks, Mapping) or not attacks:
        raise TypeError(f"attacks = {attacks!r} is of the wrong type: allowed is a dict of names to AttackRecords")
    for name, attack in attacks.items():
        if not isinstance(name, str) or name in ("", "clean"):
            raise ValueError(f"attacks has the name {name!r}: allowed is any text but '' and 'clean'")
        if not isinstance(attack, AttackRecord):
            raise TypeError(f"attacks[{name!r}] = {attack!r} is of the wrong type: allowed is an AttackRecord")
