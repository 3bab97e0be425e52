"""Data by name, for the command line: the seed's mixture, XOR, any clusters, a teacher."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from odeflow.model import Data, GaussianClusters, GaussianMixture, TeacherStudent, xor

__all__ = ["DATA", "MIXTURE", "Kind"]

MIXTURE = "mixture"
"""Name of the data where none is given."""


@dataclass(frozen=True)
class Kind:
    """What the command line knows of a kind of data."""

    fields_of: type
    """The dataclass whose fields are flags."""
    make: Callable[..., Data]
    """Returns the data of the values of the flags, by the names of the fields."""
    like: Data
    """One of the kind: which order parameters there are does not depend on which."""
    without: tuple[str, ...] = ()
    """Fields that are no flags."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Flags of fields whose own name is another flag's."""


def _xor(**given: float) -> GaussianClusters:
    return replace(xor(), **given)


def _clusters(**given: Any) -> GaussianClusters:
    """Return the clusters of flat tuples: coordinates cluster by cluster, products row by row."""
    labels = given["labels"]
    if labels is None:
        raise ValueError("labels are missing: allowed is +1 or -1 of each cluster, as in --labels 1 -1 -1")
    for name in ("means", "gram"):
        numbers = given[name]
        if numbers is not None:
            if len(numbers) % len(labels) or not numbers:
                raise ValueError(
                    f"{name} are {len(numbers)} numbers for {len(labels)} labels: allowed are equally many of each cluster, one "
                    "cluster after the other"
                )
            given[name] = np.reshape(numbers, (len(labels), -1))
    return GaussianClusters(**given)


def _teacher(**given: Any) -> TeacherStudent:
    numbers = given["gram"]
    if numbers is not None:
        side = math.isqrt(len(numbers))
        if side * side != len(numbers):
            raise ValueError(
                f"teacher_gram are {len(numbers)} numbers: allowed are those of a square matrix, row by row"
            )
        given["gram"] = np.reshape(numbers, (side, side))
    return TeacherStudent(**given)


DATA: dict[str, Kind] = {
    MIXTURE: Kind(GaussianMixture, GaussianMixture, GaussianMixture()),
    "xor": Kind(GaussianClusters, _xor, xor(), ("means", "labels", "weights", "variances", "gram")),
    "clusters": Kind(GaussianClusters, _clusters, xor()),
    "teacher": Kind(
        TeacherStudent,
        _teacher,
        TeacherStudent(),
        names={name: f"teacher-{name}" for name in ("units", "activation", "weights", "gram")},
    ),
}
"""Name on the command line to what is known of it."""
