"""Records of attacked examples: every published number is computed from them, afterwards.

A Dataset of records says what a net predicts, and how confidently, on every test image and on every attacked version of
it. No version is left out because another one was worse: the worst case is a matter of the metric.

========================= ===================================== ========= ============================================
variable                  dims                                  type      meaning
========================= ===================================== ========= ============================================
``label``                 example                               int64     class, or -1 for an image of no class
``clean_prediction``      example                               int16     predicted class of the image itself
``clean_confidence``      example                               float32   largest class probability there
``prediction``            attack, epsilon, restart, example     int16     predicted class after the attack, or -1
``confidence``            attack, epsilon, restart, example     float32   largest class probability there, or NaN
``length``                attack, epsilon, restart, example     float32   norm of the perturbation, or NaN
``validation_label``      validation                            int64     class
``validation_prediction`` validation                            int16     predicted class
``validation_confidence`` validation                            float32   largest class probability
========================= ===================================== ========= ============================================

The coordinates are ``attack`` (names), ``epsilon`` (increasing: the union over all attacks), ``restart`` (counted from
0), and of every attack its ``norm`` and its ``objective`` (text). An attack that was not run at an epsilon, or not with
so many restarts, or not on an example, has -1 and NaN there. ``validation`` counts images that are in no other use: the
confidence threshold is set on them; there may be none.

An image of no class (noise, or the distal image that an attack made of it) has the label -1: whatever class is
predicted is wrong.

Confidences are kept in single precision, all of them, so that a threshold that was one of them accepts it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["AttackRecord", "assemble", "checked", "joined"]

ATTACKED = ("attack", "epsilon", "restart", "example")
VARIABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "label": (("example",), "i"),
    "clean_prediction": (("example",), "i"),
    "clean_confidence": (("example",), "f"),
    "prediction": (ATTACKED, "i"),
    "confidence": (ATTACKED, "f"),
    "length": (ATTACKED, "f"),
    "validation_label": (("validation",), "i"),
    "validation_prediction": (("validation",), "i"),
    "validation_confidence": (("validation",), "f"),
}
"""Name to (dims, kind of numbers: integers or floats)."""
COORDINATES = {"attack": "attack", "epsilon": "epsilon", "restart": "restart", "norm": "attack", "objective": "attack"}
"""Name to its dim."""
LONG_NAMES = {
    "attack": "attack",
    "epsilon": "largest norm of the perturbation",
    "restart": "restart of the attack",
    "norm": "norm of the attack",
    "objective": "objective of the attack",
    "label": "class, -1 for an image of no class",
    "clean_prediction": "predicted class of the image itself",
    "clean_confidence": "largest class probability on the image itself",
    "prediction": "predicted class after the attack, -1 where it was not run",
    "confidence": "largest class probability after the attack",
    "length": "norm of the perturbation",
    "validation_label": "class of the validation image",
    "validation_prediction": "predicted class of the validation image",
    "validation_confidence": "largest class probability on the validation image",
    "example": "example",
    "wrong": "whether the prediction is wrong",
    "accepted": "number of examples in the denominator",
    "robust_error": "robust error",
    "fpr": "false positive rate: share of the negatives that are accepted",
    "tpr": "true positive rate: share of the positives that are accepted",
    "threshold": "confidence from which on an example is accepted",
    "auc": "area under the ROC curve",
}
_ROUNDING = 1e-6  # by which a probability of single precision may exceed 1
_MOST_CLASSES = 2**15


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

    def __post_init__(self) -> None:
        for name in ("norm", "objective"):
            text = getattr(self, name)
            if not isinstance(text, str) or not (text or name == "objective"):
                raise TypeError(f"{name} = {text!r} is of the wrong type: allowed is a name")
        epsilons = np.atleast_1d(np.asarray(self.epsilons, np.float64))
        valid = epsilons.ndim == 1 and epsilons.size > 0 and bool(np.all(np.isfinite(epsilons) & (epsilons >= 0)))
        if not valid or len(_union(epsilons)) < len(epsilons):
            raise ValueError(f"epsilons = {self.epsilons!r} are not allowed: different finite numbers >= 0 are")
        object.__setattr__(self, "epsilons", tuple(epsilons.tolist()))
        prediction = _integers("prediction", self.prediction, least=-1)
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
        _check_attacked(self.prediction, self.confidence, self.length)

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
    clean = _predictions("", label, clean_prediction, clean_confidence)
    apart = _predictions("validation_", validation_label, validation_prediction, validation_confidence)
    examples = len(clean["label"])
    epsilons = _union(np.concatenate([attack.epsilons for attack in attacks.values()]))
    restarts = max(attack.prediction.shape[1] for attack in attacks.values())
    shape = (len(attacks), len(epsilons), restarts, examples)
    attacked = {
        "prediction": np.full(shape, -1, np.int16),
        "confidence": np.full(shape, np.nan, np.float32),
        "length": np.full(shape, np.nan, np.float32),
    }
    for index, (name, attack) in enumerate(attacks.items()):
        if attack.prediction.shape[2] != examples:
            raise ValueError(
                f"attacks[{name!r}] is of {attack.prediction.shape[2]} examples: allowed is {examples}, as label has"
            )
        rows = np.abs(np.subtract.outer(attack.epsilons, epsilons)).argmin(axis=1)
        for variable, values in attacked.items():
            values[index, rows, : attack.prediction.shape[1]] = getattr(attack, variable)
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
        },
        attrs=provenance("assemble", seed=seed, device=device, **(configuration or {})),
    )
    return labelled(records)


def joined(parts: Iterable[xr.Dataset]) -> xr.Dataset:
    """Return the records of several evaluations of the same net on the same examples as one.

    Parameters
    ----------
    parts
        Records, whose attacks have different names.

    Returns
    -------
    Dataset
        Records with all attacks, in the order given. The attributes are the first one's; "parts" holds those of all.

    Raises
    ------
    ValueError, TypeError
        If there is none, if a name is there twice, or if the parts are of other examples or another net.
    """
    every = [checked(part) for part in parts]
    if not every:
        raise ValueError("parts = [] is not allowed: at least one Dataset of records is")
    same = [name for name, (dims, _) in VARIABLES.items() if dims != ATTACKED]
    attacks: dict[str, AttackRecord] = {}
    for part in every:
        for name in same:
            if not np.array_equal(part[name].values, every[0][name].values):
                raise ValueError(f"parts differ in {name}: allowed are records of the same net on the same examples")
        for index, name in enumerate(texts(part, "attack")):
            if name in attacks:
                raise ValueError(f"parts have the attack {name!r} twice: allowed are different names")
            attacks[name] = _attack_record(part.isel(attack=index))
    clean: dict[str, Any] = {name: every[0][name].values for name in same}
    sources = [{str(key): str(value) for key, value in part.attrs.items()} for part in every]
    return assemble(attacks, **clean).assign_attrs({**every[0].attrs, "parts": json.dumps(sources)})


def _attack_record(one: xr.Dataset) -> AttackRecord:
    """Return what one attack did, without the epsilons and restarts at which it was not run."""
    run = one["prediction"].values >= 0
    rows, restarts = run.any(axis=(1, 2)), run.any(axis=(0, 2))
    prediction, confidence, length = (
        one[name].values[rows][:, restarts] for name in ("prediction", "confidence", "length")
    )
    epsilons = tuple(one["epsilon"].values[rows].tolist())
    return AttackRecord(
        str(one["norm"].item()), epsilons, prediction, confidence, length, objective=str(one["objective"].item())
    )


def checked(records: object) -> xr.Dataset:
    """Return records with their dims in the order of the schema, or raise if they are none.

    Parameters
    ----------
    records
        What `assemble` returned, or a selection or concatenation of such, or the same read from a file.

    Returns
    -------
    Dataset
        The same values.

    Raises
    ------
    TypeError
        If it is no Dataset.
    ValueError
        If a variable, dim or coordinate is missing, or a value is not one of the schema.
    """
    import xarray as xr

    if not isinstance(records, xr.Dataset):
        raise TypeError(
            f"records are of the wrong type {type(records).__name__}: allowed is a Dataset as "
            "deepcheck.evaluation.assemble returns it"
        )
    missing = [name for name in VARIABLES if name not in records.data_vars]
    missing += [f"coordinate {name}" for name in COORDINATES if name not in records.coords]
    if missing:
        raise ValueError(
            f"records lack {', '.join(missing)}: allowed is a Dataset as deepcheck.evaluation.assemble returns it"
        )
    for name, (dims, kind) in VARIABLES.items():
        variable = records[name]
        if set(variable.dims) != set(dims):
            raise ValueError(
                f"records[{name!r}] has the dims {variable.dims}: allowed is {dims}; to select, keep the dim, as in "
                "records.sel(attack=['pgd'])"
            )
        if variable.dtype.kind != kind:
            allowed = "integers" if kind == "i" else "floats"
            raise ValueError(f"records[{name!r}] has the type {variable.dtype}: allowed are {allowed}")
    for name, dim in COORDINATES.items():
        if records[name].dims != (dim,):
            raise ValueError(f"records[{name!r}] has the dims {records[name].dims}: allowed is {(dim,)}")
    epsilon = records["epsilon"].values
    if not (np.all(np.isfinite(epsilon) & (epsilon >= 0)) and np.all(np.diff(epsilon) > 0)):
        raise ValueError(f"records['epsilon'] = {epsilon.tolist()}: allowed are increasing finite numbers >= 0")
    names = texts(records, "attack")
    if len(set(names)) < len(names):
        raise ValueError(f"records['attack'] = {names}: allowed are different names")
    records = records.transpose(*ATTACKED, "validation", ...)
    for prefix in ("", "validation_"):
        clean = prefix or "clean_"
        values = (records[name].values for name in (f"{prefix}label", f"{clean}prediction", f"{clean}confidence"))
        _predictions(prefix, *values)
    for attack in range(records.sizes["attack"]):  # one by one, for the memory
        _check_attacked(*(records[name][attack].values for name in ("prediction", "confidence", "length")))
    return records


def labelled(result: xr.Dataset) -> xr.Dataset:
    """Give every variable its long name and unit, in place."""
    for name in result.variables:
        if name in LONG_NAMES:
            result[name].attrs.update(long_name=LONG_NAMES[str(name)], units="1")
    return result


def origin(records: xr.Dataset, function: str, **options: Any) -> dict[str, str]:
    """Return the attributes of a result that was computed from records."""
    return {
        **provenance(function, **options),
        "records": json.dumps({str(k): str(v) for k, v in records.attrs.items()}),
    }


def text_array(values: Iterable[str]) -> npt.NDArray[np.object_]:
    """Return texts as objects: Zarr has no settled format for numpy's texts of one length."""
    return np.array(list(values), dtype=object)


