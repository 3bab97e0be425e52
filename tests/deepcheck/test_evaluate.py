"""A whole evaluation: which attacks, on which images, what is recorded, and which numbers come out."""

import json
import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.attacks.noise import UniformNoise
from deepcheck.attacks.norms import Norm
from deepcheck.attacks.registry import MEASURES
from deepcheck.attacks.square import Square
from deepcheck.data import Images, load
from deepcheck.evaluation import (
    THREATS,
    AttackRecord,
    Planned,
    Threats,
    assemble,
    checked,
    evaluate,
    false_positive_rate,
    format_summary,
    negative_confidences,
    positive_confidences,
    robust_error,
    roc_auc,
    suite,
    summary,
    test_error,
    threshold_of,
)
from deepcheck.evaluation.run import predictions, split
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.evaluation_cases import random_records

pytestmark = on_every_device


@pytest.fixture(scope="module")
def digits() -> Images:
    return load("digits")


class Net(nn.Module):
    """A trained linear net behind dropout, which would show if it were attacked in train mode."""

    def __init__(self, digits: Images) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.linear = models.build("linear", 10, digits.shape, generator=generator)
        self.dropout = nn.Dropout(0.5)
        x, y = torch.tensor(digits.train_images).float() / 255, torch.tensor(digits.train_labels)
        optimiser = torch.optim.Adam(self.parameters(), lr=0.05)
        for _ in range(40):
            optimiser.zero_grad()
            nn.functional.cross_entropy(self.linear(x), y).backward()
            optimiser.step()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(x))


@pytest.fixture(scope="module")
def net(digits: Images) -> Net:
    return Net(digits)


PLANNED = {
    "ascent": Planned(PGD("linf", steps=5, relative_step_size=0.4, restarts=2), (0.1, 0.05)),
    "far": Planned(PGD("l2", "wrong_confidence", steps=4, relative_step_size=0.3), (1.0,)),
    "search": Planned(Square("linf", "wrong_confidence", queries=20), (0.1,)),
    "noise": Planned(UniformNoise("l1", "margin", draws=3, restarts=2), (4.0,)),
}


@pytest.fixture(scope="module")
def records(net: Net, digits: Images) -> xr.Dataset:
    return evaluate(net, digits, PLANNED, examples=30, validation=40, seed=3)


def test_records_say_what_was_run(records: xr.Dataset, digits: Images) -> None:
    assert dict(records.sizes) == {"attack": 4, "epsilon": 4, "restart": 2, "example": 30, "validation": 40}
    assert records.attack.values.tolist() == ["ascent", "far", "search", "noise"]
    assert records.norm.values.tolist() == ["linf", "l2", "linf", "l1"]
    assert records.objective.values.tolist() == ["cross_entropy", "wrong_confidence", "wrong_confidence", "margin"]
    assert records.epsilon.values.tolist() == [0.05, 0.1, 1.0, 4.0]
    run = (records.prediction.values >= 0).all(-1)
    expected = np.zeros((4, 4, 2), bool)
    expected[0, :2] = expected[1, 2, 0] = expected[2, 1, 0] = expected[3, 3] = True
    np.testing.assert_array_equal(run, expected)
    np.testing.assert_array_equal(records.label, digits.test_labels[:30])
    np.testing.assert_array_equal(records.validation_label, digits.test_labels[-40:])
    assert np.nanmax(records.length.sel(epsilon=0.05)) <= 0.05 * (1 + 1e-5)
    assert float(records.clean_confidence.min()) > 0.1  # ten classes
    xr.testing.assert_identical(checked(records), records)


def test_attributes_are_what_is_needed_to_repeat_it(records: xr.Dataset) -> None:
    assert records.attrs["seed"] == "3"
    options = json.loads(records.attrs["configuration"])["options"]
    assert options["data"] == {"name": "digits", "examples": 30, "validation": 40}
    assert options["attacks"]["search"] == {"attack": repr(PLANNED["search"].attack), "epsilons": [0.1]}
    assert list(options["attacks"]) == list(PLANNED)


def test_the_configuration_is_added_to_the_attributes(net: Net, digits: Images) -> None:
    planned = {"noise": PLANNED["noise"]}
    records = evaluate(net, digits, planned, examples=2, validation=0, configuration={"checkpoint": "a.safetensors"})
    assert json.loads(records.attrs["configuration"])["options"]["checkpoint"] == "a.safetensors"
    assert records.sizes["validation"] == 0


