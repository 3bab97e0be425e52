"""Records to test with: small, random, with equal confidences and attacks that were not run everywhere."""

from importlib.util import find_spec
from itertools import product
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import settings
from hypothesis import strategies as st

from deepcheck.evaluation.records import AttackRecord, assemble

CLASSES = 3
SUFFIXES = [
    ".nc",
    pytest.param(".zarr", marks=pytest.mark.skipif(find_spec("zarr") is None, reason="zarr is not installed")),
]
"""Of files of records."""

quick = settings(max_examples=20, deadline=None)

taus = st.integers(0, 10).map(lambda k: k / 8)  # up to 1.25: equal to confidences, and above all of them
definitions = st.sampled_from(["per_example", "preprint"])
scores = st.lists(st.integers(0, 8).map(lambda k: k / 8), min_size=1, max_size=15)

Version = tuple[float, int]  # confidence, prediction


def random_attack(
    rng: np.random.Generator,
    n: int,
    epsilons: tuple[float, ...],
    restarts: int,
    *,
    norm: str = "linf",
    hole: float = 0.2,
) -> AttackRecord:
    """Return an attack whose confidences are multiples of 1/8, and whose restarts but the first are not on all examples."""
    shape = (len(epsilons), restarts, n)
    prediction = rng.integers(0, CLASSES, shape)
    confidence = rng.integers(1, 9, shape) / 8
    length = rng.random(shape) * np.array(epsilons)[:, None, None]
    missing = rng.random(shape) < hole
    missing[:, 0] = False  # every epsilon was run
    prediction[missing], confidence[missing], length[missing] = -1, np.nan, np.nan
    return AttackRecord(norm, epsilons, prediction, confidence, length, objective="margin")


def random_records(
    seed: int, n: int, attacks: dict[str, AttackRecord] | None = None, *, no_class: bool = False
) -> xr.Dataset:
    """Return records of n examples: attacks "strong" and "late" in linf, "round" in l2, unless others are given."""
    rng = np.random.default_rng(seed)
    made = attacks or {
        "strong": random_attack(rng, n, (0.1, 0.2, 0.3), 3),
        "late": random_attack(rng, n, (0.3, 0.4), 1),
        "round": random_attack(rng, n, (1.0,), 2, norm="l2"),
    }
    return assemble(
        made,
        label=np.full(n, -1) if no_class else rng.integers(0, CLASSES, n),
        clean_prediction=rng.integers(0, CLASSES, n),
        clean_confidence=rng.integers(1, 9, n) / 8,
        validation_label=rng.integers(0, CLASSES, 20),
        validation_prediction=rng.integers(0, CLASSES, 20),
        validation_confidence=rng.integers(1, 9, 20) / 8,
    )


def some_records(**options: Any) -> st.SearchStrategy[xr.Dataset]:
    """Return a strategy for random records of 1 to 12 examples."""
    return st.builds(lambda seed, n: random_records(seed, n, **options), st.integers(0, 2**32 - 1), st.integers(1, 12))


def versions(records: xr.Dataset, example: int, norm: str, epsilon: float) -> list[Version]:
    """Return every attacked version of an example within the ball."""
    prediction, confidence = (records[name].values[..., example] for name in ("prediction", "confidence"))
    found = []
    for cell in product(*(range(size) for size in prediction.shape)):
        inside = records.norm.values[cell[0]] == norm and records.epsilon.values[cell[1]] <= epsilon
        if inside and prediction[cell] >= 0:
            found.append((float(confidence[cell]), int(prediction[cell])))
    return found