def texts(records: xr.Dataset, name: str) -> list[str]:
    """Return a coordinate of texts."""
    return [str(text) for text in records[name].values]


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


def _predictions(
    prefix: str, label: npt.ArrayLike, prediction: npt.ArrayLike, confidence: npt.ArrayLike
) -> dict[str, npt.NDArray[Any]]:
    """Return labels and what was predicted without an attack, each as an array of its type."""
    clean = prefix or "clean_"
    least = 0 if prefix else -1
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{prefix}label": _integers(f"{prefix}label", label, least=least).astype(np.int64),
        f"{clean}prediction": _integers(f"{clean}prediction", prediction, least=0).astype(np.int16),
        f"{clean}confidence": np.asarray(confidence, np.float32),
    }
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or arrays[f"{prefix}label"].ndim != 1:
        raise ValueError(f"{', '.join(shapes)} have the shapes {[*shapes.values()]}: allowed is (n,) for all of them")
    _check_confidence(f"{clean}confidence", arrays[f"{clean}confidence"])
    return arrays


def _integers(name: str, values: npt.ArrayLike, *, least: int) -> npt.NDArray[Any]:
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has the type {array.dtype}: allowed are integers")
    low, high = int(array.min()), int(array.max())
    if low < least or high >= _MOST_CLASSES:
        raise ValueError(f"{name} has values in {low}..{high}: allowed are {least}..{_MOST_CLASSES - 1}")
    return array


def _check_attacked(
    prediction: npt.NDArray[Any], confidence: npt.NDArray[np.floating], length: npt.NDArray[np.floating]
) -> None:
    """Raise unless what an attack did is whole: a number everywhere, or nothing."""
    if prediction.size and prediction.min() < -1:
        raise ValueError(f"prediction has the value {prediction.min()}: allowed is a class, or -1 where not attacked")
    attacked = prediction >= 0
    for name, values in (("confidence", confidence), ("length", length)):
        if not np.array_equal(attacked, ~np.isnan(values)):
            raise ValueError(
                f"{name} is NaN in other places than those where prediction is -1: allowed is NaN there, where the "
                "attack was not run, and a number elsewhere"
            )
    _check_confidence("confidence", confidence[attacked])
    if np.any(length < 0):
        raise ValueError(f"length has the value {float(np.nanmin(length))!r}: allowed is >= 0")


def _check_confidence(name: str, values: npt.NDArray[np.floating]) -> None:
    bad = ~((values >= 0) & (values <= 1 + _ROUNDING))
    if np.any(bad):
        raise ValueError(f"{name} has the value {float(values[bad][0])!r}: allowed is a probability in [0, 1]")
