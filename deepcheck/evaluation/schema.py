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
``success``               attack, epsilon, restart, example     int8      1 where the attack reached its goal, 0 where
                                                                          not, -1 where it was not run
``validation_label``      validation                            int64     class
``validation_prediction`` validation                            int16     predicted class
``validation_confidence`` validation                            float32   largest class probability
========================= ===================================== ========= ============================================

The coordinates are ``attack`` (names), ``epsilon`` (increasing: the union over all attacks), ``restart`` (counted from
0), and of every attack its ``norm``, its ``objective`` and its ``effort`` (text). An attack that was not run at an
epsilon, or not with so many restarts, or not on an example, has -1 and NaN there. ``validation`` counts images that are
in no other use: the threshold is set on them; there may be none. The goal of an attack is a wrong class, or its target;
an attack that looks for the nearest adversarial example and found none has an infinite length, and no success.

Three groups of variables may be there in addition. **Queries**, int32, of attacks that count them:

========================= ===================================== ========= ============================================
``queries``               attack, epsilon, restart, example     int32     evaluations of the model in the restart, or
                                                                          -1 where they are not known
========================= ===================================== ========= ============================================

They are those until the attack reached its goal, where it stops then, and 0 in a restart that was not needed.

**Scores** of detectors, large where an image is to be accepted, by
the coordinate ``detector`` (names):

========================= ===================================== ========= ============================================
``score``                 detector, attack, epsilon, restart,   float32   score after the attack, or NaN
                          example
``clean_score``           detector, example                     float32   score of the image itself
``validation_score``      detector, validation                  float32   score of the validation image
========================= ===================================== ========= ============================================

An attack hands over one image of all its restarts: the one that is best in its objective. Scores are those of this
image, and NaN at the other restarts. The confidence is a score that is always there, for every restart.

**Images**, so that a detector made later can score old attacks. ``kept`` counts pairs of an attack and an epsilon that
it was run at (coordinates ``kept_attack`` and ``kept_epsilon``):

========================= ===================================== ========= ============================================
``attacked_image``        kept, example, channel, row, column   float32   the attacked image
``attacked_restart``      kept, example                         int16     the restart that it is from
``clean_image``           example, channel, row, column         float32   the image itself
``validation_image``      validation, channel, row, column      float32   the validation image
========================= ===================================== ========= ============================================

An image of no class (noise, or the distal image that an attack made of it) has the label -1: whatever class is
predicted is wrong.

Confidences and scores are kept in single precision, all of them, so that a threshold that was one of them accepts it.

The attribute ``schema`` is the text "2". Records of schema 1, which had neither ``success`` nor ``effort``, are read as
well: success is then a wrong class, and the effort is not known.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from odeflow.provenance import provenance

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["checked"]

SCHEMA = "2"
ATTACKED = ("attack", "epsilon", "restart", "example")
VARIABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "label": (("example",), "i"),
    "clean_prediction": (("example",), "i"),
    "clean_confidence": (("example",), "f"),
    "prediction": (ATTACKED, "i"),
    "confidence": (ATTACKED, "f"),
    "length": (ATTACKED, "f"),
    "success": (ATTACKED, "i"),
    "validation_label": (("validation",), "i"),
    "validation_prediction": (("validation",), "i"),
    "validation_confidence": (("validation",), "f"),
}
"""Name to (dims, kind of numbers: integers or floats)."""
SCORES: dict[str, tuple[tuple[str, ...], str]] = {
    "score": (("detector", *ATTACKED), "f"),
    "clean_score": (("detector", "example"), "f"),
    "validation_score": (("detector", "validation"), "f"),
}
"""The same of the scores: all of them are there, or none."""
QUERIES: dict[str, tuple[tuple[str, ...], str]] = {"queries": (ATTACKED, "i")}
"""The same of the queries, which may be there or not."""
COORDINATES = {
    "attack": "attack",
    "epsilon": "epsilon",
    "restart": "restart",
    "norm": "attack",
    "objective": "attack",
    "effort": "attack",
}
"""Name to its dim."""
LONG_NAMES = {
    "attack": "attack",
    "epsilon": "largest norm of the perturbation",
    "restart": "restart of the attack",
    "norm": "norm of the attack",
    "objective": "objective of the attack",
    "effort": "effort of the attack",
    "detector": "detector",
    "label": "class, -1 for an image of no class",
    "clean_prediction": "predicted class of the image itself",
    "clean_confidence": "largest class probability on the image itself",
    "clean_score": "score of the image itself",
    "clean_image": "pixels of the image itself",
    "prediction": "predicted class after the attack, -1 where it was not run",
    "confidence": "largest class probability after the attack",
    "length": "norm of the perturbation",
    "success": "whether the attack reached its goal, -1 where it was not run",
    "queries": "evaluations of the model in the restart, -1 where they are not known",
    "score": "score, large where an image is accepted",
    "attacked_image": "pixels of the attacked image",
    "attacked_restart": "restart that the attacked image is from",
    "kept_attack": "attack that made the images",
    "kept_epsilon": "epsilon at which the images were made",
    "validation_label": "class of the validation image",
    "validation_prediction": "predicted class of the validation image",
    "validation_confidence": "largest class probability on the validation image",
    "validation_score": "score of the validation image",
    "validation_image": "pixels of the validation image",
    "example": "example",
    "wrong": "whether the prediction is wrong",
    "accepted": "number of examples in the denominator",
    "robust_error": "robust error",
    "fpr": "false positive rate: share of the negatives that are accepted",
    "tpr": "true positive rate: share of the positives that are accepted",
    "threshold": "score from which on an example is accepted",
    "auc": "area under the ROC curve",
}
_ROUNDING = 1e-6  # by which a probability of single precision may exceed 1
_MOST_CLASSES = 2**15