def test_clean_predictions_are_those_of_eval_mode(records: xr.Dataset, net: Net, digits: Images) -> None:
    x = torch.tensor(digits.test_images).float() / 255
    p = net.linear(x).detach().softmax(1).numpy()
    np.testing.assert_array_equal(records.clean_prediction, p[:30].argmax(1))
    np.testing.assert_allclose(records.clean_confidence, p[:30].max(1), rtol=1e-5)
    np.testing.assert_array_equal(records.validation_prediction, p[-40:].argmax(1))
    np.testing.assert_allclose(records.validation_confidence, p[-40:].max(1), rtol=1e-5)


def test_an_attack_s_record_is_that_of_the_attack_alone(records: xr.Dataset, net: Net, digits: Images) -> None:
    for name in reversed(PLANNED):
        alone = evaluate(net, digits, {name: PLANNED[name]}, examples=30, validation=40, seed=3)
        for variable in ("prediction", "confidence", "length"):
            expected = records[variable].sel(attack=[name], epsilon=alone.epsilon).isel(restart=alone.restart)
            np.testing.assert_array_equal(alone[variable], expected)


def test_the_batch_size_does_not_matter(records: xr.Dataset, net: Net, digits: Images) -> None:
    batches = evaluate(net, digits, PLANNED, examples=30, validation=40, seed=3, batch_size=7)
    np.testing.assert_array_equal(batches.prediction, records.prediction)
    np.testing.assert_allclose(batches.confidence, records.confidence, rtol=1e-4)
    np.testing.assert_allclose(batches.length, records.length, rtol=1e-4)
    np.testing.assert_allclose(batches.validation_confidence, records.validation_confidence, rtol=1e-5)


def test_the_seed_decides(records: xr.Dataset, net: Net, digits: Images) -> None:
    planned = {name: PLANNED[name] for name in ("ascent", "noise")}
    same = evaluate(net, digits, planned, examples=30, validation=40, seed=3)
    other = evaluate(net, digits, planned, examples=30, validation=40, seed=4)
    for name in planned:
        mine, theirs = (one.confidence.sel(attack=name).dropna("epsilon", how="all").values for one in (same, other))
        np.testing.assert_array_equal(mine, records.confidence.sel(attack=name, epsilon=same.epsilon).dropna("epsilon"))
        assert not np.array_equal(mine, theirs)
    np.testing.assert_array_equal(same.clean_confidence, other.clean_confidence)


def test_two_attacks_do_not_share_their_random_numbers(net: Net, digits: Images) -> None:
    records = evaluate(net, digits, dict.fromkeys(("one", "two"), PLANNED["noise"]), examples=10, validation=0)
    one, two = records.confidence.values
    assert not np.any(one == two)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_the_mode_it_was_in(training: bool, net: Net, digits: Images) -> None:
    modes = {"": training, "dropout": not training}
    net.train(training)
    net.dropout.train(not training)
    evaluate(net, digits, {"far": PLANNED["far"]}, examples=3, validation=3)
    assert {name: module.training for name, module in net.named_modules() if name in modes} == modes
    predictions(net, torch.zeros(1, *digits.shape))
    assert net.training is training
    net.train()


def test_no_example_is_in_both_parts(digits: Images) -> None:
    count = len(digits.test_images)
    (x, y), (x_apart, y_apart) = split(digits, count - 100, 100)
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    assert 0 <= float(x.min()) < float(x.max()) <= 1
    np.testing.assert_array_equal(torch.cat([y, y_apart]), digits.test_labels)
    np.testing.assert_allclose(torch.cat([x, x_apart]) * 255, digits.test_images, rtol=1e-6)
    assert [len(part) for part in split(digits, 5, 0)[1]] == [0, 0]


