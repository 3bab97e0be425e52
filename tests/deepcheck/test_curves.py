"""Curves are the rates that they show: of errors over epsilon, and of detection over thresholds."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from scipy.stats import mannwhitneyu

from deepcheck.evaluation.detection import (
    detection,
    false_positive_rate,
    negative_confidences,
    positive_confidences,
    roc,
    roc_auc,
)
from deepcheck.evaluation.robustness import Definition, curve_area, robust_error, robustness_curve
from deepcheck.evaluation.thresholds import test_error
from tests.deepcheck.evaluation_cases import definitions, quick, random_records, scores, some_records, taus, versions

# --- curves ---


@quick
@given(some_records(), taus, definitions)
def test_a_curve_is_the_robust_errors_from_the_test_error_up(
    records: xr.Dataset, tau: float, definition: Definition
) -> None:
    curve = robustness_curve(records, norm="linf", tau=tau, definition=definition)
    np.testing.assert_array_equal(curve.epsilon, [0, 0.1, 0.2, 0.3, 0.4])
    np.testing.assert_equal(float(curve[0]), test_error(records, tau=tau))
    expected = [
        robust_error(records, norm="linf", epsilon=e, tau=tau, definition=definition) for e in curve.epsilon.values
    ]
    np.testing.assert_array_equal(curve, expected)
    rising = curve.values[~np.isnan(curve.values)]
    assert np.all(np.diff(rising) >= 0)
    errors = np.nan_to_num(curve.values * curve.accepted.values)
    np.testing.assert_allclose(errors, errors.round(), atol=1e-9)


def test_a_curve_of_one_attack_has_its_epsilons() -> None:
    curve = robustness_curve(random_records(0, 5), norm="linf", attacks="late")
    np.testing.assert_array_equal(curve.epsilon, [0, 0.3, 0.4])
    assert curve.name == "robust_error"
    for part in (curve, curve.epsilon, curve.accepted):
        assert part.attrs["units"] == "1"
        assert part.attrs["long_name"]
    assert '"late"' in curve.attrs["configuration"]
    assert "records" in curve.attrs


def test_the_area_is_the_mean_height() -> None:
    epsilon = np.array([0.0, 0.1, 0.4, 1.0])
    line = xr.DataArray(0.2 + 0.6 * epsilon, dims="epsilon", coords={"epsilon": epsilon})
    assert curve_area(line) == pytest.approx(0.5, rel=1e-14)  # exact for straight lines
    assert curve_area(0 * line + 0.3) == pytest.approx(0.3, rel=1e-14)
    assert math.isnan(curve_area(line.where(epsilon > 0)))
    with pytest.raises(ValueError, match="two or more increasing"):
        curve_area(line[:1])
    with pytest.raises(ValueError, match="two or more increasing"):
        curve_area(line[::-1])
    with pytest.raises(ValueError, match="one dim epsilon"):
        curve_area(line.rename(epsilon="alpha"))


# --- detection ---


@quick
@given(scores, scores)
def test_the_area_is_mann_whitneys_and_sklearns(positives: list[float], negatives: list[float]) -> None:
    from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]

    area = roc_auc(positives, negatives)
    u = mannwhitneyu(positives, negatives, method="asymptotic").statistic if len({*positives, *negatives}) > 1 else None
    if u is not None:
        assert area == u / (len(positives) * len(negatives))
    labels = [1] * len(positives) + [0] * len(negatives)
    assert area == pytest.approx(roc_auc_score(labels, positives + negatives), rel=1e-12)
    assert area + roc_auc(negatives, positives) == pytest.approx(1, rel=1e-14)  # swap the classes


@quick
@given(scores, scores)
def test_the_curve_is_the_rates_at_every_threshold(positives: list[float], negatives: list[float]) -> None:
    from sklearn.metrics import roc_curve

    curve = roc(positives, negatives)
    for fpr, tpr, threshold in zip(curve.fpr.values, curve.tpr.values, curve.threshold.values, strict=True):
        assert fpr == sum(c >= threshold for c in negatives) / len(negatives)
        assert tpr == sum(c >= threshold for c in positives) / len(positives)
        assert fpr == (false_positive_rate(negatives, threshold) if threshold < math.inf else 0)
    labels = [1] * len(positives) + [0] * len(negatives)
    other = roc_curve(labels, positives + negatives, drop_intermediate=False)
    for name, expected in zip(("fpr", "tpr", "threshold"), other, strict=True):
        np.testing.assert_allclose(curve[name], expected, rtol=1e-12)
    assert float(curve.auc) == pytest.approx(np.trapezoid(curve.tpr, curve.fpr), rel=1e-12)


def test_nothing_to_detect() -> None:
    assert math.isnan(roc_auc([0.5], []))
    curve = roc([0.5, 0.6], [])
    assert np.isnan(curve.fpr).all()
    assert math.isnan(curve.auc)
    np.testing.assert_array_equal(curve.tpr, [0, 0.5, 1])
    assert math.isnan(false_positive_rate([], 0.5))


@quick
@given(some_records(), taus)
def test_negatives_are_adversarial_examples_of_what_was_correct(records: xr.Dataset, tau: float) -> None:
    expected = []
    for n in range(records.sizes["example"]):
        y = int(records.label[n])
        bad = [c for c, prediction in versions(records, n, "linf", 0.3) if prediction != y]
        if bad and int(records.clean_prediction[n]) == y:
            expected.append(max(bad))
    assert negative_confidences(records, norm="linf", epsilon=0.3).tolist() == expected
    rate = sum(c >= tau for c in expected) / len(expected) if expected else math.nan
    np.testing.assert_equal(false_positive_rate(records, tau, norm="linf", epsilon=0.3), rate)
    correct = records.clean_prediction == records.label
    assert positive_confidences(records).tolist() == records.clean_confidence.values[correct].tolist()
    curve = detection(records, norm="linf", epsilon=0.3)
    xr.testing.assert_equal(curve, roc(records.clean_confidence.values[correct], expected))


@quick
@given(some_records(no_class=True))
def test_all_images_of_no_class_are_negatives(records: xr.Dataset) -> None:
    found = negative_confidences(records, norm="linf", epsilon=0.4)
    chosen = records.isel(attack=records.norm.values == "linf").confidence.max(["attack", "epsilon", "restart"])
    np.testing.assert_array_equal(found, np.fmax(chosen, records.clean_confidence))
    assert test_error(records) == 1
    assert positive_confidences(records).size == 0
    clean = random_records(0, 30)
    curve = detection(clean, negatives=records, norm="linf", epsilon=0.4)
    assert float(curve.auc) == roc_auc(positive_confidences(clean), found)


def test_bad_scores() -> None:
    with pytest.raises(ValueError, match="positives have the value nan"):
        roc_auc([math.nan], [0.5])
    with pytest.raises(ValueError, match=r"negatives have the shape \(1, 1\)"):
        roc([0.5], [[0.5]])
    with pytest.raises(TypeError, match="with an array of confidences they are not allowed"):
        false_positive_rate([0.5], 0.5, epsilon=0.3)
    with pytest.raises(TypeError, match="epsilon = None with records"):
        false_positive_rate(random_records(0, 3), 0.5)


def test_whole_numbers_are_scores_too() -> None:
    assert false_positive_rate([0, 1], 0.5) == 0.5