def checked(records: object) -> xr.Dataset:
    """Return records with their dims in the order of the schema, or raise if they are none.

    Parameters
    ----------
    records
        What `assemble` returned, or a selection or concatenation of such, or the same read from a file; of schema 1
        or 2.

    Returns
    -------
    Dataset
        The same values; of schema 2.

    Raises
    ------
    TypeError
        If it is no Dataset.
    ValueError
        If the schema is another, if a variable, dim or coordinate is missing, or a value is not one of the schema.
    """
    import xarray as xr

    if not isinstance(records, xr.Dataset):
        raise TypeError(
            f"records are of the wrong type {type(records).__name__}: allowed is a Dataset as "
            "deepcheck.evaluation.assemble returns it"
        )
    records = _converted(records)
    wanted = VARIABLES if SCORES.keys().isdisjoint(records.data_vars) else VARIABLES | SCORES
    coordinates = COORDINATES | {"detector": "detector"} if "score" in wanted else COORDINATES
    wanted = wanted | QUERIES if "queries" in records.data_vars else wanted
    missing = [name for name in wanted if name not in records.data_vars]
    missing += [f"coordinate {name}" for name in coordinates if name not in records.coords]
    if missing:
        raise ValueError(
            f"records lack {', '.join(missing)}: allowed is a Dataset as deepcheck.evaluation.assemble returns it"
        )
    for name, (dims, kind) in wanted.items():
        variable = records[name]
        if set(variable.dims) != set(dims):
            raise ValueError(
                f"records[{name!r}] has the dims {variable.dims}: allowed is {dims}; to select, keep the dim, as in "
                "records.sel(attack=['pgd'])"
            )
        if variable.dtype.kind != kind:
            allowed = "integers" if kind == "i" else "floats"
            raise ValueError(f"records[{name!r}] has the type {variable.dtype}: allowed are {allowed}")
    for name, dim in coordinates.items():
        if records[name].dims != (dim,):
            raise ValueError(f"records[{name!r}] has the dims {records[name].dims}: allowed is {(dim,)}")
    epsilon = records["epsilon"].values
    if not (np.all(np.isfinite(epsilon) & (epsilon >= 0)) and np.all(np.diff(epsilon) > 0)):
        raise ValueError(f"records['epsilon'] = {epsilon.tolist()}: allowed are increasing finite numbers >= 0")
    for name in coordinates.keys() & {"attack", "detector"}:
        names = texts(records, name)
        if len(set(names)) < len(names):
            raise ValueError(f"records[{name!r}] = {names}: allowed are different names")
    order = ("kept", "detector", *ATTACKED, "validation")
    records = records.transpose(*(dim for dim in order if dim in records.dims), ...)
    for prefix in ("", "validation_"):
        clean = prefix or "clean_"
        values = (records[name].values for name in (f"{prefix}label", f"{clean}prediction", f"{clean}confidence"))
        checked_predictions(prefix, *values)
    attacked = (records[name].values for name in ("prediction", "confidence", "length", "success"))
    for one in zip(*attacked, strict=True):  # attack by attack, for the memory
        check_attacked(*one)
    if "queries" in records:
        check_queries(records["queries"].values, records["prediction"].values)
    return records