def test_predictions_of_no_images(net: Net, digits: Images) -> None:
    prediction, confidence = predictions(net, torch.zeros(0, *digits.shape))
    assert prediction.shape == confidence.shape == (0,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"examples": 0}, "examples = 0 is out of range: allowed is a whole number >= 1"),
        ({"validation": -1}, "validation = -1 is out of range: allowed is a whole number >= 0"),
        (
            {"examples": 300, "validation": 60},
            "examples = 300 and validation = 60 are more than the 359 test images of ",
        ),
        ({"seed": -1}, "seed = -1 is out of range"),
        ({"batch_size": 0}, "batch_size = 0 is out of range: allowed is a whole number >= 1"),
        ({"planned": {}}, r"planned = \[\] is not allowed"),
        ({"planned": {"clean": PLANNED["far"]}}, r"planned = \['clean'\] is not allowed: .* not named '' or 'clean'"),
    ],
)
def test_bad_input_is_refused_before_any_attack(options: dict[str, Any], message: str, digits: Images) -> None:
    def model(x: Tensor) -> Tensor:
        raise AssertionError("the model was called")

    given = {"planned": PLANNED, "examples": 10, "validation": 10, **options}
    with pytest.raises(ValueError, match=message):
        evaluate(model, digits, **given)


def test_a_model_with_the_wrong_output_is_refused(digits: Images) -> None:
    with pytest.raises(ValueError, match=r"logits of shape \(10,\) for 10 images: allowed is \(n, K\)"):
        evaluate(lambda x: x.flatten(1).sum(1), digits, PLANNED, examples=10, validation=0)
    with pytest.raises(ValueError, match="not finite"):
        evaluate(lambda x: math.nan * x.flatten(1), digits, PLANNED, examples=10, validation=0)


@pytest.mark.parametrize(
    ("epsilons", "error", "message"),
    [
        ((), ValueError, r"epsilon = \[\] is not allowed: at least one number is"),
        ((-0.1,), ValueError, r"epsilon = -0.1 is not allowed: a finite number >= 0 is"),
        ((math.inf,), ValueError, "epsilon = inf is not allowed"),
        ((0.1, 0.1), ValueError, r"epsilon = \[0.1, 0.1\] is not allowed: different numbers are"),
        (("a",), TypeError, "epsilon = .*: allowed is a number or a list of them"),
    ],
)
def test_sizes_that_cannot_be_run_are_refused(epsilons: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Planned(PLANNED["far"].attack, epsilons)


# the suite


@pytest.mark.parametrize("name", THREATS)
def test_a_suite_has_every_norm_at_the_sizes_of_the_threats(name: str) -> None:
    threats, planned = THREATS[name], suite(name)
    sizes = {"linf": threats.linf, "l2": (threats.l2,), "l1": (threats.l1,), "l0": (threats.l0,)}
    expected = {
        f"{kind}_{norm}": size for norm, size in sizes.items() for kind in ("pgd", "margin", "targeted", "confidence")
    }
    expected |= {"curve_linf": threats.curve, "curve_confidence": threats.curve}
    expected |= {"square_linf": threats.linf, "square_l2": (threats.l2,), "noise_linf": threats.linf}
    assert {name: one.epsilons for name, one in planned.items()} == expected
    for attack, one in planned.items():
        kind, norm = attack.split("_")
        assert isinstance(one.attack.norm, Norm)
        assert one.attack.norm.name == ("linf" if norm == "confidence" else norm)
        wanted = {"pgd": "cross_entropy", "margin": "margin", "targeted": "targeted_margin"}.get(
            kind, "wrong_confidence"
        )
        wanted = "cross_entropy" if attack == "curve_linf" else wanted
        assert one.attack.objective.name == wanted  # type: ignore[attr-defined]


def test_steps_restarts_and_queries_are_those_of_the_table() -> None:
    planned = suite("mnist", steps=200, restarts=3, queries=500)
    steps = {name: one.attack.steps for name, one in planned.items() if isinstance(one.attack, PGD)}
    norms = ("linf", "l2", "l1", "l0")
    assert steps == {
        **{f"{kind}_{norm}": 40 for norm in norms for kind in ("pgd", "margin", "targeted")},
        **{f"confidence_{norm}": 200 for norm in norms},
        "curve_linf": 40,
        "curve_confidence": 40,
    }
    restarts = {name: one.attack.restarts for name, one in planned.items()}  # type: ignore[attr-defined]
    once = {f"targeted_{norm}": 9 for norm in norms}
    once |= {"curve_linf": 1, "curve_confidence": 2, "square_linf": 1, "square_l2": 1, "noise_linf": 1}
    assert restarts == {name: once.get(name, 3) for name in planned}
    square, noise = planned["square_l2"].attack, planned["noise_linf"].attack
    assert isinstance(square, Square)
    assert isinstance(noise, UniformNoise)
    assert (square.queries, noise.draws) == (500, 10)
    assert not planned["pgd_linf"].attack.stop_when_reached  # type: ignore[attr-defined]


def test_what_can_be_left_out_of_a_suite() -> None:
    threats = Threats(linf=(0.1,), l2=1.0, l1=2.0, l0=3.0)
    names = set(suite(threats)) ^ set(suite(replace(threats, curve=(0.05,))))
    assert names == {"curve_linf", "curve_confidence"}
    assert set(suite(threats)) - set(suite(threats, squares=False)) == {"square_linf", "square_l2"}
    assert {field.name for field in fields(Threats)} == {*MEASURES, "curve"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"threats": "cifar"},
            ValueError,
            r"threats = 'cifar' is unknown \(did you mean 'cifar10'\?\): allowed is one",
        ),
        ({"threats": "svhn"}, ValueError, "threats = 'svhn' is unknown: allowed is one of mnist, digits, cifar10"),
        ({"threats": 3}, TypeError, "threats = 3 is of the wrong type"),
        ({"steps": 9}, ValueError, "steps = 9 is out of range: allowed is a whole number >= 10"),
        ({"restarts": 0}, ValueError, "restarts = 0 is out of range: allowed is a whole number >= 1"),
        ({"queries": 49}, ValueError, "queries = 49 is out of range: allowed is a whole number >= 50"),
    ],
)
def test_a_suite_that_cannot_be_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        suite(**{"threats": "mnist", **options})


