"""Records keep every attacked version where the schema says, and what is no record is refused with the reason."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given

from deepcheck.evaluation.records import VARIABLES, AttackRecord, assemble, checked, joined
from deepcheck.evaluation.robustness import worst_case
from odeflow.provenance import load, save
from tests.deepcheck.evaluation_cases import SUFFIXES, random_attack, random_records, some_records


def one_attack(**changes: Any) -> AttackRecord:
    whole = {
        "norm": "linf",
        "epsilons": (0.1, 0.3),
        "prediction": np.zeros((2, 1, 4), int),
        "confidence": np.full((2, 1, 4), 0.5),
        "length": np.full((2, 1, 4), 0.1),
    }
    return AttackRecord(**{**whole, **changes})


def four(attacks: Any = None, **changes: Any) -> xr.Dataset:
    clean = {"label": [0, 1, 2, -1], "clean_prediction": [0, 1, 0, 1], "clean_confidence": [0.9, 0.8, 0.7, 0.6]}
    return assemble({"pgd": one_attack()} if attacks is None else attacks, **{**clean, **changes})


def test_every_number_is_where_the_schema_says() -> None:
    rng = np.random.default_rng(0)
    a = random_attack(rng, 5, (0.3, 0.1), 2)
    b = random_attack(rng, 5, (1.0, 0.1 * 3), 4, norm="l2")  # 0.1 * 3 is not 0.3, but meant to be
    records = random_records(1, 5, {"a": a, "b": b})
    np.testing.assert_array_equal(records.epsilon, [0.1, 0.3, 1.0])
    assert dict(records.sizes) == {"attack": 2, "epsilon": 3, "restart": 4, "example": 5, "validation": 20}
    for name in ("prediction", "confidence", "length"):
        for e, epsilon in enumerate(a.epsilons):
            found = records[name].sel(attack="a", epsilon=epsilon, restart=[0, 1])
            np.testing.assert_array_equal(found, getattr(a, name)[e])
        for e, epsilon in enumerate((1.0, 0.3)):
            np.testing.assert_array_equal(records[name].sel(attack="b", epsilon=epsilon), getattr(b, name)[e])
    assert (records.prediction.sel(attack="a", restart=[2, 3]) == -1).all()
    assert (records.prediction.sel(attack="a", epsilon=1.0) == -1).all()
    assert (records.prediction.sel(attack="b", epsilon=0.1) == -1).all()
    np.testing.assert_array_equal(records.confidence.isnull(), records.prediction == -1)
    np.testing.assert_array_equal(records.length.isnull(), records.prediction == -1)


def test_types_labels_and_provenance() -> None:
    records = four(seed="7", device="a GPU", configuration={"model": "lenet"})
    for name, (dims, kind) in VARIABLES.items():
        assert records[name].dims == dims
        assert records[name].dtype.kind == kind
    for variable in records.variables.values():
        assert set(variable.attrs) == {"long_name", "units"}
    assert (records.attrs["seed"], records.attrs["device"]) == ("7", "a GPU")
    assert json.loads(records.attrs["configuration"]) == {"function": "assemble", "options": {"model": "lenet"}}
    assert records.norm.values.tolist() == ["linf"]
    assert repr(one_attack()) == "AttackRecord(linf <= (0.1, 0.3), 1 restarts, 4 examples)"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_keeps_them(tmp_path: Path, suffix: str) -> None:
    records = random_records(0, 4)
    save(worst_case(records, norm="linf", epsilon=0.4), tmp_path / f"worst{suffix}")
    again = checked(load(save(records, tmp_path / f"records{suffix}")))
    xr.testing.assert_equal(again, records)
    assert again.prediction.dtype == np.int16


def test_selections_and_other_orders_of_the_dims_are_records() -> None:
    records = random_records(0, 6)
    xr.testing.assert_identical(checked(records.transpose()), records)
    assert checked(records.isel(example=slice(2), attack=[1])).sizes["example"] == 2
    halves = [records.isel(example=slice(3)), records.isel(example=slice(3, None))]
    joined = xr.concat(halves, "example", data_vars="minimal", coords="minimal", compat="override", join="exact")
    xr.testing.assert_equal(checked(joined), records)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"norm": ""}, TypeError, "norm = ''"),
        ({"objective": 3}, TypeError, "objective = 3"),
        ({"epsilons": (0.1, 0.1)}, ValueError, r"epsilons = \(0.1, 0.1\) are not allowed: different"),
        ({"epsilons": (0.1, -0.3)}, ValueError, "finite numbers >= 0"),
        ({"epsilons": (0.1, np.nan)}, ValueError, "finite numbers >= 0"),
        ({"epsilons": (0.1,)}, ValueError, r"shape \(2, 1, 4\): allowed is \(1, restarts, n\)"),
        ({"prediction": np.zeros((2, 4), int)}, ValueError, r"shape \(2, 4\)"),
        ({"prediction": np.zeros((2, 1, 4))}, TypeError, "float64: allowed are integers"),
        ({"prediction": np.full((2, 1, 4), -2)}, ValueError, "values in -2..-2"),
        ({"prediction": np.full((2, 1, 4), -1)}, ValueError, "confidence is NaN in other places"),
        ({"confidence": np.full((2, 1, 4), 1.5)}, ValueError, "confidence has the value 1.5"),
        ({"confidence": np.full((2, 1, 4), np.nan)}, ValueError, "confidence is NaN in other places"),
        ({"confidence": np.full((1, 1, 4), 0.5)}, ValueError, "confidence has the shape"),
        ({"length": np.full((2, 1, 4), -0.5)}, ValueError, "length has the value -0.5"),
    ],
)
def test_what_is_no_attack_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        one_attack(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"attacks": {}}, TypeError, "allowed is a dict of names to AttackRecords"),
        ({"attacks": {"clean": one_attack()}}, ValueError, "has the name 'clean'"),
        ({"attacks": {"pgd": 3}}, TypeError, r"attacks\['pgd'\] = 3"),
        ({"label": [0, 1]}, ValueError, "allowed is \\(n,\\) for all"),
        ({"label": [0, 1, 2, -2]}, ValueError, "label has values in -2..2"),
        ({"clean_prediction": [0, 1, 2, -1]}, ValueError, "clean_prediction has values in -1..2"),
        ({"clean_confidence": [0.5, 0.5, 0.5, np.nan]}, ValueError, "clean_confidence has the value nan"),
        ({"validation_label": [0]}, ValueError, "validation_prediction"),
        (
            {"label": [0], "clean_prediction": [0], "clean_confidence": [0.5]},
            ValueError,
            r"attacks\['pgd'\] is of 4 examples: allowed is 1",
        ),
    ],
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        four(**changes)


def test_what_is_no_record_is_refused() -> None:
    records = four()
    with pytest.raises(TypeError, match="type ndarray: allowed is a Dataset"):
        checked(np.zeros(3))
    with pytest.raises(ValueError, match="records lack length, coordinate norm"):
        checked(records.drop_vars(["length", "norm"]))
    with pytest.raises(ValueError, match=r"keep the dim, as in records.sel\(attack=\['pgd'\]\)"):
        checked(records.sel(attack="pgd"))
    with pytest.raises(ValueError, match="type float64: allowed are integers"):
        checked(records.assign(label=records.label.astype(float)))
    with pytest.raises(ValueError, match="increasing finite numbers"):
        checked(records.isel(epsilon=[1, 0]))
    with pytest.raises(ValueError, match="allowed are different names"):
        checked(records.isel(attack=[0, 0]))
    with pytest.raises(ValueError, match=r"records\['norm'\] has the dims \(\)"):
        checked(records.assign_coords(norm="linf"))
    with pytest.raises(ValueError, match=r"confidence has the value 2\.0"):
        checked(records.assign(confidence=records.confidence * 4))
    with pytest.raises(ValueError, match="prediction has the value -4"):
        checked(records.assign(prediction=records.prediction - 4))


@given(records=some_records())
def test_what_is_taken_apart_is_joined_again(records: xr.Dataset) -> None:
    """Whatever the order of the parts: attacks keep their epsilons, restarts, holes, norms and objectives."""
    names = [str(name) for name in records.attack.values]
    parts = [records.sel(attack=[name]) for name in names]
    xr.testing.assert_equal(joined(parts), records)
    again = joined([records.sel(attack=names[1:]), records.sel(attack=names[:1])])
    xr.testing.assert_equal(again.sel(attack=names), records)


def test_a_restart_that_no_example_needed_stays() -> None:
    records = random_records(165, 1)  # the last restart of "strong" has no example
    assert (records.prediction.isel(restart=-1) < 0).all()
    assert joined([records.sel(attack=[name]) for name in records.attack.values]).sizes["restart"] == 3


def test_parts_of_other_nets_are_not_joined() -> None:
    records = random_records(1, 5)
    first, second = records.isel(attack=[0]), records.isel(attack=[1])
    with pytest.raises(ValueError, match="the attack 'strong' twice"):
        joined([first, first])
    with pytest.raises(ValueError, match="parts differ in clean_confidence: allowed are records of the same net"):
        joined([first, second.assign(clean_confidence=second.clean_confidence / 2)])
    with pytest.raises(ValueError, match="at least one Dataset"):
        joined([])