def successes(
    prediction: npt.NDArray[Any], label: npt.NDArray[Any], length: npt.NDArray[np.floating]
) -> npt.NDArray[np.int8]:
    """Return where an attack that looks for any wrong class reached it: 1 or 0, and -1 where it was not run."""
    found = (prediction != label) & np.isfinite(length)
    return np.where(prediction < 0, -1, found).astype(np.int8)


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


def checked_predictions(
    prefix: str, label: npt.ArrayLike, prediction: npt.ArrayLike, confidence: npt.ArrayLike
) -> dict[str, npt.NDArray[Any]]:
    """Return labels and what was predicted without an attack, each as an array of its type."""
    clean = prefix or "clean_"
    least = 0 if prefix else -1
    arrays: dict[str, npt.NDArray[Any]] = {
        f"{prefix}label": checked_integers(f"{prefix}label", label, least=least).astype(np.int64),
        f"{clean}prediction": checked_integers(f"{clean}prediction", prediction, least=0).astype(np.int16),
        f"{clean}confidence": np.asarray(confidence, np.float32),
    }
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or arrays[f"{prefix}label"].ndim != 1:
        raise ValueError(f"{', '.join(shapes)} have the shapes {[*shapes.values()]}: allowed is (n,) for all of them")
    _check_confidence(f"{clean}confidence", arrays[f"{clean}confidence"])
    return arrays


def checked_integers(
    name: str, values: npt.ArrayLike, *, least: int, most: int = _MOST_CLASSES - 1
) -> npt.NDArray[Any]:
    """Return classes, or other numbers, from `least` to `most`."""
    array = np.asarray(values)
    if array.size == 0:
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} has the type {array.dtype}: allowed are integers")
    low, high = int(array.min()), int(array.max())
    if low < least or high > most:
        raise ValueError(f"{name} has values in {low}..{high}: allowed are {least}..{most}")
    return array


def check_attacked(
    prediction: npt.NDArray[Any],
    confidence: npt.NDArray[np.floating],
    length: npt.NDArray[np.floating],
    success: npt.NDArray[Any],
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
    if not np.array_equal(success, np.where(attacked, success == 1, -1)):
        raise ValueError("success is not allowed: 1 or 0 where the attack was run, and -1 where it was not, is")


def check_queries(queries: npt.NDArray[Any], prediction: npt.NDArray[Any]) -> None:
    """Raise unless evaluations are counts, and -1 where the attack was not run."""
    if queries.size and queries.min() < -1:
        raise ValueError(
            f"queries has the value {queries.min()}: allowed is a number >= 0, or -1 where it is not known"
        )
    if np.any(queries[prediction < 0] != -1):
        raise ValueError("queries is not -1 where prediction is -1: allowed is -1 where the attack was not run")


def _converted(records: xr.Dataset) -> xr.Dataset:
    """Return records of schema 1 as those of schema 2; others as they are."""
    schema = str(records.attrs.get("schema", SCHEMA if "success" in records else "1"))
    if schema == SCHEMA:
        return records
    if schema != "1":
        raise ValueError(f"records have the schema {schema!r}: allowed is 1 or {SCHEMA}; a later deepcheck reads them")
    if not {"prediction", "label", "length", "attack"} <= {str(name) for name in records.variables}:
        return records  # what is missing is said by `checked`
    prediction, label, length = records["prediction"], records["label"], records["length"]
    if prediction.dims != length.dims or "attack" not in prediction.dims or label.dims != ("example",):
        return records
    wide = label.broadcast_like(prediction).transpose(*prediction.dims)
    success = (prediction.dims, successes(prediction.values, wide.values, length.values))
    effort = ("attack", text_array([""] * records.sizes["attack"]))
    converted = records.assign(success=success).assign_coords(effort=effort)
    return labelled(converted).assign_attrs(schema=SCHEMA)


def _check_confidence(name: str, values: npt.NDArray[np.floating]) -> None:
    bad = ~((values >= 0) & (values <= 1 + _ROUNDING))
    if np.any(bad):
        raise ValueError(f"{name} has the value {float(values[bad][0])!r}: allowed is a probability in [0, 1]")
