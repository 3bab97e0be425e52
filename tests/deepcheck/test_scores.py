"""Records of schema 2: success, the scores of detectors, images that are kept, and what becomes of older files."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from deepcheck import models
from deepcheck.attacks import PGD
from deepcheck.attacks.noise import UniformNoise
from deepcheck.attacks.square import Square
from deepcheck.data import load
from deepcheck.detectors import Confidence, Detector, Mahalanobis
from deepcheck.evaluation import (
    AttackRecord,
    Planned,
    assemble,
    checked,
    curve_area,
    detection,
    evaluate,
    false_positive_rate,
    joined,
    negative_scores,
    positive_scores,
    robust_error,
    robustness_curve,
    scores_of,
    summary,
    test_error,
    threshold_of,
    with_score,
    worst_case,
)
from odeflow.provenance import load as load_result
from odeflow.provenance import save
from tests.deepcheck.devices import on_every_device
from tests.deepcheck.digits_net import Digits, digits_as_tensors, trained_net
from tests.deepcheck.evaluation_cases import SUFFIXES, random_records, some_records

pytestmark = on_every_device


def schema_1(records: xr.Dataset) -> xr.Dataset:
    """Return records as they were written before there was a success, an effort, or a number of the schema."""
    old = records.drop_vars(["success", "effort"])
    del old.attrs["schema"]
    return old


def with_copy(records: xr.Dataset, scale: float = 1.0, shift: float = 0.0) -> xr.Dataset:
    """Return records with a detector "copy", whose score is that of the confidence on another scale."""
    changed = {
        "score": (("detector", *records["confidence"].dims), scale * records["confidence"].values[None] + shift),
        "clean_score": (("detector", "example"), scale * records["clean_confidence"].values[None] + shift),
        "validation_score": (("detector", "validation"), scale * records["validation_confidence"].values[None] + shift),
    }
    return records.assign(
        {name: (dims, values.astype(np.float32)) for name, (dims, values) in changed.items()}
    ).assign_coords(detector=np.array(["copy"], object))


# older files


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_of_schema_1_is_read(tmp_path: Path, suffix: str) -> None:
    records = random_records(0, 12)
    old = load_result(save(schema_1(records), tmp_path / f"old{suffix}"))
    read = checked(old)
    assert read.attrs["schema"] == "2"
    wrong = (read.prediction != read.label).where(read.prediction >= 0, -1)
    np.testing.assert_array_equal(read.success, wrong.transpose(*read.success.dims))
    assert read.effort.values.tolist() == ["", "", ""]
    assert {"success", "effort"}.isdisjoint(old.variables)  # the caller's is not changed
    for name in records.data_vars:
        np.testing.assert_array_equal(read[name], records[name])
    assert robust_error(old, norm="linf", epsilon=0.3) == robust_error(records, norm="linf", epsilon=0.3)
    xr.testing.assert_equal(joined([old.isel(attack=[0]), old.isel(attack=[1, 2])]), joined([old]))


def test_another_schema_is_refused_in_one_line() -> None:
    records = random_records(0, 4)
    with pytest.raises(ValueError, match="records have the schema '3': allowed is 1 or 2; a later deepcheck") as caught:
        checked(records.assign_attrs(schema="3"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="records lack success"):
        checked(records.drop_vars("success"))
    with pytest.raises(ValueError, match="records lack length"):
        checked(schema_1(records).drop_vars("length"))
    with pytest.raises(ValueError, match="records lack clean_score, validation_score, coordinate detector"):
        checked(with_copy(records).drop_vars(["clean_score", "validation_score", "detector"]))


# success


def test_success_is_a_wrong_class_that_was_found() -> None:
    attack = AttackRecord(
        "l2",
        (1.0,),
        np.array([[[0, 1, 1, -1]]]),
        np.array([[[0.5, 0.5, 0.5, np.nan]]]),
        np.array([[[0.1, 0.2, math.inf, np.nan]]]),
    )  # a minimal attack that found nothing has an infinite length
    records = assemble(
        {"nearest": attack}, label=[0, 0, 0, 0], clean_prediction=[0, 0, 0, 0], clean_confidence=[0.5] * 4
    )
    assert records.success.values.ravel().tolist() == [0, 1, 0, -1]
    xr.testing.assert_equal(joined([records]), records)


def test_success_is_what_the_attack_says_where_it_says_it() -> None:
    """An attack with a target has failed where it found another wrong class."""
    values: dict[str, Any] = {
        "prediction": [[[1, 2, -1]]],
        "confidence": [[[0.5, 0.5, np.nan]]],
        "length": [[[0.1, 0.2, np.nan]]],
    }
    attack = AttackRecord("linf", (0.2,), **values, success=np.array([[[1, 0, -1]]]), effort="3 steps")
    clean: dict[str, Any] = {"label": [0] * 3, "clean_prediction": [0] * 3, "clean_confidence": [0.5] * 3}
    records = assemble({"targeted": attack}, **clean)
    assert records.success.values.ravel().tolist() == [1, 0, -1]
    assert records.effort.values.tolist() == ["3 steps"]
    xr.testing.assert_equal(joined([records]), records)
    for success in ([[[1, 0, 0]]], [[[2, 0, -1]]], [[[-1, 0, -1]]]):
        with pytest.raises(ValueError, match="success is not allowed: 1 or 0 where the attack was run, and -1"):
            AttackRecord("linf", (0.2,), **values, success=np.array(success))
    with pytest.raises(ValueError, match=r"success has the shape \(1, 3\): allowed is prediction's, \(1, 1, 3\)"):
        AttackRecord("linf", (0.2,), **values, success=np.array([[1, 0, -1]]))
    with pytest.raises(ValueError, match="success is not allowed"):
        checked(records.assign(success=records.success * 0))


# metrics by any score


@settings(max_examples=12)
@given(
    records=some_records(),
    k=st.integers(-8, 8),
    shift=st.integers(-3, 3),
    definition=st.sampled_from(["per_example", "preprint"]),
)
def test_a_score_on_another_scale_gives_the_same_numbers(
    records: xr.Dataset, k: int, shift: int, definition: Any
) -> None:
    """Only the order of the scores matters: powers of two and whole numbers, so that no rounding makes two equal."""
    scale = 2.0**k
    both = with_copy(records, scale, shift)
    assert test_error(both, score="copy") == test_error(records)
    for c in (0.25, 0.5, 1.0):
        tau = scale * c + shift
        assert np.array_equal(test_error(both, tau=tau, score="copy"), test_error(records, tau=c), equal_nan=True)
        for norm, epsilon in (("linf", 0.3), ("l2", 1.0)):
            options: dict[str, Any] = {"norm": norm, "epsilon": epsilon}
            first = robust_error(both, **options, tau=tau, score="copy", definition=definition)
            second = robust_error(records, **options, tau=c, definition=definition)
            assert np.array_equal(first, second, equal_nan=True)
        curves = [
            robustness_curve(both, norm="linf", tau=tau, score="copy", definition=definition),
            robustness_curve(records, norm="linf", tau=c, definition=definition),
        ]
        np.testing.assert_array_equal(curves[0], curves[1])
        fpr = false_positive_rate(both, tau, norm="linf", epsilon=0.3, score="copy")
        assert np.array_equal(fpr, false_positive_rate(records, c, norm="linf", epsilon=0.3), equal_nan=True)
    worst, expected = (worst_case(both, norm="linf", epsilon=0.4, score=name) for name in ("copy", "confidence"))
    for name in ("prediction", "confidence", "length", "wrong", "attack", "epsilon", "restart"):
        np.testing.assert_array_equal(worst[name], expected[name])
    np.testing.assert_array_equal(worst.score, scale * expected.score + shift)
    np.testing.assert_array_equal(expected.score, expected.confidence)
    areas = [detection(both, norm="l2", epsilon=1.0, score=name).auc.item() for name in ("copy", "confidence")]
    np.testing.assert_array_equal(*areas)


def test_a_summary_by_a_score() -> None:
    records = with_copy(random_records(0, 40), 4.0, -2.0)
    first, second = summary(records, tpr=0.9, score="copy"), summary(records, tpr=0.9)
    assert float(first.tau) == 4 * float(second.tau) - 2
    for name in ("thresholded_test_error", "thresholded_robust_error", "preprint_robust_error", "auc", "robust_error"):
        np.testing.assert_array_equal(first[name], second[name])
    assert threshold_of(records, tpr=0.9, score="copy") == float(first.tau)


def test_a_version_without_the_score_does_not_count() -> None:
    """Of three wrong versions the detector has seen the second alone; without a score there is no attack at all."""
    attack = AttackRecord(
        "linf", (0.3,), np.array([[[1], [2], [1]]]), np.array([[[0.9], [0.6], [0.8]]]), np.full((1, 3, 1), 0.3)
    )
    records = assemble({"pgd": attack}, label=[0], clean_prediction=[0], clean_confidence=[0.7])
    records = with_copy(records)
    records["score"][0, 0, 0, [0, 2]] = np.nan
    worst = worst_case(records, epsilon=0.3, score="copy")
    assert (int(worst.restart[0]), int(worst.prediction[0])) == (1, 2)
    assert worst_case(records, epsilon=0.3).restart.item() == 0
    records["score"][:] = np.nan
    assert not worst_case(records, epsilon=0.3, score="copy").wrong.item()


def test_an_unknown_score_is_refused() -> None:
    records = with_copy(random_records(0, 5))
    for metric in (threshold_of, test_error, positive_scores, summary, scores_of):
        with pytest.raises(
            ValueError, match=r"score = 'copi' is unknown \(did you mean 'copy'\?\): allowed is one of con"
        ):
            metric(records, score="copi")
    with pytest.raises(ValueError, match="score = 'copy' is unknown: allowed is one of confidence"):
        negative_scores(random_records(0, 5), epsilon=0.3, norm="linf", score="copy")
    assert curve_area(robustness_curve(records, norm="linf", score="copy")) > 0


# detectors in an evaluation


PLANNED = {
    "ascent": Planned(PGD("linf", "wrong_confidence", steps=5, relative_step_size=0.4, restarts=3), (0.2, 0.05)),
    "search": Planned(Square("linf", "wrong_confidence", queries=20, restarts=2), (0.1,)),
    "noise": Planned(UniformNoise("l2", "margin", draws=3, restarts=2), (1.0,)),
}


@pytest.fixture(scope="module")
def digits() -> Digits:
    return digits_as_tensors()


@pytest.fixture(scope="module")
def net() -> models.Network:
    return trained_net()


@pytest.fixture(scope="module")
def detectors(net: models.Network, digits: Digits) -> dict[str, Detector]:
    kinds = {"features": Mahalanobis(), "logits": Mahalanobis(of="logits"), "again": Confidence()}
    return {name: one.fit(net, digits.x, digits.y) for name, one in kinds.items()}


@pytest.fixture(scope="module")
def kept(net: models.Network, detectors: dict[str, Detector]) -> xr.Dataset:
    options: dict[str, Any] = {"examples": 30, "validation": 40, "seed": 3}
    return evaluate(net, load("digits"), PLANNED, detectors=detectors, keep_images=True, **options)


def test_a_detector_changes_nothing_else(kept: xr.Dataset, net: models.Network) -> None:
    plain = evaluate(net, load("digits"), PLANNED, examples=30, validation=40, seed=3)
    names = [str(name) for name in plain.data_vars]
    xr.testing.assert_equal(kept[names].drop_vars(["detector", "kept_attack", "kept_epsilon"], errors="ignore"), plain)
    assert checked(kept).identical(kept)
    assert set(kept.data_vars) - set(names) == {
        *("score", "clean_score", "validation_score"),
        *("attacked_image", "attacked_restart", "clean_image", "validation_image"),
    }
    for variable in kept.variables.values():
        assert set(variable.attrs) == {"long_name", "units"}
    assert list(json.loads(kept.attrs["configuration"])["options"]["detectors"]) == ["features", "logits", "again"]
    assert plain.effort.values.tolist() == ["5 steps x 3", "20 queries x 2", "3 draws x 2"]


def test_the_images_are_those_that_were_recorded(kept: xr.Dataset, net: models.Network) -> None:
    """What the net says of a kept image is what the records have at its attack, epsilon and restart."""
    pairs = list(zip(kept.kept_attack.values.tolist(), kept.kept_epsilon.values.tolist(), strict=True))
    assert pairs == [("ascent", 0.05), ("ascent", 0.2), ("search", 0.1), ("noise", 1.0)]
    every = np.arange(30)
    for index, (attack, epsilon) in enumerate(pairs):
        images = torch.tensor(kept.attacked_image[index].values)
        with torch.no_grad():
            confidence, prediction = net(images).softmax(1).max(1)
        cell = kept.sel(attack=attack, epsilon=epsilon)
        restart = kept.attacked_restart[index].values
        np.testing.assert_array_equal(cell.prediction.values[restart, every], prediction)
        np.testing.assert_allclose(cell.confidence.values[restart, every], confidence, rtol=1e-4)
        if attack != "noise":
            length = (images - torch.tensor(kept.clean_image.values)).abs().amax((1, 2, 3))
            np.testing.assert_allclose(cell.length.values[restart, every], length, atol=1e-6)
    assert len({*kept.attacked_restart.values.ravel().tolist()}) > 1  # more than one restart is the best of someone


def test_scores_stand_where_the_images_are_from(kept: xr.Dataset, net: models.Network, detectors: Any) -> None:
    scored = ~np.isnan(kept.score.values)
    assert (scored.sum(3) == (kept.prediction.values >= 0).any(2)).all()  # one restart of each example
    for index, (attack, epsilon) in enumerate((("ascent", 0.05), ("ascent", 0.2), ("search", 0.1), ("noise", 1.0))):
        images = torch.tensor(kept.attacked_image[index].values)
        for name, detector in detectors.items():
            expected = detector.score(net, images).detach().numpy()
            found = kept.score.sel(detector=name, attack=attack, epsilon=epsilon).values
            np.testing.assert_allclose(np.nanmax(found, axis=0), expected, rtol=1e-4)
    np.testing.assert_allclose(kept.clean_score.sel(detector="again"), kept.clean_confidence, rtol=1e-5)
    np.testing.assert_allclose(kept.validation_score.sel(detector="again"), kept.validation_confidence, rtol=1e-5)
    again, confidence = kept.score.sel(detector="again").values, kept.confidence.values
    np.testing.assert_allclose(again[~np.isnan(again)], confidence[~np.isnan(again)], rtol=1e-4)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_detector_made_later_scores_old_attacks(
    kept: xr.Dataset, net: models.Network, detectors: Any, tmp_path: Path, suffix: str
) -> None:
    options: dict[str, Any] = {"examples": 30, "validation": 40, "seed": 3, "keep_images": True}
    records = evaluate(net, load("digits"), PLANNED, **options)
    old = load_result(save(records, tmp_path / f"old{suffix}"))
    for name, detector in detectors.items():
        old = with_score(old, name, detector, net, batch_size=7)
    for name in ("score", "clean_score", "validation_score"):
        np.testing.assert_allclose(old[name], kept[name], rtol=1e-3, atol=1e-3)
    assert old.detector.values.tolist() == ["features", "logits", "again"]
    checked(old)


def test_the_images_go_where_nobody_asked_for_them(net: models.Network, detectors: Any, kept: xr.Dataset) -> None:
    records = evaluate(net, load("digits"), PLANNED, detectors=detectors, examples=30, validation=40, seed=3)
    assert "kept" not in records.dims
    xr.testing.assert_equal(records, kept.drop_dims("kept").drop_vars(["clean_image", "validation_image"]))
    with pytest.raises(ValueError, match=r"records lack attacked_image, .*: allowed are those of evaluate\(..., keep"):
        with_score(records, "more", detectors["logits"], net)


def test_what_is_taken_apart_is_joined_with_scores_and_images(kept: xr.Dataset) -> None:
    def part(*names: str) -> xr.Dataset:
        return kept.sel(attack=list(names)).isel(kept=np.flatnonzero(np.isin(kept.kept_attack, names)))

    xr.testing.assert_equal(joined([part("ascent"), part("search", "noise")]), kept)
    xr.testing.assert_equal(
        joined([part("search"), part("noise"), part("ascent")]).sel(attack=kept.attack).isel(kept=[2, 3, 0, 1]), kept
    )
    with pytest.raises(
        ValueError, match=r"parts have the detectors \['features', .*\] and \['logits'\]: allowed are the"
    ):
        joined([part("ascent"), part("search").sel(detector=["logits"])])
    with pytest.raises(ValueError, match="parts differ in clean_score"):
        joined([part("ascent"), part("search").assign(clean_score=kept.clean_score * 2)])


def test_a_selection_of_attacks_can_be_scored(kept: xr.Dataset, net: models.Network, detectors: Any) -> None:
    few = kept.sel(attack=["noise"]).drop_vars(["score", "clean_score", "validation_score", "detector"])
    scored = with_score(few, "features", detectors["features"], net)
    expected = kept.score.sel(attack=["noise"], detector=["features"])
    np.testing.assert_allclose(scored.score, expected, rtol=1e-4)


def test_what_cannot_be_scored_is_refused(kept: xr.Dataset, net: models.Network, detectors: Any) -> None:
    for name in ("confidence", "features", ""):
        with pytest.raises(ValueError, match=f"name = '{name}' is not allowed: a text other than confidence, features"):
            with_score(kept, name, detectors["features"], net)
    with pytest.raises(ValueError, match="was not fitted"):
        with_score(kept, "new", Mahalanobis(), net)
    with pytest.raises(
        ValueError, match=r"predicts other classes than the records on .* of 30 test images: allowed is"
    ):
        with_score(kept, "new", detectors["features"], models.build("conv_small", 10, (1, 8, 8)))


def test_a_detector_that_was_not_fitted_is_refused_before_any_attack(net: models.Network) -> None:
    def model(x: Tensor) -> Tensor:
        raise AssertionError("the model was called")

    with pytest.raises(ValueError, match="was not fitted"):
        evaluate(model, load("digits"), PLANNED, detectors={"new": Mahalanobis()}, examples=5, validation=5)


# images as tensors


def test_tensors_are_evaluated_as_the_data_set_is(net: models.Network, digits: Digits) -> None:
    x, y = digits.test.clone(), digits.labels.clone()
    given = evaluate(net, (x, y), PLANNED, examples=30, validation=40, seed=3)
    named = evaluate(net, load("digits"), PLANNED, examples=30, validation=40, seed=3)
    xr.testing.assert_equal(given, named)
    assert torch.equal(x, digits.test)
    data = json.loads(given.attrs["configuration"])["options"]["data"]
    assert data["name"] == "tensors"
    assert len(data["sha256"]) == 64
    few = evaluate(net, (x[:12], y[:12]), {"noise": PLANNED["noise"]})
    assert (few.sizes["example"], few.sizes["validation"]) == (12, 0)
    some = evaluate(net, (x[:12].half(), y[:12]), {"noise": PLANNED["noise"]}, validation=5)
    assert (some.sizes["example"], some.sizes["validation"]) == (7, 5)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (lambda x, y: (x * 255, y), ValueError, "divide bytes by 255"),
        (lambda x, y: (x, y.int()), TypeError, "labels are of the wrong type torch.int32"),
        (lambda x, y: (x, y[:3]), ValueError, "do not go together"),
        (lambda x, _: x, TypeError, r"type \w+: allowed are Images, or a pair of tensors \(x, y\)"),
        (lambda x, y: (x.numpy(), y.numpy()), TypeError, "images are of the wrong type ndarray"),
        (lambda x, y: (x[:0], y[:0]), ValueError, "examples = 0 is out of range"),
        (lambda x, y: (x[:20], y[:20]), ValueError, "more than the 20 test images of the tensors given"),
    ],
)
def test_tensors_that_are_no_images_are_refused(
    images: Any, error: type[Exception], message: str, net: models.Network, digits: Digits
) -> None:
    examples = 30 if "20 test" in message else None
    with pytest.raises(error, match=message):
        evaluate(net, images(digits.test[:50], digits.labels[:50]), PLANNED, examples=examples)
