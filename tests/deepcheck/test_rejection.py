"""Rejection by confidence: counted by hand, from records and from wrong confidences alike, and against separation."""

import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from deepcheck.attacks import bim
from deepcheck.defences import Adaptive, BitDepth
from deepcheck.evaluation import AttackRecord, Planned, assemble, evaluate, rejection, worst_case, wrong_confidences
from deepcheck.evaluation.shares import binomial_bounds
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import digits_as_tensors, trained_net

pytestmark = on_every_device

SHARES = ("awpr", "awpr_without_rejection", "recall", "recall_of_all")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def attacked(prediction: Any, confidence: Any, epsilons: tuple[float, ...], norm: str = "linf") -> AttackRecord:
    return AttackRecord(norm, epsilons, prediction, confidence, np.ones_like(confidence))


def by_hand() -> xr.Dataset:
    """Six examples of class 0, of which the last is wrong as it is; two attacks at 0.1 and 0.2, one with two restarts."""
    first = attacked(
        [[[0, 1, 0, 0, 0, 1], [0, 0, 2, 0, 0, 1]], [[0, 0, 1, 1, 0, 1], [0, 0, 1, 1, 0, 1]]],
        [
            [[0.9, 0.8, 0.9, 0.7, 0.9, 0.9], [0.9, 0.9, 0.6, 0.7, 0.9, 0.9]],
            [[0.9, 0.9, 0.95, 0.75, 0.9, 0.9], [0.9, 0.9, 0.5, 0.4, 0.9, 0.9]],
        ],
        (0.1, 0.2),
    )
    second = attacked([[[0, 0, 0, 2, 0, 0]]], [[[0.9, 0.9, 0.9, 0.92, 0.9, 0.9]]], (0.2,))
    return assemble(
        {"first": first, "second": second},
        label=[0] * 6,
        clean_prediction=[0, 0, 0, 0, 0, 1],
        clean_confidence=[0.99, 0.95, 0.6, 0.9, 0.85, 0.97],
    )


def test_counted_by_hand() -> None:
    """At 0.1 the second (0.8) and third (0.6) of the five correct ones are turned, at 0.2 the fourth too (0.92), the third at 0.95."""
    found = rejection(by_hand(), level=[0.5, 0.7, 0.9, 0.93])
    assert found.eta.values.tolist() == [0.1, 0.2]
    assert (found.awpr_without_rejection * 5).values.tolist() == [2, 3]
    assert (found.awpr * 5).values.tolist() == [[2, 3], [1, 3], [0, 2], [0, 1]]
    assert (found.recall * 5).values.tolist() == [5, 4, 3, 2]
    assert (found.recall_of_all * 6).values.tolist() == [6, 5, 4, 3]
    assert (found.attrs["examples"], found.attrs["correct"]) == ("6", "5")
    first = rejection(by_hand(), level=[0.5, 0.9], attacks="first", eta=[0.2, 0.0])
    assert first.eta.values.tolist() == [0.0, 0.2]
    assert (first.awpr * 5).values.tolist() == [[0, 3], [0, 1]]
    one = rejection(by_hand(), level=0.9, eta=0.2)
    assert one.awpr.dims == ()
    assert float(one.awpr) == 2 / 5
    assert one.awpr.attrs["long_name"]


def test_bounds_are_the_exact_ones_of_their_numbers() -> None:
    found = rejection(by_hand(), level=[0.5, 0.9], confidence=0.8)
    for name, n in zip(SHARES, (5, 5, 5, 6), strict=True):
        lower, upper = binomial_bounds(np.rint(found[name].values * n).astype(int), n, 0.8)
        assert np.array_equal(found[f"{name}_lower"].values, lower)
        assert np.array_equal(found[f"{name}_upper"].values, upper)


DELTAS = (0.02, 0.05, 0.1)
LEVELS = [0.3, 0.5, 0.8, 0.9, 0.99]


def net_and_images() -> tuple[Any, Tensor, Tensor]:
    digits = digits_as_tensors()
    return trained_net(), digits.test[:150], digits.labels[:150]


def of_confidences(net: Any, x: Tensor, y: Tensor, attack: Any) -> xr.Dataset:
    return wrong_confidences(
        net, x, y, delta=DELTAS, attacks={"bim": attack}, loss_attack=attack, generator=generator()
    )


@pytest.mark.parametrize("defended", [False, True])
def test_records_and_wrong_confidences_say_the_same_of_the_same_points(defended: bool) -> None:
    """Nothing is random in this attack; a defence is attacked through its surrogate and judged itself."""
    net, x, y = net_and_images()
    net = BitDepth(net, bits=3) if defended else net
    goes_on = replace(bim(steps=5), stop_when_reached=False)
    attack: Any = Adaptive(goes_on) if defended else goes_on
    records = evaluate(net, (x, y), {"bim": Planned(attack, DELTAS)})
    mine, its = rejection(of_confidences(net, x, y, attack), level=LEVELS), rejection(records, level=LEVELS)
    for name in its.data_vars:
        np.testing.assert_allclose(mine[name], its[name], rtol=1e-12, err_msg=str(name))
    assert 0 < float(its.awpr[2, 1]) < float(its.awpr_without_rejection[1]) < 1
    for eta in DELTAS:
        worst = worst_case(records, epsilon=eta)
        correct = records.clean_prediction.values == records.label.values
        past = worst.wrong.values & (worst.confidence.values >= np.float32(0.9)) & correct
        assert float(its.awpr.sel(level=0.9, eta=eta)) == past.sum() / correct.sum()