def test_the_whole_suite_runs_and_more_attacks_never_lower_the_robust_error(net: Net, digits: Images) -> None:
    planned = suite("digits", steps=10, restarts=2, queries=50)
    records = evaluate(net, digits, planned, examples=25, validation=60)
    assert records.attack.values.tolist() == list(planned)
    tau = threshold_of(records)
    for norm, epsilon in (("linf", 0.2), ("linf", 0.3), ("l2", 1.0)):
        names = [str(name) for name in records.attack.values[records.norm.values == norm]]
        for threshold in (0.0, tau):
            errors = [
                robust_error(records, epsilon=epsilon, norm=norm, attacks=names[:count], tau=threshold)
                for count in range(1, len(names) + 1)
                if any(epsilon in planned[name].epsilons for name in names[:count])
            ]
            assert errors == sorted(errors)
            once = robust_error(records.isel(restart=[0]), epsilon=epsilon, norm=norm, tau=threshold)
            assert errors[-1] >= once >= 0
    rows = summary(records)
    linf = rows.robust_error.values[rows.norm.values == "linf"]
    assert rows.epsilon.values[rows.norm.values == "linf"].tolist() == [0.05, 0.1, 0.15, 0.2, 0.3]
    assert linf.tolist() == sorted(linf)
    assert linf[-1] > 2 * float(rows.test_error)  # a linear net is no match for it


# the summary


def test_the_summary_has_the_numbers_of_the_metrics() -> None:
    records = random_records(0, 40)
    result = summary(records, tpr=0.9)
    tau = threshold_of(records, tpr=0.9)
    assert float(result.tau) == tau
    assert 0 < tau < 1
    assert float(result.test_error) == test_error(records)
    assert float(result.thresholded_test_error) == test_error(records, tau=tau)
    assert int(result.examples) == 40
    threats = list(zip(result.norm.values.tolist(), result.epsilon.values.tolist(), strict=True))
    assert threats == [("linf", 0.1), ("linf", 0.2), ("linf", 0.3), ("linf", 0.4), ("l2", 1.0)]
    for row, (norm, epsilon) in enumerate(threats):
        one = result.isel(threat=row)
        options: dict[str, Any] = {"norm": norm, "epsilon": epsilon}
        assert float(one.robust_error) == robust_error(records, **options)
        assert float(one.thresholded_robust_error) == robust_error(records, tau=tau, **options)
        assert float(one.preprint_robust_error) == robust_error(records, tau=tau, definition="preprint", **options)
        auc = roc_auc(positive_confidences(records), negative_confidences(records, **options))
        assert float(one.auc) == auc
    assert len({float(value) for value in result.thresholded_robust_error}) > 1
    assert json.loads(result.attrs["configuration"])["options"] == {"tpr": 0.9, "score": "confidence"}


