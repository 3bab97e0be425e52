"""The table of an evaluation and its figure: what they say is what the records have."""

import math
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings

from deepcheck.attacks import PGD
from deepcheck.attacks.square import Square
from deepcheck.defences import Adaptive
from deepcheck.evaluation import (
    SUITES,
    AttackRecord,
    assemble,
    attack_table,
    format_attack_table,
    planned_suite,
    robust_error,
    suite,
    test_error,
)
from deepcheck.evaluation.suites import effort
from deepcheck.plot import plot_attacks
from tests.deepcheck.evaluation_cases import random_records, some_records


def counted(records: xr.Dataset, attack: int, epsilon: int) -> float:
    """Return the share of examples that are right as they are and in every restart, example by example."""
    right = 0
    for n in range(records.sizes["example"]):
        y = int(records.label[n])
        found = [int(k) for k in records.prediction.values[attack, epsilon, :, n] if k >= 0]
        right += int(records.clean_prediction[n]) == y and all(k == y for k in found)
    return right / records.sizes["example"]


@settings(max_examples=15)
@given(records=some_records())
def test_every_row_is_counted(records: xr.Dataset) -> None:
    table = attack_table(records)
    names, grid = records.attack.values.tolist(), records.epsilon.values.tolist()
    run = (records.prediction.values >= 0).any((2, 3))
    rows = list(
        zip(table.attack.values.tolist(), table.norm.values.tolist(), table.epsilon.values.tolist(), strict=True)
    )
    assert len(set(rows)) == len(rows)
    assert sum(name != "all" for name, _, _ in rows) == run.sum()
    assert float(table.accuracy) == pytest.approx(1 - test_error(records))
    n = records.sizes["example"]
    for row, (name, norm, epsilon) in enumerate(rows):
        share = float(table.robust_accuracy[row])
        if name == "all":
            assert share == pytest.approx(1 - robust_error(records, norm=norm, epsilon=epsilon))
            alone = [k for k, (_, other, size) in enumerate(rows) if other == norm and size <= epsilon]
            assert share <= float(table.robust_accuracy[alone].min()) + 1e-12
        else:
            assert share == pytest.approx(counted(records, names.index(name), grid.index(epsilon)))
        assert share <= float(table.accuracy) + 1e-12
        assert float(table.standard_error[row]) == pytest.approx(math.sqrt(max(share * (1 - share), 0) / n))


def one_attack(n: int = 100) -> xr.Dataset:
    """Return 100 examples, 90 right; an attack turns 40 at 0.1, and 30 of them again at 0.2, with 10 others."""
    label = np.zeros(n, int)
    clean = (np.arange(n) >= 90).astype(int)
    first, second = np.arange(n) < 40, (np.arange(n) >= 10) & (np.arange(n) < 50)
    prediction = np.stack([clean | first, clean | second])[:, None]
    confidence, length = np.full(prediction.shape, 0.5), np.full(prediction.shape, 0.1)
    attack = AttackRecord("linf", (0.1, 0.2), prediction, confidence, length, effort="40 steps x 2")
    return assemble({"pgd": attack}, label=label, clean_prediction=clean, clean_confidence=np.full(n, 0.5))


def test_the_text_of_a_table() -> None:
    table = attack_table(one_attack())
    assert format_attack_table(table).splitlines() == [
        "accuracy without an attack 90.00 +- 3.00 %, of 100 examples; under attack, in %:",
        "  norm  epsilon  attack      robust accuracy  effort",
        "  linf      0.1  worst case    50.00 +- 5.00",
        "  linf      0.1  pgd           50.00 +- 5.00  40 steps x 2",
        "  linf      0.2  worst case    40.00 +- 4.90",
        "  linf      0.2  pgd           50.00 +- 5.00  40 steps x 2",
    ]
    for variable in table.variables.values():
        assert variable.attrs["long_name"]
        assert variable.attrs["units"] == "1"
    with pytest.raises(TypeError, match="records are of the wrong type dict"):
        attack_table({})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("attack", "text"),
    [
        (PGD("linf", steps=1, relative_step_size=1.0), "1 step"),
        (PGD("linf", steps=40, relative_step_size=1.0, restarts=10), "40 steps x 10"),
        (Square("linf", queries=5000, restarts=2), "5000 queries x 2"),
        (Adaptive(PGD("linf", steps=7, relative_step_size=1.0)), "7 steps"),
        (type("Own", (), {"effort": "9 bisections of 100 steps", "steps": 3})(), "9 bisections of 100 steps"),
        (object(), ""),
    ],
)
def test_the_effort_of_an_attack(attack: Any, text: str) -> None:
    assert effort(attack) == text


def test_suites_are_parts_of_the_wide_one() -> None:
    options: dict[str, Any] = {"steps": 50, "restarts": 2, "queries": 100}
    whole = suite("digits", **options)
    for name in SUITES.keys() - {"standard"}:
        planned = planned_suite(name, "digits", **options)
        assert planned.items() <= whole.items()
        assert len(planned) > 3
    assert planned_suite("wide", "digits", **options) == whole
    assert set(whole) - set(planned_suite("gradient", "digits")) == {"square_linf", "square_l2", "noise_linf"}
    assert {one.attack.norm.name for one in planned_suite("linf", "digits").values()} == {"linf"}  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match=r"suite = 'standarx' is unknown \(did you mean 'standard'\?\)"):
        planned_suite("standarx", "digits")


# the figure


def test_the_figure_has_every_row_of_the_table() -> None:
    table = attack_table(random_records(0, 40))
    (ax,) = plot_attacks(table).axes
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert len(labels) == table.sizes["row"]
    expected = [None if name == "all" else name for name in table.attack.values]
    assert [None if "varepsilon" in label else label for label in labels] == expected
    drawn = np.sort(np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() in ("o", "D")]))
    np.testing.assert_allclose(drawn, np.sort(table.robust_accuracy.values))
    assert np.all(np.diff(ax.get_yticks()) >= 1)  # no two rows on one another
    low, high = ax.get_ylim()
    assert low > ax.get_yticks().max() > ax.get_yticks().min() > high  # the first row is above
    with pytest.raises(ValueError, match="table lacks standard_error: allowed is what deepcheck"):
        plot_attacks(table.drop_vars("standard_error"))