def test_above_a_half_a_wrong_answer_that_is_accepted_is_a_confidence_in_a_wrong_class() -> None:
    """So that AWPR is the share of separation, among the correct ones; without rejection it is below that at 0.3."""
    net, x, y = net_and_images()
    found = wrong_confidences(net, x, y, delta=DELTAS, starts=1, steps=10, generator=generator())
    correct = found.clean_prediction.values == found.label.values
    best = np.nanmax(found.wrong_confidence.values, axis=1)[:, correct]
    result = rejection(found, level=LEVELS)
    for level in (0.8, 0.9, 0.99):
        np.testing.assert_allclose(result.awpr.sel(level=level), (best >= level).mean(1), rtol=1e-12)
    assert ((best >= 0.3).mean(1) >= result.awpr.sel(level=0.3)).all()
    assert (result.awpr.diff("level") <= 0).all()
    assert (result.awpr.diff("eta") >= 0).all()
    assert (result.recall.diff("level") <= 0).all()
    assert (result.awpr <= result.awpr_without_rejection).all()
    at_0 = rejection(found, level=[0.3, 0.9], eta=[0.0, 0.1])
    assert (at_0.awpr.sel(eta=0) == 0).all()
    assert at_0.awpr.sel(eta=0.1).values.tolist() == result.awpr.sel(level=[0.3, 0.9], eta=0.1).values.tolist()


def test_where_no_example_is_correct_there_is_no_share() -> None:
    records = assemble(
        {"one": attacked([[[1, 1]]], [[[0.9, 0.9]]], (0.1,))},
        label=[0, 0],
        clean_prediction=[1, 2],
        clean_confidence=[0.9, 0.4],
    )
    found = rejection(records, level=0.5, eta=0.1)
    assert found.awpr.isnull()
    assert found.recall_upper.isnull()
    assert float(found.recall_of_all) == 0.5


def test_the_result_says_what_made_it() -> None:
    found = rejection(by_hand(), level=0.9, eta=0.1, attacks=["first"], norm="linf")
    configuration = json.loads(found.attrs["configuration"])
    assert configuration["function"] == "rejection"
    assert configuration["options"]["attacks"] == ["first"]
    assert "records" in found.attrs


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 0.0}, "level = 0.0 is out of range: allowed is a number > 0 and <= 1"),
        ({"level": 1.1}, "level = 1.1 is out of range"),
        ({"eta": 0.15}, "eta = 0.15 was not run: allowed is 0, or one of 0.1, 0.2"),
        ({"eta": []}, "eta = [] is not allowed: at least one number is"),
        ({"eta": "far"}, "eta = 'far' is of the wrong type: allowed is a number or a list of them"),
        ({"attacks": "third"}, "attacks = 'third' is unknown"),
        ({"norm": "l2"}, "norm = 'l2' is unknown"),
        ({"confidence": 0}, "confidence = 0.0 is out of range"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        rejection(by_hand(), **({"level": 0.9} | options))


def test_several_norms_need_one_that_is_chosen() -> None:
    records = assemble(
        {
            "one": attacked([[[1, 0]]], [[[0.9, 0.9]]], (0.1,)),
            "two": attacked([[[0, 1]]], [[[0.9, 0.9]]], (1.0,), "l2"),
        },
        label=[0, 0],
        clean_prediction=[0, 0],
        clean_confidence=[0.9, 0.9],
    )
    with pytest.raises(ValueError, match=r"for attacks in the norms l2, linf: allowed is one norm"):
        rejection(records, level=0.9)
    found = rejection(records, level=0.9, norm="l2")
    assert found.eta.values.tolist() == [1.0]
    assert found.awpr.values.tolist() == [0.5]


def test_confidences_have_levels_above_those_of_pure_chance_and_no_norms() -> None:
    net, x, y = net_and_images()
    found = of_confidences(net, x[:5], y[:5], bim(steps=1))
    with pytest.raises(ValueError, match=re.escape("level = 0.1 is out of range: allowed is a number > 0.1 and <= 1")):
        rejection(found, level=0.1)
    with pytest.raises(ValueError, match=re.escape("norm = 'linf' and attacks = None are not allowed here")):
        rejection(found, level=0.5, norm="linf")
    with pytest.raises(TypeError, match="records are of the wrong type dict"):
        rejection({}, level=0.5)  # type: ignore[arg-type]