def test_the_summary_of_four_examples() -> None:
    """The example of robust_error's documentation, with tau = 0.8 from one validation image."""
    ascent = AttackRecord(
        "linf", (0.3,), np.array([[[0, 1, 1, 1]]]), np.array([[[0.9, 0.9, 0.5, 0.9]]]), np.full((1, 1, 4), 0.3)
    )
    records = assemble(
        {"ascent": ascent},
        label=[0, 0, 0, 0],
        clean_prediction=[0, 0, 0, 1],
        clean_confidence=[0.9, 0.9, 0.9, 0.6],
        validation_label=[0],
        validation_prediction=[0],
        validation_confidence=[0.8],
    )
    result = summary(records)
    assert float(result.tau) == pytest.approx(0.8)
    assert (float(result.test_error), float(result.thresholded_test_error)) == (0.25, 0)
    assert result.robust_error.values.tolist() == [0.75]
    assert result.thresholded_robust_error.values.tolist() == [0.5]
    assert result.preprint_robust_error.values.tolist() == [1 / 3]
    assert format_summary(result).splitlines() == [
        "test error 25.00 %, at tau = 0.8000 0.00 %, of 4 examples",
        "  norm  epsilon     RErr  RErr(tau)  preprint  ROC AUC",
        f"  linf      0.3    75.00      50.00     33.33{result.auc.item():9.3f}",
    ]


def distal_records(n: int) -> xr.Dataset:
    """Noise of two kinds, n images each: accepted all without an attack, and half with one; or none, and all."""
    confidence = np.array([[0.5] * n + [1.0] * n, [1.0] * (2 * n)])
    confidence[1, : n // 2] = 0.1
    attack = AttackRecord(
        "linf", (0.2,), np.zeros((1, 1, 2 * n), int), confidence[1][None, None], np.zeros((1, 1, 2 * n))
    )
    made = assemble(
        {"distal": attack},
        label=np.full(2 * n, -1),
        clean_prediction=np.zeros(2 * n, int),
        clean_confidence=confidence[0],
    )
    return made.assign_coords(noise=("example", np.repeat(np.array(["uniform", "smooth"], object), n)))


def test_the_summary_of_distal_examples() -> None:
    records, distal = random_records(0, 10), distal_records(8)
    result = summary(records, distal, tpr=0.6)
    tau = float(result.tau)
    assert 0.5 < tau <= 1
    assert result.noise.values.tolist() == ["uniform", "smooth"]
    assert result.noise_fpr.values.tolist() == [0, 1]
    assert result.distal_fpr.values.tolist() == [0.5, 1]
    for kind in ("uniform", "smooth"):
        part = distal.isel(example=np.flatnonzero(distal.noise == kind))
        one = result.isel(noise=result.noise.values.tolist().index(kind))
        assert float(one.distal_fpr) == false_positive_rate(part, tau, epsilon=0.2)
    assert format_summary(result).splitlines()[-2:] == [
        "uniform noise: accepted 0.00 %; distal adversarial examples: 50.00 %",
        "smooth noise: accepted 100.00 %; distal adversarial examples: 100.00 %",
    ]
    assert "noise" not in summary(records)


def test_every_variable_of_the_summary_says_what_it_is() -> None:
    result = summary(random_records(0, 10), distal_records(2))
    for name in (*result.data_vars, "epsilon", "norm", "noise"):
        assert result[name].attrs["long_name"], name
        assert result[name].attrs["units"] == "1"


def test_what_has_no_summary_is_refused() -> None:
    records = random_records(0, 10)
    with pytest.raises(ValueError, match="of 0 validation examples none is classified correctly"):
        summary(records.isel(validation=slice(0)))
    with pytest.raises(ValueError, match=r"tpr = 1.5 is out of range: allowed is \(0, 1\]"):
        summary(records, tpr=1.5)
    with pytest.raises(TypeError, match="records are of the wrong type dict"):
        summary({})  # type: ignore[arg-type]
